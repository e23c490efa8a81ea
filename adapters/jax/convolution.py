"""JAX: convolutions and their transposes, by `lax.conv_general_dilated`, which takes channels before the sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from jax import Array

Params = dict[str, Array]


def conv(layer: Any, params: Params, x: Array) -> Array:
    padding = layer.padding.upper() if isinstance(layer.padding, str) else [(p, p) for p in layer.padding]
    y = jax.lax.conv_general_dilated(x, params["weight"], layer.stride, padding, rhs_dilation=layer.dilation,
                                     feature_group_count=layer.groups)
    return y + params["bias"].reshape(1, -1, *[1] * (x.ndim - 2)) if layer.bias else y


def conv_transpose(layer: Any, params: Params, x: Array) -> Array:
    sizes = zip(layer.kernel_size, layer.dilation, layer.padding, layer.output_padding, strict=True)
    padding = [(d * (k - 1) - p, d * (k - 1) - p + extra) for k, d, p, extra in sizes]
    # the kernel as a convolution takes it: output channels first, group by group, and turned round along every axis
    kernel = params["weight"].reshape(layer.groups, -1, *params["weight"].shape[1:]).swapaxes(1, 2)
    kernel = jnp.flip(kernel.reshape(-1, *kernel.shape[2:]), range(2, x.ndim))
    y = jax.lax.conv_general_dilated(x, kernel, (1,) * (x.ndim - 2), padding, lhs_dilation=layer.stride, rhs_dilation=layer.dilation,
                                     feature_group_count=layer.groups)
    return y + params["bias"].reshape(1, -1, *[1] * (x.ndim - 2)) if layer.bias else y


LOWERINGS: dict[type, Callable[[Any, Params, Array], Array]] = {
    Conv1d: conv, Conv2d: conv, Conv3d: conv, ConvTranspose1d: conv_transpose, ConvTranspose2d: conv_transpose,
}
