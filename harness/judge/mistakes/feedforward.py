"""The mistakes of affine maps, activations and gates: most are another formula for the derivative, given beside its sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, Tensors, faulty
from backproof.reference.exponential import CELU, ELU, SELU, SELU_ALPHA, SELU_SCALE
from backproof.reference.functions import absolute, normal_cdf, normal_pdf, sigmoid, softmax
from backproof.reference.gated import GLU, LogSoftmax, Softmax, SwiGLU
from backproof.reference.layer import Backward, Params
from backproof.reference.linear import Linear
from backproof.reference.piecewise import Hardsigmoid, Hardswish, Hardtanh, Identity, LeakyReLU, PReLU, ReLU, ReLU6
from backproof.reference.rounding import Array
from backproof.reference.smooth import (
    GELU,
    GELU_CUBIC,
    LogSigmoid,
    Mish,
    Sigmoid,
    SiLU,
    Softplus,
    Softsign,
    Tanh,
)
from backproof.reference.trace import LayerTrace

__all__ = ["MISTAKES"]

Types = type | tuple[type, ...]
Options = Callable[[Any], bool]

GELU_SCALE = 2 * (2 / np.pi) ** 0.5


def _slope(code: str, sentence: str, of: Types, slope: Callable[[Any, Array], Array], where: Options = lambda layer: True) -> Mistake:
    """Return the mistake of another derivative, a function of layer and x: dx = dy slope; `where` says for which options it differs."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        return layer.forward(params, x)[0], lambda dy: (dy * slope(layer, x), {})

    return faulty(code, sentence, of, lambda step: ("dx",) if where(step.layer) else (), rule)


def _pullback(code: str, sentence: str, of: Types, dx: Callable[[Any, Array, Array, Array], Array]) -> Mistake:
    """Return the mistake of another dx, a function of layer, x, y and dy."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, _ = layer.forward(params, x)
        return y, lambda dy: (dx(layer, x, y, dy), {})

    return faulty(code, sentence, of, ("dx",), rule)


def _gradients(code: str, sentence: str, of: Types, tensors: Tensors, change: Callable[..., dict[str, Array]]) -> Mistake:
    """Return the mistake of other gradients by name, a function of layer, params, x and dy; those it does not name stay right."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = layer.forward(params, x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dparams = right(dy)
            wrong = change(layer, params, x, dy)
            return wrong.pop("x", dx), {**dparams, **wrong}

        return y, backward

    return faulty(code, sentence, of, tensors, rule)


def _forward(layer: Any, x: Array) -> Array:
    return layer.forward({}, x)[0]


def _one(x: Array) -> Array:
    return x * 0 + 1


# Linear: the weight and its gradient


def _rows(a: Array) -> Array:
    return a.reshape((prod(a.shape[:-1]), a.shape[-1]))


def _square(tensor: str) -> Callable[[LayerTrace], set[str]]:
    return lambda step: {tensor} if step.params["weight"].shape[0] == step.params["weight"].shape[1] > 1 else set()


def _averaged(layer: Linear, params: Params, x: Array, dy: Array) -> dict[str, Array]:
    return {name: d / _rows(x).shape[0] for name, d in layer.forward(params, x)[1](dy)[1].items()}


def _first_position(layer: Linear, params: Params, x: Array, dy: Array) -> dict[str, Array]:
    first = (slice(None), *[0] * (x.ndim - 2))
    return layer.forward(params, x[first])[1](dy[first])[1]


def _of_linear(kept: Callable[[LayerTrace], bool]) -> Callable[[LayerTrace], set[str]]:
    return lambda step: {f"d{name}" for name in step.params} if kept(step) else set()


# PReLU: a weight on one side, for each channel


def _by_channel(layer: PReLU, weight: Array, x: Array) -> Array:
    return weight.reshape([layer.num_parameters if axis == 1 and layer.num_parameters > 1 else 1 for axis in range(x.ndim)])


