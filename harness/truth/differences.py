"""Extrapolated differences: derivatives of a real function along directions, each with an estimate of its own error."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

__all__ = ["LONGEST", "NEAR", "REFINED", "amplification", "differences"]

LONGEST, SHORTER = 2.0**-2, 2.0**-6  # the first step in units of the usual size, and how much shorter the step of a second try is
ORDER, ONE_SIDED, REFINED = 8, 4, 12  # the orders of central and one-sided differences, and how often their step is halved
CONVERGING = 4.0  # times the last change of an extrapolation: where the second derivative jumps, as much as that change is left
NEAR = (2.0**-8, 2.0**-14)  # how much shorter the steps are by which a kink is looked for

Along = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Returns the function at some lengths along directions, of which the second array holds the numbers."""


def differences(along: Along, first: np.ndarray, noise: float, side: int = 0, *, shrink: float = 1.0,
                refined: int = REFINED) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives along directions, and what each may be off by; infinite where the differences do not converge.

    `first` holds the length of the first step along each direction, `noise` is what rounding may do to the function. The error is a
    multiple of the last change of the extrapolation, and what `noise` makes of the smallest step. `side` -1 or 1 gives one-sided
    derivatives, `shrink` scales the first steps, `refined` is how often a step is halved.
    """
    from scipy.differentiate import derivative  # noqa: PLC0415  (a large import that the complex step needs only to be verified)

    def extrapolated(which: np.ndarray, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps = first[which] * length
        result = derivative(along, np.zeros(len(which)), args=(which.astype(float),), initial_step=steps, step_direction=side, order=order,
                           maxiter=refined)
        rounding = noise * amplification(order, side) / (steps * 0.5 ** np.maximum(result.nit - 1, 0))
        errors = CONVERGING * result.error + rounding
        diverging = (result.error > np.abs(result.df) / 8) & (result.error > rounding)  # where the last change bounds nothing
        good = np.isfinite(result.df) & np.isfinite(errors) & ~diverging
        return np.where(good, result.df, 0.0), np.where(good, errors, np.inf), np.flatnonzero(~result.success)

    order = ONE_SIDED if side else ORDER
    with np.errstate(all="ignore"):
        values, errors, rest = extrapolated(np.arange(len(first)), shrink)
        if len(rest) and refined == REFINED:  # a long first step is more exact where it is not too long
            other, its_errors, _ = extrapolated(rest, shrink * SHORTER)
            better = its_errors < errors[rest]
            values[rest[better]], errors[rest[better]] = other[better], its_errors[better]
    return values, errors


@lru_cache
def amplification(order: int, side: int) -> float:
    """Return the sum of the absolute weights in SciPy's formula of an order, times its largest step: what multiplies noise / step."""
    if side:
        nodes = np.concatenate([[0.0], 2.0 ** (-np.arange(order) / 2)])
    else:
        half = 2.0 ** -np.arange(order // 2)
        nodes = np.concatenate([-half, [0.0], half])
    powers = np.vander(nodes, increasing=True).T
    return float(np.sum(np.abs(np.linalg.solve(powers, np.eye(len(nodes))[1]))))
