"""The textbook rule of normalisation: mean, variance and normalised entries of groups, and the gradient back through all three.

The rule runs as it stands on floats, on rationals and on arrays that move along a direction. Rounded arrays need bounds that hold for
every usual way to compute the same numbers: `moments_bounds` has those of the statistics, `normalization_bounds` those of the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from backproof.reference import moments_bounds
from backproof.reference.direction import Directed
from backproof.reference.moments_bounds import Axes, group_size
from backproof.reference.normalization_bounds import NormalizationBounds
from backproof.reference.rounding import Array, Rounded, either

__all__ = ["Axes", "Standardised", "given", "root_mean_square", "standardised"]


@dataclass(frozen=True)
class Standardised:
    """Groups of n entries x_i along `axes`, with their mean m, their r = 1 / sqrt(v + eps) (`rstd`) and h (`unit`).

    Formula       m = 1/n sum_k x_k, v = 1/n sum_k (x_k - m)^2, h_i = (x_i - m) r, y_i = h_i w_i + b_i
    Chain rule    with g_i = dy_i w_i, and since sum_k (x_k - m) = 0 takes dm out of dv:
                  dm/dx_j = 1/n,  dv/dx_j = 2/n (x_j - m),  dr/dv = -r^3/2
                  dh_i/dx_j = r (delta_ij - 1/n) - (x_i - m) r^3 (x_j - m) / n = r (delta_ij - 1/n - h_i h_j / n)
                  dx_j = sum_i g_i dh_i/dx_j = r (g_j - 1/n sum_i g_i - h_j 1/n sum_i g_i h_i)
                  dw_i = sum dy_i h_i, db_i = sum dy_i, over every entry that shares the weight

    Without a mean (`root_mean_square`) m = 0 everywhere, and the term 1/n sum_i g_i is left out. `constant` statistics do not depend
    on x: dm = dv = 0, and dx_j = r g_j. On rounded arrays `summed` is `unit` with the bound it has as a factor in sums over a group,
    and `reach` is |x| + |m|; otherwise `summed` is `unit`, and `reach` is None.
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
        """Return y = h w + b; without a weight w = 1, without a bias b = 0."""
        if isinstance(self.unit, Rounded):
            return self._bounds.affine(weight, bias)
        y = self.unit if weight is None else self.unit * weight
        return y if bias is None else y + bias

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        """Return dx = r (g - mean(g) - h mean(g h)) from the gradient of `affine`: directly, through the mean, through the variance."""
        if isinstance(self.unit, Rounded):
            return self._bounds.pullback(dy, weight)
        g = dy if weight is None else dy * weight
        if self.constant:
            return g * self.rstd
        through_mean = 0 if self.mean is None else _average(g, self.axes)
        through_variance = self.unit * _average(g * self.unit, self.axes)
        return self.rstd * (g - through_mean - through_variance)

    def weighted(self, dy: Array) -> Array:
        """Return dy h, the terms of the weight's gradient."""
        return self._bounds.weighted(dy) if isinstance(self.unit, Rounded) else dy * self.unit

    def gradient(self, dy: Array, axes: Axes) -> Array:
        """Return the sum of dy h along `axes`, the weight's gradient."""
        return self._bounds.gradient(dy, axes) if isinstance(self.unit, Rounded) else np.sum(dy * self.unit, axis=axes)

    def total(self, dy: Array, axes: Axes) -> Array:
        """Return the sum of dy along `axes`, the bias's gradient."""
        return self._bounds.total(dy, axes) if isinstance(self.unit, Rounded) else np.sum(dy, axis=axes)

    @cached_property
    def _bounds(self) -> NormalizationBounds:
        return NormalizationBounds(self.count, self.axes, self.mean, self.rstd, self.unit, self.summed, self.reach, self.constant)


def standardised(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the mean and the biased variance of the groups along `axes`."""
    if isinstance(x, Rounded):
        return Standardised(group_size(x, axes), axes, *moments_bounds.standardised(x, axes, eps))
    mean = _average(x, axes)
    deviation = x - mean
    variance = _average(deviation * deviation, axes)
    return _normalised(x, axes, mean, 1 / np.sqrt(variance + eps))


def root_mean_square(x: Array, axes: Axes, eps: float) -> Standardised:
    """Take the mean square of the groups along `axes`; no mean is taken away."""
    if isinstance(x, Rounded):
        return Standardised(group_size(x, axes), axes, *moments_bounds.root_mean_square(x, axes, eps))
    mean_square = _average(x * x, axes)
    return _normalised(x, axes, None, 1 / np.sqrt(mean_square + eps))


def given(x: Array, axes: Axes, mean: Array, variance: Array, eps: float) -> Standardised:
    """Take statistics that are given and do not depend on x."""
    rstd = 1 / np.sqrt(variance + eps)
    if isinstance(x, Rounded):
        return Standardised(group_size(x, axes), axes, *moments_bounds.given(x, axes, mean, rstd), constant=True)
    return _normalised(x, axes, mean, rstd, constant=True)


def _average(x: Array, axes: Axes) -> Array:
    """Return the mean along `axes`, kept as axes of size 1. Nothing has the mean 0."""
    return x.sum(axis=axes, keepdims=True) / max(group_size(x, axes), 1)


def _normalised(x: Array, axes: Axes, mean: Array | None, rstd: Array, *, constant: bool = False) -> Standardised:
    """Return the groups of x with these statistics: h = (x - m) r."""
    unit = (x if mean is None else x - mean) * rstd
    if isinstance(x, Directed) and mean is not None:
        unit = either(unit, x * rstd - mean * rstd)  # the fused form
    return Standardised(group_size(x, axes), axes, mean, rstd, unit, unit, None, constant)
