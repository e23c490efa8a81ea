"""JAX: the affine map and the activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import activations as A
from backproof.reference.linear import Linear
from jax import Array

Params = dict[str, Array]


def linear(layer: Any, params: Params, x: Array) -> Array:
    y = x @ params["weight"].T
    return y + params["bias"] if layer.bias else y


def identity(layer: Any, params: Params, x: Array) -> Array:
    return jnp.positive(x)


def relu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.relu(x)


def leaky_relu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.leaky_relu(x, layer.negative_slope)


def prelu(layer: Any, params: Params, x: Array) -> Array:
    slope = params["weight"].reshape(-1, *[1] * (x.ndim - 2)) if layer.num_parameters > 1 else params["weight"]
    return jax.nn.leaky_relu(x, slope)


def relu6(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.relu6(x)


def elu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.elu(x, layer.alpha)


def selu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.selu(x)


def celu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.celu(x, layer.alpha)


def gelu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.gelu(x, approximate=layer.approximate == "tanh")


def silu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.silu(x)


def mish(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.mish(x)


def sigmoid(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.sigmoid(x)


def log_sigmoid(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.log_sigmoid(x)


def tanh(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.tanh(x)


def softplus(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.softplus(layer.beta * x) / layer.beta


def softsign(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.soft_sign(x)


def hardtanh(layer: Any, params: Params, x: Array) -> Array:
    unit = (layer.min_val, layer.max_val) == (-1.0, 1.0)
    return jax.nn.hard_tanh(x) if unit else jnp.clip(x, layer.min_val, layer.max_val)


def hardsigmoid(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.hard_sigmoid(x)


def hardswish(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.hard_swish(x)


def softmax(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.softmax(x, axis=layer.dim)


def log_softmax(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.log_softmax(x, axis=layer.dim)


def glu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.glu(x)


def swiglu(layer: Any, params: Params, x: Array) -> Array:
    a, b = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(a) * b


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    Linear: linear, A.Identity: identity, A.ReLU: relu, A.LeakyReLU: leaky_relu, A.PReLU: prelu, A.ReLU6: relu6, A.ELU: elu,
    A.SELU: selu, A.CELU: celu, A.GELU: gelu, A.SiLU: silu, A.Mish: mish, A.Sigmoid: sigmoid, A.LogSigmoid: log_sigmoid,
    A.Tanh: tanh, A.Softplus: softplus, A.Softsign: softsign, A.Hardtanh: hardtanh, A.Hardsigmoid: hardsigmoid,
    A.Hardswish: hardswish, A.Softmax: softmax, A.LogSoftmax: log_softmax, A.GLU: glu, A.SwiGLU: swiglu,
}