def _summed(layer: PReLU, summands: Array) -> Array:
    axes = tuple(axis for axis in range(summands.ndim) if axis != 1 or layer.num_parameters == 1)
    return np.sum(summands, axis=axes, keepdims=True).reshape((layer.num_parameters,))


def _first_in_space(layer: PReLU, params: Params, x: Array, dy: Array) -> dict[str, Array]:
    first = (slice(None), slice(None), *[slice(1)] * (x.ndim - 2))
    return {"weight": _summed(layer, np.where(x > 0, 0, dy * x)[first])}


def _prelu(code: str, sentence: str, tensor: str, change: Callable[[PReLU, Array, Array, Array], Array]) -> Mistake:
    """Return the mistake in one gradient, a function of layer, the weight laid along x's axes, x and dy; dweight is summed."""

    def gradients(layer: PReLU, params: Params, x: Array, dy: Array) -> dict[str, Array]:
        wrong = change(layer, _by_channel(layer, params["weight"], x), x, dy)
        return {"x": wrong} if tensor == "dx" else {"weight": _summed(layer, wrong)}

    return _gradients(code, sentence, PReLU, (tensor,), gradients)


# Gates: the last axis in halves


def _halves(x: Array) -> tuple[Array, Array]:
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def _gate(code: str, sentence: str, of: Types, halves: Callable[[Array, Array, Array], tuple[Array, Array]]) -> Mistake:
    """Return the mistake in a gated unit, a function of the halves a, b and of dy that gives da and db."""

    def dx(layer: Any, x: Array, y: Array, dy: Array) -> Array:
        return np.concatenate(halves(*_halves(x), dy), axis=-1)

    return _pullback(code, sentence, of, dx)


def _silu_slope(x: Array) -> Array:
    return sigmoid(x) + x * sigmoid(x) * sigmoid(-x)


def _left_slope(layer: Any, x: Array) -> Array:
    """Return the derivative of the exponential side, carried on to the right."""
    alpha = getattr(layer, "alpha", SELU_ALPHA)
    return np.exp(x / alpha) if isinstance(layer, CELU) else alpha * np.exp(x) * (SELU_SCALE if isinstance(layer, SELU) else 1)


def _bell(x: Array) -> Array:
    """e^(-x^2/2), the normal density without its divisor."""
    return np.exp(-(x * x) / 2)


def _tanh_gate(x: Array) -> tuple[Array, Array]:
    """Return s(v) and s(-v) of GELU's approximation."""
    v = GELU_SCALE * (x + GELU_CUBIC * x * x * x)
    return sigmoid(v), sigmoid(-v)


def _gelu_gate(layer: GELU, x: Array) -> Array:
    return _tanh_gate(x)[0] if layer.approximate == "tanh" else normal_cdf(x)


def _gelu_slope(layer: GELU, x: Array) -> Array:
    if layer.approximate == "none":
        return normal_cdf(x) + x * normal_pdf(x)
    (s, complement), inner = _tanh_gate(x), GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)
    return s + x * s * complement * inner


def _other_gelu(layer: GELU, x: Array) -> Array:
    return _gelu_slope(replace(layer, approximate="none" if layer.approximate == "tanh" else "tanh"), x)


def _without_cubic(layer: GELU, x: Array) -> Array:
    s, complement = _tanh_gate(x)
    return s + x * s * complement * GELU_SCALE


def _mish_gate(x: Array) -> Array:
    return np.tanh(np.logaddexp(x, 0.0))


def _sum(layer: Softmax | LogSoftmax, a: Array) -> Array:
    return np.sum(a, axis=layer.dim, keepdims=True)


RELUS, SIGMOIDS = (ReLU, LeakyReLU), (Sigmoid, Tanh)

