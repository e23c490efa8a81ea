"""Connectionist temporal classification: the loss of every alignment of a label sequence with the frames.

The recursions run in log space. States that no path reaches are masked by plain booleans and hold some finite number, so that no
-infinity is ever computed with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from backproof.reference.functions import softmax, softplus
from backproof.reference.gated import LogSoftmax
from backproof.reference.head import Head, Pullback
from backproof.reference.layer import Shape, ShapeError, register
from backproof.reference.rounding import Array, either

__all__ = ["CTCLoss"]

Moves = tuple[tuple[np.ndarray, np.ndarray], ...]
"""From where each state is entered, (states,), and whether it may be, (states,) or (batch, states)."""


def _logaddexp(x: Array, y: Array) -> Array:
    complex_step = isinstance(x, np.ndarray) and np.iscomplexobj(x)
    return x + softplus(y - x) if complex_step else np.logaddexp(x, y)


def _added(x: Array, has_x: np.ndarray, y: Array, has_y: np.ndarray) -> tuple[Array, np.ndarray]:
    """Return log(e^x + e^y) of what is there, and where something is; elsewhere the number is finite and means nothing."""
    return np.where(has_x & has_y, _logaddexp(x, y), np.where(has_x, x, y)), has_x | has_y


def _moves(states: np.ndarray) -> tuple[Moves, Moves]:
    """Return the moves into a state from states before it, and from states after it.

    From s - 1 always; from s - 2 over a blank, unless s repeats the label of s - 2, as every blank does the blank. What stands behind
    the end of a shorter target is entered as well, but no path comes to the end from there.
    """
    s = np.arange(states.shape[1])
    last = s[-1]
    skips = (states != states[:, np.maximum(s - 2, 0)]) & (s >= 2)
    one, two = np.minimum(s + 1, last), np.minimum(s + 2, last)  # the last state is a blank, into which nothing skips
    return ((np.maximum(s - 1, 0), s >= 1), (np.maximum(s - 2, 0), skips)), ((one, s < last), (two, skips[:, two]))


def _paths(emitted: Array, start: np.ndarray, moves: Moves, times: range) -> tuple[list[Array], list[np.ndarray]]:
    """Return for each time the log of all paths' probability into each state, its own emission included, and whether there is one."""
    logs: list[Array] = []
    there: list[np.ndarray] = []
    log, reached = emitted[:, times[0]], start
    for t in times:
        if logs:
            before, was = log, reached
            for place, allowed in moves:
                log, reached = _added(log, reached, before[:, place], was[:, place] & allowed)
            log = log + emitted[:, t]
        logs.append(log)
        there.append(reached)
    return logs, there


def ctc(z: Array, target: np.ndarray, blank: int) -> tuple[Array, Array, np.ndarray]:
    """J = -log sum over alignments of prod_t a_t,pi_t, a = softmax z; dJ/dz_tk = a_tk - sum_{s: l_s = k} p_t(s).

    p_t(s) = alpha_t(s) beta_t(s) / (a_t,l_s e^-J) is the share of the alignments that are in state s at time t; l is the target
    with a blank before, after and between its labels; with a_t,l_s in both,
    alpha_t(s) = a_t,l_s (alpha_t-1(s) + alpha_t-1(s-1) + [l_s is no blank and not l_s-2] alpha_t-1(s-2)), and beta likewise from the end.
    Returns J, dJ/dz and which targets fit into the frames; J and dJ/dz are 0 where one does not.
    """
    batch, frames, classes = z.shape
    lengths = np.count_nonzero(target >= 0, axis=1)
    states = np.full((batch, 2 * target.shape[1] + 1), blank)
    states[:, 1::2] = np.where(target >= 0, target, blank)
    log_a, _ = LogSoftmax().forward({}, z)
    spread = np.broadcast_to(states[:, None, :], (batch, frames, states.shape[1]))
    emitted = np.take_along_axis(log_a, spread, axis=2)
    forward, backward = _moves(states)
    s, ends = np.arange(states.shape[1]), 2 * lengths[:, None]
    first, last = (s <= 1) & (s <= ends), (s == ends) | (s == ends - 1)
    alphas, to = _paths(emitted, first, forward, range(frames))
    betas, back = _paths(emitted, last, backward, range(frames - 1, -1, -1))
    alpha, beta = np.stack(alphas, axis=1), np.stack(betas[::-1], axis=1)
    on_path = np.stack(to, axis=1) & np.stack(back[::-1], axis=1)
    rows = np.arange(batch)
    at, before = 2 * lengths, np.maximum(2 * lengths - 1, 0)
    log_p, fits = _added(alphas[-1][rows, at], to[-1][rows, at], alphas[-1][rows, before], to[-1][rows, before] & (lengths > 0))
    share = np.where(on_path, alpha + beta - emitted - log_p[:, None, None], 0 * alpha)
    occupied = np.where(on_path, np.exp(share), 0 * share) @ np.eye(classes)[states]
    a = either(softmax(z, -1), np.exp(log_a))
    # the shares of a time sum to 1, which implementations that go through log a's gradient leave to rounding
    gradient = either(a - occupied, a * np.sum(occupied, axis=-1, keepdims=True) - occupied)
    fit = fits[:, None, None]
    return np.where(fits, -log_p, 0 * log_p), np.where(fit, gradient, 0 * gradient), fits


