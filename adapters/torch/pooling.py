"""PyTorch: pooling and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from backproof.reference import adaptive_pooling as A
from backproof.reference import pooling as P
from torch import Tensor

Params = dict[str, Tensor]


def max_pool1d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.max_pool1d(x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)


def max_pool2d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.max_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode)


def avg_pool1d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.avg_pool1d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)


def avg_pool2d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.avg_pool2d(x, layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)


def adaptive_avg_pool2d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, layer.output_size)


def global_avg_pool(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.adaptive_max_pool1d(x.flatten(2), 1).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


def sum_(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x.sum(dim=layer.dim, keepdim=layer.keepdim)


def mean(layer: Any, params: Params, x: Tensor) -> Tensor:
    return x.mean(dim=layer.dim, keepdim=layer.keepdim)


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    P.MaxPool1d: max_pool1d, P.MaxPool2d: max_pool2d, P.AvgPool1d: avg_pool1d, P.AvgPool2d: avg_pool2d,
    A.AdaptiveAvgPool2d: adaptive_avg_pool2d, A.GlobalAvgPool: global_avg_pool, A.GlobalMaxPool: global_max_pool,
    P.Sum: sum_, P.Mean: mean,
}
