"""Exact kinds of numbers on which a rule is run, and how each gives the derivative of the pairing <dy, y> along a direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from backproof.proof.setting import Point, Setting
from backproof.truth.exact import Ball, Dual, balls, duals

__all__ = ["BALLS", "BITS", "RATIONALS", "WIDTH", "Kind", "NotApplicableError", "as_floats", "inner_product", "shown"]

WIDTH = Fraction(1, 2**200)  # of the difference quotients
BITS = 700  # of the balls: the square of that width, which is a quotient's error, and 300 bits for what cancels


class NotApplicableError(Exception):
    """A method has no say about a rule, for the reason given."""


@dataclass(frozen=True)
class Kind:
    """A kind of exact numbers: `slope` returns the derivative of the pairing along a direction, and what it may be off by."""

    name: str
    numbers: str
    lift: Callable[[Any], Any]
    value: Callable[[Any], Any]
    slope: Callable[[Setting, Point, Mapping[int | str, Any]], tuple[Any, Any]]
    apart: Callable[[Any, Any], bool]


def _dual_slope(setting: Setting, point: Point, direction: Mapping[int | str, Any]) -> tuple[Any, Any]:
    for place, by in direction.items():
        point = setting.moved(point, place, _SLOPED(by))
    return Dual.of(setting.pairing(point)).slope, Fraction(0)


def _ball_slope(setting: Setting, point: Point, direction: Mapping[int | str, Any]) -> tuple[Any, Any]:
    """Central quotients of two widths: the error, which is of their square, is a third of what the two differ by."""

    def quotient(width: Fraction) -> Any:
        sides = []
        for side in (width, -width):
            moved = point
            for place, by in direction.items():
                moved = setting.moved(moved, place, balls(by) * Ball(side))
            sides.append(Ball.of(setting.pairing(moved)))
        return ((sides[0] - sides[1]) / (2 * width)).number

    wide, narrow = quotient(WIDTH), quotient(WIDTH / 2)
    return narrow, abs(wide - narrow)


def _balls_apart(off: Any, error: Any) -> bool:
    if not off.is_finite() or not error.is_finite():
        return True
    if max(float(off.rad()), float(error.abs_upper())) > float(WIDTH) ** 0.5:
        raise NotApplicableError(f"what cancels leaves too few of {BITS} bits")
    return bool(abs(off).abs_lower() > error.abs_upper())


_SLOPED = np.frompyfunc(lambda by: Dual(Fraction(0), Fraction(by)), 1, 1)

RATIONALS = Kind("exact rational arithmetic", "fraction", duals, lambda x: Dual.of(x).value, _dual_slope,
                 lambda off, error: abs(off) > error)
BALLS = Kind("arbitrary precision", "float", balls, lambda x: Ball.of(x).number, _ball_slope,
             _balls_apart)


def inner_product(kind: Kind, gradient: np.ndarray, direction: np.ndarray) -> Any:
    """Return the sum of gradient times direction, in a kind of numbers."""
    return sum(kind.value(g) * kind.value(v) for g, v in zip(gradient.ravel(), direction.ravel(), strict=True))


def as_floats(array: Any) -> np.ndarray:
    """Return numbers of any kind as floats."""
    if np.asarray(array).dtype != object:
        return np.asarray(array, dtype=float)
    return np.array([_float(number) for number in np.ravel(array)]).reshape(np.shape(array))


def _float(number: Any) -> float:
    if isinstance(number, Ball):
        return float(number.number.mid())
    return float(number.value if isinstance(number, Dual) else number)


def shown(number: Any) -> str:
    """Return a number as text: a short fraction as it is, others as floats."""
    if isinstance(number, Fraction) and len(str(number)) <= 24:
        return str(number)
    return repr(float(number))
