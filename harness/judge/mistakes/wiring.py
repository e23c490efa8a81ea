"""The mistakes of layers that move numbers about: another order of entries, a part or a use forgotten, a spread gradient not summed."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import FaultyRule, Mistake, faulty, with_gradients
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace
from backproof.reference.wiring import Add, Concatenate, Flatten, Fork, Multiply, Reshape, Transpose

__all__ = ["MISTAKES"]

Inputs = tuple[Array, ...]


# Another order of entries


def _turned(x: Array) -> Array:
    """Return x with its axes but the batch in reverse order."""
    return np.transpose(x, (0, *range(x.ndim - 1, 0, -1)))


def _column_major(layer: Any, inputs: Inputs, dy: Array) -> Array:
    shape = inputs[0].shape
    return _turned(_turned(dy).reshape((shape[0], *shape[:0:-1])))


def _batch_last(layer: Any, inputs: Inputs, dy: Array) -> Array:
    shape = inputs[0].shape
    return np.transpose(dy.reshape((prod(shape[1:]), shape[0])), (1, 0)).reshape(shape)


def _one_too_far(layer: Any, inputs: Inputs, dy: Array) -> Array:
    flat = dy.reshape((dy.size,))
    return np.concatenate([flat[1:], flat[:1]], axis=0).reshape(inputs[0].shape)


def _reshaped(layer: Any, inputs: Inputs, dy: Array) -> Array:
    return dy.reshape(inputs[0].shape)


def _cycled(layer: Transpose, inputs: Inputs, dy: Array) -> Array:
    return np.moveaxis(dy, layer.dim1, layer.dim0).reshape(inputs[0].shape)


def _rotated(layer: Transpose, inputs: Inputs, dy: Array) -> Array:
    return np.flip(np.swapaxes(dy, layer.dim0, layer.dim1), layer.dim0)


# Parts of a concatenation, uses of a fork


def _parts(offset: Callable[[int, list[int]], int]) -> FaultyRule:
    """Return the rule that cuts the part of each input at another offset, which follows from its number and all sizes."""

    def gradients(layer: Concatenate, inputs: Inputs, dy: Array) -> Any:
        sizes = [x.shape[layer.dim] for x in inputs]
        along = np.moveaxis(dy, layer.dim, 0)
        starts = [min(offset(i, sizes), sum(sizes) - size) for i, size in enumerate(sizes)]
        parts = tuple(np.moveaxis(along[start : start + size], 0, layer.dim) for start, size in zip(starts, sizes, strict=True))
        return parts if len(parts) > 1 else parts[0]

    return with_gradients(gradients)


def _several(step: LayerTrace) -> set[str]:
    return {f"d{name}" for name in step.layer.input_names} if step.layer.inputs > 1 else set()


def _but_first(step: LayerTrace) -> set[str]:
    return {f"d{name}" for name in step.layer.input_names[1:]}


def _first_part_only(layer: Concatenate, inputs: Inputs, dy: Array) -> Any:
    dxs, _ = layer.forward({}, *inputs)[1](dy)
    return (dxs[0], *(0 * dx for dx in dxs[1:])) if layer.inputs > 1 else dxs


def _forked(step: LayerTrace) -> set[str]:
    return {"dx"} if step.layer.copies > 1 and step.d_outputs[0] is not None else set()


# Two inputs spread over each other


def _both(change: Callable[[Array, tuple[int, ...]], Array]) -> FaultyRule:
    """Return the rule that takes the gradient of a spread input out of all its uses in another way."""

    def gradients(layer: Add | Multiply, inputs: Inputs, dy: Array) -> Any:
        a, b = (x.reshape((x.shape[0], *[1] * (dy.ndim - x.ndim), *x.shape[1:])) for x in inputs)
        uses = (dy * b, dy * a) if isinstance(layer, Multiply) else (dy, dy)
        return tuple(change(use, x.shape).reshape(full.shape) for use, x, full in zip(uses, (a, b), inputs, strict=True))

    return with_gradients(gradients)


def _spread_axes(dy: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(shape) if size != dy.shape[axis])


def _first_use(use: Array, shape: tuple[int, ...]) -> Array:
    return use[tuple(slice(size) for size in shape)]


def _mean_of_uses(use: Array, shape: tuple[int, ...]) -> Array:
    return np.sum(use, axis=_spread_axes(use, shape), keepdims=True) / (use.size // prod(shape))


def _spread(step: LayerTrace) -> set[str]:
    """Return the gradients of the inputs that are spread over the other."""
    return {f"d{name}" for name, x in zip(step.layer.input_names, step.inputs, strict=True) if x.size != step.outputs[0].size}


def _whole(step: LayerTrace) -> set[str]:
    """Return the gradients of the inputs if neither is spread."""
    return set() if _spread(step) else {"da", "db"}


def _second_forgotten(layer: Add, inputs: Inputs, dy: Array) -> Any:
    da, db = layer.forward({}, *inputs)[1](dy)[0]
    return da, 0 * db


def _own_factor(layer: Multiply, inputs: Inputs, dy: Array) -> Any:
    return dy * inputs[0], dy * inputs[1]


def _no_factor(layer: Multiply, inputs: Inputs, dy: Array) -> Any:
    return Add().forward({}, *inputs)[1](dy)[0]


def _product(layer: Multiply, inputs: Inputs, dy: Array) -> Any:
    return _no_factor(layer, inputs, dy * layer.forward({}, *inputs)[0])


MISTAKES: tuple[Mistake, ...] = (
    faulty("reshape-column-major", "{tensor} takes the entries of dy in column-major order: the forward pass laid them out row by row",
           (Flatten, Reshape), ("dx",), with_gradients(_column_major)),
    faulty("reshape-batch-last", "{tensor} takes dy for (entries, batch): it is not reshaped example by example",
           (Flatten, Reshape), ("dx",), with_gradients(_batch_last)),
    faulty("reshape-one-too-far", "{tensor} is a view of dy that starts one entry too late", (Flatten, Reshape), ("dx",),
           with_gradients(_one_too_far)),
    faulty("transpose-not-undone", "{tensor} is dy under the shape of x, not transposed back", Transpose, ("dx",),
           with_gradients(_reshaped)),
    faulty("transpose-other-axes", "{tensor} moves one axis past the others where two axes should change places", Transpose, ("dx",),
           with_gradients(_cycled)),
    faulty("transpose-rotated", "{tensor} is dy rotated by a quarter turn, not transposed: one axis runs backwards", Transpose, ("dx",),
           with_gradients(_rotated)),
    faulty("concat-parts-swapped", "{tensor} is cut out of dy as if the inputs lay in reverse order", Concatenate, _several,
           _parts(lambda i, sizes: sum(sizes[i + 1 :]))),
    faulty("concat-offset-wrong", "{tensor} starts at i times its own size: the inputs before it have other sizes", Concatenate,
           _but_first, _parts(lambda i, sizes: i * sizes[i])),
    faulty("concat-offset-missing", "{tensor} is cut out at the start of dy: the offset of its part is missing", Concatenate, _but_first,
           _parts(lambda i, sizes: 0)),
    faulty("concat-first-part-only", "{tensor} is zero: only the first part of dy is handed back", Concatenate, _but_first,
           with_gradients(_first_part_only)),
    faulty("broadcast-first-only", "{tensor} is the gradient of the first use: the sum over what the input was spread to is missing",
           (Add, Multiply), _spread, _both(_first_use)),
    faulty("broadcast-averaged", "{tensor} is the mean over what the input was spread to, not the sum", (Add, Multiply), _spread,
           _both(_mean_of_uses)),
    faulty("add-second-forgotten", "{tensor} is zero: dy goes to the first summand alone", Add, ("db",), with_gradients(_second_forgotten)),
    faulty("multiply-own-factor", "{tensor} is dy times the input itself, not times the other factor", Multiply, _whole,
           with_gradients(_own_factor)),
    faulty("multiply-factor-missing", "{tensor} lacks the other factor, as if the layer were a sum", Multiply, ("da", "db"),
           with_gradients(_no_factor)),
    faulty("multiply-by-product", "{tensor} is dy times y = a b: its own factor is still in the product", Multiply, ("da", "db"),
           with_gradients(_product)),
    faulty("fork-last-use-only", "{tensor} is the gradient of the last use: each use overwrites the one before", Fork, _forked,
           with_gradients(lambda layer, inputs, dys: dys[-1])),
    faulty("fork-first-use-only", "{tensor} is the gradient of the first use: the others are forgotten", Fork, _forked,
           with_gradients(lambda layer, inputs, dys: dys[0])),
    faulty("fork-averaged", "{tensor} is the mean of the gradients of all uses, not their sum", Fork, _forked,
           with_gradients(lambda layer, inputs, dys: sum(dys[1:], dys[0]) / len(dys))),
)
