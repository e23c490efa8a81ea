"""A fused RMSNorm in Triton: the first backward takes its mean over the padded block.

Needs `pip install triton` and no GPU: Triton's own interpreter runs the kernels.
"""
# ruff: noqa: ANN001, ANN201, D103  (a kernel's arguments are pointers and numbers, whatever an annotation says)

import importlib.util
import os
import sys
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # is read when triton is imported
if importlib.util.find_spec("triton") is None:
    print("triton is not installed: pip install triton")
    sys.exit()

import backproof as bp
import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def forward_kernel(X, W, Y, R, n, EPS: tl.constexpr, BLOCK: tl.constexpr):
    i, row = tl.arange(0, BLOCK), tl.program_id(0) * n
    x = tl.load(X + row + i, mask=i < n, other=0.0)
    r = 1 / tl.sqrt(tl.sum(x * x) / n + EPS)
    tl.store(R + tl.program_id(0), r)
    tl.store(Y + row + i, x * r * tl.load(W + i, mask=i < n, other=0.0), mask=i < n)


@triton.jit
def backward_kernel(X, W, R, DY, DX, DW, n, m, BLOCK: tl.constexpr):
    i, row = tl.arange(0, BLOCK), tl.program_id(0) * n
    r = tl.load(R + tl.program_id(0))
    h = tl.load(X + row + i, mask=i < n, other=0.0) * r
    dy = tl.load(DY + row + i, mask=i < n, other=0.0)
    g = dy * tl.load(W + i, mask=i < n, other=0.0)
    tl.store(DX + row + i, r * (g - h * tl.sum(g * h) / m), mask=i < n)
    tl.store(DW + row + i, dy * h, mask=i < n)  # summed outside: atomic adds come in any order


class RMSNorm(torch.autograd.Function):
    """One program per row, its block as long as the next power of two."""

    padded = False

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x, n = x.contiguous(), x.shape[-1]
        y, r = torch.empty_like(x), x.new_empty(x.numel() // n)
        forward_kernel[(r.numel(),)](x, weight.contiguous(), y, r, n, EPS=1e-6, BLOCK=triton.next_power_of_2(n))
        ctx.save_for_backward(x, weight, r)
        return y

    @classmethod
    def backward(cls, ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, r = ctx.saved_tensors
        n, block = x.shape[-1], triton.next_power_of_2(x.shape[-1])
        m = block if cls.padded else n
        dx, dw = torch.empty_like(x), torch.empty_like(x)
        backward_kernel[(r.numel(),)](x, weight.contiguous(), r, dy.contiguous(), dx, dw, n, m, BLOCK=block)
        return dx, dw.reshape(-1, n).sum(0)


class Padded(RMSNorm):
    """Divides by the length of the block in place of the row's: right for 1024 features, wrong for 1000."""

    padded = True


for function in (Padded, RMSNorm):
    print(f"\n{function.__name__}: {function.__doc__}")
    print(bp.check(function.apply, like=bp.RMSNorm(), framework="torch", cases=16, shapes=[(4,), (5,), (8,), (13,), (2, 3)]))
