"""The mistakes people make in the backward of pooling: where a window lies, who wins it, and what it is divided by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, faulty
from backproof.reference.adaptive_pooling import AdaptiveAvgPool2d, GlobalAvgPool, GlobalMaxPool
from backproof.reference.layer import Backward, Layer, Params
from backproof.reference.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d, Mean, Sum
from backproof.reference.rounding import Array
from backproof.reference.windows import average, flat_places, gather, holders, knockout, shares, spread, windows_of

__all__ = ["MISTAKES"]

MAX, AVERAGE = (MaxPool1d, MaxPool2d), (AvgPool1d, AvgPool2d)
SLIDING = (*MAX, *AVERAGE)

Pulled = tuple[Array, Backward]


def _with(y: Array, dx: Callable[[Array], Array]) -> Pulled:
    """Return what a rule returns that has this dx and no parameters."""
    return y, lambda dy: (dx(dy), {})


def _sizes(x: Array) -> tuple[int, ...]:
    return tuple(x.shape[2:])


def _flat(x: Array) -> Array:
    return x.reshape((*x.shape[:2], math.prod(_sizes(x))))


def _divisors(layer: Any, x: Array) -> np.ndarray:
    """Return what the mean of each window is divided by."""
    return layer.divisors(_sizes(x)) if isinstance(layer, AVERAGE) else (windows_of(layer, _sizes(x))[0] >= 0).sum(axis=0)


def _windows(layer: Any, x: Array, dy: Array) -> Array:
    """Return what each entry of each window receives of dy: (batch, channels, K, O)."""
    places, _ = windows_of(layer, _sizes(x))
    if isinstance(layer, MAX):
        return shares(_flat(dy), knockout(gather(x, places), places >= 0)[1])
    divisors = _divisors(layer, x)
    return np.broadcast_to((_flat(dy) / divisors).reshape((*x.shape[:2], 1, divisors.size)), (*x.shape[:2], *places.shape))


# Where windows lie


def _assigned(layer: Layer, params: Params, x: Array) -> Pulled:
    places, held = windows_of(layer, _sizes(x))
    slot_of_last = np.sort(np.where(held >= 0, held % places.shape[1] * places.shape[0] + held // places.shape[1], -1), axis=0)
    by_window = np.where(slot_of_last >= 0, slot_of_last % places.shape[0] * places.shape[1] + slot_of_last // places.shape[0], -1)

    def dx(dy: Array) -> Array:
        terms = gather(_windows(layer, x, dy), by_window)
        total = terms[:, :, 0]
        for window in range(1, by_window.shape[0]):
            term = terms[:, :, window]
            total = np.where(term != 0, term, total)
        return total.reshape(x.shape)

    return _with(layer.forward(params, x)[0], dx)


def _misplaced(places: Callable[[Any, tuple[int, ...]], np.ndarray]) -> Callable[[Layer, Params, Array], Pulled]:
    """Return the rule that sends each entry's share to the wrong places; those outside the input are lost."""

    def rule(layer: Any, params: Params, x: Array) -> Pulled:
        right = flat_places(layer.positions(_sizes(x)), _sizes(x))
        order = np.argsort(right < 0, axis=0, kind="stable")
        wrong = np.take_along_axis(np.where(right >= 0, places(layer, _sizes(x)), -1), order, axis=0)
        held = holders(wrong, math.prod(_sizes(x)))

        def dx(dy: Array) -> Array:
            return (spread(_windows(layer, x, dy), held) if held.size else _flat(x) * 0).reshape(x.shape)

        return _with(layer.forward(params, x)[0], dx)

    return rule


def _positions(layer: Any, sizes: tuple[int, ...], strides: tuple[int, ...], paddings: tuple[int, ...]) -> np.ndarray:
    right = layer.positions(sizes)
    kernels = zip(right, layer.each("stride"), strides, layer.each("padding"), paddings, strict=True)
    return flat_places([along + np.arange(along.shape[1]) * (wrong - s) + (p - shifted) for along, s, wrong, p, shifted in kernels], sizes)


def _unstrided(layer: Any, sizes: tuple[int, ...]) -> np.ndarray:
    return _positions(layer, sizes, layer.each("kernel_size"), layer.each("padding"))


def _unpadded(layer: Any, sizes: tuple[int, ...]) -> np.ndarray:
    return _positions(layer, sizes, layer.each("stride"), (0,) * len(sizes))


def _in_window(layer: Any, sizes: tuple[int, ...]) -> np.ndarray:
    right = flat_places(layer.positions(sizes), sizes)
    offset = np.broadcast_to(np.arange(len(right))[:, None], right.shape)
    return np.where(offset < math.prod(sizes), offset, -1)


