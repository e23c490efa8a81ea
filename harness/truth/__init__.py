"""Derivatives without a rule: complex step, extrapolated differences, one-sided derivatives, random rounding, exact kinds of number.

A function that can be evaluated comes in; its derivatives, what they may be off by, and how much rounding changes them go out.

May use: reference, adapters, wording, process.
"""
