"""Sums of balls: along axes, of a few arrays, of two products, and of what is scattered to one place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import ZERO, Array, Rounded, largest_of, most_of
from backproof.reference.rounding.comparison import arithmetic_of
from backproof.reference.rounding.dispatch import overridable
from backproof.reference.rounding.operations import divide
from backproof.reference.rounding.silence import quiet
from backproof.reference.rounding.standard_model import BOUND_SLACK

__all__ = ["added", "averaged", "difference", "scatter_add", "summed"]


def summed(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    """Return the ball of the sum along axes, whose terms are added in any order."""
    if axis == ():
        return x
    value = x.value.sum(axis=axis, keepdims=keepdims)
    length = x.size // max(value.size, 1)
    spread = None if x.exact else x.bounds().sum(axis=axis, keepdims=keepdims)
    if length <= 1:
        return Rounded(value, ZERO if spread is None else spread, x.arithmetic)
    magnitude = x.magnitude.sum(axis=axis, keepdims=keepdims)
    return x.arithmetic.accumulated(value, spread, magnitude if spread is None else magnitude + spread, length)


def averaged(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    """Return the ball of the mean along axes."""
    total = summed(x, axis, keepdims)
    return divide(total, x.arithmetic.lift(x.size // max(total.size, 1)))


@overridable
def added(terms: Sequence[Array]) -> Array:
    """Return the sum of a few arrays, which may be added in any order and stored after every addition."""
    if len(terms) < 3 or not any(isinstance(term, Rounded) for term in terms):  # the order of two does not matter
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
    arithmetic = arithmetic_of(*terms)
    balls = [arithmetic.lift(term) for term in terms]
    with quiet():
        magnitude, spread = sum(np.abs(b.value) + b.bound for b in balls), sum(b.bound for b in balls)
        additions = len(terms) - 1
        bound = spread + magnitude * arithmetic.gamma(additions, arithmetic.roundoff) + additions * arithmetic.precision.underflow
        value = sum(b.value for b in balls)
        return arithmetic.overflowing(value, np.where(magnitude < arithmetic.safe, bound, np.inf))


def difference(x: Rounded, a: Rounded, y: Rounded, b: Rounded, underflows: Any) -> Rounded:
    """Return x a - y b as it is whatever order it is taken in, each product meeting two roundings beside those of its factor.

    The factors a and b broadcast, and `underflows` says how many of the smallest numbers may be lost.
    """
    arithmetic = x.arithmetic
    with quiet():
        value, term = x.value * a.value, np.asarray(y.value * b.value)
        value -= term
        growth = arithmetic.gamma(2, arithmetic.roundoff)
        # |x'a' - xa| <= |x| ba + bx (|a| + ba), and what is rounded is at most (|x| + bx)(|a| + ba)
        bound = x.magnitude * (a.bound + growth * most_of(a))
        bound += np.multiply(y.magnitude, b.bound + growth * most_of(b), out=term)
        for one, factor in ((x, a), (y, b)):
            if not one.exact:
                bound += np.multiply(one.bound, most_of(factor) * (1 + growth), out=term)
        bound += arithmetic.precision.underflow * (1 + growth) * np.asarray(underflows)
        if largest_of(bound) < arithmetic.safe * growth:  # and so is each product below `safe`
            return Rounded(value, bound, arithmetic)
        furthest = np.maximum(most_of(x) * most_of(a), most_of(y) * most_of(b)) * (1 + growth)
        return arithmetic.overflowing(value, np.where(furthest <= arithmetic.precision.largest / BOUND_SLACK, bound, np.inf))


@overridable
def scatter_add(x: Array, index: Any, shape: tuple[int, ...], *, stored: bool = False) -> Array:
    """Return zeros of a shape with `x[k]` added at `index[k]` for every k: the transpose of the gather `y = z[index]`.

    `index` is what NumPy takes between brackets, whole-number arrays and slices that pick something of x's shape; places that come
    several times gather several terms, in any order. With `stored` each partial sum is stored, not only the last.
    """
    if not isinstance(x, Rounded):
        return _scattered(x, index, shape)
    with quiet():
        places, size = _places(x.value, index, shape), math.prod(shape)
        value, magnitude = (np.bincount(places, a.ravel(), size).reshape(shape) for a in (x.value, np.abs(x.value)))
        spread = None if x.exact else np.bincount(places, x.bounds().ravel(), size).reshape(shape)
        count = np.bincount(places, minlength=size).reshape(shape)
        terms = int(largest_of(count))
        if terms <= 1:
            return Rounded(value, ZERO if spread is None else spread, x.arithmetic)
        magnitude = magnitude if spread is None else magnitude + spread
        if stored:
            return x.arithmetic.stored_sum(value, spread, magnitude, count)
        return x.arithmetic.accumulated(value, spread, magnitude, terms)


def _scattered(x: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return what `scatter_add` does to a plain array."""
    if x.dtype == np.float64 and x.size:  # of nothing, bincount returns whole numbers
        return np.bincount(_places(x, index, shape), x.ravel(), math.prod(shape)).reshape(shape)
    total = np.zeros(shape, dtype=x.dtype)
    np.add.at(total, index, x)
    return total


def _places(x: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return where in the scattered array, counted in row-major order, each entry of x goes."""
    places = np.arange(math.prod(shape)).reshape(shape)[index]
    return np.broadcast_to(places, x.shape).ravel()
