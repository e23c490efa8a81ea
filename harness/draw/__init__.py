"""What is tried: random networks, layers and the numbers that flow through them, and the smallest case that still shows a finding.

A seed and the names of layers come in, or a candidate's layer; cases and probes go out, each of which rebuilds its arrays bit for bit.

May use: reference, adapters, wording, process, truth, proof, judge.
"""
