"""Shrinking: a failing case becomes the smallest one that fails the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.draw.shrinking import shrink
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, Head, MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.trace import LayerTrace, Trace
from backproof.report.finding import Finding
from backproof.verify.run import Run

DEEP = (Linear(32), bp.Tanh(), Linear(16), bp.SwiGLU(), bp.PReLU(8), Linear(13), bp.Softmax(), Linear(5))
LARGE = Case(Network((32,), DEEP, MSELoss()), 123456, "normal", 33)


class Broken:
    """Torch with a mistake in one tensor of every layer of one class."""

    name = "broken"

    def __init__(self, layer: str, tensor: str, mistake: Callable[[np.ndarray], np.ndarray]) -> None:
        self.layer, self.tensor, self.mistake = layer, tensor, mistake

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(self.changed(step) for step in trace.layers))

    def changed(self, step: LayerTrace) -> LayerTrace:
        if type(step.layer).__name__ != self.layer:
            return step
        if self.tensor == "output":
            return replace(step, output=self.mistake(step.output))
        if self.tensor in {"dx", "dz"}:
            return replace(step, d_inputs=(self.mistake(step.d_inputs[0]),))
        wrong = self.tensor[1:]
        return replace(step, d_params={name: self.mistake(d) if name == wrong else d for name, d in step.d_params.items()})


def doubled(array: np.ndarray) -> np.ndarray:
    return array * array.dtype.type(2)


def found(adapter: Any, case: Case) -> Finding:
    """Run a case and return the one finding there is."""
    run = Run([adapter], 1, 0, ("float64",), None, None)
    run.examine(case)
    run.shrink()
    (finding,) = run.report().findings
    return finding


@pytest.mark.parametrize(("layer", "tensor", "size"), [("Linear", "dweight", 1), ("Linear", "dbias", 1), ("Linear", "output", 1),
                                                       ("Tanh", "dx", 1), ("PReLU", "dweight", 1), ("PReLU", "dx", 1),
                                                       ("SwiGLU", "dx", 2)])
def test_a_mistake_shrinks_to_its_layer(layer: str, tensor: str, size: int) -> None:
    """A mistake in one class of eight layers of width 32 is shown on that layer alone, at its smallest size and batch 1."""
    finding = found(Broken(layer, tensor, doubled), LARGE)
    assert (finding.layer, finding.tensor, finding.verdict, finding.path) == (layer, tensor, "wrong", "layers.0")
    assert finding.case is not None
    assert [type(item).__name__ for item in finding.case.network.layers] == [layer]
    assert finding.case.network.input_shape == (size,)
    assert finding.case.batch <= (3 if (layer, tensor) == ("PReLU", "dweight") else 1)  # which takes an input below 0 to show
    assert finding.case.regime == "normal"
    assert finding.case.seed in range(4)


def test_a_mistake_in_softmax_keeps_what_it_takes_to_show() -> None:
    """A softmax of one entry has no gradient, so its mistake is shown on two entries."""
    finding = found(Broken("Softmax", "dx", doubled), LARGE)
    assert finding.case is not None
    assert [type(item).__name__ for item in finding.case.network.layers] == ["Softmax"]
    assert finding.case.network.input_shape == (2,)
    assert finding.case.batch == 1


def test_a_mistake_in_the_head_keeps_few_layers() -> None:
    """A mistake in the head is shown on a network of one layer and the head that has it."""
    case = replace(LARGE, network=Network((32,), DEEP, CrossEntropyLoss()))
    finding = found(Broken("CrossEntropyLoss", "dz", doubled), case)
    assert finding.case is not None
    assert finding.path == "head"
    assert finding.case.network.head == CrossEntropyLoss()
    assert len(finding.case.network.layers) <= 1


def test_the_shrunk_case_shows_the_finding_again() -> None:
    """The case of a finding, read back from its JSON, shows the same finding with the same numbers."""
    adapter = Broken("PReLU", "dweight", doubled)
    first = found(adapter, LARGE)
    assert first.case is not None
    again = found(adapter, Case.from_json(first.case.to_json()))
    assert (again.key, again.actual, again.expected, again.excess, again.index) == (
        first.key, first.actual, first.expected, first.excess, first.index)


def first_zeroed(array: np.ndarray) -> np.ndarray:
    wrong = array.copy()
    wrong[(0,) * wrong.ndim] = 0
    return wrong


@pytest.mark.parametrize(("layer", "tensor", "mistake", "code"), [
    ("Linear", "dweight", first_zeroed, "single-entry"),
    ("Linear", "dweight", lambda array: array * float(np.float32(1 / 6)) * 6, "single-precision-constant"),
    ("Linear", "dbias", np.zeros_like, "zero"),
    ("Linear", "dweight", lambda array: array * 1.5, "factor"),
    ("Tanh", "dx", lambda array: np.roll(array, -1, axis=0), "rows-permuted"),
])
def test_shrinking_keeps_the_cause(layer: str, tensor: str, mistake: Callable[[np.ndarray], np.ndarray], code: str) -> None:
    """The diagnosis of a finding is the one of the case that was met: shrinking makes no single wrong entry a whole tensor."""
    assert found(Broken(layer, tensor, mistake), LARGE).diagnosis.code == code


def test_every_smaller_case_is_tried_until_none_shows() -> None:
    """With a rule of its own on sizes the result is a case of which no step further shows."""
    def shows(case: Case) -> bool:
        return case.batch >= 3 and case.network.input_shape[0] >= 2 and any(isinstance(x, bp.Tanh) for x in case.network.layers)

    smallest = shrink(LARGE, shows)
    assert shows(smallest)
    assert smallest.network.layers == (bp.Tanh(),)
    assert (smallest.batch, smallest.network.input_shape) == (3, (2,))


def test_what_does_not_shrink_stays_as_it_is() -> None:
    """Where nothing smaller shows, the case comes back unchanged."""
    assert shrink(LARGE, lambda case: case == LARGE) is LARGE


def test_a_regime_that_matters_is_kept() -> None:
    """The regime is simplified to `normal` only where the finding still shows."""
    case = replace(LARGE, regime="zeros")
    assert shrink(case, lambda smaller: smaller.regime == "zeros").regime == "zeros"
    assert shrink(case, lambda smaller: True).regime == "normal"


def test_everything_shrinks_to_the_smallest_network() -> None:
    """Where everything shows, one example of one number through at most one layer is left, with the head it had."""
    smallest = shrink(LARGE, lambda case: True)
    assert (smallest.batch, smallest.seed, smallest.network.input_shape) == (1, 0, (1,))
    assert len(smallest.network.layers) <= 1
    assert smallest.network.head == MSELoss()


def test_the_bias_is_dropped_where_it_does_not_matter() -> None:
    """Options are simplified too: a bias goes where the finding shows without it."""
    case = Case(Network((4,), (Linear(4),), MSELoss()), 0)
    kept = shrink(case, lambda smaller: len(smaller.network.layers) == 1)
    assert kept.network.layers == (Linear(1, bias=False),)
    needed = shrink(case, lambda smaller: smaller.network.layers[:1] != () and smaller.network.layers[0].bias)
    assert needed.network.layers == (Linear(1, bias=True),)


@pytest.mark.parametrize("limit", [{"attempts": 7}, {"attempts": 0}])
def test_the_number_of_attempts_is_bounded(limit: dict[str, int]) -> None:
    """No more cases are tried than `attempts` says."""
    tried: list[Case] = []

    def shows(case: Case) -> bool:
        tried.append(case)
        return False

    assert shrink(LARGE, shows, **limit) is LARGE
    assert len(tried) == limit["attempts"]


def test_the_time_is_bounded() -> None:
    """When the time is used up the smallest case so far comes back."""
    tried: list[Case] = []

    def shows(case: Case) -> bool:
        tried.append(case)
        return True

    assert shrink(LARGE, shows, seconds=0.0) is LARGE
    assert tried == []


def test_smaller_networks_fit_their_shapes() -> None:
    """Every case that is tried is a case: gated units keep an even axis, channels their number, heads an axis."""
    tried: list[Case] = []

    def shows(case: Case) -> bool:
        tried.append(case)
        return len(tried) % 3 == 0

    shrink(LARGE, shows, attempts=200)
    assert len(tried) > 20
    for case in tried:
        assert case.network.shapes
        assert Case.from_json(case.to_json()) == case
        assert isinstance(case.network.head, Head)
