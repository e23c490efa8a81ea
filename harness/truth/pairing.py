"""The sum of dy * y over what a candidate's forward returns, as a function of all that it is given, and its true derivatives.

Complex step    Im f(z + ih e_k) / h, entry by entry: nothing cancels in it (Squire, Trapp, *SIAM Review* 40, 1998).
Autodiff        The framework's gradient of the forward without the backward that the candidate defines.
Differences     Extrapolated central differences of the forward, with an error estimate of their own, of which there is no step to guess.
Doubt           What takes absolute values or branches may carry complex numbers and be wrong, and so may autodiff of what leaves the
                framework. Along a random direction both must agree with the differences, within the error of these, wherever the function
                has a derivative along it; else the next method is asked.
Rounding        What a derivative moves by when the numbers are off in their last places (`nudged`): the most over a few draws and a
                tensor. The size is what `reference/rounding.py` grants an elementary function, 16 times a single rounding.
Kinks           Where one-sided derivatives differ, what lies between them is right. They are limits of the derivative beside the point:
                along each entry, along all of an array at once, and along random directions, both ways.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from backproof.adapters.calls import AUTODIFF, FORWARD, Answer, Call, UnsupportedError
from backproof.truth.brackets import Brackets
from backproof.truth.differences import LONGEST, NEAR, differences
from backproof.truth.exact import NotAnalyticError, stepped
from backproof.truth.random_rounding import FLOAT64, drawn, error_size
from backproof.wording import said

__all__ = ["DIFFERENCES", "SLACK", "Pairing", "Truth", "nudged"]

COMPLEX_STEP, AUTODIFF_OF_IT, DIFFERENCES = "complex step", "autodiff", "extrapolated differences"
STEP = 2.0**-100  # of the complex step: its error is of the order of its square
SLACK = 4.0  # by what a move of a few draws is multiplied: that a rounding, a draw of that spread, is larger has a chance below 1e-6
TRUTH_DRAWS, SAMPLE = 2, 16  # of the rounding of the truth, and entries of a tensor that are looked at where each costs a run
MANY = 256  # entries from which on one run of autodiff goes before as many of complex steps
REACH = 2.0**-40  # of the points beside a kink, to the usual size
PAIRS = 12  # random directions that are looked along, both ways, once a kink is seen
PLAIN_BITS = 3  # numbers with no more significant bits stay as they are: there lie the knees

Derive = Callable[[np.ndarray, tuple[np.ndarray, ...], np.ndarray], np.ndarray]
"""The derivatives at a point, for some upstream gradients, by the entries of these numbers."""


def nudged(a: np.ndarray, draw: int, size: float, *, every: bool = False) -> np.ndarray:
    """Return numbers that are off by a random part of a size; zeros, ties and knees such as 1 or 6 stay, unless `every` one is moved."""
    wide = a.astype(np.float64)
    if every:  # upstream gradients, in which nothing depends on two of them being equal
        return np.asarray(wide * (1 + size * np.random.default_rng(draw + 1).uniform(-1, 1, a.shape))).astype(a.dtype)
    with np.errstate(all="ignore"):
        mantissa = np.frexp(wide)[0] * 2**PLAIN_BITS
        return np.where(mantissa != np.rint(mantissa), wide * (1 + size * drawn(wide, draw)), wide).astype(a.dtype)


@contextmanager
def _no_part_lost() -> Iterator[None]:
    """Let the loss of an imaginary part be an error, and say nothing of other warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.filterwarnings("error", message=".*discards the imaginary part")
        yield


@dataclass
class Truth:
    """The derivatives by every entry, what they may be off by, the method that gave them, and why those before it did not."""

    method: str
    values: np.ndarray
    errors: np.ndarray
    reasons: dict[str, str]

    @property
    def rounded(self) -> bool:
        """Whether the errors are those of rounding alone."""
        return self.method != DIFFERENCES


