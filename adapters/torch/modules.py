"""Modules as candidates: numbers stand in a module's own parameters for the whole of a call, backward included, and are put back.

So hooks on these parameters run, what a backward computes again it computes with the same numbers, and the gradient that is judged is
the one that training would read, `.grad` of the parameter. Where tensors are transformed (`torch.func`, forward mode, double backward)
they stand in the parameters' places, also for the whole call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from backproof.adapters.calls import UnsupportedError
from backproof.reference.usage import UsageError
from torch import Tensor

__all__ = ["ACTIVE", "Holding", "check_initialised", "from_module", "holding", "peculiar"]

WIDE = (torch.float64, torch.float32)
ACTIVE: list[Holding] = []
"""The call in progress; a candidate may be wrapped in functions that know nothing of modules."""


class Holding:
    """What stands in modules during one call; with `write` in their own parameters, without in the places of these."""

    def __init__(self, *, write: bool) -> None:
        self.write, self.stack = write, ExitStack()
        self.own: list[tuple[Tensor, Tensor]] = []  # each tensor that was given, with the parameter that holds its numbers
        self.buffers: list[tuple[Tensor, Tensor]] = []  # those that stand in a module, each with the numbers that it starts from

    def call(self, module: torch.nn.Module, inputs: Sequence[Tensor], given: Mapping[str, Tensor]) -> Any:
        """Call a module on inputs with parameters of these numbers."""
        place = self._written if self.write and not any(p.is_meta for p in module.parameters()) else self._swapped
        parameters = dict(module.named_parameters())
        for name, tensor in given.items():
            place(module, parameters[name], tensor)
        dtype = next((t.dtype for t in (*inputs, *given.values()) if t.is_floating_point() or t.is_complex()), torch.float32)
        for part in module.modules():
            for name, buffer in part.named_buffers(recurse=False):
                self._fresh(part, name, buffer, dtype)
        return module(*inputs)

    def _written(self, module: torch.nn.Module, parameter: Tensor, tensor: Tensor) -> None:
        """Write a tensor's numbers into a parameter, unless they stand there."""
        if any(given is tensor and own is parameter for given, own in self.own):
            return
        self.stack.callback(_put_back, parameter, parameter.data, parameter.grad, needed=parameter.requires_grad)
        parameter.grad = None
        parameter.data = tensor.detach()
        parameter.requires_grad_(parameter.requires_grad and tensor.requires_grad)
        self.own.append((tensor, parameter))

    def _swapped(self, module: torch.nn.Module, parameter: Tensor, tensor: Tensor) -> None:
        """Put a tensor into all places of a parameter."""
        if isinstance(module, torch.jit.ScriptModule):
            raise UnsupportedError("TorchScript keeps the parameters of a module to itself")
        for part in module.modules():
            table: dict[str, Any] = part._parameters  # noqa: SLF001  (where torch.func.functional_call puts them)
            for name in [name for name, one in table.items() if one is parameter]:
                self.stack.callback(table.__setitem__, name, parameter)
                table[name] = tensor

    def _fresh(self, part: torch.nn.Module, name: str, buffer: Tensor, dtype: torch.dtype) -> None:
        """Give a module a copy of a buffer, as every call of the candidate starts from its numbers; TorchScript has it in the buffer."""
        start = next((numbers for one, numbers in self.buffers if one is buffer), buffer.detach())
        fresh = start.to(dtype) if start.is_floating_point() and start.dtype != dtype else start.clone()
        if isinstance(part, torch.jit.ScriptModule):
            self.stack.callback(setattr, buffer, "data", buffer.data)
            self.buffers.append((buffer, start))
            buffer.data = fresh
            return
        table: dict[str, Any] = part._buffers  # noqa: SLF001  (where torch.func.functional_call puts them)
        self.stack.callback(table.__setitem__, name, buffer)
        self.buffers.append((fresh, start))
        table[name] = fresh

    def leaves(self, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Return leaves as a graph has them: the parameters into which tensors were written in place of these."""
        return [next((parameter for given, parameter in self.own if given is leaf), leaf) for leaf in leaves]

    def pulled(self, ys: Sequence[Tensor], leaves: Sequence[Tensor], dys: Sequence[Tensor], *, keep: bool,
               create: bool = False) -> tuple[Any, ...]:
        """Return the gradients of leaves: of parameters their `.grad`, of the others what comes to them, which is no copy."""
        graph, seen = self.leaves(leaves), dict[int, Tensor]()
        apart: list[tuple[int, Any]] = [(i, leaf) for i, leaf in enumerate(graph) if leaf is leaves[i]]
        handles = [leaf.register_hook(partial(seen.__setitem__, i)) for i, leaf in apart]
        for leaf in graph:
            leaf.grad = None
        with warnings.catch_warnings(action="ignore") if create else nullcontext():  # of a cycle, which ends below
            torch.autograd.backward(ys, dys, retain_graph=keep or create, create_graph=create)
        for handle in handles:
            handle.remove()
        found = tuple(seen.get(i) if leaf is leaves[i] else leaf.grad for i, leaf in enumerate(graph))
        for leaf in graph:
            leaf.grad = None
        return found


def _put_back(parameter: Tensor, data: Tensor, grad: Tensor | None, *, needed: bool) -> None:
    parameter.grad = None
    parameter.data = data
    parameter.requires_grad_(needed)
    parameter.grad = grad


@contextmanager
def holding(*, write: bool) -> Iterator[Holding]:
    """Hold numbers in the modules that are called; put everything back, also where they raise."""
    held = Holding(write=write)
    ACTIVE.append(held)
    try:
        with held.stack:
            yield held
    finally:
        ACTIVE.remove(held)


def from_module(module: torch.nn.Module) -> Callable[..., Any]:
    """Return a module as a function of its inputs and, by name, its parameters; its buffers are copied for each call."""

    def run(*inputs: Tensor, **params: Tensor) -> Any:
        if ACTIVE:
            return ACTIVE[-1].call(module, inputs, params)
        return torch.func.functional_call(module, params, inputs)

    run.__name__ = type(module).__name__
    return run


def check_initialised(module: torch.nn.Module) -> None:
    """Raise UsageError for a module whose parameters have no shape yet."""
    if any(torch.nn.parameter.is_lazy(one) for one in (*module.parameters(), *module.buffers())):
        raise UsageError(f"{type(module).__name__} is lazy: its parameters get their shapes from the first input it is called on, and got "
                         "none. Call it once before the check, module(torch.randn(2, 4)), say")


def peculiar(module: torch.nn.Module) -> dict[str, tuple[str, ...]]:
    """Return what keeps parameters from being judged as they are: `frozen`, `meta`, `hooks`, or a dtype other than float32 and float64."""
    found = {}
    for name, p in module.named_parameters():
        facts = ["frozen"] * (not p.requires_grad) + ["meta"] * p.is_meta
        facts += ["hooks"] * bool(getattr(p, "_backward_hooks", None) or getattr(p, "_post_accumulate_grad_hooks", None))
        facts += [str(p.dtype).removeprefix("torch.")] * (p.dtype not in WIDE)
        found[name] = tuple(facts)
    return {name: facts for name, facts in found.items() if facts}
