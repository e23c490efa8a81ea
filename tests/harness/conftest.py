"""Reports of small real runs, made once a session; each test gets data of its own to change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from backproof.adapters import load
from backproof.reference.case import Case
from backproof.reference.trace import LayerTrace, Trace
from backproof.report import Report
from backproof.run import verify

LAYERS = ("Linear", "LeakyReLU", "Softsign")


class Altered:
    """The torch adapter with a change in every layer."""

    name = "torch"

    def __init__(self, change: Callable[[LayerTrace], LayerTrace]) -> None:
        self.change = change

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(map(self.change, trace.layers)))


def halved(step: LayerTrace) -> LayerTrace:
    """Halve the gradient of a weight."""
    return replace(step, d_params={**step.d_params, "weight": step.d_params["weight"] / 2}) if "weight" in step.d_params else step


def doubled(step: LayerTrace) -> LayerTrace:
    """Double the gradient of a weight."""
    return replace(step, d_params={**step.d_params, "weight": step.d_params["weight"] * 2}) if "weight" in step.d_params else step


def report(change: Callable[[LayerTrace], LayerTrace] | None = None, **options: Any) -> Report:
    """Run a few cases on torch, with a change."""
    adapter = Altered(change) if change else "torch"
    return verify(adapters=[adapter], reports=None, **{"cases": 16, "layers": LAYERS, **options})


@pytest.fixture(scope="session")
def runs() -> dict[str, Report]:
    return {"right": report(), "halved": report(halved), "doubled": report(doubled), "other seed": report(seed=1)}


@pytest.fixture
def right(runs: dict[str, Report]) -> dict[str, Any]:
    """The data of a run without a finding."""
    return copy.deepcopy(runs["right"].describe())


@pytest.fixture
def wrong(runs: dict[str, Report]) -> dict[str, Any]:
    """The data of the same cases with every gradient of a weight halved."""
    return copy.deepcopy(runs["halved"].describe())


@pytest.fixture
def other_wrong(runs: dict[str, Report]) -> dict[str, Any]:
    """The data of the same cases with every gradient of a weight doubled."""
    return copy.deepcopy(runs["doubled"].describe())


@pytest.fixture
def other_seed(runs: dict[str, Report]) -> dict[str, Any]:
    """The data of other cases without a finding."""
    return copy.deepcopy(runs["other seed"].describe())
