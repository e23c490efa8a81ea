"""The losses: each gives its summands and their derivative, from the output `a` or, where that is simpler, fused from `z`.

Targets are data: their signs and zeros are read off as plain booleans, never compared in rounded arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from backproof.reference.direction import numbers_of
from backproof.reference.functions import absolute, sigmoid, sign, softplus, softplus_slope
from backproof.reference.rounding import Array, Rounded, either

__all__ = ["FUSED", "LOSSES", "PER_EXAMPLE", "Loss", "cosine_embedding", "plain"]

Loss = Callable[..., tuple[Array, Array]]
"""`(a, y, **options) -> (summands, dJ/da)`, or of z in place of a."""

COSINE_EPS = 1e-8  # torch.nn.CosineSimilarity's, the least a norm counts for
EMBEDDING_EPS = 1e-12  # added to both squared norms, as torch.nn.CosineEmbeddingLoss does


def plain(y: Array) -> np.ndarray:
    """Return the numbers of a target, without its arithmetic."""
    return np.asarray(numbers_of(y))


def mse(a: Array, y: Array) -> tuple[Array, Array]:
    """J = (a - y)^2, dJ/da = 2 (a - y)."""
    e = a - y
    return e * e, 2 * e


def half_squared_error(a: Array, y: Array) -> tuple[Array, Array]:
    """J = (a - y)^2 / 2, dJ/da = a - y."""
    e = a - y
    return e * e / 2, e


def l1(a: Array, y: Array) -> tuple[Array, Array]:
    """J = |a - y|, dJ/da = sign(a - y); at a = y the derivative is taken as 0, and any of [-1, 1] is a subgradient."""
    e = a - y
    apart = a != y  # equal operands differ by exactly zero in every precision, which e's bound does not say
    one = e * 0 + 1
    return absolute(e), np.where((e > 0) & apart, one, np.where((e < 0) & apart, -one, 0 * one))


def huber(a: Array, y: Array, delta: float = 1) -> tuple[Array, Array]:
    """J = e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond, e = a - y; dJ/da = e cut to [-delta, delta].

    Huber, *Robust Estimation of a Location Parameter*, 1964. No kink.
    """
    e = a - y
    size = absolute(e)
    return np.where(size <= delta, e * e / 2, delta * (2 * size - delta) / 2), np.where(size <= delta, e, delta * sign(e))


def smooth_l1(a: Array, y: Array, beta: float = 1) -> tuple[Array, Array]:
    """J = e^2 / (2 beta) for |e| < beta, |e| - beta / 2 beyond, e = a - y; dJ/da = e / beta cut to [-1, 1].

    Girshick, *Fast R-CNN*, 2015. No kink but for beta = 0, where it is |e|.
    """
    if beta == 0:
        return l1(a, y)
    e = a - y
    size = absolute(e)
    return np.where(size < beta, e * e / 2 / beta, (2 * size - beta) / 2), np.where(size < beta, e / beta, sign(e))


def hinge(a: Array, y: Array, margin: float = 1) -> tuple[Array, Array]:
    """J = max(0, margin - y a) for y = +-1, dJ/da = -y where y a < margin, else 0; at y a = margin any of [-y, 0] is a subgradient.

    Own choice 0. Cortes, Vapnik, *Support-Vector Networks*, 1995.
    """
    upper = plain(y) > 0
    towards = np.where(upper, a, -a)  # y a, exactly
    inside, one = towards < margin, towards * 0 + 1
    return np.where(inside, margin - towards, 0 * one), np.where(inside, np.where(upper, -one, one), 0 * one)


def soft_margin(a: Array, y: Array) -> tuple[Array, Array]:
    """J = log(1 + e^(-y a)) for y = +-1, dJ/da = -y s(-y a), s the logistic sigmoid."""
    upper = plain(y) > 0
    against = np.where(upper, -a, a)
    s = softplus_slope(against, softplus(against))
    return _stepwise_softplus(against), np.where(upper, -s, s)


def _stepwise_softplus(x: Array) -> Array:
    """log(1 + e^x); where results are stored in fewer digits than they are computed in, e^x may be stored first."""
    if not isinstance(x, Rounded) or not x.arithmetic.precision.wide:
        return softplus(x)
    ball: Array = x
    return either(softplus(ball), np.where(ball > 40, ball, np.log1p(np.exp(np.minimum(ball, 40)))))


def bce(a: Array, y: Array, pos_weight: Array | None = None) -> tuple[Array, Array]:
    """J = -p y log a - (1 - y) log(1 - a), dJ/da = (1 - y) / (1 - a) - p y / a = (a - y) / (a (1 - a)) for p = 1."""
    if pos_weight is None:
        return -(y * np.log(a) + (1 - y) * np.log(1 - a)), (a - y) / (a * (1 - a))
    weighted = pos_weight * y
    return -(weighted * np.log(a) + (1 - y) * np.log(1 - a)), (1 - y) / (1 - a) - weighted / a


def cross_entropy(a: Array, y: Array) -> tuple[Array, Array]:
    """J = -sum_k y_k log a_k (one summand per entry here), dJ/da = -y / a."""
    return -(y * np.log(a)), -(y / a)


def nll(a: Array, y: Array) -> tuple[Array, Array]:
    """J = -sum_k y_k a_k of log-probabilities a (one summand per entry here), dJ/da = -y."""
    return -(y * a), -y + 0 * a


def kl(a: Array, y: Array) -> tuple[Array, Array]:
    """J = sum_k y_k (log y_k - log a_k) of probabilities a (one summand per entry here), dJ/da = -y / a.

    An entry with y_k = 0 contributes 0, whatever a_k is: y log y goes to 0 (Cover, Thomas, *Elements of Information Theory*, 2.3).
    """
    some = plain(y) > 0
    q, p = np.where(some, y, 1), np.where(some, a, 1)
    return np.where(some, y * (np.log(q) - np.log(p)), 0 * q), np.where(some, -(q / p), 0 * q)


def kl_div(a: Array, y: Array, *, log_target: bool = False) -> tuple[Array, Array]:
    """J = y (log y - a) of log-probabilities a, dJ/da = -y; with log_target y is e^y: J = e^y (y - a), dJ/da = -e^y.

    An entry with y = 0 contributes 0: y log y goes to 0.
    """
    if log_target:
        q = np.exp(y)
        return q * (y - a), -q + 0 * a
    some = plain(y) > 0
    entropy, log_q = _entropy(y)
    return np.where(some, either(y * (log_q - a), entropy - y * a), 0 * a), -y + 0 * a


def cosine(a: Array, y: Array) -> tuple[Array, Array]:
    """J = 1 - c, c = sum_k a_k y_k / (|a| |y|), dJ/da_k = -(y_k / |y| - c a_k / |a|) / |a|.

    A norm counts for at least eps = 1e-8; below it |a| is the constant eps and the term c a_k / |a| is not there.
    """
    floor = COSINE_EPS * COSINE_EPS
    square = np.sum(a * a, axis=-1, keepdims=True)
    norm = np.sqrt(np.maximum(square, floor))
    norm_y = np.sqrt(np.maximum(np.sum(y * y, axis=-1, keepdims=True), floor))
    unit, unit_y = a / norm, y / norm_y
    c = either(np.sum(unit * unit_y, axis=-1, keepdims=True), np.sum(a * y, axis=-1, keepdims=True) / (norm * norm_y))
    return 1 - c[..., 0], -((unit_y - np.where(square > floor, c, 0 * c) * unit) / norm)


def cosine_embedding(z: Array, y: Array, margin: float) -> tuple[Array, Array]:
    """J = 1 - c for y = 1, max(0, c - margin) for y = -1, of pairs u, v = z_n0, z_n1 and c = sum_k u_k v_k / r.

    r = sqrt((sum u^2 + eps) (sum v^2 + eps)), eps = 1e-12; dc/du = v / r - c u / (sum u^2 + eps), and likewise for v;
    dJ/dz = -dc/dz for y = 1, dc/dz where c > margin for y = -1. At c = margin any of [0, 1] times dc/dz is a subgradient.
    """
    squares = np.sum(z * z, axis=-1, keepdims=True) + EMBEDDING_EPS
    root = np.sqrt(squares[:, :1] * squares[:, 1:])
    c = np.sum(z[:, :1] * z[:, 1:], axis=-1, keepdims=True) / root
    slope = np.flip(z, 1) / root - c * z / squares
    same = (plain(y) > 0).reshape((-1, 1, 1))
    far = c > margin
    loss = np.where(same, 1 - c, np.where(far, c - margin, 0 * c))
    return loss[:, 0, 0], np.where(same, -slope, np.where(far, slope, 0 * slope))


LOSSES: dict[str, Loss] = {
    "mse": mse, "half_squared_error": half_squared_error, "l1": l1, "huber": huber, "bce": bce, "cross_entropy": cross_entropy,
    "smooth_l1": smooth_l1, "hinge": hinge, "soft_margin": soft_margin, "nll": nll, "kl": kl, "kl_div": kl_div, "cosine": cosine,
}

PER_EXAMPLE = ("cross_entropy", "half_squared_error", "nll", "kl", "cosine")
"""Losses that sum over the outputs of an example and take the mean over examples; the others take the mean over all entries."""


def _fused_bce(z: Array, y: Array, pos_weight: Array | None = None) -> tuple[Array, Array]:
    """J = p y softplus(-z) + (1 - y) softplus(z), p = 1 unless pos_weight says otherwise.

    dJ/dz = -p y s(-z) + (1 - y) s(z) = s(z) - y = A - Y for p = 1, of which the middle form keeps its digits where a is close to y.
    """
    a = sigmoid(z)
    if pos_weight is None:
        return y * softplus(-z) + (1 - y) * softplus(z), either((1 - y) * a - y * sigmoid(-z), a - y)
    weighted = pos_weight * y
    # implementations form the weight of softplus(-z), p y + 1 - y, as (p - 1) y + 1, and of the sigmoid as (p y + 1) - y
    positive = np.where(plain(y) > 0, either(weighted, ((pos_weight - 1) * y + 1) - (1 - y)), weighted)
    gradient = either((1 - y) * a - weighted * sigmoid(-z), ((weighted + 1) - y) * a - weighted)
    return positive * softplus(-z) + (1 - y) * softplus(z), gradient


def _fused_cross_entropy(z: Array, y: Array) -> tuple[Array, Array]:
    """J = -sum_k y_k (z_k - logsumexp z); dJ/dz_k = a_k sum_j y_j - y_k, which is A - Y when the targets sum to one.

    With sum_j a_j = 1 this is a_k sum_{j != k} y_j - y_k sum_{j != k} a_j, where nothing cancels.
    """
    surprise, gradient = _through_softmax(z, y)
    return y * surprise, gradient


def _fused_kl(z: Array, y: Array) -> tuple[Array, Array]:
    """J = sum_k y_k (log y_k + logsumexp z - z_k); dJ/dz_k = a_k sum_j y_j - y_k, which is A - Y when the targets sum to one."""
    surprise, gradient = _through_softmax(z, y)
    entropy, log_q = _entropy(y)
    return either(y * (log_q + surprise), entropy + y * surprise), gradient


def _entropy(y: Array) -> tuple[Array, Array]:
    """Return y log y and log y, both 0 where y is 0."""
    some = plain(y) > 0
    log_q = np.log(np.where(some, y, 1))
    return y * log_q, log_q


def _through_softmax(z: Array, y: Array) -> tuple[Array, Array]:
    """Return -log a and the gradient of -sum_k y_k log a_k, for a = softmax z."""
    shifted = z - np.max(z, axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = np.sum(e, axis=-1, keepdims=True)
    a = e / total
    others = 1.0 - np.eye(z.shape[-1])
    gradient = either(a * (y @ others) - y * (a @ others), a * np.sum(y, axis=-1, keepdims=True) - y)
    return _log_total(e @ others, total) - shifted, gradient


def _log_total(rest: Array, total: Array) -> Array:
    """log sum_k e^(z_k - max z), where `rest` holds the sum without its k-th term.

    Where one term stands out it is 1 and the smallest rest is all that is added to it: log1p keeps the digits of a loss near 0.
    """
    smallest = -np.max(-rest, axis=-1, keepdims=True)
    common = np.log(total)
    return either(np.where(total < 1.5, np.log1p(smallest), common), common)


FUSED: dict[tuple[str, str], Loss] = {
    ("sigmoid", "bce"): _fused_bce, ("softmax", "cross_entropy"): _fused_cross_entropy, ("softmax", "kl"): _fused_kl,
    ("log_softmax", "nll"): _fused_cross_entropy,
}
