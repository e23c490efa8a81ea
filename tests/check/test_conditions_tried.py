"""Conditions and inputs that a candidate meets in use: two uses in one graph, differentiable gradients, ranks it does not take, masks."""

from __future__ import annotations

from typing import Any

import backproof as bp
import numpy as np
import pytest
import torch
from backproof.adapters.calls import DOUBLE, driver
from backproof.draw.probe import probes, shapes_for
from torch import Tensor

BUFFERS: dict[Any, Any] = {}


class Static(torch.autograd.Function):
    """A tanh whose backward returns one buffer for each shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        buffer: Tensor = BUFFERS.setdefault((x.shape, x.dtype), torch.empty(x.shape, dtype=x.dtype))
        return buffer.copy_(dy * (1 - torch.tanh(x) ** 2))


def static(x: np.ndarray) -> Any:
    y = np.tanh(x)

    def backward(dy: np.ndarray) -> np.ndarray:
        buffer = BUFFERS.setdefault((x.shape, x.dtype.name), np.empty_like(x))
        buffer[...] = dy * (1 - y * y)
        return np.asarray(buffer)

    return y, backward


@pytest.mark.parametrize(("candidate", "framework"), [(Static, None), (static, "numpy")], ids=["torch", "numpy"])
def test_a_backward_that_returns_one_buffer_is_wrong_where_it_is_used_twice(candidate: Any, framework: str | None) -> None:
    report = bp.check(candidate, bp.Tanh(), framework=framework)
    assert [(f.verdict, f.tensor) for f in report.findings] == [("wrong", "dx")], str(report)
    assert "used twice" in report.findings[0].diagnosis.condition


class Apart(torch.autograd.Function):
    """A square with another gradient where that may be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (3 if torch.is_grad_enabled() else 2) * dy * x


class Square(bp.Layer):
    """The truth of it, x squared."""

    def forward(self, params: Any, x: Any, **_: Any) -> Any:
        return x * x, lambda dy: (2 * dy * x, {})


def test_the_gradient_that_may_be_differentiated_is_the_same_gradient() -> None:
    """The plain one is right."""
    report = bp.check(Apart, Square(), cases=60, precisions="float64")
    assert [(f.verdict, f.tensor) for f in report.findings] == [("wrong", "dx")], str(report)
    assert "create_graph" in report.findings[0].diagnosis.condition


def test_second_derivatives_are_drawn_at_zeros_ties_and_kinks() -> None:
    """In a check of the usual length."""
    layer = bp.Prod(dim=-1)
    drawn = {probe.regime for probe in probes(layer, shapes_for(layer), 100, 0, driver("torch"), 1) if probe.condition.mode == DOUBLE}
    assert drawn >= {"normal", "zeros", "ties", "kinks"}


def flat(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.ndim != 2:
        raise ValueError(f"expected 2 axes, got {x.ndim}")
    return x @ weight.T + bias


def test_a_candidate_of_fixed_rank_gets_a_note() -> None:
    report = bp.check(flat, bp.Linear(5), framework="torch", cases=30)
    assert report.ok, str(report)
    assert any(reason.startswith("inputs of 3 or 4 axes: not supported by the candidate: ValueError") for reason in report.skipped)


def test_shapes_that_were_asked_for_are_no_note() -> None:
    report = bp.check(flat, bp.Linear(5), framework="torch", cases=6, shapes=[(4,), (3, 4)])
    assert [f.verdict for f in report.findings] == ["error"]


def test_a_backward_that_alone_raises_is_a_finding() -> None:
    """What takes an input forward has to take it back."""

    def linear(x: np.ndarray, weight: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            if dy.ndim != 2:
                raise ValueError("expected 2 axes")
            return dy @ weight, {"weight": dy.T @ x}

        return x @ weight.T, backward

    report = bp.check(linear, bp.Linear(5, bias=False), framework="numpy", cases=30)
    assert [f.verdict for f in report.findings] == ["error"]


def summed(d: np.ndarray, x: np.ndarray) -> np.ndarray:
    return d.sum(tuple(i for i, n in enumerate(x.shape) if n == 1 != d.shape[i]), keepdims=True)


@pytest.mark.parametrize("shapes", [None, [((), (3,))], [((3,), ())], [((2, 3), (3,))]], ids=str)
@pytest.mark.parametrize("factor", [1, 2])
def test_a_plain_product_broadcasts_example_by_example(shapes: Any, factor: int) -> None:
    """A candidate need not know of the axis of examples; a gradient that is off is found as ever."""

    def numpy(a: np.ndarray, b: np.ndarray) -> Any:
        return a * b, lambda dy: (summed(dy * b, a), factor * summed(dy * a, b))

    report = bp.check(numpy, bp.Multiply(), framework="numpy", cases=30, shapes=shapes)
    assert {(f.verdict, f.tensor) for f in report.findings} == (set() if factor == 1 else {("wrong", "db")}), str(report)
    assert bp.check(lambda a, b: a + b, bp.Add(), framework="torch", cases=16, shapes=shapes).ok


@pytest.mark.parametrize(("mask", "verdict"), [(True, "nonfinite"), (False, "agrees")])
def test_a_masked_entry_is_no_number(mask: bool, verdict: str) -> None:
    def masked(x: np.ndarray) -> Any:
        return np.tanh(x), lambda dy: np.ma.array(dy * (1 - np.tanh(x) ** 2), mask=mask)

    assert bp.check(masked, bp.Tanh(), framework="numpy", cases=10).verdict == verdict
