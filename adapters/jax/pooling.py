"""JAX: pooling and reductions. In ceil mode the last window's missing entries are more padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import adaptive_pooling as A
from backproof.reference import pooling as P
from jax import Array

Params = dict[str, Array]


def max_pool(layer: Any, params: Params, x: Array) -> Array:
    options = (layer.kernel_size, layer.kernel_size if layer.stride is None else layer.stride, layer.padding, layer.dilation)
    axes, pads = list(zip(*(o if isinstance(o, tuple) else (o,) * (x.ndim - 2) for o in options), strict=True)), []
    for size, (k, s, p, d) in zip(x.shape[2:], axes, strict=True):
        room = size + 2 * p - d * (k - 1) - 1
        reaches_out = layer.ceil_mode and (room // s + 1) * s < size + p
        pads.append((p, p + (-room % s if reaches_out else 0)))
    window, strides, _, dilation = ((1, 1, *option) for option in zip(*axes, strict=True))
    if set(dilation) == {1}:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, ((0, 0), (0, 0), *pads))
    y = jnp.pad(x, ((0, 0), (0, 0), *pads), constant_values=-jnp.inf)  # reduce_window has no gradient where it is dilated
    for axis, (k, s, _, d) in enumerate(axes, 2):
        count = (y.shape[axis] - d * (k - 1) - 1) // s + 1
        y = y.take(jnp.arange(count) * s + jnp.arange(k)[:, None] * d, axis=axis).max(axis=axis)
    return y


def avg_pool(layer: Any, params: Params, x: Array) -> Array:
    options = (layer.kernel_size, layer.kernel_size if layer.stride is None else layer.stride, layer.padding)
    axes, pads, count_pads = list(zip(*(o if isinstance(o, tuple) else (o,) * (x.ndim - 2) for o in options), strict=True)), [], []
    for size, (k, s, p) in zip(x.shape[2:], axes, strict=True):
        reaches_out = layer.ceil_mode and ((size + 2 * p - k) // s + 1) * s < size + p
        extra = -(size + 2 * p - k) % s if reaches_out else 0
        pads.append((p, p + extra))
        count_pads.append((0, extra) if layer.count_include_pad else (p, p + extra))
    window, strides, padding = ((1, 1, *option) for option in zip(*axes, strict=True))
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, strides, ((0, 0), (0, 0), *pads))
    counted = [n + 2 * p if layer.count_include_pad else n for n, p in zip(x.shape[2:], padding[2:], strict=True)]
    ones = jnp.ones((1, 1, *counted), x.dtype)
    return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, window, strides, ((0, 0), (0, 0), *count_pads))


def adaptive_avg_pool2d(layer: Any, params: Params, x: Array) -> Array:
    wanted = layer.output_size if isinstance(layer.output_size, tuple) else (layer.output_size,) * 2
    rows, columns = ([(o * size // (out or size), -(-(o + 1) * size // (out or size))) for o in range(out or size)]
                     for size, out in zip(x.shape[2:], wanted, strict=True))
    means = [[x[:, :, top:bottom, left:right].mean(axis=(2, 3)) for left, right in columns] for top, bottom in rows]
    return jnp.stack([jnp.stack(row, axis=-1) for row in means], axis=-2)


def global_avg_pool(layer: Any, params: Params, x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def global_max_pool(layer: Any, params: Params, x: Array) -> Array:
    return jnp.max(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def sum_(layer: Any, params: Params, x: Array) -> Array:
    return jnp.sum(x, axis=layer.dim, keepdims=layer.keepdim)


def mean(layer: Any, params: Params, x: Array) -> Array:
    return jnp.mean(x, axis=layer.dim, keepdims=layer.keepdim)


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    P.MaxPool1d: max_pool, P.MaxPool2d: max_pool, P.AvgPool1d: avg_pool, P.AvgPool2d: avg_pool,
    A.AdaptiveAvgPool2d: adaptive_avg_pool2d, A.GlobalAvgPool: global_avg_pool, A.GlobalMaxPool: global_max_pool,
    P.Sum: sum_, P.Mean: mean,
}
