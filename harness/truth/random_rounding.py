"""Random rounding: numbers that are off in their last places, and arrays whose every operation is off so (Monte Carlo arithmetic).

How much results change under such errors measures how much of them is rounding, where no rigorous bound is known (Vignes, *A stochastic
arithmetic for reliable scientific computation*, 1993; Parker, *Monte Carlo Arithmetic*, 1997).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
from backproof.reference.rounding import PRECISIONS, Precision
from backproof.truth.complex_step import Stepped
from backproof.truth.lifted import Lifted

__all__ = ["FLOAT64", "HALF", "SIZES", "Noisy", "NoisyStep", "Step", "disturbed", "drawn", "error_size", "errors", "nudged"]

FLOAT64 = PRECISIONS["float64"]
HALF = 2.0**-27  # half the digits of float64: where an answer is linear in the error, and far above the rounding that is there anyway
PLAIN_BITS = 3  # numbers with no more significant bits, such as 1 or 6, stay as they are: there the knees of functions lie
SIZES = (HALF, 2 * FLOAT64.ulps * FLOAT64.store)  # of the errors: the second where the first makes numbers infinite, as near log(0)

_NOISE: ContextVar[tuple[int, float]] = ContextVar("noise")
"""Number of the draw, and size of the error."""

EXACT = {np.maximum, np.minimum, np.fmax, np.fmin, np.negative, np.positive, np.absolute, np.fabs, np.sign, np.floor, np.ceil, np.rint,
         np.trunc, np.copysign, np.conjugate}
PRODUCTS = {getattr(np, name) for name in ("matmul", "vecdot", "matvec", "vecmat") if hasattr(np, name)}
CONTRACTIONS = {np.dot, np.inner, np.vdot, np.einsum}


@contextmanager
def errors(draw: int, size: float) -> Iterator[None]:
    """Give the operations of noisy arrays, within the block, random errors of a size relative to their results; `draw` seeds them."""
    token = _NOISE.set((draw, size))
    try:
        yield
    finally:
        _NOISE.reset(token)


def drawn(x: np.ndarray, draw: int) -> np.ndarray:
    """Return random numbers in [-1, 1) that depend on |x| and `draw` alone.

    So what is computed twice gets the same error, and ties stay ties.
    """
    bits = np.abs(np.asarray(x, dtype=np.float64)).reshape(-1).view(np.uint64)
    with np.errstate(over="ignore"):
        bits = bits + np.uint64((draw + 1) * 0x9E3779B97F4A7C15 % 2**64)  # splitmix64 (Steele, Lea, Flood 2014)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return ((bits >> np.uint64(11)) * 2.0**-52 - 1).reshape(x.shape)


def nudged(a: np.ndarray, draw: int, size: float, *, every: bool = False) -> np.ndarray:
    """Return numbers that are off by a random part, of `size` at most, of each.

    Zeros, ties and knees such as 1 or 6 stay what they are, unless `every` number is to move on its own.
    """
    wide = a.astype(np.float64)
    if every:  # upstream gradients, in which nothing depends on two of them being equal
        return np.asarray(wide * (1 + size * np.random.default_rng(draw + 1).uniform(-1, 1, a.shape))).astype(a.dtype)
    with np.errstate(all="ignore"):
        mantissa = np.frexp(wide)[0] * 2**PLAIN_BITS
        return np.where(mantissa != np.rint(mantissa), wide * (1 + size * drawn(wide, draw)), wide).astype(a.dtype)


def disturbed(value: np.ndarray, magnitude: Any = None) -> Any:
    """Return an array whose entries are off by a random part of a magnitude, or of their own where none is given.

    Real and imaginary parts are off by parts of their own.
    """
    draw, size = _NOISE.get()
    if value.dtype.kind == "c":
        parts = (None, None) if magnitude is None else (np.real(magnitude), np.imag(magnitude))
        return disturbed(value.real, parts[0]) + 1j * disturbed(value.imag, parts[1])
    return value + size * drawn(value, draw) * np.abs(value if magnitude is None else magnitude)


def _parts(x: Any) -> Any:
    """Return the magnitudes of an array, those of a complex one by real and imaginary part."""
    plain = np.asarray(x)
    return np.abs(plain.real) + 1j * np.abs(plain.imag) if plain.dtype.kind == "c" else plain if plain.dtype.kind == "b" else np.abs(plain)


def _magnitude(ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the magnitudes to which the rounding of a result is relative, None where these are those of the result."""
    options = {k: v for k, v in options.items() if k != "out"}
    if ufunc is np.add and method in {"reduce", "accumulate", "reduceat"}:
        return getattr(ufunc, method)(_parts(inputs[0]), *inputs[1:], **options)
    if method != "__call__" or len(inputs) != 2:
        return None
    if ufunc in PRODUCTS or (ufunc is np.multiply and any(np.iscomplexobj(x) for x in inputs)):
        return ufunc(_parts(inputs[0]), _parts(inputs[1]), **options)
    if ufunc is np.divide and np.iscomplexobj(inputs[1]):  # (a + ib) / (c + id) has the imaginary part (bc - ad) / (cc + dd)
        return _parts(inputs[0]) * _parts(inputs[1]) / np.abs(np.asarray(inputs[1])) ** 2
    return None


class _Traced(Lifted):
    """An array that stays of its class also as a single number, and in the dot product."""

    def _lifted(self, result: Any) -> Any:
        if isinstance(result, np.inexact) and result.dtype.kind == self.kind:
            result = np.asarray(result)
        return super()._lifted(result)

    def __getitem__(self, key: Any) -> Any:
        return self._lifted(super().__getitem__(key))

    def dot(self, other: Any, out: Any = None) -> Any:
        return np.dot(self, other)


class Noisy(_Traced):
    """An array whose every operation has a random error."""

    kind = "f"

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = tuple(np.asarray(x) if isinstance(x, Lifted) else x for x in inputs)
        magnitude = None if ufunc in EXACT else _magnitude(ufunc, method, plain, kwargs)  # before the result takes the place of an input
        result = super().__array_ufunc__(ufunc, method, *inputs, **kwargs)
        if ufunc in EXACT or not isinstance(result, np.ndarray) or result.dtype.kind not in "fc":
            return result
        return self._with_error(result, magnitude, in_place="out" in kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function not in CONTRACTIONS or kwargs.get("out") is not None:
            return super().__array_function__(function, types, args, kwargs)
        plain = [np.asarray(x) if isinstance(x, np.ndarray) else x for x in args]
        magnitude = function(*(_parts(x) if isinstance(x, np.ndarray) else x for x in plain), **kwargs)
        return self._with_error(np.asarray(function(*plain, **kwargs)), magnitude, in_place=False)

    def _with_error(self, result: Any, magnitude: Any, *, in_place: bool) -> Any:
        plain = np.asarray(result)
        off = disturbed(plain, magnitude)
        if in_place:
            plain[...] = off
            return result
        return self._lifted(np.asarray(off))


class Step(_Traced, Stepped):
    """A complex step that survives float(): the last number turned into a float, as by `return float(cost)`, is kept whole in `last`."""

    last: ClassVar[complex | None] = None

    def __float__(self) -> float:
        Step.last = complex(np.asarray(self).item())
        return Step.last.real


class NoisyStep(Noisy, Step):
    """A complex step whose every operation has a random error."""

    kind = "c"


def error_size(precision: Precision) -> float:
    """Return the size of the random errors that stand for the rounding of a precision."""
    return 2 * precision.ulps * precision.store
