"""Numbers that round nothing, or next to nothing: rationals with a derivative, and arbitrary-precision balls.

The rule under proof runs on arrays of these in place of floats. None of them turns into a float on the way: a rule that writes into an
array of floats raises an error, instead of losing unseen the digits that the proof is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

import flint
import numpy as np
from backproof.truth.lifted import Lifted
from flint import arb, fmpq
from scipy import special

__all__ = ["Ball", "BallArray", "Dual", "DualArray", "balls", "duals", "precise"]


@dataclass(frozen=True, eq=False)
class Dual:
    """A rational number and its derivative: forward differentiation by the four operations, exactly."""

    value: Fraction
    slope: Fraction = Fraction(0)

    @staticmethod
    def of(number: Any) -> Dual:
        number = number.item() if isinstance(number, np.ndarray) else number
        return number if isinstance(number, Dual) else Dual(Fraction(number))

    def __add__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = Dual.of(other)
        return Dual(self.value + b.value, self.slope + b.slope)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slope)

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else self + -Dual.of(other)

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = Dual.of(other)
        return Dual(self.value * b.value, self.slope * b.value + self.value * b.slope)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = Dual.of(other)
        return Dual(self.value / b.value, (self.slope * b.value - self.value * b.slope) / b.value**2)

    def __rtruediv__(self, other: Any) -> Any:
        return Dual.of(other) / self

    def __pow__(self, exponent: Any) -> Dual:
        n = int(exponent)
        if n != exponent:
            raise TypeError(f"rationals are raised to whole powers only: got {exponent!r}")
        return Dual(self.value**n, n * self.value ** (n - 1) * self.slope if n else Fraction(0))

    def __abs__(self) -> Dual:
        return -self if self.value < 0 else self

    def __lt__(self, other: Any) -> Any:
        return self.value < _value(other)

    def __le__(self, other: Any) -> Any:
        return self.value <= _value(other)

    def __gt__(self, other: Any) -> Any:
        return self.value > _value(other)

    def __ge__(self, other: Any) -> Any:
        return self.value >= _value(other)

    def __eq__(self, other: object) -> Any:
        return self.value == _value(other)

    def __hash__(self) -> int:
        return hash(self.value)

    __radd__, __rmul__ = __add__, __mul__


def _value(number: Any) -> Any:
    return number.value if isinstance(number, Dual) else number


_FUNCTIONS = ("acos", "asin", "atan", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "exp", "expm1", "gamma", "lgamma", "log", "log1p",
              "rsqrt", "sin", "sinc", "sinh", "sqrt", "tan", "tanh")


class Ball:
    """An arbitrary-precision number with its error (Arb, Johansson 2017). What the error leaves open its midpoint decides."""

    __slots__ = ("number",)

    def __init__(self, number: Any) -> None:
        self.number = number if isinstance(number, arb) else _arb(number)

    @staticmethod
    def of(number: Any) -> Ball:
        return number if isinstance(number, Ball) else Ball(_arb(number))

    def __getattr__(self, name: str) -> Any:
        if name not in _FUNCTIONS:
            raise AttributeError(name)
        function = getattr(self.number, name)
        return lambda: Ball(function())

    def __add__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else Ball(self.number + _arb(other))

    def __sub__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else Ball(self.number - _arb(other))

    def __rsub__(self, other: Any) -> Any:
        return Ball(_arb(other) - self.number)

    def __mul__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else Ball(self.number * _arb(other))

    def __truediv__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else Ball(self.number / _arb(other))

    def __rtruediv__(self, other: Any) -> Any:
        return Ball(_arb(other) / self.number)

    def __pow__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, np.ndarray) else Ball(self.number ** _arb(other))

    def __rpow__(self, other: Any) -> Any:
        return Ball(_arb(other) ** self.number)

    def __neg__(self) -> Ball:
        return Ball(-self.number)

    def __abs__(self) -> Ball:
        return -self if self < 0 else self

    def __lt__(self, other: Any) -> bool:
        a, b = self.number, _arb(other)
        return bool(a < b) or (not a >= b and bool(a.mid() < b.mid()))

    def __gt__(self, other: Any) -> bool:
        a, b = self.number, _arb(other)
        return bool(a > b) or (not a <= b and bool(a.mid() > b.mid()))

    def __le__(self, other: Any) -> bool:
        return not self > other

    def __ge__(self, other: Any) -> bool:
        return not self < other

    def __eq__(self, other: object) -> bool:
        return bool(self.number.mid() == _arb(other).mid())

    def __hash__(self) -> int:
        return hash(float(self.number.mid()))

    def __repr__(self) -> str:
        return f"Ball({self.number.str(20)})"

    __radd__, __rmul__ = __add__, __mul__


def _arb(number: Any) -> Any:
    """Return a number as an `arb`, exactly."""
    if isinstance(number, Ball):
        return number.number
    if isinstance(number, (np.generic, np.ndarray)):
        return _arb(number.item())
    if isinstance(number, Fraction):
        return arb(fmpq(number.numerator, number.denominator))
    if isinstance(number, float) and number in (float("inf"), float("-inf")):
        return arb.pos_inf() if number > 0 else arb.neg_inf()
    return arb(number)


@contextmanager
def precise(bits: int) -> Iterator[None]:
    """Let Arb compute with so many bits."""
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        yield
    finally:
        flint.ctx.prec = before


class DualArray(Lifted):
    """An array of rationals with their slopes; a sum over all of it stays an array."""

    kind = "O"
    scalars = (Dual,)


def _elementary(name: str) -> Any:
    return np.frompyfunc(lambda x: getattr(Ball.of(x), name)(), 1, 1)


_expit = np.frompyfunc(lambda x: 1 / (1 + (-Ball.of(x)).exp()), 1, 1)
_ndtr = np.frompyfunc(lambda x: (-Ball.of(x) / Ball(2).sqrt()).erfc() / 2, 1, 1)
_log_sum = np.frompyfunc(lambda x, y: (Ball.of(x).exp() + Ball.of(y).exp()).log(), 2, 1)


class BallArray(Lifted):
    """An array of balls, in which plain numbers may stand too."""

    kind = "O"
    scalars = (Ball,)
    rules: ClassVar[dict[Any, Any]] = {
        **{getattr(np, name): _elementary(name) for name in ("cos", "cosh", "exp", "expm1", "log", "log1p", "sin", "sinh", "sqrt", "tan",
                                                             "tanh")},
        np.arctan: _elementary("atan"), np.arcsin: _elementary("asin"), np.arccos: _elementary("acos"),
        **{getattr(special, name): _elementary(name) for name in ("erf", "erfc", "erfinv", "gamma", "digamma")},
        special.expit: _expit, special.ndtr: _ndtr, np.logaddexp: _log_sum, special.log1p: _elementary("log1p"),
    }


_DUAL, _BALL = np.frompyfunc(Dual.of, 1, 1), np.frompyfunc(Ball.of, 1, 1)


def _objects(function: Any, array: Any) -> np.ndarray:
    return np.asarray(function(np.asarray(array, dtype=object)), dtype=object)


def duals(array: Any) -> DualArray:
    """Return an array of numbers as rationals, exactly, with slope 0."""
    return _objects(_DUAL, array).view(DualArray)


def balls(array: Any) -> BallArray:
    """Return an array of numbers as balls, exactly."""
    return _objects(_BALL, array).view(BallArray)
