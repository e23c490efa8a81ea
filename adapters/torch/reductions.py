"""PyTorch: sums, products and norms along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import reductions as R
from torch import Tensor

Params = dict[str, Tensor]


def cum_sum(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.cumsum(x, dim=layer.dim)


def cum_prod(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.cumprod(x, dim=layer.dim)


def prod(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.prod(x, dim=layer.dim)


def log_sum_exp(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.logsumexp(x, dim=layer.dim)


def normalize(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.normalize(x, dim=layer.dim, eps=layer.eps)


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    R.CumSum: cum_sum, R.CumProd: cum_prod, R.Prod: prod, R.LogSumExp: log_sum_exp, R.Normalize: normalize,
}
