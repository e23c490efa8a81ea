"""Regimes in which mistakes show that ordinary numbers hide: large numbers, and means of many deviations."""

from __future__ import annotations

from typing import Any

import backproof as bp
import pytest
import torch
from backproof.adapters import own_function

pytestmark = pytest.mark.filterwarnings("ignore")


def normalized(x: torch.Tensor, *, two_pass: bool) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True) if two_pass else ((x * x).mean(-1, keepdim=True) - mean * mean).clamp(min=0)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def layer_norm(*, two_pass: bool) -> Any:
    return lambda x, weight, bias: normalized(x, two_pass=two_pass) * weight + bias


def group_norm(*, two_pass: bool) -> Any:
    def function(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        y = normalized(x.reshape(len(x), 2, -1), two_pass=two_pass).reshape(x.shape)
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return y * weight.reshape(shape) + bias.reshape(shape)

    return function


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize(("make", "layer"), [(layer_norm, bp.LayerNorm()), (group_norm, bp.GroupNorm(2))], ids=["layer", "group"])
def test_a_variance_without_digits_is_caught_and_one_in_two_passes_is_not(make: Any, layer: Any, precision: str) -> None:
    """E[x^2] - E[x]^2 loses the variance where the mean is many deviations; the plain formula in two passes is right everywhere."""
    report = bp.check(make(two_pass=False), layer, framework="torch", precisions=precision, cases=40, seed=1)
    assert {"output", "dx"} <= {finding.tensor for finding in report.findings}
    assert "offset" in {finding.case.regime for finding in report.findings}
    for right in (make(two_pass=True), own_function("torch", layer)):
        report = bp.check(right, layer, framework="torch", precisions=precision, cases=40, seed=1)
        assert report.ok, str(report)


def test_a_relu6_that_gives_up_on_large_numbers_is_caught() -> None:
    """relu6(2e8) = 0 in float32, as another framework has it, is met by the numbers up to a tenth of the largest."""
    report = bp.check(lambda x: torch.where(x < 1e8, torch.clamp(x, 0, 6), torch.zeros_like(x)), bp.ReLU6(), framework="torch",
                      precisions="float32", cases=40)
    assert {finding.case.regime for finding in report.findings if finding.tensor == "output"} == {"large"}
    report = bp.check(own_function("torch", bp.ReLU6()), bp.ReLU6(), framework="torch", precisions="float32", cases=40)
    assert report.ok, str(report)
