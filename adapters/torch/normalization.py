"""PyTorch: the normalisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from backproof.reference import normalization as N
from torch import Tensor

Params = dict[str, Tensor]


def batch_norm(layer: Any, params: Params, x: Tensor) -> Tensor:
    running = params.get("running_mean"), params.get("running_var")
    return F.batch_norm(x, *running, params.get("weight"), params.get("bias"), training=layer.training, eps=layer.eps)


def layer_norm(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[x.ndim - layer.axes :], params.get("weight"), params.get("bias"), layer.eps)


def rms_norm(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], params.get("weight"), layer.eps)


def group_norm(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.group_norm(x, layer.num_groups, params.get("weight"), params.get("bias"), layer.eps)


def instance_norm(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.instance_norm(x, weight=params.get("weight"), bias=params.get("bias"), eps=layer.eps)


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    N.BatchNorm: batch_norm, N.LayerNorm: layer_norm, N.RMSNorm: rms_norm, N.GroupNorm: group_norm, N.InstanceNorm: instance_norm,
}
