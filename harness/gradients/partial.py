"""The derivatives by the entries of one parameter: the truth about them, and what they tend to beside a kink."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from backproof.gradients.model import DRAWS, FailedError, Move
from backproof.gradients.truth import Slopes, Truth
from backproof.truth.differences import NEAR, REFINED
from backproof.truth.exact import NotAnalyticError
from backproof.wording import said

__all__ = ["Partial"]

NOISED = 16  # entries of a parameter whose truth is computed with random errors
CHUNK = 32  # directions of differences taken together


class Partial:
    """The derivatives of a model's loss by the entries of one parameter, whose places count them in the order of memory."""

    def __init__(self, slopes: Slopes, name: str) -> None:
        self.model, self.slopes, self.name = slopes.model, slopes, name
        self.shape = self.model.exact[name].shape

    def unit(self, place: Any) -> Move:
        """Return the direction of one entry."""
        direction = np.zeros(math.prod(self.shape))
        direction[place] = 1.0
        return {self.name: direction.reshape(self.shape)}

    def truth(self, places: np.ndarray) -> Truth:
        """Return the derivatives by the entries at some places, by complex step where that can be believed."""
        reason = self._why_no_step()
        if reason:
            values, errors = self.by_differences(places)
            return Truth("differences", reason, values, errors)
        values = np.array([self.step(self.unit(k)) for k in places])
        if not np.isfinite(values).all():
            return Truth("differences", "no complex step of some entries", *self.by_differences(places))
        some = places[np.argsort(-np.abs(values))[: NOISED // 2]]
        some = np.concatenate([some, self.slopes.rng.choice(places, NOISED // 2)])
        noise = max(self.slopes.step_error(self.unit(k), DRAWS // 2) for k in np.unique(some))
        return Truth("complex step", "", values, np.full(len(values), noise))

    def step(self, by: Move, point: Mapping[str, np.ndarray] | None = None) -> float:
        """Return the complex step, NaN where this one is not carried."""
        try:
            return self.slopes.step(by, point)
        except (FailedError, NotAnalyticError, ValueError):
            return math.nan

    def _why_no_step(self) -> str:
        """Return why the complex step cannot be believed, or an empty string."""
        try:
            for _ in range(2):
                by = self.slopes.direction(self.name)
                slope = self.slopes.step(by)
                noise = self.slopes.step_error(by)
                (first,), (first_error,) = self.slopes.differences([by])
                if abs(slope - first) > first_error + noise:  # an error estimate may be too small by chance, hardly two of them
                    (again,), (again_error,) = self.slopes.differences([by], shrink=1 / 3)
                    error = max(first_error, again_error) + abs(first - again) + noise
                    if abs(slope - first) > error and abs(slope - again) > error:
                        return "the complex step contradicts them: loss is not analytic there"
        except Exception as error:  # noqa: BLE001  (a loss need not take complex numbers)
            return f"no complex step: {error if isinstance(error, FailedError) else said(error)}"
        return ""

    def by_differences(self, places: np.ndarray, side: int = 0, shrink: float = 1.0, point: Mapping[str, np.ndarray] | None = None,
                       refined: int = REFINED) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives by some entries by extrapolated differences, and what they may be off by."""
        parts = [self.slopes.differences([self.unit(k) for k in places[start : start + CHUNK]], side, shrink=shrink, point=point,
                                         refined=refined) for start in range(0, len(places), CHUNK)]
        return np.concatenate([value for value, _ in parts]), np.concatenate([error for _, error in parts])

    def sides(self, place: np.ndarray) -> list[tuple[float, float]]:
        """Return what the derivatives of the two sides may be, none where they are no two that stay apart."""
        found: list[tuple[float, float]] = []
        for shrink in NEAR:
            found = [(float(value[0] - error[0]), float(value[0] + error[0]))
                     for value, error in (self.by_differences(place, side, shrink) for side in (-1, 1))]
            if max(low for low, _ in found) <= min(high for _, high in found):
                return []
        return found

    def nearby(self, place: int, least: float, *, by_steps: bool) -> Iterator[tuple[float, float]]:
        """Yield what the derivative tends to from some sides: of every parameter, of the biases, of each, and at random."""
        names = list(self.model.exact)
        biases = [name for name, a in self.model.exact.items() if a.ndim < 2 or 1 in a.shape]
        sides = [{name: np.full(self.model.exact[name].shape, sign) for name in some}
                 for some in (names, biases, *([name] for name in names)) if some for sign in (-1.0, 1.0)]
        sides += [{name: self.slopes.rng.standard_normal(a.shape) for name, a in self.model.exact.items()} for _ in range(2 * DRAWS)]
        reach = 2.0**-40 if by_steps else NEAR[-1]
        for side in sides:
            (far, far_error), (near, near_error) = (self._at_distance(place, side, reach / part, by_steps=by_steps) for part in (1, 2))
            limit, error = 2 * near - far, abs(near - far) + far_error + near_error + least
            if math.isfinite(error):
                yield limit - error, limit + error

    def _at_distance(self, place: int, side: Move, reach: float, *, by_steps: bool) -> tuple[float, float]:
        point = self.model.moved(side, reach * self.slopes.usual)
        if by_steps:
            return self.step(self.unit(place), point), 0.0
        value, error = self.by_differences(np.array([place]), shrink=2.0**-2 * reach, point=point, refined=2)
        return float(value[0]), float(error[0])
