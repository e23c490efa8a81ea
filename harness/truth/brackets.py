"""Ranges in which the derivatives on the sides of a point lie; at a kink they differ, and every number between them is right."""

from __future__ import annotations

import numpy as np

__all__ = ["Brackets"]


class Brackets:
    """Ranges of the derivatives by some entries, one for each side from which the point was approached.

    Where two ranges of an entry do not meet, the function has a kink along that entry.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lows, self._highs = [np.zeros((0, size))], [np.zeros((0, size))]

    def add(self, entries: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
        """Add the ranges from value - error to value + error of some entries; a range that is not finite is left out."""
        good = np.isfinite(values) & np.isfinite(errors)
        low, high = np.full((1, self.size), np.nan), np.full((1, self.size), np.nan)
        low[0, entries[good]], high[0, entries[good]] = values[good] - errors[good], values[good] + errors[good]
        self._lows.append(low)
        self._highs.append(high)

    @property
    def apart(self) -> np.ndarray:
        """Whether two ranges of an entry do not meet."""
        largest_low = np.fmax.reduce(np.concatenate(self._lows), initial=-np.inf)
        return np.asarray(largest_low > np.fmin.reduce(np.concatenate(self._highs), initial=np.inf))

    @property
    def hull(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the upper end of all ranges of an entry together."""
        return (np.fmin.reduce(np.concatenate(self._lows), initial=np.inf), np.fmax.reduce(np.concatenate(self._highs), initial=-np.inf))

    def at_kinks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the hull, NaN where all ranges meet; infinite where one lies between two others, as several kinks meet there."""
        lows, highs, (low, high) = np.concatenate(self._lows), np.concatenate(self._highs), self.hull
        between = (lows > np.fmin.reduce(highs, initial=np.inf)) & (highs < np.fmax.reduce(lows, initial=-np.inf))
        several = between.any(axis=0)
        return (np.where(self.apart, np.where(several, -np.inf, low), np.nan),
                np.where(self.apart, np.where(several, np.inf, high), np.nan))
