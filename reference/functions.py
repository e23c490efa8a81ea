"""Elementary functions that keep their digits over the whole range, on real, rounded and complex arrays alike."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce

import numpy as np
from backproof.reference.direction import SATURATED, Directed, numbers_of, steady, sum_along
from backproof.reference.fused import normalized_exp, weighted_difference
from backproof.reference.rounding import Array, Rounded, added, either, inner, one_sum, quiet
from scipy import special

__all__ = ["absolute", "affine", "distributed", "expm1", "log1p", "log_sigmoid", "normal_cdf", "normal_pdf", "recomputed",
           "sigmoid", "sigmoid_complement", "sign", "softmax", "softmax_pullback", "softplus", "softplus_slope", "sum_of_products"]


def _is_complex(x: Array) -> bool:
    return isinstance(x, np.ndarray) and np.iscomplexobj(x)


def _is_exact(x: Array) -> bool:
    """Say whether an array holds objects: arbitrary-precision numbers, which bring their own functions as methods, or fractions."""
    return isinstance(x, np.ndarray) and x.dtype == object


def _is_plain(x: Array) -> bool:
    return isinstance(x, np.ndarray) and not np.iscomplexobj(x) and not _is_exact(x)


_exact_pdf = np.frompyfunc(lambda x: (-x * x / 2).exp() / (8 * (x * 0 + 1).atan()).sqrt(), 1, 1)  # atan 1 = pi / 4, in any precision
_exact_cdf = np.frompyfunc(lambda x: (-x / (x * 0 + 2).sqrt()).erfc() / 2, 1, 1)


def absolute(x: Array) -> Array:
    """|x| by its branches, so that complex step passes through it (np.abs would be the modulus)."""
    return np.where(x < 0, -x, x)


def sign(x: Array) -> Array:
    """The derivative of |x|: -1, 0 at the kink, 1; as a rounded array the kink is the hull [-1, 1]."""
    zero = x * 0
    return np.where(x > 0, zero + 1, np.where(x < 0, zero - 1, zero))


def log1p(x: Array) -> Array:
    """log(1 + x); NumPy's own loses small complex numbers."""
    return special.log1p(x) if _is_complex(x) else np.log1p(x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), by e^x / (1 + e^x) on the left so that nothing overflows.

    A rounded array takes it as one function, which no other bound is as tight as; where results are stored in fewer digits than they
    are computed in, it may also be composed of stored steps, whose bound is the wider one.
    """
    if isinstance(x, (Rounded, Directed)) and not x.arithmetic.precision.wide:
        return special.expit(x)
    e = np.exp(-absolute(x))
    return np.where(x < 0, e, 1) / (1 + e)


def sigmoid_complement(x: Array, s: Array) -> Array:
    """1 - s(x) = s(-x); implementations form it from the saved s, which is 1 in every format once x is past 40."""
    return either(sigmoid(-x), np.where(x > SATURATED, 0, 1 - s))


def softplus_slope(x: Array, y: Array) -> Array:
    """s(x), the derivative of y = softplus(x), which implementations also form from the saved output as e^(x - y)."""
    return either(sigmoid(x), np.where(x > SATURATED, 1, np.exp(x - y)))


def distributed(sound: Array, dy: Array, x: Array, gate: Array, slope: Array) -> Array:
    """Return `sound` = dy (gate + x slope), the derivative of y = x gate(x).

    Automatic differentiation distributes dy over the sum, and its product with x may overflow where the slope is 0.
    """
    return either(sound, dy * gate + (dy * x) * slope) if isinstance(dy, (Rounded, Directed)) else sound


def softplus(x: Array) -> Array:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|).

    A rounded array takes it as one function; where results are stored in fewer digits than they are computed in, each step of the
    right side may be stored: an error of e^-|x| in the inner sum, which log1p passes on by 1 / (1 + e^-|x|), and one more each of
    the logarithm and of the sum.
    """
    if _is_complex(x) or _is_exact(x):
        return np.where(x > 0, x, 0) + log1p(np.exp(-absolute(x)))
    whole = np.logaddexp(x, 0.0)
    if not isinstance(x, Rounded) or not x.arithmetic.precision.wide:
        return whole
    ball: Array = x
    return either(whole, np.maximum(ball, 0.0) + np.log1p(np.exp(-np.abs(ball))))


def expm1(x: Array) -> Array:
    """e^x - 1.

    Where results are stored in fewer digits than they are computed in, it may be composed of stored steps: e^x - 1 past |x| = 1/2,
    where the rounding of e^x is no more than e^(1/2) / (e^(1/2) - 1) = 2.6 roundings of the result, and nearer to 0
    tanh(x / 2) (e^x + 1), in which nothing cancels: tanh(x / 2) = (e^x - 1) / (e^x + 1).
    """
    if not isinstance(x, Rounded) or not x.arithmetic.precision.wide:
        return np.expm1(x)
    ball: Array = x
    e = np.exp(ball)
    return either(np.expm1(ball), np.where(np.abs(ball) > 0.5, e - 1, np.tanh(ball / 2) * (e + 1)))


