"""Candidates on PyTorch differentiated along a direction: in forward mode, and by a backward pass through their backward."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from backproof.adapters.calls import JVP, Answer, Call, UnsupportedError, answered, first_sentence
from backproof.adapters.torch.arrays import to_numpy, to_torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import BackwardCFunction

__all__ = ["directional"]

Candidate = Callable[..., Any]
Key = int | str
FORWARD_AD: Any = forward_ad  # some of it has no types
Found = dict[tuple[Key | None, int], Tensor]
KEPT = ("its backward reads what its forward computed and kept, of which torch has no graph. Compute it in backward, or mark backward with "
        "torch.autograd.function.once_differentiable, so that torch refuses")
NO_FORWARD_MODE = re.compile(r"forward.?(mode )?AD|\bjvp\b|forward mode", re.IGNORECASE)


def directional(candidate: Candidate, call: Call) -> Answer:
    """Return the outputs and derivatives of a call; raise UnsupportedError where torch says that the candidate has none."""
    arrays: dict[Key, Tensor] = {i: to_torch(x) for i, x in enumerate(call.inputs)}
    arrays |= {name: to_torch(a) for name, a in call.params.items()}
    dys = [to_torch(dy) for dy in call.dys]

    def run(arrays: dict[Key, Tensor]) -> tuple[Tensor, ...]:
        inputs = (arrays[i] for i in range(len(call.inputs)))
        found = candidate(*inputs, **{name: arrays[name] for name in call.params})
        return answered(found, len(dys), Tensor, "a tensor, or a tuple of them")

    tangents = {key: to_torch(v) for key, v in call.tangents.items()}
    ys, found = (_forward_mode if call.mode == JVP else _twice)(run, arrays, tangents, dys)
    undefined = KEPT if call.mode != JVP and _keeps(ys, arrays) else ""
    return Answer(call.inputs, call.params, call.dys, tuple(map(to_numpy, ys)), (None,) * len(call.inputs), {},
                  derivatives={key: to_numpy(d) for key, d in found.items()}, undefined=undefined)


def _forward_mode(run: Callable[..., tuple[Tensor, ...]], arrays: dict[Key, Tensor], tangents: dict[Key, Tensor],
                  dys: list[Tensor]) -> tuple[tuple[Tensor, ...], Found]:
    """Move one array at a time."""
    _load()
    found: Found = {}
    ys: tuple[Tensor, ...] = ()
    for key, v in tangents.items():
        try:
            with FORWARD_AD.dual_level():
                pairs = [FORWARD_AD.unpack_dual(y) for y in run({**arrays, key: FORWARD_AD.make_dual(arrays[key], v)})]
        except NotImplementedError as error:
            raise UnsupportedError(first_sentence(error)) from error
        except RuntimeError as error:
            if NO_FORWARD_MODE.search(str(error)):
                raise UnsupportedError(first_sentence(error)) from error
            raise
        ys = tuple(pair.primal for pair in pairs)
        found |= {(key, n): torch.zeros_like(y) if pair.tangent is None else pair.tangent for n, (y, pair) in
                  enumerate(zip(ys, pairs, strict=True))}
    return ys, found


@lru_cache(maxsize=1)
def _load() -> None:
    """Have torch load what its forward mode needs, which takes a second and warns of what it is made of."""
    with warnings.catch_warnings(), FORWARD_AD.dual_level():
        warnings.simplefilter("ignore")
        FORWARD_AD.make_dual(torch.ones(()), torch.ones(()))


def _keeps(ys: tuple[Tensor, ...], arrays: dict[Key, Tensor]) -> bool:
    """Say whether a Function on the way to the outputs keeps real numbers that are neither given to it nor have a graph."""
    given = {array.untyped_storage().data_ptr() for array in arrays.values()}
    nodes, seen = [y.grad_fn for y in ys], set[Any]()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [before for before, _ in node.next_functions]
        if isinstance(node, BackwardCFunction):
            held = (node.saved_tensors, *vars(node).values())
            kept = (a for one in held for a in (one if isinstance(one, (tuple, list)) else (one,)))
            if any(isinstance(a, Tensor) and a.is_floating_point() and not a.requires_grad and a.numel()
                   and a.untyped_storage().data_ptr() not in given for a in kept):
                return True
    return False


def _twice(run: Callable[..., tuple[Tensor, ...]], arrays: dict[Key, Tensor], tangents: dict[Key, Tensor],
           dys: list[Tensor]) -> tuple[tuple[Tensor, ...], Found]:
    """Differentiate <u, dx> + <U, dparams> by the arrays and by what comes from above."""
    leaves = {key: arrays[key].requires_grad_() for key in tangents}
    above = [dy.requires_grad_() for dy in dys]
    ys = run(arrays)
    on = [(y, dy) for y, dy in zip(ys, above, strict=True) if y.requires_grad]
    first = torch.autograd.grad([y for y, _ in on], list(leaves.values()), [dy for _, dy in on], create_graph=True, allow_unused=True)
    for key, d in zip(leaves, first, strict=True):
        if d is not None and not d.requires_grad:
            name = f"input {key}" if isinstance(key, int) else key
            raise UnsupportedError(f"its backward leaves autograd: the gradient of {name} has no graph")
    terms = [(d * tangents[key]).sum() for key, d in zip(leaves, first, strict=True) if d is not None]
    try:
        total: Any = torch.stack(terms).sum()
        total.backward(retain_graph=True)  # through all of the graph: grad() leaves out what refuses but leads to no leaf
    except (RuntimeError, NotImplementedError) as error:
        raise UnsupportedError(first_sentence(error)) from error
    wanted: Found = {(key, 0): leaf for key, leaf in leaves.items()}
    wanted |= {(None, n): dy for n, dy in enumerate(above)}
    return ys, {key: torch.zeros_like(of) if of.grad is None else of.grad for key, of in wanted.items()}
