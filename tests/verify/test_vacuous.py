"""Where nothing arrives at a layer nothing is learnt of its gradient: it is counted apart, and reaches nothing."""

from __future__ import annotations

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.draw.strategies import heads, layers
from backproof.draw.structures import structures
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.network import Network
from backproof.verify.examining import NOTHING_ARRIVES, Examiner
from hypothesis import given, settings

DEAD = Case(Network((3,), (bp.GELU(), bp.Linear(1), bp.Softmax(1)), MSELoss()), 0)
LIVE = Case(Network((3,), (bp.GELU(), bp.Linear(2), bp.Softmax(1)), MSELoss()), 0)


def test_zero_equals_zero_is_counted_apart() -> None:
    """Below a softmax of one output every gradient is 0: outputs are compared, gradients are not, and the layers are not reached."""
    dead, live = (Examiner(["torch"], ["float64"], 0).structure(0, [case]) for case in (DEAD, LIVE))
    compared = [{(layer, tensor): tally.compared for (_, _, layer, tensor), tally in ledger.tallies.items()} for ledger in (dead, live)]
    assert {("GELU", "dx"), ("Linear", "dweight"), ("Linear", "dbias")} & compared[0].keys() == set()
    assert {("GELU", "dx"), ("Linear", "dweight"), ("Linear", "dbias"), ("GELU", "output")} <= compared[1].keys()
    assert compared[0]["GELU", "output"] == compared[1]["GELU", "output"]
    lost = dead.skipped[NOTHING_ARRIVES]
    assert lost >= sum(n for (layer, tensor), n in compared[1].items() if (layer, tensor) == ("GELU", "dx"))
    assert NOTHING_ARRIVES not in live.skipped
    assert "GELU" not in dead.coverage["layers"]
    assert not any(option.startswith("GELU(") for option in dead.coverage["options"])
    assert "GELU" in live.coverage["layers"]


def test_a_gradient_where_there_should_be_none_is_still_found() -> None:
    """A layer that hands on something of nothing is wrong, and counts."""
    class Torch:
        name = "torch"

        def run(self, case: Case) -> object:
            trace = load("torch").run(case)
            trace.layers[0].d_inputs[0][:] = 1.0
            return trace

    (finding,) = Examiner([Torch()], ["float64"], 0).structure(0, [DEAD]).found.values()
    assert (finding.layer, finding.tensor, finding.verdict) == ("GELU", "dx", "wrong")


@settings(max_examples=300, database=None, deadline=None)
@given(heads((1,)))
def test_no_head_of_a_single_output_shares_it_out(head: bp.Head) -> None:
    """A softmax of one output is 1, and the cosine of two numbers is a sign: of these nothing comes back."""
    assert "softmax" not in head.output
    assert head.loss not in {"cosine", "cosine_embedding"}


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Normalize"])
def test_a_layer_that_shares_out_has_several_to_share_among(name: str) -> None:
    """They are drawn along an axis of more than one entry, from either end."""
    seen = set()

    @settings(max_examples=100, database=None, deadline=None)
    @given(layers((1, 3), [name]))
    def drawn(layer: bp.Softmax) -> None:
        seen.add(layer.dim)

    drawn()
    assert seen == {2, -1}


@pytest.mark.filterwarnings("ignore")
def test_few_layer_runs_are_dead() -> None:
    """What arrives is all zero in fewer than one in eight layer runs on torch, and in one in twenty on normal numbers."""
    dead: dict[str, list[bool]] = {}
    for cases in structures(320, 3):
        for case in cases:
            steps = load("torch").run(case).layers
            dead.setdefault(case.regime, []).extend(not any(dy is not None and np.any(dy) for dy in step.d_outputs) for step in steps)
    assert np.mean([one for every in dead.values() for one in every]) < 0.125
    assert np.mean(dead["normal"]) < 0.05
