"""Activations made of straight or parabolic pieces: rational arithmetic evaluates them exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.layer import Backward, Elementwise, Example, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array, either

__all__ = ["Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "PReLU", "ReLU", "ReLU6"]


@register
@dataclass(frozen=True)
class Identity(Elementwise):
    """y = x.

    Formula       y_n = x_n
    Chain rule    dx_n = dy_n
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        none needed.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy, {}

        return x, backward


@register
@dataclass(frozen=True)
class ReLU(Elementwise):
    """y = max(0, x).

    Formula       y_n = x_n if x_n > 0, else 0
    Chain rule    dx_n = dy_n if x_n > 0, else 0
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         0, where any slope of [0, 1] is a subgradient; own choice 0.
    Source        Nair, Hinton, *Rectified Linear Units Improve Restricted Boltzmann Machines*, ICML 2010.
    """

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0,)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = np.where(x > 0, x, 0)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.where(x > 0, dy, 0), {}

        return y, backward


@register
@dataclass(frozen=True)
class LeakyReLU(Elementwise):
    """y = x on the right, negative_slope x on the left.

    Formula       y_n = x_n if x_n > 0, else a x_n, with a = negative_slope
    Chain rule    dx_n = dy_n if x_n > 0, else a dy_n
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         0 unless a = 1, where any slope between a and 1 is valid; own choice a.
    Source        Maas, Hannun, Ng, *Rectifier Nonlinearities Improve Neural Network Acoustic Models*, ICML 2013.
    """

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        if not math.isfinite(self.negative_slope):
            raise ValueError(f"LeakyReLU: wrong negative_slope: got {self.negative_slope}, expected a finite number")

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0,) if self.negative_slope != 1 else ()

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = np.where(x > 0, x, self.negative_slope * x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.where(x > 0, dy, self.negative_slope * dy), {}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(-0.5), (3, 2)
        yield cls(1.0), (3, 2)


@register
@dataclass(frozen=True)
class PReLU(Elementwise):
    """y = x on the right, weight x on the left; one learnt `weight` for all, or one per channel (axis 1).

    Formula       y_ncs = x_ncs if x_ncs > 0, else w_c x_ncs
    Chain rule    dx_ncs = dy_ncs if x_ncs > 0, else w_c dy_ncs
                  dw_c   = sum_ns dy_ncs dy_ncs/dw_c = sum over n, s with x_ncs <= 0 of dy_ncs x_ncs
    Shapes        x, y (batch, channels, ...), weight (num_parameters,); s runs over the axes behind the channels.
                  With one parameter x may have any shape, and the sum runs over every axis.
    Kinks         0, where any slope between w_c and 1 is valid; own choice w_c. dw has none: its summand is 0 there.
    Source        He, Zhang, Ren, Sun, *Delving Deep into Rectifiers*, ICCV 2015, section 2.1.
    """

    num_parameters: int = 1

    def __post_init__(self) -> None:
        if self.num_parameters < 1:
            raise ValueError(f"PReLU: wrong num_parameters: got {self.num_parameters}, expected at least 1")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": (self.num_parameters,)}

    def output_shape(self, shape: Shape) -> Shape:
        if self.num_parameters > 1 and (not shape or shape[0] != self.num_parameters):
            raise ShapeError(self, shape, f"{self.num_parameters} channels first")
        return shape

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0,)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        channels = 1 if self.num_parameters > 1 else None
        shape = [self.num_parameters if axis == channels else 1 for axis in range(x.ndim)]
        weight = params["weight"].reshape(shape)
        y = np.where(x > 0, x, weight * x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx = np.where(x > 0, dy, weight * dy)
            others = tuple(axis for axis in range(x.ndim) if axis != channels)
            dweight = np.sum(np.where(x > 0, 0, dy * x), axis=others)
            return dx, {"weight": dweight.reshape((self.num_parameters,))}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 3)
        yield cls(3), (3, 2)
        yield cls(2), (2,)


@register
@dataclass(frozen=True)
class ReLU6(Elementwise):
    """y = min(max(0, x), 6).

    Formula       y_n = 0 if x_n <= 0, 6 if x_n >= 6, else x_n
    Chain rule    dx_n = dy_n if 0 < x_n < 6, else 0
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         0 and 6, where any slope of [0, 1] is a subgradient; own choice 0.
    Source        Krizhevsky, *Convolutional Deep Belief Networks on CIFAR-10*, 2010.
    """

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (0.0, 6.0)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = np.where(x <= 0, 0, np.where(x >= 6, 6, x))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.where((x > 0) & (x < 6), dy, 0), {}

        return y, backward


@register
@dataclass(frozen=True)
class Hardtanh(Elementwise):
    """y = x cut to [min_val, max_val].

    Formula       y_n = lo if x_n <= lo, hi if x_n >= hi, else x_n, with lo = min_val, hi = max_val
    Chain rule    dx_n = dy_n if lo < x_n < hi, else 0
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         lo and hi, where any slope of [0, 1] is a subgradient; own choice 0.
    Source        Collobert, *Large Scale Machine Learning*, thesis, 2004.
    """

    min_val: float = -1.0
    max_val: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.min_val) and math.isfinite(self.max_val) and self.min_val < self.max_val):
            raise ValueError(f"Hardtanh: wrong range: got min_val={self.min_val}, max_val={self.max_val}, "
                             f"expected finite numbers with min_val < max_val")

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (self.min_val, self.max_val)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        lo, hi = self.min_val, self.max_val
        y = np.where(x <= lo, lo, np.where(x >= hi, hi, x))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.where((x > lo) & (x < hi), dy, 0), {}

        return y, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(-0.25, 2.0), (3, 2)


@register
@dataclass(frozen=True)
class Hardsigmoid(Elementwise):
    """y = relu6(x + 3) / 6, the sigmoid of straight pieces.

    Formula       y_n = 0 if x_n <= -3, 1 if x_n >= 3, else (x_n + 3) / 6
    Chain rule    dx_n = dy_n / 6 if -3 < x_n < 3, else 0
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         -3 and 3, where any slope of [0, 1/6] is a subgradient; own choice 0.
    Source        Howard et al., *Searching for MobileNetV3*, ICCV 2019, section 5.2.
    """

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (-3.0, 3.0)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        # implementations form x relu6(x + 3) / 6 throughout, which from 3 on is x * 6 / 6
        y = np.where(x <= -3, 0, np.where(x >= 3, 1, (x + 3) / 6))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.where((x > -3) & (x < 3), dy / 6, 0), {}

        return y, backward


@register
@dataclass(frozen=True)
class Hardswish(Elementwise):
    """y = x relu6(x + 3) / 6, the SiLU of straight and parabolic pieces.

    Formula       y_n = x_n g_n / 6, g_n = 0 if x_n <= -3, 6 if x_n >= 3, else x_n + 3
    Chain rule    dx_n = dy_n (g_n + x_n g'_n) / 6 = 0 if x_n <= -3, dy_n if x_n >= 3, else dy_n (x_n + 3 + x_n) / 6
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         -3, with slopes of [-1/2, 0], own choice 0; and 3, with slopes of [1, 3/2], own choice 1.
    Source        Howard et al., *Searching for MobileNetV3*, ICCV 2019, section 5.2.
    """

    def kinks(self, params: Params) -> tuple[float, ...]:
        return (-3.0, 3.0)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        gate = np.where(x <= -3, 0, np.where(x >= 3, 6, x + 3))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            inner = dy * (gate / 6 + x / 6)
            return np.where(x <= -3, 0, np.where(x >= 3, either(dy, dy * 6 / 6), inner)), {}

        return x * gate / 6, backward
