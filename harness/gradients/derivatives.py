"""The true derivatives of a model's loss by its parameters, from evaluations of `loss` alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from backproof.gradients.model import DRAWS, FailedError, Model
from backproof.truth.complex_step import STEP, NotAnalyticError
from backproof.truth.differences import LONGEST, NEAR
from backproof.truth.random_rounding import FLOAT64, NoisyStep, Step, error_size
from backproof.truth.scalar_function import COMPLEX_STEP, REACH, ScalarFunction, Truth
from backproof.wording import said

__all__ = ["LossDerivatives"]

DIFFERENCES = "differences"
NOISED = 16  # entries of a parameter whose derivative is computed again with random errors
DIRECTIONS = 2  # random directions of a parameter along which differences must not contradict the complex step


class LossDerivatives(ScalarFunction):
    """A model's loss as a function of all its parameters in float64, and the derivatives of it.

    `scales` are the root mean squares of the parameters by name, `usual` is the largest of them, by which the lengths of steps go.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model.exact, np.random.default_rng(model.seed))  # one generator for the whole check
        self.model, self.base, self.noise = model, math.nan, math.inf
        scales = {name: float(np.sqrt(np.mean(a * a))) if a.size else 0.0 for name, a in model.exact.items()}
        self.usual = max(scales.values(), default=0.0) or 1.0
        self.scales = {name: scale or self.usual for name, scale in scales.items()}
        self.sizes = np.full(self.z.size, self.usual)

    # The function.

    def value(self, z: np.ndarray) -> float:
        try:
            return float(self.model.value(self.named(z)).real)
        except (FailedError, TypeError, ValueError):
            return math.nan

    def imaginary(self, z: np.ndarray) -> float:
        value = self.model.value({name: array.view(Step) for name, array in self.named(z).items()})
        imaginary = _imaginary_part(value)
        if np.array_equal(z.real, self.z) and not abs(value.real - self.base) <= self.noise:
            raise NotAnalyticError(f"loss is {value.real!r} on complex parameters and {self.base!r} on real ones")
        return imaginary

    def first_step(self, by: np.ndarray) -> float:
        longest = max(float(np.sqrt(np.sum(np.square(by[place])))) for place in self.slices.values())
        return LONGEST * self.usual / longest

    def measure_noise(self) -> None:
        """Measure what rounding does to the loss, once it is known to be finite."""
        moved = self.model.moves(lambda p: float(np.real(self.model.value(p))), self.base)
        self.noise = moved + error_size(FLOAT64) * abs(self.base)

    # Derivatives.

    def truth(self, name: str, entries: np.ndarray) -> Truth:
        """Return the derivatives by some entries of a parameter, by complex step where that can be believed."""
        reason = self._why_no_step(name)
        if not reason:
            values = np.array([self.step_or_nan(self.unit(entry)) for entry in entries])
            if np.isfinite(values).all():
                return Truth(COMPLEX_STEP, values, np.full(len(values), self._steps_error(entries, values)), by_differences=False)
            reason = "no complex step of some entries"
        return Truth(DIFFERENCES, *self.by_entries(entries), by_differences=True, reasons={COMPLEX_STEP: reason})

    def _steps_error(self, entries: np.ndarray, values: np.ndarray) -> float:
        """Return what rounding may do to complex steps, from the largest of them and some at random."""
        largest = entries[np.argsort(-np.abs(values))[: NOISED // 2]]
        noised = np.unique(np.concatenate([largest, self.rng.choice(entries, NOISED // 2)]))
        return max(self.step_error(self.unit(entry), DRAWS // 2) for entry in noised)

    def step_or_nan(self, by: np.ndarray, point: np.ndarray | None = None) -> float:
        """Return the derivative along a direction by complex step, NaN where the loss does not carry it."""
        try:
            return self.step(by, point)
        except (FailedError, NotAnalyticError, ValueError):
            return math.nan

    def step_error(self, by: np.ndarray, draws: int = DRAWS) -> float:
        """Return how much the complex step changes at most when every operation of the loss has a random error."""
        moved = self.z.astype(complex)
        moved.imag = STEP * by

        def derivative(parameters: Mapping[str, np.ndarray]) -> float:
            return _imaginary_part(self.model.value(parameters)) / STEP

        return self.model.moves(derivative, self.step(by), NoisyStep, self.named(moved), draws)

    def _why_no_step(self, name: str) -> str:
        """Return why the complex step by a parameter cannot be believed, or an empty string."""
        try:
            for _ in range(DIRECTIONS):
                by = self.direction(name)
                if self.contradicts(by, self.step(by), self.step_error(by)):
                    return "the complex step contradicts them: loss is not analytic there"
        except Exception as error:  # noqa: BLE001  (a loss need not take complex numbers)
            return f"no complex step: {error if isinstance(error, FailedError) else said(error)}"
        return ""

    def limits(self, entry: int, error: float, *, by_steps: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield what the derivative by an entry tends to from several sides, with errors.

        The sides are those of all parameters together, of the biases, of each parameter, and random ones. `error` is what a complex step
        may be off by.
        """

        def derivatives(z: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
            if by_steps:
                return np.array([self.step_or_nan(self.unit(entry), z)]), np.array([error])
            return self.by_entries([entry], shrink=2.0**-2 * distance, point=z, refined=2)

        names = list(self.shapes)
        biases = [name for name, shape in self.shapes.items() if len(shape) < 2 or 1 in shape]
        for side in self.sides((names, biases, *([name] for name in names)), DRAWS):
            yield self.limit(derivatives, side, REACH if by_steps else NEAR[-1])


def _imaginary_part(value: Any) -> float:
    if not isinstance(value, complex):
        raise NotAnalyticError("loss takes the real part of its numbers")
    return value.imag
