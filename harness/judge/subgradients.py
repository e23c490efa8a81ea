"""What every subgradient keeps, where the hull of an entry alone does not say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.certificate import Certificate
from backproof.reference.rounding import Arithmetic, Precision, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["as_convention", "conserves"]


def conserves(step: LayerTrace, tensor: str, actual: np.ndarray, precision: Precision, upstream: Sequence[Any] = ()) -> bool:
    """Say whether a gradient that may be another subgradient hands on all of dy, where the layer says that it must.

    A hull holds each entry by itself, and so also dx in which every one of several tied entries receives all of dy. In a row of m
    entries of dx and n of dy, each entry of dx is a sum of at most n parts of dy's: a part is rounded twice at most (times 1/k, for k
    tied entries) and meets n - 1 additions, so the sum of dx is off by at most gamma_(n+1) sum |dy|, and by m n underflows. The two
    sums themselves are taken here in float64. All of it lies within gamma_(m+n) (sum |dx| + sum |dy|), as m > 1 where entries tie.
    """
    if tensor != f"d{step.layer.input_names[0]}":
        return True
    arithmetic = Arithmetic(precision)
    dy = arithmetic.lift(upstream[0]) if upstream else arithmetic.exact(step.d_outputs[0])
    rows = step.layer.conserved(arithmetic.exact(actual), dy)
    if rows is None:
        return True
    m, n = (row.shape[1] for row in rows)
    with quiet():
        left, right = (np.sum(row.value, axis=1) for row in rows)
        magnitude = sum(np.sum(np.abs(row.value) + row.bounds(), axis=1) for row in rows)
        bound = sum(np.sum(row.bounds(), axis=1) for row in rows) + m * n * precision.underflow
        bound = bound + arithmetic.gamma(m + n, arithmetic.roundoff) * magnitude
        return bool(((np.abs(left - right) <= bound) | ~np.isfinite(right)).all())  # of a dy that is not finite nothing is known


def as_convention(own: Certificate, hull: Certificate) -> Certificate:
    """Keep what stays outside of every subgradient; the rest is the framework's convention."""
    if hull.failed or own.verdict == "nonfinite":
        return hull
    return replace(own, verdict="convention", outside=0, conventions=own.outside, inconclusive=hull.inconclusive, excess=hull.excess)
