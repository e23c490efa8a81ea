"""Arrays that hold balls with their derivative along a direction, and what the rules for them in `direction` are made of.

`UFUNCS` and `FUNCTIONS` are the tables of the rules, which `direction` fills.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from backproof.reference.rounding import Arithmetic, Array, Overriding, Rounded, added, quiet

__all__ = ["FUNCTIONS", "UFUNCS", "Directed", "all_directed", "ball_of", "chained", "laid_out", "lifted", "magnitude_of", "mapped",
           "numbers_of", "reach_of", "slope_of", "steady"]

UFUNCS: dict[Any, Callable[..., Any]] = {}
"""The rule of each universal function of NumPy, which is given directed arrays."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""The rule of each other function, of NumPy or of `rounding`, which is given the arguments of the call."""


class Directed(Overriding):
    """Balls with their derivative along a direction; a `slope` of None stands for what does not depend on it."""

    def __init__(self, value: Rounded, slope: Array = None, reach: Array = None) -> None:
        self.value, self.slope, self.reach = value, slope, reach

    @classmethod
    def of(cls, array: np.ndarray, arithmetic: Arithmetic, direction: np.ndarray | None = None) -> Directed:
        """Wrap an array that the computation starts from, with the direction in which it moves."""
        if direction is None:
            return cls(arithmetic.exact(array))
        return cls(arithmetic.exact(array), direction.astype(np.float64), arithmetic.exact(np.abs(direction)))

    def derivative(self, additions: int = 0) -> Rounded:
        """Return the ball of the derivative; its terms may meet so many additions more than here, where parts of it are added up apart."""
        if self.slope is None:
            return reach_of(self)
        with quiet():
            more = self.arithmetic.gamma(additions, self.arithmetic.roundoff)
            bound = self.reach.bound + more * (self.reach.value + self.reach.bound)
            return Rounded(self.slope, np.where(np.isnan(bound), np.inf, bound), self.arithmetic)

    @property
    def arithmetic(self) -> Arithmetic:
        return self.value.arithmetic

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def size(self) -> int:
        return self.value.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.value.dtype

    @property
    def T(self) -> Directed:  # noqa: N802  (NumPy's own name)
        return self.transpose()

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return the numbers alone, as what reads a target or looks for a largest entry wants them."""
        return np.array(self.value.value, dtype=dtype)

    def __getitem__(self, key: Any) -> Directed:
        return mapped(lambda a: a[key], self)

    def reshape(self, *shape: Any) -> Directed:
        return mapped(lambda a: a.reshape(*shape), self)

    def transpose(self, *axes: Any) -> Directed:
        return mapped(lambda a: a.transpose(*axes), self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Directed:
        return mapped(lambda a: np.sum(a, axis=axis, keepdims=keepdims), self)

    def max(self, axis: Any = None, keepdims: bool = False) -> Directed:
        found: Directed = np.max(self, axis=axis, keepdims=keepdims)
        return found

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        rule = UFUNCS.get(ufunc)
        if rule is None or method != "__call__" or kwargs:
            raise TypeError(f"derivatives along a direction have no rule for {ufunc.__name__}.{method}")
        with quiet():
            return rule(*(lifted(x, self.arithmetic) for x in inputs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self.overridden(function, args, kwargs)

    def overridden(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the rule of a function, of NumPy or of `rounding`."""
        rule = FUNCTIONS.get(function)
        if rule is None:
            raise TypeError(f"derivatives along a direction have no rule for {function.__name__}")
        with quiet():
            return rule(*args, **kwargs)


def ball_of(x: Rounded | Directed) -> Rounded:
    """Return the balls of an array, without its slopes."""
    return x.value if isinstance(x, Directed) else x


def numbers_of(x: Array) -> Any:
    """Return the numbers of an array of any kind, without its bounds and slopes."""
    return ball_of(x).value if isinstance(x, (Rounded, Directed)) else x


def steady(x: Array) -> Array:
    """Return an array as one that does not depend on anything: what is taken out of an expression that is the same whatever it is."""
    return Directed(x.value) if isinstance(x, Directed) else x


def lifted(operand: Any, arithmetic: Arithmetic) -> Directed:
    """Return an operand as a directed array, which rests unless it is one already."""
    return operand if isinstance(operand, Directed) else Directed(arithmetic.lift(operand))


def all_directed(arrays: Sequence[Any]) -> list[Directed]:
    """Return arrays, one of which is directed, as such."""
    arithmetic = next(a.arithmetic for a in arrays if isinstance(a, Directed))
    return [lifted(a, arithmetic) for a in arrays]


def magnitude_of(x: Rounded) -> Rounded:
    """Return the magnitudes of a ball."""
    return Rounded(np.abs(x.value), x.bound, x.arithmetic)


def slope_of(x: Directed) -> np.ndarray:
    """Return the derivative, zeros where an array rests."""
    return np.zeros(x.shape) if x.slope is None else x.slope


def reach_of(x: Directed) -> Rounded:
    """Return the ball of the magnitudes of the derivative, zeros where an array rests."""
    return Rounded(np.zeros(x.shape), np.zeros(()), x.arithmetic) if x.reach is None else x.reach


def mapped(move: Callable[[Any], Any], x: Directed) -> Directed:
    """Apply a linear function with coefficients >= 0: a sum, or what only moves entries about."""
    return Directed(move(x.value)) if x.slope is None else Directed(move(x.value), move(x.slope), move(x.reach))


def chained(value: Rounded, *factors: tuple[Rounded, Directed]) -> Directed:
    """Return the array whose slope is the sum of some partial derivatives times the slopes of what they are taken by."""
    terms = [(partial, x.slope, x.reach) for partial, x in factors if x.slope is not None]
    if not terms:
        return Directed(value)
    slope = sum(partial.value * s for partial, s, _ in terms)
    reaches = [magnitude_of(partial) * reach for partial, _, reach in terms]
    return laid_out(value, slope, added(reaches))


def laid_out(value: Rounded, slope: Any, reach: Any) -> Directed:
    """Return an array whose slope is laid out along the axes of its value."""
    if reach.shape == value.shape:
        return Directed(value, slope, reach)
    return Directed(value, np.broadcast_to(slope, value.shape), np.broadcast_to(reach, value.shape))
