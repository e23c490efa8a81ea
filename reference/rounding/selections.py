"""Selections: the larger or smaller of balls, one of two by a condition, and one ball for two equal expressions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import ZERO, Array, Rounded, largest_of
from backproof.reference.rounding.comparison import arithmetic_of, as_ternary
from backproof.reference.rounding.dispatch import overridable
from backproof.reference.rounding.operations import negative
from backproof.reference.rounding.silence import quiet
from backproof.reference.rounding.standard_model import BOUND_SLACK

__all__ = ["either", "extremum", "largest_along", "smallest_along", "where"]


def extremum(function: Any) -> Callable[[Rounded, Rounded], Rounded]:
    """Return the rule of `np.maximum` or `np.minimum`, which round nothing."""
    def rule(x: Rounded, y: Rounded) -> Rounded:
        value = function(x.value, y.value)
        return Rounded(value, ZERO if x.exact and y.exact else np.maximum(_beyond(x, value), _beyond(y, value)), x.arithmetic)

    return rule


def _beyond(x: Rounded, extreme: Any) -> Any:
    """Return how far the entries of a ball may take a maximum or minimum beyond `extreme`: the winner its bound, others less."""
    reach = x.bound * BOUND_SLACK - np.abs(x.value - extreme)
    return np.where(np.isnan(reach), np.inf, reach) if np.isnan(np.max(reach, initial=-np.inf)) else reach


def largest_along(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    """Return the ball of the maximum along axes."""
    value = np.max(x.value, axis=axis, keepdims=True)
    bound = ZERO if x.exact else np.max(_beyond(x, value), axis=axis, keepdims=keepdims)
    return Rounded(value if keepdims else np.squeeze(value, axis), bound, x.arithmetic)


def smallest_along(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    """Return the ball of the minimum along axes."""
    return negative(largest_along(negative(x), axis, keepdims))


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return x where a condition holds, otherwise y, and where it is open the ball that holds both."""
    condition = as_ternary(condition)
    arithmetic = arithmetic_of(x, y, condition)
    x, y = arithmetic.lift(x), arithmetic.lift(y)
    value = np.where(condition.value, x.value, y.value)
    bound = ZERO if x.exact and y.exact else _chosen_bound(condition.value, x.bound, y.bound)
    if condition.decided or not condition.undecided.any():
        return Rounded(value, bound, arithmetic)
    low = np.minimum(x.value - x.bound, y.value - y.bound)
    high = np.maximum(x.value + x.bound, y.value + y.bound)
    middle = low / 2 + high / 2
    # the rounding of `middle` costs nothing: its distance from each ball's centre is correctly rounded
    reach = np.maximum(np.abs(x.value - middle) + x.bound, np.abs(y.value - middle) + y.bound)
    known = np.isfinite(reach)
    return Rounded(np.where(condition.undecided & known, middle, value),
                   np.where(condition.undecided, np.where(known, reach, np.inf), bound), arithmetic)


def _chosen_bound(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    """Return np.where of bounds. Multiplying by the mask costs a fifth of choosing where the processor cannot guess the mask."""
    picked = x * mask if y.ndim == 0 and not y else y * ~mask if x.ndim == 0 and not x else x * mask + y * ~mask
    return picked if largest_of(picked) < np.inf else np.where(mask, x, y)  # 0 times infinity is NaN


@overridable
def either(sound: Array, common: Array) -> Array:
    """Return `sound`, with a bound that also covers `common`, an equal expression that implementations evaluate instead.

    The two are equal in exact arithmetic and lose digits differently: sigmoid's derivative as s(x) s(-x), or from the saved
    output as y (1 - y). On plain arrays this is `sound`.
    """
    if not isinstance(sound, Rounded) and not isinstance(common, Rounded):
        return sound
    with quiet():
        arithmetic = arithmetic_of(sound, common)
        ball, other = arithmetic.lift(sound), arithmetic.lift(common)
        bound = np.maximum(np.abs(other.value - ball.value) + other.bound, ball.bound)
        if np.isnan(largest_of(bound)):
            bound = np.where(np.isnan(bound), np.inf, bound)
        return Rounded(np.broadcast_to(ball.value, bound.shape), bound, arithmetic)
