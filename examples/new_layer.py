"""A layer that the library does not have: derived, proved, and then the truth for a candidate that forgets its scale."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import backproof as bp
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class StarReLU(bp.Layer):
    """y = scale relu(x)^2 + bias, with one learnt scale and one learnt bias for all.

    Formula       y_n = s r_n^2 + b, r_n = x_n if x_n > 0, else 0
    Chain rule    dx_n = 2 s r_n dy_n
                  dscale = sum_n dy_n r_n^2
                  dbias = sum_n dy_n
    Shapes        x, y (batch, ...), scale, bias (1,); n runs over every entry.
    Kinks         none: at 0 both sides have the slope 0.
    Source        Yu et al., *MetaFormer Baselines for Vision*, 2022, section 3.
    """

    def parameters(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        return {"scale": (1,), "bias": (1,)}

    def forward(self, params: Mapping[str, Any], x: Any) -> Any:
        r = np.where(x > 0, x, 0)

        def backward(dy: Any) -> Any:
            return 2 * params["scale"] * r * dy, {"scale": np.sum(dy * r * r).reshape(1), "bias": np.sum(dy).reshape(1)}

        return params["scale"] * r * r + params["bias"], backward


class Candidate(torch.autograd.Function):
    """Passes every test at scale 1, with which it starts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return scale * x.relu() ** 2 + bias

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        r = x.relu()
        return 2 * r * dy, (dy * r**2).sum().reshape(1), dy.sum().reshape(1)


print(bp.prove(StarReLU()))

print("\nscale forgotten:")
print(bp.check(Candidate.apply, like=StarReLU(), framework="torch"))
print("\nby autograd:")
print(bp.check(lambda x, scale, bias: scale * x.relu() ** 2 + bias, like=StarReLU(), framework="torch"))
