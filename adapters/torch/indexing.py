"""PyTorch: layers that pick, drop and scatter entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import indexing as I
from torch import Tensor

Params = dict[str, Tensor]


def embedding(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.embedding(x, params["weight"], padding_idx=layer.padding_idx)


def dropout(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x * params["mask"] * (1 / (1 - layer.p) if layer.p < 1 else 0.0)


def gather(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.gather(x, layer.dim, params["index"])


def scatter_add(layer: Any, params: Params, x: Tensor) -> Tensor:
    shape = list(x.shape)
    shape[layer.dim] = layer.size
    return torch.zeros(shape, dtype=x.dtype).scatter_add(layer.dim, params["index"], x)


def index_select(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.index_select(x, layer.dim, params["index"])


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    I.Embedding: embedding, I.Dropout: dropout, I.Gather: gather, I.ScatterAdd: scatter_add, I.IndexSelect: index_select,
}
