"""The scalar <dy, y> of one call of a function y(inputs, parameters), and its derivatives by every entry of the inputs and parameters.

Complex step    Entry by entry, where the function takes complex numbers.
Autodiff        The framework's gradient of the forward without the backward that the candidate defines.
Differences     Extrapolated central differences of the real function.
Choice          The first of these that the function takes and that differences along a random direction do not contradict. At a kink along
                that direction differences say nothing, and the method is kept.
Rounding        The most that the derivatives change over a few draws when the entries and dy are perturbed in their last places, alike
                for all entries of a tensor.
Kinks           Where one-sided derivatives differ, every number between them is right. They are limits of the derivative beside the point:
                along each entry, along all of an array at once, and along random directions, both ways.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.adapters.calls import AUTODIFF, FORWARD, Answer, Call, UnsupportedError
from backproof.truth.brackets import Brackets
from backproof.truth.complex_step import STEP, NotAnalyticError, stepped
from backproof.truth.differences import LONGEST
from backproof.truth.random_rounding import FLOAT64, error_size, nudged
from backproof.truth.scalar_function import COMPLEX_STEP, ScalarFunction, Truth
from backproof.wording import said

__all__ = ["DIFFERENCES", "SLACK", "Pairing"]

AUTODIFF_OF_FORWARD, DIFFERENCES = "autodiff", "extrapolated differences"
SLACK = 4.0  # times the largest change over a few draws: that a rounding, a draw of that spread, is larger has a chance below 1e-6
TRUTH_DRAWS, SAMPLE = 2, 16  # perturbations, and the entries of a tensor that are derived again where each entry costs a run
MANY = 256  # entries from which on one run of autodiff is tried before as many complex steps
PAIRS = 12  # random directions, each both ways, from which a kink is approached

Derive = Callable[["Pairing", np.ndarray, np.ndarray], np.ndarray]
"""The derivatives of a pairing at a point by the entries of these numbers."""


@contextmanager
def _no_part_lost() -> Iterator[None]:
    """Make the loss of an imaginary part an error, and silence all other warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        warnings.filterwarnings("error", message=".*discards the imaginary part")
        yield


