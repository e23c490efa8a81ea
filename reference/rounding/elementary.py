"""Elementary functions of balls: how far a function varies over a ball, and the ulps of its evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import Rounded, largest_of
from backproof.reference.rounding.operations import scales_exactly
from backproof.reference.rounding.standard_model import BOUND_SLACK, REFERENCE_ROUNDOFF
from scipy import special

__all__ = ["ELEMENTARY", "NARROW", "exponential", "log_add_exp"]

Variation = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""From x, y = f(x) and r: a bound on |f(x') - f(x)| over |x' - x| <= r that is close to |f'(x)| r, None where r is too large for it."""

NARROW = 2.0**-7  # of what a variation is expanded in: its bound is at most so much larger than it need be, times a small number
NEAR_ZERO = 2.0**-48  # more than 1 - y and 1 - y^2 lose where y is within 4 ulps


def _largest_if_small(ratio: Any) -> float:
    """Return the largest of some ratios if all are small, otherwise (and for NaN) infinity."""
    top = largest_of(ratio)
    return top if top <= NARROW else math.inf


def _growing(slope: Callable[[Any, Any], Any], rate: float) -> Variation:
    """Return the variation of a function whose slope grows by at most e^(rate r) over a distance r, which is at most 1 + 2 rate r."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        top = _largest_if_small(reach)
        return None if top == math.inf else slope(x, y) * reach * (1 + 2 * rate * top)

    return variation


def _gaussian(scale: float, power: float) -> Variation:
    """Return the variation of the integral of scale e^(-power x^2), which grows by at most e^(2 power |x| r) over a distance r."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        top = _largest_if_small(np.abs(x) * reach)
        return None if top == math.inf else np.exp(-power * (x * x)) * reach * (scale * (1 + 4 * power * top))

    return variation


def _logarithm(shift: float) -> Variation:
    """Return the variation of log(shift + x): |log(1 - q)| <= q (1 + q) for q = r / (shift + x) <= 1/2."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        ratio = reach / (shift + x)
        top = _largest_if_small(ratio)
        return None if top == math.inf else ratio * (1 + top)

    return variation


def _root(x: Any, y: Any, reach: Any) -> Any:
    """Return the variation of sqrt x: 1 - sqrt(1 - q) <= q / 2 (1 + q) for q = r / x <= 1."""
    ratio = reach / x
    top = _largest_if_small(ratio)
    return None if top == math.inf else ratio * y * (0.5 * (1 + top))


def _variation_at_ends(function: Any, x: Any, y: Any, reach: Any, bound: Any) -> Any:
    """Return how far a monotone function is from y = f(x) at the ends of a ball of any size."""
    # the ends are computed in float64: u_own |x +- reach| more reach makes up for their rounding
    reach = (reach + np.abs(x) * REFERENCE_ROUNDOFF) * BOUND_SLACK
    spread = np.maximum(np.abs(function(x + reach) - y), np.abs(y - function(x - reach)))
    known = reach < np.inf  # a bounded function of a number that may be NaN is unknown too
    return spread if known.all() else np.where(known, spread, np.where(bound == 0, 0.0, np.inf))


def _elementary(function: Any, variation: Variation, argument: float = 0.0) -> Callable[[Rounded], Rounded]:
    """Return the rule of a monotone function: what it varies by over the ball, and `ulps` for its evaluation.

    `argument` counts the roundings of the argument inside the function: erfc and ndtr go through e^-x^2, which magnifies them.
    """

    def rule(x: Rounded) -> Rounded:
        arithmetic, value, spread = x.arithmetic, function(x.value), None
        if argument or not x.exact:
            reach = x.bound
            if argument:
                reach = reach + (np.abs(x.value) + reach) * (argument * arithmetic.argument)
            spread = variation(x.value, value, reach)
            if spread is None:
                spread = _variation_at_ends(function, x.value, value, reach, x.bound)
        # |f~(x') - v| <= |f(x') - v| + ulps |f(x')|; our own ulps at the end of the ball are those of |v| + spread
        return arithmetic.rounded(value, spread, arithmetic.elementary)

    return rule


def exponential(x: Rounded) -> Rounded:
    """Return the ball of e^x as `_elementary` does, with the bound as a multiple of e^x.

    It is (r (1 + 2 r)(1 + e) + e) e^x + underflow for a reach r <= 2^-7.
    """
    arithmetic, value = x.arithmetic, np.exp(x.value)
    top = largest_of(x.bound)
    if not top <= NARROW:
        return arithmetic.rounded(value, _variation_at_ends(np.exp, x.value, value, x.bound, x.bound), arithmetic.elementary)
    bound = x.bound * ((1 + 2 * top) * (1 + arithmetic.elementary))
    bound += arithmetic.elementary
    bound = bound * value
    bound += arithmetic.precision.underflow
    return arithmetic.ball(value, bound, arithmetic.elementary)


def log_add_exp(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of log(e^x + e^y)."""
    arithmetic, top = x.arithmetic, np.maximum(x.value, y.value)
    value = np.logaddexp(x.value, y.value)
    # log(e^x + e^y) moves by at most the larger of what x and y move by. It is max + log1p(e^-d), d = |x - y|: the ulps are
    # those of both summands, which cancel where max < 0, and each of which moves by as much again
    spread = np.maximum(x.bound, y.bound)
    absolute = (np.abs(top) + (value - top) + 2 * spread) * arithmetic.elementary
    if not (scales_exactly(x) and not x.value) and not (scales_exactly(y) and not y.value):
        absolute = absolute + 0.5 * arithmetic.argument  # of rounding d, since d log1p(e^-d) < 1/2
    bound = spread + absolute + arithmetic.precision.underflow
    return arithmetic.overflowing(value, bound)


ELEMENTARY: dict[Any, Callable[[Rounded], Rounded]] = {
    np.expm1: _elementary(np.expm1, _growing(lambda x, y: y + (1 + NEAR_ZERO), 1)),
    np.log: _elementary(np.log, _logarithm(0)), np.log1p: _elementary(np.log1p, _logarithm(1)), np.sqrt: _elementary(np.sqrt, _root),
    # the slopes s(1 - s) and 1 - tanh^2 are themselves solutions of u' = u (1 - 2 s) and u' = -2 u tanh
    special.expit: _elementary(special.expit, _growing(lambda x, y: y * ((1 + NEAR_ZERO) - y), 1)),
    np.tanh: _elementary(np.tanh, _growing(lambda x, y: (1 + NEAR_ZERO) - y * y, 2)),
    special.erf: _elementary(special.erf, _gaussian(2 / math.sqrt(math.pi), 1)),
    # a rounding of x^2 is half a rounding of x, and as much for the rest
    special.erfc: _elementary(special.erfc, _gaussian(2 / math.sqrt(math.pi), 1), 1.0),
    # erfc(x / sqrt 2): the constant, the quotient, and then erfc's own
    special.ndtr: _elementary(special.ndtr, _gaussian(1 / math.sqrt(2 * math.pi), 0.5), 3.0),
}
"""The rules of the monotone functions of one number, each with its variation."""
