"""What is known of a framework excuses its own function and what merely calls it, and nothing that somebody wrote."""

from __future__ import annotations

from typing import Any

import backproof as bp
import jax
import pytest
import torch
from backproof.check.candidate import Candidate
from backproof.check.own_function import OwnFunction
from backproof.draw.probe import Probe
from torch.nn import functional


class Divided(torch.autograd.Function):
    """The gradient of a product as dy y / x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = torch.prod(x, -1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        x, y = ctx.saved_tensors
        return (dy * y)[..., None] / x


class SixthInSingle(torch.autograd.Function):
    """A hard sigmoid with the constant that torch has too, bit for bit its dx."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return functional.hardsigmoid(x)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return torch.where((x > -3) & (x < 3), dy * torch.tensor(1 / 6, dtype=torch.float32).to(x.dtype), 0)


class Copied(torch.autograd.Function):
    """A GELU of the user's own that has torch's numbers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return functional.gelu(x)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            return torch.autograd.grad(functional.gelu(leaf), leaf, dy)[0]


@pytest.mark.parametrize(("candidate", "like", "tensor"), [(Divided, bp.Prod(dim=-1), "dx"), (SixthInSingle, bp.Hardsigmoid(), "dx"),
                                                          (Copied, bp.GELU(), "dx")], ids=lambda v: getattr(v, "__name__", str(v)))
def test_a_backward_of_ones_own_is_not_excused(candidate: Any, like: bp.Layer, tensor: str) -> None:
    """Even where its numbers are the framework's."""
    report = bp.check(candidate, like)
    assert tensor in {f.tensor for f in report.findings}, str(report)
    assert not report.ok
    assert not report.known


def composed(x: torch.Tensor) -> torch.Tensor:
    """GELU by plain operations, which loses its tail as torch's does, in other bits."""
    return 0.5 * x * (1 + torch.erf(x * 0.5**0.5))


def test_a_formula_of_ones_own_is_not_excused() -> None:
    """Neither is one without a backward that is not bit for bit torch's."""
    report = bp.check(composed, bp.GELU(), framework="torch", cases=40)
    assert {f.verdict for f in report.findings} == {"imprecise"}
    assert not report.known


@pytest.mark.parametrize("candidate", [functional.gelu, torch.nn.GELU(), lambda x: 1 * functional.gelu(x)],
                         ids=["function", "module", "lambda"])
def test_what_merely_calls_torchs_function_is_explained(candidate: Any) -> None:
    """It is said whose it is."""
    report = bp.check(candidate, bp.GELU(), framework="torch", cases=40)
    assert report.ok, str(report)
    assert {"output", "dx"} <= {f.tensor for f in report.known}
    assert all(f.known.startswith("torch's own gelu does this: ") for f in report.known)


@jax.custom_vjp
def elu(x: Any) -> Any:
    return jax.nn.elu(x)


elu.defvjp(lambda x: (jax.nn.elu(x), x), lambda x, dy: (jax.vjp(jax.nn.elu, x)[1](dy)[0],))


def test_jax_is_treated_alike() -> None:
    """Functions of `jax.nn` have derivatives of their own too, which are jax's."""
    assert bp.check(jax.nn.elu, bp.ELU(), framework="jax", cases=24).known
    report = bp.check(elu, bp.ELU(), framework="jax", cases=24)
    assert not report.ok
    assert not report.known


@pytest.mark.parametrize(("function", "defines"), [(elu, True), (jax.nn.elu, False), (jax.nn.relu, False), (jax.nn.silu, False)])
def test_a_derivative_is_jaxs_by_where_its_rule_was_written(function: Any, defines: bool) -> None:
    own, call = OwnFunction(Candidate.of(function, "jax", {}), bp.ELU()), Probe(bp.ELU(), ((3,),)).call()
    assert own._defines_nothing(call) is not defines


def test_an_error_is_the_frameworks_only_where_its_function_raises_it() -> None:
    """A Function that raises what torch is known to raise of an empty batch is an error of its own."""

    class Shuffle(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return functional.pixel_shuffle(x, 2)

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Function PixelShuffleBackward0 returned an invalid gradient at index 0")

    report = bp.check(Shuffle, bp.PixelShuffle(2), cases=3)
    assert [f.verdict for f in report.findings] == ["error"]
    assert not report.known
