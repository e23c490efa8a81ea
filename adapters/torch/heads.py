"""PyTorch: the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import heads as H
from backproof.reference.ctc import CTCLoss
from torch import Tensor


def head(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    if layer.loss == "bce":
        return F.binary_cross_entropy_with_logits(z, target, reduction=layer.reduction)
    if layer.loss == "cross_entropy":
        loss = F.cross_entropy(z.reshape(-1, z.shape[-1]), target.reshape(-1, z.shape[-1]), reduction=layer.reduction)
        return loss.reshape(z.shape[:-1]) if layer.reduction == "none" else loss
    outputs: dict[str, Callable[[Tensor], Tensor]] = {"linear": torch.nn.Identity(), "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    if layer.loss == "kl":
        summands = F.kl_div(F.log_softmax(z, -1), target, reduction="none").sum(-1)
        return summands if layer.reduction == "none" else getattr(torch, layer.reduction)(summands)
    a = {"softmax": F.softmax, "log_softmax": F.log_softmax}[layer.output](z, -1) if "softmax" in layer.output else outputs[layer.output](z)
    if layer.loss == "nll":
        # of a permuted image the backward raises "grad_input must be contiguous" (pytorch issue 175084)
        return F.nll_loss(a.movedim(-1, 1).contiguous(), target, reduction=layer.reduction)
    if layer.loss in {"half_squared_error", "cosine", "hinge"}:
        if layer.loss == "half_squared_error":
            summands = (0.5 * F.mse_loss(a, target, reduction="none")).sum(-1)
        else:
            summands = 1 - F.cosine_similarity(a, target, dim=-1) if layer.loss == "cosine" else F.relu(1 - target * a)
        return summands if layer.reduction == "none" else getattr(torch, layer.reduction)(summands)
    losses: dict[str, Any] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss, "smooth_l1": F.smooth_l1_loss,
                              "soft_margin": F.soft_margin_loss, "kl_div": F.kl_div}
    warned_of = (layer.loss, layer.reduction) == ("kl_div", "mean")  # every time, as not the mathematical one
    return F.kl_div(a, target, reduction="none").mean() if warned_of else losses[layer.loss](a, target, reduction=layer.reduction)


def huber_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    return F.huber_loss(z, target, reduction=layer.reduction, delta=layer.delta)


def smooth_l1_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(z, target, reduction=layer.reduction, beta=layer.beta)


def hinge_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    summands = F.relu(layer.margin - target * z)
    return summands if layer.reduction == "none" else getattr(torch, layer.reduction)(summands)


def bce_with_logits_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    pos_weight = None if layer.pos_weight is None else torch.tensor(layer.pos_weight, dtype=z.dtype, device=z.device)
    return F.binary_cross_entropy_with_logits(z, target, reduction=layer.reduction, pos_weight=pos_weight)


def kl_div_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    if layer.reduction == "mean":  # which torch warns of every time, as not the mathematical one
        return F.kl_div(z, target, reduction="none", log_target=layer.log_target).mean()
    return F.kl_div(z, target, reduction=layer.reduction, log_target=layer.log_target)


def nll_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    weight = None if layer.weight is None else torch.tensor(layer.weight, dtype=z.dtype, device=z.device)
    return F.nll_loss(z.movedim(-1, 1).contiguous(), target, weight, ignore_index=layer.ignore_index, reduction=layer.reduction)


def cross_entropy_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    weight = None if layer.weight is None else torch.tensor(layer.weight, dtype=z.dtype, device=z.device)
    return F.cross_entropy(z.movedim(-1, 1), target, weight, ignore_index=layer.ignore_index, reduction=layer.reduction,
                           label_smoothing=layer.label_smoothing)


def cosine_embedding_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    return F.cosine_embedding_loss(z[:, 0], z[:, 1], target, margin=layer.margin, reduction=layer.reduction)


def ctc_loss(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    # there is no kernel for half precision: as autocast does, the loss runs in float32
    log_a = F.log_softmax(z.to(torch.promote_types(z.dtype, torch.float32)), -1).transpose(0, 1)
    frames, labels = torch.full((z.shape[0],), z.shape[1]), (target >= 0).sum(1)
    loss = F.ctc_loss(log_a, target.clamp(min=0), frames, labels, layer.blank, layer.reduction, layer.zero_infinity)
    return loss.to(z.dtype)


HEADS: dict[type, Callable[[Any, Tensor, Tensor], Tensor]] = {
    H.Head: head, H.MSELoss: head, H.L1Loss: head, H.SoftMarginLoss: head, H.HuberLoss: huber_loss, H.SmoothL1Loss: smooth_l1_loss,
    H.HingeLoss: hinge_loss, H.BCEWithLogitsLoss: bce_with_logits_loss, H.KLDivLoss: kl_div_loss, H.NLLLoss: nll_loss,
    H.CrossEntropyLoss: cross_entropy_loss, H.CosineEmbeddingLoss: cosine_embedding_loss, CTCLoss: ctc_loss,
}
