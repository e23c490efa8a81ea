"""Pooling with windows that follow from the size of the input: adaptive ones, and global ones that hold all positions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.pooling import is_whole
from backproof.reference.rounding import Array
from backproof.reference.windows import average, by_channel, knockout, shares, windows_of

__all__ = ["AdaptiveAvgPool2d", "GlobalAvgPool", "GlobalMaxPool"]


@register
@dataclass(frozen=True)
class AdaptiveAvgPool2d(Layer):
    """y = the mean of windows that are laid so that the output has a given size; None keeps the input's size along that axis.

    Formula       y_nco = 1/d_o sum_i x_nci over floor(o size / out) <= i < ceil((o + 1) size / out), d_o their number;
                  i, o are pairs (row, column), size the image's and out the output's size in each
    Chain rule    dy_nco/dx_nci = 1/d_o
                  dx_nci = sum of dy_nco / d_o over the windows o that x_nci lies in; they overlap where out does not divide size
    Shapes        x (batch, channels, height, width), y (batch, channels, *output_size).
    Kinks         none.
    Source        He, Zhang, Ren, Sun, *Spatial Pyramid Pooling in Deep Convolutional Networks*, ECCV 2014, section 2.3; the windows
                  are those of torch.nn.AdaptiveAvgPool2d.
    """

    by_example = True

    output_size: int | tuple[int | None, ...] | None

    def __post_init__(self) -> None:
        sizes = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
        if len(sizes) != 2 or not all(size is None or is_whole(size, 1) for size in sizes):
            raise ValueError(f"AdaptiveAvgPool2d: wrong output_size: got {self.output_size}, "
                             "expected a whole number >= 1, None, or two of these")

    def positions(self, sizes: Shape) -> list[np.ndarray]:
        """Return, for each axis, where entry k of window o lies, -1 where the window is shorter."""
        wanted = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 2
        positions = []
        for size, out in zip(sizes, (w or size for w, size in zip(wanted, sizes, strict=True)), strict=True):
            start, stop = np.arange(out) * size // out, -(-np.arange(1, out + 1) * size // out)
            along = start + np.arange(np.max(stop - start))[:, None]
            positions.append(np.where(along < stop, along, -1))
        return positions

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or not all(shape[1:]):
            raise ShapeError(self, shape, "(channels, height, width)")
        return (shape[0], *(along.shape[1] for along in self.positions(shape[1:])))

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        places, held = windows_of(self, x.shape[2:])
        return average(x, places, held, (places >= 0).sum(axis=0), self.output_shape(x.shape[1:]))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (2, 4, 3)
        yield cls((3, 2)), (1, 5, 2)
        yield cls((None, 1)), (2, 2, 3)
        yield cls(3), (1, 2, 4)
        yield cls(1), (1, 1, 1)


@dataclass(frozen=True)
class _GlobalPool(Layer):
    by_example = True

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or not all(shape[1:]):
            raise ShapeError(self, shape, "(channels, ...) with at least one axis, and no empty one, behind the channels")
        return (shape[0], *(1,) * (len(shape) - 1))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 3)
        yield cls(), (2, 2, 3)
        yield cls(), (1, 2, 1, 3)
        yield cls(), (3, 1)


@register
@dataclass(frozen=True)
class GlobalAvgPool(_GlobalPool):
    """y = the mean over all positions of each channel; their axes stay, with size 1.

    Formula       y_nc = 1/S sum_s x_ncs
    Chain rule    dx_ncs = dy_nc / S
    Shapes        x (batch, channels, ...), y (batch, channels, 1, ..., 1); s runs over the S positions behind the channels.
    Kinks         none.
    Source        Lin, Chen, Yan, *Network in Network*, ICLR 2014, section 3.2.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        positions = math.prod(x.shape[2:])

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.broadcast_to(dy / positions, x.shape), {}

        return np.sum(x, axis=tuple(range(2, x.ndim)), keepdims=True) / positions, backward


@register
@dataclass(frozen=True)
class GlobalMaxPool(_GlobalPool):
    """y = the largest entry of each channel; the positions' axes stay, with size 1.

    Formula       y_nc = max_s x_ncs
    Chain rule    dx_ncs = dy_nc if x_ncs is the largest of its channel, else 0
    Shapes        x (batch, channels, ...), y (batch, channels, 1, ..., 1); s runs over the positions behind the channels.
    Kinks         ties, where dy_nc may be shared among the largest in any way; own choice the first in row-major order.
    Source        Oquab, Bottou, Laptev, Sivic, *Is Object Localization for Free?*, CVPR 2015, section 3.
    """

    def conserved(self, dx: Array, dy: Array) -> tuple[Array, Array]:
        return by_channel(dx, dy)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        positions = math.prod(x.shape[2:])
        y, matches = knockout(x.reshape((*x.shape[:2], positions, 1)), np.ones((positions, 1), dtype=bool))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return shares(dy.reshape(y.shape), matches).reshape(x.shape), {}

        return y.reshape((x.shape[0], *self.output_shape(x.shape[1:]))), backward
