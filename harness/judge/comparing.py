"""The comparison of one tensor with its balls, entry by entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backproof.judge.certificate import Certificate, error_certificate
from backproof.reference.rounding import BOUND_SLACK, Precision, Rounded, largest_of, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["BLOCK", "compare", "margin_of"]

BLOCK = 2**16  # entries that are compared at a time: a few arrays of them stay in the cache
SMALLEST = 5e-324  # in place of a bound of 0: nothing over it is 0, anything else infinite


def compare(step: LayerTrace, tensor: str, actual: np.ndarray | None, ball: Rounded, precision: Precision,
            excused: np.ndarray | None = None) -> Certificate:
    """Compare one tensor with its ball, entry by entry; entries in the mask `excused` are counted and not judged.

    An entry is inconclusive when its bound is not finite, or as large as the largest number of the tensor. The margin is taken
    over entries known to within half their size: at a kink the ends of the hull are reached by every correct answer.
    """
    if actual is None:
        return error_certificate(step, tensor, f"no {tensor} came back: expected an array of shape {ball.shape}")
    if actual.shape != ball.shape:
        return error_certificate(step, tensor, f"wrong shape of {tensor}: got {actual.shape}, expected {ball.shape}", actual, ball)
    if actual.dtype != precision.dtype:
        return error_certificate(step, tensor, f"wrong dtype of {tensor}: got {actual.dtype}, expected {precision.dtype}", actual, ball)
    if (margin := margin_of(actual, ball)) is not None:
        return Certificate(step.path, step.layer, tensor, "agrees", int(actual.size), excess=margin, margin=margin)
    with quiet():
        difference = np.abs(actual.astype(np.float64) - ball.value)
        bound = ball.radius()
        known = np.isfinite(ball.value) & np.isfinite(bound)
        excess = np.where(difference == 0, 0.0, difference / bound)
    size, within = np.abs(ball.value), difference <= bound
    largest = largest_of(np.where(known, size, 0.0))
    open_ = ~known | ((bound >= largest) & (difference != 0) & within)
    outside = known & ~within
    if excused is not None:
        outside &= ~excused
    margin = largest_of(np.where(within & (bound <= size / 2), excess, 0.0))
    judged = Certificate(step.path, step.layer, tensor, "agrees", int(actual.size), outside=int(np.count_nonzero(outside)),
                         inconclusive=int(np.count_nonzero(open_)), excess=margin, margin=margin)
    if not judged.outside:
        return replace(judged, verdict="inconclusive") if actual.size and open_.all() else judged
    finite = np.isfinite(difference)
    severity = np.where(outside, np.where(finite, excess, np.inf), -1.0)
    # several entries may share an infinite excess: the worst of them is the one that is furthest off
    ranked = np.where(severity == severity.max(), np.where(finite, difference, np.inf), -1.0)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ranked)), actual.shape))
    verdict = "outside" if finite[outside].all() else "nonfinite"
    return replace(judged, verdict=verdict, excess=float(severity.max()), index=index, actual=actual, ball=ball)


def margin_of(actual: np.ndarray, ball: Rounded, margin: float = 0.0) -> float | None:
    """Return the margin of a tensor of which `compare` would say nothing else than that it agrees, None where there may be more to say.

    Every entry must be well inside a finite bound that is smaller than the tensor's largest number: what nearly every tensor is,
    found in a few passes over blocks of rows that stay in the cache. A margin known already is returned where none is larger.
    """
    size = actual.size
    if not size:
        return None
    if ball.exact:
        with quiet():  # an exact result is a number of the format
            same = (actual == _distinct(ball.held).astype(actual.dtype, copy=False)).all() and np.isfinite(actual).all()
        return margin if same else None
    values, bounds, widest = ball.value, ball.bounds(), 0.0
    alike = tuple(axis for axis, n in enumerate(actual.shape) if n > 1 and not values.strides[axis] and not bounds.strides[axis])
    if alike:  # of entries whose balls are the same one, the smallest and the largest are the furthest off
        once = tuple(slice(1) if axis in alike else slice(None) for axis in range(actual.ndim))
        one = Rounded(values[once], bounds[once], ball.arithmetic)
        first = margin_of(np.min(actual, axis=alike, keepdims=True), one, margin)
        return None if first is None else margin_of(np.max(actual, axis=alike, keepdims=True), one, first)
    if not actual.ndim:
        actual, values, bounds = (np.atleast_1d(a) for a in (actual, values, bounds))
    rows = max(1, BLOCK * len(actual) // size)
    with quiet():
        for start in range(0, len(actual), rows):
            part = slice(start, start + rows)
            value, bound = values[part], bounds[part]
            positive = np.minimum.reduce(bound[(0,) * (bound.ndim - 1)]) > 0  # the rest most often is as its first row
            excess = _excess(actual[part], value, bound if positive else np.maximum(bound, SMALLEST))
            place = int(np.argmax(excess))  # of NaN, where there is any
            if positive and np.isnan(excess.ravel()[place]):
                excess = _excess(actual[part], value, np.maximum(bound, SMALLEST))  # 0 / 0 is 0 here
                place = int(np.argmax(excess))
            if not (top := float(excess.ravel()[place])) < 1:
                return None
            if top > margin * BOUND_SLACK:
                worst = np.unravel_index(place, excess.shape)
                if not bound[worst] < abs(value[worst]) / 2:
                    excess *= bound < np.abs(value) / 2
                    top = float(np.max(excess))
                margin = max(margin, top / BOUND_SLACK)
            widest = max(widest, float(np.maximum.reduce(_distinct(bound), axis=None)))
    return margin if any(widest < _largest(some) / BOUND_SLACK for some in (values[:1], values)) else None


def _excess(actual: np.ndarray, value: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Return |actual - value| / bound."""
    excess = actual.astype(np.float64)
    excess -= value
    np.abs(excess, out=excess)
    excess /= bound
    return excess


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Return numbers of which one that is spread along an axis comes once."""
    if 0 not in numbers.strides:
        return numbers
    return numbers[tuple(slice(None) if stride else slice(0, 1) for stride in numbers.strides)]


def _largest(numbers: np.ndarray) -> float:
    """Return the largest magnitude of some numbers."""
    return max(float(np.max(numbers)), -float(np.min(numbers)))
