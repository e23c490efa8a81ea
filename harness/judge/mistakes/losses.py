"""The mistakes people make in the gradient of a loss: a reduction, a weight or a mask that the loss has and its gradient lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, RunRule
from backproof.reference.ctc import CTCLoss
from backproof.reference.functions import sigmoid, softmax
from backproof.reference.head import WANTED
from backproof.reference.heads import (
    FUSED,
    OUTPUTS,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    Head,
    HingeLoss,
    HuberLoss,
    KLDivLoss,
    NLLLoss,
    SmoothL1Loss,
)
from backproof.reference.layer import Params
from backproof.reference.losses import PER_EXAMPLE, plain
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace

__all__ = ["MISTAKES"]

Gradient = Callable[[Any, Array, Array, Any], Array]
"""A wrong dz of a head, from z, target and upstream gradient."""
Applies = Callable[[Any, Array, Array], bool]
"""Say whether the mistake has a meaning for a head, z and target."""


@dataclass(frozen=True)
class FaultyHead(Head):
    """A head with the loss of another and a wrong gradient of it."""

    head: Any = None
    gradient: Gradient | None = None

    def __post_init__(self) -> None:
        """Take the other head as it is, checked already."""

    def loss_shape(self, z_shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.head.loss_shape(z_shape)

    def forward(self, params: Params, z: Array, target: Array, *, route: str = "fused") -> tuple[Array, Callable[..., Array]]:
        loss, _ = self.head.forward(params, z, target, route=route)
        return loss, lambda dloss=1: self.gradient(self.head, z, target, dloss)  # type: ignore[misc]


def of_head(code: str, sentence: str, applies: Applies, gradient: Gradient) -> Mistake:
    """Return the mistake of a wrong dz, for the heads and targets where it has a meaning."""

    def wrong(step: LayerTrace, tensor: str, right: RunRule) -> Array | None:
        if tensor != "dz" or not isinstance(step.layer, Head) or not applies(step.layer, *step.inputs):
            return None
        return right(replace(step, layer=FaultyHead(head=step.layer, gradient=gradient)))[tensor]

    return Mistake(code, sentence, wrong, Head)


def _gradient(head: Head, z: Array, target: Array, dloss: Any) -> Array:
    return head.forward({}, z, target)[1](dloss)


def _as(head: Head, z: Array, target: Array, dloss: Any, **options: Any) -> Array:
    """Return the gradient of a head with other options and its own reduction's divisor."""
    other = _gradient(replace(head, reduction="none", **options), z, target, 1)
    return head.reduced(other, dloss, z, target)


def _per_label(head: Any, derivative: Array, target: Array) -> Array:
    """Divide the derivative of a CTC loss by the number of labels, where its mean does."""
    if not isinstance(head, CTCLoss) or head.reduction != "mean":
        return derivative
    return derivative / np.maximum(np.count_nonzero(np.asarray(target) >= 0, axis=1), 1)[:, None, None]


def _is(*types: type) -> Applies:
    return lambda head, z, target: isinstance(head, types)


# --- reductions


