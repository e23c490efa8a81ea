"""The generated pages are as new as the registry: every layer and head has its row, signature and derivation in docs/layers.md."""

from __future__ import annotations

import doctest
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from backproof.reference.layer import Layer

ROOT = Path(__file__).parents[1]


def generator(name: str) -> Any:
    """Return a module of benchmarks/, which import one another by their bare names."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return import_module(name)
    finally:
        sys.path.pop(0)


layers = generator("layers")
PAGE = layers.TARGET.read_text(encoding="utf-8")
ENTRIES = [(family, cls) for family, classes in layers.entries().items() for cls in classes]


@pytest.mark.parametrize(("family", "cls"), ENTRIES, ids=[cls.__name__ for _, cls in ENTRIES])
def test_every_layer_and_head_has_its_row(family: str, cls: type) -> None:
    """Its row with its kinks, and its section with the options and the derivation that it has now."""
    row = f"| [{cls.__name__}](#{cls.__name__.lower()}) | {layers.cell(layers.kinks(cls))} |"
    section = f"### {cls.__name__}\n\n`{layers.signature(cls)}`\n\n```text\n{layers.derivation(cls)}\n```\n"
    for text in (row, section):
        assert text in PAGE, f"docs/layers.md is stale: run {layers.COMMAND} {family}"


def test_no_row_outlives_its_layer() -> None:
    """The page has no section of a layer that is gone, and none that was not proved."""
    sections = [line.removeprefix("### ") for line in PAGE.splitlines() if line.startswith("### ")]
    assert sorted(sections) == sorted(cls.__name__ for _, cls in ENTRIES), f"docs/layers.md is stale: run {layers.COMMAND}"
    assert "failed**" not in PAGE


def test_the_conventions_are_measured_on_what_the_layers_are() -> None:
    """Both pages name the same versions."""
    told = {page: next(line for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines() if "Measured on" in line).split(
        "Measured on ")[1].split(", on the CPU")[0] for page in ("layers.md", "conventions.md")}
    assert told["layers.md"] == told["conventions.md"], "stale: run python benchmarks/conventions.py"


def test_the_readme_counts_what_there_is() -> None:
    """The numbers of layers and heads are those of the registry."""
    layers = sum(issubclass(cls, Layer) for _, cls in ENTRIES)
    counts = f"{layers} layers and containers and {len(ENTRIES) - layers} heads"
    assert counts in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["check.checking", "gradients", "proof.proving", "verify.run"])
def test_the_examples_of_entry_points_run(name: str) -> None:
    """What a docstring shows is what comes of it."""
    failed, tried = doctest.testmod(import_module(f"backproof.{name}"))
    assert tried > 1
    assert failed == 0
