"""The four operations on balls, whole powers, and signs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import Rounded, largest_of
from backproof.reference.rounding.standard_model import BOUND_SLACK

__all__ = ["absolute", "add", "divide", "multiply", "negative", "power", "scales_exactly", "subtract"]


def add(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of x + y."""
    return x.arithmetic.rounded(x.value + y.value, _sum_of_bounds(x, y))


def subtract(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of x - y."""
    return x.arithmetic.rounded(x.value - y.value, _sum_of_bounds(x, y))


def _sum_of_bounds(x: Rounded, y: Rounded) -> Any:
    """Return the sum of two bounds, None where both are zero."""
    if y.exact:
        return None if x.exact else x.bound
    return y.bound if x.exact else x.bound + y.bound


def multiply(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of x y."""
    if scales_exactly(y):
        return _exact_multiple(x, float(y.value))
    if scales_exactly(x):
        return _exact_multiple(y, float(x.value))
    # |x'y' - xy| <= |x| by + |y| bx + bx by for every x', y' in the balls; a ball of 0 with an infinite bound stays unknown
    if x.shape != y.shape:
        return _multiply_by_smaller(x, y) if y.size < x.size else _multiply_by_smaller(y, x)
    if x.exact:
        spread = None if y.exact else x.magnitude * y.bound
    elif y.exact:
        spread = y.magnitude * x.bound
    else:
        spread = y.magnitude + y.bound
        spread *= x.bound
        spread += x.magnitude * y.bound
    return x.arithmetic.rounded(x.value * y.value, spread)


def _multiply_by_smaller(x: Rounded, y: Rounded) -> Rounded:
    """Return x y with y smaller than x, and the bound in factors as small as y: |x| (by (1 + u) + |y| u) + bx (|y| + by)(1 + u)."""
    arithmetic, size = x.arithmetic, np.abs(y.value)
    growth = 1 + arithmetic.roundoff
    bound = x.magnitude * (size * arithmetic.roundoff if y.exact else y.bound * growth + size * arithmetic.roundoff)
    bound += arithmetic.precision.underflow  # of the product
    if not x.exact:
        bound += x.bound * ((size if y.exact else size + y.bound) * growth)
    return arithmetic.ball(x.value * y.value, bound, arithmetic.roundoff)


def scales_exactly(factor: Rounded) -> bool:
    """Say whether a factor is an exact number 0 or +-2^k, which rounds nothing."""
    return factor.ndim == 0 and factor.exact and math.frexp(factor.value)[0] in (0.0, 0.5, -0.5)


def _exact_multiple(x: Rounded, factor: float) -> Rounded:
    """Return the ball of x times a number 0 or +-2^k."""
    # exact but for a result pushed down into the subnormal numbers (0 is none); 0 times an infinite bound stays unknown
    value, bound = x.value * factor, x.bound * abs(factor)
    if 0 < abs(factor) < 1:
        bound = bound + x.arithmetic.precision.underflow
    return x.arithmetic.overflowing(value, bound)


def divide(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of x / y, which may be computed as x * (1/y)."""
    arithmetic, precision = x.arithmetic, x.arithmetic.precision
    if scales_exactly(y) and 1 / precision.largest < abs(y.value) <= 1 / precision.normal:
        return _exact_multiple(x, 1 / float(y.value))
    value = x.value / y.value
    magnitude = smallest = np.abs(y.value)
    if not y.exact:
        smallest, magnitude = magnitude - y.bound * BOUND_SLACK, magnitude + y.bound
    # x/y may be computed as x * (1/y), and 1/y may overflow or underflow
    known = smallest > 1 / precision.largest
    certain, small = known.all(), largest_of(magnitude) <= 1 / precision.normal
    # |x'/y' - x/y| = |(x' - x) y - x (y' - y)| / |y y'| <= (bx + |x/y| by) / (|y| - by)
    if certain and small and smallest.size < value.size:
        return _divide_by_smaller(x, y, value, smallest)
    spread = None if x.exact else x.bound / smallest
    if not y.exact:
        moved = np.abs(value) * y.bound
        if not x.exact:
            moved += x.bound
        moved /= smallest
        spread = moved
    if not certain:
        spread = np.where(known, 0.0 if spread is None else spread, np.inf)
    if not small:  # fl(1/y) = (1/y)(1 + d) + e costs |x'| |e| more, and the rounding of that
        lost = (np.abs(x.value) + x.bound) * (precision.underflow * (1 + arithmetic.quotient))
        spread = lost if spread is None else spread + lost
    return arithmetic.rounded(value, spread, arithmetic.quotient)


def _divide_by_smaller(x: Rounded, y: Rounded, value: Any, smallest: Any) -> Rounded:
    """Return x / y with y, which is at least `smallest`, smaller than x / y: the bound is gathered into factors as small as y."""
    arithmetic, growth = x.arithmetic, 1 + x.arithmetic.quotient
    bound = np.abs(value)
    bound *= arithmetic.quotient if y.exact else y.bound / smallest * growth + arithmetic.quotient
    bound += arithmetic.precision.underflow
    if not x.exact:
        bound += x.bound * (growth / smallest)
    return arithmetic.ball(value, bound, arithmetic.quotient)


def power(x: Rounded, exponent: Rounded) -> Rounded:
    """Return the ball of x^n for a whole n >= 1, a product of n factors."""
    n = int(exponent.value) if exponent.ndim == 0 and np.isfinite(exponent.value) else 0
    if n < 1 or n != exponent.value:
        raise TypeError(f"rounded arithmetic raises to positive whole powers only: got {exponent.value!r}")
    product = x
    for _ in range(n - 1):
        product = multiply(product, x)
    return product


def negative(x: Rounded) -> Rounded:
    """Return the ball of -x, which rounds nothing."""
    return Rounded(-x.value, x.bound, x.arithmetic)


def absolute(x: Rounded) -> Rounded:
    """Return the ball of |x|, which rounds nothing."""
    return Rounded(np.abs(x.value), x.bound, x.arithmetic)
