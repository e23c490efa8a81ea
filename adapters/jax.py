"""JAX: `jax.value_and_grad`, eager and under `jax.jit`, through `jax.nn` and `jax.numpy`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from backproof.reference import activations as A
from backproof.reference import heads as H
from backproof.reference.case import Case
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from jax import Array

Params = dict[str, Array]


def linear(layer: Any, params: Params, x: Array) -> Array:
    y = x @ params["weight"].T
    return y + params["bias"] if layer.bias else y


def identity(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.identity(x)


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
}  # fmt: skip


def head(layer: Any, z: Array, target: Array) -> Array:
    if layer.loss == "bce":
        summands = -(target * jax.nn.log_sigmoid(z) + (1 - target) * jax.nn.log_sigmoid(-z))
    elif layer.loss == "cross_entropy":
        if target.ndim < z.ndim:
            target = jax.nn.one_hot(target, z.shape[-1], dtype=z.dtype)
            target = target * (1 - layer.label_smoothing) + layer.label_smoothing / z.shape[-1]
        summands = -jnp.sum(target * jax.nn.log_softmax(z), axis=-1)
    else:
        outputs = {"linear": jax.nn.identity, "sigmoid": jax.nn.sigmoid, "tanh": jax.nn.tanh, "softmax": jax.nn.softmax}
        error = outputs[layer.output](z) - target
        if layer.loss == "half_squared_error":
            summands = jnp.sum(0.5 * error**2, axis=-1)
        elif layer.loss == "huber":
            summands = jnp.where(jnp.abs(error) <= 1, 0.5 * error**2, jnp.abs(error) - 0.5)
        else:
            summands = error**2 if layer.loss == "mse" else jnp.abs(error)
    return jnp.sum(summands) if layer.reduction == "sum" else jnp.mean(summands)


HEADS: dict[type, Callable[[Any, Array, Array], Array]] = dict.fromkeys(
    (H.Head, H.MSELoss, H.BCEWithLogitsLoss, H.CrossEntropyLoss), head
)


def _gradient(network: Network) -> Callable[..., Any]:
    """Return a function of a case's arrays that gives every output, and every gradient by a zero tap on each output."""

    def function(x: Array, params: dict[str, Params], taps: list[Array], target: Array, upstream: Array) -> Any:
        outputs = []
        y = x
        for (path, layer, _), tap in zip(network.paths(), taps, strict=True):
            y = LOWERINGS[type(layer)](layer, params[path], y) + tap
            outputs.append(y)
        loss = HEADS[type(network.head)](network.head, y, target)
        return loss * upstream, (loss, outputs)

    return jax.grad(function, argnums=(0, 1, 2), has_aux=True)


@lru_cache(maxsize=4)  # the draws of a structure come one after the other; more would only hold memory
def _jitted(network: Network) -> Callable[..., Any]:
    return jax.jit(_gradient(network))


class Jax:
    """One way of running JAX; x64 is on for float64 cases and only while they run."""

    def __init__(self, name: str, program: Callable[[Network], Callable[..., Any]], *, fused: bool) -> None:
        self.name = name
        self.fused = fused
        self.program = program

    def run(self, case: Case) -> Trace:
        values = case.values()
        with jax.enable_x64(case.precision == "float64"):
            taps = [np.zeros((case.batch, *shape), values.x.dtype) for shape in case.network.shapes[1:]]
            result = self.program(case.network)(values.x, values.params, taps, values.target, values.upstream)
            (dx, d_params, d_taps), (loss, outputs) = jax.tree.map(np.asarray, result)
        return Trace.assemble(case.network, x=values.x, params=values.params, target=values.target, upstream=values.upstream,
                              loss=loss, outputs=outputs, d_outputs=d_taps, dx=dx, d_params=d_params)  # fmt: skip


eager, jit = Jax("jax", _gradient, fused=False), Jax("jax:jit", _jitted, fused=True)
