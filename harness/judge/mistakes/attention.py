"""The mistakes of attention: masks and scales lost on the way back, weights not transposed, heads mixed, rotations not undone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import FaultyRule, Mistake, faulty
from backproof.reference.attention import RotaryEmbedding, ScaledDotProductAttention, attend
from backproof.reference.layer import Backward, Params
from backproof.reference.multihead_attention import MultiheadAttention
from backproof.reference.rounding import Array

__all__ = ["MISTAKES"]

Gradients = tuple[Array, Array, Array]
ALONE, HEADS, ROTARY = ScaledDotProductAttention, MultiheadAttention, RotaryEmbedding
ENTERING = ("dx", "din_proj_weight", "din_proj_bias")


def _turned(x: Array) -> Array:
    return np.swapaxes(x, -1, -2)


def _scale(layer: Any, query: Array) -> float:
    return 1 / math.sqrt(query.shape[-1]) if layer.scale is None else layer.scale


def _weights(layer: Any, params: Params, query: Array, key: Array) -> Array:
    """Return the weights p: what attention makes of values that are the rows of an identity."""
    eye = np.broadcast_to(np.eye(key.shape[-2]), (*key.shape[:-1], key.shape[-2]))
    return layer.forward(params, query, key, eye)[0]


def _backward_of(change: Callable[[Any], Any]) -> FaultyRule:
    """Return the rule whose forward is the layer's and whose backward is another layer's."""

    def rule(layer: Any, params: Params, *inputs: Array) -> tuple[Array, Backward]:
        return layer.forward(params, *inputs)[0], change(layer).forward(params, *inputs)[1]

    return rule


def _with_gradients(change: Callable[[Gradients, Any, Params, tuple[Array, ...], Array], Gradients]) -> FaultyRule:
    """Return the rule whose gradients of query, key and value are changed."""

    def rule(layer: Any, params: Params, *inputs: Array) -> tuple[Array, Backward]:
        y, right = layer.forward(params, *inputs)

        def backward(dy: Array) -> tuple[Gradients, dict[str, Array]]:
            return change(right(dy)[0], layer, params, inputs, dy), {}

        return y, backward

    return rule


def _unscaled(found: Gradients, layer: Any, params: Params, inputs: tuple[Array, ...], dy: Array) -> Gradients:
    scale = _scale(layer, inputs[0])
    return found[0] / scale, found[1] / scale, found[2]


def _scaled_twice(found: Gradients, layer: Any, params: Params, inputs: tuple[Array, ...], dy: Array) -> Gradients:
    scale = _scale(layer, inputs[0])
    return found[0] * scale, found[1] * scale, found[2]


def _cross_term_dropped(found: Gradients, layer: Any, params: Params, inputs: tuple[Array, ...], dy: Array) -> Gradients:
    query, key, value = inputs
    dscores = _weights(layer, params, query, key) * (dy @ _turned(value)) * _scale(layer, query)
    return dscores @ key, _turned(dscores) @ query, found[2]


def _not_transposed(found: Gradients, layer: Any, params: Params, inputs: tuple[Array, ...], dy: Array) -> Gradients:
    weights = _weights(layer, params, inputs[0], inputs[1])
    return (found[0], found[1], weights @ dy) if weights.shape[-1] == weights.shape[-2] else found


def _one_key_too_many(layer: Any, params: Params, query: Array, key: Array, value: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, query, key, value)
    if not layer.is_causal or layer.mask is not None:
        return y, right
    seen = np.tri(query.shape[-2], key.shape[-2], k=1, dtype=bool)
    _, pullback = attend(query, key, value, seen, scale=_scale(layer, query))
    return y, lambda dy: (pullback(dy), {})


def _with_projected(change: Callable[[Any, Callable[[Array], Array], Array], Array]) -> FaultyRule:
    """Return the multi-head rule with another gradient of the projected queries, keys and values, made from their pullback and dz."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = layer.forward(params, x)
        _, pullback = layer.attention(layer.projected(x, params, "in_proj"))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dprojected = change(layer, pullback, dy @ params["out_proj_weight"])
            return dprojected @ params["in_proj_weight"], right(dy)[1] | layer.projection_gradients(x, dprojected, "in_proj")

        return y, backward

    return rule


