"""What became of one run in another, or of a run beside what a baseline accepts, in the forms that CI shows.

The data of reports come in, from files, folders and campaigns; lines with a weight go out: worse, to look at, better, explained by chance.

May use: reference, adapters, wording, process, truth, proof, judge, draw, report, check, gradients, verify.
"""
