"""wrong: Linear dweight on torch:mistaken (float64): 1 of 1 entries outside the bound.

Exits 1 while the discrepancy exists, 0 when it is gone. Needs numpy and torch.
"""
import sys
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Any, Params = object, dict


def linear(layer: Any, params: Params, x: Tensor) -> Tensor:
    return F.linear(x, params["weight"], params.get("bias"))


layer = SimpleNamespace(**{'out_features': 1, 'bias': False})
x = torch.as_tensor(np.array([[0.1257302210933933], [-0.1321048632913019]]), dtype=torch.float64)
dy = torch.as_tensor(np.array([[-0.06094908929897232], [1.12766606618912]]), dtype=torch.float64)
param_weight = torch.as_tensor(np.array([[0.6404226504432821]]), dtype=torch.float64)
inputs = {"x": x}
params = {"weight": param_weight}
leaves = {name: array for name, array in {**inputs, **params}.items() if array.is_floating_point()}


def forward(leaves):
    return linear(layer, {**params, **leaves}, *({**inputs, **leaves}[name] for name in inputs))


for leaf in leaves.values():
    leaf.requires_grad_()
y = forward(leaves)
torch.autograd.backward(y, dy)
got = leaves["weight"].grad.detach().double().numpy()
got = float(got[(0, 0)])
expected, bound = -0.15663331398515465, 6.955923098065289e-17
print("Linear dweight[0, 0]", "dweight is divided by the batch size m = 2 once too often")
print(f"got {got!r}\nexpected {expected!r} +- {bound!r}\nexcess {abs(got - expected) / bound if bound else float('inf'):.3g}")
sys.exit(0 if abs(got - expected) <= bound else 1)
