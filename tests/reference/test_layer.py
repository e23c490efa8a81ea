"""A layer from a file or a text: options of the types that its fields declare, and nothing else."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import backproof as bp
import pytest
from backproof.reference import library
from backproof.reference.layer import REGISTRY, SCALARS, Layer, build, describe, parse

LAYERS = [layer for cls in REGISTRY.values() if issubclass(cls, Layer) and cls.__module__.startswith(library.__package__ or "")
          for layer, *_ in cls.examples()]
STRANGE: dict[str, tuple[Any, ...]] = {"int": (2.5, 2.0, True), "float": (True,), "bool": (1, 0.0)}


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_an_option_of_another_type_is_refused(layer: Layer) -> None:
    """A fraction or a truth value for a whole number would come back as an array's error, far from the layer."""
    described = describe(layer)
    for field in fields(layer):
        for value in STRANGE.get(str(field.type), ()):
            with pytest.raises(bp.UsageError, match=rf"{described['type']}: .*{value!r}"):
                build(described | {field.name: value})


@pytest.mark.parametrize(("text", "said"), [
    ("Linear(2.5)", "^Linear: out_features takes int: got 2.5$"),
    ("LayerNorm(eps=True)", "^LayerNorm: eps takes float: got True$"),
    ("Linear(3, bias=1)", "^Linear: bias takes bool: got 1$"),
])
def test_a_text_is_held_to_the_same_types(text: str, said: str) -> None:
    with pytest.raises(bp.UsageError, match=said):
        parse(text)


def test_a_whole_number_is_a_float() -> None:
    assert parse("LayerNorm(eps=1)") == bp.LayerNorm(eps=1)
    assert set(STRANGE) < set(SCALARS)
