"""PyTorch: the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import heads as H
from torch import Tensor


def head(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    if layer.loss == "bce":
        return F.binary_cross_entropy_with_logits(z, target, reduction=layer.reduction)
    if layer.loss == "cross_entropy":
        target = target.reshape(-1) if target.ndim < z.ndim else target.reshape(-1, z.shape[-1])
        smoothing = getattr(layer, "label_smoothing", 0.0)
        return F.cross_entropy(z.reshape(-1, z.shape[-1]), target, reduction=layer.reduction, label_smoothing=smoothing)
    outputs: dict[str, Callable[[Tensor], Tensor]] = {"linear": torch.nn.Identity(), "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    a = F.softmax(z, -1) if layer.output == "softmax" else outputs[layer.output](z)
    if layer.loss == "half_squared_error":
        return 0.5 * F.mse_loss(a, target, reduction="sum") / (1 if layer.reduction == "sum" else z[..., 0].numel())
    losses: dict[str, Any] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
    return losses[layer.loss](a, target, reduction=layer.reduction)


HEADS: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = dict.fromkeys(
    (H.Head, H.MSELoss, H.BCEWithLogitsLoss, H.CrossEntropyLoss), head
)
