"""Contractions: matrix products and inner products of balls, whose terms are added in any order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import ZERO, Arithmetic, Array, Rounded, largest_of, limited, most_of
from backproof.reference.rounding.dispatch import Overriding
from backproof.reference.rounding.precision import FLOAT32_LARGEST, FLOAT32_NORMAL
from backproof.reference.rounding.silence import quiet

__all__ = ["contracted", "inner", "matmul", "one_sum"]

WORTHWHILE = 2**15  # products of a contraction, for which it is worth the while to turn its factors into float32
PASSED = 64  # times what underflow may cost: of importance to no result above 1e-30
UNDERFLOWS = 4  # in a term: of the magnitude, the bound, and each times a small factor


def matmul(x: Rounded, y: Rounded) -> Rounded:
    """Return the ball of a product of matrices."""
    return one_sum([(x, y)], [], x.arithmetic)


def one_sum(products: Sequence[tuple[Array, Array]], terms: Sequence[Array], arithmetic: Arithmetic) -> Rounded:
    """Return the ball of matrix products and terms added in any order, nothing of which is stored before the end."""
    pairs, balls = [(arithmetic.lift(a), arithmetic.lift(b)) for a, b in products], [arithmetic.lift(term) for term in terms]
    length = sum(a.shape[-1] for a, _ in pairs) + len(balls)
    with quiet():
        value = reduce(np.add, (*(a.value @ b.value for a, b in pairs), *(ball.value for ball in balls)))
        if not length:
            return Rounded(value, ZERO, arithmetic)
        relative, lost = arithmetic.summation(length, products=True)
        bound, most, least = np.zeros(()), 0.0, lost
        for a, b in pairs:
            more, reach, underflow = _product_bound(a, b, relative, lost)
            bound, most, least = more if bound.ndim == 0 else bound + more, most + reach, least + underflow
        for ball in balls:
            size = most_of(ball)
            bound, most = bound + (size * relative + ball.bound), most + largest_of(size)
        bound = bound + least if bound.ndim == 0 else np.add(bound, least, out=bound)
        if not (2 + relative) * most + lost <= arithmetic.running:
            magnitude = reduce(np.add, (*(most_of(a) @ most_of(b) for a, b in pairs), *map(most_of, balls)))
            bound = limited(magnitude, bound, arithmetic.running)  # no partial sum is larger than that
        return arithmetic.stored(value, bound)


def _product_bound(x: Rounded, y: Rounded, relative: float, lost: float) -> tuple[Any, float, float]:
    """Return the bound of x @ y whose terms, magnitudes and all, are off by `relative`; what no partial sum exceeds; what is to be added.

    It is computed in float32 where what that loses does not matter: entries lose a few 2^-24 of themselves, sums gamma_n, and what
    underflows is at most a few n (1 + top + top) of the smallest normal number, which is let pass beside `lost`, a bound's own such term.
    """
    length, least = x.shape[-1], UNDERFLOWS * x.shape[-1] * FLOAT32_NORMAL
    products = x.size * (y.size // length if length else 0)
    if products >= WORTHWHILE and length < 2**15 and least <= PASSED * lost:
        single, tops = _bound_of_terms(x, y, relative, np.float32)
        most, underflow = length * tops[0] * tops[1], least * (1 + tops[0] + tops[1])
        if underflow <= PASSED * lost and max(*tops, most) < FLOAT32_LARGEST / 4:
            single *= 1 + (length + 16) * 2.0**-23
            return single.astype(np.float64), most, underflow
    bound, tops = _bound_of_terms(x, y, relative, np.float64)
    return bound, length * tops[0] * tops[1], 0.0


def _bound_of_terms(x: Rounded, y: Rounded, relative: float, dtype: Any) -> tuple[Any, tuple[float, float]]:
    """Return the bound of x @ y in some arithmetic, and what no entry of x and of y exceeds."""
    # |x'y' - xy| <= |x| by + bx (|y| + by), summed over the contraction, and the terms are at most (|x| + bx)(|y| + by):
    # in all |x| (by + relative (|y| + by)) + bx (1 + relative)(|y| + by), of which an exact factor leaves one product
    (left, off, top), (right, moved, other) = _sizes(x, dtype), _sizes(y, dtype)
    if x.exact and y.exact:
        bound = left @ right
        bound *= relative
        return bound, (top, other)
    if y.exact:
        return _weighed(left, relative, off) @ right, (top, other)
    if x.exact:
        return left @ _weighed(right, relative, moved), (top, other)
    right = right + moved
    bound = off @ right
    bound *= 1 + relative
    right *= relative
    right += moved
    return bound + left @ right, (top, other)


def _weighed(magnitude: Any, relative: float, bound: Any) -> Any:
    """Return magnitude * relative + bound * (1 + relative)."""
    total = magnitude * relative
    total += bound * (1 + relative)
    return total


def _sizes(x: Rounded, dtype: Any) -> tuple[Any, Any, float]:
    """Return magnitudes and bounds of a ball as arrays of a type, to be read only, and what no number of it exceeds."""
    if dtype not in x.sizes:
        held = x.value.astype(dtype)
        magnitude, bound = np.abs(held, out=held), ZERO if x.exact else x.bounds().astype(dtype)
        x.sizes[dtype] = magnitude, bound, largest_of(magnitude) + largest_of(bound)
    return x.sizes[dtype]


def inner(a: Array, b: Array, axis: int) -> Array:
    """Return the sum of a b along an axis, kept as an axis of size 1, whose products are stored before they are added in any order."""
    known = next((x.arithmetic for x in (a, b) if isinstance(x, Rounded)), None)
    if known is None or a.shape != b.shape or any(isinstance(x, Overriding) for x in (a, b)):
        return np.sum(a * b, axis=axis, keepdims=True)
    x, y, n, axes = known.lift(a), known.lift(b), a.shape[axis], (axis % a.ndim,)
    with quiet():
        value = contracted(x.value, y.value, axes)
        magnitude = value if x is y else contracted(x.magnitude, y.magnitude, axes)
        # |x'y' - xy| <= |x| by + bx (|y| + by), and what rounds and underflows in each product is added
        moved: Any = 0.0
        if not y.exact:
            moved = contracted(x.magnitude, y.bounds(), axes)
        if not x.exact:
            moved = moved + contracted(x.bounds(), y.magnitude if y.exact else y.magnitude + y.bound, axes)
        if n < 2 or not largest_of(magnitude + moved) < known.safe:
            return np.sum(a * b, axis=axis, keepdims=True)
        spread = known.roundoff * (magnitude + moved) + moved + n * known.precision.underflow
        return known.accumulated(value, spread, magnitude + spread, n)


def contracted(a: np.ndarray, b: np.ndarray, axes: tuple[int, ...]) -> Any:
    """Return the sums of a b along axes, kept as axes of size 1."""
    places = range(a.ndim)
    sums: Any = np.einsum(a, places, b, places, [axis for axis in places if axis not in axes])
    return sums.reshape([1 if axis in axes else n for axis, n in enumerate(a.shape)])