def _dropping(kept: Callable[[Any, tuple[int, ...]], list[np.ndarray]]) -> Callable[[Layer, Params, Array], Pulled]:
    """Return the rule that ignores the gradient of some windows; `kept` says which ones it looks at, for each axis."""

    def rule(layer: Any, params: Params, x: Array) -> Pulled:
        y, backward = layer.forward(params, x)
        mask = np.ones((), dtype=bool)
        for along in kept(layer, _sizes(x)):
            mask = mask[..., None] & along
        return y, lambda dy: backward(np.where(mask, dy, 0))

    return rule


def _but_last(layer: Any, sizes: tuple[int, ...]) -> list[np.ndarray]:
    return [np.arange(along.shape[1]) < max(along.shape[1] - 1, 1) for along in layer.positions(sizes)]


def _within(layer: Any, sizes: tuple[int, ...]) -> list[np.ndarray]:
    return [along[-1] < size + p for along, size, p in zip(layer.positions(sizes), sizes, layer.each("padding"), strict=True)]


# Who wins


def _evenly(layer: Layer, params: Params, x: Array) -> Pulled:
    places, held = windows_of(layer, _sizes(x))
    divisors = _divisors(layer, x)
    return _with(layer.forward(params, x)[0], lambda dy: average(x, places, held, divisors, dy.shape[1:])[1](dy)[0])


def _all_evenly(layer: Layer, params: Params, x: Array) -> Pulled:
    return _with(layer.forward(params, x)[0], lambda dy: np.broadcast_to(dy / math.prod(_sizes(x)), x.shape))


def _smallest(layer: Layer, params: Params, x: Array) -> Pulled:
    return layer.forward(params, x)[0], layer.forward(params, -x)[1]


def _all_tied(layer: Any, params: Params, x: Array) -> Pulled:
    """Give every entry that equals the largest of its window all of dy."""
    y, _ = layer.forward(params, x)
    if isinstance(layer, GlobalMaxPool):
        return _with(y, lambda dy: np.where(x == y, dy, 0))
    places, held = windows_of(layer, _sizes(x))
    largest = (gather(x, places) == _flat(y)[:, :, None]) & (places >= 0)
    return _with(y, lambda dy: spread(np.where(largest, _flat(dy)[:, :, None], 0), held).reshape(x.shape))


def _first_channel(layer: Layer, params: Params, x: Array) -> Pulled:
    first = np.broadcast_to(x[:, :1], x.shape)
    return layer.forward(params, x)[0], layer.forward(params, first)[1]


# What a sum is divided by, and how a gradient is repeated


def _undivided(layer: Any, params: Params, x: Array) -> Pulled:
    y, backward = layer.forward(params, x)
    return y, lambda dy: backward((_flat(dy) * _divisors(layer, x)).reshape(dy.shape))


def _other_divisor(layer: Any, params: Params, x: Array) -> Pulled:
    return replace(layer, count_include_pad=not layer.count_include_pad).forward(params, x)


def _largest_divisor(layer: Any, params: Params, x: Array) -> Pulled:
    places, held = windows_of(layer, _sizes(x))
    return average(x, places, held, np.full(places.shape[1], places.shape[0]), layer.output_shape(x.shape[1:]))


