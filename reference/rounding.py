"""Rounded arithmetic: a value together with a rigorous bound on what floating point may do to it.

A `Rounded` array is a ball. Its invariant: the exact result of the expression, and every result that an evaluation
in the ball's precision may give under the standard model, lie within `bound` of `value`. The model (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2nd ed., sections 2.2, 3.1 and 3.5): fl(a op b) = (a op b)(1 + d) + e with
|d| <= u and |e| <= the underflow term, sums of length n in any order within gamma_n = n u / (1 - n u).

Every rule has the same three parts: what the operands' bounds do to the result, the candidate's rounding of any point of
the ball, and our own rounding of `value` in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, reduce, wraps
from typing import Any, Generic, TypeVar

import ml_dtypes
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy import special

__all__ = ["PRECISIONS", "Arithmetic", "Overriding", "Precision", "Rounded", "Ternary", "added", "contracted", "difference", "either",
           "inner", "largest_of", "most_of", "one_sum", "precision_named", "quiet", "running_product", "running_sum", "scatter_add"]

T = TypeVar("T")
Array = Any
"""A NumPy array of floats, complex numbers or `Fraction` objects, or a `Rounded` array."""

REFERENCE_ROUNDOFF = 2.0**-53
REFERENCE_ULPS = 4.0  # NumPy's and scipy.special's elementary functions in float64 stay below this many ulps (measured: 1.5),
# but for the tails of erfc and ndtr (measured: 990), where the rounding of their argument is counted besides
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
    normal: float
    largest: float
    ulps: float = 8.0

    @property
    def wide(self) -> bool:
        """Say whether sums and elementary functions run in float32 and only their result is stored in this format."""
        return self.accumulate < self.store

    def held(self, numbers: np.ndarray) -> np.ndarray:
        """Return float64 numbers as this format holds them."""
        with np.errstate(over="ignore"):
            return numbers.astype(self.dtype).astype(np.float64)


FLOAT32_NORMAL, FLOAT32_LARGEST = (float(x) for x in (np.finfo(np.float32).smallest_normal, np.finfo(np.float32).max))
TRUNCATED = 2.0**-23  # tensor cores truncate their float32 sums (Fasi, Higham, Mikaitis, Pranesh, PeerJ CS 7:e330, 2021)


def _precision(name: str, dtype: Any, *, multiply: float | None = None, accumulate: float | None = None,
               underflow: float | None = None) -> Precision:
    finfo: Any = ml_dtypes.finfo
    info = finfo(dtype)
    store, normal = float(info.eps) / 2, float(info.smallest_normal)
    return Precision(name, np.dtype(dtype), store, multiply or store, accumulate or store, underflow or normal, normal,
                     float(info.max))


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        _precision("float64", np.float64),
        _precision("float32", np.float32),
        _precision("bfloat16", ml_dtypes.bfloat16, accumulate=TRUNCATED),
        # every kernel keeps the subnormals of float16: a result among them is off by half their spacing, which a product of three
        # factors, taken in another order than ours, may pay twice
        _precision("float16", np.float16, accumulate=TRUNCATED, underflow=2.0**-24),
        _precision("tf32", np.float32, multiply=2.0**-10, accumulate=TRUNCATED),  # truncated to 11 bits: twice 2^-11
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
        self.constants: dict[float, Rounded] = {}
        inside = min(precision.accumulate, precision.store)
        # a wide result is rounded twice, (1 + store)(1 + accumulate) - 1; a quotient is once more where it is x * (1 / y)
        stored = precision.store + (1 + precision.store) * inside if precision.wide else precision.store
        self.roundoff = stored + REFERENCE_ROUNDOFF
        self.quotient = stored * (2 + stored) + REFERENCE_ROUNDOFF
        # an ulp is at most 2 u: ours, plus the candidate's, whose result is stored once more where it is wide
        ulps = 2 * precision.ulps * inside
        self.elementary = 2 * REFERENCE_ULPS * REFERENCE_ROUNDOFF + (
            ulps + precision.store * (1 + ulps) if precision.wide else ulps)
        self.argument = inside + REFERENCE_ROUNDOFF
        self.safe = precision.largest / 4  # a sum of magnitude and rounding below this is far from overflow
        self.running = (FLOAT32_LARGEST if precision.wide else precision.largest) / BOUND_SLACK  # that much a partial sum may be

    def exact(self, array: Any) -> Rounded:
        """Wrap an array the computation starts from; a subnormal number may be read as zero, and NaN says nothing."""
        given = np.asarray(array)
        value = given if given.dtype is _FLOAT32 else given.astype(np.float64)
        magnitude = np.abs(value)
        least = np.minimum.reduce(magnitude, axis=None, initial=np.inf)
        if least >= self.precision.underflow:  # which no NaN is
            return Rounded(value, _ZERO, self)
        small = (magnitude < self.precision.underflow) & (magnitude > 0)
        bound = np.where(small, magnitude.astype(np.float64), 0.0) if small.any() else _ZERO
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
        return Rounded(value, bound if furthest + largest_of(bound) <= limit else _limited(np.abs(value), bound, limit), self)

    def gamma(self, length: int, roundoff: float) -> float:
        """Return the relative error of a sum in which each term passes through `length` roundings, in any order."""
        return length * roundoff / (1 - length * roundoff) if length * roundoff < 1 else math.inf

    def accumulated(self, value: Any, spread: Any, magnitude: Any, length: int) -> Rounded:
        """Return the ball of a sum of `length` terms whose magnitudes sum to `magnitude`."""
        if not length:
            return Rounded(value, _ZERO, self)
        relative, lost = self.summation(length)
        bound = magnitude * relative
        bound += lost
        if spread is not None:
            bound += spread
        return self.stored(value, _limited(magnitude, bound, self.running))  # no partial sum is larger than that

    def summation(self, length: int, *, products: bool = False) -> tuple[float, float]:
        """Return what a sum of `length` terms, which may be products, is off by at most: relative to their magnitudes, and beside that."""
        precision = self.precision
        # in any order a term meets length - 1 additions, and the rounding of its product: (1 + d)^k is within 1 + gamma_k
        roundings = length if products else length - 1
        relative = growth = self.gamma(roundings, precision.accumulate)
        if products and precision.multiply > precision.store:
            # each factor is rounded beforehand where `multiply` is coarser than the stored format: (1 + m)^2 (1 + gamma) - 1
            relative = growth + (1 + growth) * precision.multiply * (2 + precision.multiply)
        relative += self.gamma(roundings, REFERENCE_ROUNDOFF)
        # each operation may underflow in the accumulator's format, and what it loses is carried through the later sums
        underflow = FLOAT32_NORMAL if precision.wide else precision.underflow
        return relative, (length + roundings - 1) * (1 + growth) * underflow

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
        return Rounded(value, _limited(magnitude, bound, self.precision.largest / BOUND_SLACK), self)

    def gammas(self, lengths: np.ndarray, roundoff: float) -> np.ndarray:
        """Return `gamma` of each length."""
        product = lengths * roundoff
        return np.where(product < 1, product / np.maximum(1 - product, 2.0**-53), np.inf)


np.empty(2**22 - 2**10)
"""Made and forgotten: once a block of nearly 32 MiB was freed, glibc keeps what smaller arrays leave for the next ones (mallopt(3)).

