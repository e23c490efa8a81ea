"""JAX: the normalisations, with statistics in at least float32 as flax takes them, in two passes whatever `standardize` does by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import normalization as N
from jax import Array

Params = dict[str, Array]


def batch_norm(layer: Any, params: Params, x: Array) -> Array:
    axes, along = (0, *range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axes, keepdims=True) if layer.training else params["running_mean"].reshape(along)
    variance = jnp.var(wide, axes, keepdims=True) if layer.training else params["running_var"].reshape(along)
    y = jax.nn.standardize(wide, axes, mean, variance, layer.eps)
    y = y * params["weight"].reshape(along) + params["bias"].reshape(along) if layer.affine else y
    return y.astype(x.dtype)


def layer_norm(layer: Any, params: Params, x: Array) -> Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(-layer.axes, 0))
    y = jax.nn.standardize(wide, axes, jnp.mean(wide, axes, keepdims=True), jnp.var(wide, axes, keepdims=True), layer.eps)
    y = y * params["weight"] if "weight" in params else y
    y = y + params["bias"] if "bias" in params else y
    return y.astype(x.dtype)


def rms_norm(layer: Any, params: Params, x: Array) -> Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    y = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + layer.eps)
    y = y * params["weight"] if "weight" in params else y
    return y.astype(x.dtype)


def group_norm(layer: Any, params: Params, x: Array) -> Array:
    along = (-1, *[1] * (x.ndim - 2))
    groups = x.reshape(x.shape[0], layer.num_groups, x.shape[1] // layer.num_groups, *x.shape[2:])
    wide = groups.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(2, wide.ndim))
    y = jax.nn.standardize(wide, axes, jnp.mean(wide, axes, keepdims=True), jnp.var(wide, axes, keepdims=True), layer.eps).reshape(x.shape)
    y = y * params["weight"].reshape(along) + params["bias"].reshape(along) if layer.affine else y
    return y.astype(x.dtype)


def instance_norm(layer: Any, params: Params, x: Array) -> Array:
    along = (-1, *[1] * (x.ndim - 2))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(2, x.ndim))
    y = jax.nn.standardize(wide, axes, jnp.mean(wide, axes, keepdims=True), jnp.var(wide, axes, keepdims=True), layer.eps)
    y = y * params["weight"].reshape(along) + params["bias"].reshape(along) if layer.affine else y
    return y.astype(x.dtype)


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    N.BatchNorm: batch_norm, N.LayerNorm: layer_norm, N.RMSNorm: rms_norm, N.GroupNorm: group_norm, N.InstanceNorm: instance_norm,
}
