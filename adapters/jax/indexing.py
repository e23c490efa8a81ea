"""JAX: layers that pick, drop and scatter entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import indexing as I
from jax import Array

Params = dict[str, Array]


def embedding(layer: Any, params: Params, x: Array) -> Array:
    weight = params["weight"]
    if layer.padding_idx is not None:
        weight = weight.at[layer.padding_idx].set(jax.lax.stop_gradient(weight[layer.padding_idx]))
    return jnp.take(weight, x, axis=0)


def dropout(layer: Any, params: Params, x: Array) -> Array:
    return jnp.where(params["mask"] > 0, x / (1 - layer.p), 0) if layer.p < 1 else jnp.zeros_like(x)


def gather(layer: Any, params: Params, x: Array) -> Array:
    return jnp.take_along_axis(x, params["index"], axis=layer.dim)


def scatter_add(layer: Any, params: Params, x: Array) -> Array:
    shape = list(x.shape)
    shape[layer.dim] = layer.size
    places = list(jnp.indices(x.shape, sparse=True))
    places[layer.dim] = params["index"]
    return jnp.zeros(shape, x.dtype).at[tuple(places)].add(x)


def index_select(layer: Any, params: Params, x: Array) -> Array:
    return jnp.take(x, params["index"], axis=layer.dim)


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    I.Embedding: embedding, I.Dropout: dropout, I.Gather: gather, I.ScatterAdd: scatter_add, I.IndexSelect: index_select,
}
