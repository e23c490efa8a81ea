"""Layers that exchange channels for pixels: sub-pixel upscaling, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array

__all__ = ["PixelShuffle", "PixelUnshuffle"]


def _shuffled(x: Array, r: int) -> Array:
    """Return y_n(c,hr+i,wr+j) = x_n(crr+ir+j,h,w)."""
    batch, channels, height, width = x.shape
    blocks = x.reshape((batch, channels // (r * r), r, r, height, width))
    return np.transpose(blocks, (0, 1, 4, 2, 5, 3)).reshape((batch, channels // (r * r), height * r, width * r))


def _unshuffled(y: Array, r: int) -> Array:
    """Return x_n(crr+ir+j,h,w) = y_n(c,hr+i,wr+j)."""
    batch, channels, height, width = y.shape
    blocks = y.reshape((batch, channels, height // r, r, width // r, r))
    return np.transpose(blocks, (0, 1, 3, 5, 2, 4)).reshape((batch, channels * r * r, height // r, width // r))


def _check_factor(layer: Layer, name: str, factor: int) -> None:
    if factor < 1:
        raise ValueError(f"{type(layer).__name__}: wrong {name}: got {factor}, expected a whole number from 1 upward")


@register
@dataclass(frozen=True)
class PixelShuffle(Layer):
    """Blocks of r x r pixels out of r r channels each, r being `upscale_factor`.

    Formula       y_n(c,hr+i,wr+j) = x_n(crr+ir+j,h,w)
    Chain rule    dx_n(crr+ir+j,h,w) = dy_n(c,hr+i,wr+j)
    Shapes        x (batch, C r r, H, W), y (batch, C, H r, W r).
    Kinks         none.
    Source        Shi et al., *Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN*, equation 4.
    """

    by_example = True

    upscale_factor: int = 2

    def __post_init__(self) -> None:
        _check_factor(self, "upscale_factor", self.upscale_factor)

    def output_shape(self, shape: Shape) -> Shape:
        r = self.upscale_factor
        if len(shape) != 3 or shape[0] % (r * r):
            raise ShapeError(self, shape, f"(channels, height, width), channels a multiple of {r * r}")
        return (shape[0] // (r * r), shape[1] * r, shape[2] * r)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        self.output_shape(tuple(x.shape[1:]))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return _unshuffled(dy, self.upscale_factor), {}

        return _shuffled(x, self.upscale_factor), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (8, 2, 3)
        yield cls(3), (9, 1, 2)
        yield cls(1), (2, 2, 1)


@register
@dataclass(frozen=True)
class PixelUnshuffle(Layer):
    """The r r pixels of each block of r x r in channels of their own, r being `downscale_factor`.

    Formula       y_n(crr+ir+j,h,w) = x_n(c,hr+i,wr+j)
    Chain rule    dx_n(c,hr+i,wr+j) = dy_n(crr+ir+j,h,w)
    Shapes        x (batch, C, H r, W r), y (batch, C r r, H, W).
    Kinks         none.
    Source        the inverse of PixelShuffle, and so its transpose: its Jacobian is a permutation.
    """

    by_example = True

    downscale_factor: int = 2

    def __post_init__(self) -> None:
        _check_factor(self, "downscale_factor", self.downscale_factor)

    def output_shape(self, shape: Shape) -> Shape:
        r = self.downscale_factor
        if len(shape) != 3 or shape[1] % r or shape[2] % r:
            raise ShapeError(self, shape, f"(channels, height, width), height and width multiples of {r}")
        return (shape[0] * r * r, shape[1] // r, shape[2] // r)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        self.output_shape(tuple(x.shape[1:]))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return _shuffled(dy, self.downscale_factor), {}

        return _unshuffled(x, self.downscale_factor), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 4, 6)
        yield cls(3), (1, 3, 6)
        yield cls(1), (2, 2, 1)
