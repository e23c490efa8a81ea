"""What a run found, as people and programs read it: terminal, JSON, Markdown, a page, a script for each finding; and back from disk.

Judgements and counts come in and become findings and results; a report, its folder and its text go out.

May use: reference, adapters, wording, process, truth, proof, judge, draw.
"""