@register
@dataclass(frozen=True)
class CTCLoss(Head):
    """Connectionist temporal classification of logits z (batch, time, classes), with class `blank` between labels.

    Targets are labels (int64) of shape (batch, labels), padded at the end with -1; all frames count. The softmax is taken inside:
    torch's `ctc_loss` after `log_softmax`, of whose gradient with respect to log-probabilities alone torch gives another form.
    A target that does not fit into the frames has no alignment: loss and gradient 0 with `zero_infinity`, else an error.
    Reduction       `mean` over the batch of each loss over its number of labels (at least 1), as torch; `sum`; `none`.
    Kinks           none.
    Source          Graves, Fernández, Gomez, Schmidhuber, *Connectionist Temporal Classification*, ICML 2006, equations 5-16.
    """

    output: str = field(default="log_softmax", repr=False)
    loss: str = field(default="ctc", repr=False)
    single_pair: ClassVar[bool] = True
    blank: int = 0
    zero_infinity: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blank < 0:
            raise self._error(f"wrong blank: got {self.blank}, expected a class")

    def derivation(self) -> str:
        return str(ctc.__doc__)

    def target_kind(self) -> str:
        return "ctc"

    def target_shape(self, z_shape: Shape) -> Shape:
        """Return a target's shape with room for as many labels as fit in any case: half of the frames, at least one."""
        return z_shape[0], max(1, z_shape[1] // 2)

    def _unreduced_shape(self, z_shape: Shape) -> Shape:
        return z_shape[:1]

    def check_shape(self, shape: Shape) -> None:
        if len(shape) != 2 or shape[0] < 1 or shape[1] <= self.blank:
            raise ShapeError(self, shape, f"(time, classes), with more than {max(self.blank, 0)} classes")

    def _evaluate(self, z: Array, target: Array, route: str) -> tuple[Array, Array, Pullback]:
        self.check_shape(z.shape[1:])
        target = np.asarray(target)
        self._check_labels(target, z.shape)
        losses, gradient, fits = ctc(z, target, self.blank)
        if not (self.zero_infinity or fits.all()):
            row = int(np.argmin(fits))
            raise self._error(f"a target that does not fit: got {target[row].tolist()} in {z.shape[1]} frames, expected a frame for each "
                              "label and one between equal ones. Do: zero_infinity=True")
        if self.reduction == "mean":
            labels = np.maximum(np.count_nonzero(target >= 0, axis=1), 1)
            losses, gradient = losses / labels, gradient / labels[:, None, None]
        return losses, gradient, lambda dz: dz

    def _check_labels(self, target: np.ndarray, shape: Shape) -> None:
        if target.dtype.kind not in "iu":
            raise self._error(f"targets are labels: got dtype {target.dtype}, expected int64")
        if target.ndim != 2 or len(target) != shape[0]:
            raise self._error(f"wrong target shape: got {target.shape}, expected ({shape[0]}, labels)")
        strange = target[(target < -1) | (target >= shape[-1]) | (target == self.blank)]
        if strange.size:
            raise self._error(f"no such label: got {strange[0]}, expected 0 to {shape[-1] - 1} other than the blank {self.blank}, or -1")
        if ((target[:, 1:] >= 0) & (target[:, :-1] < 0)).any():
            raise self._error("labels after padding: expected -1 at the end of a target only")

    def _count(self, z: Array, target: Array) -> Any:
        return z.shape[0]
