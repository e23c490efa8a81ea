"""Sums, products and norms along an axis: the cumulative ones, log-sum-exp and scaling to length one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.reference.direction import Directed, ball_of
from backproof.reference.functions import recomputed
from backproof.reference.fused import normalized_exp
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array, Rounded, difference, either, inner, largest_of, quiet, running_product, running_sum

__all__ = ["CumProd", "CumSum", "LogSumExp", "Normalize", "Prod", "axis_of", "check_dim"]


def check_dim(layer: Any) -> None:
    """Raise ValueError for a `dim` that is no whole number or names the batch axis."""
    name = type(layer).__name__
    if isinstance(layer.dim, bool) or not isinstance(layer.dim, int):
        raise ValueError(f"{name}: wrong dim: got {layer.dim!r}, expected a whole number")  # noqa: TRY004  (one kind of error)
    if layer.dim == 0:
        raise ValueError(f"{name}: wrong dim: got 0, expected an axis other than the batch axis")


def axis_of(layer: Any, shape: Shape) -> int:
    """Return the axis of the batched array that `dim` names; raise ShapeError where there is none, or an empty one."""
    axes = len(shape) + 1
    if not (-axes < layer.dim < axes):
        raise ShapeError(layer, shape, f"an axis {layer.dim} behind the batch axis")
    axis: int = layer.dim % axes
    if not shape[axis - 1]:
        raise ShapeError(layer, shape, f"something along the axis {layer.dim}")
    return axis


@dataclass(frozen=True)
class _Along(Layer):
    """A layer that works along axis `dim`; as in torch the batch axis counts, but it cannot be the one."""

    by_example = True

    dim: int = -1

    def __post_init__(self) -> None:
        check_dim(self)

    def output_shape(self, shape: Shape) -> Shape:
        axis_of(self, shape)
        return shape

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (5,)
        yield cls(1), (3, 2)
        yield cls(-2), (2, 3, 2)
        yield cls(2), (3, 1)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[: axis - 1] + shape[axis:]


@register
@dataclass(frozen=True)
class CumSum(_Along):
    """y = the sum of x up to each entry along axis `dim`; as in torch the batch axis counts, but it cannot be the one.

    Formula       y_i = sum_(k <= i) x_k
    Chain rule    dy_i/dx_j = 1 if j <= i, else 0
                  dx_j = sum_(i >= j) dy_i, the cumulative sum from the other end
    Shapes        x, y (batch, ...); i, j, k run along `dim`, everything else is left out.
    Kinks         none.
    Source        Blelloch, *Prefix Sums and Their Applications*, 1990.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return running_sum(dy, self.dim, backwards=True), {}

        return running_sum(x, self.dim), backward


def _others(x: Array) -> Array:
    """Return, for x (..., n), the array (..., n, n) whose row j is x with 1 in the place of x_j."""
    return np.where(np.eye(x.shape[-1], dtype=bool), 1, x[..., None, :])


def _or_quotient(sound: Array, products: Array, numerator: Array, x: Array) -> Array:
    """Let `sound`, the sum or product without x_j, also be numerator_j / x_j, as it is formed from the saved `products`.

    Where these overflow the quotient does too, and the bound gives up. Where one underflowed, or x_j is 0, the digits are not in the
    quotient: there an implementation must multiply the others.
    """
    if not isinstance(sound, (Rounded, Directed)):
        return sound
    normal = sound.arithmetic.precision.normal
    saved, upper = ball_of(products), ball_of(numerator)
    with quiet():  # a product and its bound may both be infinite
        above = np.min(np.abs(saved.value) - saved.bound, axis=-1, keepdims=True) >= normal
    formed = above | np.isinf(upper.bounds())
    quotient: Array = numerator / np.where(formed, x, 1)
    elsewhere: Array = sound
    return either(sound, np.where(formed, quotient, elsewhere))


@dataclass(frozen=True)
class _ProductsAlong(_Along):
    """A layer whose gradient takes for each entry a product of the others."""

    def extent(self, *shapes: Shape) -> int:
        return math.prod(shapes[0]) * shapes[0][axis_of(self, shapes[0]) - 1]