def _heads_mixed(layer: Any, pullback: Callable[[Array], Array], dz: Array) -> Array:
    batch, length, _ = dz.shape
    by_head = dz.reshape((batch, length, layer.num_heads, -1)).transpose((0, 2, 1, 3))
    return pullback(by_head.reshape(dz.shape))


def _groups_not_summed(layer: Any, pullback: Callable[[Array], Array], dz: Array) -> Array:
    first = np.arange(layer.num_heads) % (layer.num_heads // layer.key_heads) == 0
    alone = pullback(np.where(np.repeat(first, layer.embed_dim // layer.num_heads), dz, 0))
    return np.concatenate([pullback(dz)[..., : layer.embed_dim], alone[..., layer.embed_dim :]], axis=-1)


def _only_through_values(layer: Any, pullback: Callable[[Array], Array], dz: Array) -> Array:
    dprojected = pullback(dz)
    return np.where(np.arange(dprojected.shape[-1]) < layer.embed_dim + layer.kv_dim, 0, dprojected)


def _last_position_only(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)

    def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
        dx, dparams = right(dy)
        return dx, dparams | ({"out_proj_bias": np.sum(dy[:, -1], axis=0)} if layer.bias else {})

    return y, backward


def _rotated_forward(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
    return layer.forward(params, x)[0], lambda dy: (layer.forward(params, dy)[0], {})


def _position_off_by_one(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)

    def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
        later = np.concatenate([dy[..., :1, :] * 0, dy], axis=-2)
        return layer.forward(params, later)[1](later)[0][..., 1:, :], {}

    return y, backward


MISTAKES: tuple[Mistake, ...] = (
    faulty("attention-mask-forgotten", "{tensor} is made from weights without the mask: the forward pass hides keys, the backward does not",
           ALONE, ("dquery", "dkey", "dvalue"), _backward_of(lambda layer: replace(layer, is_causal=False, mask=None))),
    faulty("attention-causal-off-by-one", "{tensor} is made from weights that let every query see one key too many",
           ALONE, ("dquery", "dkey", "dvalue"), _one_key_too_many),
    faulty("attention-scale-forgotten", "{tensor} lacks the factor scale of the scores", ALONE, ("dquery", "dkey"),
           _with_gradients(_unscaled)),
    faulty("attention-scale-twice", "{tensor} has the factor scale of the scores twice", ALONE, ("dquery", "dkey"),
           _with_gradients(_scaled_twice)),
    faulty("attention-cross-term-dropped", "{tensor} lacks the cross term of the softmax, p_ij sum_k p_ik dp_ik", ALONE, ("dquery", "dkey"),
           _with_gradients(_cross_term_dropped)),
    faulty("attention-weights-not-transposed", "{tensor} is p dy, where it should be p^T dy", ALONE, ("dvalue",),
           _with_gradients(_not_transposed)),
    faulty("attention-heads-mixed", "{tensor} takes the upstream gradient by (head, position) where it lies by (position, head)",
           HEADS, ENTERING,
           _with_projected(_heads_mixed)),
    faulty("attention-groups-not-summed", "{tensor} takes key and value gradients from the first head of each group: the sum over the "
           "group is missing", HEADS, ENTERING, _with_projected(_groups_not_summed)),
    faulty("attention-weights-held-constant", "{tensor} holds the attention weights constant: nothing flows back into queries and keys",
           HEADS, ENTERING, _with_projected(_only_through_values)),
    faulty("attention-bias-last-position-only", "{tensor} holds the last position only: the sum over positions is missing",
           HEADS, ("dout_proj_bias",), _last_position_only),
    faulty("rotary-not-undone", "{tensor} rotates the upstream gradient forward once more, where it should rotate back", ROTARY, ("dx",),
           _rotated_forward),
    faulty("rotary-other-pairs", "{tensor} pairs the features as the other convention does, halves for neighbours", ROTARY, ("dx",),
           _backward_of(lambda layer: replace(layer, interleaved=not layer.interleaved))),
    faulty("rotary-position-off-by-one", "{tensor} counts positions from 1 where the forward pass counts from 0", ROTARY, ("dx",),
           _position_off_by_one),
)
