"""The mistakes of layers that exchange channels for pixels: blocks taken apart in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, faulty, with_gradients
from backproof.reference.pixels import PixelShuffle, PixelUnshuffle
from backproof.reference.rounding import Array

__all__ = ["MISTAKES"]

Inputs = tuple[Array, ...]


def _rows_and_columns_exchanged(layer: Any, inputs: Inputs, dy: Array) -> Array:
    """Take row and column within a block for each other: right where both dy and dx are transposed images."""
    turned, _ = layer.forward({}, np.swapaxes(inputs[0], 2, 3))[1](np.swapaxes(dy, 2, 3))
    return np.swapaxes(turned, 2, 3)


def _not_moved(layer: Any, inputs: Inputs, dy: Array) -> Array:
    return dy.reshape(inputs[0].shape)


def _offsets_first(layer: PixelShuffle, inputs: Inputs, dy: Array) -> Array:
    r, (batch, channels, height, width) = layer.upscale_factor, inputs[0].shape
    blocks = dy.reshape((batch, channels // r**2, height, r, width, r))
    return np.transpose(blocks, (0, 3, 5, 1, 2, 4)).reshape((batch, channels, height, width))


def _blocks_strided(layer: PixelUnshuffle, inputs: Inputs, dy: Array) -> Array:
    r, (batch, channels, height, width) = layer.downscale_factor, inputs[0].shape
    blocks = dy.reshape((batch, channels, r, r, height // r, width // r))
    return np.transpose(blocks, (0, 1, 2, 4, 3, 5)).reshape((batch, channels, height, width))


BOTH = (PixelShuffle, PixelUnshuffle)

MISTAKES: tuple[Mistake, ...] = (
    faulty("pixel-rows-columns-exchanged", "{tensor} takes row and column within a block for each other", BOTH, ("dx",),
           with_gradients(_rows_and_columns_exchanged)),
    faulty("pixel-not-moved", "{tensor} is dy under the shape of x: its blocks are not taken apart", BOTH, ("dx",),
           with_gradients(_not_moved)),
    faulty("pixel-offsets-first", "{tensor} has the channels in the order (offset, channel), where they lie as (channel, offset)",
           PixelShuffle, ("dx",), with_gradients(_offsets_first)),
    faulty("pixel-blocks-strided", "{tensor} takes the r x r parts of dy for whole corners of the image, not for every r-th pixel",
           PixelUnshuffle, ("dx",), with_gradients(_blocks_strided)),
)
