"""Elementary functions that keep their digits over the whole range, on real, rounded and complex arrays alike."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from .rounding import Array

__all__ = ["absolute", "log_sigmoid", "normal_cdf", "normal_pdf", "sigmoid", "sign", "softmax", "softplus"]


def _is_complex(x: Array) -> bool:
    return isinstance(x, np.ndarray) and np.iscomplexobj(x)


def absolute(x: Array) -> Array:
    """|x| by its branches, so that complex step passes through it (np.abs would be the modulus)."""
    return np.where(x < 0, -x, x)


def sign(x: Array) -> Array:
    """The derivative of |x|: -1, 0 at the kink, 1; as a rounded array the kink is the hull [-1, 1]."""
    zero = x * 0
    return np.where(x > 0, zero + 1, np.where(x < 0, zero - 1, zero))


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), by e^x / (1 + e^x) on the left so that nothing overflows."""
    if not _is_complex(x):
        return special.expit(x)
    e = np.exp(-absolute(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    if not _is_complex(x):
        return np.logaddexp(x, 0.0)
    return np.where(x > 0, x, 0) + np.log1p(np.exp(-absolute(x)))


def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + e^-x)) = -softplus(-x)."""
    return -softplus(-x)


def normal_pdf(x: Array) -> Array:
    """The standard normal density, e^(-x^2/2) / sqrt(2 pi)."""
    return np.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi))


def normal_cdf(x: Array) -> Array:
    """The standard normal distribution, by the complementary error function so that the left tail keeps its digits."""
    if not _is_complex(x):
        return special.ndtr(x)
    return 0.5 * special.erfc(-x / math.sqrt(2))


def softmax(x: Array, axis: int) -> Array:
    """e^x / sum e^x, with the largest entry taken out first."""
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)
