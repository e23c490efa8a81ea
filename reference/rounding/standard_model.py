"""The standard model of floating-point arithmetic: what an operation or a sum in a precision is off by, relative and absolute.

Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., sections 2.2, 3.1 and 3.5: fl(a op b) = (a op b)(1 + d) + e with
|d| <= u and |e| <= the underflow term, sums of length n in any order within gamma_n = n u / (1 - n u).
"""

from __future__ import annotations

import math

import numpy as np
from backproof.reference.rounding.precision import FLOAT32_LARGEST, FLOAT32_NORMAL, Precision

__all__ = ["BOUND_SLACK", "REFERENCE_ROUNDOFF", "REFERENCE_ULPS", "StandardModel"]

REFERENCE_ROUNDOFF = 2.0**-53
REFERENCE_ULPS = 4.0  # NumPy's and scipy.special's elementary functions in float64 stay below this many ulps (measured: 1.5),
# but for the tails of erfc and ndtr (measured: 990), where the rounding of their argument is counted besides
BOUND_SLACK = 1 + 2.0**-20  # bounds are sums of non-negative float64 terms: this covers 2^32 roundings of the bound itself


class StandardModel:
    """What a computation in a precision loses, with what our own evaluation of it in float64 loses besides.

    `roundoff` is the relative error of a stored sum or product, `quotient` of a stored quotient, `elementary` of a stored value of an
    elementary function, `argument` of a number inside such a function. Below `safe` nothing overflows when it is stored, and `running` is
    what a partial sum may be in the accumulator.
    """

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        inside = min(precision.accumulate, precision.store)
        # a wide result is rounded twice, (1 + store)(1 + accumulate) - 1; a quotient is once more where it is x * (1 / y)
        stored = precision.store + (1 + precision.store) * inside if precision.wide else precision.store
        self.roundoff = stored + REFERENCE_ROUNDOFF
        self.quotient = stored * (2 + stored) + REFERENCE_ROUNDOFF
        # an ulp is at most 2 u: ours, plus the candidate's, whose result is stored once more where it is wide
        ulps = 2 * precision.ulps * inside
        self.elementary = 2 * REFERENCE_ULPS * REFERENCE_ROUNDOFF + (
            ulps + precision.store * (1 + ulps) if precision.wide else ulps)
        self.argument = inside + REFERENCE_ROUNDOFF
        self.safe = precision.largest / 4  # a sum of magnitude and rounding below this is far from overflow
        self.running = (FLOAT32_LARGEST if precision.wide else precision.largest) / BOUND_SLACK  # that much a partial sum may be

    def gamma(self, length: int, roundoff: float) -> float:
        """Return the relative error of a sum in which each term passes through `length` roundings, in any order."""
        return length * roundoff / (1 - length * roundoff) if length * roundoff < 1 else math.inf

    def gammas(self, lengths: np.ndarray, roundoff: float) -> np.ndarray:
        """Return `gamma` of each length."""
        product = lengths * roundoff
        return np.where(product < 1, product / np.maximum(1 - product, 2.0**-53), np.inf)

    def summation(self, length: int, *, products: bool = False) -> tuple[float, float]:
        """Return what a sum of `length` terms, which may be products, is off by at most: relative to their magnitudes, and beside that."""
        precision = self.precision
        # in any order a term meets length - 1 additions, and the rounding of its product: (1 + d)^k is within 1 + gamma_k
        roundings = length if products else length - 1
        relative = growth = self.gamma(roundings, precision.accumulate)
        if products and precision.multiply > precision.store:
            # each factor is rounded beforehand where `multiply` is coarser than the stored format: (1 + m)^2 (1 + gamma) - 1
            relative = growth + (1 + growth) * precision.multiply * (2 + precision.multiply)
        relative += self.gamma(roundings, REFERENCE_ROUNDOFF)
        # each operation may underflow in the accumulator's format, and what it loses is carried through the later sums
        underflow = FLOAT32_NORMAL if precision.wide else precision.underflow
        return relative, (length + roundings - 1) * (1 + growth) * underflow
