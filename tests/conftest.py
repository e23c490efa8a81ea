"""Reports of small real runs, made once a session; each test gets data of its own to change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge.rules import expected
from backproof.reference.case import Case
from backproof.reference.rounding import Arithmetic, precision_named
from backproof.reference.trace import LayerTrace, Trace
from backproof.report.report import Report
from backproof.verify.run import verify

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
    return verify(adapters=[adapter], reports=None, **{"cases": 32, "layers": LAYERS, **options})


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


def nearer(step: LayerTrace) -> LayerTrace:
    """Move what a tanh returns to six tenths of its bound: no finding, and not what a framework does by chance."""
    if type(step.layer).__name__ != "Tanh":
        return step
    output = np.asarray(step.output)
    ball = expected(step, Arithmetic(precision_named(output.dtype.name)))["output"]
    return replace(step, output=(ball.value + 0.6 * ball.radius()).astype(output.dtype))


@pytest.fixture(scope="session")
def near() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Data of three runs: of tanh, of the same cases with its output nearer to the bound, of other cases."""
    one, two, three = (report(change, layers=("Linear", "Tanh"), seed=seed) for change, seed in ((None, 0), (nearer, 0), (None, 1)))
    assert two.ok
    return one.describe(), two.describe(), three.describe()
