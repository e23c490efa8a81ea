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


layer = SimpleNamespace(out_features=1, bias=False)
x = torch.as_tensor(np.array([[0.1257302210933933], [-0.1321048632913019]]), dtype=torch.float64)
dy = torch.as_tensor(np.array([[-0.12189817859794463], [2.25533213237824]]), dtype=torch.float64)
param_weight = torch.as_tensor(np.array([[0.6404226504432821]]), dtype=torch.float64)
params = {"weight": param_weight}
for leaf in (x, param_weight):
    leaf.requires_grad_()
y = linear(layer, params, x)
y.backward(dy)
got = param_weight.grad.detach().double().numpy()
got = float(got[(0, 0)])
expected, bound = -0.3132666279703093, 1.3911846196130578e-16
print("Linear dweight[0, 0]", "dweight is divided by the batch size m = 2 once too often")
print(f"got {got!r}\nexpected {expected!r} +- {bound!r}\nexcess {abs(got - expected) / bound if bound else float('inf'):.3g}")
sys.exit(0 if abs(got - expected) <= bound else 1)
