"""The forward of a candidate under autograd without the backward that it defines: a second opinion on that backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from backproof.adapters.calls import UnsupportedError, answered
from torch import Tensor
from torch.autograd.function import BackwardCFunction

__all__ = ["autodiff"]


def autodiff(candidate: Callable[..., Any], arrays: tuple[Tensor, ...], names: tuple[str, ...], count: int) -> tuple[Tensor, ...]:
    """Return the outputs of a candidate's forward, whose graph holds none of the backwards that the candidate defines.

    The last of the arrays are the parameters of these names. Raises UnsupportedError where the candidate defines no backward, so that
    autograd would be compared with itself, and where a kernel hides its forward or keeps a backward of its own.
    """
    kinds = tuple((tuple(a.shape), a.dtype, a.requires_grad) for a in arrays)
    ys: tuple[Tensor, ...] = tuple(_traced(candidate, kinds, names, count)(*arrays))
    if any(_defined(ys)):
        raise UnsupportedError("an operator that the candidate calls has a backward of its own")
    return ys


@lru_cache(maxsize=64)
def _traced(candidate: Callable[..., Any], kinds: tuple[Any, ...], names: tuple[str, ...], count: int) -> Callable[..., Any]:
    """Return the operations that a candidate's forward makes, as a function.

    Below autograd it is recorded what a Function's forward computes, and not that it is one. What looks at its values to choose what to
    compute cannot be recorded, so the operations are those for any values of these shapes.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # noqa: PLC0415  (a large import)

    def run(*arrays: Tensor) -> tuple[Tensor, ...]:
        own = len(arrays) - len(names)
        return answered(candidate(*arrays[:own], **dict(zip(names, arrays[own:], strict=True))), count, Tensor, "a tensor")

    arrays = [torch.ones(shape, dtype=dtype).requires_grad_(leaf) for shape, dtype, leaf in kinds]
    if not any(_defined(run(*arrays))):
        raise UnsupportedError("the candidate defines no backward, so that it would be compared with itself")
    traced: Any = make_fx(run)(*arrays)
    for node in [n for n in traced.graph.nodes if n.target is torch.ops.aten.detach.default]:
        node.replace_all_uses_with(node.args[0])  # what a Function saves is detached; so is what takes no part in the derivative
    traced.recompile()
    return traced


def _defined(ys: tuple[Tensor, ...]) -> Iterator[bool]:
    """Yield for each step of the graph behind some outputs whether Python code defines its backward."""
    waiting, seen = [y.grad_fn for y in ys], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield isinstance(node, BackwardCFunction)
            waiting += [below for below, _ in node.next_functions]
