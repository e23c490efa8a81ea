"""Is a layer's backward right? One path for every product, from the numbers of a call to a verdict with its reason.

The trace of a layer comes in: what it was given, what it answered. Judgements go out, each a certificate of one tensor (difference and
bound, entry by entry) with its verdict, what excuses it (`known/`) and what explains it (`mistakes/`).

May use: reference, adapters, wording, process, truth, proof.
"""
