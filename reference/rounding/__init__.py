"""Rounded arithmetic: a value together with a rigorous bound on what floating point may do to it.

A `Rounded` array is a ball. Its invariant: the exact result of the expression, and every result that an evaluation
in the ball's precision may give under the standard model, lie within `bound` of `value`. The model (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2nd ed., sections 2.2, 3.1 and 3.5): fl(a op b) = (a op b)(1 + d) + e with
|d| <= u and |e| <= the underflow term, sums of length n in any order within gamma_n = n u / (1 - n u).

Every rule has the same three parts: what the operands' bounds do to the result, the candidate's rounding of any point of
the ball, and our own rounding of `value` in float64.

precision       the number formats, and what each loses in one operation
standard_model  what an operation and a sum in a precision are off by
silence         NumPy's floating-point warnings, silenced
dispatch        the way from NumPy's operators and functions to the rules; arrays that bring rules of their own
ball            the class `Rounded`, and the `Arithmetic` that balls are in
comparison      comparisons: true, false or too close to call
operations      + - * /, whole powers, signs
elementary      exp, log, tanh, erf and their like
contractions    products of matrices, inner products
sums            along axes, of a few arrays, of two products, of what is scattered
running         cumulative sums and products
selections      maxima, minima, `where`, `either`
structure       what only moves entries about
rules           the tables: which rule each operator and function of NumPy has

A module imports those above it and none below. Layers and the harness import from the package alone.
"""

from __future__ import annotations

import backproof.reference.rounding.rules  # noqa: F401  (fills the tables)
from backproof.reference.rounding.ball import Arithmetic, Array, Rounded, largest_of, most_of
from backproof.reference.rounding.comparison import Ternary
from backproof.reference.rounding.contractions import contracted, inner, one_sum
from backproof.reference.rounding.dispatch import Overriding
from backproof.reference.rounding.elementary import NARROW
from backproof.reference.rounding.precision import FLOAT32_LARGEST, PRECISIONS, TRUNCATED, Precision, precision_named
from backproof.reference.rounding.running import running_product, running_sum
from backproof.reference.rounding.selections import either
from backproof.reference.rounding.silence import quiet
from backproof.reference.rounding.standard_model import BOUND_SLACK, REFERENCE_ROUNDOFF, REFERENCE_ULPS
from backproof.reference.rounding.sums import added, difference, scatter_add

__all__ = [
    "BOUND_SLACK", "FLOAT32_LARGEST", "NARROW", "PRECISIONS", "REFERENCE_ROUNDOFF", "REFERENCE_ULPS", "TRUNCATED", "Arithmetic", "Array",
    "Overriding", "Precision", "Rounded", "Ternary", "added", "contracted", "difference", "either", "inner", "largest_of", "most_of",
    "one_sum", "precision_named", "quiet", "running_product", "running_sum", "scatter_add",
]
