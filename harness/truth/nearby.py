"""The derivatives beside a point, of which every number between two is right at a kink.

A direction at random, both ways, leaves no kink between two pieces on one side. Where several kinks meet, as in a median of three equal
numbers, the derivatives on both sides of the point may well be the same, and those beside it are others: they are looked at from many
sides. Where the derivative is one of the differences, the points beside are further off and the steps shorter than their distance.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from backproof.truth.brackets import Brackets
from backproof.truth.differences import NEAR
from backproof.truth.scalar_function import REACH, ScalarFunction, Truth

__all__ = ["Nearby"]

FIRST, PAIRS = 3, 12  # random directions that look for a kink, and those, each both ways, from which one is approached


class Nearby:
    """What is beside a point of a function at which its truth is known; `derive` is its method, None where it is differences."""

    def __init__(self, function: ScalarFunction, truth: Truth, derive: Callable[[np.ndarray, np.ndarray], np.ndarray] | None) -> None:
        self.function, self.truth, self.derive = function, truth, derive
        self.every = np.arange(function.z.size)
        self.ranges = Brackets(function.z.size)

    def kinks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest of the derivatives beside the point, NaN for entries at which they do not differ.

        Where there is a third derivative between two others, several kinks meet, and not every limit is looked at: such an entry is left
        open, between infinite ends. So is an entry that equals one of the same array at a kink: it is at the same kink, though no
        side may have shown it.
        """
        function, ranges = self.function, self.ranges
        ranges.add(self.every, self.truth.values, self.truth.errors)
        if self.derive is None:
            if not self._bent():
                return ranges.at_kinks()
            self._one_sided()
        for side in function.sides((), 1 if self.derive is not None else FIRST):
            self._approach(side, self.every)
        if not ranges.apart.any():
            return ranges.at_kinks()
        if self.derive is not None:
            for entry in range(len(self.every)):
                for sign in (1.0, -1.0):
                    self._approach(sign * function.unit(entry), self.every[entry : entry + 1])
        for side in function.sides([tuple(function.slices), *((key,) for key in function.slices)], PAIRS):
            self._approach(side, self.every)
        return self._with_equals(*ranges.at_kinks())

    def _bent(self) -> bool:
        """Say whether the function, beside the point, is no linear one with the derivatives that differences gave, or turns there."""
        function, known = self.function, np.isfinite(self.truth.errors)
        for _ in range(FIRST):
            by = np.where(known, function.direction(*function.slices) * function.sizes, 0.0)
            slope, error = function.along(by, shrink=NEAR[0])
            errors = error + float(np.abs(by[known]) @ self.truth.errors[known])
            if not abs(slope - float(by[known] @ self.truth.values[known])) <= errors or function.turns(by):
                return True
        return False

    def _one_sided(self) -> None:
        """Add the derivatives of the two sides of the point, where these differ."""
        apart, both = self.function.one_sided(self.every)
        for values, errors in both:
            self.ranges.add(self.every[apart], values[apart], errors[apart])

    def _approach(self, side: np.ndarray, entries: np.ndarray) -> None:
        """Add what the derivatives tend to from one side."""
        function, reach = self.function, REACH if self.derive is not None else NEAR[0]

        def derivatives(z: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
            if self.derive is None:
                return function.by_entries(entries, shrink=distance / 4, point=z, refined=2)
            return self.derive(z, entries), self.truth.errors[entries]

        with suppress(Exception):  # beside a point the forward may not be defined
            self.ranges.add(entries, *function.limit(derivatives, side, reach))

    def _with_equals(self, low: np.ndarray, high: np.ndarray) -> tuple[Any, Any]:
        z, at_kink = self.function.z, ~np.isnan(low)
        equal = np.zeros(z.size, dtype=bool)
        for place in self.function.slices.values():
            equal[place] = np.isin(z[place], z[place][at_kink[place]])
        equal &= ~at_kink
        return np.where(equal, -np.inf, low), np.where(equal, np.inf, high)
