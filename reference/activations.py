"""Every activation layer by name; importing this enrols them."""

from __future__ import annotations

from backproof.reference.exponential import CELU, ELU, SELU
from backproof.reference.gated import GLU, LogSoftmax, Softmax, SwiGLU
from backproof.reference.piecewise import Hardsigmoid, Hardswish, Hardtanh, Identity, LeakyReLU, PReLU, ReLU, ReLU6
from backproof.reference.smooth import GELU, LogSigmoid, Mish, Sigmoid, SiLU, Softplus, Softsign, Tanh

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid",
    "LogSoftmax", "Mish", "PReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softmax", "Softplus", "Softsign", "SwiGLU", "Tanh",
]
