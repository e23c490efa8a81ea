"""The frameworks' own functions as candidates: whatever layout, upstream gradient or transform a check draws, nothing of them is blamed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import backproof as bp
import pytest
from backproof.adapters import own_function
from backproof.draw import strategies
from backproof.reference.head import pairs
from backproof.reference.heads import Head
from backproof.reference.layer import REGISTRY, Layer

pytestmark = pytest.mark.filterwarnings("ignore")  # torch remarks on slow batching rules and on copies
LAYERS = {framework: sorted(import_module(f"backproof.adapters.{framework}").LOWERINGS, key=lambda layer: layer.__name__)
          for framework in ("torch", "jax")}


PRECISIONS = ("float64", "float32", "bfloat16", "float16")
HEADS = [*(Head(*pair) for pair in pairs()), *(REGISTRY[name]() for name in strategies.HEADS if name != "Head")]


@pytest.mark.parametrize("cls", LAYERS["torch"], ids=lambda cls: cls.__name__)
def test_torchs_own_functions_are_right(cls: type[Layer]) -> None:
    """Every setting that brings out what is special about a layer, in every precision."""
    for seed, (layer, *_) in enumerate(cls.examples()):
        report = bp.check(own_function("torch", layer), layer, framework="torch", cases=6, seed=seed, precisions=PRECISIONS)
        assert report.ok, str(report)
        assert report.compared


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_torchs_own_losses_are_right(head: Any) -> None:
    """Every head that networks are drawn with, in every precision."""
    report = bp.check(own_function("torch", head), head, framework="torch", cases=6, precisions=PRECISIONS)
    assert report.ok, str(report)
    assert report.compared


@pytest.mark.parametrize("cls", LAYERS["jax"], ids=lambda cls: cls.__name__)
def test_jaxs_own_functions_are_right(cls: type[Layer]) -> None:
    """One setting of each layer, since every shape and condition is compiled."""
    layer, *_ = next(cls.examples())
    report = bp.check(own_function("jax", layer), layer, framework="jax", cases=2, precisions="float32")
    assert report.ok, str(report)
    assert report.compared


@pytest.mark.parametrize(("layer", "precision", "tensor"), [(bp.MultiheadAttention(4, 2), "float64", "double backward in_proj_weight"),
                                                           (bp.ScaledDotProductAttention(is_causal=True), "float64", "jvp query"),
                                                           (bp.LogSoftmax(), "bfloat16", "dx")], ids=str)
def test_what_is_known_of_jax_is_known_of_its_functions(layer: Layer, precision: str, tensor: str) -> None:
    """A derivative of attention along a direction is known by what its gradient is known by, held in float32 along that direction."""
    report = bp.check(own_function("jax", layer), layer, framework="jax", cases=4, precisions=precision)
    assert report.ok, str(report)
    assert tensor in {finding.tensor for finding in report.known}


def test_what_is_known_of_an_output_is_known_of_its_derivative() -> None:
    """Of a query that sees no key jax's attention has the mean of all values: double backward by dy is that of the direction."""
    layer = bp.ScaledDotProductAttention(is_causal=True, mask="boolean")
    report = bp.check(own_function("jax", layer), layer, framework="jax", cases=4, seed=5, precisions=("float64", "float32"))
    assert report.ok, str(report)
    assert "double backward dy" in {finding.tensor for finding in report.known}
