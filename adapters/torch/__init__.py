"""PyTorch: eager autograd, `torch.func.grad` and `torch.compile`, through the public functional operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from backproof.adapters import gathered, lowered
from backproof.adapters.torch.arrays import to_numpy, to_torch
from backproof.reference.case import Case
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from torch import Tensor

LOWERINGS, HEADS = (gathered(__name__, __path__, table) for table in ("LOWERINGS", "HEADS"))


def _tensors(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """Return the sources that have a gradient, those that have none, target and upstream gradient."""
    values, leaves = case.values(), case.network.graph.leaves
    sources = {wire: to_torch(array) for wire, array in values.sources().items()}
    fixed = {wire: tensor for wire, tensor in sources.items() if wire not in leaves}
    return {wire: sources[wire] for wire in leaves}, fixed, to_torch(values.target), to_torch(values.upstream)


class Torch:
    """Eager autograd: every layer's output retains its gradient."""

    name = "torch"

    def run(self, case: Case) -> Trace:
        leaves, fixed, target, upstream = _tensors(case)
        for leaf in leaves.values():
            leaf.requires_grad_()

        def retained(wire: str, y: Tensor) -> Tensor:
            if y.requires_grad:
                y.retain_grad()
            return y

        wires, loss = lowered(case.network, LOWERINGS, HEADS, {**leaves, **fixed}, target, retained)
        torch.autograd.backward(loss, upstream)
        gradients = {wire: wires[wire].grad for wire in (*leaves, *case.network.graph.taps)}
        return _trace(case, wires, gradients, target, upstream, loss)


def _tapped(network: Network) -> Callable[..., Any]:
    """Return the network as a function: a zero tap is added to each output, so that its gradient is the output's."""

    def function(leaves: dict[str, Tensor], taps: dict[str, Tensor], fixed: dict[str, Tensor], target: Tensor, upstream: Tensor) -> Any:
        wires, loss = lowered(network, LOWERINGS, HEADS, {**leaves, **fixed}, target,
                              lambda wire, y: y + taps[wire] if wire in taps else y)
        return torch.sum(loss * upstream), (loss, wires)

    return function


def _taps(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    graph = case.network.graph
    return {w: torch.zeros((case.batch,) * graph.batched(w) + shape, dtype=dtype) for w, shape in graph.taps.items()}


class TorchFunc:
    """`torch.func.grad` of the loss with respect to the input, the parameters and a tap on every output."""

    name = "torch:func"

    def run(self, case: Case) -> Trace:
        leaves, fixed, target, upstream = _tensors(case)
        gradient = torch.func.grad(_tapped(case.network), argnums=(0, 1), has_aux=True)
        (d_leaves, d_taps), (loss, wires) = gradient(leaves, _taps(case, upstream.dtype), fixed, target, upstream)
        return _trace(case, wires, {**d_leaves, **d_taps}, target, upstream, loss)


class TorchCompile:
    """`torch.compile`, whole graph, one compilation for all draws of a structure."""

    name = "torch:compile"
    fused = True

    def run(self, case: Case) -> Trace:
        leaves, fixed, target, upstream = _tensors(case)
        taps = _taps(case, upstream.dtype)
        asked = {**leaves, **taps}
        for leaf in asked.values():
            leaf.requires_grad_()
        scaled, (loss, wires) = _compiled(case.network)(leaves, taps, fixed, target, upstream)
        gradients = dict(zip(asked, torch.autograd.grad(scaled, list(asked.values())), strict=True))
        return _trace(case, wires, gradients, target, upstream, loss)


@lru_cache(maxsize=1)
def _compiled(network: Network) -> Callable[..., Any]:
    torch.compiler.reset()  # dynamo counts recompilations per code object and would fall back to eager in silence
    return torch.compile(_tapped(network), fullgraph=True, dynamic=False)


def _trace(case: Case, wires: dict[str, Tensor], gradients: dict[str, Any], target: Tensor, upstream: Tensor, loss: Tensor) -> Trace:
    def arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
        return {wire: to_numpy(tensor) for wire, tensor in tensors.items()}

    return Trace.assemble(case.network, wires=arrays(wires), gradients=arrays(gradients), target=to_numpy(target),
                          upstream=to_numpy(upstream), loss=to_numpy(loss))


eager, func, compiled = Torch(), TorchFunc(), TorchCompile()
