"""x as (x - mean) / sqrt(variance + eps), its gradient, and bounds that hold for every usual way to compute them.

In rounded arithmetic three things are derived by hand, since operation by operation they would come out far too wide or too narrow.
Let u be the roundoff of the sums, n the entries of a group, m and v their mean and variance, kappa = mean|x| / sqrt(v).

*Variance.* A mean that is off by e moves sum (x - m)^2 by n e^2 only, since sum (x - m) = 0: two passes lose nothing to it. Welford's
update takes each (x_k - M_(k-1)) (x_k - M_k) with means that are off by |e| <= E, and sum |x_k - M_(k-1)| <= n sqrt(2 v), since
v = 1/n sum (k-1)/k (x_k - M_(k-1))^2; so it is within 2 E sqrt(2 v) + E^2, which is n u kappa of v (Chan, Golub, LeVeque, *Algorithms for
Computing the Sample Variance*, The American Statistician 37 (1983), table 1). That much is allowed. The textbook form E[x^2] - E[x]^2
loses n u kappa^2: where kappa is small it stays within the bound, and where it cancels it does not.

*Fused forms.* y = x a + (b - m a), a = rstd w, rounds products of the size of a (|x| + |m|), not of a |x - m|; the factor a is the same in
both, so its own error is that of a (x - m). In the gradient, sum g (x - m) may be sum g x - m sum g, and x hat may be multiplied out.

*Range.* Where sums are wider than what is stored, squares live in float32, which they do not leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .direction import Directed
from .rounding import BOUND_SLACK, FLOAT32_LARGEST, REFERENCE_ROUNDOFF, Arithmetic, Array, Rounded, either, quiet

__all__ = ["Axes", "Standardised", "given", "root_mean_square", "standardised"]

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Standardised:
    """Groups of entries along `axes` as `unit` = (x - mean) rstd; without a mean, x rstd.

    `constant` statistics do not depend on x. In rounded arithmetic `summed` is `unit` with the bound it has as a factor in sums
    over a group, and `reach` is |x| + |mean|.
    """

    count: int
    axes: Axes
    mean: Array | None
    rstd: Array
    unit: Array
    summed: Array
    reach: Any
    constant: bool = False

    def affine(self, weight: Array | None, bias: Array | None) -> Array:
        """Return unit * weight + bias, either of which may be left out."""
        if isinstance(self.unit, Rounded):
            return self._mapped(self.unit, weight, bias)
        y = self.unit if weight is None else self.unit * weight
        return y if bias is None else y + bias

    def _mapped(self, unit: Rounded, weight: Rounded | None, bias: Rounded | None) -> Rounded:
        """Return unit * weight + bias: |h' w' - h w| <= b_h |w'| + |h| b_w, two roundings, and those of x a + (bias - mean a)."""
        with quiet():
            arithmetic, few, tiny = unit.arithmetic, _few(unit, 4), unit.arithmetic.precision.underflow
            w, offset = (arithmetic.lift(n) if found is None else found for n, found in ((1.0, weight), (0.0, bias)))
            twice = arithmetic.gamma(2, arithmetic.roundoff) if weight is not None or bias is not None else 0.0
            value, most = unit.value * w.value + offset.value, _most(w)
            small = _most(offset) * (twice + few) + offset.bound + 4 * tiny
            bound = unit.bound * (most * (1 + twice)) + np.abs(unit.value) * (w.bound + most * twice) + small
            scale = tiny if self.mean is None else few * (_most(self.rstd) * most) + tiny
            return arithmetic.overflowing(value, bound + self.reach * scale)

    def weighted(self, dy: Array, also: Array | None = None) -> Array:
        """Return dy unit, the terms of the weight's gradient.

        Kernels may add up dy x, or `also` x, before anything is multiplied by rstd: what underflows there is in the bound, and where a
        sum of it may overflow the term is unknown.
        """
        terms = dy * self.summed
        if not isinstance(terms, Rounded):
            return terms
        with quiet():
            precision = terms.arithmetic.precision
            size = _most(dy) if also is None else np.maximum(_most(dy), _most(also))
            ball = _widened(terms, precision.underflow * _most(self.rstd))
            largest = (FLOAT32_LARGEST if precision.wide else precision.largest) / max(terms.size, 1)
            if np.max(size, initial=0.0) * np.max(self.reach, initial=0.0) <= largest:
                return ball
            return Rounded(ball.value, np.where(size * self.reach <= largest, ball.bound, np.inf), ball.arithmetic)

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        """Return dx from the gradient of `affine`."""
        g = dy if weight is None else dy * weight
        if self.constant:
            return self._reordered(g * self.rstd, dy, g, weight)
        projection = _average(self.weighted(g, dy), self.axes)
        mean_g = 0 if self.mean is None else _average(g, self.axes)
        if isinstance(g, Rounded):
            return self._combined(g, weight, mean_g, projection)
        return self.rstd * (g - mean_g - self.unit * projection)

    def _reordered(self, dx: Array, dy: Array, g: Array, weight: Array | None) -> Array:
        """Return dx = dy weight rstd with a bound for every order of the factors."""
        if not isinstance(dx, Rounded):
            return dx
        with quiet():
            arithmetic, rstd, tiny = dx.arithmetic, _most(self.rstd), dx.arithmetic.precision.underflow
            small = tiny * (1 + (0 if weight is None else _most(weight)) * (1 + rstd))
            return _widened(dx, _most(g) * (arithmetic.gamma(2, arithmetic.roundoff) * rstd) + _most(dy) * tiny + small)

    def _combined(self, g: Rounded, weight: Array | None, mean_g: Any, projection: Rounded) -> Rounded:
        """Return dx = rstd (g - mean_g - unit projection) with a bound for its terms multiplied out and added in any order.

        Four roundings reach each term as it stands, four more multiplied out; what the bounds of the factors do is added.
        """
        with quiet():
            arithmetic, unit, rstd, along = g.arithmetic, self.unit, _most(self.rstd), _most(projection)
            tiny = arithmetic.precision.underflow
            mean = mean_g if isinstance(mean_g, Rounded) else arithmetic.lift(0.0)
            value = self.rstd.value * (g.value - mean.value - unit.value * projection.value)
            stored = arithmetic.gamma(8, arithmetic.roundoff) * rstd
            # automatic differentiation averages over the whole gradient of x - mean, of which mean |unit| <= 1 along the group
            averaged = 0 if self.mean is None else rstd * (_few(g, self.count + 2) * along) + stored * along
            # b x + c with c = -b mean - ..., b = projection rstd^2
            shifted = tiny if self.mean is None else _few(g, 6) * (rstd * rstd * along) + tiny
            small = 4 * tiny * (1 + (0 if weight is None else _most(weight))) * (1 + rstd)
            each = averaged + stored * _most(mean) + rstd * mean.bound + small
            bound = np.abs(g.value) * (stored + tiny) + g.bound * (rstd + stored + tiny)
            bound = bound + np.abs(unit.value) * (stored * along + rstd * projection.bound) + unit.bound * ((rstd + stored) * along)
            bound = bound + np.abs(value) * (self.rstd.bound / self.rstd.value) + self.reach * shifted + each
            return arithmetic.overflowing(value, bound)


