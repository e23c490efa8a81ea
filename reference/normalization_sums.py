"""The sums that are the gradients of a normalisation's weight and bias, in every order in which implementations take them."""

from __future__ import annotations

import numpy as np
from backproof.reference.moments import Axes, Standardised
from backproof.reference.rounding import Array, Rounded, either

__all__ = ["bias_gradient", "sum_by_example", "weight_gradient"]


def _is_wide(a: Array) -> bool:
    return isinstance(a, Rounded) and a.arithmetic.precision.wide


def sum_by_example(a: Array, axes: Axes) -> Array:
    """Return the sum along `axes`; where it is wider than what is stored, the sums of single examples may be stored first."""
    if not _is_wide(a) or len(axes) < 2:
        return np.sum(a, axis=axes)
    return either(a.sum(axes), a.sum(axes[1:], keepdims=True).sum(axes))


def weight_gradient(groups: Standardised, dy: Array, axes: Axes) -> Array:
    """Return the sum of dy unit along `axes`; where sums are wider than what is stored, as `sum_by_example` takes it."""
    return sum_by_example(groups.weighted(dy), axes) if _is_wide(dy) else groups.gradient(dy, axes)


def bias_gradient(groups: Standardised, dy: Array, axes: Axes) -> Array:
    """Return the sum of dy along `axes`; where sums are wider than what is stored, as `sum_by_example` takes it."""
    return sum_by_example(dy, axes) if _is_wide(dy) else groups.total(dy, axes)
