"""Attention by several heads, with the projections of its input and its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.attention import attend, causal
from backproof.reference.functions import affine, sum_of_products
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array

__all__ = ["MultiheadAttention"]


@register
@dataclass(frozen=True)
class MultiheadAttention(Layer):
    """Self-attention by several heads, each on its own slice of the projected features.

    The rows of `in_proj_weight` make the query, then the key, then the value; head h takes the slice h of each. With fewer key heads
    than query heads, the heads h of one group, h // (num_heads / num_kv_heads), share key and value.

    Formula       [q k v]_ne = sum_c x_nc in_proj_weight_ec + in_proj_bias_e
                  z_h = attention(q_h, k_g(h), v_g(h)), scale 1 / sqrt(embed_dim / num_heads), z their concatenation over h
                  y_ne = sum_c z_nc out_proj_weight_ec + out_proj_bias_e
    Chain rule    dz = dy out_proj_weight
                  dout_proj_weight_ec = sum_n dy_ne z_nc
                  dout_proj_bias_e = sum_n dy_ne
                  dq_h, dk_g, dv_g as in ScaledDotProductAttention, dk_g and dv_g summed over the heads h of the group g
                  dx = [dq dk dv] in_proj_weight
                  din_proj_weight_ec = sum_n [dq dk dv]_ne x_nc
                  din_proj_bias_e = sum_n [dq dk dv]_ne
    Shapes        x, y (batch, L, embed_dim); in_proj_weight (embed_dim + 2 kv, embed_dim), in_proj_bias (embed_dim + 2 kv,), kv =
                  num_kv_heads embed_dim / num_heads; out_proj_weight (embed_dim, embed_dim), out_proj_bias (embed_dim,);
                  n runs over batch and L.
    Kinks         none.
    Source        Vaswani and others, *Attention Is All You Need*, NeurIPS 2017, section 3.2.2; Ainslie and others, *GQA: Training
                  Generalized Multi-Query Transformer Models from Multi-Head Checkpoints*, EMNLP 2023.
    """

    embed_dim: int
    num_heads: int
    num_kv_heads: int | None = None
    is_causal: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        if self.num_heads < 1 or self.embed_dim < 1 or self.embed_dim % self.num_heads:
            raise ValueError(f"MultiheadAttention: wrong embed_dim: got {self.embed_dim}, "
                             f"expected a multiple of num_heads, {self.num_heads}")
        if self.num_kv_heads is not None and (self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads):
            raise ValueError(f"MultiheadAttention: wrong num_kv_heads: got {self.num_kv_heads}, "
                             f"expected None or a divisor of num_heads, {self.num_heads}")

    @property
    def key_heads(self) -> int:
        """The number of heads of key and value."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def kv_dim(self) -> int:
        """The number of features of key and of value."""
        return self.key_heads * (self.embed_dim // self.num_heads)

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        rows = self.embed_dim + 2 * self.kv_dim
        weights: dict[str, Shape] = {"in_proj_weight": (rows, self.embed_dim), "out_proj_weight": (self.embed_dim, self.embed_dim)}
        biases: dict[str, Shape] = {"in_proj_bias": (rows,), "out_proj_bias": (self.embed_dim,)}
        return weights | biases if self.bias else weights

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 2 or shape[1] != self.embed_dim or not shape[0]:
            raise ShapeError(self, shape, f"(L, {self.embed_dim}), L at least 1")
        return shape

    def _by_head(self, x: Array, heads: int) -> Array:
        """(batch, L, heads D) as (batch, key heads, groups L, D): the heads of one group one after the other."""
        batch, length, features = x.shape
        apart = x.reshape((batch, length, self.key_heads, heads // self.key_heads, features // heads))
        return apart.transpose((0, 2, 3, 1, 4)).reshape((batch, self.key_heads, length * (heads // self.key_heads), features // heads))

    def _side_by_side(self, x: Array, heads: int) -> Array:
        """Undo `_by_head`."""
        batch, _, rows, size = x.shape
        groups = heads // self.key_heads
        apart = x.reshape((batch, self.key_heads, groups, rows // groups, size))
        return apart.transpose((0, 3, 1, 2, 4)).reshape((batch, rows // groups, heads * size))

    def attention(self, projected: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return the heads' outputs z (batch, L, embed_dim) of queries, keys and values side by side, and the pullback of dz."""
        length, groups = projected.shape[1], self.num_heads // self.key_heads
        heads, parts = (self.num_heads, self.key_heads, self.key_heads), (projected[..., part] for part in self.parts())
        seen = np.tile(causal(length, length), (groups, 1)) if self.is_causal else None
        query, key, value = (self._by_head(part, count) for part, count in zip(parts, heads, strict=True))
        z, pullback = attend(query, key, value, seen, scale=1 / math.sqrt(self.embed_dim // self.num_heads), groups=groups)

        def backward(dz: Array) -> Array:
            found = pullback(self._by_head(dz, self.num_heads))
            return np.concatenate([self._side_by_side(part, count) for part, count in zip(found, heads, strict=True)], axis=-1)

        return self._side_by_side(z, self.num_heads), backward

    def parts(self) -> tuple[slice, slice, slice]:
        """Return where queries, keys and values stand among the projected features."""
        kept = self.embed_dim + self.kv_dim
        return slice(0, self.embed_dim), slice(self.embed_dim, kept), slice(kept, None)

    def projected(self, x: Array, params: Params, name: str) -> Array:
        """Return x through the projection `in_proj` or `out_proj`."""
        weight = params[f"{name}_weight"]
        return affine(x, weight, params[f"{name}_bias"]) if self.bias else x @ weight.T

    def projection_gradients(self, x: Array, dy: Array, name: str) -> dict[str, Array]:
        """Return the gradients of a projection's parameters, of its input x and its output's gradient dy."""
        rows = dy.reshape((-1, dy.shape[-1]))
        gradients = {f"{name}_weight": rows.T @ x.reshape((-1, x.shape[-1]))}
        return gradients | ({f"{name}_bias": np.sum(rows, axis=0)} if self.bias else {})

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        z, pullback = self.attention(self.projected(x, params, "in_proj"))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dprojected = pullback(dy @ params["out_proj_weight"])
            dparams = self.projection_gradients(x, dprojected, "in_proj") | self.projection_gradients(z, dy, "out_proj")
            weight = params["in_proj_weight"]
            return sum_of_products([(dprojected[..., part], weight[part]) for part in self.parts()]), dparams

        return self.projected(z, params, "out_proj"), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(4, 2), (3, 4)
        yield cls(2, 1, is_causal=True, bias=False), (2, 2)
        yield cls(4, 4, num_kv_heads=2, is_causal=True), (2, 4)
        yield cls(4, 2, num_kv_heads=1, bias=False), (3, 4)
        yield cls(1, 1), (1, 1)
