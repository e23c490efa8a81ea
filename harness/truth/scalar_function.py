"""The derivatives of a scalar function of named arrays for which nobody has a rule: all that is learned by evaluating the function.

Complex step    `step` is Im f(z + ih v) / h along a direction v. Nothing cancels in it, so it has all digits of float64.
Differences     `along` and `by_entries` extrapolate differences of the real function and estimate their own error.
Contradiction   A function that takes absolute values or branches may carry complex numbers and give a wrong complex step. `contradicts`
                says whether a derivative along a direction differs from the differences by more than the errors of both.
Kinks           `one_sided` compares the derivatives on the two sides of the point. `sides` are the directions from which the point is
                approached, and `limit` is what derivatives beside the point tend to from one of them.

What a subclass hands in is how the function is evaluated on real and on complex entries, and `noise`, what rounding does to its value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from backproof.truth.complex_step import STEP
from backproof.truth.differences import LONGEST, NEAR, REFINED, differences

__all__ = ["COMPLEX_STEP", "REACH", "ScalarFunction", "Truth"]

COMPLEX_STEP = "complex step"
REACH = 2.0**-40
"""The distance of the points beside a kink, in units of the entries' sizes."""

Vector = np.ndarray
Key = int | str
Derivatives = Callable[[Vector, float], tuple[np.ndarray, np.ndarray]]
"""The derivatives at a point and what they may be off by; the number is the distance of the point from z, in units of the sizes."""


@dataclass
class Truth:
    """The derivatives by some entries as one method gave them.

    `errors` bounds what each of `values` may be off by. `reasons` says for each better method why it was not used.
    """

    method: str
    values: np.ndarray
    errors: np.ndarray
    by_differences: bool
    """Whether the errors hold what extrapolation leaves; otherwise they are those of rounding alone."""
    reasons: dict[str, str] = field(default_factory=dict)


