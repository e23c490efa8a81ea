"""JAX: layers that move numbers about or bring several inputs together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from backproof.reference import wiring as W
from jax import Array

Params = dict[str, Array]


def flatten(layer: Any, params: Params, x: Array) -> Array:
    return x.reshape(x.shape[0], int(np.prod(x.shape[1:])))


def reshape(layer: Any, params: Params, x: Array) -> Array:
    return x.reshape(x.shape[0], *layer.shape)


def transpose(layer: Any, params: Params, x: Array) -> Array:
    return jnp.swapaxes(x, layer.dim0, layer.dim1)


def concatenate(layer: Any, params: Params, *xs: Array) -> Array:
    return jnp.concatenate(xs, axis=layer.dim)


def aligned(x: Array, y: Array) -> Array:
    return x.reshape(x.shape[0], *[1] * (y.ndim - x.ndim), *x.shape[1:]) if x.ndim < y.ndim else x


def add(layer: Any, params: Params, a: Array, b: Array) -> Array:
    return aligned(a, b) + aligned(b, a)


def multiply(layer: Any, params: Params, a: Array, b: Array) -> Array:
    return aligned(a, b) * aligned(b, a)


def fork(layer: Any, params: Params, x: Array) -> Any:
    return (x,) * layer.copies if layer.copies > 1 else x


LOWERINGS: dict[type, Callable[..., Any]] = {
    W.Flatten: flatten, W.Reshape: reshape, W.Transpose: transpose, W.Concatenate: concatenate, W.Add: add, W.Multiply: multiply,
    W.Fork: fork,
}
