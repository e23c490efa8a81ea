"""The results of a normalisation of rounded arrays, y and the gradients, with bounds that hold for every usual way to compute them.

The bounds are derived by hand, as those of the statistics in `moments_bounds` are; h is (x - m) r, and r = 1 / sqrt(v + eps).

*Fused forms.* y = x a + (b - m a), a = r w, rounds products of the size of a (|x| + |m|), not of a |x - m|; the factor a is the same in
both, so its own error is that of a (x - m). In the gradient, sum g (x - m) may be sum g x - m sum g, and h may be multiplied out.

*Exact numbers.* Where x, dy and the weight are exact, as a layer's own are, the bound of h is |h| relative + rest with two numbers
to a group. So the sums over a group that the bounds take are those of |g|, |h| and |x| + |m|, and no bound of an entry is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from backproof.reference.moments_bounds import (
    Axes,
    RelativeBall,
    average,
    bound_terms,
    fitting,
    kernel_gamma,
    kernel_largest,
    kernel_roundoff,
    magnitudes_of,
    mean_ball,
    widened,
)
from backproof.reference.rounding import BOUND_SLACK, Array, Rounded, contracted, largest_of, quiet

__all__ = ["NormalizationBounds"]


@dataclass(frozen=True)
class NormalizationBounds:
    """The bounds of y and of every gradient of a normalisation of rounded arrays; the fields are those of `moments.Standardised`.

    Where x is exact, `unit` is a `RelativeBall`, and sums over a group are bounded without a bound of every entry.
    """

    count: int
    axes: Axes
    mean: Rounded | None
    rstd: Rounded
    unit: Array
    summed: Rounded
    reach: Any
    constant: bool

    def affine(self, weight: Rounded | None, bias: Rounded | None) -> Rounded:
        """Return unit * weight + bias: |h' w' - h w| <= b_h |w'| + |h| b_w, two roundings, and those of x a + (bias - mean a).

        There a = rstd weight, and where x a or mean a may overflow nothing is known.
        """
        with quiet():
            unit, arithmetic, tiny = self.unit, self.unit.arithmetic, self.unit.arithmetic.precision.underflow
            few = kernel_gamma(unit, 4)
            w, offset = (arithmetic.lift(n) if found is None else found for n, found in ((1.0, weight), (0.0, bias)))
            twice = arithmetic.gamma(2, arithmetic.roundoff) if weight is not None or bias is not None else 0.0
            most, most_offset, value = magnitudes_of(w), magnitudes_of(offset), unit.value if weight is None else unit.value * w.value
            if bias is not None:
                value = np.add(value, offset.value, out=None if weight is None else value)
            small = most_offset * (twice + few) + offset.bound + 4 * tiny
            rate = magnitudes_of(self.rstd)
            scale = few * rate
            if np.size(along := scale * most) < value.size:  # a weight that entries of a group share
                bound, rest = bound_terms(unit, most * twice + w.bound, most * (1 + twice))
                bound += self.reach * (tiny if self.mean is None else along + tiny)
                bound += rest + small
            else:
                bound, rest = bound_terms(unit, twice / (1 + twice), 1.0)
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
                bound = np.where(self.reach * rate * most * (1 + twice) <= kernel_largest(arithmetic.precision), bound, np.inf)
            furthest = self._tops[1] * largest_of(most) + largest_of(most_offset) if isinstance(unit, RelativeBall) else math.inf
            return fitting(value, bound, furthest, arithmetic)

    def pullback(self, dy: Rounded, weight: Rounded | None) -> Rounded:
        """Return dx from the gradient of `affine`."""
        if isinstance(self.unit, RelativeBall) and (dx := self._pulled(dy, weight)) is not None:
            return dx
        g = dy if weight is None else dy * weight
        if self.constant:
            return self._reordered(g * self.rstd, dy, g, weight)
        projection = average(self.weighted(g, dy), self.axes)
        mean_g = 0 if self.mean is None else average(g, self.axes)
        return self._combined(RelativeBall(g.value, np.abs(g.value), 0.0, g.bound, g.arithmetic), weight, mean_g, projection)

    def weighted(self, dy: Rounded, also: Rounded | None = None) -> Array:
        """Return dy unit, the terms of the weight's gradient.

        Kernels may add up dy x, or `also` x, before anything is multiplied by rstd: what underflows there is in the bound, and where a
        sum of it may overflow the term is unknown.
        """
        terms = dy * self.summed
        with quiet():
            precision = terms.arithmetic.precision
            size = magnitudes_of(dy) if also is None else np.maximum(magnitudes_of(dy), magnitudes_of(also))
            ball = widened(terms, precision.underflow * magnitudes_of(self.rstd))
            largest = kernel_largest(precision) / max(terms.size, 1)
            if np.max(size, initial=0.0) * np.max(self.reach, initial=0.0) <= largest:
                return ball
            return Rounded(ball.value, np.where(size * self.reach <= largest, ball.bound, np.inf), ball.arithmetic)

    def gradient(self, dy: Rounded, axes: Axes) -> Array:
        """Return the sum of dy unit along `axes`, the weight's gradient."""
        unit = self.unit
        if not isinstance(unit, RelativeBall) or not dy.exact or unit.arithmetic.precision.wide:
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
        if not (group and group in self._kept and self._kept[group][0] is dy):
            return np.sum(dy, axis=axes)
        others = tuple(axis for axis in axes if axis not in group)
        value, magnitude = (np.squeeze(a.sum(axis=others, keepdims=True), axes) for a in self._kept[group][1][3:])
        return dy.arithmetic.accumulated(value, None, magnitude, dy.size // max(value.size, 1))

    def _underflow(self, axes: Axes, shape: tuple[int, ...]) -> Any:
        """Return what products with unit, or with x before it is multiplied by rstd, lose along axes by underflow."""
        each = 1 + magnitudes_of(self.rstd)
        alike = math.prod(shape[axis] for axis in axes if each.shape[axis] == 1)
        return each.sum(axis=axes, keepdims=True) * (alike * self.unit.arithmetic.precision.underflow)

    def _summable(self, top: float, count: int) -> bool:
        """Say whether `count` products of numbers up to `top` with unit, or with x, are far from overflow."""
        precision, safe = self.unit.arithmetic.precision, self.unit.arithmetic.safe
        largest = kernel_largest(precision) / max(count, 1)
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
        return kernel_gamma(self.unit, self.count + 6) * magnitudes_of(self.rstd) if self.mean is not None else np.zeros(())

    def _pulled(self, dy: Rounded, weight: Rounded | None) -> Rounded | None:
        """Return dx where dy and weight are exact and nothing is large, None elsewhere."""
        arithmetic, axes, n = self.unit.arithmetic, self.axes, self.count
        if not (dy.exact and (weight is None or weight.exact)) or n == 1:
            return None
        with quiet():
            roundoff, tiny = (0.0, 0.0) if weight is None else (arithmetic.roundoff, arithmetic.precision.underflow)
            if self.constant:
                return self._ordered(dy, weight, roundoff, tiny)
            value = dy.value if weight is None else dy.value * weight.value
            g = RelativeBall(value, dy.magnitude if weight is None else np.abs(value), roundoff, tiny, arithmetic)
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
            projection = mean_ball(arithmetic, along / n, spread / n, (magnitude + spread) / n, n)
            if self.mean is None:
                return self._combined(g, weight, 0, projection)
            spread = roundoff * (total / n) + tiny
            return self._combined(g, weight, mean_ball(arithmetic, sums / n, spread, total / n + spread, n), projection)

    def _ordered(self, dy: Rounded, weight: Rounded | None, roundoff: float, tiny: float) -> Rounded | None:
        """Return what `_reordered` does, of exact numbers; roundoff and underflow are those of dy weight."""
        arithmetic, size, centre, most = dy.arithmetic, dy.magnitude, self.rstd.value, magnitudes_of(self.rstd)
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

    def _reordered(self, dx: Rounded, dy: Rounded, g: Rounded, weight: Rounded | None) -> Rounded:
        """Return dx = dy weight rstd with a bound for every order of the factors."""
        with quiet():
            arithmetic, rstd, tiny = dx.arithmetic, magnitudes_of(self.rstd), dx.arithmetic.precision.underflow
            small = tiny * (1 + (0 if weight is None else magnitudes_of(weight)) * (1 + rstd))
            bound = magnitudes_of(g) * (arithmetic.gamma(2, arithmetic.roundoff) * rstd)
            bound += magnitudes_of(dy) * tiny
            bound += dx.bound
            bound += small
            furthest = rstd * (magnitudes_of(dy) if weight is None else np.maximum(magnitudes_of(dy), magnitudes_of(weight)))
            return Rounded(dx.value, np.where(furthest <= kernel_largest(arithmetic.precision) / BOUND_SLACK, bound, np.inf), arithmetic)

    def _combined(self, g: RelativeBall, weight: Rounded | None, mean_g: Any, projection: Rounded) -> Rounded:
        """Return dx = rstd (g - mean_g - unit projection) with a bound for its terms multiplied out and added in any order.

        Four roundings reach each term as it stands, four more multiplied out; what the bounds of the factors do is added.
        """
        with quiet():
            arithmetic, unit, rstd, along = g.arithmetic, self.unit, magnitudes_of(self.rstd), magnitudes_of(projection)
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
            averaged = 0 if self.mean is None else rstd * (kernel_gamma(g, self.count + 2) * along) + stored * along
            # b x + c with c = -b mean - ..., b = projection rstd^2
            shifted = tiny if self.mean is None else kernel_gamma(g, 6) * (rstd * rstd * along) + tiny
            moved, turned = rstd + stored + tiny, (rstd + stored) * along  # what the bounds of g and of unit are multiplied by
            bound = np.multiply(g.magnitude, stored + tiny + g.relative * moved, out=None if weight is None else g.magnitude)
            size *= self.rstd.bound / self.rstd.value
            bound += size
            more, rest = bound_terms(unit, stored * along + rstd * projection.bound, turned, size)
            bound += more
            bound += np.multiply(self.reach, shifted, out=size)
            rest = rest + averaged + stored * magnitudes_of(mean) + rstd * mean.bound + g.rest * moved + 4 * tiny * (1 + rstd)
            small = 0.0 if weight is None else magnitudes_of(weight) * (4 * tiny * (1 + rstd))
            bound += rest + small if np.size(small) < bound.size else rest
            if np.size(small) == bound.size:
                bound += small
            return fitting(value, self._in_range(bound, g, mean, along), furthest, arithmetic)

    def _in_range(self, bound: Any, g: RelativeBall, mean: Rounded, along: Any) -> Any:
        """Return the bound of dx, infinite where one of its terms, multiplied out and not yet divided by n, may overflow."""
        arithmetic, rstd = g.arithmetic, magnitudes_of(self.rstd)
        largest = kernel_largest(arithmetic.precision) / BOUND_SLACK
        if self.count * largest_of(bound) < largest * kernel_roundoff(arithmetic):  # which holds of each term at least 6 roundings
            return bound
        turned = np.abs(self.unit.value) if self.mean is None else np.abs(self.unit.value) + rstd * self.reach
        # the magnitudes that g holds may be overwritten
        size = magnitudes_of(RelativeBall(g.value, np.abs(g.value), g.relative, g.rest, arithmetic))
        terms = size + magnitudes_of(mean) + turned * along
        return np.where(terms * (self.count * rstd) <= largest, bound, np.inf)
