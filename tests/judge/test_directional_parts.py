"""The parts of forward mode and double backward that need no framework: directions, names, and what has no derivative."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters.calls import DOUBLE, JVP, Answer, Call
from backproof.draw.probe import Condition, Probe
from backproof.judge.directional import alike, certify_directional, directions, expected_along, first_order, place_of, tangents_named
from backproof.reference.rounding import precision_named
from backproof.reference.trace import LayerTrace

FLOAT64 = precision_named("float64")


def along(layer: Any, shapes: Any, mode: str, regime: str = "normal") -> tuple[LayerTrace, Call]:
    call = Probe(layer, shapes, 3, regime=regime, condition=Condition(mode=mode)).call()
    return LayerTrace("candidate", layer, call.inputs, np.zeros(1), (), call.dys, call.params, {}), call


def test_directions_are_all_over_a_moderate_range() -> None:
    """Of either sign, 2^-3 to 2^3 times a number up to 5/4, each entry drawn for itself."""
    found = directions(np.random.default_rng(0), {0: (600,), "weight": (2, 3)}, {"weight": (slice(None), 1)})
    fraction, exponent = np.frexp(np.abs(found[0]))
    assert set(exponent - 1) == set(range(-3, 4))
    assert np.all((fraction * 2 >= 1) & (fraction * 2 <= 1.25))
    assert len(set(fraction)) == 600
    assert {(sign, e) for sign, e in zip(np.sign(found[0]), exponent, strict=True)} == {(s, e) for s in (-1, 1) for e in range(-2, 5)}
    assert (found["weight"] == 0).tolist() == [[False, True, False]] * 2


LSTM, GRU = (bp.LSTM(2, states=True), ((2, 3), (1, 2), (1, 2))), (bp.GRU(2, states=True), ((2, 3), (1, 2)))


@pytest.mark.parametrize(("own", "mode", "tensor", "place", "gradient"), [
    (LSTM, JVP, "jvp x of c_n", (0, 2), "dx"), (LSTM, JVP, "jvp weight_ih_l0 of h_n", ("weight_ih_l0", 1), "dweight_ih_l0"),
    (LSTM, DOUBLE, "double backward h_0", (1, 0), "dh_0"), (LSTM, DOUBLE, "double backward dc_n", (None, 2), "dx"),
    (GRU, JVP, "jvp x of output", (0, 0), "dx"), (GRU, JVP, "jvp h_0 of h_n", (1, 1), "dh_0"),
])
def test_names_of_several_outputs_lead_back(own: Any, mode: str, tensor: str, place: Any, gradient: str) -> None:
    """A tensor is of one array and, in forward mode, of one output; its gradient is that of the array."""
    layer, shapes = own
    step, call = along(layer, shapes, mode)
    assert tensor in expected_along(step, call, FLOAT64)
    assert place_of(layer, call, tensor) == place
    assert first_order(layer, tensor) == gradient
    of_output = mode == JVP or place[0] is None
    assert alike(layer, tensor) == ((gradient, *layer.output_names) if of_output else (gradient,))
    assert list(tangents_named(layer, call)) == [*layer.input_names, *step.params]


@dataclass(frozen=True)
class Still(bp.Layer):
    """A layer of a user that returns the same whatever it is given."""

    def forward(self, params: Any, x: Any) -> Any:
        return np.full(x.shape, 3.0), lambda dy: (dy * 0, {})


def test_an_output_that_depends_on_nothing_has_the_derivative_0() -> None:
    """Exactly, in both modes."""
    for mode, tensor in ((JVP, "jvp x"), (DOUBLE, "double backward dy")):
        ball = expected_along(*along(Still(), ((4,),), mode), FLOAT64)[tensor]
        assert ball.value.tolist() == np.zeros((3, 4)).tolist()
        assert ball.exact


@dataclass(frozen=True)
class Larger(bp.Layer):
    """The larger of two arrays."""

    input_names = ("a", "b")

    def output_shape(self, a: Any, b: Any) -> Any:
        return a

    def forward(self, params: Any, a: Any, b: Any) -> Any:
        return np.where(a > b, a, b), lambda dy: ((np.where(a > b, dy, 0), np.where(a > b, 0, dy)), {})


def test_kinks_of_every_tensor_are_counted() -> None:
    """What has no derivative is left out of the certificates and counted over all of them; the rest is judged."""
    step, call = along(Larger(), ((4,), (4,)), JVP)
    a = step.inputs[0]
    step = replace(step, inputs=(a, np.where(np.arange(12).reshape(3, 4) < 5, a, a - 1)))
    balls = expected_along(step, call, FLOAT64)
    right = {place_of(step.layer, call, name): ball.value for name, ball in balls.items()}
    answer = Answer(call.inputs, call.params, call.dys, (), (None, None), {}, derivatives=right)
    found, left_out = certify_directional(step, call, answer, FLOAT64)
    assert left_out == 10
    assert [(one.tensor, one.inconclusive, one.failed) for one in found] == [("jvp a", 0, False), ("jvp b", 0, False)]
    wrong = replace(answer, derivatives={place: d + 1 for place, d in right.items()})
    assert [one.outside for one in certify_directional(step, call, wrong, FLOAT64)[0]] == [7, 7]
