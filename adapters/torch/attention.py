"""PyTorch: attention and rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import attention as A
from backproof.reference.multihead_attention import MultiheadAttention
from torch import Tensor

Params = dict[str, Tensor]


def scaled_dot_product_attention(layer: Any, params: Params, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = params.get("attn_mask")
    if layer.is_causal and mask is not None:  # torch takes one of the two
        causal = torch.ones_like(mask, dtype=torch.bool).tril()
        mask = mask & causal if layer.mask == "boolean" else mask.masked_fill(~causal, -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=layer.is_causal and mask is None, scale=layer.scale)


def multihead_attention(layer: Any, params: Params, x: Tensor) -> Tensor:
    size = layer.embed_dim // layer.num_heads
    if layer.num_kv_heads not in (None, layer.num_heads):
        projected = F.linear(x, params["in_proj_weight"], params.get("in_proj_bias"))
        projected = projected.reshape(*x.shape[:2], layer.num_heads + 2 * layer.num_kv_heads, size).transpose(1, 2)
        query, key, value = torch.split(projected, [layer.num_heads, layer.num_kv_heads, layer.num_kv_heads], dim=1)
        z = F.scaled_dot_product_attention(query, key, value, is_causal=layer.is_causal, enable_gqa=True).transpose(1, 2)
        return F.linear(z.reshape(x.shape), params["out_proj_weight"], params.get("out_proj_bias"))
    x = x.transpose(0, 1)
    causal = torch.ones(len(x), len(x), dtype=torch.bool).triu(1) if layer.is_causal else None
    y, _ = F.multi_head_attention_forward(
        query=x, key=x, value=x, embed_dim_to_check=layer.embed_dim, num_heads=layer.num_heads, in_proj_weight=params["in_proj_weight"],
        in_proj_bias=params.get("in_proj_bias"), bias_k=None, bias_v=None, add_zero_attn=False, dropout_p=0.0,
        out_proj_weight=params["out_proj_weight"], out_proj_bias=params.get("out_proj_bias"), need_weights=False,
        attn_mask=causal, is_causal=layer.is_causal)
    return y.transpose(0, 1)


def rotary_embedding(layer: Any, params: Params, x: Tensor) -> Tensor:
    length, size = x.shape[-2:]
    angles = torch.arange(length, dtype=torch.float64)[:, None] * layer.base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    u, v = (x[..., 0::2], x[..., 1::2]) if layer.interleaved else x.chunk(2, dim=-1)
    pair = (u * cos - v * sin, v * cos + u * sin)
    return torch.stack(pair, dim=-1).flatten(-2) if layer.interleaved else torch.cat(pair, dim=-1)


LOWERINGS: dict[type, Callable[..., Tensor]] = {
    A.ScaledDotProductAttention: scaled_dot_product_attention, MultiheadAttention: multihead_attention,
    A.RotaryEmbedding: rotary_embedding,
}
