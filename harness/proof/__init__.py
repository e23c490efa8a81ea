"""`prove`: whether a layer's hand-derived rule is itself right, by methods that share no derivation with it.

A layer and the shapes of its inputs come in, a `Proof` goes out.

May use: reference, adapters, wording, process, truth.
"""
