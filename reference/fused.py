"""Expressions whose bounds are found in a few passes: what the rules of `rounding.py` make of them in turn, like factors gathered.

Most of the time of a large layer's certificate goes into passes over its bounds. Each function here is first of all its expression, for
arrays of any kind. Balls that are far from overflow take the short way, to the same bound; the others take the expression.
"""

from __future__ import annotations

import numpy as np
from backproof.reference.rounding import BOUND_SLACK, NARROW, Array, Rounded, contracted, largest_of, quiet

__all__ = ["normalized_exp", "weighted_difference"]


def normalized_exp(x: Array, top: Array, axis: int, seen: np.ndarray | None = None) -> tuple[Array, Array]:
    """Return the weights e^(x - top) / total along an axis, 0 where an entry is not `seen`, and total = sum e^(x - top), kept as an axis.

    `top` is the largest entry that is seen, so that nothing overflows. Where none is, the weights are 0. A mask that lacks leading axes
    calls for an axis that is counted from the end.
    """
    if isinstance(x, Rounded) and x.size and isinstance(top, Rounded) and top.exact:
        with quiet():
            if found := _normalized_exp(x, top, axis, seen):
                return found
    if seen is None:
        e = np.exp(x - top)
        total = np.sum(e, axis=axis, keepdims=True)
        return e / total, total
    e = np.exp(np.where(seen, x, top) - top)
    total = np.sum(np.where(seen | ~seen.any(axis=axis, keepdims=True), e, 0), axis=axis, keepdims=True)
    return np.where(seen, e / total, 0), total


def _normalized_exp(x: Rounded, top: Rounded, axis: int, seen: np.ndarray | None) -> tuple[Rounded, Rounded] | None:
    arithmetic, u, underflow = x.arithmetic, x.arithmetic.roundoff, x.arithmetic.precision.underflow
    # x - top is off by r = u distance + underflow, distance = |x - top| + b (1 + u) / u, and its e^ by rho e^ + underflow,
    # rho = r (1 + 2 max r)(1 + ulps) + ulps = distance rate + least
    e = x.value - top.value
    distance = np.abs(e)
    if not x.exact:
        distance += x.bounds() * ((1 + u) / u)
    reach = u * largest_of(distance) + underflow
    if not reach <= NARROW:
        return None
    growth = (1 + 2 * reach) * (1 + arithmetic.elementary)
    rate, least = u * growth, underflow * growth + arithmetic.elementary
    np.exp(e, out=e)
    if seen is not None:
        e *= seen
    total = e.sum(axis=axis, keepdims=True)
    length = x.shape[axis]
    spread = contracted(distance, e, (axis % x.ndim,)) * rate + (total * least + length * underflow)
    if seen is not None:
        total += ~seen.any(axis=axis, keepdims=True)
    divisor = Rounded(total, spread, arithmetic) if length == 1 else arithmetic.accumulated(total, spread, total + spread, length)
    smallest = total - divisor.bound * BOUND_SLACK
    if not np.minimum.reduce(smallest, axis=None) > 0.5 or not largest_of(total + divisor.bound) <= 1 / arithmetic.precision.normal:
        return None
    # the quotient w is off by (b_e (1 + q) + w b_total (1 + q)) / smallest + q w + underflow, where b_e = rho w total + underflow
    e /= total
    growth = 1 + arithmetic.quotient
    passed = largest_of(total / smallest) * growth
    distance *= rate * passed
    distance += divisor.bound / smallest * growth + (arithmetic.quotient + least * passed)
    distance *= e
    distance += underflow * (1 + growth / float(np.minimum.reduce(smallest, axis=None)))
    if seen is not None:
        distance *= seen
    weights = Rounded(e, distance, arithmetic)
    weights.magnitude = e
    return weights, divisor


def weighted_difference(weight: Array, x: Array, m: Array, factor: Array = 1) -> Array:
    """Return weight (x - m) factor, each step of which is stored; m broadcasts, and factor is one number."""
    if all(isinstance(one, Rounded) for one in (weight, x, m)) and weight.shape == x.shape:
        with quiet():
            if (found := _weighted_difference(weight, x, m, weight.arithmetic.lift(factor))) is not None:
                return found
    difference: Array = weight * (x - m)
    return difference * factor


def _weighted_difference(weight: Rounded, x: Rounded, m: Rounded, factor: Rounded) -> Rounded | None:
    arithmetic, u, underflow = weight.arithmetic, weight.arithmetic.roundoff, weight.arithmetic.precision.underflow
    # d = x - m is off by o = |d| u + (bx + bm)(1 + u) + underflow, w d by s = |w| o + bw (|d| + o) before it is rounded
    value = x.value - m.value
    most = np.abs(value)
    off = most * u
    off += m.bound * (1 + u) + underflow
    if not x.exact:
        off += x.bounds() * (1 + u)
    most += off
    if not largest_of(most) < arithmetic.safe:
        return None
    value *= weight.value
    off *= np.abs(weight.value)
    if not weight.exact:
        most *= weight.bounds()
        off += most
    # and that times f by |w d| (bf (1 + u) + |f| u) + (|w d| u + s (1 + u) + underflow)(|f| + bf)(1 + u) + underflow
    one = not factor.ndim and factor.exact and float(factor.value) == 1
    size, wide = float(np.abs(factor.value)), float(factor.bound)
    passed, moved = (1.0, 0.0) if one else ((size + wide) * (1 + u), wide * (1 + u) + size * u)
    bound = np.abs(value, out=most)
    bound *= moved + u * passed
    off *= (1 + u) * passed
    bound += off
    bound += underflow * (passed if one else 1 + passed)
    if not one:
        value *= factor.value
    return Rounded(value, bound, arithmetic) if largest_of(bound) < arithmetic.safe * u * min(1.0, passed) else None
