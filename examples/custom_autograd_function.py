"""A LayerNorm as a torch.autograd.Function: the first backward forgets a term, the second trips over a gradient that is not contiguous."""

from typing import Any

import backproof as bp
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5


class LayerNorm(torch.autograd.Function):
    """Forward as everyone writes it; backward with its two mistakes mended."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        mean = rows.mean(-1, keepdim=True)
        rstd = torch.rsqrt(rows.var(-1, unbiased=False, keepdim=True) + EPS)
        h = (rows - mean) * rstd
        ctx.save_for_backward(h, rstd, weight)
        return (h * weight + bias).reshape(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, rstd, weight = ctx.saved_tensors
        rows = dy.reshape(h.shape)
        g = rows * weight
        dx = rstd * (g - g.mean(-1, keepdim=True) - h * (g * h).mean(-1, keepdim=True))
        return dx.reshape(dy.shape), (rows * h).sum(0), rows.sum(0)


class Forgetful(LayerNorm):
    """The variance depends on x too: what flows back through it is left out."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, rstd, weight = ctx.saved_tensors
        rows = dy.reshape(h.shape)
        g = rows * weight
        dx = rstd * (g - g.mean(-1, keepdim=True))
        return dx.reshape(dy.shape), (rows * h).sum(0), rows.sum(0)


class Rigid(LayerNorm):
    """`view` refuses what does not lie in one piece: the gradient that comes of `y.transpose(0, 1)`, or of `y.sum(0)`."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, rstd, weight = ctx.saved_tensors
        rows = dy.view(h.shape)
        g = rows * weight
        dx = rstd * (g - g.mean(-1, keepdim=True) - h * (g * h).mean(-1, keepdim=True))
        return dx.view(dy.shape), (rows * h).sum(0), rows.sum(0)


for function in (Forgetful, Rigid, LayerNorm):
    print(f"\n{function.__name__}: {function.__doc__}")
    print(bp.check(function.apply, like=bp.LayerNorm(eps=EPS), framework="torch", cases=60))
