"""PyTorch: layers that move numbers about or bring several inputs together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from backproof.reference import wiring as W
from torch import Tensor

Params = dict[str, Tensor]


def flatten(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.flatten(x, 1) if x.ndim > 1 else x.reshape(-1, 1)


def reshape(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *layer.shape)


def transpose(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x.transpose(layer.dim0, layer.dim1)


def concatenate(layer: Any, params: Params, *xs: Tensor) -> Tensor:
    return torch.cat(xs, dim=layer.dim)


def aligned(x: Tensor, y: Tensor) -> Tensor:
    return x.reshape(x.shape[0], *[1] * (y.ndim - x.ndim), *x.shape[1:]) if x.ndim < y.ndim else x


def add(layer: Any, params: Params, a: Tensor, b: Tensor) -> Tensor:
    return aligned(a, b) + aligned(b, a)


def multiply(layer: Any, params: Params, a: Tensor, b: Tensor) -> Tensor:
    return aligned(a, b) * aligned(b, a)


def fork(layer: Any, params: Params, x: Tensor) -> Any:
    return tuple(x.view_as(x) for _ in range(layer.copies)) if layer.copies > 1 else x.view_as(x)


LOWERINGS: dict[type, Callable[..., Any]] = {
    W.Flatten: flatten, W.Reshape: reshape, W.Transpose: transpose, W.Concatenate: concatenate, W.Add: add, W.Multiply: multiply,
    W.Fork: fork,
}
