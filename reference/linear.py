"""The affine map, the one layer of a feed-forward network that holds most of its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.functions import affine
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array

__all__ = ["Linear"]


@register
@dataclass(frozen=True)
class Linear(Layer):
    """y = x W^T + b over the last axis; `weight` is (out_features, in_features), `bias` (out_features,).

    Formula       y_ni = sum_j x_nj W_ij + b_i
    Chain rule    dx_nj = sum_i dy_ni dy_ni/dx_nj = sum_i dy_ni W_ij       dx = dy W
                  dW_ij = sum_n dy_ni x_nj                                 dW = dy^T x
                  db_i  = sum_n dy_ni                                      db = sum over every axis but the last
    Shapes        x (batch, ..., in_features), y (batch, ..., out_features); n runs over all leading axes.
    Kinks         none.
    Source        Rumelhart, Hinton, Williams, Nature 323 (1986), equations 4-6.
    """

    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        if self.out_features < 1:
            raise ValueError(f"Linear: out_features must be positive: got {self.out_features}")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self.out_features, shape[-1])}
        if self.bias:
            found["bias"] = (self.out_features,)
        return found

    def output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ShapeError(self, shape, "at least one axis of features")
        return (*shape[:-1], self.out_features)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        weight = params["weight"]
        y = affine(x, weight, params["bias"]) if self.bias else x @ weight.T

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            rows = dy.reshape((-1, self.out_features))
            dparams = {"weight": rows.T @ x.reshape((-1, x.shape[-1]))}
            if self.bias:
                dparams["bias"] = np.sum(rows, axis=0)
            return dy @ weight, dparams

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(3), (4,)
        yield cls(4, bias=False), (2, 4)
        yield cls(1), (1,)
