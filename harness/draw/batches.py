"""How many examples a call gets: the sizes that batches are drawn from, and where a batch of 1 is none."""

from __future__ import annotations

from math import prod

from backproof.reference.layer import Layer, Shape
from backproof.reference.normalization import BatchNorm, GroupNorm

__all__ = ["BATCHES", "single_entry_groups"]

BATCHES = (1, 2, 3, 4, 7, 16, 33)


def single_entry_groups(layer: Layer, shape: Shape) -> bool:
    """Say whether a batch of 1 leaves each group of a normalisation a single entry, which torch refuses."""
    if isinstance(layer, BatchNorm):
        return layer.training and prod(shape[1:]) == 1
    return isinstance(layer, GroupNorm) and prod(shape) == layer.num_groups
