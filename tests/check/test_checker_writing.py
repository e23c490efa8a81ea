"""A candidate that writes over what it is given: that is the finding, and what it returns is judged against what it was handed."""

from __future__ import annotations

from typing import Any

import backproof as bp
import numpy as np
import pytest
import torch
from backproof.report.report import Report


def function(factor: float) -> Any:
    """Return an RMSNorm that writes its dx, times a factor, over dy, as a released kernel library does."""

    class Norm(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            r = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
            ctx.save_for_backward(x, weight, r)
            return x * r * weight

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> Any:
            x, weight, r = ctx.saved_tensors
            h, g = x * r, dy * weight
            dweight = (dy * h).reshape(-1, weight.shape[0]).sum(0)
            dy.copy_(factor * r * (g - h * (g * h).mean(-1, keepdim=True)))
            return dy, dweight

    return Norm


def written(x: np.ndarray, weight: np.ndarray) -> Any:
    """The same in NumPy."""
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(1e-5))
    h = x * r

    def backward(dy: np.ndarray) -> Any:
        dweight, g = (dy * h).reshape(-1, weight.size).sum(0), dy * weight
        dy[...] = r * (g - h * (g * h).mean(-1, keepdims=True))
        return dy, {"weight": dweight}

    return h * weight, backward


def said(report: Report) -> list[tuple[str, str, str]]:
    return [(f.verdict, f.tensor, f.diagnosis.code) for f in report.findings]


@pytest.mark.parametrize(("candidate", "framework"), [(function(1.0), None), (written, "numpy")], ids=["torch", "numpy"])
def test_a_right_gradient_written_over_dy_is_one_finding(candidate: Any, framework: str | None) -> None:
    """Neither dx nor dweight is accused, nor that dy cannot be written to where it is one number expanded."""
    report = bp.check(candidate, bp.RMSNorm(eps=1e-5), framework=framework, cases=60)
    assert said(report) == [("error", "", "mutation")], str(report)
    assert "upstream gradient" in report.findings[0].diagnosis.sentence


def test_a_wrong_gradient_written_over_dy_is_wrong_beside_it() -> None:
    """What was written is judged too."""
    report = bp.check(function(2.0), bp.RMSNorm(eps=1e-5), cases=24, precisions="float64")
    assert {("error", ""), ("wrong", "dx")} == {(verdict, tensor) for verdict, tensor, _ in said(report)}, str(report)
