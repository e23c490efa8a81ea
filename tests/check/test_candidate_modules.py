"""Modules of torch: their own parameters hold the numbers, so hooks, recomputation and TorchScript are judged as training meets them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import backproof as bp
import pytest
import torch
from backproof.reference.usage import UsageError
from backproof.report.report import Report
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript


LINEAR = bp.Linear(5)


def found(module: nn.Module, like: Any = LINEAR, **options: Any) -> Report:
    return bp.check(module, like, **({"cases": 30} | options))


def said(report: Report) -> set[tuple[str, str]]:
    return {(f.verdict, f.tensor) for f in report.findings}


class Checkpointed(nn.Linear):
    """Computes its forward once more in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(lambda x: nn.functional.linear(x, self.weight, self.bias), x, use_reentrant=False)


class Recomputed(nn.Linear):
    """Reads its parameters in the backward pass, as reversible blocks do; `off` times the right dx."""

    off = 1.0

    def forward(self, x: Tensor) -> Tensor:
        block = self

        class Again(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                ctx.save_for_backward(x)
                return nn.functional.linear(x, weight, bias)

            @staticmethod
            def backward(ctx: Any, dy: Tensor) -> Any:
                (x,) = ctx.saved_tensors
                with torch.enable_grad():
                    leaf = x.detach().requires_grad_()
                    nn.functional.linear(leaf, block.weight, block.bias).backward(dy)
                assert leaf.grad is not None
                return block.off * leaf.grad, None, None

        return Again.apply(x, self.weight, self.bias)


@pytest.mark.parametrize("module", [Checkpointed(4, 5), Recomputed(4, 5)], ids=["checkpoint", "reversible"])
def test_a_module_that_recomputes_is_right(module: nn.Module) -> None:
    report = found(module)
    assert report.ok, str(report)


def test_a_module_that_recomputes_wrongly_is_wrong() -> None:
    module = Recomputed(4, 5)
    module.off = 2.0
    assert ("wrong", "dx") in said(found(module))


def doubled(p: Tensor) -> None:
    assert p.grad is not None
    p.grad = 2 * p.grad


@pytest.mark.parametrize("hook", [lambda m: m.weight.register_hook(lambda g: 2 * g),
                                  lambda m: m.weight.register_post_accumulate_grad_hook(doubled)], ids=["hook", "accumulated"])
def test_hooks_on_parameters_are_judged(hook: Callable[[Any], Any]) -> None:
    """What training would read is the module's own `.grad`."""
    module = nn.Linear(4, 5)
    hook(module)
    report = found(module)
    assert said(report) == {("wrong", "dweight")}
    assert report.findings[0].diagnosis.code == "doubled"


def test_a_hook_that_changes_nothing_is_right() -> None:
    module = nn.Linear(4, 5)
    module.weight.register_hook(lambda g: g.clone())
    assert found(module).ok


def left_out(report: Report) -> str:
    return "\n".join(report.skipped)


def test_a_parameter_without_a_gradient_is_said_to_be_left_out() -> None:
    module = nn.Linear(4, 5)
    module.weight.requires_grad_(requires_grad=False)
    report = found(module)
    assert report.ok, str(report)
    assert "dweight: it does not require a gradient in the module" in left_out(report)
    assert not any(key[3] == "dweight" for key in report.tallies)


@pytest.mark.parametrize(("module", "says"), [
    (nn.Linear(4, 5).half(), "it is float16"), (nn.Linear(4, 5, dtype=torch.complex64), "it is complex64"),
    (nn.Linear(4, 5, device="meta"), "no numbers"),
], ids=["half", "complex", "meta"])
def test_parameters_that_are_judged_as_something_else_are_named(module: nn.Module, says: str) -> None:
    """And nothing is named where a precision that the module has was asked for."""
    report = found(module, cases=6)
    assert says in left_out(report)
    assert "it is float16" not in left_out(found(nn.Linear(4, 5).half(), cases=2, precisions="float16"))


def test_a_module_is_left_as_it_was() -> None:
    """Its parameters, their gradients, hooks and buffers; also where it raises."""

    class Raises(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise RuntimeError("not today")

    for module in (nn.BatchNorm1d(3), Raises(3)):
        module.weight.grad = torch.ones(3)
        parts = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        before = {name: (t, t.data_ptr(), t.clone()) for name, t in parts.items()}
        assert found(module, bp.BatchNorm(), cases=16).ok is not isinstance(module, Raises)
        after = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, (tensor, place, numbers) in before.items():
            assert after[name] is tensor
            assert tensor.data_ptr() == place
            assert torch.equal(tensor, numbers)
        assert torch.equal(module.weight.grad, torch.ones(3))
        assert module.weight.requires_grad


@pytest.mark.parametrize(("make", "like"), [
    (lambda: torch.jit.script(nn.Linear(4, 5)), bp.Linear(5)), (lambda: torch.jit.script(nn.LayerNorm(4)), bp.LayerNorm()),
    (lambda: torch.jit.trace(nn.Linear(4, 5), torch.randn(2, 4)), bp.Linear(5)),
    (lambda: torch.jit.script(nn.BatchNorm1d(3)), bp.BatchNorm()), (lambda: torch.jit.script(nn.Linear(4, 5)), None),
], ids=["script", "norm", "trace", "buffers", "own forward"])
def test_scripted_modules_are_right(make: Callable[[], nn.Module], like: Any) -> None:
    report = found(make(), like, cases=12)
    assert report.ok, str(report)
    assert report.compared


class Halved(nn.Module):
    """Scripted, with a gradient that is not that of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, self.weight.t())
        return 0.5 * y + 0.5 * y.detach()


def test_a_scripted_module_that_is_wrong_is_wrong() -> None:
    report = found(torch.jit.script(Halved()), bp.Linear(5, bias=False), cases=12)
    assert said(report) >= {("wrong", "dx"), ("wrong", "dweight")}


def test_a_lazy_module_is_to_be_called_first() -> None:
    module = nn.LazyLinear(5)
    with pytest.raises(UsageError, match=r"LazyLinear is lazy.*Call it once before the check"):
        found(module)
    module(torch.randn(2, 4))
    assert found(module, cases=6).ok
