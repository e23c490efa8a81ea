"""Comparisons of balls, which are true, false, or too close to call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.rounding.ball import Arithmetic, Rounded
from backproof.reference.rounding.dispatch import Overriding, apply_rule
from backproof.reference.rounding.standard_model import BOUND_SLACK

__all__ = ["Ternary", "arithmetic_of", "as_ternary", "comparison"]


class Ternary:
    """A comparison of rounded arrays: `value` is the reference's own answer, `open` marks what is too close to call."""

    __array_ufunc__ = None  # so that `mask & ternary` comes to __rand__, and arithmetic with it is a TypeError

    def __init__(self, value: Any, undecided: Any, arithmetic: Arithmetic | None = None) -> None:
        self.value = np.asarray(value, dtype=bool)
        self.undecided = np.asarray(undecided, dtype=bool)
        self.arithmetic = arithmetic

    @property
    def decided(self) -> bool:
        """Say whether no entry is open, where that is seen without looking at them."""
        return self.undecided.ndim == 0 and not self.undecided

    @property
    def open(self) -> np.ndarray:
        return np.broadcast_to(self.undecided, self.value.shape)

    def __bool__(self) -> bool:
        raise TypeError("a comparison of rounded arrays is three-valued and cannot steer an `if`: use np.where")

    def __invert__(self) -> Ternary:
        return Ternary(~self.value, self.undecided, self.arithmetic)

    def __and__(self, other: Any) -> Ternary:
        a, b = self, as_ternary(other)
        if a.decided and b.decided:
            return Ternary(a.value & b.value, np.False_, a.arithmetic or b.arithmetic)
        certainly_false = ~(a.value | a.undecided) | ~(b.value | b.undecided)
        return Ternary(a.value & b.value, (a.undecided | b.undecided) & ~certainly_false, a.arithmetic or b.arithmetic)

    def __or__(self, other: Any) -> Ternary:
        return ~(~self & ~as_ternary(other))

    __rand__ = __and__
    __ror__ = __or__

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return NotImplemented if any(issubclass(t, Overriding) for t in types) else apply_rule(function, args, kwargs)


def as_ternary(condition: Any) -> Ternary:
    """Return a condition as a comparison, of which nothing is open where it is a plain mask."""
    return condition if isinstance(condition, Ternary) else Ternary(condition, undecided=False)


def comparison(function: Any) -> Callable[[Rounded, Rounded], Ternary]:
    """Return the rule of a ufunc that compares: an entry is open where the balls overlap, and at a tie where the hull is asked for."""
    def rule(x: Rounded, y: Rounded) -> Ternary:
        arithmetic, answer = x.arithmetic, function(x.value, y.value)
        if x.exact and y.exact:
            undecided, tie = np.False_, x.value == y.value
        else:
            reach = (x.bound + y.bound) * BOUND_SLACK
            near = ~(np.abs(x.value - y.value) > reach)  # so that NaN with a bound is open
            if not near.any():
                return Ternary(answer, np.False_, arithmetic)
            undecided, tie = near & (reach > 0), (x.value == y.value) & (reach == 0)
        arithmetic.ties += int(np.count_nonzero(tie))
        if arithmetic.kinks == "hull":
            undecided = undecided | tie
        return Ternary(answer, undecided, arithmetic)

    return rule


def arithmetic_of(*operands: Any) -> Arithmetic:
    """Return the arithmetic of the first rounded operand; raise TypeError where there is none."""
    known = next((x.arithmetic for x in operands if isinstance(x, (Rounded, Ternary)) and x.arithmetic is not None), None)
    if known is None:
        raise TypeError(f"no operand is rounded: got {', '.join(type(x).__name__ for x in operands)}, expected a Rounded array")
    return known
