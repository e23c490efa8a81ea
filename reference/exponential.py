"""Exponential linear units: the identity, perhaps scaled, on the right, and an exponential on the left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.functions import expm1
from backproof.reference.layer import Backward, Elementwise, Example, Params, register
from backproof.reference.rounding import Array, either

__all__ = ["CELU", "ELU", "SELU", "SELU_ALPHA", "SELU_SCALE"]

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


# The ELUs' slope is 0 far on the left, where dy times a factor of it, taken first, may overflow: `either` covers that order.


@register
@dataclass(frozen=True)
class ELU(Elementwise):
    """y = x on the right, alpha (e^x - 1) on the left.

    Formula       y_n = x_n if x_n > 0, else alpha (e^x_n - 1)
    Chain rule    dx_n = dy_n if x_n > 0, else dy_n alpha e^x_n = dy_n (y_n + alpha)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         0 unless alpha = 1, where any slope between alpha and 1 is valid; own choice alpha.
    Source        Clevert, Unterthiner, Hochreiter, *Fast and Accurate Deep Network Learning by ELUs*, ICLR 2016.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"ELU: wrong alpha: got {self.alpha}, expected a finite number > 0")

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0,) if self.alpha != 1 else ()

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        left = np.where(x > 0, 0, x)
        y_left = self.alpha * expm1(left)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            slope = np.exp(left)
            return np.where(x > 0, dy, either(dy * (self.alpha * slope), dy * self.alpha * slope)), {}

        return np.where(x > 0, x, y_left), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(1.6), (3, 2)


@register
@dataclass(frozen=True)
class SELU(Elementwise):
    """y = scale ELU(x) with the alpha and scale that keep mean 0 and variance 1 from layer to layer.

    Formula       y_n = scale x_n if x_n > 0, else scale alpha (e^x_n - 1)
    Chain rule    dx_n = dy_n scale if x_n > 0, else dy_n scale alpha e^x_n = dy_n (y_n + scale alpha)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         0, where any slope of [scale, scale alpha] is valid; own choice scale alpha.
    Source        Klambauer, Unterthiner, Mayr, Hochreiter, *Self-Normalizing Neural Networks*, NeurIPS 2017.
    """

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0,)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        scale_alpha = SELU_SCALE * SELU_ALPHA
        left = np.where(x > 0, 0, x)
        y_left = scale_alpha * expm1(left)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            slope = np.exp(left)
            return np.where(x > 0, dy * SELU_SCALE, either(dy * (scale_alpha * slope), dy * scale_alpha * slope)), {}

        return np.where(x > 0, SELU_SCALE * x, y_left), backward


@register
@dataclass(frozen=True)
class CELU(Elementwise):
    """y = x on the right, alpha (e^(x / alpha) - 1) on the left: the ELU whose slope is continuous for every alpha.

    Formula       y_n = x_n if x_n > 0, else alpha (e^(x_n / alpha) - 1)
    Chain rule    dx_n = dy_n if x_n > 0, else dy_n e^(x_n / alpha) = dy_n (y_n / alpha + 1)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none: both slopes are 1 at 0.
    Source        Barron, *Continuously Differentiable Exponential Linear Units*, 2017.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"CELU: wrong alpha: got {self.alpha}, expected a finite number > 0")

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        left = np.where(x > 0, 0, x) / self.alpha
        y_left = self.alpha * expm1(left)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            slope = np.exp(left)
            # the chain rule of alpha expm1(x / alpha) multiplies by alpha first, where the product may underflow, or divides first
            steps = either(dy / self.alpha * self.alpha * slope, dy * self.alpha * slope / self.alpha)
            return np.where(x > 0, dy, either(dy * slope, steps)), {}

        return np.where(x > 0, x, y_left), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(0.7), (3, 2)
