"""The windows that convolutions and their transposes sum over, and the options, groups and layout that these layers share.

One relation of index triples, s o + d k - p = i, ties an output position o and an offset k of the kernel to an input
position i. A convolution sums over the pairs (i, k) of an o; its gradient and the transposed convolution sum over the pairs
(o, k) of an i; dW sums over the pairs (i, o) of a k. `Window` lists the first two as tables, and everything else is a gather
by a table followed by a matrix product. Each entry is one sum over its own terms, which is also what its bound counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from backproof.reference.functions import sum_of_products
from backproof.reference.layer import Layer, Params, Shape, ShapeError
from backproof.reference.rounding import Array

__all__ = ["NOTHING", "ConvolutionLayer", "Window", "pairings", "spread", "windowed"]

NOTHING = -1  # in a table: padding, or no such position. It is also the index of the row of zeros that `_gathered` appends


@dataclass(frozen=True)
class Window:
    """Which positions of an input a window with its offsets covers, axis by axis: s o + d k - p = i."""

    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    inputs: Shape
    outputs: Shape

    def seen(self) -> np.ndarray:
        """Return the flat input position i of every output position o (rows) and offset k (columns)."""
        axes = []
        for k, s, p, d, size, out in self._axes():
            i = s * np.arange(out)[:, None] + d * np.arange(k) - p
            axes.append(np.where((i >= 0) & (i < size), i, NOTHING))
        return _flat(axes, self.inputs)

    def seeing(self) -> np.ndarray:
        """Return the flat output position o of every input position i (rows) and offset k (columns)."""
        axes = []
        for k, s, p, d, size, out in self._axes():
            o, between = np.divmod(np.arange(size)[:, None] + p - d * np.arange(k), s)
            axes.append(np.where((between == 0) & (o >= 0) & (o < out), o, NOTHING))
        return _flat(axes, self.outputs)

    def phases(self) -> np.ndarray:
        """Return i modulo the stride, as one number for all axes: positions of one phase meet the same offsets."""
        phases = np.zeros((1,), dtype=np.int64)
        for s, size in zip(self.stride, self.inputs, strict=True):
            phases = (phases[:, None] * s + np.arange(size) % s).ravel()
        return phases

    def _axes(self) -> Any:
        return zip(self.kernel, self.stride, self.padding, self.dilation, self.inputs, self.outputs, strict=True)


def _flat(axes: list[np.ndarray], sizes: Shape) -> np.ndarray:
    """Join the tables of single axes into one of flat positions; what is nothing along one axis is nothing."""
    flat = np.zeros((1, 1), dtype=np.int64)
    for places, size in zip(axes, sizes, strict=True):
        before, after = flat[:, None, :, None], places[None, :, None, :]
        joined = np.where((before == NOTHING) | (after == NOTHING), NOTHING, before * size + after)
        flat = joined.reshape((flat.shape[0] * places.shape[0], flat.shape[1] * places.shape[1]))
    return flat


def _gathered(x: Array, table: np.ndarray) -> Array:
    """Return x (n, g, b, i) at the positions of a table (o, k), as (g, n o, k b); zero where the table holds nothing."""
    n, groups, b, size = x.shape
    rows = x.transpose((0, 3, 1, 2)).reshape((n * size, groups * b))
    rows = np.concatenate([rows, np.zeros((1, groups * b), dtype=x.dtype)])
    every = np.where(table == NOTHING, NOTHING, table + size * np.arange(n)[:, None, None])
    places, offsets = n * table.shape[0], table.shape[1]
    found = rows[every.reshape((places, offsets))].reshape((places, offsets, groups, b))
    return found.transpose((2, 0, 1, 3)).reshape((groups, places, offsets * b))


def _given(bias: Array | None) -> tuple[Array, ...]:
    return () if bias is None else (bias,)


def _as_matrix(weight: Array) -> Array:
    """Return a weight (g, a, b, k) as the matrix (g, k b, a) that `_gathered` is multiplied with."""
    groups, a, b, offsets = weight.shape
    return weight.transpose((0, 3, 2, 1)).reshape((groups, offsets * b, a))


def _as_maps(rows: Array, n: int, places: int) -> Array:
    """Return rows (g, n o, a) as maps (n, g, a, o)."""
    groups, _, a = rows.shape
    return rows.reshape((groups, n, places, a)).transpose((1, 0, 3, 2))


def windowed(x: Array, weight: Array, window: Window, bias: Array | None = None) -> Array:
    """Return y_ngao = sum_bk x_ngbi W_gabk + b_ga, where i is what offset k sees from o: a convolution."""
    table = window.seen()
    meets = (table != NOTHING).any(axis=0)
    rows = sum_of_products([(_gathered(x, table[:, meets]), _as_matrix(weight[..., meets]))], _given(bias))
    return _as_maps(rows, x.shape[0], len(table))


def spread(y: Array, weight: Array, window: Window, bias: Array | None = None) -> Array:
    """Return x_ngbi = sum_ak y_ngao W_gabk + b_gb, where o is what sees i at offset k: a transposed convolution."""
    table, phases = window.seeing(), window.phases()
    turned = weight.transpose((0, 2, 1, 3))
    parts, places = [], []
    for phase in np.unique(phases):
        here = np.flatnonzero(phases == phase)
        meets = (table[here] != NOTHING).any(axis=0)
        rows = sum_of_products([(_gathered(y, table[here][:, meets]), _as_matrix(turned[..., meets]))], _given(bias))
        parts.append(_as_maps(rows, y.shape[0], len(here)))
        places.append(here)
    return np.concatenate(parts, axis=-1)[..., np.argsort(np.concatenate(places))] if len(parts) > 1 else parts[0]


def pairings(x: Array, y: Array, window: Window) -> Array:
    """Return W_gabk = sum_no y_ngao x_ngbi, where i is what offset k sees from o: a convolution's gradient by its weight."""
    table = window.seen()
    n, groups, a, size = y.shape
    rows = y.transpose((1, 2, 0, 3)).reshape((groups, a, n * size))
    offsets = table.shape[1]
    found = (rows @ _gathered(x, table)).reshape((groups, a, offsets, x.shape[2]))
    return found.transpose((0, 1, 3, 2))


