"""A sum of whatever layer is judged by float32 accumulation; one that was accumulated in the format it is stored in is named so."""

from __future__ import annotations

from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import own_function
from backproof.reference.values import REGIMES, indices


def embedding(kind: Any) -> Any:
    """Return a gather of rows whose backward adds up in a format: None for the format of dy."""

    def forward(x: np.ndarray, weight: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            total = np.zeros(weight.shape, dtype=kind or dy.dtype)
            for place in np.ndindex(*x.shape):
                total[x[place]] += dy[place].astype(total.dtype)
            return None, {"weight": total.astype(dy.dtype)}

        return weight[x], backward

    return forward


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_an_embedding_accumulated_in_half_precision_is_caught_and_named(precision: str) -> None:
    """The same backward is right with an accumulator of float32, and in float32."""
    layer = bp.Embedding(17, 4)
    report = bp.check(embedding(None), layer, framework="numpy", precisions=precision, cases=40)
    (finding,) = report.findings
    assert (finding.tensor, finding.verdict, finding.diagnosis.code) == ("dweight", "imprecise", "accumulated")
    assert f"accumulated in {precision}" in finding.diagnosis.sentence
    for right, kind in ((np.float32, precision), (None, "float32")):
        report = bp.check(embedding(right), layer, framework="numpy", precisions=kind, cases=40)
        assert report.ok, str(report)


def test_a_wrong_sum_is_not_called_accumulated() -> None:
    """A row too few is wrong in every precision, whatever sums of that length may lose."""

    def forward(x: np.ndarray, weight: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            total = np.zeros(weight.shape, dtype=np.float32)
            np.add.at(total, x[1:], dy[1:].astype(np.float32))
            return None, {"weight": total.astype(dy.dtype)}

        return weight[x], backward

    report = bp.check(forward, bp.Embedding(5, 2), framework="numpy", precisions="bfloat16", cases=20)
    assert not report.ok
    assert {(f.verdict, f.diagnosis.code != "accumulated") for f in report.findings} == {("wrong", True)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("framework", "layer", "tensor"), [
    ("torch", bp.Embedding(3, 2), "dweight"), ("jax", bp.Embedding(3, 2), "dweight"), ("jax", bp.CumSum(1), "dx"),
], ids=str)
def test_what_a_framework_accumulates_in_bfloat16_is_known(framework: str, layer: Any, tensor: str) -> None:
    """The framework's own function is not held against anybody, and is shown."""
    report = bp.check(own_function(framework, layer), layer, framework=framework, precisions="bfloat16",
                      cases=40 if framework == "torch" else 6)
    assert report.ok, str(report)
    assert tensor in {finding.tensor for finding in report.known}


def test_indices_are_drawn_with_heavy_repetition() -> None:
    """Some draws are uniform, in some one index is most of them, or all; none leaves the range."""
    rng = np.random.default_rng(0)
    drawn = [indices(rng, 50, (400,)) for _ in range(200)]
    assert all(0 <= one.min() <= one.max() < 50 for one in drawn)
    share = np.array([np.bincount(one).max() / one.size for one in drawn])
    for low, high in ((0.0, 0.06), (0.15, 0.4), (0.8, 0.99), (1.0, 1.0)):
        assert 0.05 < np.mean((low <= share) & (share <= high)) < 0.5
    assert {"large", "offset"} <= set(REGIMES)
