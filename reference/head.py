"""A head: a last activation with its loss, by the general route (dJ/dA, then g'(Z)) and fused where that is simpler (A - Y)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from backproof.reference.functions import sigmoid, softmax, softmax_pullback
from backproof.reference.gated import LogSoftmax
from backproof.reference.layer import Params, Rule, RuleBackward, Shape, ShapeError, register
from backproof.reference.losses import FUSED, LOSSES, PER_EXAMPLE, plain
from backproof.reference.rounding import Array, either

__all__ = ["OUTPUTS", "ROUTES", "Head", "HeadBackward", "Pullback", "check_weights", "pairs"]

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


def _log_softmax(z: Array) -> tuple[Array, Pullback]:
    """a_i = z_i - log sum_k e^z_k, da_i/dz_j = delta_ij - p_j, p_j = e^a_j, so dz_j = da_j - p_j sum_i da_i.

    With sum_k p_k = 1 this is da_j sum_{k != j} p_k - p_j sum_{i != j} da_i, where nothing cancels as p_j comes close to 1.
    """
    a, backward = LogSoftmax().forward({}, z)
    p, others = softmax(z, -1), 1.0 - np.eye(z.shape[-1])
    return a, lambda da: either(da * (p @ others) - p * (da @ others), backward(da)[0])


OUTPUTS: dict[str, Callable[[Array], tuple[Array, Pullback]]] = {
    "linear": _linear, "sigmoid": _sigmoid, "softmax": _softmax, "tanh": _tanh, "log_softmax": _log_softmax,
}

ROUTES = ("fused", "general")

WANTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "bce": ("probabilities", ("sigmoid",)), "cross_entropy": ("probabilities", ("softmax",)), "kl": ("probabilities", ("softmax",)),
    "nll": ("log-probabilities", ("log_softmax", "linear")), "kl_div": ("log-probabilities", ("log_softmax", "linear")),
}
"""What a loss needs its output to be, and the outputs that are; the other losses take any."""

TARGETS = {"bce": "binary", "cross_entropy": "distribution", "kl": "distribution", "kl_div": "distribution", "nll": "classes",
           "hinge": "sign", "soft_margin": "sign"}


def pairs() -> tuple[tuple[str, str], ...]:
    """Return every output with every loss that takes it: what `Head` may be built of."""
    return tuple((o, loss) for o in OUTPUTS for loss in LOSSES if loss not in WANTED or o in WANTED[loss][1])


@register
@dataclass(frozen=True)
class Head(Rule):
    """An output activation g and a loss: J = reduce(loss(g(z), target)), for z of shape (batch, ..., outputs).

    General route   dz = g'(z)^T dJ/da: the loss's own derivative, pulled back through the activation.
    Fused route     bce after sigmoid; cross_entropy, kl and nll after softmax collapse to A - Y, without the division by a (1 - a).
    Reduction       `mean` over all entries, for a loss of whole examples (cross_entropy, half_squared_error, nll, kl, cosine) over
                    those; or `sum`; or `none`, of which each entry or example has its own upstream gradient.
    Targets         an array of z's shape, or class indices (int64) of z's shape without its last axis for nll.
    Source          Goodfellow, Bengio, Courville, *Deep Learning*, 6.2.2 and 6.5.6.
    """

    output: str = "linear"
    loss: str = "mse"
    reduction: str = "mean"
    single_pair: ClassVar[bool] = False
    """Whether the class is one output with one loss, under a name of its own."""
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")
    input_names: ClassVar[tuple[str, ...]] = ("z",)
    output_symbols: ClassVar[tuple[str, ...]] = ("J",)

    def __post_init__(self) -> None:
        for name, value, choices in (("output", self.output, OUTPUTS), ("loss", self.loss, LOSSES),
                                      ("reduction", self.reduction, self.reductions)):
            if value not in choices and value != self._default(name):  # a class of a single pair may have a loss of its own
                raise self._error(f"unknown {name}: got {value!r}, expected one of {', '.join(choices)}")
        what, wanted = WANTED.get(self.loss, ("", (self.output,)))
        if self.output not in wanted:
            raise self._error(f"the loss {self.loss} needs {what}: got output {self.output!r}, expected "
                              f"{' or '.join(repr(w) for w in wanted)}")
        for name in ("output", "loss") if self.single_pair else ():
            value, expected = getattr(self, name), self._default(name)
            if value != expected:
                raise self._error(f"the {name} is fixed: got {value!r}, expected {expected!r}. Do: Head({self.output!r}, {self.loss!r})")

    def _default(self, name: str) -> Any:
        return getattr(type(self), name)

    def _error(self, message: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {message}")

    @property
    def argument_names(self) -> tuple[str, ...]:
        return (*self.input_names, "target")

    def derivation(self) -> str:
        """Return the derivation: of the fused form where there is one, else of the loss and of the output."""
        fused = FUSED.get((self.output, self.loss))
        return str(fused.__doc__) if fused else f"{LOSSES[self.loss].__doc__}\n{OUTPUTS[self.output].__doc__}"

    def target_kind(self) -> str:
        """Say what targets hold.

        Floats: `real`; `binary` (in [0, 1]); `distribution` (rows sum to 1) or `log_distribution` (its logarithms); `sign` (-1 or 1).
        Whole numbers (int64): `classes` (0 to outputs - 1, or the head's ignore_index); `ctc` (labels, padded with -1).
        """
        return TARGETS.get(self.loss, "real")

    def target_shape(self, z_shape: Shape) -> Shape:
        """Return the shape of the target for a z of this shape, the batch axis in both."""
        return z_shape[:-1] if self.target_kind() == "classes" else z_shape

    def loss_shape(self, z_shape: Shape) -> Shape:
        """Return the shape of the loss, and of its upstream gradient, for a z of this shape; the batch axis in both."""
        return self._unreduced_shape(z_shape) if self.reduction == "none" else ()

    def _unreduced_shape(self, z_shape: Shape) -> Shape:
        return z_shape[:-1] if self.loss in PER_EXAMPLE else z_shape

    def check_shape(self, shape: Shape) -> None:
        """Raise ShapeError for a network output the head cannot take."""
        if not shape:
            raise ShapeError(self, shape, "at least one axis of outputs")

    def rule(self, params: Params, *arguments: Array) -> tuple[tuple[Array, ...], RuleBackward]:
        loss, backward = self.forward(params, *arguments)

        def pullback(*upstream: Array) -> tuple[tuple[Array, ...], dict[str, Array]]:
            return (backward(*upstream),), {}

        return (loss,), pullback

    def array_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        return {"d_output 0": self.loss_shape(shapes[0])}

    def forward(self, params: Params, z: Array, target: Array, *, route: str = "fused") -> tuple[Array, HeadBackward]:
        """Return the loss, of shape `loss_shape`, and `backward(dloss=1) -> dz`. `route="general"` avoids the fused form."""
        if route not in ROUTES:
            raise self._error(f"unknown route: got {route!r}, expected one of {', '.join(ROUTES)}")
        summands, derivative, pullback = self._evaluate(z, target, route)
        if self.reduction == "none":
            loss = summands if summands.ndim == len(self.loss_shape(z.shape)) else np.sum(summands, axis=-1)
        else:
            loss = np.sum(summands) / self.divisor(z, target)
        return loss, lambda dloss=1: pullback(self.reduced(derivative, dloss, z, target))

    def reduced(self, derivative: Array, dloss: Any, z: Array, target: Array) -> Array:
        """Return a derivative of the summands as the reduction passes it on: over the mean's divisor, times the upstream gradient."""
        shape = self.loss_shape(z.shape)
        if shape and np.ndim(dloss):
            if dloss.shape != shape:
                raise self._error(f"wrong shape of the upstream gradient: got {dloss.shape}, expected {shape}")
            dloss = dloss.reshape((*shape, *[1] * (derivative.ndim - len(shape))))
        # not dloss / divisor first: a plain number's rounding would be in no bound
        return derivative / self.divisor(z, target) * dloss

    def divisor(self, z: Array, target: Array) -> Any:
        """Return what the sum is divided by: 1, or what the mean is taken over; raise ValueError for a mean over nothing."""
        if self.reduction in {"sum", "none"}:
            return 1
        if not z.size:
            raise self._error(f"the mean over an empty batch is not defined: got z of shape {z.shape}. Do: reduction='sum'")
        return self._count(z, target)

    def _evaluate(self, z: Array, target: Array, route: str) -> tuple[Array, Array, Pullback]:
        """Return the summands of J, their derivative, and what takes the derivative to dz."""
        y, options = self.rows(z, target), self._options()
        if route == "fused" and (self.output, self.loss) in FUSED:
            return *FUSED[self.output, self.loss](z, y, **options), lambda dz: dz
        a, pullback = OUTPUTS[self.output](z)
        return *LOSSES[self.loss](a, y, **options), pullback

    def _options(self) -> dict[str, Any]:
        """Return what the loss function takes beside output and target."""
        return {}

    def rows(self, z: Array, target: Array) -> Array:
        """Return the target as the loss takes it, an array of z's shape; raise ValueError for one that does not fit."""
        kind = self.target_kind()
        if kind == "classes":
            return self._one_hot(np.asarray(target), z.shape)
        self._check_target_shape(target.shape, self.target_shape(z.shape))
        if kind == "sign":
            self._check_signs(target)
        return target

    def _check_target_shape(self, shape: Shape, expected: Shape) -> None:
        if shape != expected:  # NumPy would broadcast (m, 1) against (m,) to (m, m)
            raise self._error(f"wrong target shape: got {shape}, expected {expected}")

    def _check_signs(self, target: Array) -> None:
        numbers = plain(target)
        strange = numbers[(numbers != 1) & (numbers != -1)]
        if strange.size:
            raise self._error(f"targets are signs: got {strange[0]}, expected -1 or 1")

    def _one_hot(self, target: np.ndarray, shape: Shape) -> np.ndarray:
        """Return rows of the identity; raise ValueError for targets that are no classes of z."""
        classes = shape[-1]
        if target.dtype.kind not in "iu":
            raise self._error(f"targets are class indices: got dtype {target.dtype}, expected int64")
        self._check_target_shape(target.shape, shape[:-1])
        outside = target[(target < 0) | (target >= classes)]
        if outside.size:
            raise self._error(f"no such class: got {outside[0]}, expected 0 to {classes - 1}")
        one_hot: np.ndarray = np.eye(classes)[target]
        return one_hot

    def _count(self, z: Array, target: Array) -> Any:
        """Return what the mean divides the sum by."""
        return int(np.prod(z.shape[:-1])) if self.loss in PER_EXAMPLE else z.size


def check_weights(head: Any, name: str) -> None:
    """Raise ValueError unless a head's option is None or finite numbers >= 0, one for each output."""
    weights = getattr(head, name)
    if weights is not None and not (isinstance(weights, tuple) and weights and all(0 <= w < math.inf for w in weights)):
        raise ValueError(f"{type(head).__name__}: wrong {name}: got {weights!r}, expected None or a tuple of finite numbers >= 0")
