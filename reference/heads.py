"""Heads under the names of torch.nn: one output with one loss, and its options."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from backproof.reference.class_targets import ClassTargets
from backproof.reference.head import OUTPUTS, ROUTES, Head, Pullback, check_weights, pairs
from backproof.reference.layer import Shape, ShapeError, register
from backproof.reference.losses import FUSED, LOSSES, PER_EXAMPLE, cosine_embedding
from backproof.reference.rounding import Array

__all__ = [
    "FUSED",
    "LOSSES",
    "OUTPUTS",
    "PER_EXAMPLE",
    "ROUTES",
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Head",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
    "SoftMarginLoss",
    "pairs",
]


@register
@dataclass(frozen=True)
class MSELoss(Head):
    """Mean squared error of the raw output: `Head("linear", "mse")` under torch's name."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="mse", repr=False)
    single_pair: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class L1Loss(Head):
    """Mean absolute error of the raw output: `Head("linear", "l1")` under torch's name."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="l1", repr=False)
    single_pair: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class HuberLoss(Head):
    """Huber's loss of the raw output: quadratic up to an error of `delta`, linear beyond."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="huber", repr=False)
    single_pair: ClassVar[bool] = True
    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta < math.inf:
            raise self._error(f"wrong delta: got {self.delta}, expected a finite number > 0")

    def _options(self) -> dict[str, Any]:
        return {"delta": self.delta}


@register
@dataclass(frozen=True)
class SmoothL1Loss(Head):
    """Huber's loss over beta, of the raw output: slope 1 beyond an error of `beta`; the absolute error for beta = 0."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="smooth_l1", repr=False)
    single_pair: ClassVar[bool] = True
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < math.inf:
            raise self._error(f"wrong beta: got {self.beta}, expected a finite number >= 0")

    def _options(self) -> dict[str, Any]:
        return {"beta": self.beta}


@register
@dataclass(frozen=True)
class HingeLoss(Head):
    """max(0, margin - y z) of targets -1 and 1, mean over all entries; optax's `hinge_loss` with a margin."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="hinge", repr=False)
    single_pair: ClassVar[bool] = True
    margin: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.margin):
            raise self._error(f"wrong margin: got {self.margin}, expected a finite number")

    def _options(self) -> dict[str, Any]:
        return {"margin": self.margin}


