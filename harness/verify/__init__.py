"""`verify`: whether the frameworks differentiate random networks rightly; campaigns, which go on after whatever ended them.

The names of adapters and layers, a seed and a number of cases come in; a report goes out, and what was examined lies in a store.

May use: reference, adapters, wording, process, truth, proof, judge, draw, report.
"""
