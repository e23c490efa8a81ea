"""`bp.check` beside torch's gradcheck and jax's check_grads on the same candidates, right and wrong: what each says, and how long it takes.

The other two get what their documentation shows: float64 inputs from a normal distribution, their own tolerances. Each candidate is
checked once, after a first call of every checker that is not counted.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import backproof as bp
import jax
import jax.numpy as jnp
import torch
from document import conditions, note, table, write
from jax.test_util import check_grads
from torch.autograd import Function

SHAPE = (4, 6)  # of the input that the other checkers get


@dataclass(frozen=True)
class Candidate:
    """A function with its own backward, the layer it should be, and what is wrong with it: nothing, for a right one."""

    call: Callable[..., Any]
    like: Any
    wrong: str = ""
    params: tuple[tuple[int, ...], ...] = ()


def _function(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a torch.autograd.Function of a forward that gives (output, what is saved), and a backward that takes them."""

    class Own(Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            y, saved = forward(*inputs)
            ctx.save_for_backward(*saved)
            return y

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            return backward(dy, *ctx.saved_tensors)

    def called(*inputs: Any, **params: Any) -> Any:
        return Own.apply(*inputs, *params.values())

    return called


def _norm(x: Any, weight: Any, bias: Any) -> Any:
    r = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()
    h = (x - x.mean(-1, keepdim=True)) * r
    return h * weight + bias, (h, r, weight)


def _norm_back(dy: Any, h: Any, r: Any, weight: Any, *, term: bool = True, single: bool = False) -> Any:
    g, over = dy * weight, tuple(range(dy.ndim - 1))
    dx = r * (g - g.mean(-1, keepdim=True) - (h * (g * h).mean(-1, keepdim=True) if term else 0))
    if single:
        dx = dx.clone()
        dx.view(-1)[dx.abs().argmax()] *= 1 + 1e-4
    return dx, (dy * h).sum(over), dy.sum(over)


def _strided(dy: Any, y: Any) -> Any:
    """Read dy as if it lay in one piece."""
    flat = torch.as_strided(dy, (dy.numel(),), (1,)) if dy.untyped_storage().nbytes() >= dy.numel() * dy.element_size() else dy.reshape(-1)
    return flat.reshape(dy.shape) * (1 - y * y)


class Kept:
    """A tanh that keeps its output on itself."""

    y: Any = None

    def forward(self, x: Any) -> Any:
        self.y = torch.tanh(x)
        return self.y, ()

    def backward(self, dy: Any) -> Any:
        return dy * (1 - self.y * self.y)


def on_torch() -> Iterator[tuple[str, Candidate]]:
    """Yield the candidates on torch by name."""
    norm, kept = bp.LayerNorm(eps=1e-5), Kept()
    yield "LayerNorm", Candidate(_function(_norm, _norm_back), norm, params=((6,), (6,)))
    yield "LayerNorm ", Candidate(_function(_norm, lambda dy, *s: _norm_back(dy, *s, term=False)), norm, "a term of dx is missing",
                                  ((6,), (6,)))
    yield "LayerNorm  ", Candidate(_function(_norm, lambda dy, *s: _norm_back(dy, *s, single=True)), norm, "one entry of dx off by 1e-4",
                                   ((6,), (6,)))
    yield "ReLU", Candidate(_function(lambda x: (x.relu(), (x,)), lambda dy, x: dy * (x > 0)), bp.ReLU())
    yield "ReLU ", Candidate(_function(lambda x: (x.relu(), (x,)), lambda dy, x: dy * torch.where(x == 0, 2.0, (x > 0).to(dy.dtype))),
                             bp.ReLU(), "the slope at 0 is 2")
    yield "Tanh", Candidate(_function(lambda x: (y := x.tanh(), (y,)), lambda dy, y: dy * (1 - y * y)), bp.Tanh())
    yield "Tanh ", Candidate(_function(lambda x: (y := x.tanh(), (y,)), _strided), bp.Tanh(), "dy is read as if it were contiguous")
    yield "Tanh  ", Candidate(_function(lambda x: (y := x.tanh(), (y,)), lambda dy, y: 1 - y * y), bp.Tanh(), "dy is ignored")
    yield "Tanh   ", Candidate(_function(kept.forward, kept.backward), bp.Tanh(), "its output is kept on an object")
    yield "Softplus", Candidate(_function(lambda x: (torch.logaddexp(x, torch.zeros_like(x)), (x,)), lambda dy, x: dy * torch.sigmoid(x)),
                                bp.Softplus())
    yield "Softplus ", Candidate(_function(lambda x: (torch.logaddexp(x, torch.zeros_like(x)), (x,)),
                                           lambda dy, x: dy * x.exp() / (1 + x.exp())), bp.Softplus(), "overflows for large x")


def on_jax() -> Iterator[tuple[str, Candidate]]:
    """Yield the candidates on jax by name."""

    def ruled(backward: Callable[..., Any]) -> Any:
        softplus = jax.custom_vjp(lambda x: jnp.logaddexp(x, 0))
        softplus.defvjp(lambda x: (jnp.logaddexp(x, 0), x), lambda x, dy: (backward(x, dy),))
        return softplus

    yield "Softplus", Candidate(ruled(lambda x, dy: dy * jax.nn.sigmoid(x)), bp.Softplus())
    yield "Softplus ", Candidate(ruled(lambda x, dy: dy * jnp.exp(x) / (1 + jnp.exp(x))), bp.Softplus(), "overflows for large x")
    yield "Softplus  ", Candidate(ruled(lambda x, dy: jax.nn.sigmoid(x)), bp.Softplus(), "dy is ignored")


def timed(call: Callable[[], bool]) -> tuple[str, float]:
    """Return what a checker says, `right` or `wrong`, and its seconds."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = call()
    return "right" if right else "wrong", time.perf_counter() - start


def _gradcheck(candidate: Candidate, *, fast: bool) -> bool:
    torch.manual_seed(0)
    inputs = tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (SHAPE, *candidate.params))
    return bool(torch.autograd.gradcheck(lambda x, *p: candidate.call(x, **dict(zip("wb", p, strict=False))), inputs, raise_exception=False,
                                         fast_mode=fast))


def _check_grads(candidate: Candidate) -> bool:
    try:
        with jax.enable_x64(True):  # noqa: FBT003
            check_grads(candidate.call, (jax.random.normal(jax.random.key(0), SHAPE, jnp.float64),), order=1, modes=("rev",))
    except AssertionError:
        return False
    return True


def _first_wrong(candidate: Candidate, framework: str) -> tuple[str, float]:
    """Return what the first case alone says, and how long it takes."""
    return timed(lambda: bp.check(candidate.call, candidate.like, framework=framework, cases=1).ok)


def rows(framework: str, found: Iterator[tuple[str, Candidate]], others: list[Callable[[Candidate], bool]]) -> Iterator[list[str]]:
    """Yield a row for each candidate."""
    for number, (name, candidate) in enumerate(found):
        calls = [lambda c=candidate: bp.check(c.call, c.like, framework=framework).ok,
                 *(lambda c=candidate, other=other: other(c) for other in others)]
        if not number:
            for call in calls:
                timed(call)
        note(f"{framework} {name}")
        outcomes = [timed(call) for call in calls]
        truth = "wrong" if candidate.wrong else "right"
        cells = [f"{said}{'' if said == truth else ' (!)'}, {seconds:.2f} s" for said, seconds in outcomes]
        first = _first_wrong(candidate, framework)
        yield [name.strip(), candidate.wrong or "right", *cells, f"{first[0]}, {first[1]:.2f} s"]


def section() -> str:
    """Return the tables."""
    torch_rows = rows("torch", on_torch(), [lambda c: _gradcheck(c, fast=False), lambda c: _gradcheck(c, fast=True)])
    jax_rows = rows("jax", on_jax(), [_check_grads])
    first = "bp.check(cases=1)"
    on_torch_table = table(("candidate", "what it is", "bp.check", "gradcheck", "gradcheck, fast", first), torch_rows)
    return f"{on_torch_table}\n{table(('candidate', 'what it is', 'bp.check', 'check_grads', first), jax_rows)}"


INTRODUCTION = """\
## Custom layers

Written by `python benchmarks/candidates.py`.

Candidates with a backward of their own, right and wrong, through `bp.check` with its defaults (100 cases, float64 and float32), torch's
`gradcheck` and jax's `check_grads` with theirs. What a checker says that is not so is marked (!).

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    text = f"{INTRODUCTION}{section()}\n{conditions()}"
    print(text)
    if options.write:
        write("candidates", text)


if __name__ == "__main__":
    main()
