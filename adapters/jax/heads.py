"""JAX: the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import heads as H
from jax import Array


def head(layer: Any, z: Array, target: Array) -> Array:
    if layer.loss == "bce":
        summands = -(target * jax.nn.log_sigmoid(z) + (1 - target) * jax.nn.log_sigmoid(-z))
    elif layer.loss == "cross_entropy":
        if target.ndim < z.ndim:
            target = jax.nn.one_hot(target, z.shape[-1], dtype=z.dtype)
            target = target * (1 - layer.label_smoothing) + layer.label_smoothing / z.shape[-1]
        summands = -jnp.sum(target * jax.nn.log_softmax(z), axis=-1)
    else:
        outputs = {"linear": jax.nn.identity, "sigmoid": jax.nn.sigmoid, "tanh": jax.nn.tanh, "softmax": jax.nn.softmax}
        error = outputs[layer.output](z) - target
        if layer.loss == "half_squared_error":
            summands = jnp.sum(0.5 * error**2, axis=-1)
        elif layer.loss == "huber":
            summands = jnp.where(jnp.abs(error) <= 1, 0.5 * error**2, jnp.abs(error) - 0.5)
        else:
            summands = error**2 if layer.loss == "mse" else jnp.abs(error)
    return jnp.sum(summands) if layer.reduction == "sum" else jnp.mean(summands)


HEADS: dict[type, Callable[[Any, Array, Array], Array]] = dict.fromkeys(
    (H.Head, H.MSELoss, H.BCEWithLogitsLoss, H.CrossEntropyLoss), head
)