def log_sigmoid(x: Array) -> Array:
    """log(1 / (1 + e^-x)) = -softplus(-x)."""
    return -softplus(-x)


def _gaussian(x: Array) -> Array:
    """e^(-x^2/2) = e^(-h^2/2) e^(-(x-h)(x+h)/2) with h so short that its square is exact (Cody, Math. Comp. 23 (1969)).

    e^ magnifies the rounding of x^2 by x^2/2. Past |x| = 40 the result is 0.
    """
    x = np.minimum(np.abs(x), 40)
    h = np.round(x * 16) / 16
    return np.exp(-0.5 * (h * h)) * np.exp(-0.5 * ((x - h) * (x + h)))


def normal_pdf(x: Array) -> Array:
    """The standard normal density, e^(-x^2/2) / sqrt(2 pi); on rounded arrays as implementations evaluate it, from x / sqrt 2."""
    scale = math.sqrt(2 * math.pi)
    if _is_plain(x):
        return _gaussian(x) / scale
    if _is_exact(x):
        return _exact_pdf(x)
    z = x / math.sqrt(2)
    return np.exp(-(z * z)) / scale


def normal_cdf(x: Array) -> Array:
    """The standard normal distribution, by the complementary error function so that the left tail keeps its digits."""
    if _is_plain(x):
        tail = np.where(x < -1, x, -1)
        return np.where(x < -1, special.erfcx(-tail / math.sqrt(2)) * _gaussian(tail) / 2, special.ndtr(x))
    if _is_exact(x):
        return _exact_cdf(x)
    return special.erfc(-x / math.sqrt(2)) / 2


def affine(x: Array, weight: Array, bias: Array) -> Array:
    """x W^T + b. In rounded arithmetic the bias is one more term of the sum, since compilers start the sum from it."""
    return sum_of_products([(x, weight.T)], [bias])


def sum_of_products(products: Sequence[tuple[Array, Array]], terms: Sequence[Array] = ()) -> Array:
    """The sum of matrix products a @ b of like shapes, and of further terms.

    In rounded arithmetic all of it is one sum, taken in any order; where sums are wider than what is stored, the products and
    their partial sums may also be stored one by one, again in any order.
    """
    if not products and len(terms) == 1:
        return terms[0]
    every = [*(a for pair in products for a in pair), *terms]
    if any(isinstance(a, Directed) for a in every):
        return sum_along(products, terms)
    known = next((a.arithmetic for a in every if isinstance(a, Rounded)), None)
    if known is None:
        return reduce(operator.add, (*(a @ b for a, b in products), *terms))
    if known.precision.wide:
        return either(one_sum(products, terms, known), added([*(a @ b for a, b in products), *terms]))
    if len(products) > 2:  # one long product is the same sum
        left, right = zip(*products, strict=True)
        products = [(np.concatenate(left, axis=-1), np.concatenate(right, axis=-1 if right[0].ndim == 1 else -2))]
    return one_sum(products, terms, known)


def softmax(x: Array, axis: int) -> Array:
    """e^x / sum e^x, with the largest entry taken out first."""
    weights, _ = normalized_exp(x, steady(np.max(x, axis=axis, keepdims=True)), axis)
    return weights


def recomputed(weights: Array, top: Array, total: Array) -> Array:
    """Return the weights e^(s - top) / total, as a ball that also holds e^(s - log_total) with log_total = top + log total.

    That is how they come back where log_total alone was kept, the output of log sum e^s or what attention keeps of it (Dao,
    *FlashAttention-2*, 2023, algorithm 2): they carry its rounding. A factor of all weights of a row may carry it in their stead.
    """
    if isinstance(weights, Directed):
        log = np.log(total)
        return weights * np.exp(top + log - log - top)
    if not isinstance(weights, Rounded):
        return weights
    log = np.log(weights.arithmetic.exact(total.value))  # the bound of the total is in the weights already
    factor = np.exp(top + log - log - top)  # 1, with what all of that may round
    with quiet():
        bound = weights.magnitude + weights.bound
        bound *= np.abs(factor.value - 1) + factor.bound
        bound += weights.bound
        return weights.widened(weights.arithmetic.ball(weights.value, bound, weights.arithmetic.roundoff).bound)


def softmax_pullback(y: Array, dy: Array, axis: int) -> Array:
    """y_j (dy_j - sum_i dy_i y_i), the gradient through y = softmax(x).

    A constant added to dy changes nothing, since sum_i y_i = 1. With the dy of the largest y taken out first nothing cancels where
    that one dominates; implementations leave it in.
    """
    largest = np.argmax(numbers_of(y), axis=axis, keepdims=True)
    relative = dy - np.take_along_axis(dy, largest, axis)
    sound = weighted_difference(y, relative, inner(relative, y, axis))
    return either(sound, weighted_difference(y, dy, inner(dy, y, axis))) if isinstance(dy, (Rounded, Directed)) else sound