@register
@dataclass(frozen=True)
class CumProd(_ProductsAlong):
    """y = the product of x up to each entry along axis `dim`; as in torch the batch axis counts, but it cannot be the one.

    Formula       y_i = prod_(k <= i) x_k
    Chain rule    dy_i/dx_j = prod_(k <= i, k != j) x_k if j <= i, else 0
                  dx_j = sum_(i >= j) dy_i prod_(k <= i, k != j) x_k
                  where no x is 0 that is (sum_(i >= j) dy_i y_i) / x_j; here nothing is divided, so that zeros are no exception
    Shapes        x, y (batch, ...); i, j, k run along `dim`, everything else is left out.
    Kinks         none.
    Source        a sum of products, each linear in x_j.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        along = np.moveaxis(x, self.dim, -1)
        y = running_product(along, -1)
        later = np.tri(along.shape[-1], dtype=bool).T

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dy = np.moveaxis(dy, self.dim, -1)
            terms = np.where(later, running_product(_others(along), -1, dy[..., None, :], among=along[..., None, :]), 0)
            dx = running_sum(terms, -1, last=True)
            dx = _or_quotient(dx, y, running_sum(dy * y, -1, backwards=True), along)
            return np.moveaxis(dx, -1, self.dim), {}

        return np.moveaxis(y, -1, self.dim), backward


@register
@dataclass(frozen=True)
class Prod(_ProductsAlong):
    """y = the product of x along axis `dim`, which y lacks; as in torch the batch axis counts, but it cannot be the one.

    Formula       y = prod_k x_k
    Chain rule    dy/dx_j = prod_(k != j) x_k
                  dx_j = dy prod_(k != j) x_k
                  where x_j is not 0 that is dy y / x_j; here nothing is divided, so that zeros are no exception: beside one zero
                  only its own gradient is not 0, beside several all are
    Shapes        x (batch, ...), y (batch, ...) without `dim`; j, k run along it, everything else is left out.
    Kinks         none.
    Source        a product, linear in x_j.
    """

    def output_shape(self, shape: Shape) -> Shape:
        return _without(shape, axis_of(self, shape))

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        along = np.moveaxis(x, self.dim, -1)
        y = running_product(along, -1, last=True)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dy = dy[..., None]
            dx = running_product(_others(along), -1, dy, last=True, among=along[..., None, :])
            dx = _or_quotient(dx, y[..., None], dy * y[..., None], along)
            return np.moveaxis(dx, -1, self.dim), {}

        return y, backward


@register
@dataclass(frozen=True)
class LogSumExp(_Along):
    """y = log sum e^x along axis `dim`, which y lacks; as in torch the batch axis counts, but it cannot be the one.

    Formula       y = log sum_k e^x_k = m + log sum_k e^(x_k - m), m = max x, so that nothing overflows
    Chain rule    dy/dx_j = e^x_j / sum_k e^x_k = e^(x_j - y)
                  dx_j = e^(x_j - m) dy / sum_k e^(x_k - m); implementations form it from the saved y, which is allowed for
    Shapes        x (batch, ...), y (batch, ...) without `dim`; j, k run along it, everything else is left out.
    Kinks         none: where several x are the largest, m cancels.
    Source        Blanchard, Higham, Higham, *Accurately Computing the Log-Sum-Exp and Softmax Functions*, IMA J. Numer. Anal. 41 (2021).
    """

    def output_shape(self, shape: Shape) -> Shape:
        return _without(shape, axis_of(self, shape))

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        largest = np.max(x, axis=self.dim, keepdims=True)
        weights, total = normalized_exp(x, largest, self.dim)
        y = largest + np.log(total)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return weights * recomputed(np.expand_dims(dy, self.dim), largest, total), {}

        return np.squeeze(y, self.dim), backward


def _over(dy: Array, y: Array, along: Array, s: Array) -> Array:
    """Return (dy - y along) / s. A rounded result is also dy / s - y (along / s), and products with 1 / s in place of quotients."""
    if not all(isinstance(one, Rounded) for one in (dy, y, along, s)):
        return (dy - y * along) / s
    with quiet():
        dy_top, y_top, along_top = (largest_of(one.magnitude) + largest_of(one.bound) for one in (dy, y, along))
        if not dy_top + y_top * along_top < dy.arithmetic.safe:
            return either((dy - y * along) / s, dy / s - y * (along / s))
        reciprocal = 1 / s  # y * along may underflow before it is divided
        return difference(dy, reciprocal, y, along * reciprocal, 3 + np.abs(reciprocal.value) + reciprocal.bound)


@register
@dataclass(frozen=True)
class Normalize(_Along):
    """y = x over its Euclidean norm along axis `dim`, or over eps where the norm is smaller.

    As in torch the batch axis counts, but it cannot be the one. The norm is the root of the sum of squares: where these leave the
    range of a format, an implementation may divide by infinity or by eps, and the bound gives up.

    Formula       y_i = x_i / s, s = max(r, eps), r = sqrt(sum_k x_k^2)
    Chain rule    ds/dx_j = x_j / r if r > eps, else 0
                  dx_j = dy_j / s - [r > eps] y_j (sum_i dy_i y_i) / s
                  the zero vector has r < eps: y_i = 0, dx_j = dy_j / eps
    Shapes        x, y (batch, ...); i, j, k run along `dim`, everything else is left out.
    Kinks         where r = eps, any share of the second term is a subgradient; own choice none of it.
    Source        the quotient rule; eps as in `torch.nn.functional.normalize`.
    """

    eps: float = 1e-12

    def __post_init__(self) -> None:
        check_dim(self)
        if not 0 < self.eps < math.inf:
            raise ValueError(f"Normalize: wrong eps: got {self.eps}, expected a finite number > 0")

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        total = inner(x, x, self.dim)
        square = self.eps * self.eps
        long = total > square
        s = np.where(long, np.sqrt(np.where(long, total, total * 0 + square)), self.eps)
        y = x / s

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            along = np.where(long, inner(dy, y, self.dim), 0)
            dx = _over(dy, y, along, s)
            if not isinstance(dy, Rounded) or not dy.arithmetic.precision.wide:
                return dx, {}
            # where results are stored in fewer digits than they are computed in, the quotient rule's y / s may underflow
            quotients = np.where(long, inner(dy, y / s, self.dim), 0)
            return either(dx, dy / s - y * quotients), {}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield from super().examples()
        yield cls(eps=0.5), (2, 3)
