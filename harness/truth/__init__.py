"""Derivatives without a rule: complex step, extrapolated differences, one-sided derivatives, random rounding, exact kinds of number.

A function that can be evaluated comes in; its derivatives, what they may be off by, and how much rounding changes them go out. This is
the ground floor of the harness: it uses backproof.reference, the calls of backproof.adapters, and nothing else of the package.
"""