class ScalarFunction(ABC):
    """A real function of named arrays at a point, with all entries of the arrays in one vector `z`.

    `sizes` are the sizes of the entries, by which the lengths of steps are measured. `slices` says where each array lies in the vector.
    """

    noise: float
    """What rounding in float64 may do to the value."""
    base: float
    """The value at `z`."""

    def __init__(self, arrays: Mapping[Any, np.ndarray], rng: np.random.Generator) -> None:
        ends = np.cumsum([0, *(a.size for a in arrays.values())])
        self.slices = {key: slice(int(start), int(end)) for key, start, end in zip(arrays, ends[:-1], ends[1:], strict=True)}
        self.shapes = {key: a.shape for key, a in arrays.items()}
        self.z = self.vector(arrays)
        self.sizes: Vector = np.ones(self.z.size)
        self.rng = rng

    # What a subclass hands in.

    @abstractmethod
    def value(self, z: Vector) -> float:
        """Return the function at real entries, NaN where it has no value."""

    @abstractmethod
    def imaginary(self, z: Vector) -> float:
        """Return the imaginary part of the function at complex entries; raise NotAnalyticError or what the function raises."""

    @abstractmethod
    def first_step(self, by: Vector) -> float:
        """Return the length of the first step of differences along a direction."""

    # Arrays and vectors.

    def named(self, z: Vector) -> dict[Any, np.ndarray]:
        """Return the entries of a vector as arrays by name."""
        return {key: z[place].reshape(self.shapes[key]) for key, place in self.slices.items()}

    @staticmethod
    def vector(arrays: Mapping[Any, np.ndarray]) -> Vector:
        """Return the entries of all arrays as one vector of float64."""
        return np.concatenate([np.zeros(0), *(a.astype(np.float64).ravel() for a in arrays.values())])

    def unit(self, entry: int) -> Vector:
        """Return the direction of one entry."""
        by = np.zeros(self.z.size)
        by[entry] = 1.0
        return by

    def embedded(self, key: Any, array: np.ndarray) -> Vector:
        """Return a vector that holds one array, and 0 in all other entries."""
        by = np.zeros(self.z.size)
        by[self.slices[key]] = array.ravel()
        return by

    def direction(self, *keys: Any) -> Vector:
        """Return a random direction of the named arrays with no entry near 0, so that no wrong entry can hide in a sum along it."""
        entries = np.concatenate([np.arange(place.start, place.stop) for key, place in self.slices.items() if key in keys])
        by, signs = np.zeros(self.z.size), self.rng.choice((-1.0, 1.0), entries.size)
        by[entries] = self.rng.uniform(1, 2, entries.size) * signs
        return by

    # Derivatives.

    def step(self, by: Vector, point: Vector | None = None) -> float:
        """Return the derivative along a direction by complex step; raise what the function raises on complex entries."""
        moved = (self.z if point is None else point).astype(complex)
        moved.imag = STEP * by
        return self.imaginary(moved) / STEP

    def along(self, by: Vector, side: int = 0, shrink: float = 1.0, point: Vector | None = None) -> tuple[float, float]:
        """Return the derivative along a direction by differences, and what it may be off by; `side` -1 or 1 is a one-sided derivative."""
        start = self.z if point is None else point
        (value,), (error,) = self._differences(lambda t, _: start + t * by, np.array([self.first_step(by)]), side, shrink, point, REFINED)
        return float(value), float(error)

    def by_entries(self, entries: Sequence[int] | np.ndarray, side: int = 0, shrink: float = 1.0, point: Vector | None = None,
                   refined: int = REFINED) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives by some entries by differences, and what each may be off by."""
        chosen, start = np.asarray(entries, dtype=int), self.z if point is None else point

        def moved(t: float, number: int) -> Vector:
            z = start.copy()
            z[chosen[number]] += t
            return z

        return self._differences(moved, LONGEST * self.sizes[chosen], side, shrink, point, refined)

    def _differences(self, moved: Callable[[float, int], Vector], first: np.ndarray, side: int, shrink: float, point: Vector | None,
                     refined: int) -> tuple[np.ndarray, np.ndarray]:
        base = self.base if point is None else self.value(point)

        def values(lengths: np.ndarray, numbers: np.ndarray) -> np.ndarray:
            pairs = zip(np.ravel(lengths), np.ravel(np.broadcast_to(numbers, np.shape(lengths))), strict=True)
            return np.array([self.value(moved(t, int(k))) if t else base for t, k in pairs]).reshape(np.shape(lengths))

        return differences(values, first, self.noise, side, shrink=shrink, refined=refined)

    # Whether a derivative can be believed.

    def contradicts(self, by: Vector, slope: float, error: float) -> bool:
        """Say whether differences along a direction give another derivative than `slope`, which may be off by `error`.

        Two differences of different steps must both say so: one error estimate may be too small by chance, hardly two of them.
        """
        first, first_error = self.along(by)
        if not abs(slope - first) > first_error + error:
            return False
        again, again_error = self.along(by, shrink=1 / 3)
        most = max(first_error, again_error) + abs(first - again) + error
        return abs(slope - first) > most and abs(slope - again) > most

    def turns(self, by: Vector) -> bool:
        """Say whether the one-sided derivatives along a direction differ, or nothing can be said of them."""
        (left, left_error), (right, right_error) = (self.along(by, side, NEAR[-1]) for side in (-1, 1))
        return not abs(left - right) <= left_error + right_error

    # Kinks.

    def one_sided(self, entries: Sequence[int] | np.ndarray) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """Return for which entries the derivatives of the two sides differ however near to the point, and both derivatives with errors."""
        apart, both = np.ones(len(entries), dtype=bool), []
        for shrink in NEAR:
            both = [self.by_entries(entries, side, shrink) for side in (-1, 1)]
            (left, left_error), (right, right_error) = both
            apart &= np.abs(left - right) > left_error + right_error
            if not apart.any():
                break
        return apart, both

    def sides(self, groups: Iterable[Sequence[Any]], pairs: int) -> list[Vector]:
        """Return directions from which the point is approached: of the arrays of each group at once, then random ones, each both ways."""
        one_way = []
        for group in filter(len, groups):
            by = np.zeros(self.z.size)
            for key in group:
                by[self.slices[key]] = 1.0
            one_way.append(by)
        one_way += [self.rng.standard_normal(self.z.size) for _ in range(pairs)]
        return [sign * by for by in one_way for sign in (1.0, -1.0)]

    def limit(self, derivatives: Derivatives, side: Vector, reach: float = REACH) -> tuple[np.ndarray, np.ndarray]:
        """Return what derivatives tend to as the point is approached from a side, extrapolated from two points, and their errors."""
        (far, far_error), (near, near_error) = (
            derivatives(self.z + distance * side * self.sizes, distance) for distance in (reach, reach / 2))
        return 2 * near - far, np.abs(near - far) + (far_error + near_error)