class Pairing(ScalarFunction):
    """The sum of dy * y of one call, in float64.

    `run` evaluates a call. `refused` holds the methods that the function does not take, with the reasons; it fills, and may be shared by
    the pairings of one function.
    """

    def __init__(self, run: Callable[[Call], Answer], call: Call, refused: dict[str, str]) -> None:
        arrays: dict[int | str, np.ndarray] = {i: x for i, (x, real) in enumerate(zip(call.inputs, call.real, strict=True)) if real}
        arrays |= {name: call.params[name] for name in call.trained}
        super().__init__(arrays, np.random.default_rng(sum(a.size for a in arrays.values())))
        self.run, self.call, self.refused = run, replace(call, mode=FORWARD), refused
        usual = np.concatenate([np.zeros(0), *(np.full(a.size, _usual_size(a)) for a in arrays.values())])
        self.sizes = np.where(self.z == 0, usual, np.abs(self.z))  # steps of such sizes do not cross 0, where most knees are
        self.every = np.arange(self.z.size)
        self.base, self.noise = self.value(self.z), math.nan

    # The function.

    def _call(self, z: np.ndarray, mode: str = FORWARD) -> Call:
        parts: dict[int | str, Any] = self.named(z)
        if z.dtype.kind == "c":
            parts = {key: stepped(a) for key, a in parts.items()}
        inputs = tuple(parts.get(i, x) for i, x in enumerate(self.call.inputs))
        params = {name: parts.get(name, a) for name, a in self.call.params.items()}
        return replace(self.call, inputs=inputs, params=params, mode=mode)

    def outputs(self, z: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the outputs at a point; raise what the function raises."""
        return self.run(self._call(z)).outputs

    def value(self, z: np.ndarray) -> float:
        try:
            ys = self.outputs(z)
        except Exception:  # noqa: BLE001  (a candidate may raise anything, beside the point that it is asked about)
            return math.nan
        return self._paired(ys)

    def imaginary(self, z: np.ndarray) -> float:
        ys = self.outputs(z)
        if not all(y.dtype.kind == "c" for y in ys):
            raise NotAnalyticError("its outputs are real for complex numbers")
        return self._paired(tuple(y.imag for y in ys))

    def first_step(self, by: np.ndarray) -> float:
        return LONGEST / 2  # directions are made of numbers in [1, 2) times the sizes

    def _paired(self, ys: tuple[np.ndarray, ...]) -> float:
        with np.errstate(all="ignore"):
            return float(sum(float(np.sum(dy * y)) for dy, y in zip(self.call.dys, ys, strict=True)))

    # The truth.

    @_no_part_lost()
    def truth(self) -> Truth:
        """Return the derivatives by every entry, by the first method that can be believed."""
        noises = [self._value_noise(self.z), self._value_noise(self.z * (1 + LONGEST))]  # here, and as far as differences reach
        self.noise = max((n for n in noises if math.isfinite(n)), default=math.nan)
        reasons: dict[str, str] = {}
        for method in (AUTODIFF_OF_FORWARD, COMPLEX_STEP) if self.z.size > MANY else (COMPLEX_STEP, AUTODIFF_OF_FORWARD):
            derive = METHODS[method]
            if method in self.refused:
                reasons[method] = self.refused[method]
                continue
            try:
                values = derive(self, self.z, self.every)
                errors = self._rounding(derive, values)
            except Exception as error:  # noqa: BLE001  (a forward need not take complex numbers)
                reasons[method] = str(error) if isinstance(error, (UnsupportedError, NotAnalyticError)) else said(error)
                if math.isfinite(self.base):
                    self.refused[method] = reasons[method]
                continue
            if not self._contradicted(values, errors):
                return Truth(method, values, errors, by_differences=False, reasons=reasons)
            reasons[method] = "differences contradict it"
        return Truth(DIFFERENCES, *self.by_entries(self.every), by_differences=True, reasons=reasons)

    def by_steps(self, z: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the derivatives by some entries by complex step."""
        return np.array([self.step(self.unit(entry), z) for entry in entries])

    def by_autodiff(self, z: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the derivatives by some entries by the framework's autodiff; raise UnsupportedError where it has none."""
        answer = self.run(self._call(z, AUTODIFF))
        gradients: list[Any] = [answer.d_inputs[key] if isinstance(key, int) else answer.d_params[key] for key in self.slices]
        arrays = [np.zeros(self.shapes[key]) if d is None else d for key, d in zip(self.slices, gradients, strict=True)]
        return np.concatenate([np.asarray(d, dtype=np.float64).ravel() for d in arrays])[entries]

    def _contradicted(self, values: np.ndarray, errors: np.ndarray) -> bool:
        """Say whether differences along a random direction contradict the derivatives, where the function has one along it."""
        known = np.isfinite(values)
        by = np.where(known, self.direction(*self.slices) * self.sizes, 0.0)
        slope, error = float(by[known] @ values[known]), float(np.abs(by[known]) @ errors[known])
        return self.contradicts(by, slope, error) and not self.turns(by)

    # How much rounding changes.

    def _perturbed(self, z: np.ndarray, draw: int) -> tuple[Pairing, np.ndarray]:
        """Return the pairing with other upstream gradients, and a point beside `z`, both off by rounding."""
        size, other = error_size(FLOAT64), copy.copy(self)
        other.call = replace(self.call, dys=tuple(nudged(dy, draw, size, every=True) for dy in self.call.dys))
        return other, nudged(z, draw, size)

    def _value_noise(self, z: np.ndarray) -> float:
        """Return what rounding may do to the value at a point."""
        base, size = self.value(z), error_size(FLOAT64)
        perturbed = [self._perturbed(z, draw) for draw in range(TRUTH_DRAWS)]
        changes = [abs(other.value(point) - base) for other, point in perturbed]
        try:
            ys = self.outputs(z)
        except Exception:  # noqa: BLE001  (said where the candidate is called)
            return math.nan
        with np.errstate(all="ignore"):
            terms = sum(float(np.sum(np.abs(dy * y))) for dy, y in zip(self.call.dys, ys, strict=True))
        return SLACK * max((c for c in changes if math.isfinite(c)), default=0.0) + size * terms + FLOAT64.underflow

    def _rounding(self, derive: Derive, values: np.ndarray) -> np.ndarray:
        """Return what rounding may do to the derivatives, the same number for all entries of a tensor."""
        errors = np.zeros(self.z.size)
        one_run = derive is METHODS[AUTODIFF_OF_FORWARD]
        chosen = self.every if one_run else np.unique(np.concatenate([self._sample(values, place) for place in self.slices.values()]))
        for draw in range(TRUTH_DRAWS if chosen.size else 0):
            other, point = self._perturbed(self.z, draw)
            changes = np.abs(derive(other, point, chosen) - values[chosen])
            for place in self.slices.values():
                within = changes[(chosen >= place.start) & (chosen < place.stop)]
                most = SLACK * float(np.max(within, initial=0.0, where=np.isfinite(within)))
                errors[place] = np.maximum(errors[place], most)
        errors += 0.0 if one_run else FLOAT64.underflow / STEP
        return np.where(np.isfinite(values), errors, np.inf)

    def _sample(self, values: np.ndarray, place: slice) -> np.ndarray:
        """Return the entries of a tensor, or where there are many the largest and some at random."""
        entries = np.arange(place.start, place.stop)
        if entries.size <= SAMPLE:
            return entries
        largest = entries[np.argsort(-np.abs(np.nan_to_num(values[place])))[: SAMPLE // 2]]
        return np.concatenate([largest, self.rng.choice(entries, SAMPLE // 2)])

    # Kinks.

    @_no_part_lost()
    def kinks(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest of the derivatives beside the point, NaN for entries at which they do not differ.

        Every number between the two is right. Where there is a third derivative between two others, several kinks meet, and not every
        limit is looked at: such an entry is left open, between infinite ends.
        """
        if truth.by_differences:
            return self._one_sided_kinks(truth)
        derive, ranges = METHODS[truth.method], Brackets(self.z.size)
        ranges.add(self.every, truth.values, truth.errors)

        def approach(side: np.ndarray, entries: np.ndarray) -> None:
            def derivatives(z: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
                return derive(self, z, entries), truth.errors[entries]

            with suppress(Exception):  # beside a point the forward may not be defined
                ranges.add(entries, *self.limit(derivatives, side))

        for side in self.sides((), 1):
            approach(side, self.every)
        if not ranges.apart.any():  # a direction at random, both ways, leaves no kink on one side
            return ranges.at_kinks()
        for entry in range(self.z.size):
            for sign in (1.0, -1.0):
                approach(sign * self.unit(entry), self.every[entry : entry + 1])
        for side in self.sides([tuple(self.slices), *((key,) for key in self.slices)], PAIRS):
            approach(side, self.every)
        return ranges.at_kinks()

    def _one_sided_kinks(self, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
        """Return what `kinks` does where only differences are known."""
        ranges = Brackets(self.z.size)
        if not self.turns(self.direction(*self.slices) * self.sizes):
            return ranges.at_kinks()
        apart, both = self.one_sided(self.every)
        for values, errors in both:
            ranges.add(self.every[apart], values[apart], errors[apart])
        return ranges.at_kinks()


METHODS: dict[str, Derive] = {COMPLEX_STEP: Pairing.by_steps, AUTODIFF_OF_FORWARD: Pairing.by_autodiff}


def _usual_size(a: np.ndarray) -> float:
    """Return the size that the steps of zeros have: that of the other entries, and where these are all zero or large, 1."""
    finite = a[np.isfinite(a)].astype(np.float64)
    size = float(np.sqrt(np.mean(finite * finite))) if finite.size else 0.0
    return min(size, 1.0) or 1.0
