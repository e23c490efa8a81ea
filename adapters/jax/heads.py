"""JAX: the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import heads as H
from backproof.reference.ctc import CTCLoss
from jax import Array


def head(layer: Any, z: Array, target: Array) -> Array:
    if layer.loss == "bce":
        summands = -(target * jax.nn.log_sigmoid(z) + (1 - target) * jax.nn.log_sigmoid(-z))
    elif layer.loss == "cross_entropy":
        summands = -jnp.sum(target * jax.nn.log_softmax(z), axis=-1)
    elif layer.loss == "kl":
        summands = jnp.sum(jax.scipy.special.xlogy(target, target) - target * jax.nn.log_softmax(z), axis=-1)
    else:
        outputs = {"linear": jnp.positive, "sigmoid": jax.nn.sigmoid, "tanh": jax.nn.tanh, "softmax": jax.nn.softmax,
                   "log_softmax": jax.nn.log_softmax}
        a = outputs[layer.output](z)
        if layer.loss == "nll":
            summands = -jnp.take_along_axis(a, target[..., None], axis=-1)[..., 0]
        elif layer.loss == "kl_div":
            summands = jax.scipy.special.xlogy(target, target) - target * a
        elif layer.loss == "cosine":
            unit, other = (v / jnp.sqrt(jnp.maximum(jnp.sum(v * v, axis=-1, keepdims=True), 1e-16)) for v in (a, target))
            summands = 1 - jnp.sum(unit * other, axis=-1)
        elif layer.loss in {"hinge", "soft_margin"}:
            summands = jnp.maximum(0, 1 - target * a) if layer.loss == "hinge" else jax.nn.softplus(-target * a)
        elif layer.loss == "half_squared_error":
            summands = jnp.sum(0.5 * (a - target) ** 2, axis=-1)
        elif layer.loss in {"huber", "smooth_l1"}:
            error = a - target
            summands = jnp.where(jnp.abs(error) <= 1, 0.5 * error**2, jnp.abs(error) - 0.5)
        else:
            summands = (a - target) ** 2 if layer.loss == "mse" else jnp.abs(a - target)
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def huber_loss(layer: Any, z: Array, target: Array) -> Array:
    size = jnp.abs(z - target)
    summands = jnp.where(size <= layer.delta, 0.5 * size**2, layer.delta * (size - 0.5 * layer.delta))
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def smooth_l1_loss(layer: Any, z: Array, target: Array) -> Array:
    size = jnp.abs(z - target)
    summands = jnp.where(size < layer.beta, 0.5 * size**2 / (layer.beta or 1), size - 0.5 * layer.beta)
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def hinge_loss(layer: Any, z: Array, target: Array) -> Array:
    summands = jnp.maximum(0, layer.margin - target * z)
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def bce_with_logits_loss(layer: Any, z: Array, target: Array) -> Array:
    pos_weight = 1 if layer.pos_weight is None else jnp.array(layer.pos_weight, z.dtype)
    summands = -(pos_weight * target * jax.nn.log_sigmoid(z) + (1 - target) * jax.nn.log_sigmoid(-z))
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def kl_div_loss(layer: Any, z: Array, target: Array) -> Array:
    summands = jnp.exp(target) * (target - z) if layer.log_target else jax.scipy.special.xlogy(target, target) - target * z
    if layer.reduction == "batchmean":
        return jnp.sum(summands) / z.shape[0]
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def nll_loss(layer: Any, z: Array, target: Array) -> Array:
    kept = target != layer.ignore_index
    weight = jnp.ones(z.shape[-1], z.dtype) if layer.weight is None else jnp.array(layer.weight, z.dtype)
    weights = jnp.where(kept, weight[jnp.where(kept, target, 0)], 0)
    summands = -weights * jnp.take_along_axis(z, jnp.where(kept, target, 0)[..., None], axis=-1)[..., 0]
    total = jnp.sum(summands) if layer.reduction == "sum" else jnp.sum(summands) / jnp.sum(weights)
    return summands if layer.reduction == "none" else total


def cross_entropy_loss(layer: Any, z: Array, target: Array) -> Array:
    kept = target != layer.ignore_index
    weight = jnp.ones(z.shape[-1], z.dtype) if layer.weight is None else jnp.array(layer.weight, z.dtype)
    one_hot = jax.nn.one_hot(target, z.shape[-1], dtype=z.dtype)
    q = weight * (one_hot * (1 - layer.label_smoothing) + layer.label_smoothing / z.shape[-1])
    summands = -jnp.sum(jnp.where(kept[..., None], q, 0) * jax.nn.log_softmax(z), axis=-1)
    weights = jnp.where(kept, weight[jnp.where(kept, target, 0)], 0)
    total = jnp.sum(summands) if layer.reduction == "sum" else jnp.sum(summands) / jnp.sum(weights)
    return summands if layer.reduction == "none" else total


def cosine_embedding_loss(layer: Any, z: Array, target: Array) -> Array:
    unit = z / jnp.sqrt(jnp.sum(z * z, axis=-1, keepdims=True) + 1e-12)  # the product of the lengths may leave the range
    c = jnp.sum(unit[:, 0] * unit[:, 1], axis=-1)
    summands = jnp.where(target > 0, 1 - c, jnp.maximum(0, c - layer.margin))
    return summands if layer.reduction == "none" else getattr(jnp, layer.reduction)(summands)


def ctc_loss(layer: Any, z: Array, target: Array) -> Array:
    log_a, labels, rows = jax.nn.log_softmax(z), jnp.sum(target >= 0, axis=1), jnp.arange(z.shape[0])
    states = jnp.full((z.shape[0], 2 * target.shape[1] + 1), layer.blank)
    states = states.at[:, 1::2].set(jnp.where(target >= 0, target, layer.blank))
    skips = (states != layer.blank) & (states != jnp.roll(states, 2, axis=1)) & (jnp.arange(states.shape[1]) >= 2)
    emitted = jnp.moveaxis(jnp.take_along_axis(log_a, states[:, None, :], axis=2), 1, 0)

    # for log 0, since of two -infinities logaddexp has no derivative
    floor = jnp.finfo(z.dtype).min / 2  # type: ignore[no-untyped-call]

    def step(alpha: Array, log_p: Array) -> tuple[Array, None]:
        one, two = (jnp.pad(alpha, ((0, 0), (by, 0)), constant_values=floor)[:, : alpha.shape[1]] for by in (1, 2))
        moved = jnp.logaddexp(jnp.logaddexp(alpha, one), jnp.where(skips, two, floor))
        return jnp.maximum(moved + log_p, floor), None

    alpha, _ = jax.lax.scan(step, jnp.where(jnp.arange(states.shape[1]) < 2, emitted[0], floor), emitted[1:])
    before = jnp.where(labels > 0, alpha[rows, jnp.maximum(2 * labels - 1, 0)], floor)
    summands = -jnp.logaddexp(alpha[rows, 2 * labels], before)
    summands = jnp.where(summands > -floor / 2, 0, summands) if layer.zero_infinity else summands
    if layer.reduction == "mean":
        return jnp.mean(summands / jnp.maximum(labels, 1))
    return summands if layer.reduction == "none" else jnp.sum(summands)


HEADS: dict[type, Callable[[Any, Array, Array], Array]] = {
    H.Head: head, H.MSELoss: head, H.L1Loss: head, H.SoftMarginLoss: head, H.HuberLoss: huber_loss, H.SmoothL1Loss: smooth_l1_loss,
    H.HingeLoss: hinge_loss, H.BCEWithLogitsLoss: bce_with_logits_loss, H.KLDivLoss: kl_div_loss, H.NLLLoss: nll_loss,
    H.CrossEntropyLoss: cross_entropy_loss, H.CosineEmbeddingLoss: cosine_embedding_loss, CTCLoss: ctc_loss,
}
