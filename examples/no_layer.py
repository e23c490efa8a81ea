"""A gate of which no library has the layer, as a torch.autograd.Function: its backward is checked against its own forward."""

from typing import Any

import backproof as bp
import torch
from torch import Tensor


class SquaredReLU(torch.autograd.Function):
    """y = scale max(x, 0)^2, as in Primer (So et al. 2021); the backward forgets the 2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        z = torch.relu(x)
        ctx.save_for_backward(z, scale)
        return scale * z * z

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        z, scale = ctx.saved_tensors
        return dy * scale * z, (dy * z * z).reshape(-1, scale.shape[0]).sum(0)


class Mended(SquaredReLU):
    """The same with the 2."""

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        z, scale = ctx.saved_tensors
        return 2 * dy * scale * z, (dy * z * z).reshape(-1, scale.shape[0]).sum(0)


for function in (SquaredReLU, Mended):
    print(f"\n{function.__name__}: {function.__doc__}")
    print(bp.check(function, like=None, framework="torch", params={"scale": (4,)}, shapes=[(4,), (3, 4)], cases=30))
