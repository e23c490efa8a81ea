"""`check`: whether a layer or head that somebody wrote has the right backward.

A candidate and the layer that it is like come in, or the candidate alone, whose own forward is then the truth; a report goes out.

May use: reference, adapters, wording, process, truth, proof, judge, draw, report.
"""