def _mean_missing(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(replace(head, reduction="sum"), z, target, dloss)


def _over_entries(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss) / z.shape[-1]


def _over_examples(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss) * (z.size // z.shape[0])


def _means_over_entries(head: Any, z: Array) -> bool:
    return head.reduction == "mean" and head.loss not in {*PER_EXAMPLE, "ctc", "cosine_embedding"} and z[0].size > 1


def _first_upstream(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss.reshape((-1,))[0])


# --- class indices: weights, ignored targets, smoothing


def _ignored(head: Any, target: Array) -> np.ndarray:
    return np.asarray(target) == head.ignore_index


def _has_ignored(head: Any, z: Array, target: Array) -> bool:
    return isinstance(head, (CrossEntropyLoss, NLLLoss)) and bool(_ignored(head, target).any())


def _ignored_counted(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    summed = _gradient(replace(head, reduction="sum"), z, target, dloss)
    if head.weight is None:
        return summed / np.asarray(target).size
    weights = np.array(head.weight)[np.where(_ignored(head, target), 0, target)]
    return summed / np.sum(z[..., 0] * 0 + weights)


def _ignored_not_masked(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    rows = softmax(z, -1) * _ignored(head, target)[..., None]
    return _gradient(head, z, target, dloss) + head.reduced(rows, dloss, z, target)


def _logits_dropped(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    """Return dz without the term of the normalisation, as if log-probabilities came in."""
    right = _gradient(head, z, target, dloss)
    if isinstance(head, CTCLoss):
        return right - head.reduced(_per_label(head, softmax(z, -1), target), dloss, z, target)
    return head.reduced(0 * right - head.rows(z, target), dloss, z, target)


def _through_softmax(head: Any, z: Array, target: Array) -> bool:
    return (head.output, head.loss) in {("softmax", "cross_entropy"), ("softmax", "kl"), ("log_softmax", "nll"), ("log_softmax", "ctc")}


# --- probabilities


def _derivative_twice(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss) * (sigmoid(z) * sigmoid(-z))


def _pos_weight_side(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return -_gradient(head, -z, 1 - target, dloss)


def _own_side(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    towards, upper = _towards(z, target)
    s = sigmoid(towards)
    return head.reduced(np.where(upper, -s, s), dloss, z, target)


# --- errors, margins


def _raw_error(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return head.reduced(z - target, dloss, z, target)


def _target_forgotten(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, 0 * target, dloss)


def _output_derivative_missing(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    a, _ = OUTPUTS[head.output](z)
    return replace(head, output="linear").forward({}, a, target)[1](dloss)


def _general_route(head: Any, z: Array, target: Array) -> bool:
    return not head.single_pair and head.output != "linear" and (head.output, head.loss) not in FUSED and head.loss not in WANTED


def _towards(z: Array, target: Array) -> tuple[Array, np.ndarray]:
    upper = plain(target) > 0
    return np.where(upper, z, -z), upper


def _margin_missing(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    right, (towards, _) = _gradient(head, z, target, dloss), _towards(z, target)
    return np.where(towards < 0, right, 0 * right)


def _inside_margin(head: Any, z: Array, target: Array) -> bool:
    if not isinstance(head, HingeLoss):
        return False
    towards = plain(z) * plain(target)
    return bool(((towards >= 0) & (towards < head.margin)).any())


def _gate_missing(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    slope = np.where(_towards(z, target)[1], 0 * z - 1, 0 * z + 1)
    return head.reduced(slope, dloss, z, target)


def _at_the_margin(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    right, (towards, upper) = _gradient(head, z, target, dloss), _towards(z, target)
    against = head.reduced(np.where(upper, 0 * z + 1, 0 * z - 1), dloss, z, target)
    return np.where(towards == head.margin, against, right)


def _on_the_margin(head: Any, z: Array, target: Array) -> bool:
    return isinstance(head, HingeLoss) and bool((plain(z) * plain(target) == head.margin).any())


# --- cosines


def _projection_dropped(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    """-y / (|a| |y|), without what turns it perpendicular to a."""
    norms = [np.sqrt(np.maximum(np.sum(v * v, axis=-1, keepdims=True), 1e-16)) for v in (z, target)]
    return head.reduced(-(target / norms[1] / norms[0]), dloss, z, target)


def _norm_dropped(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss) * np.sqrt(np.sum(z * z, axis=-1, keepdims=True))


def _linear_cosine(head: Any, z: Array, target: Array) -> bool:
    return (head.output, head.loss) == ("linear", "cosine")


def _has_dissimilar(head: Any, z: Array, target: Array) -> bool:
    return isinstance(head, CosineEmbeddingLoss) and bool((plain(target) < 0).any())


def _one_sided(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, target, dloss) * np.array([[[1.0], [0.0]]])


def _never_close(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(replace(head, margin=-1.0), z, target, dloss)


def _as_similar(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _gradient(head, z, 0 * target + 1, dloss)


# --- alignments


def _merged(target: np.ndarray) -> np.ndarray:
    """Return label sequences with one of each run of equal labels."""
    merged = np.full_like(target, -1)
    for row, labels in zip(merged, target, strict=True):
        kept = [label for i, label in enumerate(labels) if label >= 0 and (i == 0 or label != labels[i - 1])]
        row[: len(kept)] = kept
    return merged


def _repeats_merged(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    summed = _gradient(replace(head, reduction="none"), z, _merged(np.asarray(target)), 1)
    return head.reduced(_per_label(head, summed, target), dloss, z, target)


def _has_repeats(head: Any, z: Array, target: Array) -> bool:
    return isinstance(head, CTCLoss) and not np.array_equal(_merged(np.asarray(target)), np.asarray(target))


def _lengths_missing(head: Any, z: Array, target: Array, dloss: Any) -> Array:
    return _as(head, z, target, dloss)


def _has_lengths(head: Any, z: Array, target: Array) -> bool:
    return isinstance(head, CTCLoss) and head.reduction == "mean" and bool((np.count_nonzero(np.asarray(target) >= 0, axis=1) > 1).any())


MISTAKES: tuple[Mistake, ...] = (
    of_head("loss-mean-missing", "{tensor} is that of the sum: the loss is a mean, and its divisor is missing in the gradient",
            lambda h, z, t: not isinstance(h, CTCLoss) and h.divisor(z, t) != 1, _mean_missing),
    of_head("mean-over-entries", "{tensor} is divided by the number of outputs too: the mean is over examples, each of which is a sum",
            lambda h, z, t: ((h.loss in PER_EXAMPLE and h.reduction == "mean") or h.reduction == "batchmean") and z.shape[-1] > 1,
            _over_entries),
    of_head("mean-over-examples", "{tensor} is divided by the number of examples alone: the mean is over all their entries",
            lambda h, z, t: _means_over_entries(h, z), _over_examples),
    of_head("first-upstream", "{tensor} takes one upstream gradient for all entries: an unreduced loss has one for each",
            lambda h, z, t: h.reduction == "none" and np.size(z[..., 0]) > 1, _first_upstream),
    of_head("class-weight-missing", "{tensor} lacks the weights of the classes, which the loss and its divisor have",
            lambda h, z, t: isinstance(h, (CrossEntropyLoss, NLLLoss)) and h.weight is not None, partial(_as, weight=None)),
    of_head("ignored-counted", "{tensor} is divided by the number of all targets: those of ignore_index count in the mean",
            lambda h, z, t: h.reduction == "mean" and _has_ignored(h, z, t), _ignored_counted),
    of_head("ignored-not-masked", "{tensor} holds the softmax where the target is ignore_index, and should be 0 there",
            lambda h, z, t: h.output == "softmax" and _has_ignored(h, z, t), _ignored_not_masked),
    of_head("smoothing-forgotten", "{tensor} is that of hard targets: the loss smooths them",
            lambda h, z, t: bool(getattr(h, "label_smoothing", 0)), partial(_as, label_smoothing=0.0)),
    of_head("normalisation-dropped", "{tensor} lacks the softmax: it is the gradient of log-probabilities, not of logits",
            _through_softmax, _logits_dropped),
    of_head("log-target-ignored", "{tensor} takes the targets for probabilities: they are logarithms",
            lambda h, z, t: isinstance(h, KLDivLoss) and h.log_target, lambda h, z, t, d: h.reduced(0 * z - t, d, z, t)),
    of_head("sigmoid-derivative-twice", "{tensor} has the factor a (1 - a) once too often: a - y contains the sigmoid's derivative",
            lambda h, z, t: h.loss == "bce", _derivative_twice),
    of_head("pos-weight-side", "{tensor} weights the term of the targets 0 with pos_weight, which is for the targets 1",
            lambda h, z, t: isinstance(h, BCEWithLogitsLoss) and h.pos_weight is not None, _pos_weight_side),
    of_head("pos-weight-missing", "{tensor} lacks pos_weight, which the loss has",
            lambda h, z, t: isinstance(h, BCEWithLogitsLoss) and h.pos_weight is not None, partial(_as, pos_weight=None)),
    of_head("soft-margin-side", "{tensor} is -y s(y z), where it should be -y s(-y z)",
            lambda h, z, t: (h.output, h.loss) == ("linear", "soft_margin"), _own_side),
    of_head("output-derivative-missing", "{tensor} is dJ/da: the derivative of the output activation is missing", _general_route,
            _output_derivative_missing),
    of_head("target-forgotten", "{tensor} is that of the output's own square: the target is missing in the error",
            lambda h, z, t: h.output == "linear" and h.loss in {"mse", "half_squared_error"}, _target_forgotten),
    of_head("error-for-sign", "{tensor} is the error itself, not its sign", lambda h, z, t: (h.output, h.loss) == ("linear", "l1"),
            _raw_error),
    of_head("error-not-cut", "{tensor} is the error itself, also where the loss is linear", _is(HuberLoss), _raw_error),
    of_head("delta-missing", "{tensor} is 1 or -1 where the loss is linear: its slope there is delta",
            lambda h, z, t: isinstance(h, HuberLoss) and h.delta != 1,
            lambda h, z, t, d: _gradient(SmoothL1Loss(reduction=h.reduction, beta=h.delta), z, t, d)),
    of_head("beta-missing", "{tensor} is the error where the loss is quadratic: its slope there is the error over beta",
            lambda h, z, t: isinstance(h, SmoothL1Loss) and h.beta not in {0, 1},
            lambda h, z, t, d: _gradient(HuberLoss(reduction=h.reduction, delta=h.beta), z, t, d)),
    of_head("margin-missing", "{tensor} is 0 as soon as the sign is right: inside the margin the loss is not 0 yet",
            _inside_margin, _margin_missing),
    of_head("margin-gate-missing", "{tensor} is -y everywhere, also beyond the margin where the loss is 0", _is(HingeLoss), _gate_missing),
    of_head("margin-side", "{tensor} is y at the margin itself: a subgradient lies between -y and 0", _on_the_margin, _at_the_margin),
    of_head("projection-dropped", "{tensor} lacks the term -c a / |a|^2, which makes it perpendicular to a", _linear_cosine,
            _projection_dropped),
    of_head("norm-dropped", "{tensor} lacks the factor 1 / |a|: longer vectors turn more slowly", _linear_cosine, _norm_dropped),
    of_head("pair-one-sided", "{tensor} of a pair's second vector is 0: both move", _is(CosineEmbeddingLoss), _one_sided),
    of_head("pair-margin-ignored", "{tensor} pushes dissimilar pairs apart that are already beyond the margin",
            _has_dissimilar, _never_close),
    of_head("pair-taken-for-similar", "{tensor} pulls dissimilar pairs together", _has_dissimilar, _as_similar),
    of_head("repeats-merged", "{tensor} merges repeated labels, as if no blank had to stand between them", _has_repeats, _repeats_merged),
    of_head("label-count-missing", "{tensor} is not divided by the number of labels of each example, as the mean is", _has_lengths,
            _lengths_missing),
)
