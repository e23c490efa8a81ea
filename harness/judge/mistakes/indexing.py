"""Mistakes in picking, dropping and scattering: what is repeated, masked or padded is where they hide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, faulty
from backproof.reference.indexing import Dropout, Embedding, Gather, IndexSelect, ScatterAdd
from backproof.reference.layer import Backward, Params
from backproof.reference.reductions import axis_of
from backproof.reference.rounding import Array

__all__ = ["MISTAKES"]


def _last_of_each(index: Any) -> Any:
    """Return which places of a flat index hold the last occurrence of their value."""
    return np.array([value not in index[place + 1 :] for place, value in enumerate(index)], dtype=bool)


def _last_along(index: Any, axis: int) -> Any:
    """Return which places of an index hold the last occurrence of their value along an axis."""
    return np.apply_along_axis(_last_of_each, axis, index) if index.size else np.zeros(index.shape, dtype=bool)


def _embedding_overwritten(layer: Embedding, params: Params, x: Any) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    last = _last_of_each(x.ravel()).reshape(x.shape)[..., None]
    return y, lambda dy: right(np.where(last, dy, 0))


def _embedding_first_lost(layer: Embedding, params: Params, x: Any) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    first = _last_of_each(x.ravel()[::-1])[::-1].reshape(x.shape)[..., None]
    repeated = np.isin(x, [v for v in np.unique(x) if np.count_nonzero(x == v) > 1])[..., None]
    return y, lambda dy: right(np.where(first & repeated, 0, dy))


def _padding_trained(layer: Embedding, params: Params, x: Any) -> tuple[Array, Backward]:
    return replace(layer, padding_idx=None).forward(params, x)


def _padding_first(layer: Embedding, params: Params, x: Any) -> tuple[Array, Backward]:
    return replace(layer, padding_idx=0).forward(params, x)


def _embedding_mean(layer: Embedding, params: Params, x: Any) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    count = np.array([np.count_nonzero(x == v) for v in x.ravel()]).reshape(x.shape)[..., None]
    return y, lambda dy: right(dy / np.maximum(count, 1).astype(float))


def _without_scale(layer: Dropout, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (dy * params["mask"], {})


def _without_mask(layer: Dropout, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (dy / (1 - layer.p) if layer.p < 1 else dy, {})


def _scaled_twice(layer: Dropout, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    return y, lambda dy: right(right(dy)[0])


def _scaled_by_p(layer: Dropout, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (dy * params["mask"] / layer.p if layer.p > 0 else dy, {})


def _mask_inverted(layer: Dropout, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    _, right = layer.forward({"mask": 1 - params["mask"]}, x)
    return y, right


def _gather_put(layer: Gather | IndexSelect, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    if isinstance(layer, Gather):
        last = _last_along(params["index"], layer.dim)
    else:
        axis = axis_of(layer, x.shape[1:])
        last = _last_of_each(params["index"]).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return y, lambda dy: right(np.where(last, dy, 0))


def _gather_in_order(layer: Gather | IndexSelect, params: Params, x: Array) -> tuple[Array, Backward]:
    """Sort the index before the gradients are added, as if the sorting did not move them."""
    y, _ = layer.forward(params, x)
    axis = layer.dim if isinstance(layer, Gather) else 0
    _, wrong = layer.forward({"index": np.sort(params["index"], axis=axis)}, x)
    return y, wrong


def _gather_first_index(layer: Gather, params: Params, x: Array) -> tuple[Array, Backward]:
    """Use the first example's index for all."""
    y, _ = layer.forward(params, x)
    index = params["index"]
    _, wrong = layer.forward({"index": np.broadcast_to(index[:1], index.shape)}, x)
    return y, wrong


def _index_shifted(layer: Gather | IndexSelect | ScatterAdd, params: Params, x: Array) -> tuple[Array, Backward]:
    """Count the index from 1, the last place coming round to the first."""
    y, _ = layer.forward(params, x)
    below = layer.size if isinstance(layer, ScatterAdd) else x.shape[axis_of(layer, x.shape[1:])]
    _, wrong = layer.forward({"index": (params["index"] + 1) % below}, x)
    return y, wrong


def _scatter_put(layer: ScatterAdd, params: Params, x: Array) -> tuple[Array, Backward]:
    _, right = layer.forward(params, x)
    y, _ = layer.forward(params, np.where(_last_along(params["index"], layer.dim), x, 0))
    return y, right


def _scatter_last_only(layer: ScatterAdd, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    last = _last_along(params["index"], layer.dim)
    return y, lambda dy: (np.where(last, right(dy)[0], 0), {})


MISTAKES: tuple[Mistake, ...] = (
    faulty("embedding-overwritten", "{tensor} holds the last occurrence of each row only: repeated indices overwrite instead of adding up",
           Embedding, ("dweight",), _embedding_overwritten),
    faulty("embedding-first-lost", "{tensor} lacks the first occurrence of each repeated row",
           Embedding, ("dweight",), _embedding_first_lost),
    faulty("embedding-padding-trained", "{tensor} trains the padding row, whose gradient is 0",
           Embedding, ("dweight",), _padding_trained),
    faulty("embedding-padding-zero", "{tensor} takes row 0 for the padding row",
           Embedding, ("dweight",), _padding_first),
    faulty("embedding-mean", "{tensor} is divided by how often each row occurs: a mean over the occurrences in place of their sum",
           Embedding, ("dweight",), _embedding_mean),
    faulty("dropout-scale-missing", "{tensor} lacks the scale 1 / (1 - p)", Dropout, ("dx",), _without_scale),
    faulty("dropout-mask-missing", "{tensor} lets the dropped entries through: the mask is missing", Dropout, ("dx",), _without_mask),
    faulty("dropout-twice", "{tensor} has the mask and its scale twice", Dropout, ("dx",), _scaled_twice),
    faulty("dropout-scaled-by-p", "{tensor} is divided by p in place of 1 - p", Dropout, ("dx",), _scaled_by_p),
    faulty("dropout-mask-inverted", "{tensor} keeps what was dropped and drops what was kept", Dropout, ("dx",), _mask_inverted),
    faulty("gather-overwritten", "{tensor} holds the last occurrence of each index only: repeated indices overwrite instead of adding up",
           (Gather, IndexSelect), ("dx",), _gather_put),
    faulty("gather-index-sorted", "{tensor} is added up by the sorted index", (Gather, IndexSelect), ("dx",), _gather_in_order),
    faulty("gather-first-index", "{tensor} uses the first example's index for every example", Gather, ("dx",), _gather_first_index),
    faulty("gather-index-shifted", "{tensor} has its index off by one", (Gather, IndexSelect), ("dx",), _index_shifted),
    faulty("scatter-overwritten", "{tensor} holds the last entry of each place only: repeated indices overwrite instead of adding up",
           ScatterAdd, ("output",), _scatter_put),
    faulty("scatter-last-only", "{tensor} reaches the last entry of each place only, but all of them were added there",
           ScatterAdd, ("dx",), _scatter_last_only),
    faulty("scatter-index-shifted", "{tensor} has its index off by one", ScatterAdd, ("dx",), _index_shifted),
)
