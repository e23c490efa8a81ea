"""The ball: a value together with a rigorous bound on what floating point may do to it, and the arithmetic that balls are in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
from backproof.reference.rounding.dispatch import Dispatched
from backproof.reference.rounding.precision import Precision
from backproof.reference.rounding.standard_model import BOUND_SLACK, REFERENCE_ROUNDOFF, StandardModel

__all__ = ["ZERO", "Arithmetic", "Array", "Rounded", "largest_of", "limited", "most_of"]

T = TypeVar("T")
Array = Any
"""A NumPy array of floats, complex numbers or `Fraction` objects, or a `Rounded` array."""

np.empty(2**22 - 2**10)
"""Made and forgotten: once a block of nearly 32 MiB was freed, glibc keeps what smaller arrays leave for the next ones (mallopt(3)).

Before that it gives their memory back to the system, and to have it back page by page takes as long as the arithmetic.
"""

ZERO = np.zeros(())
"""The bound of an exact array, told by its identity where there is time for no more."""

_FLOAT32 = np.dtype(np.float32)


class Arithmetic(StandardModel):
    """The rules by which rounded arrays combine: one precision, and what a kink means.

    With `kinks="own"` an exact tie takes the reference's own branch; with `kinks="hull"` it takes the hull of both,
    which holds every subgradient. A comparison that rounding leaves open takes the hull either way.
    `ties` counts the exact ties met.
    """

    def __init__(self, precision: Precision, kinks: str = "own") -> None:
        super().__init__(precision)
        self.kinks = kinks
        self.ties = 0
        self.constants: dict[float, Rounded] = {}

    def exact(self, array: Any) -> Rounded:
        """Wrap an array the computation starts from; a subnormal number may be read as zero, and NaN says nothing."""
        given = np.asarray(array)
        value = given if given.dtype is _FLOAT32 else given.astype(np.float64)
        magnitude = np.abs(value)
        least = np.minimum.reduce(magnitude, axis=None, initial=np.inf)
        if least >= self.precision.underflow:  # which no NaN is
            return Rounded(value, ZERO, self)
        small = (magnitude < self.precision.underflow) & (magnitude > 0)
        bound = np.where(small, magnitude.astype(np.float64), 0.0) if small.any() else ZERO
        return Rounded(value, np.where(np.isnan(value), np.inf, bound) if np.isnan(least) else bound, self)

    def lift(self, operand: Any) -> Rounded:
        """Take an operand as a ball; a number or array that the precision cannot hold is rounded to it, or overflows."""
        if isinstance(operand, Rounded):
            return operand
        if not isinstance(operand, (int, float)):
            return self.constant(operand)
        if operand not in self.constants:
            value, bound = _constant(operand, self.precision)
            self.constants[operand] = Rounded(value, bound, self)
        return self.constants[operand]

    def constant(self, operand: Any) -> Rounded:
        """Return a number or array that the computation did not make, rounded to the precision where it cannot hold it."""
        value = np.asarray(operand, dtype=np.float64)
        held = self.precision.held(value)
        exact = (held == value) | np.isnan(value)
        if exact.all():
            return self.exact(value)
        error = self.precision.store * np.abs(value) + self.precision.underflow
        return Rounded(value, np.where(exact, self.exact(value).bound, np.where(np.isinf(held), np.inf, error)), self)

    def rounded(self, value: Any, spread: Any = None, roundoff: float | None = None) -> Rounded:
        """Return the ball of a result: `spread` is what the operands' bounds do to it, then it is rounded."""
        # |fl(z') - v| <= |z' - z| + u |z'| + u_own |v| + underflow, with |z' - z| <= spread and so |z'| <= |v| + spread
        roundoff = roundoff or self.roundoff
        bound = np.abs(value)
        shared = spread is not None and spread.size < bound.size  # by several entries: then it is rounded before it is spread over them
        if spread is not None and not shared:
            bound += spread
        bound *= roundoff
        if shared:
            bound += spread * (1 + roundoff) + self.precision.underflow
            return self.ball(value, bound, roundoff)
        bound += self.precision.underflow
        if spread is not None:
            bound += spread
        return self.ball(value, bound, roundoff)

    def ball(self, value: Any, bound: Any, roundoff: float) -> Rounded:
        """Return the ball of a result whose bound counts its rounding: it is at least `roundoff` times what the result may be."""
        return Rounded(value, bound, self) if largest_of(bound) < self.safe * roundoff else self.overflowing(value, bound)

    def overflowing(self, value: Any, bound: Any) -> Rounded:
        """Give up (an infinite bound) where the result may leave the format's range or is not a number."""
        limit = self.precision.largest / BOUND_SLACK
        furthest = max(largest_of(value), -float(np.minimum.reduce(value, axis=None, initial=0.0)))
        return Rounded(value, bound if furthest + largest_of(bound) <= limit else limited(np.abs(value), bound, limit), self)

    def accumulated(self, value: Any, spread: Any, magnitude: Any, length: int) -> Rounded:
        """Return the ball of a sum of `length` terms whose magnitudes sum to `magnitude`."""
        if not length:
            return Rounded(value, ZERO, self)
        relative, lost = self.summation(length)
        bound = magnitude * relative
        bound += lost
        if spread is not None:
            bound += spread
        return self.stored(value, limited(magnitude, bound, self.running))  # no partial sum is larger than that

    def stored(self, value: Any, bound: Any) -> Rounded:
        """Return the ball of a sum with the bound that it has in the accumulator, stored in the format."""
        precision = self.precision
        if not precision.wide:
            return Rounded(value, bound, self)
        return self.overflowing(value, bound + precision.store * (np.abs(value) + bound) + precision.underflow)

    def stored_sum(self, value: Any, spread: Any, magnitude: Any, terms: Any) -> Rounded:
        """Return the ball of sums of `terms` terms each, an array, whose every partial sum may be stored in the format."""
        roundings = np.maximum(np.arange(largest_of(terms) + 1) - 1, 0)
        roundoff = max(self.roundoff, self.precision.accumulate + REFERENCE_ROUNDOFF)
        # gamma_n magnitude and n (1 + gamma_n) underflows, of which n (1 + gamma_n) = gamma_n / u
        bound = magnitude + self.precision.underflow / roundoff
        bound *= np.take(self.gammas(roundings, roundoff), terms, mode="clip")
        if spread is not None:
            bound += spread
        return Rounded(value, limited(magnitude, bound, self.precision.largest / BOUND_SLACK), self)


