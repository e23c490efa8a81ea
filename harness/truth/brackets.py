"""The derivatives on the sides of a point, which at a kink differ and bracket what is right."""

from __future__ import annotations

import numpy as np

__all__ = ["Brackets"]


class Brackets:
    """Ranges in which the derivatives by the entries may lie; where two of an entry do not meet there is a kink."""

    def __init__(self, values: np.ndarray, errors: np.ndarray) -> None:
        self.lows, self.highs = [np.zeros((0, values.size))], [np.zeros((0, values.size))]
        self.add(np.arange(values.size), values, errors)

    def add(self, entries: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
        """Add a range of some entries; what is not finite says nothing."""
        good = np.isfinite(values) & np.isfinite(errors)
        low, high = np.full((1, self.lows[0].shape[1]), np.nan), np.full((1, self.lows[0].shape[1]), np.nan)
        low[0, entries[good]], high[0, entries[good]] = values[good] - errors[good], values[good] + errors[good]
        self.lows.append(low)
        self.highs.append(high)

    @property
    def apart(self) -> np.ndarray:
        """Whether two ranges of an entry do not meet."""
        lows, highs = np.concatenate(self.lows), np.concatenate(self.highs)
        return np.asarray(np.fmax.reduce(lows, initial=-np.inf) > np.fmin.reduce(highs, initial=np.inf))

    def at_kinks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of all ranges, NaN where all meet; infinite where one lies between two others, as several kinks meet there."""
        lows, highs = np.concatenate(self.lows), np.concatenate(self.highs)
        between = (lows > np.fmin.reduce(highs, initial=np.inf)) & (highs < np.fmax.reduce(lows, initial=-np.inf))
        several = between.any(axis=0)
        low = np.where(several, -np.inf, np.fmin.reduce(lows, initial=np.inf))
        high = np.where(several, np.inf, np.fmax.reduce(highs, initial=-np.inf))
        return np.where(self.apart, low, np.nan), np.where(self.apart, high, np.nan)
