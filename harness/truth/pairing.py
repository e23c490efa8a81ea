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
from functools import partial
from typing import Any

import numpy as np
from backproof.adapters.calls import AUTODIFF, FORWARD, Answer, Call, UnsupportedError
from backproof.truth.complex_step import STEP, NotAnalyticError, stepped
from backproof.truth.differences import LONGEST, NEAR, REFINED
from backproof.truth.nearby import Nearby
from backproof.truth.random_rounding import FLOAT64, error_size, nudged
from backproof.truth.resolution import resolution
from backproof.truth.scalar_function import COMPLEX_STEP, ScalarFunction, Truth
from backproof.wording import said

__all__ = ["DIFFERENCES", "SLACK", "Pairing"]

AUTODIFF_OF_FORWARD, DIFFERENCES = "autodiff", "extrapolated differences"
SLACK = 4.0  # times the largest change over a few draws: that a rounding, a draw of that spread, is larger has a chance below 1e-6
TRUTH_DRAWS, SAMPLE = 2, 16  # perturbations, and the entries of a tensor that are derived again where each entry costs a run
MANY = 256  # entries from which on one run of autodiff is tried before as many complex steps
SHORTEST = 2.0**-860  # the size of entries whose complex step is the shortest: a derivative times it is far from underflow
TINY = 2.0**-20  # entries beside which the numbers that a function adds to them show nothing of them
LINES = 2  # on which it is measured how the values scatter
SHRUNK = (2.0**-5, 2.0**-9)  # how much shorter the steps are that must tell the same
WEAK = "its error is larger than its values"

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

    def __init__(self, run: Callable[[Call], Answer], call: Call, refused: dict[str, str], *, apart: bool = False) -> None:
        arrays: dict[int | str, np.ndarray] = {i: x for i, (x, real) in enumerate(zip(call.inputs, call.real, strict=True)) if real}
        arrays |= {name: call.params[name] for name in call.trained}
        super().__init__(arrays, np.random.default_rng(sum(a.size for a in arrays.values())))
        self.run, self.call, self.refused = run, replace(call, mode=FORWARD), refused
        usual = np.concatenate([np.zeros(0), *(np.full(a.size, _usual_size(a)) for a in arrays.values())])
        self.sizes = np.where(self.z == 0, usual, np.abs(self.z))  # steps of such sizes do not cross 0, where most knees are
        self.every = np.arange(self.z.size)
        self.apart, self.moves = apart, dict[int, float]()
        self.defined: tuple[np.ndarray, ...] | None = None  # where the outputs are finite, once they are known
        with suppress(Exception):  # said where the candidate is called
            self.own = self.outputs(self.z)
            self.defined = tuple(map(np.isfinite, self.own))
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
        if np.array_equal(z.real, self.z):
            self._reproduced(tuple(y.real for y in ys), "its outputs are others for complex numbers")
        return self._paired(tuple(y.imag for y in ys))

    def first_step(self, by: np.ndarray) -> float:
        return LONGEST / 2  # directions are made of numbers in [1, 2) times the sizes

    def _paired(self, ys: tuple[np.ndarray, ...]) -> float:
        """Return the sum of dy * y over the outputs that are finite at the point."""
        masks: tuple[Any, ...] = self.defined or (True,) * len(ys)
        with np.errstate(all="ignore"):
            return float(sum(float(np.sum(dy * y, where=mask)) for dy, y, mask in zip(self.call.dys, ys, masks, strict=True)))

    def _reproduced(self, ys: tuple[np.ndarray, ...], otherwise: str) -> None:
        """Raise NotAnalyticError where a method works on other outputs than those of the forward, by more than rounding."""
        for n, (y, own) in enumerate(zip(ys, self.own, strict=True)):
            with np.errstate(all="ignore"):
                off = float(np.max(np.abs(y - own), initial=0.0, where=np.isfinite(y) & np.isfinite(own)))
            if off > self.moves.get(n, 0.0):
                raise NotAnalyticError(otherwise)

    # The truth.

    @_no_part_lost()
    def truth(self) -> Truth:
        """Return the derivatives by every entry, by the first method that can be believed; open where the forward is not finite."""
        self.noise = self._noise()
        truth = self._believed()
        truth.errors = np.where(self.undefined(self.defined), np.inf, truth.errors)
        return truth

    def undefined(self, defined: tuple[np.ndarray, ...] | None) -> np.ndarray:
        """Return which entries an output that is not finite may depend on, from where the outputs are finite."""
        if defined is None or all(mask.all() for mask in defined):
            return np.full(self.z.size, defined is None)
        rows = np.logical_or.reduce([~mask.reshape(len(mask), -1).all(1) for mask in defined])
        found = np.ones(self.z.size, dtype=bool)
        for key, place in self.slices.items():
            if self.apart and isinstance(key, int):
                found[place] = np.repeat(rows, (place.stop - place.start) // len(rows))
        return found

    def _believed(self) -> Truth:
        """Return what the first method gives that differences do not contradict, or another method bears out."""
        reasons: dict[str, str] = {}
        doubted: list[Truth] = []
        for method in (AUTODIFF_OF_FORWARD, COMPLEX_STEP) if self.z.size > MANY else (COMPLEX_STEP, AUTODIFF_OF_FORWARD):
            derive = METHODS[method]
            if method in self.refused:
                reasons[method] = self.refused[method]
                continue
            try:
                values = derive(self, self.z, self.every)
                errors = self._rounding(derive, values)
                found = Truth(method, values, errors, by_differences=False, reasons=reasons)
                reason = self._doubt(found)
            except Exception as error:  # noqa: BLE001  (a forward need not take complex numbers)
                reasons[method] = str(error) if isinstance(error, (UnsupportedError, NotAnalyticError)) else said(error)
                if math.isfinite(self.base):
                    self.refused[method] = reasons[method]
                continue
            if not reason:
                return found
            if any(_agree(found, other) for other in doubted):  # which share nothing: differences cannot see there
                return found
            reasons[method] = reason
            doubted.append(found)
        found = Truth(DIFFERENCES, *self.settled(self.every), by_differences=True, reasons=reasons)
        weak = [one for one in doubted if reasons[one.method] == WEAK]  # of a gradient that is 0 no method knows more than its error
        best = min((*weak, found), key=lambda one: (np.count_nonzero(~np.isfinite(one.errors)), np.sum(one.errors)))
        return replace(best, reasons={method: why for method, why in reasons.items() if method != best.method})

    def settled(self, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives by some entries by differences of which those of shorter steps tell the same, infinite errors elsewhere.

        A step across a jump or a pole extrapolates to anything.
        """
        values, errors = self.by_entries(entries)
        rest = np.arange(len(entries))
        for shrink in SHRUNK:
            again, its_errors = self.by_entries(entries[rest], shrink=shrink, refined=REFINED // 2)
            differ = ~(np.abs(values[rest] - again) <= errors[rest] + its_errors) & np.isfinite(errors[rest])
            if not len(rest := rest[differ]):
                return values, errors
            values[rest], errors[rest] = again[differ], its_errors[differ]
        errors[rest] = np.inf
        return values, errors

    def by_steps(self, z: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the derivatives by some entries by complex steps, each short beside its entry: a pole may lie as near as 0."""
        lengths = np.maximum(self.sizes, SHORTEST)
        return np.array([self.step(lengths[entry] * self.unit(entry), z) / lengths[entry] for entry in entries])

    def by_autodiff(self, z: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the derivatives by some entries by the framework's autodiff; raise UnsupportedError where it has none."""
        answer = self.run(self._call(z, AUTODIFF))
        if np.array_equal(z, self.z):
            self._reproduced(answer.outputs, "replayed without its backward, the forward gives other outputs")
        gradients: list[Any] = [answer.d_inputs[key] if isinstance(key, int) else answer.d_params[key] for key in self.slices]
        arrays = [np.zeros(self.shapes[key]) if d is None else d for key, d in zip(self.slices, gradients, strict=True)]
        return np.concatenate([np.asarray(d, dtype=np.float64).ravel() for d in arrays])[entries]

    def _doubt(self, found: Truth) -> str:
        """Return why the derivatives that a method gave cannot be believed, or an empty string."""
        finite = np.isfinite(found.errors)
        known = finite & np.isfinite(found.values)
        by = np.where(known, self.direction(*self.slices) * self.sizes, 0.0)
        slope, error = float(by[known] @ found.values[known]), float(np.abs(by[known]) @ found.errors[known])
        error = min(error, float(np.abs(by[known]) @ np.abs(found.values[known])) / 2)  # what is not half known bears no other out
        if self.contradicts(by, slope, error) and not self.turns(by):
            return "differences contradict it"
        if self._contradicted_beside(found, by, error):
            return "differences beside the point contradict it"
        parts = [(found.values[place][known[place]], found.errors[place][known[place]]) for place in self.slices.values()]
        return WEAK if any(len(values) and np.min(errors) > np.max(np.abs(values)) > 0 for values, errors in parts) else ""

    def _contradicted_beside(self, found: Truth, by: np.ndarray, error: float) -> bool:
        """Say whether differences contradict a method at a point beside, where the kinks of the point are behind."""
        point = self.z + NEAR[0] * self.direction(*self.slices) * self.sizes
        values = METHODS[found.method](self, point, self.every)
        known = np.isfinite(values) & (by != 0)
        by = np.where(known, by, 0.0)
        return self.contradicts(by, float(by[known] @ values[known]), error, point, NEAR[0] / 4) and not self.turns(by, point)

    # How much rounding changes.

    def _perturbed(self, z: np.ndarray, draw: int) -> tuple[Pairing, np.ndarray]:
        """Return the pairing with other upstream gradients, and a point beside `z`, both off by rounding."""
        size, other = error_size(FLOAT64), copy.copy(self)
        other.call = replace(self.call, dys=tuple(nudged(dy, draw, size, every=True) for dy in self.call.dys))
        return other, nudged(z, draw, size)

    def _noise(self) -> float:
        """Return what rounding may do to the value: here, as far as differences reach, and by how much it scatters on a line."""
        noises = [self._value_noise(self.z, keep=True), self._value_noise(self.z * (1 + LONGEST))]
        # what cancels at a tiny entry, as log 2 in softplus(x) - log 2, is seen where the entry is of an ordinary size
        ordinary = np.where(np.abs(self.z) < TINY, np.where(self.z < 0, -0.5, 0.5), self.z)
        noises.append(error_size(FLOAT64) * self._terms(ordinary))
        for _ in range(LINES):
            by = self.direction(*self.slices) * self.sizes
            noises.append(SLACK * resolution(partial(self._moved, by)))
        return max((n for n in noises if math.isfinite(n)), default=math.nan)

    def _moved(self, by: np.ndarray, t: float) -> float:
        return self.value(self.z + t * by)

    def _terms(self, z: np.ndarray) -> float:
        """Return the sum of |dy * y| at a point, NaN where there is no value."""
        with np.errstate(all="ignore"):
            try:
                return sum(float(np.sum(np.abs(dy * y), where=np.isfinite(y)))
                           for dy, y in zip(self.call.dys, self.outputs(z), strict=True))
            except Exception:  # noqa: BLE001  (said where the candidate is called)
                return math.nan

    def _value_noise(self, z: np.ndarray, *, keep: bool = False) -> float:
        """Return what rounding may do to the value at a point; `keep` it for each output too."""
        base, size = self.value(z), error_size(FLOAT64)
        perturbed = [self._perturbed(z, draw) for draw in range(TRUTH_DRAWS)]
        changes = [abs(other.value(point) - base) for other, point in perturbed]
        if keep and self.defined is not None:
            with np.errstate(all="ignore"), suppress(Exception):
                for ys in (self.own, *(self.outputs(point) for _, point in perturbed)):
                    for n, (y, own) in enumerate(zip(ys, self.own, strict=True)):
                        known = np.isfinite(y) & np.isfinite(own)
                        moved = SLACK * np.max(np.abs(y - own), initial=0.0, where=known)
                        moved += size * np.max(np.abs(own), initial=0.0, where=known) + FLOAT64.underflow
                        self.moves[n] = max(self.moves.get(n, 0.0), float(moved))
        return SLACK * max((c for c in changes if math.isfinite(c)), default=0.0) + size * self._terms(z) + FLOAT64.underflow

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
        if not one_run:
            errors += FLOAT64.underflow / (STEP * np.maximum(self.sizes, SHORTEST))
            if (short := np.flatnonzero(self.sizes < SHORTEST)).size:  # a step that is long beside its entry: another must tell the same
                errors[short] += np.abs(self._steps_of(short, SHORTEST * 2.0**8) - values[short])
        return np.where(np.isfinite(values), errors, np.inf)

    def _steps_of(self, entries: np.ndarray, length: float) -> np.ndarray:
        return np.array([self.step(length * self.unit(entry)) / length for entry in entries])

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
        """Return the least and the largest of the derivatives beside the point, NaN for entries at which they do not differ."""
        return Nearby(self, truth, None if truth.by_differences else partial(METHODS[truth.method], self)).kinks()


METHODS: dict[str, Derive] = {COMPLEX_STEP: Pairing.by_steps, AUTODIFF_OF_FORWARD: Pairing.by_autodiff}


def _agree(one: Truth, other: Truth) -> bool:
    """Say whether two methods give the same derivatives, within errors that are smaller than these."""
    known = np.isfinite(one.errors) & np.isfinite(other.errors)
    off, errors = np.abs(one.values - other.values)[known], (one.errors + other.errors)[known]
    return bool(known.any() and (off <= errors).all() and np.sum(errors) < np.sum(np.abs(one.values[known])))


def _usual_size(a: np.ndarray) -> float:
    """Return the size that the steps of zeros have: that of the other entries, and where these are all zero or large, 1."""
    finite = a[np.isfinite(a)].astype(np.float64)
    size = float(np.sqrt(np.mean(finite * finite))) if finite.size else 0.0
    return min(size, 1.0) or 1.0
