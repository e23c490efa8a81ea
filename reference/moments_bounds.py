"""Mean, variance and normalised entries of rounded arrays, with bounds that hold for every usual way to compute them.

In rounded arithmetic the bounds are derived by hand, since operation by operation they would come out far too wide or too narrow.
Let u be the roundoff of the sums, n the entries of a group, m and v their mean and variance, kappa = mean|x| / sqrt(v).

*Variance.* A mean that is off by e moves sum (x - m)^2 by n e^2 only, since sum (x - m) = 0: two passes lose nothing to it. Welford's
update takes each (x_k - M_(k-1)) (x_k - M_k) with means that are off by |e| <= E, and sum |x_k - M_(k-1)| <= n sqrt(2 v), since
v = 1/n sum (k-1)/k (x_k - M_(k-1))^2; so it is within 2 E sqrt(2 v) + E^2, which is n u kappa of v (Chan, Golub, LeVeque, *Algorithms for
Computing the Sample Variance*, The American Statistician 37 (1983), table 1). That much is allowed. The textbook form E[x^2] - E[x]^2
loses n u kappa^2: where kappa is small it stays within the bound, and where it cancels it does not.

*Range.* Where sums are wider than what is stored, squares live in float32, which they do not leave.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from backproof.reference.rounding import (
    BOUND_SLACK,
    FLOAT32_LARGEST,
    REFERENCE_ROUNDOFF,
    Arithmetic,
    Array,
    Precision,
    Rounded,
    largest_of,
    quiet,
)

__all__ = ["Axes", "Moments", "RelativeBall", "average", "bound_terms", "fitting", "given", "group_size", "kernel_gamma",
           "kernel_largest", "kernel_roundoff", "magnitudes_of", "mean_ball", "root_mean_square", "standardised", "standardised_entries",
           "variance_bounds", "widened"]

Axes = tuple[int, ...]


class Moments(NamedTuple):
    """The statistics of groups, their normalised entries `unit`, `unit` with its bound as a factor in sums, and |x| + |mean|."""

    mean: Rounded | None
    rstd: Rounded
    unit: Rounded
    summed: Rounded
    reach: Any


class RelativeBall(Rounded):
    """A ball of the bound `size` * relative + rest, size = |value|, which is put together where it is asked for."""

    def __init__(self, value: Any, size: Any, relative: Any, rest: Any, arithmetic: Arithmetic) -> None:
        self.held = self.value = value
        self.magnitude, self.relative, self.rest, self.arithmetic = size, relative, rest, arithmetic

    @cached_property
    def bound(self) -> Any:  # type: ignore[override]
        return self.magnitude * self.relative + self.rest


class SummedBall(Rounded):
    """A standardised ball with the bound that it has as a factor in sums over a group, put together where it is asked for."""

    def __init__(self, unit: RelativeBall, reach: Any, shared: Any) -> None:
        self.held = self.value = unit.value
        self.unit, self.reach, self.shared, self.arithmetic = unit, reach, shared, unit.arithmetic

    @cached_property
    def bound(self) -> Any:  # type: ignore[override]
        bound = self.reach * self.shared
        bound += self.unit.magnitude * self.unit.relative
        bound += self.unit.rest
        return bound


def standardised(x: Rounded, axes: Axes, eps: float) -> Moments:
    """Take the mean and the biased variance of the groups along `axes`."""
    more = math.ceil(6 + 3 * math.log(max(group_size(x, axes), 1)))  # Welford's mean, to first order in u
    with quiet():
        size = magnitudes_of(x)
        magnitude = size.sum(axis=axes, keepdims=True) / max(group_size(x, axes), 1)
        mean = average(x, axes, more, magnitude)
        deviation = x.value - mean.value
        rstd = _inverse_root(x.arithmetic, *variance_bounds(x, mean, axes, deviation, magnitude), eps)
        return _standardised(x, axes, mean, rstd, deviation, size)


def root_mean_square(x: Rounded, axes: Axes, eps: float) -> Moments:
    """Take the mean square of the groups along `axes`; no mean is taken away."""
    rstd = _inverse_root(x.arithmetic, *variance_bounds(x, None, axes), eps)
    return _standardised(x, axes, None, rstd, x.value, magnitudes_of(x))


def given(x: Rounded, axes: Axes, mean: Rounded, rstd: Rounded) -> Moments:
    """Take statistics that are given."""
    return _standardised(x, axes, mean, rstd, x.value - mean.value, magnitudes_of(x))


def _standardised(x: Rounded, axes: Axes, mean: Rounded | None, rstd: Rounded, deviation: Any, size: Any) -> Moments:
    """Return the moments of x with these statistics; `deviation` is x - mean, and `size` the magnitudes of x."""
    with quiet():
        reach = size if mean is None else np.add(size, magnitudes_of(mean), out=size)
        ball = standardised_entries(x, mean if mean is not None else x.arithmetic.lift(0.0), rstd, reach, deviation, axes)
        # sum g unit may be (sum g x - mean sum g) rstd
        shared = None if mean is None else kernel_gamma(ball, group_size(x, axes) + 6) * magnitudes_of(rstd)
        if shared is None:
            summed: Rounded = ball
        elif isinstance(ball, RelativeBall):
            summed = SummedBall(ball, reach, shared)
        else:
            summed = widened(ball, reach * shared)
        return Moments(mean, rstd, ball, summed, reach)


def standardised_entries(x: Rounded, mean: Rounded, rstd: Rounded, reach: Any, deviation: Any, axes: Axes) -> Rounded:
    """Return (x - mean) rstd: |d' r' (1 + u)^2 - d r| <= |d| (b_r + |r'| (2 u + u^2)) + (b_x + b_m) |r'| (1 + u)^2, d = x - mean."""
    arithmetic, most, tiny = x.arithmetic, magnitudes_of(rstd), x.arithmetic.precision.underflow
    twice, largest = arithmetic.roundoff * (2 + arithmetic.roundoff), arithmetic.precision.largest / 2
    relative = rstd.bound + most * twice
    rest = (x.bound + mean.bound) * (most * (1 + twice)) + tiny * (1 + 2 * most)
    inside = largest_of(reach) * (1 + twice) <= largest
    if inside and x.exact and all(rstd.shape[axis] == 1 for axis in axes):
        value = np.multiply(deviation, rstd.value, out=None if deviation is x.value else deviation)
        ball = RelativeBall(value, np.abs(value), relative / rstd.value, rest, arithmetic)
        if largest_of(rest) < math.inf and largest_of(ball.magnitude) < math.inf:  # what makes `relative` infinite makes `rest` so too
            return ball
        deviation = x.value - mean.value
    value, bound = deviation * rstd.value, np.abs(deviation) * relative + rest
    return _known(value, bound if inside else np.where(reach * (1 + twice) <= largest, bound, np.inf), arithmetic)


def average(x: Rounded, axes: Axes, more: int = 2, magnitude: Any = None) -> Rounded:
    """Return the mean along `axes`, kept as axes of size 1; its sum is not stored. Nothing has the mean 0.

    `magnitude` is the mean of |x| + b where that is known.
    """
    n = group_size(x, axes)
    if n == 1:
        return x
    with quiet():
        n = max(n, 1)
        value = x.value.sum(axis=axes, keepdims=True) / n
        spread = 0 if x.exact else np.sum(x.bounds(), axis=axes, keepdims=True) / n
        if magnitude is None:
            magnitude = magnitudes_of(x).sum(axis=axes, keepdims=True) / n
        return mean_ball(x.arithmetic, value, spread, magnitude, n, more)


def mean_ball(arithmetic: Arithmetic, value: Any, spread: Any, magnitude: Any, n: int, more: int = 2) -> Rounded:
    """Return the ball of a mean of n numbers that move it by `spread`, the mean of whose magnitudes is `magnitude` at most."""
    precision = arithmetic.precision
    bound = spread + arithmetic.gamma(n + more, kernel_roundoff(arithmetic)) * magnitude + precision.underflow
    if precision.wide:
        bound = bound + (np.abs(value) + bound) * arithmetic.quotient + precision.underflow
    return _held(arithmetic, value, bound, n * magnitude)


def variance_bounds(x: Rounded, mean: Rounded | None, axes: Axes, deviation: Any = None, magnitude: Any = None) -> tuple[Any, Any]:
    """Return the mean square of x - mean, the `deviation`, and its bound: see the module's first lines.

    `magnitude` is the mean of |x| + b.
    """
    with quiet():
        precision, n = x.arithmetic.precision, max(group_size(x, axes), 1)
        if mean is None:
            deviation = x.value
        value = np.sum(deviation * deviation, axis=axes, keepdims=True) / n
        # entries that move by b_i move it by at most 2 |x_i - m| b_i + b_i^2 each
        spread = 0 if x.exact else np.sum((2 * np.abs(deviation) + x.bound) * x.bound, axis=axes, keepdims=True) / n
        most, stored = value + spread, 5 * precision.store if precision.wide else 0
        from_mean: Any = 0
        if mean is not None:
            summed = kernel_gamma(x, n + math.ceil(6 + 3 * math.log(n))) * magnitude if n > 1 else 0
            from_mean = 2 * summed * np.sqrt(2 * most) + mean.bound * mean.bound
        bound = spread + from_mean + (kernel_gamma(x, n + 4) + stored) * (most + from_mean) + 2 * precision.underflow
        largest = kernel_largest(precision)
        known = n * (most + bound) * BOUND_SLACK <= largest
        if mean is not None:  # a running mean starts from 0, and so with the square of x itself
            known &= np.square(n * magnitude) <= largest
        return value, np.where(known, bound, np.inf)


def _inverse_root(arithmetic: Arithmetic, value: Any, bound: Any, eps: float) -> Rounded:
    """Return 1 / sqrt(value + eps), where the sum need not fit what is stored."""
    with quiet():
        total, bound = value + eps, bound + arithmetic.lift(eps).bound
        bound = bound + (total + bound) * arithmetic.roundoff + arithmetic.precision.underflow
        return 1 / np.sqrt(Rounded(total, bound, arithmetic))


def fitting(value: Any, bound: Any, furthest: float, arithmetic: Arithmetic) -> Rounded:
    """Return a ball of numbers up to `furthest`, unknown where it may overflow."""
    return Rounded(value, bound, arithmetic) if furthest + largest_of(bound) < arithmetic.safe else arithmetic.overflowing(value, bound)


def bound_terms(ball: Rounded, relative: Any, factor: Any, out: Any = None) -> tuple[Any, Any]:
    """Return two terms of |ball| relative + bound factor, of which the second may be shared by several entries."""
    if isinstance(ball, RelativeBall):
        return np.multiply(ball.magnitude, relative + ball.relative * factor, out=out), ball.rest * factor
    return np.abs(ball.value) * relative, ball.bound * factor


def group_size(x: Array, axes: Axes) -> int:
    """Return the number of entries of a group."""
    return math.prod(x.shape[axis] for axis in axes)


def magnitudes_of(x: Any) -> Any:
    """Return the largest magnitudes that a ball holds, as a new array; what is no ball comes back as it is."""
    if not isinstance(x, Rounded):
        return x
    return np.abs(x.value) if x.exact else np.abs(x.value) + x.bound


def kernel_gamma(like: Rounded, roundings: int) -> float:
    """Return the relative error of so many roundings inside a kernel."""
    return like.arithmetic.gamma(roundings, kernel_roundoff(like.arithmetic))


def kernel_roundoff(arithmetic: Arithmetic) -> float:
    """Return the roundoff of an operation inside a kernel, our own included."""
    return min(arithmetic.precision.accumulate, arithmetic.precision.store) + REFERENCE_ROUNDOFF


def kernel_largest(precision: Precision) -> float:
    """Return the largest number inside a kernel."""
    return FLOAT32_LARGEST if precision.wide else precision.largest


def widened(ball: Rounded, extra: Any) -> Rounded:
    """Return a ball with something added to its bound."""
    return _known(ball.value, ball.bound + extra, ball.arithmetic)


def _known(value: Any, bound: Any, arithmetic: Arithmetic) -> Rounded:
    """Return a ball, unknown where its bound is not a number."""
    return Rounded(value, np.where(np.isnan(bound), np.inf, bound) if np.isnan(largest_of(bound)) else bound, arithmetic)


def _held(arithmetic: Arithmetic, value: Any, bound: Any, magnitude: Any) -> Rounded:
    """Return a ball of a number inside a kernel; it is unknown where `magnitude`, or the number, may overflow or is NaN."""
    largest = kernel_largest(arithmetic.precision)
    return Rounded(value, np.where((magnitude + bound) * BOUND_SLACK <= largest, bound, np.inf), arithmetic)