@register
@dataclass(frozen=True)
class SoftMarginLoss(Head):
    """log(1 + e^(-y z)) of targets -1 and 1, mean over all entries: `Head("linear", "soft_margin")` under torch's name."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="soft_margin", repr=False)
    single_pair: ClassVar[bool] = True


@register
@dataclass(frozen=True)
class BCEWithLogitsLoss(Head):
    """Binary cross entropy of logits: `Head("sigmoid", "bce")` under torch's name.

    `pos_weight`, a number for each output (last axis), multiplies the term of the targets 1:
    J = -p y log s(z) - (1 - y) log s(-z), dJ/dz = (1 - y) s(z) - p y s(-z).
    """

    output: str = field(default="sigmoid", repr=False)
    loss: str = field(default="bce", repr=False)
    single_pair: ClassVar[bool] = True
    pos_weight: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "pos_weight")

    def check_shape(self, shape: Shape) -> None:
        super().check_shape(shape)
        if self.pos_weight is not None and len(self.pos_weight) != shape[-1]:
            raise ShapeError(self, shape, f"{len(self.pos_weight)} outputs, one for each pos_weight")

    def _options(self) -> dict[str, Any]:
        return {} if self.pos_weight is None else {"pos_weight": np.array(self.pos_weight)}

    def rows(self, z: Array, target: Array) -> Array:
        if self.pos_weight is not None:
            self.check_shape(z.shape[1:])
        return super().rows(z, target)


@register
@dataclass(frozen=True)
class KLDivLoss(Head):
    """Pointwise divergence y (log y - z) of log-probabilities z, as in torch: mean over all entries, or over the batch by `batchmean`.

    With `log_target` the targets are logarithms too: e^y (y - z).
    """

    output: str = field(default="linear", repr=False)
    loss: str = field(default="kl_div", repr=False)
    single_pair: ClassVar[bool] = True
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none", "batchmean")
    log_target: bool = False

    def target_kind(self) -> str:
        return "log_distribution" if self.log_target else "distribution"

    def _options(self) -> dict[str, Any]:
        return {"log_target": self.log_target}

    def _count(self, z: Array, target: Array) -> Any:
        return z.shape[0] if self.reduction == "batchmean" else z.size


@register
@dataclass(frozen=True)
class NLLLoss(ClassTargets):
    """Negative log-likelihood -w_y z_y of log-probabilities z (batch, ..., classes) and class indices y (int64).

    The mean divides by the sum of the weights w_y, over the targets that are not `ignore_index`: dz_k = -w_y [k = y] / sum w_y.
    """

    output: str = field(default="linear", repr=False)
    loss: str = field(default="nll", repr=False)
    single_pair: ClassVar[bool] = True
    weight: tuple[float, ...] | None = None
    ignore_index: int = -100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "weight")


@register
@dataclass(frozen=True)
class CrossEntropyLoss(ClassTargets):
    """Cross entropy of logits z (batch, ..., classes) and class indices y (int64), mean over the batch.

    The target becomes q = w ((1 - s) onehot + s / classes) with smoothing s and the classes' weights w, 0 where it is
    `ignore_index`; then as `Head("softmax", "cross_entropy")`: dJ/dz_k = (a_k sum_j q_j - q_k) / sum w_y, the sum over the
    targets that are not ignored. Without weights the sum is their number.
    Source: Szegedy et al., *Rethinking the Inception Architecture*, section 7, for the smoothing.
    """

    output: str = field(default="softmax", repr=False)
    loss: str = field(default="cross_entropy", repr=False)
    single_pair: ClassVar[bool] = True
    label_smoothing: float = 0.0
    ignore_index: int = -100
    weight: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "weight")
        if not 0 <= self.label_smoothing <= 1:
            raise self._error(f"label_smoothing must lie in [0, 1]: got {self.label_smoothing}")

    def _smoothed(self, z: Array, one_hot: Array) -> Array:
        if not self.label_smoothing:
            return one_hot
        one = z * 0 + 1  # brings in z's arithmetic, since smoothing the target rounds it
        return (one - self.label_smoothing) * one_hot + one * self.label_smoothing / z.shape[-1]


@register
@dataclass(frozen=True)
class CosineEmbeddingLoss(Head):
    """Cosine distance of pairs z (batch, 2, features): 1 - c for a target 1, max(0, c - margin) for -1, mean over the batch."""

    output: str = field(default="linear", repr=False)
    loss: str = field(default="cosine_embedding", repr=False)
    single_pair: ClassVar[bool] = True
    margin: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.margin <= 1:
            raise self._error(f"wrong margin: got {self.margin}, expected a number from -1 to 1")

    def derivation(self) -> str:
        return str(cosine_embedding.__doc__)

    def target_kind(self) -> str:
        return "sign"

    def target_shape(self, z_shape: Shape) -> Shape:
        return z_shape[:1]

    def _unreduced_shape(self, z_shape: Shape) -> Shape:
        return z_shape[:1]

    def check_shape(self, shape: Shape) -> None:
        if len(shape) != 2 or shape[0] != 2:
            raise ShapeError(self, shape, "(2, features): the two vectors of a pair")

    def _evaluate(self, z: Array, target: Array, route: str) -> tuple[Array, Array, Pullback]:
        self.check_shape(z.shape[1:])
        return *cosine_embedding(z, self.rows(z, target), self.margin), lambda dz: dz

    def _count(self, z: Array, target: Array) -> Any:
        return z.shape[0]
