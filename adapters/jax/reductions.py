"""JAX: sums, products and norms along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import reductions as R
from jax import Array

Params = dict[str, Array]


def cum_sum(layer: Any, params: Params, x: Array) -> Array:
    return jnp.cumsum(x, axis=layer.dim)


def cum_prod(layer: Any, params: Params, x: Array) -> Array:
    return jnp.cumprod(x, axis=layer.dim)


def prod(layer: Any, params: Params, x: Array) -> Array:
    return jnp.prod(x, axis=layer.dim)


def log_sum_exp(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.logsumexp(x, axis=layer.dim)


def normalize(layer: Any, params: Params, x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=layer.dim, keepdims=True), layer.eps)


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    R.CumSum: cum_sum, R.CumProd: cum_prod, R.Prod: prod, R.LogSumExp: log_sum_exp, R.Normalize: normalize,
}
