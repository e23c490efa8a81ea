"""Directions along which gradients are compared, and indices of the entries that are looked at one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from backproof.proof.setting import Setting

__all__ = ["Index", "by_place", "index_of", "mixing", "some_indices", "unit_at"]

Index = tuple[int, ...]


def by_place(setting: Setting, tensors: Iterable[tuple[str, int | str]], directions: Mapping[str, Any]) -> dict[int | str, Any]:
    """Return the directions by place, without the entries that the layer holds fixed."""
    return {place: directions[tensor] * setting.free(tensor, directions[tensor].shape) for tensor, place in tensors}


def some_indices(shape: Index, seed: int, count: int) -> list[Index]:
    """Return every index of an array, or as many as `count` of them."""
    size = int(np.prod(shape))
    flat = range(size) if size <= count else np.random.default_rng(seed).choice(size, count, replace=False)
    return [index_of(k, shape) for k in flat]


def index_of(flat: Any, shape: Index) -> Index:
    """Return the index of the entry of that number."""
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def unit_at(shape: Index, index: Index) -> np.ndarray:
    """Return the direction of one entry."""
    unit = np.zeros(shape, dtype=int).astype(object)
    unit[index] = 1
    return unit


def mixing(shape: Index, seed: int) -> np.ndarray:
    """Return random numbers of 20 bits, exact as floats and as fractions."""
    numbers = np.random.default_rng(seed).integers(1, 2**20, size=shape)
    return np.asarray(np.asarray(numbers, dtype=object) * Fraction(1, 2**19), dtype=object)