MISTAKES: tuple[Mistake, ...] = (
    # affine maps
    _gradients("linear-weight-not-transposed", "{tensor} is dy W^T, where it should be dy W", Linear, _square("dx"),
               lambda layer, params, x, dy: {"x": dy @ params["weight"].T}),
    _gradients("linear-output-for-input", "{tensor} is dy^T y: the output is cached in place of the input", Linear, _square("dweight"),
               lambda layer, params, x, dy: {"weight": _rows(dy).T @ _rows(layer.forward(params, x)[0])}),
    _gradients("linear-mean-over-rows", "{tensor} is a mean over the rows of x where dy holds the loss's mean already", Linear,
               _of_linear(lambda step: step.inputs[0].ndim > 1), _averaged),
    _gradients("linear-first-position-only", "{tensor} is summed over the batch alone: the other leading axes are missing but for "
               "their first position", Linear, _of_linear(lambda step: step.inputs[0].ndim > 2), _first_position),
    # pieces
    _slope("identity-gated", "{tensor} is 0 where x is negative, as a ReLU's", Identity, lambda layer, x: np.where(x > 0, _one(x), 0)),
    _pullback("identity-clipped", "{tensor} is dy cut to [-1, 1]: a clipping of gradients is left in", Identity,
              lambda layer, x, y, dy: np.minimum(np.maximum(dy, -1), 1)),
    _slope("activation-for-derivative", "{tensor} is dy y: the activation stands where its derivative should",
           (Identity, ReLU, ReLU6, LeakyReLU, Hardtanh, Hardsigmoid, Hardswish, SELU, SiLU, Mish, Tanh, Softsign, LogSigmoid), _forward),
    _pullback("gate-at-upstream", "{tensor} takes the sign of dy for the sign of x", RELUS,
              lambda layer, x, y, dy: layer.forward({}, dy)[1](dy)[0]),
    _pullback("gate-at-both", "{tensor} is 0 also where dy is negative: guided backpropagation, not the gradient", (ReLU, ReLU6),
              lambda layer, x, y, dy: layer.forward({}, x)[1](np.where(dy > 0, dy, 0))[0]),
    _slope("gate-inverted", "{tensor} lets dy through where x is negative, not where it is positive", ReLU,
           lambda layer, x: np.where(x > 0, 0, _one(x))),
    _slope("cap-forgotten", "{tensor} lets dy through above the upper bound", (ReLU6, Hardtanh),
           lambda layer, x: np.where(x > (0 if isinstance(layer, ReLU6) else layer.min_val), _one(x), 0)),
    _slope("floor-forgotten", "{tensor} lets dy through below the lower bound", (ReLU6, Hardtanh),
           lambda layer, x: np.where(x < (6 if isinstance(layer, ReLU6) else layer.max_val), _one(x), 0)),
    _slope("hardtanh-smooth-slope", "{tensor} has the slope 1 - y^2 of the smooth tanh", Hardtanh,
           lambda layer, x: 1 - _forward(layer, x) * _forward(layer, x)),
    _slope("hardsigmoid-sixth-missing", "{tensor} lacks the factor 1/6", Hardsigmoid,
           lambda layer, x: np.where(absolute(x) < 3, _one(x), 0)),
    _slope("hardsigmoid-not-cut", "{tensor} is dy / 6 everywhere, also where y is cut off", Hardsigmoid, lambda layer, x: _one(x) / 6),
    _slope("hardsigmoid-smooth-slope", "{tensor} has the slope y (1 - y) of the smooth sigmoid", Hardsigmoid,
           lambda layer, x: _forward(layer, x) * (1 - _forward(layer, x))),
    _slope("hardsigmoid-other-knees", "{tensor} is dy / 5 up to |x| = 2.5: another hard sigmoid, x / 5 + 1/2", Hardsigmoid,
           lambda layer, x: np.where(absolute(x) < 2.5, _one(x) / 5, 0)),
    _slope("hardswish-not-cut", "{tensor} is dy (2 x + 3) / 6 everywhere, also past the knees", Hardswish,
           lambda layer, x: (2 * x + 3) / 6),
    _slope("hardswish-gate-only", "{tensor} lacks the term x g' / 6 of the product rule", Hardswish,
           lambda layer, x: np.minimum(np.maximum(x + 3, 0), 6) / 6),
    _slope("hardswish-right-lost", "{tensor} is 0 right of 3, where the slope is 1", Hardswish,
           lambda layer, x: np.where(absolute(x) < 3, (2 * x + 3) / 6, 0)),
    _slope("leaky-slope-side", "{tensor} has the slope on the right, where it is 1, and 1 on the left", LeakyReLU,
           lambda layer, x: np.where(x > 0, layer.negative_slope * _one(x), 1)),
    _slope("leaky-slope-forgotten", "{tensor} is 0 on the left: the slope there is forgotten", LeakyReLU,
           lambda layer, x: np.where(x > 0, _one(x), 0)),
    _slope("leaky-slope-everywhere", "{tensor} has the left side's slope everywhere", LeakyReLU,
           lambda layer, x: layer.negative_slope * _one(x)),
    _prelu("prelu-slope-side", "{tensor} has the weight on the right, where the slope is 1", "dx",
           lambda layer, weight, x, dy: np.where(x > 0, weight * dy, dy)),
    _prelu("prelu-weight-side", "{tensor} sums dy x over the positive x", "dweight",
           lambda layer, weight, x, dy: np.where(x > 0, dy * x, 0)),
    _prelu("prelu-weight-not-gated", "{tensor} sums dy x over all x, not over the negative ones", "dweight",
           lambda layer, weight, x, dy: dy * x),
    _prelu("prelu-input-missing", "{tensor} sums dy where x is negative: the factor x is missing", "dweight",
           lambda layer, weight, x, dy: np.where(x > 0, 0, dy)),
    _gradients("prelu-not-over-space", "{tensor} holds the first position behind the channels only: the sum over the space is missing",
               PReLU, lambda step: ("dweight",) if step.inputs[0].ndim > 2 else (), _first_in_space),
    # exponentials on one side
    _slope("elu-alpha-forgotten", "{tensor} is dy e^x on the left: alpha is forgotten", ELU,
           lambda layer, x: np.exp(np.minimum(x, 0)), lambda layer: layer.alpha != 1),
    _slope("elu-output-for-slope", "{tensor} is dy y on the left, where it should be dy (y + alpha)", ELU,
           lambda layer, x: np.where(x > 0, _one(x), _forward(layer, x))),
    _slope("elu-exponential-missing", "{tensor} is dy alpha on the left, as a leaky ReLU's: e^x is missing", ELU,
           lambda layer, x: np.where(x > 0, _one(x), layer.alpha)),
    _slope("exponential-everywhere", "{tensor} has the left side's exponential on the right, too", (ELU, SELU, CELU),
           _left_slope),
    _slope("selu-scale-missing", "{tensor} lacks the factor scale", SELU,
           lambda layer, x: np.where(x > 0, _one(x), SELU_ALPHA * np.exp(np.minimum(x, 0)))),
    _slope("selu-alpha-missing", "{tensor} lacks alpha on the left", SELU, lambda layer, x: SELU_SCALE * np.exp(np.minimum(x, 0))),
    _slope("celu-alpha-twice", "{tensor} has the factor alpha, which the inner derivative 1 / alpha takes away", CELU,
           lambda layer, x: np.where(x > 0, _one(x), layer.alpha * _left_slope(layer, x)), lambda layer: layer.alpha != 1),
    _slope("celu-inner-alpha-missing", "{tensor} is dy e^x on the left: x is not divided by alpha", CELU,
           lambda layer, x: np.exp(np.minimum(x, 0)), lambda layer: layer.alpha != 1),
    _slope("celu-divided-by-alpha", "{tensor} is divided by alpha on the left: the factor alpha in front of e^(x / alpha) is missing", CELU,
           lambda layer, x: np.where(x > 0, _one(x), _left_slope(layer, x) / layer.alpha), lambda layer: layer.alpha != 1),
    # products x gate(x)
    _slope("gelu-slope-of-gate-missing", "{tensor} is dy times the gate alone: the term x phi(x) of the product rule is missing", GELU,
           _gelu_gate),
    _slope("gelu-gate-missing", "{tensor} lacks the term Phi(x) of the product rule", GELU,
           lambda layer, x: _gelu_slope(layer, x) - _gelu_gate(layer, x)),
    _slope("gelu-other-form", "{tensor} is the derivative of the other form: tanh for erf, or erf for tanh", GELU, _other_gelu),
    _slope("gelu-density-not-normalised", "{tensor} lacks the divisor sqrt(2 pi) of the density", GELU,
           lambda layer, x: normal_cdf(x) + x * _bell(x), lambda layer: layer.approximate == "none"),
    _slope("gelu-cubic-slope-missing", "{tensor} lacks the term 3 c x^2 of the inner derivative", GELU, _without_cubic,
           lambda layer: layer.approximate == "tanh"),
    _slope("silu-gate-only", "{tensor} is dy s(x): the term x s'(x) of the product rule is missing", SiLU, lambda layer, x: sigmoid(x)),
    _slope("silu-complement-forgotten", "{tensor} has x s(x) where it should have x s(x) (1 - s(x))", SiLU,
           lambda layer, x: sigmoid(x) + x * sigmoid(x)),
    _slope("silu-gate-missing", "{tensor} lacks the term s(x) of the product rule", SiLU, lambda layer, x: x * sigmoid(x) * sigmoid(-x)),
    _slope("mish-gate-only", "{tensor} is dy tanh(p): the term x sech^2(p) s(x) is missing", Mish, lambda layer, x: _mish_gate(x)),
    _slope("mish-sigmoid-missing", "{tensor} lacks s(x), the derivative of p = log(1 + e^x)", Mish,
           lambda layer, x: _mish_gate(x) + x * (1 - _mish_gate(x) * _mish_gate(x))),
    _slope("mish-sech-missing", "{tensor} lacks sech^2(p), the derivative of the tanh", Mish,
           lambda layer, x: _mish_gate(x) + x * sigmoid(x)),
    # sigmoids and their kin
    _slope("input-for-output", "{tensor} takes x where the formula has y: it expects the output in place of the input", SIGMOIDS,
           lambda layer, x: x * (1 - x) if isinstance(layer, Sigmoid) else 1 - x * x),
    _slope("sigmoid-complement-forgotten", "{tensor} is dy y: the factor 1 - y is missing", Sigmoid, _forward),
    _slope("sigmoid-as-tanh", "{tensor} is dy (1 - y^2), the tanh's derivative", Sigmoid,
           lambda layer, x: 1 - _forward(layer, x) * _forward(layer, x)),
    _slope("tanh-not-squared", "{tensor} is dy (1 - y): y is not squared", Tanh, lambda layer, x: 1 - np.tanh(x)),
    _slope("tanh-as-sigmoid", "{tensor} is dy y (1 - y), the sigmoid's derivative", Tanh, lambda layer, x: np.tanh(x) * (1 - np.tanh(x))),
    _slope("log-sigmoid-side", "{tensor} is dy s(x), where it should be dy s(-x)", LogSigmoid, lambda layer, x: sigmoid(x)),
    _slope("log-sigmoid-as-sigmoid", "{tensor} is dy s(x) s(-x): the logarithm's 1 / s(x) is missing", LogSigmoid,
           lambda layer, x: sigmoid(x) * sigmoid(-x)),
    _slope("softplus-beta-forgotten", "{tensor} is dy s(x): beta is forgotten", Softplus, lambda layer, x: sigmoid(x),
           lambda layer: layer.beta != 1),
    _slope("softplus-not-divided", "{tensor} has the factor beta, which the division by beta takes away", Softplus,
           lambda layer, x: layer.beta * sigmoid(layer.beta * x), lambda layer: layer.beta != 1),
    _slope("softplus-side", "{tensor} is dy s(-beta x), where it should be dy s(beta x)", Softplus,
           lambda layer, x: sigmoid(-layer.beta * x)),
    _slope("softplus-as-relu", "{tensor} is dy where x is positive, as a ReLU's", Softplus, lambda layer, x: np.where(x > 0, _one(x), 0)),
    _slope("softsign-not-squared", "{tensor} is dy / (1 + |x|): the denominator is not squared", Softsign,
           lambda layer, x: 1 / (1 + absolute(x))),
    _slope("softsign-sign-missing", "{tensor} takes 1 for the derivative of |x|, on the left too", Softsign,
           lambda layer, x: (1 + absolute(x) - x) / ((1 + absolute(x)) * (1 + absolute(x)))),
    # the softmax family
    _pullback("cross-term-dropped", "{tensor} lacks the cross term, the sum over the other outputs", (Softmax, LogSoftmax),
              lambda layer, x, y, dy: y * dy if isinstance(layer, Softmax) else dy),
    _pullback("softmax-diagonal-only", "{tensor} is dy y (1 - y), the diagonal of the Jacobian alone", Softmax,
              lambda layer, x, y, dy: dy * y * (1 - y)),
    _pullback("softmax-sum-unweighted", "{tensor} takes sum dy out of dy: the weights y of the sum are missing", Softmax,
              lambda layer, x, y, dy: y * (dy - _sum(layer, dy))),
    _pullback("softmax-outer-factor-missing", "{tensor} is dy - sum dy y: the factor y in front is missing", Softmax,
              lambda layer, x, y, dy: dy - _sum(layer, dy * y)),
    _pullback("log-softmax-sum-missing", "{tensor} is dy - a dy: the sum over dy is missing", LogSoftmax,
              lambda layer, x, y, dy: dy - softmax(x, layer.dim) * dy),
    _pullback("log-softmax-output-for-probability", "{tensor} is dy - y sum dy: y is the logarithm of the probability", LogSoftmax,
              lambda layer, x, y, dy: dy - y * _sum(layer, dy)),
    _pullback("log-softmax-as-softmax", "{tensor} is a (dy - sum dy a), the softmax's", LogSoftmax,
              lambda layer, x, y, dy: softmax(x, layer.dim) * (dy - _sum(layer, dy * softmax(x, layer.dim)))),
    # gated units
    _pullback("gate-halves-swapped", "{tensor} has the gradients of its two halves in each other's place", (GLU, SwiGLU),
              lambda layer, x, y, dy: np.concatenate(_halves(layer.forward({}, x)[1](dy)[0])[::-1], axis=-1)),
    _gate("glu-value-missing", "{tensor} lacks the factor a in the gate's half", GLU,
          lambda a, b, dy: (dy * sigmoid(b), dy * sigmoid(b) * sigmoid(-b))),
    _gate("glu-complement-forgotten", "{tensor} lacks the factor 1 - s(b) in the gate's half", GLU,
          lambda a, b, dy: (dy * sigmoid(b), dy * a * sigmoid(b))),
    _gate("glu-gate-missing", "{tensor} is dy in the value's half: the factor s(b) is missing", GLU,
          lambda a, b, dy: (dy, dy * a * sigmoid(b) * sigmoid(-b))),
    _gate("swiglu-product-rule", "{tensor} is dy b s(a) in the first half: the term a s'(a) is missing", SwiGLU,
          lambda a, b, dy: (dy * b * sigmoid(a), dy * a * sigmoid(a))),
    _gate("swiglu-value-missing", "{tensor} lacks the factor b in the first half", SwiGLU,
          lambda a, b, dy: (dy * _silu_slope(a), dy * a * sigmoid(a))),
    _gate("swiglu-not-activated", "{tensor} is dy a in the second half: a has not gone through the SiLU", SwiGLU,
          lambda a, b, dy: (dy * b * _silu_slope(a), dy * a)),
)
