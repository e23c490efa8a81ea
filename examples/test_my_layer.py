"""How a project keeps its own layers right: `pytest test_my_layer.py`. What a failure shows is the report."""

from typing import Any

import backproof as bp
import numpy as np
import pytest
import torch
from torch import Tensor


def silu(x: np.ndarray) -> Any:
    """In NumPy a candidate returns its output and its backward, which maps dy to (dx, gradients of the parameters)."""
    s = 1 / (1 + np.exp(-x))
    return x * s, lambda dy: (dy * (s + x * s * (1 - s)), {})


class Affine(torch.nn.Module):
    """A module is a candidate as it is; a parameter that torch.nn.Linear calls otherwise is named in `params`."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.kernel = torch.nn.Parameter(torch.randn(features, features))
        self.bias = torch.nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.kernel.T + self.bias


def logistic_loss(z: Tensor, target: Tensor) -> Tensor:
    """A head maps predictions and targets to a loss."""
    return (torch.logaddexp(z, torch.zeros_like(z)) - z * target).mean()


def test_silu() -> None:
    """A function in NumPy."""
    bp.assert_gradients(silu, like=bp.SiLU(), framework="numpy")


def test_affine() -> None:
    """A module, on shapes that it takes."""
    bp.assert_gradients(Affine(4), like=bp.Linear(out_features=4), params={"kernel": "weight"}, shapes=[(4,), (3, 4)])


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
def test_logistic_loss(precision: str) -> None:
    """A loss, in one precision a test."""
    bp.assert_gradients(logistic_loss, like=bp.BCEWithLogitsLoss(), framework="torch", precisions=[precision])


def test_a_mistake_is_named() -> None:
    """What is raised carries the report, for whoever wants to look closer."""
    with pytest.raises(bp.GradientMismatch, match="halved") as caught:
        bp.assert_gradients(lambda z, target: ((z - target) ** 2).mean() / 2, like=bp.MSELoss(), framework="torch")
    (output, dz) = sorted(caught.value.report.findings, key=lambda finding: finding.tensor, reverse=True)
    assert (output.tensor, dz.tensor, dz.verdict, dz.diagnosis.code) == ("output", "dz", "wrong", "halved")  # noqa: S101
