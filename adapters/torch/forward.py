"""The forward of a candidate under autograd without the backward that it defines: a second opinion on that backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from backproof.adapters.calls import UnsupportedError, answered
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["WholeNumbers", "autodiff", "defined"]


class WholeNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch annotates no modes
    """Within it, an operation that casts complex numbers to real ones, or to fewer digits, raises UnsupportedError.

    PyTorch says once in a process that a cast discards the imaginary part, and then no more.
    """

    CASTS = frozenset({torch.ops.aten._to_copy.default,  # noqa: SLF001  (torch's name of a cast)
                       torch.ops.aten.copy_.default, torch.ops.aten.copy.default,
                       torch.ops.aten.index_put_.default, torch.ops.aten._local_scalar_dense.default})  # noqa: SLF001  (and of `item`)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        y = function(*args, **(kwargs or {}))
        if function in self.CASTS:
            taken = next((a.dtype for a in reversed(args) if isinstance(a, Tensor)), None)
            left = y.dtype if isinstance(y, Tensor) else torch.complex128 if isinstance(y, complex) else torch.float64
            if taken == torch.complex128 != left:
                raise UnsupportedError(f"its forward casts to {str(left).removeprefix('torch.')}")
        return y


def autodiff(candidate: Callable[..., Any], arrays: tuple[Tensor, ...], names: tuple[str, ...], count: int) -> tuple[Tensor, ...]:
    """Return the outputs of a candidate's forward, whose graph holds none of the backwards that the candidate defines.

    The last of the arrays are the parameters of these names. Raises UnsupportedError where the candidate defines no backward, so that
    autograd would be compared with itself, and where a kernel hides its forward or keeps a backward of its own.
    """
    kinds = tuple((tuple(a.shape), a.dtype, a.requires_grad) for a in arrays)
    run, seeded = _traced(candidate, kinds, names, count)
    with torch.random.fork_rng(devices=[]):
        for generator, seed in seeded:  # what the forward draws is what it draws when it is called: it seeds its generators itself
            generator.manual_seed(seed)
        ys: tuple[Tensor, ...] = tuple(run(*arrays))
    if any(_defined(ys)):
        raise UnsupportedError("an operator that the candidate calls has a backward of its own")
    return ys


@lru_cache(maxsize=64)
def _traced(candidate: Callable[..., Any], kinds: tuple[Any, ...], names: tuple[str, ...],
            count: int) -> tuple[Callable[..., Any], list[tuple[torch.Generator, int]]]:
    """Return the operations that a candidate's forward makes, as a function, and the generators that it draws from, each with its seed.

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
    with torch.random.fork_rng(devices=[]):
        traced: Any = make_fx(run)(*arrays)
        used = [held for held in vars(traced).values() if isinstance(held, torch.Generator)]
        seeded = [(generator, generator.initial_seed()) for generator in (*used, torch.default_generator)]
    for node in [n for n in traced.graph.nodes if n.target is torch.ops.aten.detach.default]:
        node.replace_all_uses_with(node.args[0])  # what a Function saves is detached; so is what takes no part in the derivative
    traced.recompile()
    return traced, seeded


def defined(ys: tuple[Tensor, ...]) -> str:
    """Return the name of a backward behind some outputs that is not torch's own, empty where there is none."""
    return next((str(node.name()).removesuffix("Backward") for node in _nodes(ys) if _custom(node)), "")


def _defined(ys: tuple[Tensor, ...]) -> Iterator[bool]:
    """Yield for each step of the graph behind some outputs whether Python code defines its backward."""
    yield from (isinstance(node, BackwardCFunction) for node in _nodes(ys))


def _custom(node: Any) -> bool:
    """Say whether a step of a graph is a Function, in Python or in C++."""
    return isinstance(node, BackwardCFunction) or type(node).__name__ == "CppFunction"


def _nodes(ys: tuple[Tensor, ...]) -> Iterator[Any]:
    waiting, seen = [y.grad_fn for y in ys], set[Any]()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [below for below, _ in node.next_functions]
