"""Heads: a last activation with its loss, by the general route (dJ/dA, then g'(Z)) and fused where that is simpler (A - Y)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .functions import absolute, sigmoid, sign, softmax, softmax_pullback, softplus
from .layer import Params, Shape, ShapeError, register
from .rounding import Array, either

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "Head", "MSELoss"]

Pullback = Callable[[Array], Array]
HeadBackward = Callable[..., Array]


def _linear(z: Array) -> tuple[Array, Pullback]:
    """a = z, so dz = da."""
    return z, lambda da: da


def _sigmoid(z: Array) -> tuple[Array, Pullback]:
    """a = s(z), da/dz = s(z) s(-z); implementations keep a and form a (1 - a)."""
    a = sigmoid(z)
    return a, lambda da: da * (a * either(sigmoid(-z), 1 - a))


def _tanh(z: Array) -> tuple[Array, Pullback]:
    """a = tanh z, da/dz = 1 - tanh^2 z = 4 s(2z) s(-2z); implementations keep a and form 1 - a^2."""
    a = np.tanh(z)
    return a, lambda da: da * either(4 * (sigmoid(2 * z) * sigmoid(-2 * z)), 1 - a * a)


def _softmax(z: Array) -> tuple[Array, Pullback]:
    """a_i = e^z_i / sum_k e^z_k, da_i/dz_j = a_i (delta_ij - a_j), so dz_j = a_j (da_j - sum_i da_i a_i)."""
    a = softmax(z, -1)
    return a, lambda da: softmax_pullback(a, da, -1)


OUTPUTS: dict[str, Callable[[Array], tuple[Array, Pullback]]] = {
    "linear": _linear, "sigmoid": _sigmoid, "softmax": _softmax, "tanh": _tanh,
}  # fmt: skip


def _mse(a: Array, y: Array) -> tuple[Array, Array]:
    """J = (a - y)^2, dJ/da = 2 (a - y)."""
    e = a - y
    return e * e, 2 * e


def _half_squared_error(a: Array, y: Array) -> tuple[Array, Array]:
    """J = (a - y)^2 / 2, dJ/da = a - y."""
    e = a - y
    return e * e / 2, e


def _l1(a: Array, y: Array) -> tuple[Array, Array]:
    """J = |a - y|, dJ/da = sign(a - y); at a = y the derivative is taken as 0, and any of [-1, 1] is a subgradient."""
    e = a - y
    apart = a != y  # equal operands differ by exactly zero in every precision, which e's bound does not say
    one = e * 0 + 1
    return absolute(e), np.where((e > 0) & apart, one, np.where((e < 0) & apart, -one, 0 * one))


def _huber(a: Array, y: Array) -> tuple[Array, Array]:
    """J = e^2 / 2 for |e| <= 1, |e| - 1/2 beyond, e = a - y; dJ/da = e cut to [-1, 1] (Huber 1964, delta = 1). No kink."""
    e = a - y
    size = absolute(e)
    return np.where(size <= 1, e * e / 2, (2 * size - 1) / 2), np.where(size <= 1, e, sign(e))


def _bce(a: Array, y: Array) -> tuple[Array, Array]:
    """J = -y log a - (1 - y) log(1 - a), dJ/da = (a - y) / (a (1 - a))."""
    return -(y * np.log(a) + (1 - y) * np.log(1 - a)), (a - y) / (a * (1 - a))


def _cross_entropy(a: Array, y: Array) -> tuple[Array, Array]:
    """J = -sum_k y_k log a_k (one summand per entry here), dJ/da = -y / a."""
    return -(y * np.log(a)), -(y / a)


LOSSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "mse": _mse, "half_squared_error": _half_squared_error, "l1": _l1, "huber": _huber, "bce": _bce,
    "cross_entropy": _cross_entropy,
}  # fmt: skip


def _fused_bce(z: Array, y: Array) -> tuple[Array, Array]:
    """J = y softplus(-z) + (1 - y) softplus(z).

    dJ/dz = -y s(-z) + (1 - y) s(z) = s(z) - y = A - Y, of which the middle form keeps its digits where a is close to y.
    """
    a = sigmoid(z)
    return y * softplus(-z) + (1 - y) * softplus(z), either((1 - y) * a - y * sigmoid(-z), a - y)


def _fused_cross_entropy(z: Array, y: Array) -> tuple[Array, Array]:
    """J = -sum_k y_k (z_k - logsumexp z); dJ/dz_k = a_k sum_j y_j - y_k, which is A - Y when the targets sum to one.

    With sum_j a_j = 1 this is a_k sum_{j != k} y_j - y_k sum_{j != k} a_j, where nothing cancels.
    """
    shifted = z - np.max(z, axis=-1, keepdims=True)
    e = np.exp(shifted)
    total = np.sum(e, axis=-1, keepdims=True)
    a = e / total
    others = 1.0 - np.eye(z.shape[-1])
    gradient = either(a * (y @ others) - y * (a @ others), a * np.sum(y, axis=-1, keepdims=True) - y)
    return y * (_log_total(e @ others, total) - shifted), gradient


def _log_total(rest: Array, total: Array) -> Array:
    """log sum_k e^(z_k - max z), where `rest` holds the sum without its k-th term.

    Where one term stands out it is 1 and the smallest rest is all that is added to it: log1p keeps the digits of a loss near 0.
    """
    smallest = -np.max(-rest, axis=-1, keepdims=True)
    common = np.log(total)
    return either(np.where(total < 1.5, np.log1p(smallest), common), common)


FUSED: dict[tuple[str, str], Callable[[Array, Array], tuple[Array, Array]]] = {
    ("sigmoid", "bce"): _fused_bce,
    ("softmax", "cross_entropy"): _fused_cross_entropy,
}

ROUTES = ("fused", "general")

PER_EXAMPLE = ("cross_entropy", "half_squared_error")
"""Losses that sum over the outputs of an example and take the mean over examples; the others take the mean over all entries."""


@register
@dataclass(frozen=True)
class Head:
    """An output activation g and a loss: J = reduce(loss(g(z), target)), for z and target of shape (batch, ..., outputs).

    General route   dz = g'(z)^T dJ/da: the loss's own derivative, pulled back through the activation.
    Fused route     bce after sigmoid and cross_entropy after softmax collapse to A - Y, without the division by a (1 - a).
    Reduction       `mean` over all entries, over examples only for cross_entropy and half_squared_error; or `sum`.
    Source          Goodfellow, Bengio, Courville, *Deep Learning*, 6.2.2 and 6.5.6.
    """

    output: str = "linear"
    loss: str = "mse"
    reduction: str = "mean"
    fixed: ClassVar[bool] = False
    """Whether the class is one output with one loss, under a name of its own."""

    def __post_init__(self) -> None:
        for name, value, choices in (("output", self.output, OUTPUTS), ("loss", self.loss, LOSSES),
                                      ("reduction", self.reduction, ("mean", "sum"))):
            if value not in choices:
                raise ValueError(f"{type(self).__name__}: unknown {name}: got {value!r}, expected one of {', '.join(choices)}")
        needed = {"bce": "sigmoid", "cross_entropy": "softmax"}.get(self.loss, self.output)
        if self.output != needed:
            raise ValueError(f"{type(self).__name__}: the loss {self.loss} needs probabilities: got output {self.output!r}, "
                             f"expected {needed!r}")
        for name in ("output", "loss") if self.fixed else ():
            value, expected = getattr(self, name), getattr(type(self), name)
            if value != expected:
                raise ValueError(f"{type(self).__name__}: the {name} is fixed: got {value!r}, expected {expected!r}. "
                                 f"Do: Head({self.output!r}, {self.loss!r})")

    def rules(self) -> str:
        """Return the derivation: of the fused form where there is one, else of the loss and of the output."""
        fused = FUSED.get((self.output, self.loss))
        return str(fused.__doc__) if fused else f"{LOSSES[self.loss].__doc__}\n{OUTPUTS[self.output].__doc__}"

    def target_kind(self) -> str:
        """Say what targets are: `real`, `binary` (in [0, 1]), `distribution` (rows sum to 1) or `classes` (int64)."""
        return {"bce": "binary", "cross_entropy": "distribution"}.get(self.loss, "real")

    def check_shape(self, shape: Shape) -> None:
        """Raise ShapeError for a network output the head cannot take."""
        if not shape:
            raise ShapeError(self, shape, "at least one axis of outputs")

    def kinks(self, params: Params) -> tuple[float, ...]:
        return ()

    def forward(self, params: Params, z: Array, target: Array, *, route: str = "fused") -> tuple[Array, HeadBackward]:
        """Return the loss, of shape (), and `backward(dloss=1) -> dz`. `route="general"` avoids the fused form."""
        if z.shape != target.shape:  # NumPy would broadcast (m, 1) against (m,) to (m, m)
            raise ValueError(f"{type(self).__name__}: wrong target shape: got {target.shape}, expected {z.shape}")
        if route not in ROUTES:
            raise ValueError(f"{type(self).__name__}: unknown route: got {route!r}, expected one of {', '.join(ROUTES)}")
        fused = FUSED.get((self.output, self.loss)) if route == "fused" else None
        if fused is not None:
            summands, dz = fused(z, target)
        else:
            a, pullback = OUTPUTS[self.output](z)
            summands, da = LOSSES[self.loss](a, target)
            dz = None
        if self.reduction == "sum":
            count = 1
        elif self.loss in PER_EXAMPLE:
            count = int(np.prod(z.shape[:-1]))
        else:
            count = z.size

        def backward(dloss: Any = 1) -> Array:
            # not dloss / count first: a plain number's rounding would be in no bound
            return dz / count * dloss if dz is not None else pullback(da / count * dloss)

        return np.sum(summands) / count, backward


@register
@dataclass(frozen=True)
class MSELoss(Head):
    """Mean squared error of the raw output: `Head("linear", "mse")` under torch's name."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="mse", repr=False)
    fixed: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class BCEWithLogitsLoss(Head):
    """Binary cross entropy of logits: `Head("sigmoid", "bce")` under torch's name."""

    output: str = field(default="sigmoid", repr=False)
    loss: str = field(default="bce", repr=False)
    fixed: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class CrossEntropyLoss(Head):
    """Cross entropy of logits z (batch, classes) and class indices (int64), mean over the batch.

    The target becomes the distribution q = (1 - s) onehot + s / classes with smoothing s; then as `Head("softmax",
    "cross_entropy")`: dz = (a - q) / batch.
    Source: Szegedy et al., *Rethinking the Inception Architecture*, section 7, for the smoothing.
    """

    output: str = field(default="softmax", repr=False)
    loss: str = field(default="cross_entropy", repr=False)
    fixed: ClassVar[bool] = True
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing must lie in [0, 1]: got {self.label_smoothing}")

    def target_kind(self) -> str:
        return "classes"

    def forward(self, params: Params, z: Array, target: Array, *, route: str = "fused") -> tuple[Array, HeadBackward]:
        distribution: Array = self._one_hot(np.asarray(target), z.shape)
        if self.label_smoothing:
            one = z * 0 + 1  # brings in z's arithmetic, since smoothing the target rounds it
            distribution = (one - self.label_smoothing) * distribution + one * self.label_smoothing / z.shape[-1]
        return super().forward(params, z, distribution, route=route)

    def _one_hot(self, target: np.ndarray, shape: Shape) -> np.ndarray:
        """Return rows of the identity; raise ValueError for targets that are no classes of z."""
        classes = shape[-1]
        if target.dtype.kind not in "iu":
            raise ValueError(f"CrossEntropyLoss: targets are class indices: got dtype {target.dtype}, expected int64")
        if target.shape != shape[:-1]:
            raise ValueError(f"CrossEntropyLoss: wrong target shape: got {target.shape}, expected {shape[:-1]}")
        outside = target[(target < 0) | (target >= classes)]
        if outside.size:
            raise ValueError(f"CrossEntropyLoss: no such class: got {outside[0]}, expected 0 to {classes - 1}")
        one_hot: np.ndarray = np.eye(classes)[target]
        return one_hot
