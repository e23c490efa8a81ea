"""The resolution of a function: how far its values are off a smooth curve, whatever the precision in which it computes inside.

A function that casts to float32 on the way is a staircase: perturbed in the last places of float64 it does not move at all, and a
difference over a step that is no longer than a stair knows nothing. High differences of values on a line vanish for what is smooth,
and keep the rounding (More, Wild, *Estimating computational noise*, SIAM J. Sci. Comput. 33, 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["resolution"]

ORDER = 6  # of the differences; what is smooth leaves STRIDE to this power of it, which is far below the rounding of float64
POINTS = 9  # on a line, so that there are three differences
STRIDE = 2.0**-16  # between two points, in units of the size of the entries


def resolution(value: Callable[[float], float]) -> float:
    """Return by how much the values of a function on a line scatter about a smooth curve; 0 where one of them is not finite."""
    with np.errstate(all="ignore"):
        values = np.array([value(STRIDE * n) for n in range(POINTS)])
        if not np.isfinite(values).all():
            return 0.0
        left = np.diff(values, ORDER)
    return float(np.max(np.abs(left))) / math.sqrt(math.comb(2 * ORDER, ORDER))
