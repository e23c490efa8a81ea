"""JAX: layers that exchange channels for pixels, for which it has no function of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from backproof.reference.pixels import PixelShuffle, PixelUnshuffle
from jax import Array

Params = dict[str, Array]


def pixel_shuffle(layer: Any, params: Params, x: Array) -> Array:
    r, (batch, channels, height, width) = layer.upscale_factor, x.shape
    blocks = x.reshape(batch, channels // r**2, r, r, height, width)
    return jnp.transpose(blocks, (0, 1, 4, 2, 5, 3)).reshape(batch, channels // r**2, height * r, width * r)


def pixel_unshuffle(layer: Any, params: Params, x: Array) -> Array:
    r, (batch, channels, height, width) = layer.downscale_factor, x.shape
    blocks = x.reshape(batch, channels, height // r, r, width // r, r)
    return jnp.transpose(blocks, (0, 1, 3, 5, 2, 4)).reshape(batch, channels * r**2, height // r, width // r)


LOWERINGS: dict[type, Callable[..., Any]] = {PixelShuffle: pixel_shuffle, PixelUnshuffle: pixel_unshuffle}
