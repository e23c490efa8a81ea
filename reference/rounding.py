"""Rounded arithmetic: a value together with a rigorous bound on what floating point may do to it.

A `Rounded` array is a ball. Its invariant: the exact result of the expression, and every result that an evaluation
in the ball's precision may give under the standard model, lie within `bound` of `value`. The model (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2nd ed., sections 2.2, 3.1 and 3.5): fl(a op b) = (a op b)(1 + d) + e with
|d| <= u and |e| <= the underflow term, sums of length n in any order within gamma_n = n u / (1 - n u).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy import special

__all__ = ["PRECISIONS", "Arithmetic", "Precision", "Rounded", "Ternary", "either", "precision_named"]

Array = Any
"""A NumPy array of floats, complex numbers or `Fraction` objects, or a `Rounded` array."""

REFERENCE_ROUNDOFF = 2.0**-53
REFERENCE_ULPS = 4.0  # NumPy's and scipy.special's elementary functions in float64 stay below this many ulps
BOUND_SLACK = 1 + 2.0**-20  # bounds are sums of non-negative float64 terms: this covers 2^32 roundings of the bound itself


@dataclass(frozen=True)
class Precision:
    """A number format, with the unit roundoffs an implementation computing in it may use.

    `store` rounds every stored result, `multiply` the factors of a contraction (TF32 truncates them), `accumulate` the
    running sums and the inside of elementary functions (bfloat16 kernels compute in float32). `underflow` is
    the largest absolute error of one underflowing result: the smallest normal number where subnormals may be flushed.
    """

    name: str
    dtype: np.dtype[Any]
    store: float
    multiply: float
    accumulate: float
    underflow: float
    largest: float
    ulps: float = 8.0

    def represents(self, number: float) -> bool:
        """Say whether a constant survives conversion to this format unchanged."""
        with np.errstate(over="ignore"):
            return bool(float(np.asarray(number).astype(self.dtype)) == number)


def _precision(name: str, dtype: Any, *, multiply: float | None = None, accumulate: float | None = None,
               underflow: float | None = None) -> Precision:
    info = ml_dtypes.finfo(dtype)
    store = float(info.eps) / 2
    return Precision(name, np.dtype(dtype), store, multiply or store, accumulate or store,
                     underflow or float(info.smallest_normal), float(info.max))


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        _precision("float64", np.float64),
        _precision("float32", np.float32),
        _precision("bfloat16", ml_dtypes.bfloat16, accumulate=2.0**-24),
        _precision("float16", np.float16, accumulate=2.0**-24, underflow=2.0**-24),  # subnormals are kept by every kernel
        _precision("tf32", np.float32, multiply=2.0**-10),  # tensor cores may truncate: twice the unit roundoff 2^-11
    )
}


def precision_named(name: str) -> Precision:
    """Return a precision by name; raise ValueError naming the known ones."""
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision: got {name!r}, expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


class Arithmetic:
    """The rules by which rounded arrays combine: one precision, and what a kink means.

    With `kinks="own"` an exact tie takes the reference's own branch; with `kinks="hull"` it takes the hull of both,
    which holds every subgradient. A comparison that rounding leaves open takes the hull either way.
    `ties` counts the exact ties met.
    """

    def __init__(self, precision: Precision, kinks: str = "own") -> None:
        self.precision = precision
        self.kinks = kinks
        self.ties = 0
        self.roundoff = precision.store + REFERENCE_ROUNDOFF
        self.elementary = 2 * (precision.ulps * precision.accumulate + REFERENCE_ULPS * REFERENCE_ROUNDOFF)
        if precision.store > precision.accumulate:
            self.elementary += precision.store

    def exact(self, array: Any) -> Rounded:
        """Wrap an array the computation starts from; a subnormal number may be read as zero."""
        value = np.asarray(array).astype(np.float64)
        small = np.abs(value) < self.precision.underflow
        bound = np.where(small, np.abs(value), 0.0) if np.any(small & (value != 0)) else _ZERO
        return Rounded(value, bound, self)

    def lift(self, operand: Any) -> Rounded:
        """Take an operand as a ball: a constant that the precision cannot represent is rounded."""
        if isinstance(operand, Rounded):
            return operand
        value = np.asarray(operand, dtype=np.float64)
        if value.ndim == 0 and not self.precision.represents(float(value)):
            return Rounded(value, np.abs(value) * self.precision.store, self)
        return Rounded(value, _ZERO, self)

    def rounded(self, value: Any, spread: Any, roundings: float = 1) -> Rounded:
        """Return the ball of a result: `spread` is what the operands' bounds do to it, then it is rounded."""
        magnitude = np.abs(value) + spread
        bound = spread + roundings * self.roundoff * magnitude + self.precision.underflow
        return self.overflowing(value, bound)

    def overflowing(self, value: Any, bound: Any) -> Rounded:
        """Give up (an infinite bound) where the result may leave the format's range or is not a number."""
        inside = np.abs(value) + bound <= self.precision.largest
        return Rounded(value, np.where(inside, bound, np.inf), self)

    def gamma(self, length: int) -> float:
        """Return the relative error of a sum or contraction of `length` terms, in the candidate's and in our own arithmetic."""
        return sum(length * u / (1 - length * u) if length * u < 1 else math.inf
                   for u in (self.precision.accumulate, REFERENCE_ROUNDOFF))

    def accumulated(self, value: Any, spread: Any, magnitude: Any, length: int, relative: float = 0.0) -> Rounded:
        """Return the ball of a sum of `length` terms whose magnitudes sum to `magnitude`."""
        bound = spread + (self.gamma(length) + relative) * magnitude + 2 * length * self.precision.underflow
        if self.precision.store > self.precision.accumulate:
            bound = bound + self.precision.store * (np.abs(value) + bound)
        return self.overflowing(value, bound)


