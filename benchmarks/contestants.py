"""The gradient checkers that are compared. Each takes a case and answers with an alarm and the seconds it took."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from time import perf_counter
from typing import Any
from unittest.mock import patch

import jax
import torch
from backproof.adapters import jax as jax_adapter
from backproof.adapters import load, lowered
from backproof.adapters import torch as torch_adapter
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify
from backproof.reference.case import Case
from backproof.reference.graph import by_wire
from backproof.reference.network import Network
from backproof.reference.rounding import precision_named
from backproof.verify.examining import Examiner
from jax.test_util import check_grads

__all__ = ["CHECKERS", "JAX", "SLOW_WIDTH", "TORCH", "Answer", "Checker", "gradcheck"]

SLOW_WIDTH = 16  # slow mode runs the network twice per parameter
ANY_WIDTH = 1 << 30


@dataclass(frozen=True)
class Answer:
    """`known` marks an alarm that `verify` explains by its list of known discrepancies of the framework."""

    alarm: bool
    seconds: float
    failed: tuple[Certificate, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Checker:
    """A checker in one precision; `ours` names the layer and the tensor at fault, `widest` is the width it can afford."""

    name: str
    precision: str
    check: Callable[[Case], Answer]
    ours: bool = False
    widest: int = ANY_WIDTH

    def run(self, case: Case) -> Answer:
        return self.check(replace(case, precision=self.precision))

    @property
    def title(self) -> str:
        return f"{self.name}, {self.precision}"


def backproof(adapter: str, case: Case) -> Answer:
    """Run the network on the adapter and certify its trace, as `verify` does.

    Where no mistake is planted, what fails goes through the rest of `verify`, which knows the digits that torch's own GELU loses.
    """
    runner, precision = load(adapter), precision_named(case.precision)
    case.values()
    start = perf_counter()
    certificates = certify(runner.run(case), precision, fused=getattr(runner, "fused", False))
    seconds = perf_counter() - start
    failed = tuple(c for c in certificates if c.failed)
    if not failed or any(getattr(layer, "plant", None) for layer in case.network.layers):
        return Answer(bool(failed), seconds, failed)
    unexplained = bool(Examiner([adapter], [case.precision], case.seed).structure(0, [case]).sorted_findings("new"))
    return Answer(unexplained, seconds, failed, known=not unexplained)


def gradcheck(case: Case, *, fast: bool, wordless: bool = True) -> Answer:
    """Call gradcheck with its own defaults on the loss as a function of the input and of every parameter.

    When fast mode objects it computes the whole Jacobian to word its message, for minutes on wide networks; `wordless` leaves
    that out.
    """
    values = case.values()
    names = [(path, name) for path, named in values.params.items() for name in named]
    leaves = [torch_adapter.to_torch(v).requires_grad_() for v in (values.x, *(values.params[p][n] for p, n in names))]
    target = torch_adapter.to_torch(values.target)

    def loss(x: Any, *flat: Any) -> Any:
        sources = {"x": x, **{f"{path}.{name}": p for (path, name), p in zip(names, flat, strict=True)}}
        return lowered(case.network, torch_adapter.LOWERINGS, torch_adapter.HEADS, sources, target, lambda _, y: y)[1]

    torch.manual_seed(case.seed)
    short = patch.object(sys.modules["torch.autograd.gradcheck"], "_run_slow_mode_and_get_error", lambda *_: "")
    with short if wordless else nullcontext():
        return _called(lambda: torch.autograd.gradcheck(loss, leaves, fast_mode=fast))


@lru_cache(maxsize=2)
def _jax_loss(network: Network) -> Callable[..., Any]:
    def loss(x: Any, params: Any, target: Any) -> Any:
        sources = {"x": x, **by_wire(params)}
        return lowered(network, jax_adapter.LOWERINGS, jax_adapter.HEADS, sources, target, lambda _, y: y)[1]

    return jax.jit(loss)


def checkgrads(case: Case) -> Answer:
    """Call check_grads with its own defaults in reverse mode on the same loss, compiled once for all values of a network."""
    values = case.values()
    with jax.enable_x64(case.precision == "float64"):
        loss = partial(_jax_loss(case.network), target=values.target)
        arguments = (values.x, dict(values.params))
        return _called(lambda: check_grads(loss, arguments, order=1, modes=["rev"]))  # type: ignore[no-untyped-call]


def _called(check: Callable[[], Any]) -> Answer:
    """Time a checker; whatever it raises, and False, are alarms."""
    start = perf_counter()
    try:
        right = check() is not False
    except (AssertionError, RuntimeError, ValueError):
        right = False
    return Answer(not right, perf_counter() - start)


TORCH = (
    Checker("backproof (torch)", "float64", partial(backproof, "torch"), ours=True),
    Checker("gradcheck fast", "float64", partial(gradcheck, fast=True)),
    Checker("gradcheck slow", "float64", partial(gradcheck, fast=False), widest=SLOW_WIDTH),
    Checker("backproof (torch)", "float32", partial(backproof, "torch"), ours=True),
)
JAX = (
    Checker("backproof (jax:jit)", "float64", partial(backproof, "jax:jit"), ours=True),
    Checker("check_grads", "float64", checkgrads),
    Checker("backproof (jax:jit)", "float32", partial(backproof, "jax:jit"), ours=True),
    Checker("check_grads", "float32", checkgrads),
)
CHECKERS = (*TORCH, *JAX)
