"""PyTorch: convolutions and their transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from backproof.reference.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from torch import Tensor

Params = dict[str, Tensor]


def conv1d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.conv1d(x, params["weight"], params.get("bias"), layer.stride, layer.padding, layer.dilation, layer.groups)


def conv2d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.conv2d(x, params["weight"], params.get("bias"), layer.stride, layer.padding, layer.dilation, layer.groups)


def conv3d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.conv3d(x, params["weight"], params.get("bias"), layer.stride, layer.padding, layer.dilation, layer.groups)


def conv_transpose1d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.conv_transpose1d(x, params["weight"], params.get("bias"), layer.stride, layer.padding, layer.output_padding, layer.groups,
                              layer.dilation)


def conv_transpose2d(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.conv_transpose2d(x, params["weight"], params.get("bias"), layer.stride, layer.padding, layer.output_padding, layer.groups,
                              layer.dilation)


LOWERINGS: dict[type, Callable[[Any, Params, Tensor], Tensor]] = {
    Conv1d: conv1d, Conv2d: conv2d, Conv3d: conv3d, ConvTranspose1d: conv_transpose1d, ConvTranspose2d: conv_transpose2d,
}
