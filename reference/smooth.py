"""Activations made of exponentials, each by a form that keeps its digits far into both tails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.direction import SATURATED
from backproof.reference.functions import (
    absolute,
    distributed,
    log_sigmoid,
    normal_cdf,
    normal_pdf,
    sigmoid,
    sigmoid_complement,
    softplus,
    softplus_slope,
)
from backproof.reference.layer import Backward, Elementwise, Example, Params, register
from backproof.reference.rounding import Array, either

__all__ = ["GELU", "LogSigmoid", "Mish", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh"]

GELU_CUBIC = 0.044715


@register
@dataclass(frozen=True)
class GELU(Elementwise):
    """y = x Phi(x), Phi the normal distribution, or its approximation by a hyperbolic tangent.

    Formula       none:  y_n = x_n Phi(x_n)
                  tanh:  y_n = x_n s(v_n), v_n = 2 sqrt(2/pi) (x_n + c x_n^3), c = 0.044715
                         (x/2 (1 + tanh(v/2)) = x s(v), without the cancellation at the left)
    Chain rule    none:  dx_n = dy_n (Phi(x_n) + x_n phi(x_n)), phi = Phi' the normal density
                  tanh:  dx_n = dy_n (s(v_n) + x_n s(v_n) s(-v_n) v'_n), v'_n = 2 sqrt(2/pi) (1 + 3 c x_n^2)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Hendrycks, Gimpel, *Gaussian Error Linear Units*, 2016.
    """

    approximate: str = "none"

    def __post_init__(self) -> None:
        if self.approximate not in ("none", "tanh"):
            raise ValueError(f"GELU: unknown approximate: got {self.approximate!r}, expected 'none' or 'tanh'")

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        return self._tanh(x) if self.approximate == "tanh" else self._exact(x)

    def _exact(self, x: Array) -> tuple[Array, Backward]:
        cdf = normal_cdf(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            pdf = normal_pdf(x)
            return distributed(dy * (cdf + x * pdf), dy, x, cdf, pdf), {}

        return x * cdf, backward

    def _tanh(self, x: Array) -> tuple[Array, Backward]:
        scale = 2 * math.sqrt(2 / math.pi)
        square = x * x
        v = scale * (x + GELU_CUBIC * (square * x))
        s = sigmoid(v)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dv = scale * (1 + GELU_CUBIC * (3 * square))
            slope = sigmoid_complement(v, s) * dv
            return distributed(dy * (s * (1 + x * slope)), dy, x, s, s * slope), {}

        return x * s, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls("tanh"), (3, 2)


@register
@dataclass(frozen=True)
class SiLU(Elementwise):
    """y = x s(x), s the logistic sigmoid; also called swish.

    Formula       y_n = x_n s(x_n)
    Chain rule    dx_n = dy_n (s(x_n) + x_n s(x_n) s(-x_n)), since s' = s(x) s(-x)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Elfwing, Uchibe, Doya, *Sigmoid-Weighted Linear Units*, Neural Networks 107 (2018).
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        s = sigmoid(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            complement = sigmoid_complement(x, s)
            return distributed(dy * (s * (1 + x * complement)), dy, x, s, s * complement), {}

        return x * s, backward


@register
@dataclass(frozen=True)
class Mish(Elementwise):
    """y = x tanh(softplus(x)).

    Formula       y_n = x_n t_n, t_n = tanh(p_n), p_n = log(1 + e^x_n)
    Chain rule    dx_n = dy_n (t_n + x_n (1 - t_n^2) s(x_n)), since p' = s(x); 1 - t^2 = 4 s(2p) s(-2p)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Misra, *Mish: A Self Regularized Non-Monotonic Activation Function*, BMVC 2020.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        p = softplus(x)
        t = np.tanh(p)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            from_output = np.where(p > SATURATED / 2, 0, 1 - t * t)
            slope = either(4 * (sigmoid(2 * p) * sigmoid(-2 * p)), from_output)
            slope = sigmoid(x) * slope
            return distributed(dy * (t + x * slope), dy, x, t, slope), {}

        return x * t, backward


@register
@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = s(x) = 1 / (1 + e^-x).

    Formula       y_n = 1 / (1 + e^-x_n)
    Chain rule    dx_n = dy_n e^-x_n / (1 + e^-x_n)^2 = dy_n s(x_n) s(-x_n) = dy_n y_n (1 - y_n)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, equation 3.30 and 3.33.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = sigmoid(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy * (y * sigmoid_complement(x, y)), {}

        return y, backward


@register
@dataclass(frozen=True)
class LogSigmoid(Elementwise):
    """y = log s(x) = -softplus(-x).

    Formula       y_n = -log(1 + e^-x_n)
    Chain rule    dx_n = dy_n e^-x_n / (1 + e^-x_n) = dy_n s(-x_n) = dy_n e^(-x_n + y_n)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, section 3.10.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = log_sigmoid(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            from_output = np.where(x < -SATURATED, 1, np.exp(y - x))
            return dy * either(sigmoid(-x), from_output), {}

        return y, backward


@register
@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh x.

    Formula       y_n = (e^x_n - e^-x_n) / (e^x_n + e^-x_n)
    Chain rule    dx_n = dy_n sech^2 x_n = dy_n 4 s(2 x_n) s(-2 x_n) = dy_n (1 - y_n^2)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        LeCun, Bottou, Orr, Mueller, *Efficient BackProp*, 1998, section 4.4.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y = np.tanh(x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            from_output = np.where(absolute(x) > SATURATED / 2, 0, 1 - y * y)
            return dy * either(4 * (sigmoid(2 * x) * sigmoid(-2 * x)), from_output), {}

        return y, backward


@register
@dataclass(frozen=True)
class Softplus(Elementwise):
    """y = log(1 + e^(beta x)) / beta, over the whole range (torch turns it into y = x past beta x = 20).

    Formula       y_n = log(1 + e^(beta x_n)) / beta
    Chain rule    dx_n = dy_n s(beta x_n) = dy_n e^(beta x_n - beta y_n)
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none.
    Source        Dugas, Bengio, Belisle, Nadeau, Garcia, NeurIPS 2000, equation 2.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"Softplus: wrong beta: got {self.beta}, expected a finite number > 0")

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        v = self.beta * x
        p = softplus(v)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            slope = softplus_slope(v, p)
            # through softplus(beta x) / beta the chain rule divides by beta first, where the product may underflow
            return either(dy * slope, dy / self.beta * slope * self.beta), {}

        return p / self.beta, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(0.7), (3, 2)


@register
@dataclass(frozen=True)
class Softsign(Elementwise):
    """y = x / (1 + |x|).

    Formula       y_n = x_n / d_n, d_n = 1 + |x_n|
    Chain rule    dx_n = dy_n / d_n^2 = dy_n (1 - |y_n|) / d_n
    Shapes        x, y (batch, ...); n runs over every entry.
    Kinks         none: the kink of |x| cancels, both slopes are 1 at 0.
    Source        Turian, Bergstra, Bengio, *Quadratic Features and Deep Architectures for Chunking*, NAACL 2009.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        d = 1 + absolute(x)
        y = x / d

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy * either(1 / (d * d), 1 / d - absolute(y) / d), {}

        return y, backward
