"""What an entry of a tensor depends on, layer by layer: the number whose range a known discrepancy names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.heads import OUTPUTS, Head
from backproof.reference.rounding import PRECISIONS, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["ARGUMENTS", "argument"]

Argument = Callable[[LayerTrace, np.ndarray, str, tuple[int, ...]], np.ndarray]


def argument(step: LayerTrace, tensor: str, shape: tuple[int, ...], name: str = "") -> np.ndarray:
    """Return the number each entry of a tensor depends on: the input itself, unless a rule is named or the layer has one of its own.

    Where its shape is another than the tensor's, every entry depends on all of them.
    """
    x = step.inputs[0].astype(np.float64)
    rule = ARGUMENTS.get(name or (step.layer.loss if isinstance(step.layer, Head) else type(step.layer).__name__))
    with quiet():
        return x if rule is None else rule(step, x, tensor, shape)


def _gate(which: int) -> Argument:
    """A gated layer's own gate, which is the half of the last axis that goes through the sigmoid."""

    def rule(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
        gate = np.split(x, 2, axis=-1)[which]
        return gate if shape == gate.shape else np.concatenate([gate, gate], axis=-1)

    return rule


def _size(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """How large the input is, whatever its sign."""
    return np.abs(x)


def _scaled(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """Softplus is reckoned in beta x, as its threshold is."""
    return x * step.layer.beta


def _away_from_target(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """A binary cross entropy depends on how far the logit lies on the side of its target: positive where it is right."""
    return np.where(step.inputs[1].astype(np.float64) > 0.5, x, -x)


def _margin(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """The exponent of a soft margin, -y a; where the output is one of a whole row, so is its gradient: the largest of the row."""
    exponent = -step.inputs[1].astype(np.float64) * OUTPUTS[step.layer.output](x)[0]
    return np.broadcast_to(np.max(exponent, axis=-1, keepdims=True), x.shape) if "softmax" in step.layer.output else exponent


def _norm(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """The length of each row of the output."""
    return np.broadcast_to(np.linalg.norm(OUTPUTS[step.layer.output](x)[0], axis=-1, keepdims=True), x.shape)


def _shorter(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """The smaller sum of squares of a pair of vectors."""
    return np.broadcast_to(np.min(np.sum(x * x, axis=-1, keepdims=True), axis=-2, keepdims=True), x.shape)


def _projection(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a square root hands back of the cosine c = u v / sqrt(m n) of a pair, dy c / (2 m n), in smallest normal numbers."""
    dot, m, n = (np.sum(x[:, i] * x[:, j], axis=-1) for i, j in ((0, 1), (0, 0), (1, 1)))
    dy = np.abs(step.d_output.astype(np.float64)) / (len(x) if step.layer.reduction == "mean" else 1)
    normal = next(p.normal for p in PRECISIONS.values() if p.dtype == step.inputs[0].dtype)
    return np.broadcast_to((dy * np.abs(dot) / np.sqrt(m * n) / (2 * m * n) / normal)[:, None, None], x.shape)


def _saved_product(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """The smallest of dy times the saved output along the axis of a product, in smallest normal numbers of the format."""
    axis = step.layer.dim % x.ndim
    normal = next(p.normal for p in PRECISIONS.values() if p.dtype == step.output.dtype)
    products = np.abs(step.output.astype(np.float64)) * np.minimum(1.0, np.abs(step.d_output.astype(np.float64))) / normal
    if products.ndim < x.ndim:
        products = np.expand_dims(products, axis)
    return np.broadcast_to(np.min(products, axis=axis, keepdims=True, initial=np.inf), x.shape)


def _spread(axes: Callable[[Any], tuple[int, ...]], *, centred: bool = True) -> Argument:
    """The standard deviation of what is normalised together, where 1 is the size whose inverse cube is the smallest normal number."""

    def rule(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
        smallest = PRECISIONS["float64" if step.inputs[0].dtype == np.float64 else "float32"].normal
        over = tuple(axis for axis in axes(step.layer) or range(2, x.ndim) if -x.ndim <= axis < x.ndim)
        middle = np.mean(x, axis=over, keepdims=True) if centred else 0.0
        return np.broadcast_to(np.sqrt(np.mean((x - middle) ** 2, axis=over, keepdims=True)) * np.cbrt(smallest), x.shape)

    return rule


def _keys_seen(step: LayerTrace, x: np.ndarray, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """The number of keys that a query may look at; a value's gradient depends on all queries."""
    length, keys = x.shape[-2], step.inputs[1].shape[-2]
    seen = np.tri(length, keys, dtype=bool) if step.layer.is_causal else np.ones((length, keys), dtype=bool)
    mask = step.params.get("attn_mask")
    if mask is not None:
        seen &= mask if mask.dtype == bool else mask.astype(np.float64) > -np.inf
    counts = seen.sum(axis=-1).astype(float)
    return np.broadcast_to(counts[:, None], shape) if tensor == "output" else counts


ARGUMENTS: dict[str, Argument] = {
    "GLU": _gate(1), "SwiGLU": _gate(0), "Softplus": _scaled, "Softsign": _size,
    "bce": _away_from_target, "soft_margin": _margin, "cosine": _norm,
    "cosine_embedding": _shorter, "projection": _projection, "Prod": _saved_product, "CumProd": _saved_product,
    "ScaledDotProductAttention": _keys_seen,
    "RMSNorm": _spread(lambda layer: (-1,), centred=False),
    "LayerNorm": _spread(lambda layer: tuple(range(-layer.axes, 0))), "BatchNorm": _spread(lambda layer: (0, 2, 3, 4)),
    "InstanceNorm": _spread(lambda layer: ()), "GroupNorm": _spread(lambda layer: (1, 2, 3, 4)),
}
"""By the name of the layer, of a head's loss, or of the argument that an entry asks for."""
