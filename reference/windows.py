"""Windows over an array's positions, the mean of each, and the knockout that finds the largest entry of each.

`places` of shape (K, O) holds for entry k of window o its position in row-major order, -1 where the window has no entry: padding.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from backproof.reference.layer import Backward, Shape
from backproof.reference.rounding import Array, added

__all__ = ["Match", "average", "by_channel", "flat_places", "gather", "holders", "knockout", "present_first", "shares", "spread",
           "windows_of"]

Match = tuple[int, Any]
"""How many entries a round of the knockout began with, and whether the left one of each pair won."""


def flat_places(positions: list[np.ndarray], sizes: Shape) -> np.ndarray:
    """Combine the positions (k, o) of each axis, in which anything outside the axis is padding, to `places`."""
    places = np.zeros((1, 1), dtype=np.int64)
    for along, size in zip(positions, sizes, strict=True):
        inside = (places >= 0)[:, None, :, None] & ((along >= 0) & (along < size))[None, :, None, :]
        joined = np.where(inside, places[:, None, :, None] * size + along[None, :, None, :], -1)
        places = joined.reshape((places.shape[0] * along.shape[0], places.shape[1] * along.shape[1]))
    return places


def present_first(places: np.ndarray) -> np.ndarray:
    """Move each window's padding behind its entries."""
    return np.take_along_axis(places, np.argsort(places < 0, axis=0, kind="stable"), axis=0)


def holders(places: np.ndarray, positions: int) -> np.ndarray:
    """Return the transpose of `places`: for each position the slots k O + o that hold it, -1 where there are fewer than most have."""
    flat = places.ravel()
    slots = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
    counts = np.bincount(flat[slots], minlength=positions)
    rank = np.arange(slots.size) - (np.cumsum(counts) - counts)[flat[slots]]
    held = np.full((int(np.max(counts, initial=0)), positions), -1, dtype=np.int64)
    held[rank, flat[slots]] = slots
    return held


@lru_cache(maxsize=256)
def windows_of(layer: Any, sizes: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a layer's windows, padding last, and who holds each position; networks ask for them again and again."""
    places = present_first(flat_places(layer.positions(sizes), sizes))
    held = holders(places, math.prod(sizes))
    for array in (places, held):
        array.setflags(write=False)
    return places, held


def gather(x: Array, places: np.ndarray) -> Array:
    """Return the windows (batch, channels, K, O) of x (batch, channels, ...), with 0 for padding."""
    windows = x.reshape((*x.shape[:2], math.prod(x.shape[2:])))[:, :, places]
    present = places >= 0
    return windows if present.all() else np.where(present, windows, 0)


def spread(windows: Array, held: np.ndarray) -> Array:
    """Return for each position the sum of what the slots that hold it contain: the transpose of `gather`.

    Implementations add window after window to what is stored, so every partial sum is rounded to the stored format.
    """
    terms = gather(windows, held)
    return added([terms[:, :, term] for term in range(held.shape[0])])


def average(x: Array, places: np.ndarray, held: np.ndarray, divisors: np.ndarray, shape: Shape) -> tuple[Array, Backward]:
    """Return the sum of each window over its divisor, in an output's shape."""
    # dy_nco / d_o is the same for all entries of window o, so the slot k O + o is not needed, but only o
    windows = np.where(held >= 0, held % divisors.size, -1)

    def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
        return spread(dy.reshape((*x.shape[:2], divisors.size)) / divisors, windows).reshape(x.shape), {}

    return (np.sum(gather(x, places), axis=2) / divisors).reshape((x.shape[0], *shape)), backward


def knockout(x: Array, present: np.ndarray) -> tuple[Array, list[Match]]:
    """Return the largest of the entries that are present along axis 2 (of K, O), and who won, round by round.

    Neighbours meet; of equal ones the left one wins, so the first of all equal ones does. No entry is compared with itself: on
    rounded arrays a match is open at a true tie and where rounding leaves the winner open, and a winner that is sure stays exact.
    Those that are not present stand last.
    """
    matches: list[Match] = []
    while (count := x.shape[2]) > 1:
        if count % 2:  # the last one has no opponent
            x = np.concatenate([x, x[:, :, -1:]], axis=2)
            present = np.concatenate([present, np.zeros_like(present[-1:])])
        left, right, opposed = x[:, :, ::2], x[:, :, 1::2], present[1::2]
        matches.append((count, ~opposed | (left >= right)))
        x = np.where(opposed, np.maximum(left, right), left)
        present = present[::2]
    return x[:, :, 0], matches


def shares(dy: Array, matches: list[Match]) -> Array:
    """Return what each entry receives of dy (batch, channels, O): all of it goes to the winner, round by round."""
    batch, channels, windows = dy.shape
    share = dy.reshape((batch, channels, 1, windows))
    for count, left in reversed(matches):
        pairs = np.stack([np.where(left, share, 0), np.where(left, 0, share)], axis=3)
        share = pairs.reshape((batch, channels, 2 * share.shape[2], windows))[:, :, :count]
    return share


def by_channel(dx: Array, dy: Array) -> tuple[Array, Array]:
    """Return dx and dy in rows of one example's channel: the shares of dy_nco sum to dy_nco, so sum_i dx_nci = sum_o dy_nco."""
    return tuple(a.reshape((a.shape[0] * a.shape[1], math.prod(a.shape[2:]))) for a in (dx, dy))
