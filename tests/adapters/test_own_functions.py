"""The frameworks' own functions as candidates: whatever layout, upstream gradient or transform a check draws, nothing of them is blamed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import backproof as bp
import pytest
from backproof.reference.layer import Layer

LAYERS = {framework: sorted(import_module(f"backproof.adapters.{framework}").LOWERINGS, key=lambda layer: layer.__name__)
          for framework in ("torch", "jax")}  # fmt: skip


def own_function(framework: str, layer: Layer) -> Any:
    """Return the framework's own function for a layer, as a candidate is called."""
    lowering = import_module(f"backproof.adapters.{framework}").LOWERINGS[type(layer)]

    def candidate(*inputs: Any, **params: Any) -> Any:
        return lowering(layer, params, *inputs)

    return candidate


@pytest.mark.parametrize("cls", LAYERS["torch"], ids=lambda cls: cls.__name__)
def test_torchs_own_functions_are_right(cls: type[Layer]) -> None:
    """Every setting that brings out what is special about a layer, in both precisions."""
    for seed, (layer, *_) in enumerate(cls.examples()):
        report = bp.check(own_function("torch", layer), layer, framework="torch", cases=6, seed=seed)
        assert report.ok, str(report)
        assert report.compared


@pytest.mark.parametrize("cls", LAYERS["jax"], ids=lambda cls: cls.__name__)
def test_jaxs_own_functions_are_right(cls: type[Layer]) -> None:
    """One setting of each layer, since every shape and condition is compiled."""
    layer, *_ = next(cls.examples())
    report = bp.check(own_function("jax", layer), layer, framework="jax", cases=2, precisions="float32")
    assert report.ok, str(report)
    assert report.compared
