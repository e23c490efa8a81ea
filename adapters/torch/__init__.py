"""PyTorch: eager autograd, `torch.func.grad` and `torch.compile`, through the public functional operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import torch
from backproof.adapters import gathered
from backproof.reference.case import Case
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from torch import Tensor

Params = dict[str, Tensor]

LOWERINGS, HEADS = (gathered(__name__, __path__, table) for table in ("LOWERINGS", "HEADS"))


def to_torch(array: np.ndarray) -> Tensor:
    """Return a tensor holding the array's numbers; bfloat16 travels by its bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: Tensor | None) -> np.ndarray:
    """Return the tensor's numbers as an array of its own precision."""
    if tensor is None:
        raise RuntimeError("torch returned no gradient for a tensor that takes part in the loss")
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _leaves(case: Case) -> tuple[Tensor, dict[str, Params], Tensor, Tensor]:
    values = case.values()
    params = {path: {name: to_torch(a) for name, a in named.items()} for path, named in values.params.items()}
    return to_torch(values.x), params, to_torch(values.target), to_torch(values.upstream)


class Torch:
    """Eager autograd: every layer's output retains its gradient."""

    name = "torch"

    def run(self, case: Case) -> Trace:
        x, params, target, upstream = _leaves(case)
        for leaf in (x, *(p for named in params.values() for p in named.values())):
            leaf.requires_grad_()
        outputs = []
        y = x
        for path, layer, _ in case.network.paths():
            y = LOWERINGS[type(layer)](layer, params[path], y)
            y.retain_grad()
            outputs.append(y)
        loss = HEADS[type(case.network.head)](case.network.head, y, target)
        torch.autograd.backward(loss, upstream)
        d_params = {path: {k: p.grad for k, p in named.items()} for path, named in params.items()}
        return _trace(case, x, params, target, upstream, loss, outputs, [t.grad for t in outputs], x.grad, d_params)


def _tapped(network: Network) -> Callable[..., Any]:
    """Return the network as a function: a zero tap is added to each output, so that its gradient is the output's."""

    def function(x: Tensor, params: dict[str, Params], taps: list[Tensor], target: Tensor, upstream: Tensor) -> Any:
        outputs = []
        y = x
        for (path, layer, _), tap in zip(network.paths(), taps, strict=True):
            y = LOWERINGS[type(layer)](layer, params[path], y) + tap
            outputs.append(y)
        loss = HEADS[type(network.head)](network.head, y, target)
        return loss * upstream, (loss, outputs)

    return function


def _taps(case: Case, dtype: torch.dtype) -> list[Tensor]:
    return [torch.zeros((case.batch, *shape), dtype=dtype) for shape in case.network.shapes[1:]]


class TorchFunc:
    """`torch.func.grad` of the loss with respect to the input, the parameters and a tap on every output."""

    name = "torch:func"

    def run(self, case: Case) -> Trace:
        x, params, target, upstream = _leaves(case)
        gradient = torch.func.grad(_tapped(case.network), argnums=(0, 1, 2), has_aux=True)
        (dx, d_params, d_taps), (loss, outputs) = gradient(x, params, _taps(case, x.dtype), target, upstream)
        return _trace(case, x, params, target, upstream, loss, outputs, d_taps, dx, d_params)


class TorchCompile:
    """`torch.compile`, whole graph, one compilation for all draws of a structure."""

    name = "torch:compile"
    fused = True

    def run(self, case: Case) -> Trace:
        x, params, target, upstream = _leaves(case)
        taps = _taps(case, x.dtype)
        named = [(path, name, p) for path, group in params.items() for name, p in group.items()]
        leaves = [x, *taps, *(p for _, _, p in named)]
        for leaf in leaves:
            leaf.requires_grad_()
        scaled, (loss, outputs) = _compiled(case.network)(x, params, taps, target, upstream)
        dx, *rest = torch.autograd.grad(scaled, leaves)
        d_params: dict[str, dict[str, Tensor]] = {path: {} for path in params}
        for (path, name, _), gradient in zip(named, rest[len(taps) :], strict=True):
            d_params[path][name] = gradient
        return _trace(case, x, params, target, upstream, loss, outputs, rest[: len(taps)], dx, d_params)


@lru_cache(maxsize=1)
def _compiled(network: Network) -> Callable[..., Any]:
    torch.compiler.reset()  # dynamo counts recompilations per code object and would fall back to eager in silence
    return torch.compile(_tapped(network), fullgraph=True, dynamic=False)


def _trace(case: Case, x: Any, params: Any, target: Any, upstream: Any, loss: Any, outputs: Any, d_outputs: Any, dx: Any,
           d_params: Any) -> Trace:  # fmt: skip
    def arrays(tree: Any) -> Any:
        return {k: arrays(v) for k, v in tree.items()} if isinstance(tree, dict) else to_numpy(tree)

    return Trace.assemble(case.network, x=arrays(x), params=arrays(params), target=arrays(target), upstream=arrays(upstream),
                          loss=arrays(loss), outputs=[arrays(y) for y in outputs], d_outputs=[arrays(dy) for dy in d_outputs],
                          dx=arrays(dx), d_params=arrays(d_params))  # fmt: skip


eager, func, compiled = Torch(), TorchFunc(), TorchCompile()