@lru_cache(maxsize=1024)
def _constant(operand: float, precision: Precision) -> tuple[Any, Any]:
    """Return value and bound of a number that is written in a rule."""
    ball = Arithmetic(precision).constant(operand)
    return ball.value, ball.bound


def limited(magnitude: Any, bound: Any, limit: float) -> Any:
    """Return a bound, infinite where it and a magnitude may together pass a limit, and where one of them is not a number."""
    return bound if largest_of(magnitude) + largest_of(bound) <= limit else np.where(magnitude + bound <= limit, bound, np.inf)


def largest_of(numbers: Any) -> float:
    """Return the largest of some numbers >= 0, NaN where one is."""
    return float(np.maximum.reduce(numbers, axis=None, initial=0.0))


def most_of(x: Rounded) -> Any:
    """Return the largest magnitudes that a ball holds, to be read only."""
    return x.magnitude if x.exact else x.magnitude + x.bound


class _kept(Generic[T]):  # noqa: N801  (used like `functools.cached_property`, which takes a lock until Python 3.12)
    """An attribute that is computed when it is first asked for, and kept."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> T:
        found = instance.__dict__[self.name] = self.compute(instance)
        return found


class Rounded(Dispatched):
    """An array of balls. `value` and `bound` are float64; a zero-dimensional `bound` of 0 stands for an exact array.

    Numbers given as float32 are `held` as they came until they are computed with.
    """

    def __init__(self, value: Any, bound: Any, arithmetic: Arithmetic) -> None:
        self.held = held = np.asarray(value)
        self.bound = bound if bound is ZERO else np.asarray(bound)
        self.arithmetic = arithmetic
        if held.dtype is not _FLOAT32:
            self.value = held

    @_kept
    def value(self) -> np.ndarray:
        self.held = self.held.astype(np.float64)
        return self.held

    @_kept
    def magnitude(self) -> Any:
        """|value|, to be read only: several may take it."""
        return np.abs(self.value)

    @_kept
    def sizes(self) -> dict[Any, Any]:
        """Its magnitudes and bounds in each type that a contraction asked for: see `contractions`."""
        return {}

    @property
    def exact(self) -> bool:
        return self.bound is ZERO or (self.bound.ndim == 0 and not self.bound)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.held.shape

    @property
    def ndim(self) -> int:
        return self.held.ndim

    @property
    def size(self) -> int:
        return self.held.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype

    @property
    def T(self) -> Rounded:  # noqa: N802  (NumPy's own name)
        return self.transpose()

    def __len__(self) -> int:
        return len(self.held)

    def __repr__(self) -> str:
        return f"Rounded({self.value!r}, bound={self.bound!r}, {self.arithmetic.precision.name})"

    def radius(self) -> np.ndarray:
        """Return the bound in full shape, widened by what computing it in float64 may have lost."""
        return np.broadcast_to(self.bound * BOUND_SLACK, self.shape)

    def bounds(self) -> np.ndarray:
        """Return the bound as it is, in full shape."""
        return self.bound if self.bound.shape == self.held.shape else np.broadcast_to(self.bound, self.held.shape)

    def widened(self, bound: Any) -> Rounded:
        """Return the same numbers with another bound."""
        ball = Rounded(self.held, bound, self.arithmetic)
        if "magnitude" in self.__dict__:
            ball.magnitude = self.magnitude
        return ball

    def restructure(self, move: Callable[[Any], Any]) -> Rounded:
        """Apply a function that only moves entries about to value and bound alike."""
        moved = Rounded(move(self.held), ZERO if self.exact else move(self.bounds()), self.arithmetic)
        for dtype, (magnitude, bound, top) in self.__dict__.get("sizes", {}).items():
            moved.sizes[dtype] = move(magnitude), bound if bound is ZERO else move(bound), top
        return moved

    def __getitem__(self, key: Any) -> Rounded:
        return Rounded(self.held[key], ZERO if self.exact else self.bounds()[key], self.arithmetic)

    def reshape(self, *shape: Any) -> Rounded:
        return Rounded(self.held.reshape(*shape), ZERO if self.exact else self.bounds().reshape(*shape), self.arithmetic)

    def transpose(self, *axes: Any) -> Rounded:
        return self.restructure(lambda a: a.transpose(*axes))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return np.sum(self, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]

    def max(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return np.max(self, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]
