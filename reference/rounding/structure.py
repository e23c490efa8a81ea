"""What only moves entries about: joints, parts, and other shapes of an array of balls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import ZERO, Rounded
from backproof.reference.rounding.comparison import arithmetic_of

__all__ = ["joining", "split", "structural"]


def joining(function: Any) -> Callable[..., Rounded]:
    """Return the rule of a function that joins arrays."""
    def rule(arrays: Any, axis: Any = 0) -> Rounded:
        arithmetic = arithmetic_of(*arrays)
        balls = [a if isinstance(a, Rounded) else arithmetic.lift(a) for a in arrays]
        exact = [b.exact for b in balls]
        bound = ZERO if all(exact) else function([b.bounds() for b in balls], axis=axis)
        return Rounded(function([b.held for b in balls], axis=axis), bound, arithmetic)

    return rule


def split(x: Rounded, sections: Any, axis: int = 0) -> list[Rounded]:
    """Return the parts of an array along an axis."""
    values, bounds = np.split(x.held, sections, axis), np.split(x.bounds(), sections, axis)
    return [Rounded(v, ZERO if x.exact else b, x.arithmetic) for v, b in zip(values, bounds, strict=True)]


def structural(function: Any) -> Callable[..., Rounded]:
    """Return the rule of a function that only moves the entries of one array."""
    return lambda x, *args, **kwargs: x.restructure(lambda a: function(a, *args, **kwargs))