def _equal_windows(layer: Any, params: Params, x: Array) -> Pulled:
    outputs = layer.output_shape(x.shape[1:])[1:]
    strides = tuple(size // out or 1 for size, out in zip(_sizes(x), outputs, strict=True))
    kernels = [max(size - (out - 1) * s, 1) for size, out, s in zip(_sizes(x), outputs, strides, strict=True)]
    positions = [np.minimum(np.arange(out) * s + np.arange(k)[:, None], size - 1)
                 for size, out, s, k in zip(_sizes(x), outputs, strides, kernels, strict=True)]
    places = flat_places(positions, _sizes(x))
    return average(x, places, holders(places, math.prod(_sizes(x))), (places >= 0).sum(axis=0), (x.shape[1], *outputs))


def _scaled(factor: Callable[[Any, Array], int]) -> Callable[[Layer, Params, Array], Pulled]:
    def rule(layer: Layer, params: Params, x: Array) -> Pulled:
        y, backward = layer.forward(params, x)
        return y, lambda dy: backward(dy * factor(layer, x))

    return rule


def _to_first_position(layer: Layer, params: Params, x: Array) -> Pulled:
    first = (np.arange(math.prod(_sizes(x))) == 0).reshape(_sizes(x))
    return _with(layer.forward(params, x)[0], lambda dy: np.where(first, dy, 0))


def _to_first(layer: Any, params: Params, x: Array) -> Pulled:
    y, backward = layer.forward(params, x)
    first = (np.arange(x.shape[layer.dim]) == 0).reshape([-1 if axis == layer.dim % x.ndim else 1 for axis in range(x.ndim)])
    return _with(y, lambda dy: np.where(first, backward(dy)[0], 0))


def _tiled(layer: Any, params: Params, x: Array) -> Pulled:
    size = x.shape[layer.dim]

    def dx(dy: Array) -> Array:
        share = dy if isinstance(layer, Sum) else dy / size
        return np.broadcast_to(share.reshape((1, share.size)), (size, share.size)).reshape(x.shape)

    return _with(layer.forward(params, x)[0], dx)


def _as_mean(layer: Any, params: Params, x: Array) -> Pulled:
    return layer.forward(params, x)[0], Mean(layer.dim, layer.keepdim).forward(params, x)[1]


def _terms(layer: Any, x: Array) -> int:
    return x.shape[layer.dim]


def _area(layer: Any, x: Array) -> int:
    return math.prod(_sizes(x))


def _area_but_last(layer: Any, x: Array) -> int:
    return math.prod(_sizes(x)[:-1])


MISTAKES: tuple[Mistake, ...] = (
    faulty("pool-windows-assigned", "{tensor} is assigned window by window where windows overlap: only the last one counts, in place of "
           "the sum", (*SLIDING, AdaptiveAvgPool2d), ("dx",), _assigned),
    faulty("pool-stride-ignored", "{tensor} is laid out as if the stride were the kernel size", SLIDING, ("dx",), _misplaced(_unstrided)),
    faulty("pool-padding-ignored", "{tensor} is shifted by the padding: it is not taken off the window's position", SLIDING, ("dx",),
           _misplaced(_unpadded)),
    faulty("pool-last-windows-dropped", "{tensor} lacks the last row and column of windows: the loop ends one too early", SLIDING,
           ("dx",), _dropping(_but_last)),
    faulty("pool-ceil-window-lost", "{tensor} lacks the windows that ceil mode adds", SLIDING, ("dx",), _dropping(_within)),
    faulty("max-pool-index-in-window", "{tensor} takes the winner's index within its window for its index in the input", MAX, ("dx",),
           _misplaced(_in_window)),
    faulty("max-pool-spread-evenly", "{tensor} shares dy evenly among the window's entries, as average pooling does", MAX, ("dx",),
           _evenly),
    faulty("avg-pool-undivided", "{tensor} is not divided by the number of entries of the window", (*AVERAGE, AdaptiveAvgPool2d),
           ("dx",), _undivided),
    faulty("avg-pool-padding-counted", "{tensor} is divided by the wrong count: padding is counted where it should not be, or the other "
           "way round", AVERAGE, ("output", "dx"), _other_divisor),
    faulty("avg-pool-kernel-divisor", "{tensor} is divided by the size of a full window where the window is cut off or shorter",
           (*AVERAGE, AdaptiveAvgPool2d), ("output", "dx"), _largest_divisor),
    faulty("adaptive-pool-equal-windows", "{tensor} has windows of one size and stride where out does not divide the size",
           AdaptiveAvgPool2d, ("output", "dx"), _equal_windows),
    faulty("global-avg-pool-undivided", "{tensor} is not divided by the number of positions", GlobalAvgPool, ("dx",),
           _scaled(_area)),
    faulty("global-avg-pool-one-axis", "{tensor} is divided by the size of the last axis alone", GlobalAvgPool, ("dx",),
           _scaled(_area_but_last)),
    faulty("global-pool-first-position", "{tensor} is dy at the first position and zero elsewhere",
           (GlobalAvgPool, GlobalMaxPool), ("dx",), _to_first_position),
    faulty("global-max-pool-spread-evenly", "{tensor} shares dy evenly among all positions, as average pooling does", GlobalMaxPool,
           ("dx",), _all_evenly),
    faulty("max-pool-smallest", "{tensor} goes to the smallest entry", (*MAX, GlobalMaxPool), ("dx",), _smallest),
    faulty("tied-all-full", "{tensor} gives each of several equal largest entries all of dy: their shares must sum to dy",
           (*MAX, GlobalMaxPool), ("dx",), _all_tied),
    faulty("max-pool-first-channel", "{tensor} goes, in every channel, where the first channel is largest", (*MAX, GlobalMaxPool),
           ("dx",), _first_channel),
    faulty("sum-gradient-divided", "{tensor} is divided by the number of terms, as a mean's is", Sum, ("dx",),
           _as_mean),
    faulty("mean-gradient-undivided", "{tensor} is not divided by the number of terms", Mean, ("dx",), _scaled(_terms)),
    faulty("reduction-to-first", "{tensor} has the gradient at the first index of the axis only, and zero behind it", (Sum, Mean),
           ("dx",), _to_first),
    faulty("reduction-tiled", "{tensor} repeats dy along the wrong axis: tiled where each entry should be repeated", (Sum, Mean),
           ("dx",), _tiled),
)