def standardised(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the mean and the biased variance of the groups along `axes`."""
    mean = _average(x, axes, math.ceil(6 + 3 * math.log(max(_count(x, axes), 1))))  # Welford's mean, to first order in u
    if isinstance(x, Rounded):
        return _standardised(x, axes, mean, _inverse_root(x.arithmetic, *_variance(x, mean, axes), eps))
    deviation = x - mean
    rstd = 1 / np.sqrt(_average(deviation * deviation, axes) + eps)
    return _standardised(x, axes, mean, rstd)


def root_mean_square(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the root of the mean square of the groups along `axes`; no mean is taken away."""
    if isinstance(x, Rounded):
        rstd = _inverse_root(x.arithmetic, *_variance(x, None, axes), eps)
    else:
        rstd = 1 / np.sqrt(_average(x * x, axes) + eps)
    return _standardised(x, axes, None, rstd)


def given(x: Array, axes: Axes, mean: Array, variance: Array, eps: float) -> Standardised:
    """Take statistics that are given and do not depend on x."""
    rstd = 1 / np.sqrt(variance + eps)
    return _standardised(x, axes, mean, rstd, constant=True)


def _standardised(x: Array, axes: Axes, mean: Array | None, rstd: Array, *, constant: bool = False) -> Standardised:
    count = _count(x, axes)
    if not isinstance(x, Rounded):
        unit = (x if mean is None else x - mean) * rstd
        if isinstance(x, Directed) and mean is not None:
            unit = either(unit, x * rstd - mean * rstd)  # the fused form
        return Standardised(count, axes, mean, rstd, unit, unit, None, constant)
    with quiet():
        reach = _most(x) + (0 if mean is None else _most(mean))
        ball = _unit(x, mean if mean is not None else x.arithmetic.lift(0.0), rstd, reach)
        # sum g unit may be (sum g x - mean sum g) rstd
        summed = ball if mean is None else _widened(ball, reach * (_few(ball, count + 6) * _most(rstd)))
        return Standardised(count, axes, mean, rstd, ball, summed, reach, constant)


def _unit(x: Rounded, mean: Rounded, rstd: Rounded, reach: Any) -> Rounded:
    """Return (x - mean) rstd: |d' r' (1 + u)^2 - d r| <= |d| (b_r + |r'| (2 u + u^2)) + (b_x + b_m) |r'| (1 + u)^2, d = x - mean."""
    arithmetic, most, tiny = x.arithmetic, _most(rstd), x.arithmetic.precision.underflow
    deviation, twice = x.value - mean.value, arithmetic.roundoff * (2 + arithmetic.roundoff)
    moved = (x.bound + mean.bound) * (most * (1 + twice))
    bound = np.abs(deviation) * (rstd.bound + most * twice) + (moved + tiny * (1 + 2 * most))
    inside = reach * (1 + twice) <= arithmetic.precision.largest / 2
    ball = Rounded(deviation * rstd.value, bound if inside.all() else np.where(inside, bound, np.inf), arithmetic)
    return _widened(ball, 0)


def _count(x: Array, axes: Axes) -> int:
    return math.prod(x.shape[axis] for axis in axes)


def _most(x: Any) -> Any:
    """Return the largest magnitude that a ball holds."""
    if not isinstance(x, Rounded):
        return x
    return np.abs(x.value) if x.exact else np.abs(x.value) + x.bound


def _few(like: Rounded, roundings: int) -> float:
    """Return what some roundings inside a kernel come to, relative to the numbers rounded."""
    return like.arithmetic.gamma(roundings, _inside(like.arithmetic))


def _inside(arithmetic: Arithmetic) -> float:
    return min(arithmetic.precision.accumulate, arithmetic.precision.store) + REFERENCE_ROUNDOFF


def _widened(ball: Rounded, extra: Any) -> Rounded:
    bound = ball.bound + extra
    return Rounded(ball.value, bound if np.isfinite(np.sum(bound)) else np.where(np.isnan(bound), np.inf, bound), ball.arithmetic)


def _held(arithmetic: Arithmetic, value: Any, bound: Any, magnitude: Any) -> Rounded:
    """Return a ball of a number inside a kernel; it is unknown where `magnitude`, or the number, may overflow or is NaN."""
    largest = FLOAT32_LARGEST if arithmetic.precision.wide else arithmetic.precision.largest
    return Rounded(value, np.where((magnitude + bound) * BOUND_SLACK <= largest, bound, np.inf), arithmetic)


def _average(x: Array, axes: Axes, more: int = 2) -> Array:
    """Return the mean along `axes`, kept as axes of size 1; its sum is not stored. Nothing has the mean 0."""
    n = _count(x, axes)
    if not isinstance(x, Rounded):
        return np.sum(x, axis=axes, keepdims=True) / max(n, 1)
    if n == 1:
        return x
    with quiet():
        arithmetic, precision = x.arithmetic, x.arithmetic.precision
        n = max(n, 1)
        value = np.sum(x.value, axis=axes, keepdims=True) / n
        spread = 0 if x.exact else np.sum(x.bounds(), axis=axes, keepdims=True) / n
        magnitude = np.sum(np.abs(x.value), axis=axes, keepdims=True) / n + spread
        bound = spread + _few(x, n + more) * magnitude + precision.underflow
        if precision.wide:
            bound = bound + (np.abs(value) + bound) * arithmetic.quotient + precision.underflow
        return _held(arithmetic, value, bound, n * magnitude)


def _variance(x: Rounded, mean: Rounded | None, axes: Axes) -> tuple[Any, Any]:
    """Return the mean square of x - mean and its bound: see the module's first lines."""
    with quiet():
        precision, n = x.arithmetic.precision, max(_count(x, axes), 1)

        def averaged(a: Any) -> Any:
            return np.sum(a, axis=axes, keepdims=True) / n

        deviation = x.value if mean is None else x.value - mean.value
        value = averaged(deviation * deviation)
        # entries that move by b_i move it by at most 2 |x_i - m| b_i + b_i^2 each
        spread = 0 if x.exact else averaged((2 * np.abs(deviation) + x.bound) * x.bound)
        most, stored = value + spread, 5 * precision.store if precision.wide else 0
        from_mean: Any = 0
        if mean is not None:
            summed = _few(x, n + math.ceil(6 + 3 * math.log(n))) * averaged(_most(x)) if n > 1 else 0
            from_mean = 2 * summed * np.sqrt(2 * most) + mean.bound * mean.bound
        bound = spread + from_mean + (_few(x, n + 4) + stored) * (most + from_mean) + 2 * precision.underflow
        known = n * (most + bound) * BOUND_SLACK <= (FLOAT32_LARGEST if precision.wide else precision.largest)
        return value, np.where(known, bound, np.inf)


def _inverse_root(arithmetic: Arithmetic, value: Any, bound: Any, eps: float) -> Rounded:
    """Return 1 / sqrt(value + eps), where the sum need not fit what is stored."""
    with quiet():
        total, bound = value + eps, bound + arithmetic.lift(eps).bound
        bound = bound + (total + bound) * arithmetic.roundoff + arithmetic.precision.underflow
        return 1 / np.sqrt(Rounded(total, bound, arithmetic))
