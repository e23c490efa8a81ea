"""PyTorch: layers that exchange channels for pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from backproof.reference.pixels import PixelShuffle, PixelUnshuffle
from torch import Tensor

Params = dict[str, Tensor]


def pixel_shuffle(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.pixel_shuffle(x, layer.upscale_factor)


def pixel_unshuffle(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.pixel_unshuffle(x, layer.downscale_factor)


LOWERINGS: dict[type, Callable[..., Any]] = {PixelShuffle: pixel_shuffle, PixelUnshuffle: pixel_unshuffle}
