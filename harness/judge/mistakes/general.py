"""The mistakes that any backward can have: a factor, a sign, a transpose, a forgotten sum, a stale cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, RunRule
from backproof.reference.heads import Head
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace

__all__ = ["MISTAKES"]

def _batch(step: LayerTrace) -> int:
    return int(step.inputs[0].shape[0])


def _one(arrays: tuple[np.ndarray, ...]) -> Any:
    return arrays if len(arrays) > 1 else arrays[0]


def _scaled(factor: Callable[[int], float], step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    by = factor(_batch(step))
    return None if by == 1 else rule(step)[tensor] * by


def _transposed(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    right = rule(step)[tensor]
    square = right.ndim == 2 and right.shape[0] == right.shape[1] > 1
    return right.T if square else None


def _swapped(axis: int, step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    right = rule(step)[tensor]
    equal = right.ndim > 2 and right.shape[axis] == right.shape[axis + 1] > 1
    return np.swapaxes(right, axis, axis + 1) if equal else None


def _rows_permuted(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    right = rule(step)[tensor]
    return right[np.r_[1 : right.shape[0], 0]] if right.ndim and right.shape[0] > 1 else None


def _rows_reversed(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    right = rule(step)[tensor]
    return right[::-1] if right.ndim and right.shape[0] > 2 else None


def _is_gradient(tensor: str) -> bool:
    return tensor != "output"


def _upstream_ignored(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    if not _is_gradient(tensor):
        return None
    return rule(replace(step, d_output=_one(tuple(np.ones_like(dy) for dy in step.d_outputs))))[tensor]


def _derivative_missing(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    same = tensor == "dx" and len(step.d_outputs) == 1 and step.d_output.shape == step.inputs[0].shape
    return rule(step)[tensor] * 0 + step.d_output if same else None


def _derivative_at_output(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    same = tensor == "dx" and not step.params and len(step.outputs) == 1 and step.output.shape == step.inputs[0].shape
    return rule(replace(step, inputs=(step.output,)))[tensor] if same else None


def _stale(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    if not _is_gradient(tensor) or _batch(step) < 2 or isinstance(step.layer, Head):
        return None
    return rule(replace(step, inputs=tuple(np.roll(x, 1, axis=0) for x in step.inputs)))[tensor]


def _summed_over(examples: slice, least: int, step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
    """Leave the terms of other examples out of a parameter's gradient, in a batch of at least so many."""
    if tensor[1:] not in step.d_params or _batch(step) < least:
        return None
    kept = np.isin(np.arange(_batch(step)), np.arange(_batch(step))[examples])
    dys = tuple(np.where(kept.reshape(-1, *[1] * (dy.ndim - 1)), dy, dy * 0) for dy in step.d_outputs)
    return rule(replace(step, d_output=_one(dys)))[tensor]


MISTAKES: tuple[Mistake, ...] = (
    Mistake("zero", "{tensor} is zero everywhere", partial(_scaled, lambda m: 0.0)),
    Mistake("sign", "{tensor} has the opposite sign", partial(_scaled, lambda m: -1.0)),
    Mistake("over-batch", "{tensor} is divided by the batch size m = {m} once too often", partial(_scaled, lambda m: 1 / m)),
    Mistake("times-batch", "{tensor} is m = {m} times too large: a mean over the batch is missing", partial(_scaled, float)),
    Mistake("doubled", "{tensor} is twice too large", partial(_scaled, lambda m: 2.0)),
    Mistake("halved", "{tensor} is half of what it should be", partial(_scaled, lambda m: 0.5)),
    Mistake("transposed", "{tensor} is transposed", _transposed),
    Mistake("first-axes-swapped", "the first two axes of {tensor} are swapped", partial(_swapped, 0)),
    Mistake("last-axes-swapped", "the last two axes of {tensor} are swapped", partial(_swapped, -2)),
    Mistake("derivative-missing", "{tensor} is the upstream gradient itself: the layer's own derivative is missing", _derivative_missing),
    Mistake("derivative-at-output", "{tensor} takes the derivative at the output y in place of the input x", _derivative_at_output),
    Mistake("upstream-ignored", "{tensor} ignores the upstream gradient, as if it were all ones", _upstream_ignored),
    Mistake("first-example-only", "{tensor} holds the first example only: the sum over the batch is missing",
            partial(_summed_over, slice(1), 3)),
    Mistake("last-example-dropped", "{tensor} lacks the term of the last example", partial(_summed_over, slice(-1), 2)),
    Mistake("first-example-dropped", "{tensor} lacks the term of the first example", partial(_summed_over, slice(1, None), 2)),
    Mistake("stale-input", "{tensor} uses the cached input of another example", _stale),
    Mistake("rows-permuted", "the rows of {tensor} are shifted by one", _rows_permuted),
    Mistake("rows-reversed", "the rows of {tensor} are in reverse order", _rows_reversed),
)
