"""The mistakes of convolutions: windows in the wrong place, groups mixed, kernels turned, sums over space forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import FaultyRule, Mistake, faulty
from backproof.reference.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from backproof.reference.convolution_windows import NOTHING, Window, pairings, spread, windowed
from backproof.reference.layer import Backward, Params
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace

__all__ = ["MISTAKES"]

FORWARD, TRANSPOSED = (Conv1d, Conv2d, Conv3d), (ConvTranspose1d, ConvTranspose2d)
EVERY = (*FORWARD, *TRANSPOSED)


def _with_window(change: Callable[[Any, Window], Window]) -> FaultyRule:
    """Return the rule whose backward takes another window than its forward."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = layer.forward(params, x)
        weight, _ = layer.kernels(params)
        window = change(layer, layer.window(x.shape[2:]))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            inputs, outputs = layer.grouped(x), layer.grouped(dy)
            if isinstance(layer, FORWARD):
                dx, dweight = spread(outputs, weight, window), pairings(inputs, outputs, window)
            else:
                dx, dweight = windowed(outputs, weight, window), pairings(outputs, inputs, window)
            return dx.reshape(x.shape), {**right(dy)[1], "weight": dweight.reshape(params["weight"].shape)}

        return y, backward

    return rule


def _with_weight(change: Callable[[Any, Array], Array]) -> FaultyRule:
    """Return the rule with another weight, whose gradient goes through the same change."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = layer.forward({**params, "weight": change(layer, params["weight"])}, x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dparams = right(dy)
            return dx, {**dparams, "weight": change(layer, dparams["weight"])}

        return y, backward

    return rule


def _with_upstream(change: Callable[[Any, Array, Any], Array]) -> FaultyRule:
    """Return the rule whose backward starts from another dy, given the shape of x."""

    def rule(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = layer.forward(params, x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return right(change(layer, dy, x.shape))

        return y, backward

    return rule


def _turned(layer: Any, weight: Array) -> Array:
    return np.flip(weight, tuple(range(2, weight.ndim)))


def _next_group(layer: Any, weight: Array) -> Array:
    rows = np.arange(weight.shape[0])
    return weight[np.roll(rows, weight.shape[0] // layer.groups)]


def _channels_swapped(layer: Any, weight: Array) -> Array:
    a, b = weight.shape[0] // layer.groups, weight.shape[1]
    return np.swapaxes(weight.reshape((layer.groups, a, b, *weight.shape[2:])), 1, 2).reshape(weight.shape)


def _of_as_many_channels(step: LayerTrace) -> set[str]:
    """Return what changes where each group has as many output channels as input channels, and more than one."""
    a, b = step.params["weight"].shape[0] // step.layer.groups, step.params["weight"].shape[1]
    return {"output", "dx", "dweight"} if a == b > 1 else set()


def _stride_one(layer: Any, window: Window) -> Window:
    return replace(window, stride=(1,) * layer.axes)


def _dense(layer: Any, window: Window) -> Window:
    return replace(window, dilation=(1,) * layer.axes)


def _unpadded(layer: Any, window: Window) -> Window:
    return replace(window, padding=(0,) * layer.axes)


def _remainder_in_front(layer: Any, window: Window) -> Window:
    """Shift the windows by the positions at the end that none of them reaches."""
    sizes = zip(window.inputs, window.outputs, window.kernel, window.stride, window.padding, window.dilation, strict=True)
    rest = [max(0, size + 2 * p - d * (k - 1) - 1 - (out - 1) * s) for size, out, k, s, p, d in sizes]
    return replace(window, padding=tuple(p - r for p, r in zip(window.padding, rest, strict=True)))


class _LastOnly(Window):
    """A window in which each input position knows only the last output position that sees it."""

    def seeing(self) -> np.ndarray:
        table = super().seeing()
        return np.where(table == table.max(axis=1, keepdims=True), table, NOTHING)


def _last_only(layer: Any, window: Window) -> Window:
    return _LastOnly(window.kernel, window.stride, window.padding, window.dilation, window.inputs, window.outputs)


def _output_overwritten(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    weight, bias = layer.kernels(params)
    return spread(layer.grouped(x), weight, _last_only(layer, layer.window(x.shape[2:])), bias).reshape(y.shape), right


def _edges_dropped(layer: Any, dy: Array, shape: Any) -> Array:
    inside = (layer.window(shape[2:]).seen() != NOTHING).all(axis=1)
    return np.where(inside.reshape(dy.shape[2:]), dy, 0)


def _first_position(layer: Any, dy: Array, shape: Any) -> Array:
    first = np.arange(prod(dy.shape[2:])) == 0
    return np.where(first.reshape(dy.shape[2:]), dy, 0)


def _last_position_dropped(layer: Any, dy: Array, shape: Any) -> Array:
    positions = prod(dy.shape[2:])
    kept = np.arange(positions) != positions - 1
    return np.where(kept.reshape(dy.shape[2:]), dy, 0)


def _mean_over_space(layer: Any, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    positions = prod(y.shape[2:])

    def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
        dx, dparams = right(dy)
        return dx, {name: d / positions for name, d in dparams.items()}

    return y, backward


MISTAKES: tuple[Mistake, ...] = (
    faulty("conv-kernel-turned", "{tensor} takes the kernel turned round: a convolution where a correlation is meant, or the reverse",
           EVERY, {"output", "dx", "dweight"}, _with_weight(_turned)),
    faulty("conv-groups-mixed", "{tensor} pairs each group of channels with the kernels of the group before it",
           EVERY, {"output", "dx", "dweight"}, _with_weight(_next_group)),
    faulty("conv-channels-swapped", "{tensor} takes the weight with its input and output channels interchanged",
           EVERY, _of_as_many_channels, _with_weight(_channels_swapped)),
    faulty("conv-stride-ignored", "{tensor} ignores the stride: neighbouring windows are taken to start one position apart",
           EVERY, {"dx", "dweight"}, _with_window(_stride_one)),
    faulty("conv-dilation-forgotten", "{tensor} forgets the dilation: the kernel is taken to be dense",
           EVERY, {"dx", "dweight"}, _with_window(_dense)),
    faulty("conv-padding-cropped", "{tensor} is not shifted by the padding: the padded gradient is cropped at its end only",
           EVERY, {"dx", "dweight"}, _with_window(_unpadded)),
    faulty("conv-remainder-in-front", "{tensor} puts the positions that the last window does not reach in front in place of behind",
           EVERY, {"dx", "dweight"}, _with_window(_remainder_in_front)),
    faulty("conv-overlap-overwritten", "{tensor} holds what the last window gave where windows overlap: assigned, not added",
           FORWARD, {"dx"}, _with_window(_last_only)),
    faulty("conv-transpose-overlap-overwritten", "{tensor} holds what the last window gave where windows overlap: assigned, not added",
           TRANSPOSED, {"output"}, _output_overwritten),
    faulty("conv-edges-dropped", "{tensor} leaves out the windows that reach into the padding",
           FORWARD, {"dx", "dweight"}, _with_upstream(_edges_dropped)),
    faulty("conv-first-position-only", "{tensor} holds the first output position only: the sum over the space is missing",
           EVERY, {"dweight", "dbias"}, _with_upstream(_first_position)),
    faulty("conv-last-position-dropped", "{tensor} lacks the last output position",
           EVERY, {"dx", "dweight", "dbias"}, _with_upstream(_last_position_dropped)),
    faulty("conv-mean-over-space", "{tensor} is divided by the number of output positions: a mean over the space in place of a sum",
           EVERY, {"dweight", "dbias"}, _mean_over_space),
)