class Pairing:
    """The sum of dy * y of one call, in float64; `refused` holds the methods that cannot be used, with the reasons, and fills."""

    def __init__(self, run: Callable[[Call], Answer], call: Call, refused: dict[str, str]) -> None:
        self.run, self.call, self.refused = run, replace(call, mode=FORWARD), refused
        arrays: dict[int | str, np.ndarray] = {i: x for i, (x, real) in enumerate(zip(call.inputs, call.real, strict=True)) if real}
        arrays |= {name: call.params[name] for name in call.trained}
        ends = np.cumsum([0, *(a.size for a in arrays.values())])
        self.places = {key: slice(start, end) for key, start, end in zip(arrays, ends[:-1], ends[1:], strict=True)}
        self.shapes = {key: a.shape for key, a in arrays.items()}
        self.z = np.concatenate([a.astype(np.float64).ravel() for a in arrays.values()]) if arrays else np.zeros(0)
        usual = np.concatenate([np.full(a.size, _usual(a)) for a in arrays.values()]) if arrays else np.zeros(0)
        self.sizes = np.where(self.z == 0, usual, np.abs(self.z))  # of steps, none of which crosses 0, where most knees are
        self.every = np.arange(self.z.size)
        self.base, self.noise = self.value(self.z), math.nan
        self.rng = np.random.default_rng(self.z.size)

    # The function.

    def _at(self, z: np.ndarray, dys: tuple[np.ndarray, ...], mode: str = FORWARD) -> Call:
        parts: dict[int | str, Any] = {key: z[place].reshape(self.shapes[key]) for key, place in self.places.items()}
        if z.dtype.kind == "c":
            parts = {key: stepped(a) for key, a in parts.items()}
        inputs = tuple(parts.get(i, x) for i, x in enumerate(self.call.inputs))
        params = {name: parts.get(name, a) for name, a in self.call.params.items()}
        return replace(self.call, inputs=inputs, params=params, dys=dys, mode=mode)

    def outputs(self, z: np.ndarray, dys: tuple[np.ndarray, ...] | None = None) -> tuple[np.ndarray, ...]:
        """Return what the forward gives; raise what it raises."""
        return self.run(self._at(z, dys or self.call.dys)).outputs

    def value(self, z: np.ndarray, dys: tuple[np.ndarray, ...] | None = None) -> float:
        """Return the sum of dy * y, NaN where there is none."""
        try:
            ys = self.outputs(z, dys)
        except Exception:  # noqa: BLE001  (a candidate may raise anything, beside the point that it is asked about)
            return math.nan
        with np.errstate(all="ignore"):
            return float(sum(np.sum(dy * y) for dy, y in zip(dys or self.call.dys, ys, strict=True)))

    # The truth.

    @_no_part_lost()
    def truth(self) -> Truth:
        """Return the derivatives by every entry, by the first method that can be believed."""
        noises = [self._value_noise(self.z), self._value_noise(self.z * (1 + LONGEST))]  # here, and as far as differences reach
        self.noise = max((n for n in noises if math.isfinite(n)), default=math.nan)
        reasons: dict[str, str] = {}
        for method in (AUTODIFF_OF_IT, COMPLEX_STEP) if self.z.size > MANY else (COMPLEX_STEP, AUTODIFF_OF_IT):
            derive = self._methods[method]
            if method in self.refused:
                reasons[method] = self.refused[method]
                continue
            try:
                values = derive(self.z, self.call.dys, self.every)
                errors = self._rounding(derive, values)
            except Exception as error:  # noqa: BLE001  (a forward need not take complex numbers)
                reasons[method] = str(error) if isinstance(error, (UnsupportedError, NotAnalyticError)) else said(error)
                if math.isfinite(self.base):
                    self.refused[method] = reasons[method]
                continue
            if not self._contradicted(values, errors):
                return Truth(method, values, errors, reasons)
            reasons[method] = "differences contradict it"
        return Truth(DIFFERENCES, *self._by_differences(self.every), reasons)

    @property
    def _methods(self) -> dict[str, Derive]:
        return {COMPLEX_STEP: self._by_steps, AUTODIFF_OF_IT: self._by_autodiff}

    def _by_steps(self, z: np.ndarray, dys: tuple[np.ndarray, ...], entries: np.ndarray) -> np.ndarray:
        """Return the complex step by some entries; raise NotAnalyticError where the numbers say that there is none."""
        found = np.empty(len(entries))
        for n, k in enumerate(entries):
            moved = z.astype(complex)
            moved[k] += 1j * STEP
            ys = self.outputs(moved, dys)
            if not all(y.dtype.kind == "c" for y in ys):
                raise NotAnalyticError("its outputs are real for complex numbers")
            with np.errstate(all="ignore"):
                found[n] = sum(float(np.sum(dy * y.imag)) for dy, y in zip(dys, ys, strict=True)) / STEP
        return found

    def _by_autodiff(self, z: np.ndarray, dys: tuple[np.ndarray, ...], entries: np.ndarray) -> np.ndarray:
        answer = self.run(self._at(z, dys, AUTODIFF))
        found: list[Any] = [answer.d_inputs[key] if isinstance(key, int) else answer.d_params[key] for key in self.places]
        flat = [np.zeros(self.shapes[key]) if d is None else d for key, d in zip(self.places, found, strict=True)]
        return np.concatenate([np.asarray(d, dtype=np.float64).ravel() for d in flat])[entries]

    def _by_differences(self, entries: np.ndarray, side: int = 0, shrink: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        def along(length: np.ndarray, which: np.ndarray) -> np.ndarray:
            found = []
            for t, k in zip(np.ravel(length), np.ravel(np.broadcast_to(which, np.shape(length))), strict=True):
                moved = self.z.copy()
                moved[entries[int(k)]] += t
                found.append(self.value(moved) if t else self.base)
            return np.array(found).reshape(np.shape(length))

        return differences(along, LONGEST * self.sizes[entries], self.noise, side, shrink=shrink)

    # Whether it can be believed, and how far.

    def _value_noise(self, z: np.ndarray) -> float:
        """Return what rounding may do to the sum at a point."""
        base, size = self.value(z), error_size(FLOAT64)
        moves = [abs(self.value(nudged(z, draw, size), self._nudged_dys(draw)) - base) for draw in range(TRUTH_DRAWS)]
        try:
            ys = self.outputs(z)
        except Exception:  # noqa: BLE001  (said where the candidate is called)
            return math.nan
        with np.errstate(all="ignore"):
            terms = sum(float(np.sum(np.abs(dy * y))) for dy, y in zip(self.call.dys, ys, strict=True))
        return SLACK * max((m for m in moves if math.isfinite(m)), default=0.0) + size * terms + FLOAT64.underflow

    def _nudged_dys(self, draw: int) -> tuple[np.ndarray, ...]:
        return tuple(nudged(dy, draw, error_size(FLOAT64), every=True) for dy in self.call.dys)

    def _rounding(self, derive: Derive, values: np.ndarray) -> np.ndarray:
        """Return what rounding may do to the derivatives, alike for all of a tensor."""
        errors = np.zeros(self.z.size)
        one_run = derive == self._by_autodiff
        chosen = self.every if one_run else np.unique(np.concatenate([self._sample(values, place) for place in self.places.values()]))
        for draw in range(TRUTH_DRAWS if chosen.size else 0):
            moves = np.abs(derive(nudged(self.z, draw, error_size(FLOAT64)), self._nudged_dys(draw), chosen) - values[chosen])
            for place in self.places.values():
                within = moves[(chosen >= place.start) & (chosen < place.stop)]
                most = SLACK * float(np.max(within, initial=0.0, where=np.isfinite(within)))
                errors[place] = np.maximum(errors[place], most)
        errors += 0.0 if one_run else FLOAT64.underflow / STEP
        return np.where(np.isfinite(values), errors, np.inf)

    def _sample(self, values: np.ndarray, place: slice) -> np.ndarray:
        own = np.arange(place.start, place.stop)
        if own.size <= SAMPLE:
            return own
        largest = own[np.argsort(-np.abs(np.nan_to_num(values[place])))[: SAMPLE // 2]]
        return np.concatenate([largest, self.rng.choice(own, SAMPLE // 2)])

    def _contradicted(self, values: np.ndarray, errors: np.ndarray) -> bool:
        """Say whether differences along a random direction are another number, where the function has a derivative along it."""
        known = np.isfinite(values)
        by = np.where(known, self._direction(), 0.0)
        slope, noise = float(by[known] @ values[known]), float(np.abs(by[known]) @ errors[known])
        first, first_error = self._along(by)
        if not abs(slope - first) > first_error + noise:
            return False
        again, again_error = self._along(by, shrink=1 / 3)  # an error estimate may be too small by chance, hardly two of them
        error = max(first_error, again_error) + abs(first - again) + noise
        return abs(slope - first) > error and abs(slope - again) > error and not self._turns(by)

    def _direction(self) -> np.ndarray:
        """Return a random direction with no entry near 0, to the size of the numbers."""
        signs = self.rng.choice((-1.0, 1.0), self.z.size)
        return self.rng.uniform(1, 2, self.z.size) * signs * self.sizes

    def _along(self, by: np.ndarray, side: int = 0, shrink: float = 1.0) -> tuple[float, float]:
        """Return the derivative along a direction by differences, and what it may be off by."""

        def along(length: np.ndarray, _: np.ndarray) -> np.ndarray:
            found = [self.value(self.z + t * by) if t else self.base for t in np.ravel(length)]
            return np.array(found).reshape(np.shape(length))

        (value,), (error,) = differences(along, np.array([LONGEST / 2]), self.noise, side, shrink=shrink)
        return float(value), float(error)

    def _turns(self, by: np.ndarray) -> bool:
        """Say whether the derivatives along a direction differ from one side to the other, or cannot be told."""
        (left, left_error), (right, right_error) = (self._along(by, side, NEAR[-1]) for side in (-1, 1))
        return not abs(left - right) <= left_error + right_error

    # Kinks.

    @_no_part_lost()
    def kinks(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest of the derivatives beside the point, NaN for entries at which they do not differ.

        They bracket what is right. Where there is a third derivative between two others, several kinks meet, of whose limits not every one
        is found: such an entry is left open, between infinite ends.
        """
        derive = self._methods.get(truth.method)
        beside = Brackets(truth.values, truth.errors)
        if derive is None:
            if self._turns(self._direction()):
                sides = [[self._by_differences(self.every, side, shrink) for side in (-1, 1)] for shrink in NEAR]
                apart = np.logical_and.reduce([np.abs(left[0] - right[0]) > left[1] + right[1] for left, right in sides])
                beside = Brackets(np.full(self.z.size, np.nan), truth.errors)
                for values, errors in sides[-1]:
                    beside.add(self.every[apart], values[apart], errors[apart])
            return beside.at_kinks()
        for side in self._both(self.rng.standard_normal(self.z.size)):
            beside.add(self.every, *self._limit(derive, side, truth, self.every))
        if not beside.apart.any():  # a direction at random, both ways, leaves no kink on one side
            return beside.at_kinks()
        for k in self.every:
            for side in self._both((self.every == k).astype(float)):
                beside.add(self.every[k : k + 1], *self._limit(derive, side, truth, self.every[k : k + 1]))
        for side in self._sides():
            beside.add(self.every, *self._limit(derive, side, truth, self.every))
        return beside.at_kinks()

    def _sides(self) -> Iterator[np.ndarray]:
        """Yield directions of all numbers at once, of each array alone, and at random."""
        yield from self._both(np.ones(self.z.size))
        for place in self.places.values():
            one = np.zeros(self.z.size)
            one[place] = 1.0
            yield from self._both(one)
        for _ in range(PAIRS):
            yield from self._both(self.rng.standard_normal(self.z.size))

    @staticmethod
    def _both(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return direction, -direction

    def _limit(self, derive: Derive, side: np.ndarray, truth: Truth, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what the derivative tends to from a side, extrapolated from two points, and what that may be off by."""
        reach = REACH * side * self.sizes
        try:
            far, near = (derive(self.z + reach / part, self.call.dys, entries) for part in (1, 2))
        except Exception:  # noqa: BLE001  (beside a point the forward may not be defined)
            return np.full(len(entries), np.nan), np.full(len(entries), np.inf)
        return 2 * near - far, np.abs(near - far) + 2 * truth.errors[entries]


def _usual(a: np.ndarray) -> float:
    """Return the size of the steps of zeros: that of the other entries, and where these are all zero or large, 1."""
    finite = a[np.isfinite(a)].astype(np.float64)
    size = float(np.sqrt(np.mean(finite * finite))) if finite.size else 0.0
    return min(size, 1.0) or 1.0
