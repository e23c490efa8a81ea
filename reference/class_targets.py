"""Targets that are class indices: their rows, weighted by class, and the number that a mean over them divides by."""

from __future__ import annotations

from typing import Any

import numpy as np
from backproof.reference.head import Head
from backproof.reference.layer import Shape, ShapeError
from backproof.reference.rounding import Array

__all__ = ["ClassTargets"]


class ClassTargets(Head):
    """What heads of class indices share: `weight`, one for each class or None, and `ignore_index`, the target that does not count."""

    weight: tuple[float, ...] | None
    ignore_index: int

    def target_kind(self) -> str:
        return "classes"

    def check_shape(self, shape: Shape) -> None:
        super().check_shape(shape)
        if self.weight is not None and len(self.weight) != shape[-1]:
            raise ShapeError(self, shape, f"{len(self.weight)} classes, one for each weight")

    def _kept(self, target: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return which targets count, and the targets with class 0 for the others."""
        target = np.asarray(target)
        keep = target != self.ignore_index
        return keep, np.where(keep, target, 0) if target.dtype.kind in "iu" else target

    def rows(self, z: Array, target: Array) -> Array:
        """Return w_y onehot(y), and a row of zeros for an ignored target."""
        keep, target = self._kept(target)
        rows = self._smoothed(z, self._one_hot(target, z.shape)) * keep[..., None]
        if self.weight is None:
            return rows
        self.check_shape(z.shape[1:])
        return rows * np.array(self.weight)

    def _smoothed(self, z: Array, one_hot: Array) -> Array:
        return one_hot

    def _count(self, z: Array, target: Array) -> Any:
        """Return the sum of the targets' weights, in z's arithmetic since it rounds; their number where there are no weights."""
        keep, target = self._kept(target)
        weights = keep if self.weight is None else np.array(self.weight)[target] * keep
        if not weights.any():
            raise self._error("every target is ignored or of weight 0: the mean over none is not defined. Do: reduction='sum'")
        return int(np.count_nonzero(keep)) if self.weight is None else np.sum(z[..., 0] * 0 + weights)