Before that it gives their memory back to the system, and to have it back page by page takes as long as the arithmetic.
"""

_ZERO = np.zeros(())
_FLOAT32 = np.dtype(np.float32)


def largest_of(numbers: Any) -> float:
    """Return the largest of some numbers >= 0, NaN where one is."""
    return float(np.maximum.reduce(numbers, axis=None, initial=0.0))


@lru_cache(maxsize=1024)
def _constant(operand: float, precision: Precision) -> tuple[Any, Any]:
    """Return value and bound of a number that is written in a rule."""
    ball = Arithmetic(precision).constant(operand)
    return ball.value, ball.bound


def _limited(magnitude: Any, bound: Any, limit: float) -> Any:
    """Return a bound, infinite where it and a magnitude may together pass a limit, and where one of them is not a number."""
    return bound if largest_of(magnitude) + largest_of(bound) <= limit else np.where(magnitude + bound <= limit, bound, np.inf)


class Overriding(NDArrayOperatorsMixin):
    """An array built on rounded ones, whose own rules come before theirs: those of NumPy's functions and of the ones below."""

    def overridden(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the array's own rule for a function."""
        raise NotImplementedError


def _overridable(function: Any) -> Any:
    """Let an overriding array among the arguments of a function bring its own rule for it."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        for argument in args:
            for one in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(one, Overriding):
                    return one.overridden(called, args, kwargs)
        return function(*args, **kwargs)

    return called


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
        a, b = self, _ternary(other)
        if a.decided and b.decided:
            return Ternary(a.value & b.value, np.False_, a.arithmetic or b.arithmetic)
        certainly_false = ~(a.value | a.undecided) | ~(b.value | b.undecided)
        return Ternary(a.value & b.value, (a.undecided | b.undecided) & ~certainly_false, a.arithmetic or b.arithmetic)

    def __or__(self, other: Any) -> Ternary:
        return ~(~self & ~_ternary(other))

    __rand__ = __and__
    __ror__ = __or__

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return NotImplemented if any(issubclass(t, Overriding) for t in types) else _dispatch(function, args, kwargs)


def _ternary(condition: Any) -> Ternary:
    return condition if isinstance(condition, Ternary) else Ternary(condition, undecided=False)


class _kept(Generic[T]):  # noqa: N801  (used like `functools.cached_property`, which takes a lock until Python 3.12)
    """An attribute that is computed when it is first asked for, and kept."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> T:
        found = instance.__dict__[self.name] = self.compute(instance)
        return found


class Rounded(NDArrayOperatorsMixin):
    """An array of balls. `value` and `bound` are float64; a zero-dimensional `bound` of 0 stands for an exact array.

    Numbers given as float32 are `held` as they came until they are computed with.
    """

    def __init__(self, value: Any, bound: Any, arithmetic: Arithmetic) -> None:
        self.held = held = np.asarray(value)
        self.bound = bound if bound is _ZERO else np.asarray(bound)
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
        """What contractions ask of it again and again: see `_sizes`."""
        return {}

    @property
    def exact(self) -> bool:
        return self.bound is _ZERO or (self.bound.ndim == 0 and not self.bound)

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
        moved = Rounded(move(self.held), _ZERO if self.exact else move(self.bounds()), self.arithmetic)
        for dtype, (magnitude, bound, top) in self.__dict__.get("sizes", {}).items():
            moved.sizes[dtype] = move(magnitude), bound if bound is _ZERO else move(bound), top
        return moved

    def __getitem__(self, key: Any) -> Rounded:
        return Rounded(self.held[key], _ZERO if self.exact else self.bounds()[key], self.arithmetic)

    def reshape(self, *shape: Any) -> Rounded:
        return Rounded(self.held.reshape(*shape), _ZERO if self.exact else self.bounds().reshape(*shape), self.arithmetic)

    def transpose(self, *axes: Any) -> Rounded:
        return self.restructure(lambda a: a.transpose(*axes))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return np.sum(self, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]

    def max(self, axis: Any = None, keepdims: bool = False) -> Rounded:
        return np.max(self, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]

    def _with(self, rule: Callable[[Rounded, Rounded], Rounded], x: Any, y: Any) -> Any:
        """Return what an operator makes of two operands, of which self is one."""
        other = y if x is self else x
        if not isinstance(other, Rounded):
            if isinstance(other, Overriding) or getattr(other, "__array_ufunc__", self) is None:
                return NotImplemented
            x, y = (a if a is self else self.arithmetic.lift(a) for a in (x, y))
        with quiet():
            return rule(x, y)

    # straight to the rules: to go through NumPy's dispatch costs as much again as the operation on a small array
    def __add__(self, other: Any) -> Any:
        return self._with(_add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._with(_add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._with(_subtract, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with(_subtract, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._with(_multiply, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with(_multiply, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with(_divide, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(_divide, other, self)

    def __matmul__(self, other: Any) -> Any:
        return self._with(_matmul, self, other)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Overriding) for x in inputs):
            return NotImplemented
        rule = _UFUNCS.get(ufunc)
        if rule is None or method != "__call__":
            raise TypeError(f"rounded arithmetic has no rule for {ufunc.__name__}.{method}; "
                            f"it knows {', '.join(sorted(u.__name__ for u in _UFUNCS))}")
        if kwargs:
            raise TypeError(f"rounded arithmetic takes no options: got {', '.join(kwargs)} for {ufunc.__name__}. "
                            "Write `x = x + y` for `x += y`")
        operands = [x if isinstance(x, Rounded) else self.arithmetic.lift(x) for x in inputs]
        with quiet():
            return rule(*operands)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return NotImplemented if any(issubclass(t, Overriding) for t in types) else _dispatch(function, args, kwargs)


def _dispatch(function: Any, args: Any, kwargs: Any) -> Any:
    rule = _FUNCTIONS.get(function)
    if rule is None:
        raise TypeError(f"rounded arithmetic has no rule for numpy.{function.__name__}; "
                        f"it knows {', '.join(sorted(f.__name__ for f in _FUNCTIONS))}")
    with quiet():
        return rule(*args, **kwargs)


def _add(x: Rounded, y: Rounded) -> Rounded:
    return x.arithmetic.rounded(x.value + y.value, _both(x, y))


def _subtract(x: Rounded, y: Rounded) -> Rounded:
    return x.arithmetic.rounded(x.value - y.value, _both(x, y))


def _both(x: Rounded, y: Rounded) -> Any:
    """Return the sum of two bounds, None where both are zero."""
    if y.exact:
        return None if x.exact else x.bound
    return y.bound if x.exact else x.bound + y.bound


def _multiply(x: Rounded, y: Rounded) -> Rounded:
    if _shifts(y):
        return _shift(x, float(y.value))
    if _shifts(x):
        return _shift(y, float(x.value))
    # |x'y' - xy| <= |x| by + |y| bx + bx by for every x', y' in the balls; a ball of 0 with an infinite bound stays unknown
    if x.shape != y.shape:
        return _scaled(x, y) if y.size < x.size else _scaled(y, x)
    if x.exact:
        spread = None if y.exact else x.magnitude * y.bound
    elif y.exact:
        spread = y.magnitude * x.bound
    else:
        spread = y.magnitude + y.bound
        spread *= x.bound
        spread += x.magnitude * y.bound
    return x.arithmetic.rounded(x.value * y.value, spread)


def _scaled(x: Rounded, y: Rounded) -> Rounded:
    """Return x y with y smaller than x, and the bound in factors as small as y: |x| (by (1 + u) + |y| u) + bx (|y| + by)(1 + u)."""
    arithmetic, size = x.arithmetic, np.abs(y.value)
    growth = 1 + arithmetic.roundoff
    bound = x.magnitude * (size * arithmetic.roundoff if y.exact else y.bound * growth + size * arithmetic.roundoff)
    bound += arithmetic.precision.underflow  # of the product
    if not x.exact:
        bound += x.bound * ((size if y.exact else size + y.bound) * growth)
    return arithmetic.ball(x.value * y.value, bound, arithmetic.roundoff)


def _shifts(factor: Rounded) -> bool:
    """Say whether a factor is an exact number 0 or +-2^k, which rounds nothing."""
    return factor.ndim == 0 and factor.exact and math.frexp(factor.value)[0] in (0.0, 0.5, -0.5)


def _shift(x: Rounded, factor: float) -> Rounded:
    # exact but for a result pushed down into the subnormal numbers (0 is none); 0 times an infinite bound stays unknown
    value, bound = x.value * factor, x.bound * abs(factor)
    if 0 < abs(factor) < 1:
        bound = bound + x.arithmetic.precision.underflow
    return x.arithmetic.overflowing(value, bound)


def _divide(x: Rounded, y: Rounded) -> Rounded:
    arithmetic, precision = x.arithmetic, x.arithmetic.precision
    if _shifts(y) and 1 / precision.largest < abs(y.value) <= 1 / precision.normal:
        return _shift(x, 1 / float(y.value))
    value = x.value / y.value
    magnitude = smallest = np.abs(y.value)
    if not y.exact:
        smallest, magnitude = magnitude - y.bound * BOUND_SLACK, magnitude + y.bound
    # x/y may be computed as x * (1/y), and 1/y may overflow or underflow
    known = smallest > 1 / precision.largest
    certain, small = known.all(), largest_of(magnitude) <= 1 / precision.normal
    # |x'/y' - x/y| = |(x' - x) y - x (y' - y)| / |y y'| <= (bx + |x/y| by) / (|y| - by)
    if certain and small and smallest.size < value.size:
        return _divided(x, y, value, smallest)
    spread = None if x.exact else x.bound / smallest
    if not y.exact:
        moved = np.abs(value) * y.bound
        if not x.exact:
            moved += x.bound
        moved /= smallest
        spread = moved
    if not certain:
        spread = np.where(known, 0.0 if spread is None else spread, np.inf)
    if not small:  # fl(1/y) = (1/y)(1 + d) + e costs |x'| |e| more, and the rounding of that
        lost = (np.abs(x.value) + x.bound) * (precision.underflow * (1 + arithmetic.quotient))
        spread = lost if spread is None else spread + lost
    return arithmetic.rounded(value, spread, arithmetic.quotient)


def _divided(x: Rounded, y: Rounded, value: Any, smallest: Any) -> Rounded:
    """Return x / y with y, which is at least `smallest`, smaller than x / y: the bound is gathered into factors as small as y."""
    arithmetic, growth = x.arithmetic, 1 + x.arithmetic.quotient
    bound = np.abs(value)
    bound *= arithmetic.quotient if y.exact else y.bound / smallest * growth + arithmetic.quotient
    bound += arithmetic.precision.underflow
    if not x.exact:
        bound += x.bound * (growth / smallest)
    return arithmetic.ball(value, bound, arithmetic.quotient)


def _power(x: Rounded, exponent: Rounded) -> Rounded:
    n = int(exponent.value) if exponent.ndim == 0 and np.isfinite(exponent.value) else 0
    if n < 1 or n != exponent.value:
        raise TypeError(f"rounded arithmetic raises to positive whole powers only: got {exponent.value!r}")
    product = x
    for _ in range(n - 1):
        product = _multiply(product, x)
    return product


def _matmul(x: Rounded, y: Rounded) -> Rounded:
    return one_sum([(x, y)], [], x.arithmetic)


def one_sum(products: Sequence[tuple[Array, Array]], terms: Sequence[Array], arithmetic: Arithmetic) -> Rounded:
    """Return the ball of matrix products and terms added in any order, nothing of which is stored before the end."""
    pairs, balls = [(arithmetic.lift(a), arithmetic.lift(b)) for a, b in products], [arithmetic.lift(term) for term in terms]
    length = sum(a.shape[-1] for a, _ in pairs) + len(balls)
    with quiet():
        value = reduce(np.add, (*(a.value @ b.value for a, b in pairs), *(ball.value for ball in balls)))
        if not length:
            return Rounded(value, _ZERO, arithmetic)
        relative, lost = arithmetic.summation(length, products=True)
        bound, most, least = np.zeros(()), 0.0, lost
        for a, b in pairs:
            more, reach, underflow = _product_bound(a, b, relative, lost)
            bound, most, least = more if bound.ndim == 0 else bound + more, most + reach, least + underflow
        for ball in balls:
            size = most_of(ball)
            bound, most = bound + (size * relative + ball.bound), most + largest_of(size)
        bound = bound + least if bound.ndim == 0 else np.add(bound, least, out=bound)
        if not (2 + relative) * most + lost <= arithmetic.running:
            magnitude = reduce(np.add, (*(most_of(a) @ most_of(b) for a, b in pairs), *map(most_of, balls)))
            bound = _limited(magnitude, bound, arithmetic.running)  # no partial sum is larger than that
        return arithmetic.stored(value, bound)


def most_of(x: Rounded) -> Any:
    """Return the largest magnitudes that a ball holds, to be read only."""
    return x.magnitude if x.exact else x.magnitude + x.bound


def _product_bound(x: Rounded, y: Rounded, relative: float, lost: float) -> tuple[Any, float, float]:
    """Return the bound of x @ y whose terms, magnitudes and all, are off by `relative`; what no partial sum exceeds; what is to be added.

    It is computed in float32 where what that loses does not matter: entries lose a few 2^-24 of themselves, sums gamma_n, and what
    underflows is at most a few n (1 + top + top) of the smallest normal number, which is let pass beside `lost`, a bound's own such term.
    """
    length, least = x.shape[-1], UNDERFLOWS * x.shape[-1] * FLOAT32_NORMAL
    products = x.size * (y.size // length if length else 0)
    if products >= WORTHWHILE and length < 2**15 and least <= PASSED * lost:
        single, tops = _bound_of_terms(x, y, relative, np.float32)
        most, underflow = length * tops[0] * tops[1], least * (1 + tops[0] + tops[1])
        if underflow <= PASSED * lost and max(*tops, most) < FLOAT32_LARGEST / 4:
            single *= 1 + (length + 16) * 2.0**-23
            return single.astype(np.float64), most, underflow
    bound, tops = _bound_of_terms(x, y, relative, np.float64)
    return bound, length * tops[0] * tops[1], 0.0


def _bound_of_terms(x: Rounded, y: Rounded, relative: float, dtype: Any) -> tuple[Any, tuple[float, float]]:
    """Return the bound of x @ y in some arithmetic, and what no entry of x and of y exceeds."""
    # |x'y' - xy| <= |x| by + bx (|y| + by), summed over the contraction, and the terms are at most (|x| + bx)(|y| + by):
    # in all |x| (by + relative (|y| + by)) + bx (1 + relative)(|y| + by), of which an exact factor leaves one product
    (left, off, top), (right, moved, other) = _sizes(x, dtype), _sizes(y, dtype)
    if x.exact and y.exact:
        bound = left @ right
        bound *= relative
        return bound, (top, other)
    if y.exact:
        return _weighed(left, relative, off) @ right, (top, other)
    if x.exact:
        return left @ _weighed(right, relative, moved), (top, other)
    right = right + moved
    bound = off @ right
    bound *= 1 + relative
    right *= relative
    right += moved
    return bound + left @ right, (top, other)


def _weighed(magnitude: Any, relative: float, bound: Any) -> Any:
    """Return magnitude * relative + bound * (1 + relative)."""
    total = magnitude * relative
    total += bound * (1 + relative)
    return total


def _sizes(x: Rounded, dtype: Any) -> tuple[Any, Any, float]:
    """Return magnitudes and bounds of a ball as arrays of a type, to be read only, and what no number of it exceeds."""
    if dtype not in x.sizes:
        held = x.value.astype(dtype)
        magnitude, bound = np.abs(held, out=held), _ZERO if x.exact else x.bounds().astype(dtype)
        x.sizes[dtype] = magnitude, bound, largest_of(magnitude) + largest_of(bound)
    return x.sizes[dtype]


WORTHWHILE = 2**15  # products of a contraction, for which it is worth the while to turn its factors into float32
PASSED = 64  # times what underflow may cost: of importance to no result above 1e-30
UNDERFLOWS = 4  # in a term: of the magnitude, the bound, and each times a small factor


Variation = Callable[[np.ndarray, np.ndarray, np.ndarray], Any]
"""From x, y = f(x) and r: a bound on |f(x') - f(x)| over |x' - x| <= r that is close to |f'(x)| r, None where r is too large for it."""

NARROW = 2.0**-7  # of what a variation is expanded in: its bound is at most so much larger than it need be, times a small number
NEAR_ZERO = 2.0**-48  # more than 1 - y and 1 - y^2 lose where y is within 4 ulps


def _largest(ratio: Any) -> float:
    """Return the largest of some ratios if all are small, otherwise (and for NaN) infinity."""
    top = largest_of(ratio)
    return top if top <= NARROW else math.inf


def _growing(slope: Callable[[Any, Any], Any], rate: float) -> Variation:
    """Of a function whose slope grows by at most e^(rate r) over a distance r, which is at most 1 + 2 rate r."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        top = _largest(reach)
        return None if top == math.inf else slope(x, y) * reach * (1 + 2 * rate * top)

    return variation


def _gaussian(scale: float, power: float) -> Variation:
    """Of the integral of scale e^(-power x^2), which grows by at most e^(2 power |x| r) over a distance r."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        top = _largest(np.abs(x) * reach)
        return None if top == math.inf else np.exp(-power * (x * x)) * reach * (scale * (1 + 4 * power * top))

    return variation


def _logarithm(shift: float) -> Variation:
    """Of log(shift + x): |log(1 - q)| <= q (1 + q) for q = r / (shift + x) <= 1/2."""

    def variation(x: Any, y: Any, reach: Any) -> Any:
        ratio = reach / (shift + x)
        top = _largest(ratio)
        return None if top == math.inf else ratio * (1 + top)

    return variation


def _root(x: Any, y: Any, reach: Any) -> Any:
    """Of sqrt x: 1 - sqrt(1 - q) <= q / 2 (1 + q) for q = r / x <= 1."""
    ratio = reach / x
    top = _largest(ratio)
    return None if top == math.inf else ratio * y * (0.5 * (1 + top))


def _ends(function: Any, x: Any, y: Any, reach: Any, bound: Any) -> Any:
    """Return how far a monotone function is from y = f(x) at the ends of a ball of any size."""
    # the ends are computed in float64: u_own |x +- reach| more reach makes up for their rounding
    reach = (reach + np.abs(x) * REFERENCE_ROUNDOFF) * BOUND_SLACK
    spread = np.maximum(np.abs(function(x + reach) - y), np.abs(y - function(x - reach)))
    known = reach < np.inf  # a bounded function of a number that may be NaN is unknown too
    return spread if known.all() else np.where(known, spread, np.where(bound == 0, 0.0, np.inf))


def _elementary(function: Any, variation: Variation, argument: float = 0.0) -> Callable[[Rounded], Rounded]:
    """Lift a monotone function: what it varies by over the ball, and `ulps` for its evaluation.

    `argument` counts the roundings of the argument inside the function: erfc and ndtr go through e^-x^2, which magnifies them.
    """

    def rule(x: Rounded) -> Rounded:
        arithmetic, value, spread = x.arithmetic, function(x.value), None
        if argument or not x.exact:
            reach = x.bound
            if argument:
                reach = reach + (np.abs(x.value) + reach) * (argument * arithmetic.argument)
            spread = variation(x.value, value, reach)
            if spread is None:
                spread = _ends(function, x.value, value, reach, x.bound)
        # |f~(x') - v| <= |f(x') - v| + ulps |f(x')|; our own ulps at the end of the ball are those of |v| + spread
        return arithmetic.rounded(value, spread, arithmetic.elementary)

    return rule


def _exp(x: Rounded) -> Rounded:
    """e^x as `_elementary` has it, whose bound is a multiple of e^x: (r (1 + 2 r)(1 + e) + e) e^x + underflow for a reach r <= 2^-7."""
    arithmetic, value = x.arithmetic, np.exp(x.value)
    top = largest_of(x.bound)
    if not top <= NARROW:
        return arithmetic.rounded(value, _ends(np.exp, x.value, value, x.bound, x.bound), arithmetic.elementary)
    bound = x.bound * ((1 + 2 * top) * (1 + arithmetic.elementary))
    bound += arithmetic.elementary
    bound = bound * value
    bound += arithmetic.precision.underflow
    return arithmetic.ball(value, bound, arithmetic.elementary)


def _logaddexp(x: Rounded, y: Rounded) -> Rounded:
    arithmetic, top = x.arithmetic, np.maximum(x.value, y.value)
    value = np.logaddexp(x.value, y.value)
    # log(e^x + e^y) moves by at most the larger of what x and y move by. It is max + log1p(e^-d), d = |x - y|: the ulps are
    # those of both summands, which cancel where max < 0, and each of which moves by as much again
    spread = np.maximum(x.bound, y.bound)
    absolute = (np.abs(top) + (value - top) + 2 * spread) * arithmetic.elementary
    if not (_shifts(x) and not x.value) and not (_shifts(y) and not y.value):
        absolute = absolute + 0.5 * arithmetic.argument  # of rounding d, since d log1p(e^-d) < 1/2
    bound = spread + absolute + arithmetic.precision.underflow
    return arithmetic.overflowing(value, bound)


def _extremum(function: Any) -> Callable[[Rounded, Rounded], Rounded]:
    def rule(x: Rounded, y: Rounded) -> Rounded:
        value = function(x.value, y.value)
        return Rounded(value, _ZERO if x.exact and y.exact else np.maximum(_beyond(x, value), _beyond(y, value)), x.arithmetic)

    return rule


def _beyond(x: Rounded, extreme: Any) -> Any:
    """Return how far the entries of a ball may take a maximum or minimum beyond `extreme`: the winner its bound, others less."""
    reach = x.bound * BOUND_SLACK - np.abs(x.value - extreme)
    return np.where(np.isnan(reach), np.inf, reach) if np.isnan(np.max(reach, initial=-np.inf)) else reach


def _comparison(function: Any) -> Callable[[Rounded, Rounded], Ternary]:
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


def _negative(x: Rounded) -> Rounded:
    return Rounded(-x.value, x.bound, x.arithmetic)


def _absolute(x: Rounded) -> Rounded:
    return Rounded(np.abs(x.value), x.bound, x.arithmetic)


_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: _add, np.subtract: _subtract, np.multiply: _multiply, np.divide: _divide, np.power: _power,
    np.square: lambda x: _multiply(x, x), np.reciprocal: lambda x: _divide(x.arithmetic.lift(1.0), x),
    np.matmul: _matmul, np.negative: _negative, np.absolute: _absolute,
    np.maximum: _extremum(np.maximum), np.minimum: _extremum(np.minimum), np.logaddexp: _logaddexp,
    np.exp: _exp,
    np.expm1: _elementary(np.expm1, _growing(lambda x, y: y + (1 + NEAR_ZERO), 1)),
    np.log: _elementary(np.log, _logarithm(0)), np.log1p: _elementary(np.log1p, _logarithm(1)), np.sqrt: _elementary(np.sqrt, _root),
    # the slopes s(1 - s) and 1 - tanh^2 are themselves solutions of u' = u (1 - 2 s) and u' = -2 u tanh
    special.expit: _elementary(special.expit, _growing(lambda x, y: y * ((1 + NEAR_ZERO) - y), 1)),
    np.tanh: _elementary(np.tanh, _growing(lambda x, y: (1 + NEAR_ZERO) - y * y, 2)),
    special.erf: _elementary(special.erf, _gaussian(2 / math.sqrt(math.pi), 1)),
    # a rounding of x^2 is half a rounding of x, and as much for the rest
    special.erfc: _elementary(special.erfc, _gaussian(2 / math.sqrt(math.pi), 1), 1.0),
    # erfc(x / sqrt 2): the constant, the quotient, and then erfc's own
    special.ndtr: _elementary(special.ndtr, _gaussian(1 / math.sqrt(2 * math.pi), 0.5), 3.0),
    **{f: _comparison(f) for f in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)},
}


def _arithmetic_of(*operands: Any) -> Arithmetic:
    known = next((x.arithmetic for x in operands if isinstance(x, (Rounded, Ternary)) and x.arithmetic is not None), None)
    if known is None:
        raise TypeError(f"no operand is rounded: got {', '.join(type(x).__name__ for x in operands)}, expected a Rounded array")
    return known


def _sum(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    if axis == ():
        return x
    value = x.value.sum(axis=axis, keepdims=keepdims)
    length = x.size // max(value.size, 1)
    spread = None if x.exact else x.bounds().sum(axis=axis, keepdims=keepdims)
    if length <= 1:
        return Rounded(value, _ZERO if spread is None else spread, x.arithmetic)
    magnitude = x.magnitude.sum(axis=axis, keepdims=keepdims)
    return x.arithmetic.accumulated(value, spread, magnitude if spread is None else magnitude + spread, length)


def _mean(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    total = _sum(x, axis, keepdims)
    return _divide(total, x.arithmetic.lift(x.size // max(total.size, 1)))


def _max(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    value = np.max(x.value, axis=axis, keepdims=True)
    bound = _ZERO if x.exact else np.max(_beyond(x, value), axis=axis, keepdims=keepdims)
    return Rounded(value if keepdims else np.squeeze(value, axis), bound, x.arithmetic)


def _min(x: Rounded, axis: Any = None, keepdims: bool = False) -> Rounded:
    return _negative(_max(_negative(x), axis, keepdims))


def _where(condition: Any, x: Any, y: Any) -> Any:
    condition = _ternary(condition)
    arithmetic = _arithmetic_of(x, y, condition)
    x, y = arithmetic.lift(x), arithmetic.lift(y)
    value = np.where(condition.value, x.value, y.value)
    bound = _ZERO if x.exact and y.exact else _chosen(condition.value, x.bound, y.bound)
    if condition.decided or not condition.undecided.any():
        return Rounded(value, bound, arithmetic)
    low = np.minimum(x.value - x.bound, y.value - y.bound)
    high = np.maximum(x.value + x.bound, y.value + y.bound)
    middle = low / 2 + high / 2
    # the rounding of `middle` costs nothing: its distance from each ball's centre is correctly rounded
    reach = np.maximum(np.abs(x.value - middle) + x.bound, np.abs(y.value - middle) + y.bound)
    known = np.isfinite(reach)
    return Rounded(np.where(condition.undecided & known, middle, value),
                   np.where(condition.undecided, np.where(known, reach, np.inf), bound), arithmetic)


def _chosen(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> Any:
    """Return np.where of bounds. Multiplying by the mask costs a fifth of choosing where the processor cannot guess the mask."""
    picked = x * mask if y.ndim == 0 and not y else y * ~mask if x.ndim == 0 and not x else x * mask + y * ~mask
    return picked if largest_of(picked) < np.inf else np.where(mask, x, y)  # 0 times infinity is NaN


def _joining(function: Any) -> Callable[..., Rounded]:
    def rule(arrays: Any, axis: Any = 0) -> Rounded:
        arithmetic = _arithmetic_of(*arrays)
        balls = [a if isinstance(a, Rounded) else arithmetic.lift(a) for a in arrays]
        exact = [b.exact for b in balls]
        bound = _ZERO if all(exact) else function([b.bounds() for b in balls], axis=axis)
        return Rounded(function([b.held for b in balls], axis=axis), bound, arithmetic)

    return rule


def _split(x: Rounded, sections: Any, axis: int = 0) -> list[Rounded]:
    values, bounds = np.split(x.held, sections, axis), np.split(x.bounds(), sections, axis)
    return [Rounded(v, _ZERO if x.exact else b, x.arithmetic) for v, b in zip(values, bounds, strict=True)]


def _structural(function: Any) -> Callable[..., Rounded]:
    return lambda x, *args, **kwargs: x.restructure(lambda a: function(a, *args, **kwargs))


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: _sum, np.mean: _mean, np.max: _max, np.min: _min, np.where: _where, np.split: _split,
    np.concatenate: _joining(np.concatenate), np.stack: _joining(np.stack),
    np.zeros_like: lambda x, **_: np.zeros(x.shape), np.ones_like: lambda x, **_: np.ones(x.shape), np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim, np.size: lambda x: x.size,
    **{f: _structural(f) for f in (np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze,
                                   np.broadcast_to, np.take_along_axis, np.flip, np.ravel)},
}


@_overridable
def either(sound: Array, common: Array) -> Array:
    """Return `sound`, with a bound that also covers `common`, an equal expression that implementations evaluate instead.

    The two are equal in exact arithmetic and lose digits differently: sigmoid's derivative as s(x) s(-x), or from the saved
    output as y (1 - y). On plain arrays this is `sound`.
    """
    if not isinstance(sound, Rounded) and not isinstance(common, Rounded):
        return sound
    with quiet():
        arithmetic = _arithmetic_of(sound, common)
        ball, other = arithmetic.lift(sound), arithmetic.lift(common)
        bound = np.maximum(np.abs(other.value - ball.value) + other.bound, ball.bound)
        if np.isnan(largest_of(bound)):
            bound = np.where(np.isnan(bound), np.inf, bound)
        return Rounded(np.broadcast_to(ball.value, bound.shape), bound, arithmetic)


@_overridable
def added(terms: Sequence[Array]) -> Array:
    """Return the sum of a few arrays, which may be added in any order and stored after every addition."""
    if len(terms) < 3 or not any(isinstance(term, Rounded) for term in terms):  # the order of two does not matter
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
    arithmetic = _arithmetic_of(*terms)
    balls = [arithmetic.lift(term) for term in terms]
    with quiet():
        magnitude, spread = sum(np.abs(b.value) + b.bound for b in balls), sum(b.bound for b in balls)
        additions = len(terms) - 1
        bound = spread + magnitude * arithmetic.gamma(additions, arithmetic.roundoff) + additions * arithmetic.precision.underflow
        value = sum(b.value for b in balls)
        return arithmetic.overflowing(value, np.where(magnitude < arithmetic.safe, bound, np.inf))


def difference(x: Rounded, a: Rounded, y: Rounded, b: Rounded, underflows: Any) -> Rounded:
    """Return x a - y b as it is whatever order it is taken in, each product meeting two roundings beside those of its factor.

    The factors a and b broadcast, and `underflows` says how many of the smallest numbers may be lost.
    """
    arithmetic = x.arithmetic
    with quiet():
        value, term = x.value * a.value, np.asarray(y.value * b.value)
        value -= term
        growth = arithmetic.gamma(2, arithmetic.roundoff)
        # |x'a' - xa| <= |x| ba + bx (|a| + ba), and what is rounded is at most (|x| + bx)(|a| + ba)
        bound = x.magnitude * (a.bound + growth * most_of(a))
        bound += np.multiply(y.magnitude, b.bound + growth * most_of(b), out=term)
        for one, factor in ((x, a), (y, b)):
            if not one.exact:
                bound += np.multiply(one.bound, most_of(factor) * (1 + growth), out=term)
        bound += arithmetic.precision.underflow * (1 + growth) * np.asarray(underflows)
        if largest_of(bound) < arithmetic.safe * growth:  # and so is each product below `safe`
            return Rounded(value, bound, arithmetic)
        furthest = np.maximum(most_of(x) * most_of(a), most_of(y) * most_of(b)) * (1 + growth)
        return arithmetic.overflowing(value, np.where(furthest <= arithmetic.precision.largest / BOUND_SLACK, bound, np.inf))


def inner(a: Array, b: Array, axis: int) -> Array:
    """Return the sum of a b along an axis, kept as an axis of size 1, whose products are stored before they are added in any order."""
    known = next((x.arithmetic for x in (a, b) if isinstance(x, Rounded)), None)
    if known is None or a.shape != b.shape or any(isinstance(x, Overriding) for x in (a, b)):
        return np.sum(a * b, axis=axis, keepdims=True)
    x, y, n, axes = known.lift(a), known.lift(b), a.shape[axis], (axis % a.ndim,)
    with quiet():
        value = contracted(x.value, y.value, axes)
        magnitude = value if x is y else contracted(x.magnitude, y.magnitude, axes)
        # |x'y' - xy| <= |x| by + bx (|y| + by), and what rounds and underflows in each product is added
        moved: Any = 0.0
        if not y.exact:
            moved = contracted(x.magnitude, y.bounds(), axes)
        if not x.exact:
            moved = moved + contracted(x.bounds(), y.magnitude if y.exact else y.magnitude + y.bound, axes)
        if n < 2 or not largest_of(magnitude + moved) < known.safe:
            return np.sum(a * b, axis=axis, keepdims=True)
        spread = known.roundoff * (magnitude + moved) + moved + n * known.precision.underflow
        return known.accumulated(value, spread, magnitude + spread, n)


def contracted(a: np.ndarray, b: np.ndarray, axes: tuple[int, ...]) -> Any:
    """Return the sums of a b along axes, kept as axes of size 1."""
    places = range(a.ndim)
    sums: Any = np.einsum(a, places, b, places, [axis for axis in places if axis not in axes])
    return sums.reshape([1 if axis in axes else n for axis, n in enumerate(a.shape)])


@_overridable
def running_sum(x: Array, axis: int, *, last: bool = False, backwards: bool = False) -> Array:
    """Return sum_(k <= i) x_k along an axis, or only its last, added in any order, each partial sum as it is stored.

    With `backwards` it is sum_(k >= i) x_k.
    """
    if not isinstance(x, Rounded):
        return np.sum(x, axis=axis) if last else _accumulated(x, axis, backwards)
    with quiet():
        value, magnitude, *more = (np.sum(a, axis=axis) if last else _accumulated(a, axis, backwards)
                                   for a in (x.value, x.magnitude, *([] if x.exact else [x.bounds()])))
        terms = np.asarray(x.shape[axis]) if last else _positions(x, axis)
        spread = more[0] if more else None
        return x.arithmetic.stored_sum(value, spread, magnitude if spread is None else magnitude + spread,
                                       np.flip(terms) if backwards else terms)


def _accumulated(x: np.ndarray, axis: int, backwards: bool) -> np.ndarray:
    """Return cumulative sums from either end, in memory in the order of the entries."""
    if not backwards:
        return np.cumsum(x, axis=axis)
    found = np.empty(x.shape, dtype=x.dtype)
    np.cumsum(np.flip(x, axis), axis=axis, out=np.flip(found, axis))
    return found


@_overridable
def running_product(x: Array, axis: int, factor: Array = 1, *, last: bool = False, among: Array | None = None) -> Array:
    """Return factor_i prod_(k <= i) x_k along an axis, or only its last, multiplied in any association, each product as it is stored.

    `among`, which broadcasts against x, says that each of x is an entry of it or 1, so that less is multiplied for the bound.
    """
    multiplied = np.prod if last else np.cumprod
    if not isinstance(x, Rounded):
        return multiplied(x, axis=axis) * factor
    arithmetic, precision = x.arithmetic, x.arithmetic.precision
    with quiet():
        f = arithmetic.lift(factor)
        top_f = np.abs(f.value) + f.bound
        value = multiplied(x.value, axis=axis) * f.value
        products = (np.asarray(x.shape[axis]) if last else _positions(x, axis)) - (_shifts(f) and f.value == 1)
        relative = arithmetic.gammas(products, arithmetic.roundoff)
        growth = np.maximum(top_f, 1) * (1 + relative)
        limit = precision.largest / BOUND_SLACK / x.shape[axis]  # so that a sum of such products does not overflow either
        # no partial product is larger than that of the factors over 1, nor is what an underflowing one is still multiplied by
        for over in (x,) if among is None else (among, x):
            reach = multiplied(np.maximum(most_of(over), 1), axis=axis)
            if fits := largest_of(reach) * largest_of(growth) <= limit:
                break
        magnitude, moved = np.abs(value), None
        if not (x.exact and f.exact):  # |prod x' - prod x| <= prod (|x| + b) - prod |x|, each of which has 2 roundings a factor
            magnitude, inner = multiplied(most_of(x), axis=axis) * top_f, magnitude
            moved = magnitude - inner + magnitude * (4 * (products + 1) * REFERENCE_ROUNDOFF)
        bound = np.asarray(magnitude * relative)
        if moved is not None:
            bound += moved
        bound += reach * (growth * (4 * products * precision.underflow))
        return Rounded(value, bound if fits else np.where(reach * growth <= limit, bound, np.inf), arithmetic)


def _positions(x: Rounded, axis: int) -> np.ndarray:
    """Return 1, 2, 3, ... along an axis, broadcasting against x."""
    return np.arange(1, x.shape[axis] + 1).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])


@_overridable
def scatter_add(x: Array, index: Any, shape: tuple[int, ...], *, stored: bool = False) -> Array:
    """Return zeros of a shape with `x[k]` added at `index[k]` for every k: the transpose of the gather `y = z[index]`.

    `index` is what NumPy takes between brackets, whole-number arrays and slices that pick something of x's shape; places that come
    several times gather several terms, in any order. With `stored` each partial sum is stored, not only the last.
    """
    if not isinstance(x, Rounded):
        return _scattered(x, index, shape)
    with quiet():
        places, size = _places(x.value, index, shape), math.prod(shape)
        value, magnitude = (np.bincount(places, a.ravel(), size).reshape(shape) for a in (x.value, np.abs(x.value)))
        spread = None if x.exact else np.bincount(places, x.bounds().ravel(), size).reshape(shape)
        count = np.bincount(places, minlength=size).reshape(shape)
        terms = int(largest_of(count))
        if terms <= 1:
            return Rounded(value, _ZERO if spread is None else spread, x.arithmetic)
        magnitude = magnitude if spread is None else magnitude + spread
        if stored:
            return x.arithmetic.stored_sum(value, spread, magnitude, count)
        return x.arithmetic.accumulated(value, spread, magnitude, terms)


def _scattered(x: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    if x.dtype == np.float64 and x.size:  # of nothing, bincount returns whole numbers
        return np.bincount(_places(x, index, shape), x.ravel(), math.prod(shape)).reshape(shape)
    total = np.zeros(shape, dtype=x.dtype)
    np.add.at(total, index, x)
    return total


def _places(x: np.ndarray, index: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return where in the scattered array, counted in row-major order, each entry of x goes."""
    places = np.arange(math.prod(shape)).reshape(shape)[index]
    return np.broadcast_to(places, x.shape).ravel()


_SILENT: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether `quiet` is in force: to enter it for every operation would cost as much as the operation on a small array."""

_ALREADY = nullcontext()


def quiet() -> AbstractContextManager[None]:
    """Silence NumPy's floating-point warnings where a result that is not finite is looked at afterwards."""
    return _ALREADY if _SILENT.get() else _silenced()


@contextmanager
def _silenced() -> Iterator[None]:
    token = _SILENT.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _SILENT.reset(token)