class ConvolutionLayer(Layer):
    """What convolutions and their transposes share: options given per axis, groups of channels, the layout of the arrays.

    A number given for a size holds for every axis; the fields hold tuples.
    """

    axes: ClassVar[int]
    paddings: ClassVar[tuple[str, ...]] = ()
    out_channels: int
    groups: int
    bias: bool

    def __post_init__(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if hasattr(self, name):
                object.__setattr__(self, name, self._sizes(name, getattr(self, name), least))
        for name in ("out_channels", "groups"):
            if getattr(self, name) < 1:
                raise self._wrong(name, "a whole number >= 1")
        if self.out_channels % self.groups:
            raise self._wrong("out_channels", f"a multiple of groups = {self.groups}")

    def _wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: wrong {name}: got {getattr(self, name)!r}, expected {expected}")

    def _sizes(self, name: str, given: Any, least: int) -> Shape | str:
        named = self.paddings if name == "padding" else ()
        if isinstance(given, str) and given in named:
            return given
        sizes = tuple(given) if isinstance(given, (tuple, list)) else (given,) * self.axes
        if len(sizes) != self.axes or not all(isinstance(n, (int, np.integer)) and n >= least for n in sizes):
            raise self._wrong(name, "".join(f"{word!r}, " for word in named) + f"a whole number >= {least}, or {self.axes} of them")
        return tuple(int(n) for n in sizes)

    def _in_channels(self, shape: Shape) -> int:
        """Return the number of input channels; raise ShapeError for an input that is not channels by `axes` sizes."""
        if len(shape) != 1 + self.axes or min(shape) < 1:
            raise ShapeError(self, shape, f"channels and {self.axes} sizes of at least 1")
        if shape[0] % self.groups:
            raise ShapeError(self, shape, f"a number of channels that is a multiple of groups = {self.groups}")
        return shape[0]

    def grouped(self, x: Array) -> Array:
        """Return maps (n, channels, ...) as (n, g, channels of a group, positions)."""
        return x.reshape((x.shape[0], self.groups, x.shape[1] // self.groups, prod(x.shape[2:])))

    def kernels(self, params: Params) -> tuple[Array, Array | None]:
        """Return weight as (g, a, b, offsets) and bias as (g, 1, channels of a group), None without one."""
        weight, groups = params["weight"], self.groups
        kernels = weight.reshape((groups, weight.shape[0] // groups, weight.shape[1], prod(weight.shape[2:])))
        return kernels, params["bias"].reshape((groups, 1, -1)) if self.bias else None

    def _gradients(self, params: Params, dweight: Array, dy: Array) -> dict[str, Array]:
        """Return dparams: dweight in the weight's own shape, and dbias = the sum of dy over all but the channels."""
        found = {"weight": dweight.reshape(params["weight"].shape)}
        if self.bias:
            found["bias"] = np.sum(dy.reshape((*dy.shape[:2], prod(dy.shape[2:]))), axis=(0, 2))
        return found
