"""nonfinite: SoftMarginLoss dz on torch:mistaken (float64): 12 of 39 entries outside the bound.

Exits 1 while the discrepancy exists, 0 when it is gone. Needs numpy and torch.
"""
import sys
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Any, Params = object, dict


def head(layer: Any, z: Tensor, target: Tensor) -> Tensor:
    if layer.loss == "bce":
        return F.binary_cross_entropy_with_logits(z, target, reduction=layer.reduction)
    if layer.loss == "cross_entropy":
        loss = F.cross_entropy(z.reshape(-1, z.shape[-1]), target.reshape(-1, z.shape[-1]), reduction=layer.reduction)
        return loss.reshape(z.shape[:-1]) if layer.reduction == "none" else loss
    outputs: dict[str, Callable[[Tensor], Tensor]] = {"linear": torch.nn.Identity(), "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    if layer.loss == "kl":
        summands = F.kl_div(F.log_softmax(z, -1), target, reduction="none").sum(-1)
        return summands if layer.reduction == "none" else getattr(torch, layer.reduction)(summands)
    a = {"softmax": F.softmax, "log_softmax": F.log_softmax}[layer.output](z, -1) if "softmax" in layer.output else outputs[layer.output](z)
    if layer.loss == "nll":
        # of a permuted image the backward raises "grad_input must be contiguous" (pytorch issue 175084)
        return F.nll_loss(a.movedim(-1, 1).contiguous(), target, reduction=layer.reduction)
    if layer.loss in {"half_squared_error", "cosine", "hinge"}:
        if layer.loss == "half_squared_error":
            summands = (0.5 * F.mse_loss(a, target, reduction="none")).sum(-1)
        else:
            summands = 1 - F.cosine_similarity(a, target, dim=-1) if layer.loss == "cosine" else F.relu(1 - target * a)
        return summands if layer.reduction == "none" else getattr(torch, layer.reduction)(summands)
    losses: dict[str, Any] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss, "smooth_l1": F.smooth_l1_loss,
                              "soft_margin": F.soft_margin_loss, "kl_div": F.kl_div}
    warned_of = (layer.loss, layer.reduction) == ("kl_div", "mean")  # every time, as not the mathematical one
    return F.kl_div(a, target, reduction="none").mean() if warned_of else losses[layer.loss](a, target, reduction=layer.reduction)


layer = SimpleNamespace(**{'reduction': 'mean'})
x = torch.as_tensor(np.array([[-47683.262621549125, 41251.306462531385, 5.916989318867834, -158448.9703972775, 776513.8434794361, 152589.80367637405, -0.9904740068101885, 529468.446752418, 159841.95736161468, 12887.07307176807, -160285.74145233643, -18593.9192697797, -127.8832981100331], [-47683.44661270847, 41251.383508740466, 6.01714988459721, -158448.98782210122, 776458.2914301917, 155074.74717636954, -0.9895814235601703, 529473.2542347792, 159211.00473840913, 12831.944089259669, -160285.93870898313, -18501.562410452534, -127.88309847688325], [-48745.02141718332, 42211.3546148815, 5.910347377437399, -158412.7817815959, 776579.2486710915, 152589.0084421299, -1.0165850474794067, 532733.0874950029, 164212.87285736093, 13247.144137366435, -160284.91398012964, -18835.83073026459, -127.70149073415548]]), dtype=torch.float64)
target = torch.as_tensor(np.array([[1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0]]), dtype=torch.float64)
dy = torch.as_tensor(np.array(0.15625), dtype=torch.float64)
inputs = {"x": x}
params = {}
leaves = {name: array for name, array in {**inputs, **params}.items() if array.is_floating_point()}


def forward(leaves):
    return head(layer, leaves["x"], target)


for leaf in leaves.values():
    leaf.requires_grad_()
y = forward(leaves)
torch.autograd.backward(y, dy)
got = leaves["x"].grad.detach().double().numpy()
got = float(got[(0, 0)])
expected, bound = -0.004006410256410256, 1.2899238148667424e-17
print("SoftMarginLoss dz[0, 0]", "12 of 39 entries of dz are not finite where the true value is")
print(f"got {got!r}\nexpected {expected!r} +- {bound!r}\nexcess {abs(got - expected) / bound if bound else float('inf'):.3g}")
sys.exit(0 if abs(got - expected) <= bound else 1)
