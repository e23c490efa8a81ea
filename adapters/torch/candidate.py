"""Candidates on PyTorch: functions of tensors, called under autograd in every way that a custom backward has to bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from backproof.adapters.calls import (
    AUTODIFF,
    DENSE,
    DOUBLE,
    FORWARD,
    JVP,
    PLAIN,
    SHAPES,
    Answer,
    Call,
    UnsupportedError,
    answered,
    first_sentence,
)
from backproof.adapters.torch.arrays import to_numpy, to_torch
from backproof.adapters.torch.directional import directional
from backproof.adapters.torch.forward import autodiff
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Candidate = Callable[..., Any]
Given = tuple[tuple[Tensor, ...], dict[str, Tensor]]


def _transposed(t: Tensor) -> Tensor:
    """The axes lie in storage in the opposite order."""
    back = tuple(reversed(range(t.ndim)))
    return t.permute(back).contiguous().permute(back)


def _stepped(t: Tensor) -> Tensor:
    """Every second place of a storage that holds NaN in between; from the middle of it, so that the offset counts too."""
    gaps = torch.full((*t.shape[:-1], 2 * t.shape[-1] + 1), torch.nan if t.is_floating_point() else 0, dtype=t.dtype)
    return gaps[..., 1::2].copy_(t)


def _channels_inside(t: Tensor) -> Tensor:
    """The channels lie next to one another in storage, as convolutions like images; a single image as it comes without its batch."""
    if t.ndim < 3:
        return t
    single = t.shape[0] == 1
    image, channels = (t[0], 0) if single else (t, 1)
    moved = image.movedim(channels, -1).contiguous().movedim(-1, channels)
    return moved[None] if single else moved


def _rows_expanded(t: Tensor) -> Tensor:
    """One row stands for all, with stride 0."""
    return t[:1].expand(t.shape)


def _expanded(t: Tensor) -> Tensor:
    """One number stands for all, with stride 0 along every axis: what the gradient of a sum is."""
    return t.flatten()[:1].reshape([1] * t.ndim).expand(t.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    DENSE: lambda t: t, "transposed": _transposed, "stepped": _stepped, "channels last": _channels_inside,
    "rows expanded": _rows_expanded, "expanded": _expanded,
}


def laid(t: Tensor, layout: str) -> Tensor:
    """Return the tensor in a layout; what has no axis or no entry stays."""
    return LAYOUTS[layout](t) if t.ndim and t.numel() else t


def _called(candidate: Candidate, given: Given, count: int) -> tuple[Tensor, ...]:
    inputs, params = given
    return answered(candidate(*inputs, **params), count, Tensor, "a tensor, or a tuple of them")


def _plain(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    ys = _called(candidate, given, len(dys))
    return ys, _pulled(ys, leaves, dys)


def _pulled(ys: tuple[Tensor, ...], leaves: Sequence[Tensor], dys: Sequence[Tensor], *, keep: bool = False) -> tuple[Any, ...]:
    """Return the gradients of the leaves; None for those that the outputs do not depend on."""
    for y, dy in zip(ys, dys, strict=True):
        if y.shape != dy.shape:
            raise ValueError(f"wrong shape of the output: got {tuple(y.shape)}, expected {tuple(dy.shape)}")
    on = [(y, dy) for y, dy in zip(ys, dys, strict=True) if y.requires_grad]
    if not on:
        return (None,) * len(leaves)
    return torch.autograd.grad([y for y, _ in on], leaves, [dy for _, dy in on], retain_graph=keep, allow_unused=True)


def _interleaved(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    """Call once more, on other numbers and the same parameters, before the backward pass of the first call."""
    ys = _called(candidate, given, len(dys))
    inputs, params = given
    others = tuple(x.detach().flip(0) * 2 if real else x for x, real in zip(inputs, call.real, strict=True))
    _called(candidate, (others, params), len(dys))
    return ys, _pulled(ys, leaves, dys)


def _again(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    """Run backward twice over one graph, the first time with another gradient from above."""
    ys = _called(candidate, given, len(dys))
    _pulled(ys, leaves, [dy * -2 for dy in dys], keep=True)
    return ys, _pulled(ys, leaves, dys)


def _checkpointed(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    inputs, params = given
    names = tuple(params)

    def run(*arrays: Tensor) -> tuple[Tensor, ...]:
        return _called(candidate, (arrays[: len(inputs)], dict(zip(names, arrays[len(inputs) :], strict=True))), len(dys))

    ys = checkpoint(run, *inputs, *params.values(), use_reentrant=False)
    return ys, _pulled(ys, leaves, dys)


def _functional(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    """Take the gradients by `torch.func.vjp`."""
    places = _places(given, leaves)

    def run(*chosen: Tensor) -> tuple[Tensor, ...]:
        return _called(candidate, _with(given, places, chosen), len(dys))

    vjp: Any = torch.func.vjp
    ys, pullback = vjp(run, *(leaf.detach() for leaf in leaves))
    return ys, pullback(tuple(dys))


def _mapped(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    """Map the candidate over single examples by `torch.func.vmap`."""
    inputs, params = given
    apart = {name: a for name, a in params.items() if name in call.batched}

    def one(inputs: tuple[Tensor, ...], own: dict[str, Tensor]) -> tuple[Tensor, ...]:
        few = {**params, **{name: a[None] for name, a in own.items()}}
        return tuple(y[0] for y in _called(candidate, (tuple(x[None] for x in inputs), few), len(dys)))

    ys = torch.func.vmap(one)(inputs, apart)
    return ys, _pulled(ys, leaves, dys)


def _forward(candidate: Candidate, call: Call) -> Answer:
    """Return the outputs alone."""
    with torch.no_grad():
        given = tuple(map(to_torch, call.inputs)), {name: to_torch(a) for name, a in call.params.items()}
        ys = _called(candidate, given, len(call.dys))
    return Answer(call.inputs, call.params, call.dys, tuple(map(to_numpy, ys)), (None,) * len(call.inputs), {})


def _autodiff(candidate: Candidate, call: Call, given: Given, leaves: list[Tensor], dys: list[Tensor]) -> Any:
    """Take the gradients of the forward without the backward that the candidate defines."""
    inputs, params = given
    ys = autodiff(candidate, (*inputs, *params.values()), tuple(params), len(dys))
    return ys, _pulled(ys, leaves, dys)


def _places(given: Given, leaves: list[Tensor]) -> list[int | str]:
    inputs, params = given
    every: list[tuple[int | str, Tensor]] = [*enumerate(inputs), *params.items()]
    return [key for leaf in leaves for key, tensor in every if tensor is leaf]


def _with(given: Given, places: list[int | str], chosen: tuple[Tensor, ...]) -> Given:
    inputs, params = given
    new = dict(zip(places, chosen, strict=True))
    return tuple(new.get(i, x) for i, x in enumerate(inputs)), {name: new.get(name, a) for name, a in params.items()}


MODES: dict[str, Callable[[Candidate, Call, Given, list[Tensor], list[Tensor]], Any]] = {
    PLAIN: _plain, "interleaved": _interleaved, "again": _again, "checkpoint": _checkpointed, "func": _functional, "vmap": _mapped,
    AUTODIFF: _autodiff,
}
OPTIONAL = frozenset({"checkpoint", "func", "vmap", AUTODIFF})


class TorchDriver:
    """Calls under autograd; in the modes under `torch.func` and `torch.utils.checkpoint` as far as the candidate supports them."""

    framework = "torch"
    layouts = tuple(LAYOUTS)
    selective = True
    compiles = False
    modes: Mapping[str, str] = {
        "interleaved": "when it is called again before its backward pass: something is kept outside of the context of the call",
        "again": "when backward runs twice over one graph",
        "checkpoint": "under torch.utils.checkpoint",
        "func": "under torch.func.vjp",
        "vmap": "under torch.func.vmap",
        JVP: "in forward mode",
        DOUBLE: "when its backward is differentiated",
    }

    def run(self, candidate: Candidate, call: Call) -> Answer:
        """Call a candidate and its backward; raise what it raises, UnsupportedError where the mode is not for it."""
        if call.mode in {FORWARD, SHAPES}:
            return _forward(candidate, call)
        if call.mode in {JVP, DOUBLE}:
            return directional(candidate, call)
        inputs = tuple(laid(to_torch(x), call.layout) for x in call.inputs)
        params = {name: laid(to_torch(a), call.layout) for name, a in call.params.items()}
        dys = [laid(to_torch(dy), call.upstream) for dy in call.dys]
        real = [i for i, is_real in enumerate(call.real) if is_real]
        every: list[int | str] = [*real, *call.trained]
        keys = [key for key in every if call.wants(key)]
        leaves = [inputs[key] if isinstance(key, int) else params[key] for key in keys]
        for leaf in leaves:
            leaf.requires_grad_()
        before = _bits(inputs, params, dys)
        try:
            ys, gradients = MODES[call.mode](candidate, call, (inputs, params), leaves, dys)
        except (RuntimeError, NotImplementedError) as error:
            if call.mode in OPTIONAL:
                raise UnsupportedError(first_sentence(error)) from error
            raise
        changed = tuple(name for (name, old), new in zip(before.items(), _bits(inputs, params, dys).values(), strict=True)
                        if not torch.equal(old, new))
        found = dict(zip(keys, gradients, strict=True))
        return Answer(tuple(map(to_numpy, inputs)), {name: to_numpy(a) for name, a in params.items()}, tuple(map(to_numpy, dys)),
                      tuple(map(to_numpy, ys)),
                      tuple(_numbers(found.get(i)) for i in range(len(inputs))),
                      {name: _numbers(found.get(name)) for name in call.trained}, changed)


def _numbers(gradient: Tensor | None) -> Any:
    return None if gradient is None else to_numpy(gradient)


def _bits(inputs: tuple[Tensor, ...], params: Mapping[str, Tensor], dys: list[Tensor]) -> dict[str, Tensor]:
    """Return copies of all arrays by a name to call them, as whole numbers, of which also NaN equals itself."""
    every = {f"input {i}": t for i, t in enumerate(inputs)} | dict(params) | {f"upstream gradient {i}": t for i, t in enumerate(dys)}
    wide = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
    return {name: t.detach().clone(memory_format=torch.contiguous_format).view(wide.get(t.dtype, t.dtype)) for name, t in every.items()}


def from_module(module: torch.nn.Module) -> Candidate:
    """Return a module as a function of its inputs and, by name, its parameters; its buffers are copied for each call."""

    def run(*inputs: Tensor, **params: Tensor) -> Any:
        dtype = next((t.dtype for t in (*inputs, *params.values()) if t.is_floating_point()), torch.float32)
        buffers = {name: (b.to(dtype) if b.is_floating_point() else b).clone() for name, b in module.named_buffers()}
        return torch.func.functional_call(module, {**buffers, **params}, inputs)

    run.__name__ = type(module).__name__
    return run


driver = TorchDriver()