_ZERO = np.zeros(())


class Ternary:
    """A comparison of rounded arrays: `value` is the reference's own answer, `open` marks what is too close to call."""

    __array_priority__ = 1000

    def __init__(self, value: Any, undecided: Any) -> None:
        self.value = np.asarray(value)
        self.open = np.broadcast_to(undecided, self.value.shape)

    def __invert__(self) -> Ternary:
        return Ternary(~self.value, self.open)

    def __and__(self, other: Any) -> Ternary:
        a, b = self, _ternary(other)
        certainly_false = (~a.value & ~a.open) | (~b.value & ~b.open)
        return Ternary(a.value & b.value, (a.open | b.open) & ~certainly_false)

    def __or__(self, other: Any) -> Ternary:
        return ~(~self & ~_ternary(other))

    __rand__ = __and__
    __ror__ = __or__

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _dispatch(function, args, kwargs)


def _ternary(condition: Any) -> Ternary:
    return condition if isinstance(condition, Ternary) else Ternary(condition, False)


class Rounded(NDArrayOperatorsMixin):
    """An array of balls. `value` and `bound` are float64; a zero-dimensional `bound` of 0 stands for an exact array."""

    def __init__(self, value: Any, bound: Any, arithmetic: Arithmetic) -> None:
        self.value = np.asarray(value)
        self.bound = np.asarray(bound)
        self.arithmetic = arithmetic

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
    def T(self) -> Rounded:  # noqa: N802  (NumPy's own name)
        return self.transpose()

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"Rounded({self.value!r}, bound={self.bound!r}, {self.arithmetic.precision.name})"

    def radius(self) -> np.ndarray:
        """Return the bound in full shape, widened by what computing it in float64 may have lost."""
        return np.broadcast_to(self.bound * BOUND_SLACK, self.shape)

    def restructure(self, move: Callable[[Any], Any]) -> Rounded:
        """Apply a function that only moves entries about to value and bound alike."""
        bound = self.bound if self.bound.ndim == 0 and not self.bound else move(np.broadcast_to(self.bound, self.shape))
        return Rounded(move(self.value), bound, self.arithmetic)

    def __getitem__(self, key: Any) -> Rounded:
        return self.restructure(lambda a: a[key])

    def reshape(self, *shape: Any) -> Rounded:
        return self.restructure(lambda a: a.reshape(*shape))

    def transpose(self, *axes: Any) -> Rounded:
        return self.restructure(lambda a: a.transpose(*axes))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return _sum(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return _max(self, axis=axis, keepdims=keepdims)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        rule = _UFUNCS.get(ufunc)
        if rule is None or method != "__call__" or kwargs:
            raise TypeError(f"rounded arithmetic has no rule for {ufunc.__name__}.{method}; "
                            f"it knows {', '.join(sorted(u.__name__ for u in _UFUNCS))}")
        with np.errstate(all="ignore"):
            return rule(*(self.arithmetic.lift(x) for x in inputs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _dispatch(function, args, kwargs)


def _dispatch(function: Any, args: Any, kwargs: Any) -> Any:
    rule = _FUNCTIONS.get(function)
    if rule is None:
        raise TypeError(f"rounded arithmetic has no rule for numpy.{function.__name__}; "
                        f"it knows {', '.join(sorted(f.__name__ for f in _FUNCTIONS))}")
    with np.errstate(all="ignore"):
        return rule(*args, **kwargs)


def _add(x: Rounded, y: Rounded) -> Rounded:
    return x.arithmetic.rounded(x.value + y.value, x.bound + y.bound)


def _subtract(x: Rounded, y: Rounded) -> Rounded:
    return x.arithmetic.rounded(x.value - y.value, x.bound + y.bound)


def _multiply(x: Rounded, y: Rounded) -> Rounded:
    # |x'y' - xy| <= |x| by + |y| bx + bx by for every x', y' in the balls; a ball of 0 with an infinite bound stays unknown
    spread = np.abs(x.value) * y.bound + (np.abs(y.value) + y.bound) * x.bound
    return x.arithmetic.rounded(x.value * y.value, spread)


def _divide(x: Rounded, y: Rounded) -> Rounded:
    # |x'/y' - x/y| <= (bx + |x/y| by) / (|y| - by); two roundings, since x/y may be computed as x * (1/y)
    value = x.value / y.value
    smallest = np.abs(y.value) - y.bound * BOUND_SLACK
    spread = np.where(smallest > 0, (x.bound + np.abs(value) * y.bound) / smallest, np.inf)
    underflow = np.where(smallest < 1, x.arithmetic.precision.underflow * np.abs(x.value), 0.0)  # of the reciprocal
    return x.arithmetic.rounded(value, spread + underflow, roundings=2)


def _power(x: Rounded, exponent: Rounded) -> Rounded:
    n = int(exponent.value)
    if exponent.ndim or n != exponent.value or n < 1:
        raise TypeError(f"rounded arithmetic raises to positive whole powers only: got {exponent.value!r}")
    product = x
    for _ in range(n - 1):
        product = _multiply(product, x)
    return product


def _matmul(x: Rounded, y: Rounded) -> Rounded:
    arithmetic, length = x.arithmetic, x.shape[-1]
    left, right = np.abs(x.value), np.abs(y.value)
    spread: Any = 0.0
    if y.bound.any():
        spread = left @ np.broadcast_to(y.bound, y.shape)
        right = right + y.bound
    if x.bound.any():
        spread = spread + np.broadcast_to(x.bound, x.shape) @ right
        left = left + x.bound
    precision = arithmetic.precision
    relative = 2.01 * precision.multiply if precision.multiply > precision.store else 0.0
    return arithmetic.accumulated(x.value @ y.value, spread, left @ right, length, relative)


def _elementary(function: Any) -> Callable[[Rounded], Rounded]:
    """Lift a monotone function: its values at the ends of the ball bound its variation, `ulps` its evaluation."""

    def rule(x: Rounded) -> Rounded:
        value = function(x.value)
        spread: Any = 0.0
        if x.bound.any():
            reach = x.bound * BOUND_SLACK
            up, down = np.abs(function(x.value + reach) - value), np.abs(function(x.value - reach) - value)
            spread = np.where(np.isfinite(reach), np.fmax(up, down), np.inf)
            spread = np.where(np.isnan(up) | np.isnan(down), np.inf, spread)
        arithmetic = x.arithmetic
        bound = spread + arithmetic.elementary * (np.abs(value) + spread) + arithmetic.precision.underflow
        return arithmetic.overflowing(value, bound)

    return rule


def _logaddexp(x: Rounded, y: Rounded) -> Rounded:
    # log(e^x + e^y) moves by at most the larger of what x and y move by
    value = np.logaddexp(x.value, y.value)
    spread = np.maximum(x.bound, y.bound)
    bound = spread + x.arithmetic.elementary * (np.abs(value) + spread) + x.arithmetic.precision.underflow
    return x.arithmetic.overflowing(value, bound)


def _extremum(function: Any) -> Callable[[Rounded, Rounded], Rounded]:
    def rule(x: Rounded, y: Rounded) -> Rounded:
        return Rounded(function(x.value, y.value), np.maximum(x.bound, y.bound), x.arithmetic)

    return rule


def _comparison(function: Any) -> Callable[[Rounded, Rounded], Ternary]:
    def rule(x: Rounded, y: Rounded) -> Ternary:
        distance, reach = np.abs(x.value - y.value), (x.bound + y.bound) * BOUND_SLACK
        tie = (distance == 0) & (reach == 0)
        x.arithmetic.ties += int(np.count_nonzero(tie))
        undecided = (distance <= reach) & (reach > 0)
        if x.arithmetic.kinks == "hull":
            undecided = undecided | tie
        return Ternary(function(x.value, y.value), undecided)

    return rule


def _negative(x: Rounded) -> Rounded:
    return Rounded(-x.value, x.bound, x.arithmetic)


def _absolute(x: Rounded) -> Rounded:
    return Rounded(np.abs(x.value), x.bound, x.arithmetic)


_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: _add, np.subtract: _subtract, np.multiply: _multiply, np.divide: _divide, np.power: _power,
    np.square: lambda x: _multiply(x, x), np.matmul: _matmul, np.negative: _negative, np.absolute: _absolute,
    np.maximum: _extremum(np.maximum), np.minimum: _extremum(np.minimum), np.logaddexp: _logaddexp,
    **{f: _elementary(f) for f in (np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.tanh, special.erf, special.erfc,
                                   special.expit, special.ndtr)},
    **{f: _comparison(f) for f in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)},
}  # fmt: skip


def _arithmetic_of(*operands: Any) -> Arithmetic:
    return next(x.arithmetic for x in operands if isinstance(x, Rounded))


def _sum(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    value = np.sum(x.value, axis=axis, keepdims=keepdims)
    length = x.size // max(value.size, 1)
    spread = np.sum(np.broadcast_to(x.bound, x.shape), axis=axis, keepdims=keepdims) if x.bound.any() else 0.0
    magnitude = np.sum(np.abs(x.value) + x.bound, axis=axis, keepdims=keepdims)
    return x.arithmetic.accumulated(value, spread, magnitude, length)


def _max(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    bound = np.max(np.broadcast_to(x.bound, x.shape), axis=axis, keepdims=keepdims) if x.bound.any() else _ZERO
    return Rounded(np.max(x.value, axis=axis, keepdims=keepdims), bound, x.arithmetic)


def _where(condition: Any, x: Any, y: Any) -> Any:
    condition = _ternary(condition)
    if not isinstance(x, Rounded) and not isinstance(y, Rounded):
        if not condition.open.any():
            return np.where(condition.value, x, y)
        raise TypeError("where: an undecided condition needs a rounded branch; multiply by the array instead")
    arithmetic = _arithmetic_of(x, y)
    x, y = arithmetic.lift(x), arithmetic.lift(y)
    value = np.where(condition.value, x.value, y.value)
    bound = np.where(condition.value, x.bound, y.bound)
    if not condition.open.any():
        return Rounded(value, bound, arithmetic)
    low = np.minimum(x.value - x.bound, y.value - y.bound)
    high = np.maximum(x.value + x.bound, y.value + y.bound)
    middle = low + (high - low) / 2
    reach = np.maximum(high - middle, middle - low)
    known = np.isfinite(middle)
    return Rounded(np.where(condition.open & known, middle, value),
                   np.where(condition.open, np.where(known, reach, np.inf), bound), arithmetic)


def _concatenate(arrays: Any, axis: int = 0) -> Rounded:
    arithmetic = _arithmetic_of(*arrays)
    balls = [arithmetic.lift(a) for a in arrays]
    bound = (np.concatenate([np.broadcast_to(b.bound, b.shape) for b in balls], axis)
             if any(b.bound.any() for b in balls) else _ZERO)
    return Rounded(np.concatenate([b.value for b in balls], axis), bound, arithmetic)


def _structural(function: Any) -> Callable[..., Rounded]:
    return lambda x, *args, **kwargs: x.restructure(lambda a: function(a, *args, **kwargs))


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _sum, np.max: _max, np.where: _where, np.concatenate: _concatenate,
    np.zeros_like: lambda x, **_: np.zeros(x.shape), np.ones_like: lambda x, **_: np.ones(x.shape), np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim, np.size: lambda x: x.size,
    **{f: _structural(f) for f in (np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze,
                                   np.broadcast_to, np.take_along_axis, np.flip, np.ravel)},
}  # fmt: skip


def either(sound: Array, common: Array) -> Array:
    """Return `sound`, with a bound that also covers `common`, an equal expression that implementations evaluate instead.

    The two are equal in exact arithmetic and lose digits differently: sigmoid's derivative as s(x) s(-x), or from the saved
    output as y (1 - y). On plain arrays this is `sound`.
    """
    if not isinstance(sound, Rounded):
        return sound
    with np.errstate(all="ignore"):
        other = sound.arithmetic.lift(common)
        reach = np.abs(other.value - sound.value) + other.bound
        return Rounded(sound.value, np.where(np.isnan(reach), np.inf, np.maximum(sound.bound, reach)), sound.arithmetic)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence NumPy's floating-point warnings where a result that is not finite is looked at afterwards."""
    with np.errstate(all="ignore"):
        yield
