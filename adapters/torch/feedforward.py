"""PyTorch: the affine map and the activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from backproof.reference import activations as A
from backproof.reference.linear import Linear
from torch import Tensor

Params = dict[str, Tensor]


def linear(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.linear(x, params["weight"], params.get("bias"))


def identity(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.nn.Identity()(x)


def relu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.relu(x)


def leaky_relu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.leaky_relu(x, negative_slope=layer.negative_slope)


def prelu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.prelu(x, params["weight"])


def relu6(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.relu6(x)


def elu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.elu(x, alpha=layer.alpha)


def selu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.selu(x)


def celu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.celu(x, alpha=layer.alpha)


def gelu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=layer.approximate)


def silu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.silu(x)


def mish(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.mish(x)


def sigmoid(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.sigmoid(x)


def log_sigmoid(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.logsigmoid(x)


def tanh(layer: Any, params: Params, x: Tensor) -> Tensor:
    return torch.tanh(x)


def softplus(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.softplus(x, beta=layer.beta)


def softsign(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.softsign(x)


def hardtanh(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.hardtanh(x, layer.min_val, layer.max_val)


def hardsigmoid(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.hardsigmoid(x)


def hardswish(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.hardswish(x)


def softmax(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.softmax(x, dim=layer.dim)


def log_softmax(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.log_softmax(x, dim=layer.dim)


def glu(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.glu(x)


def swiglu(layer: Any, params: Params, x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return F.silu(a) * b


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    Linear: linear, A.Identity: identity, A.ReLU: relu, A.LeakyReLU: leaky_relu, A.PReLU: prelu, A.ReLU6: relu6, A.ELU: elu,
    A.SELU: selu, A.CELU: celu, A.GELU: gelu, A.SiLU: silu, A.Mish: mish, A.Sigmoid: sigmoid, A.LogSigmoid: log_sigmoid,
    A.Tanh: tanh, A.Softplus: softplus, A.Softsign: softsign, A.Hardtanh: hardtanh, A.Hardsigmoid: hardsigmoid,
    A.Hardswish: hardswish, A.Softmax: softmax, A.LogSoftmax: log_softmax, A.GLU: glu, A.SwiGLU: swiglu,
}
