"""Attention: the softmax of scaled scores, and rotary positions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from backproof.reference.direction import Directed, numbers_of
from backproof.reference.functions import recomputed, sum_of_products
from backproof.reference.fused import normalized_exp, weighted_difference
from backproof.reference.layer import Backward, Constant, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import REFERENCE_ROUNDOFF, Array, Rounded, either, inner

__all__ = ["RotaryEmbedding", "ScaledDotProductAttention", "attend", "causal"]

MASKS = (None, "boolean", "additive")
SEEN = 0.75  # probability that a drawn mask lets a query see a key

Pullback = Callable[[Array], tuple[Array, Array, Array]]


def _turned(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def causal(queries: int, keys: int) -> np.ndarray:
    """Return which keys each query may see: key j from query i where j <= i, both counted from the start."""
    return np.tri(queries, keys, dtype=bool)


def _exact(numbers: np.ndarray, like: Array) -> Array:
    return like.arithmetic.exact(numbers) if isinstance(like, (Rounded, Directed)) else numbers


def _largest_seen(scores: Array, seen: np.ndarray | None) -> Array:
    """Return the largest score that each query sees, as an exact number: softmax is the same whatever is taken out first."""
    numbers = numbers_of(scores)
    if seen is not None:
        numbers = np.where(seen, numbers, np.min(numbers, axis=-1, keepdims=True))
    return _exact(np.max(numbers, axis=-1, keepdims=True), scores)


def _factor(scale: float, like: Array) -> Array:
    """Return the scale, as a ball that holds it with the roundings of its root taken on both factors of a product, the most in use."""
    if not isinstance(like, (Rounded, Directed)):
        return scale
    root = like.arithmetic.lift(math.sqrt(scale))
    return root * root


def _over_groups(a: Array, b: Array, groups: int) -> Array:
    """a^T b, summed over the queries of every group."""
    if groups == 1:
        return _turned(a) @ b
    parts = zip(np.split(a, groups, axis=-2), np.split(b, groups, axis=-2), strict=True)
    return sum_of_products([(_turned(one), other) for one, other in parts])


def attend(query: Array, key: Array, value: Array, seen: np.ndarray | None, *, scale: float, added: Array | None = None,
           groups: int = 1) -> tuple[Array, Pullback]:
    """Return what ScaledDotProductAttention defines, and its pullback; `seen` is None where every query sees every key.

    The queries may be those of several groups, one after the other. A rounded result holds the orders of evaluation in use.
    """
    factor = _factor(scale, query)
    scores = sum_of_products([(query * factor, _turned(key))], [] if added is None else [added])
    top = _largest_seen(scores, seen)
    weights, total = normalized_exp(scores, top, -1, seen)
    y = weights @ value

    def pullback(dy: Array) -> tuple[Array, Array, Array]:
        p = recomputed(weights, top, total)
        dp = dy @ _turned(value)
        mean = either(inner(p, dp, -1), inner(dy, y, -1))
        dscores = weighted_difference(p, dp, mean, factor)
        return dscores @ key, _over_groups(dscores, query, groups), _over_groups(p, dy, groups)

    return y, pullback


@register
@dataclass(frozen=True)
class ScaledDotProductAttention(Layer):
    """Each query's mean of the values, weighted by the softmax of its scaled products with the keys.

    With `is_causal` query i sees the keys j <= i, both counted from the start whatever their numbers. The mask is the constant
    `attn_mask`: `"boolean"` (a query sees a key where True) or `"additive"` (added to the scores; -inf hides a key). The scale is
    1 / sqrt(E) unless given. A query that sees no key has the output 0 and passes no gradient.

    Formula       s_ij = scale sum_e query_ie key_je + attn_mask_ij, over the keys j that query i sees
                  p_ij = e^s_ij / sum_k e^s_ik, 0 for a key that is not seen
                  y_ie = sum_j p_ij value_je
    Chain rule    dp_ij = sum_e dy_ie value_je
                  ds_ij = p_ij (dp_ij - sum_k p_ik dp_ik), and sum_k p_ik dp_ik = sum_e dy_ie y_ie
                  dquery_ie = scale sum_j ds_ij key_je
                  dkey_je   = scale sum_i ds_ij query_ie
                  dvalue_je = sum_i p_ij dy_ie
    Shapes        query (batch, ..., Lq, E), key (batch, ..., Lk, E), value (batch, ..., Lk, Ev), y (batch, ..., Lq, Ev), where ... is
                  nothing or one axis of heads; attn_mask (Lq, Lk).
    Kinks         none.
    Source        Vaswani and others, *Attention Is All You Need*, NeurIPS 2017, equation 1.
    """

    by_example = True

    is_causal: bool = False
    mask: str | None = None
    scale: float | None = None

    input_names: ClassVar[tuple[str, ...]] = ("query", "key", "value")

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"ScaledDotProductAttention: unknown mask: got {self.mask!r}, expected None, 'boolean' or 'additive'")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"ScaledDotProductAttention: wrong scale: got {self.scale}, expected None or a finite number > 0")

    def extent(self, *shapes: Shape) -> int:
        query, key, _ = shapes
        return math.prod(query[:-1]) * key[-2]

    def constants(self, query: Shape, key: Shape, value: Shape) -> dict[str, Constant]:
        if self.mask is None:
            return {}
        shape = (query[-2], key[-2])
        return {"attn_mask": Constant(shape, "boolean", p=SEEN) if self.mask == "boolean" else Constant(shape)}

    def output_shape(self, query: Shape, key: Shape, value: Shape) -> Shape:
        if len(query) not in {2, 3} or not all(query):
            raise ShapeError(self, query, "a query (Lq, E) or (heads, Lq, E), no size 0")
        if len(key) != len(query) or (key[:-2], key[-1]) != (query[:-2], query[-1]) or not key[-2]:
            raise ShapeError(self, key, f"a key of shape {(*query[:-2], 'Lk', query[-1])}")
        if len(value) != len(key) or value[:-1] != key[:-1] or not value[-1]:
            raise ShapeError(self, value, f"a value of shape {(*key[:-1], 'Ev')}")
        return (*query[:-1], value[-1])

    def forward(self, params: Params, query: Array, key: Array, value: Array) -> tuple[Array, Backward]:
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        seen, added = self._mask(params, query.shape[-2], key.shape[-2])
        y, pullback = attend(query, key, value, seen, scale=scale, added=added)

        def backward(dy: Array) -> tuple[tuple[Array, Array, Array], dict[str, Array]]:
            return pullback(dy), {}

        return y, backward

    def _mask(self, params: Params, queries: int, keys: int) -> tuple[np.ndarray | None, Array | None]:
        """Return which keys each query sees, None for all, and what is added to the scores."""
        seen, added = causal(queries, keys) if self.is_causal else None, None
        if self.mask is None:
            return seen, added
        mask = params["attn_mask"]
        given = np.asarray(numbers_of(mask) if self.mask == "boolean" else numbers_of(mask) > -np.inf, dtype=bool)
        if self.mask == "additive":
            added = np.where(given, mask, 0)
        return given if seen is None else seen & given, added

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2), (2, 2), (2, 1)
        yield cls(is_causal=True), (2, 2), (3, 2), (3, 2)
        yield cls(is_causal=True), (2, 3, 2), (2, 2, 2), (2, 2, 3)
        yield cls(mask="boolean", scale=1.5), (3, 1), (2, 1), (2, 2)
        yield cls(mask="additive"), (1, 2, 2), (1, 3, 2), (1, 3, 2)
        yield cls(is_causal=True, mask="boolean"), (2, 2, 1), (2, 2, 1), (2, 2, 1)
        yield cls(), (2, 2), (2, 2), (2, 1)
        yield cls(), (1, 1), (1, 1), (1, 1)


@register
@dataclass(frozen=True)
class RotaryEmbedding(Layer):
    """Rotate pairs of features by angles that grow with the position along the second last axis.

    A pair is made of the features i and i + E/2 (as in GPT-NeoX and Llama), with `interleaved` of 2i and 2i + 1 (as in GPT-J).
    The table of cosines and sines belongs to the configuration: it is right to the last digit of the precision, however far the position.

    Formula       a_ni = n base^(-2i/E), n = 0, 1, ... and the pair i of x_n is (u_ni, v_ni)
                  y_ni = (u_ni cos a_ni - v_ni sin a_ni, v_ni cos a_ni + u_ni sin a_ni), the pair i of y_n
    Chain rule    the rotation by -a_ni, where the pair i of dy_n is (p_ni, q_ni):
                  dx_ni = (p_ni cos a_ni + q_ni sin a_ni, q_ni cos a_ni - p_ni sin a_ni), the pair i of dx_n
    Shapes        x, y (batch, ..., L, E), E even; n runs along L.
    Kinks         none.
    Source        Su and others, *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021, equation 34.
    """

    by_example = True

    base: float = 10000.0
    interleaved: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.base < math.inf:
            raise ValueError(f"RotaryEmbedding: wrong base: got {self.base}, expected a finite number >= 1")

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or shape[-1] % 2:
            raise ShapeError(self, shape, "(..., L, E) with an even E")
        return shape

    def angles(self, length: int, features: int) -> np.ndarray:
        """Return the angles of every position and pair, (L, E/2)."""
        return np.arange(length)[:, None] * self.base ** (-2.0 * np.arange(features // 2) / features)

    def _table(self, function: Callable[[np.ndarray], np.ndarray], x: Array) -> Array:
        """Return the cosines or sines; as a ball with what their angles lose in float64, once here and once in an implementation."""
        angles = self.angles(*x.shape[-2:])
        if not isinstance(x, (Rounded, Directed)):
            return function(angles)
        ball = x.arithmetic.lift(function(angles))
        # the rounded exponent loses its log base, the power and the product an ulp each; the cosine itself, where the angle is not 0, one
        lost = 2 * REFERENCE_ROUNDOFF * ((math.log(self.base) + 4) * angles + 2 * (angles > 0))
        return Rounded(ball.value, ball.bounds() + lost, x.arithmetic)

    def _pairs(self, x: Array) -> tuple[Array, Array]:
        if self.interleaved:
            return x[..., 0::2], x[..., 1::2]
        half = x.shape[-1] // 2
        return x[..., :half], x[..., half:]

    def _joined(self, u: Array, v: Array) -> Array:
        if self.interleaved:
            return np.stack([u, v], axis=-1).reshape((*u.shape[:-1], 2 * u.shape[-1]))
        return np.concatenate([u, v], axis=-1)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        cos, sin = self._table(np.cos, x), self._table(np.sin, x)
        u, v = self._pairs(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            du, dv = self._pairs(dy)
            return self._joined(du * cos + dv * sin, dv * cos - du * sin), {}

        return self._joined(u * cos - v * sin, v * cos + u * sin), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 4)
        yield cls(base=100.0, interleaved=True), (2, 2, 4)
        yield cls(), (1, 2)
        yield cls(interleaved=True), (4, 6)
