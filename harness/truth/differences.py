"""Derivatives by extrapolated differences, with what they may be off by, for functions that take no complex numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

__all__ = ["LONGEST", "NEAR", "REFINED", "amplification", "differences"]

LONGEST, SHORTER = 2.0**-2, 2.0**-6  # the first step of the differences, to the parameters' usual size, and the second try to the first
ORDER, ONE_SIDED, REFINED = 8, 4, 12  # orders of the differences, and how often their step is halved
CONVERGING = 4.0  # times the last change: at a jump of the second derivative what is left is as large as that, at others more
NEAR = (2.0**-8, 2.0**-14)  # how much smaller the steps are that look for a kink

Along = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What a function is at some lengths along directions, which are given by their numbers."""


def differences(along: Along, first: np.ndarray, noise: float, side: int = 0, *, shrink: float = 1.0,
                refined: int = REFINED) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives along directions, whose first steps are given, and what they may be off by.

    That is the change of the last extrapolation and what the function's rounding, `noise`, makes of the smallest step.
    """
    from scipy.differentiate import derivative  # noqa: PLC0415  (a large import that the complex step needs only to be verified)

    def extrapolated(which: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps = first[which] * length
        found = derivative(along, np.zeros(len(which)), args=(which.astype(float),), initial_step=steps, step_direction=side, order=order,
                           maxiter=refined)
        rounding = noise * amplification(order, side) / (steps * 0.5 ** np.maximum(found.nit - 1, 0))
        errors = CONVERGING * found.error + rounding
        diverging = (found.error > np.abs(found.df) / 8) & (found.error > rounding)  # which a last change is no bound for
        good = np.isfinite(found.df) & np.isfinite(errors) & ~diverging
        return np.where(good, found.df, 0.0), np.where(good, errors, np.inf), np.flatnonzero(~found.success)

    order = ONE_SIDED if side else ORDER
    with np.errstate(all="ignore"):
        values, errors, rest = extrapolated(np.arange(len(first)), shrink)
        if len(rest) and refined == REFINED:  # a long first step is the more exact one, and may be too long
            other, its_errors, _ = extrapolated(rest, shrink * SHORTER)
            better = its_errors < errors[rest]
            values[rest[better]], errors[rest[better]] = other[better], its_errors[better]
    return values, errors


@lru_cache
def amplification(order: int, side: int) -> float:
    """Return the sum of the weights' sizes in SciPy's formula of that order, times its largest step."""
    if side:
        nodes = np.concatenate([[0.0], 2.0 ** (-np.arange(order) / 2)])
    else:
        half = 2.0 ** -np.arange(order // 2)
        nodes = np.concatenate([-half, [0.0], half])
    powers = np.vander(nodes, increasing=True).T
    return float(np.sum(np.abs(np.linalg.solve(powers, np.eye(len(nodes))[1]))))
