"""JAX: attention and rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import attention as A
from backproof.reference.multihead_attention import MultiheadAttention
from jax import Array

Params = dict[str, Array]


def scaled_dot_product_attention(layer: Any, params: Params, query: Array, key: Array, value: Array) -> Array:
    size, width = query.shape[-1], max(query.shape[-1], value.shape[-1])  # jax takes values as wide as keys: zeros change nothing
    heads = [a[:, None] if a.ndim == 3 else a for a in (query, key, value)]
    q, k, v = (jnp.pad(jnp.swapaxes(a, 1, 2), [(0, 0)] * 3 + [(0, width - a.shape[-1])]) for a in heads)
    mask = params["attn_mask"][None, None] if layer.mask else None
    y = jax.nn.dot_product_attention(
        q, k, v, bias=mask if layer.mask == "additive" else None, mask=mask if layer.mask == "boolean" else None,
        scale=size**-0.5 if layer.scale is None else layer.scale, is_causal=layer.is_causal)
    return jnp.swapaxes(y[..., : value.shape[-1]], 1, 2).reshape(*query.shape[:-1], value.shape[-1])


def multihead_attention(layer: Any, params: Params, x: Array) -> Array:
    bias: dict[str, Any] = {"in_proj_bias": 0, "out_proj_bias": 0, **params}
    projected = x @ params["in_proj_weight"].T + bias["in_proj_bias"]
    kv_heads = layer.num_kv_heads or layer.num_heads
    heads = projected.reshape(*x.shape[:2], layer.num_heads + 2 * kv_heads, layer.embed_dim // layer.num_heads)
    query, key, value = jnp.split(heads, [layer.num_heads, layer.num_heads + kv_heads], axis=2)
    z = jax.nn.dot_product_attention(query, key, value, is_causal=layer.is_causal)
    return z.reshape(x.shape) @ params["out_proj_weight"].T + bias["out_proj_bias"]


def scaled_dot_product_attention_by_formula(layer: Any, params: Params, query: Array, key: Array, value: Array) -> Array:
    scores = query @ jnp.swapaxes(key, -1, -2) * (query.shape[-1] ** -0.5 if layer.scale is None else layer.scale)
    if layer.mask:
        mask = params["attn_mask"]
        scores = jnp.where(mask, scores, -jnp.inf) if layer.mask == "boolean" else scores + mask
    scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf) if layer.is_causal else scores
    seen = scores > -jnp.inf
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min), axis=-1)  # type: ignore[no-untyped-call]
    return jnp.where(seen, weights, 0) @ value


def multihead_attention_by_formula(layer: Any, params: Params, x: Array) -> Array:
    bias: dict[str, Any] = {"in_proj_bias": 0, "out_proj_bias": 0, **params}
    projected = x @ params["in_proj_weight"].T + bias["in_proj_bias"]
    kv_heads, size = layer.num_kv_heads or layer.num_heads, layer.embed_dim // layer.num_heads
    heads = jnp.swapaxes(projected.reshape(*x.shape[:2], layer.num_heads + 2 * kv_heads, size), 1, 2)
    query, *rest = jnp.split(heads, [layer.num_heads, layer.num_heads + kv_heads], axis=1)
    key, value = (jnp.repeat(a, layer.num_heads // kv_heads, axis=1) for a in rest)
    scores = query @ jnp.swapaxes(key, -1, -2) * size**-0.5
    scores = jnp.where(jnp.tri(x.shape[1], dtype=bool), scores, -jnp.inf) if layer.is_causal else scores
    z = jnp.swapaxes(jax.nn.softmax(scores, axis=-1) @ value, 1, 2)
    return z.reshape(x.shape) @ params["out_proj_weight"].T + bias["out_proj_bias"]


def rotary_embedding(layer: Any, params: Params, x: Array) -> Array:
    import numpy as np  # noqa: PLC0415  (the table is made in float64, which jax may have switched off)

    length, size = x.shape[-2:]
    angles = np.arange(length)[:, None] * layer.base ** (-np.arange(0, size, 2) / size)
    cos, sin = (jnp.asarray(table, x.dtype) for table in (np.cos(angles), np.sin(angles)))
    u, v = (x[..., 0::2], x[..., 1::2]) if layer.interleaved else jnp.split(x, 2, axis=-1)
    pair = (u * cos - v * sin, v * cos + u * sin)
    return jnp.stack(pair, axis=-1).reshape(x.shape) if layer.interleaved else jnp.concatenate(pair, axis=-1)


LOWERINGS: dict[type, Callable[..., Array]] = {
    A.ScaledDotProductAttention: scaled_dot_product_attention, MultiheadAttention: multihead_attention,
    A.RotaryEmbedding: rotary_embedding,
}
if not hasattr(jax.nn, "dot_product_attention"):  # it came with 0.4.31
    LOWERINGS |= {A.ScaledDotProductAttention: scaled_dot_product_attention_by_formula,
                  MultiheadAttention: multihead_attention_by_formula}
