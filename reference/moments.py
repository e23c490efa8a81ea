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

*Exact numbers.* Where x, dy and the weight are exact, as a layer's own are, the bound of unit is |unit| relative + rest with two numbers
to a group. So the sums over a group that the bounds take are those of |g|, |unit| and |x| + |mean|, and no bound of an entry is needed.

*Range.* Where sums are wider than what is stored, squares live in float32, which they do not leave.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from backproof.reference.direction import Directed
from backproof.reference.rounding import (
    BOUND_SLACK,
    FLOAT32_LARGEST,
    REFERENCE_ROUNDOFF,
    Arithmetic,
    Array,
    Precision,
    Rounded,
    contracted,
    either,
    largest_of,
    quiet,
)

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
        """Return unit * weight + bias: |h' w' - h w| <= b_h |w'| + |h| b_w, two roundings, and those of x a + (bias - mean a).

        There a = rstd weight, and where x a or mean a may overflow nothing is known.
        """
        with quiet():
            arithmetic, few, tiny = unit.arithmetic, _few(unit, 4), unit.arithmetic.precision.underflow
            w, offset = (arithmetic.lift(n) if found is None else found for n, found in ((1.0, weight), (0.0, bias)))
            twice = arithmetic.gamma(2, arithmetic.roundoff) if weight is not None or bias is not None else 0.0
            most, most_offset, value = _most(w), _most(offset), unit.value if weight is None else unit.value * w.value
            if bias is not None:
                value = np.add(value, offset.value, out=None if weight is None else value)
            small = most_offset * (twice + few) + offset.bound + 4 * tiny
            rate = _most(self.rstd)
            scale = few * rate
            if np.size(along := scale * most) < value.size:  # a weight that entries of a group share
                bound, rest = _parts(unit, most * twice + w.bound, most * (1 + twice))
                bound += self.reach * (tiny if self.mean is None else along + tiny)
                bound += rest + small
            else:
                bound, rest = _parts(unit, twice / (1 + twice), 1.0)
                bound += rest
                term = np.empty_like(bound)
                if self.mean is not None:
                    bound += np.multiply(self.reach, scale / (1 + twice), out=term)
                bound *= most * (1 + twice)
                if not w.exact:
                    bound += np.abs(unit.value) * w.bound
                bound += np.multiply(self.reach, tiny, out=term)
                bound += small
            if self.mean is not None and not largest_of(self.reach) * largest_of(rate) * largest_of(most) < arithmetic.safe:
                bound = np.where(self.reach * rate * most * (1 + twice) <= _largest(arithmetic.precision), bound, np.inf)
            furthest = self._tops[1] * largest_of(most) + largest_of(most_offset) if isinstance(unit, _Sized) else math.inf
            return _fitting(value, bound, furthest, arithmetic)

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
            largest = _largest(precision) / max(terms.size, 1)
            if np.max(size, initial=0.0) * np.max(self.reach, initial=0.0) <= largest:
                return ball
            return Rounded(ball.value, np.where(size * self.reach <= largest, ball.bound, np.inf), ball.arithmetic)

    def gradient(self, dy: Array, axes: Axes) -> Array:
        """Return the sum of dy unit along `axes`, the weight's gradient."""
        unit = self.unit
        if not isinstance(unit, _Sized) or not isinstance(dy, Rounded) or not dy.exact or unit.arithmetic.precision.wide:
            return np.sum(self.weighted(dy), axis=axes)
        with quiet():
            arithmetic = unit.arithmetic
            if not self._summable(largest_of(dy.magnitude), dy.size):
                return np.sum(self.weighted(dy), axis=axes)
            group = tuple(axis for axis in axes if axis in self.axes)
            others = tuple(axis for axis in axes if axis not in group)
            if group:  # first along what shares the numbers of a group
                value, magnitude, moved = (a.sum(axis=others, keepdims=True) for a in self._sums(dy, group)[:3])
            else:
                pairs = (dy.value, unit.value), (dy.magnitude, unit.magnitude), (dy.magnitude, self.summed.bound)
                value, magnitude, moved = (contracted(a, b, others) for a, b in pairs)
            spread = arithmetic.roundoff * magnitude + (1 + arithmetic.roundoff) * moved + self._underflow(axes, dy.shape)
            value, magnitude, spread = (np.squeeze(a, axes) for a in (value, magnitude, spread))
            return arithmetic.accumulated(value, spread, magnitude + spread, dy.size // max(value.size, 1))

    def total(self, dy: Array, axes: Axes) -> Array:
        """Return the sum of dy along `axes`, the bias's gradient."""
        group = tuple(axis for axis in axes if axis in self.axes)
        if not (group and isinstance(dy, Rounded) and group in self._kept and self._kept[group][0] is dy):
            return np.sum(dy, axis=axes)
        others = tuple(axis for axis in axes if axis not in group)
        value, magnitude = (np.squeeze(a.sum(axis=others, keepdims=True), axes) for a in self._kept[group][1][3:])
        return dy.arithmetic.accumulated(value, None, magnitude, dy.size // max(value.size, 1))

    def _underflow(self, axes: Axes, shape: tuple[int, ...]) -> Any:
        """Return what products with unit, or with x before it is multiplied by rstd, lose along axes by underflow."""
        each = 1 + _most(self.rstd)
        alike = math.prod(shape[axis] for axis in axes if each.shape[axis] == 1)
        return each.sum(axis=axes, keepdims=True) * (alike * self.unit.arithmetic.precision.underflow)

    def _summable(self, top: float, count: int) -> bool:
        """Say whether `count` products of numbers up to `top` with unit, or with x, are far from overflow."""
        precision, safe = self.unit.arithmetic.precision, self.unit.arithmetic.safe
        largest = _largest(precision) / max(count, 1)
        return self._tops[0] * top <= largest and self._tops[1] * top < safe

    @cached_property
    def _tops(self) -> tuple[float, float]:
        """The largest of |x| + |mean|, and of unit with what it may be off by in sums."""
        unit = self.unit
        furthest = largest_of(self.reach)
        off = largest_of(unit.magnitude) * largest_of(unit.relative) + largest_of(unit.rest) + furthest * largest_of(self._shared)
        return furthest, largest_of(unit.magnitude) + off

    @cached_property
    def _kept(self) -> dict[Axes, tuple[Rounded, tuple[Any, ...]]]:
        return {}

    def _sums(self, g: Rounded, axes: Axes) -> tuple[Any, ...]:
        """Return the sums along axes of the group of g unit, |g| |unit|, |g| times the bound that unit has in sums, g and |g|.

        Those of dy, which two gradients take, are worked out once.
        """
        if axes not in self._kept or self._kept[axes][0] is not g:
            unit, size = self.unit, g.magnitude
            magnitude, total = contracted(size, unit.magnitude, axes), size.sum(axis=axes, keepdims=True)
            moved = magnitude * unit.relative + total * unit.rest
            if self.mean is not None:
                moved += contracted(size, self.reach, axes) * self._shared
            self._kept[axes] = g, (contracted(g.value, unit.value, axes), magnitude, moved, g.value.sum(axis=axes, keepdims=True), total)
        return self._kept[axes][1]

    @property
    def _shared(self) -> Any:
        """What sum g unit loses as (sum g x - mean sum g) rstd, relative to |x| + |mean|."""
        return _few(self.unit, self.count + 6) * _most(self.rstd) if self.mean is not None else np.zeros(())

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        """Return dx from the gradient of `affine`."""
        if isinstance(self.unit, _Sized) and (dx := self._pulled(dy, weight)) is not None:
            return dx
        g = dy if weight is None else dy * weight
        if self.constant:
            return self._reordered(g * self.rstd, dy, g, weight)
        projection = _average(self.weighted(g, dy), self.axes)
        mean_g = 0 if self.mean is None else _average(g, self.axes)
        if isinstance(g, Rounded):
            return self._combined(_Sized(g.value, np.abs(g.value), 0.0, g.bound, g.arithmetic), weight, mean_g, projection)
        return self.rstd * (g - mean_g - self.unit * projection)

    def _pulled(self, dy: Array, weight: Array | None) -> Rounded | None:
        """Return dx where dy and weight are exact and nothing is large, None elsewhere."""
        arithmetic, axes, n = self.unit.arithmetic, self.axes, self.count
        if not (isinstance(dy, Rounded) and dy.exact and (weight is None or weight.exact)) or n == 1:
            return None
        with quiet():
            roundoff, tiny = (0.0, 0.0) if weight is None else (arithmetic.roundoff, arithmetic.precision.underflow)
            if self.constant:
                return self._ordered(dy, weight, roundoff, tiny)
            value = dy.value if weight is None else dy.value * weight.value
            g = _Sized(value, dy.magnitude if weight is None else np.abs(value), roundoff, tiny, arithmetic)
            furthest = largest_of(dy.magnitude)
            top = furthest if weight is None else largest_of(g.magnitude) * (1 + roundoff) + tiny
            if not (top < arithmetic.safe and self._summable(max(top, furthest), value.size)):
                return None
            shared = axes if weight is None else tuple(axis for axis in axes if weight.shape[axis] == 1)
            if weight is None or not shared:
                along, magnitude, moved, sums, total = self._sums(g, axes)
            else:  # sums over what shares a weight serve its gradient too
                w, size, others = weight.value, weight.magnitude, tuple(axis for axis in axes if axis not in shared)
                along, magnitude, moved, sums, total = (
                    (a * factor).sum(axis=others, keepdims=True)
                    for a, factor in zip(self._sums(dy, shared), (w, size, size, w, size), strict=True))
            if weight is not None:  # |g'| b + b_g (|unit| + b), b the bound of unit in sums
                moved = moved + roundoff * (magnitude + moved) + tiny * self._size(axes)
            spread = arithmetic.roundoff * magnitude + (1 + arithmetic.roundoff) * moved + self._underflow(axes, value.shape)
            projection = _averaged(arithmetic, along / n, spread / n, (magnitude + spread) / n, n)
            if self.mean is None:
                return self._combined(g, weight, 0, projection)
            spread = roundoff * (total / n) + tiny
            return self._combined(g, weight, _averaged(arithmetic, sums / n, spread, total / n + spread, n), projection)

    def _ordered(self, dy: Rounded, weight: Rounded | None, roundoff: float, tiny: float) -> Rounded | None:
        """Return what `_reordered` does, of exact numbers; roundoff and underflow are those of dy weight."""
        arithmetic, size, centre, most = dy.arithmetic, dy.magnitude, self.rstd.value, _most(self.rstd)
        w, own, underflow = 1.0 if weight is None else weight.value, arithmetic.roundoff, arithmetic.precision.underflow
        tops = largest_of(size), largest_of(np.abs(w)), largest_of(most)
        if not math.prod(sorted(tops)[1:]) * (1 + own) < arithmetic.safe:
            return None
        twice = arithmetic.gamma(2, own) * most
        relative = self.rstd.bound * (1 + own) + centre * own + roundoff * most * (1 + own) + (1 + roundoff) * twice
        rest = tiny * (most * (1 + own) + twice) + underflow * (2 + (0 if weight is None else np.abs(w)) * (1 + most))
        bound = size * (np.abs(w) * relative + underflow)
        bound += rest
        return arithmetic.ball(dy.value * (w * centre), bound, own)

    def _size(self, axes: Axes) -> Any:
        """Return the sum of |unit| and of the bound that unit has in sums, along axes."""
        unit, n = self.unit, self.count
        total = unit.magnitude.sum(axis=axes, keepdims=True) * (1 + unit.relative) + n * unit.rest
        return total if self.mean is None else total + self.reach.sum(axis=axes, keepdims=True) * self._shared

    def _reordered(self, dx: Array, dy: Array, g: Array, weight: Array | None) -> Array:
        """Return dx = dy weight rstd with a bound for every order of the factors."""
        if not isinstance(dx, Rounded):
            return dx
        with quiet():
            arithmetic, rstd, tiny = dx.arithmetic, _most(self.rstd), dx.arithmetic.precision.underflow
            small = tiny * (1 + (0 if weight is None else _most(weight)) * (1 + rstd))
            bound = _most(g) * (arithmetic.gamma(2, arithmetic.roundoff) * rstd)
            bound += _most(dy) * tiny
            bound += dx.bound
            bound += small
            furthest = rstd * (_most(dy) if weight is None else np.maximum(_most(dy), _most(weight)))
            return Rounded(dx.value, np.where(furthest <= _largest(arithmetic.precision) / BOUND_SLACK, bound, np.inf), arithmetic)

    def _combined(self, g: _Sized, weight: Array | None, mean_g: Any, projection: Rounded) -> Rounded:
        """Return dx = rstd (g - mean_g - unit projection) with a bound for its terms multiplied out and added in any order.

        Four roundings reach each term as it stands, four more multiplied out; what the bounds of the factors do is added.
        """
        with quiet():
            arithmetic, unit, rstd, along = g.arithmetic, self.unit, _most(self.rstd), _most(projection)
            tiny = arithmetic.precision.underflow
            mean = mean_g if isinstance(mean_g, Rounded) else arithmetic.lift(0.0)
            value = unit.value * projection.value
            np.subtract(g.value, value, out=value)
            if self.mean is not None:
                value -= mean.value
            value *= self.rstd.value
            size = np.abs(value)
            furthest = largest_of(size)
            stored = arithmetic.gamma(8, arithmetic.roundoff) * rstd
            # automatic differentiation averages over the whole gradient of x - mean, of which mean |unit| <= 1 along the group
            averaged = 0 if self.mean is None else rstd * (_few(g, self.count + 2) * along) + stored * along
            # b x + c with c = -b mean - ..., b = projection rstd^2
            shifted = tiny if self.mean is None else _few(g, 6) * (rstd * rstd * along) + tiny
            moved, turned = rstd + stored + tiny, (rstd + stored) * along  # what the bounds of g and of unit are multiplied by
            bound = np.multiply(g.magnitude, stored + tiny + g.relative * moved, out=None if weight is None else g.magnitude)
            size *= self.rstd.bound / self.rstd.value
            bound += size
            more, rest = _parts(unit, stored * along + rstd * projection.bound, turned, size)
            bound += more
            bound += np.multiply(self.reach, shifted, out=size)
            rest = rest + averaged + stored * _most(mean) + rstd * mean.bound + g.rest * moved + 4 * tiny * (1 + rstd)
            small = 0.0 if weight is None else _most(weight) * (4 * tiny * (1 + rstd))
            bound += rest + small if np.size(small) < bound.size else rest
            if np.size(small) == bound.size:
                bound += small
            return _fitting(value, self._in_range(bound, g, mean, along), furthest, arithmetic)

    def _in_range(self, bound: Any, g: _Sized, mean: Rounded, along: Any) -> Any:
        """Return the bound of dx, infinite where one of its terms, multiplied out and not yet divided by n, may overflow."""
        arithmetic, rstd = g.arithmetic, _most(self.rstd)
        largest = _largest(arithmetic.precision) / BOUND_SLACK
        if self.count * largest_of(bound) < largest * _inside(arithmetic):  # which holds of each term at least 6 roundings
            return bound
        turned = np.abs(self.unit.value) if self.mean is None else np.abs(self.unit.value) + rstd * self.reach
        size = _most(_Sized(g.value, np.abs(g.value), g.relative, g.rest, arithmetic))  # whose own magnitudes may be overwritten
        terms = size + _most(mean) + turned * along
        return np.where(terms * (self.count * rstd) <= largest, bound, np.inf)


class _Shared(Rounded):
    """A standardised ball with the bound that it has as a factor in sums over a group, put together where it is asked for."""

    def __init__(self, unit: _Sized, reach: Any, shared: Any) -> None:
        self.held = self.value = unit.value
        self.unit, self.reach, self.shared, self.arithmetic = unit, reach, shared, unit.arithmetic

    @cached_property
    def bound(self) -> Any:  # type: ignore[override]
        bound = self.reach * self.shared
        bound += self.unit.magnitude * self.unit.relative
        bound += self.unit.rest
        return bound


class _Sized(Rounded):
    """A ball of the bound `size` * relative + rest, size = |value|, which is put together where it is asked for."""

    def __init__(self, value: Any, size: Any, relative: Any, rest: Any, arithmetic: Arithmetic) -> None:
        self.held = self.value = value
        self.magnitude, self.relative, self.rest, self.arithmetic = size, relative, rest, arithmetic

    @cached_property
    def bound(self) -> Any:  # type: ignore[override]
        return self.magnitude * self.relative + self.rest


def standardised(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the mean and the biased variance of the groups along `axes`."""
    more = math.ceil(6 + 3 * math.log(max(_count(x, axes), 1)))  # Welford's mean, to first order in u
    if isinstance(x, Rounded):
        with quiet():
            size = _most(x)
            magnitude = size.sum(axis=axes, keepdims=True) / max(_count(x, axes), 1)
            mean = _average(x, axes, more, magnitude)
            deviation = x.value - mean.value
            rstd = _inverse_root(x.arithmetic, *_variance(x, mean, axes, deviation, magnitude), eps)
            return _groups(x, axes, mean, rstd, deviation, size)
    mean = _average(x, axes)
    deviation = x - mean
    rstd = 1 / np.sqrt(_average(deviation * deviation, axes) + eps)
    return _plain(x, axes, mean, rstd)


def root_mean_square(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the root of the mean square of the groups along `axes`; no mean is taken away."""
    if isinstance(x, Rounded):
        rstd = _inverse_root(x.arithmetic, *_variance(x, None, axes), eps)
        return _groups(x, axes, None, rstd, x.value, _most(x))
    return _plain(x, axes, None, 1 / np.sqrt(_average(x * x, axes) + eps))


def given(x: Array, axes: Axes, mean: Array, variance: Array, eps: float) -> Standardised:
    """Take statistics that are given and do not depend on x."""
    rstd = 1 / np.sqrt(variance + eps)
    if isinstance(x, Rounded):
        return _groups(x, axes, mean, rstd, x.value - mean.value, _most(x), constant=True)
    return _plain(x, axes, mean, rstd, constant=True)


def _plain(x: Array, axes: Axes, mean: Array | None, rstd: Array, *, constant: bool = False) -> Standardised:
    unit = (x if mean is None else x - mean) * rstd
    if isinstance(x, Directed) and mean is not None:
        unit = either(unit, x * rstd - mean * rstd)  # the fused form
    return Standardised(_count(x, axes), axes, mean, rstd, unit, unit, None, constant)


def _groups(x: Rounded, axes: Axes, mean: Rounded | None, rstd: Rounded, deviation: Any, size: Any, *,
            constant: bool = False) -> Standardised:
    """Return the groups of x, whose magnitudes are `size`, that standing `deviation` from the mean."""
    with quiet():
        count = _count(x, axes)
        reach = size if mean is None else np.add(size, _most(mean), out=size)
        ball = _unit(x, mean if mean is not None else x.arithmetic.lift(0.0), rstd, reach, deviation, axes)
        # sum g unit may be (sum g x - mean sum g) rstd
        shared = None if mean is None else _few(ball, count + 6) * _most(rstd)
        if shared is None:
            summed: Rounded = ball
        elif isinstance(ball, _Sized):
            summed = _Shared(ball, reach, shared)
        else:
            summed = _widened(ball, reach * shared)
        return Standardised(count, axes, mean, rstd, ball, summed, reach, constant)


def _unit(x: Rounded, mean: Rounded, rstd: Rounded, reach: Any, deviation: Any, axes: Axes) -> Rounded:
    """Return (x - mean) rstd: |d' r' (1 + u)^2 - d r| <= |d| (b_r + |r'| (2 u + u^2)) + (b_x + b_m) |r'| (1 + u)^2, d = x - mean."""
    arithmetic, most, tiny = x.arithmetic, _most(rstd), x.arithmetic.precision.underflow
    twice, largest = arithmetic.roundoff * (2 + arithmetic.roundoff), arithmetic.precision.largest / 2
    relative = rstd.bound + most * twice
    rest = (x.bound + mean.bound) * (most * (1 + twice)) + tiny * (1 + 2 * most)
    inside = largest_of(reach) * (1 + twice) <= largest
    if inside and x.exact and all(rstd.shape[axis] == 1 for axis in axes):
        value = np.multiply(deviation, rstd.value, out=None if deviation is x.value else deviation)
        ball = _Sized(value, np.abs(value), relative / rstd.value, rest, arithmetic)
        if largest_of(rest) < math.inf and largest_of(ball.magnitude) < math.inf:  # what makes `relative` infinite makes `rest` so too
            return ball
        deviation = x.value - mean.value
    value, bound = deviation * rstd.value, np.abs(deviation) * relative + rest
    return _known(value, bound if inside else np.where(reach * (1 + twice) <= largest, bound, np.inf), arithmetic)


def _fitting(value: Any, bound: Any, furthest: float, arithmetic: Arithmetic) -> Rounded:
    """Return a ball of numbers up to `furthest`, unknown where it may overflow."""
    return Rounded(value, bound, arithmetic) if furthest + largest_of(bound) < arithmetic.safe else arithmetic.overflowing(value, bound)


def _parts(ball: Rounded, relative: Any, factor: Any, out: Any = None) -> tuple[Any, Any]:
    """Return two terms of |ball| relative + bound factor, of which the second may be shared by several entries."""
    if isinstance(ball, _Sized):
        return np.multiply(ball.magnitude, relative + ball.relative * factor, out=out), ball.rest * factor
    return np.abs(ball.value) * relative, ball.bound * factor


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


def _largest(precision: Precision) -> float:
    """Return the largest number inside a kernel."""
    return FLOAT32_LARGEST if precision.wide else precision.largest


def _widened(ball: Rounded, extra: Any) -> Rounded:
    return _known(ball.value, ball.bound + extra, ball.arithmetic)


def _known(value: Any, bound: Any, arithmetic: Arithmetic) -> Rounded:
    """Return a ball, unknown where its bound is not a number."""
    return Rounded(value, np.where(np.isnan(bound), np.inf, bound) if np.isnan(largest_of(bound)) else bound, arithmetic)


def _held(arithmetic: Arithmetic, value: Any, bound: Any, magnitude: Any) -> Rounded:
    """Return a ball of a number inside a kernel; it is unknown where `magnitude`, or the number, may overflow or is NaN."""
    largest = _largest(arithmetic.precision)
    return Rounded(value, np.where((magnitude + bound) * BOUND_SLACK <= largest, bound, np.inf), arithmetic)


def _average(x: Array, axes: Axes, more: int = 2, magnitude: Any = None) -> Array:
    """Return the mean along `axes`, kept as axes of size 1; its sum is not stored. Nothing has the mean 0.

    `magnitude` is the mean of |x| + b where that is known.
    """
    n = _count(x, axes)
    if not isinstance(x, Rounded):
        return x.sum(axis=axes, keepdims=True) / max(n, 1)
    if n == 1:
        return x
    with quiet():
        n = max(n, 1)
        value = x.value.sum(axis=axes, keepdims=True) / n
        spread = 0 if x.exact else np.sum(x.bounds(), axis=axes, keepdims=True) / n
        if magnitude is None:
            magnitude = _most(x).sum(axis=axes, keepdims=True) / n
        return _averaged(x.arithmetic, value, spread, magnitude, n, more)


def _averaged(arithmetic: Arithmetic, value: Any, spread: Any, magnitude: Any, n: int, more: int = 2) -> Rounded:
    """Return the ball of a mean of n numbers that move it by `spread`, the mean of whose magnitudes is `magnitude` at most."""
    precision = arithmetic.precision
    bound = spread + arithmetic.gamma(n + more, _inside(arithmetic)) * magnitude + precision.underflow
    if precision.wide:
        bound = bound + (np.abs(value) + bound) * arithmetic.quotient + precision.underflow
    return _held(arithmetic, value, bound, n * magnitude)


def _variance(x: Rounded, mean: Rounded | None, axes: Axes, deviation: Any = None, magnitude: Any = None) -> tuple[Any, Any]:
    """Return the mean square of x - mean, the `deviation`, and its bound: see the module's first lines.

    `magnitude` is the mean of |x| + b.
    """
    with quiet():
        precision, n = x.arithmetic.precision, max(_count(x, axes), 1)
        if mean is None:
            deviation = x.value
        value = np.sum(deviation * deviation, axis=axes, keepdims=True) / n
        # entries that move by b_i move it by at most 2 |x_i - m| b_i + b_i^2 each
        spread = 0 if x.exact else np.sum((2 * np.abs(deviation) + x.bound) * x.bound, axis=axes, keepdims=True) / n
        most, stored = value + spread, 5 * precision.store if precision.wide else 0
        from_mean: Any = 0
        if mean is not None:
            summed = _few(x, n + math.ceil(6 + 3 * math.log(n))) * magnitude if n > 1 else 0
            from_mean = 2 * summed * np.sqrt(2 * most) + mean.bound * mean.bound
        bound = spread + from_mean + (_few(x, n + 4) + stored) * (most + from_mean) + 2 * precision.underflow
        largest = _largest(precision)
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
