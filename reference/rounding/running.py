"""Running sums and products along an axis, each partial result as it is stored."""

from __future__ import annotations

import numpy as np
from backproof.reference.rounding.ball import Array, Rounded, largest_of, most_of
from backproof.reference.rounding.dispatch import overridable
from backproof.reference.rounding.operations import scales_exactly
from backproof.reference.rounding.silence import quiet
from backproof.reference.rounding.standard_model import BOUND_SLACK, REFERENCE_ROUNDOFF

__all__ = ["running_product", "running_sum"]


@overridable
def running_sum(x: Array, axis: int, *, last: bool = False, backwards: bool = False) -> Array:
    """Return sum_(k <= i) x_k along an axis, or only its last, added in any order, each partial sum as it is stored.

    With `backwards` it is sum_(k >= i) x_k.
    """
    if not isinstance(x, Rounded):
        return np.sum(x, axis=axis) if last else _cumulative(x, axis, backwards)
    with quiet():
        value, magnitude, *more = (np.sum(a, axis=axis) if last else _cumulative(a, axis, backwards)
                                   for a in (x.value, x.magnitude, *([] if x.exact else [x.bounds()])))
        terms = np.asarray(x.shape[axis]) if last else _positions(x, axis)
        spread = more[0] if more else None
        return x.arithmetic.stored_sum(value, spread, magnitude if spread is None else magnitude + spread,
                                       np.flip(terms) if backwards else terms)


def _cumulative(x: np.ndarray, axis: int, backwards: bool) -> np.ndarray:
    """Return cumulative sums from either end, in memory in the order of the entries."""
    if not backwards:
        return np.cumsum(x, axis=axis)
    found = np.empty(x.shape, dtype=x.dtype)
    np.cumsum(np.flip(x, axis), axis=axis, out=np.flip(found, axis))
    return found


@overridable
def running_product(x: Array, axis: int, factor: Array = 1, *, last: bool = False, among: Array | None = None) -> Array:
    """Return factor_i prod_(k <= i) x_k along an axis, or only its last, multiplied in any association, each product as it is stored.

    `among`, which broadcasts against x, says that each of x is an entry of it or 1, so that less is multiplied for the bound.
    """
    multiplied = np.prod if last else np.cumprod
    if not isinstance(x, Rounded):
        return multiplied(x, axis=axis) * factor
    arithmetic, precision = x.arithmetic, x.arithmetic.precision
    with quiet():
        f = arithmetic.lift(factor)
        top_f = np.abs(f.value) + f.bound
        value = multiplied(x.value, axis=axis) * f.value
        products = (np.asarray(x.shape[axis]) if last else _positions(x, axis)) - (scales_exactly(f) and f.value == 1)
        relative = arithmetic.gammas(products, arithmetic.roundoff)
        growth = np.maximum(top_f, 1) * (1 + relative)
        limit = precision.largest / BOUND_SLACK / x.shape[axis]  # so that a sum of such products does not overflow either
        # no partial product is larger than that of the factors over 1, nor is what an underflowing one is still multiplied by
        for over in (x,) if among is None else (among, x):
            reach = multiplied(np.maximum(most_of(over), 1), axis=axis)
            if fits := largest_of(reach) * largest_of(growth) <= limit:
                break
        magnitude, moved = np.abs(value), None
        if not (x.exact and f.exact):  # |prod x' - prod x| <= prod (|x| + b) - prod |x|, each of which has 2 roundings a factor
            magnitude, inner = multiplied(most_of(x), axis=axis) * top_f, magnitude
            moved = magnitude - inner + magnitude * (4 * (products + 1) * REFERENCE_ROUNDOFF)
        bound = np.asarray(magnitude * relative)
        if moved is not None:
            bound += moved
        bound += reach * (growth * (4 * products * precision.underflow))
        return Rounded(value, bound if fits else np.where(reach * growth <= limit, bound, np.inf), arithmetic)


def _positions(x: Rounded, axis: int) -> np.ndarray:
    """Return 1, 2, 3, ... along an axis, broadcasting against x."""
    return np.arange(1, x.shape[axis] + 1).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
