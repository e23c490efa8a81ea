"""Activations that mix the entries of an axis: the softmax family and the gated units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.functions import distributed, log1p, sigmoid, sigmoid_complement, softmax, softmax_pullback
from backproof.reference.fused import normalized_exp
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array, Rounded, either, largest_of

__all__ = ["GLU", "LogSoftmax", "Softmax", "SwiGLU"]


DOMINANT = 0.7  # more than half, so that at most one entry is; not 3/4, which equal entries may sum to


def _may_dominate(a: Array) -> bool:
    """Say whether some weight may be dominant: it costs much less to know than to allow for it in every row."""
    if isinstance(a, Rounded):
        a = a.value + a.bound
    return not (isinstance(a, np.ndarray) and a.dtype == np.float64 and largest_of(a) <= DOMINANT)


def _check_dim(layer: Softmax | LogSoftmax) -> None:
    if layer.dim == 0:
        raise ValueError(f"{type(layer).__name__}: wrong dim: got 0, expected an axis other than the batch axis")


def _check_axis(layer: Softmax | LogSoftmax, shape: Shape) -> Shape:
    """Return the shape if `dim` names one of its axes; the batch axis is counted, and is not one of them."""
    axes = len(shape) + 1
    if not (-axes < layer.dim < axes):
        raise ShapeError(layer, shape, f"an axis {layer.dim} behind the batch axis")
    return shape


@register
@dataclass(frozen=True)
class Softmax(Layer):
    """y = e^x / sum e^x along axis `dim`; as in torch, the batch axis counts, but it cannot be the one.

    Formula       y_i = e^x_i / sum_k e^x_k
    Chain rule    dy_i/dx_j = y_i (delta_ij - y_j)
                  dx_j = sum_i dy_i y_i (delta_ij - y_j) = y_j (dy_j - sum_i dy_i y_i)
                  sum_i y_i = 1, so the bracket is the same for dy_j - c and dy_i - c: see softmax_pullback
    Shapes        x, y (batch, ...); i, j, k run along `dim`, everything else is left out.
    Kinks         none.
    Source        Bridle, *Probabilistic Interpretation of Feedforward Classification Network Outputs*, 1990.
    """

    by_example = True

    dim: int = -1

    def __post_init__(self) -> None:
        _check_dim(self)

    def output_shape(self, shape: Shape) -> Shape:
        return _check_axis(self, shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = softmax(x, self.dim)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return softmax_pullback(y, dy, self.dim), {}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (5,)
        yield cls(1), (3, 2)
        yield cls(-2), (3, 2)


@register
@dataclass(frozen=True)
class LogSoftmax(Layer):
    """y = x - log sum e^x along axis `dim`; as in torch, the batch axis counts, but it cannot be the one.

    Formula       y_i = x_i - log sum_k e^x_k = (x_i - m) - log t, m = max x, t = sum_k e^(x_k - m)
                  Where one entry dominates, t = 1 + the others: log1p of their sum keeps the digits of y_i close to 0,
                  which implementations lose in t; their log t is allowed for.
    Chain rule    dy_i/dx_j = delta_ij - a_j, a_j = e^x_j / sum_k e^x_k = e^y_j
                  dx_j = dy_j - a_j sum_i dy_i
    Shapes        x, y (batch, ...); i, j, k run along `dim`, everything else is left out.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, equation 6.30.
    """

    by_example = True

    dim: int = -1

    def __post_init__(self) -> None:
        _check_dim(self)

    def output_shape(self, shape: Shape) -> Shape:
        return _check_axis(self, shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        largest = np.max(x, axis=self.dim, keepdims=True)
        shifted = x - largest
        a, total = normalized_exp(x, largest, self.dim)
        log_total = np.log(total)
        if _may_dominate(a):
            rest = np.sum(np.where(a > DOMINANT, 0, np.exp(shifted)), axis=self.dim, keepdims=True)
            log_total = either(np.where(np.max(a, axis=self.dim, keepdims=True) > DOMINANT, log1p(rest), log_total), log_total)
        y = shifted - log_total

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy - either(a, np.exp(y)) * np.sum(dy, axis=self.dim, keepdims=True), {}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (5,)
        yield cls(1), (3, 2)
        yield cls(-2), (3, 2)


def _halved(layer: Layer, shape: Shape) -> Shape:
    """Return the shape with its last axis halved."""
    if not shape or shape[-1] % 2:
        raise ShapeError(layer, shape, "an even last axis")
    return (*shape[:-1], shape[-1] // 2)


@register
@dataclass(frozen=True)
class GLU(Layer):
    """y = a s(b), with a, b the halves of the last axis and s the sigmoid.

    Formula       y_i = a_i s(b_i), a_i = x_i, b_i = x_(i + h), i < h
    Chain rule    dx_i = da_i = dy_i s(b_i), and dx_(i + h) = db_i = dy_i a_i s(b_i) s(-b_i)
    Shapes        x (batch, ..., 2 h), y (batch, ..., h).
    Kinks         none.
    Source        Dauphin, Fan, Auli, Grangier, *Language Modeling with Gated Convolutional Networks*, ICML 2017.
    """

    by_example = True

    def output_shape(self, shape: Shape) -> Shape:
        return _halved(self, shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        s = sigmoid(b)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.concatenate([dy * s, dy * a * (s * sigmoid_complement(b, s))], axis=-1), {}

        return a * s, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 4)
        yield cls(), (2,)


@register
@dataclass(frozen=True)
class SwiGLU(Layer):
    """y = silu(a) b, with a, b the halves of the last axis.

    Formula       y_i = a_i s(a_i) b_i, a_i = x_i, b_i = x_(i + h), i < h
    Chain rule    dx_i = da_i = dy_i b_i (s(a_i) + a_i s(a_i) s(-a_i)), and dx_(i + h) = db_i = dy_i a_i s(a_i)
    Shapes        x (batch, ..., 2 h), y (batch, ..., h).
    Kinks         none.
    Source        Shazeer, *GLU Variants Improve Transformer*, 2020, equation 5.
    """

    by_example = True

    def output_shape(self, shape: Shape) -> Shape:
        return _halved(self, shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        half = x.shape[-1] // 2
        a, b = x[..., :half], x[..., half:]
        s = sigmoid(a)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            complement, dsilu = sigmoid_complement(a, s), dy * b
            da = distributed(dsilu * (s * (1 + a * complement)), dsilu, a, s, s * complement)
            return np.concatenate([da, dy * (a * s)], axis=-1), {}

        return a * s * b, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 4)
        yield cls(), (2,)
