"""Recurrent layers judged one time step at a time, each from the implementation's own state: long sequences stay conclusive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backproof.judge.certify import certify_layer
from backproof.judge.neighbourhood import FUSION_REACH
from backproof.judge.rules import expected, expected_plain
from backproof.reference.layer import REGISTRY
from backproof.reference.recurrent import GRU, LSTM, RNN, Recurrent
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

LAYERS = [RNN(16), GRU(16), GRU(16, reset_after=False), LSTM(16), LSTM(16, bidirectional=True)]
EXAMPLES = [example for cls in REGISTRY.values() if issubclass(cls, Recurrent) for example in cls.examples()]
every_layer = pytest.mark.parametrize("layer", LAYERS, ids=str)


def one(items: Any) -> Any:
    return tuple(items) if len(items) > 1 else items[0]


def step_of(layer: Any, *shapes: tuple[int, ...], precision: str = "float32", batch: int = 2, seed: int = 0) -> LayerTrace:
    """Return a step whose results are those of float64, stored."""
    rng, dtype = np.random.default_rng(seed), PRECISIONS[precision].dtype
    params = {name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(dtype) for name, shape in layer.parameters(*shapes).items()}
    inputs = tuple(rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes)
    found = layer.output_shape(*shapes)
    upstream = [rng.standard_normal((batch, *shape)).astype(dtype) for shape in (found if layer.states else (found,))]
    return answered(LayerTrace("it", layer, inputs, None, (), one(upstream), params, {}), precision)


def answered(step: LayerTrace, precision: str) -> LayerTrace:
    """Return a step with the results of float64, stored."""
    found = {name: np.asarray(a).astype(PRECISIONS[precision].dtype) for name, a in expected_plain(step).items()}
    outputs = [found.pop(name) for name in step.layer.output_names]
    d_inputs = tuple(found.pop(f"d{name}") for name in step.layer.input_names)
    return replace(step, output=one(outputs), d_inputs=d_inputs, d_params={name[1:]: a for name, a in found.items()})


def verdicts(step: LayerTrace, precision: str = "float32") -> dict[str, str]:
    return {c.tensor: c.verdict for c in certify_layer(step, PRECISIONS[precision])}


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("example", EXAMPLES, ids=[f"{layer}" for layer, *_ in EXAMPLES])
def test_the_steps_together_are_the_whole(example: Any, precision: str) -> None:
    """Beside the right outputs the rule gives what it gives by itself, with bounds that hold it and are no larger."""
    layer, *shapes = example
    step, arithmetic = step_of(layer, *shapes, precision=precision), Arithmetic(PRECISIONS[precision])
    whole = expected(step, arithmetic)
    for reach in (0, 1, 2):
        for name, ball in expected(step, arithmetic, reach=reach).items():
            assert (np.abs(ball.value - whole[name].value) <= ball.bounds() + whole[name].bounds()).all(), name
            if layer.num_layers == 1 and not reach:
                assert (ball.bounds() <= whole[name].bounds() * (1 + 2.0**-6)).all(), name
    assert set(verdicts(step, precision).values()) == {"agrees"}


@every_layer
def test_long_sequences_stay_conclusive(layer: Any) -> None:
    """Of 60 time steps the whole rule's bound says nothing of the last outputs in float32; step by step every entry is judged."""
    step = step_of(layer, (60, 8))
    whole = expected(step, Arithmetic(PRECISIONS["float32"]))["output"]
    assert (whole.radius() > np.max(np.abs(whole.value))).any()
    output = next(c for c in certify_layer(step, PRECISIONS["float32"]) if c.tensor == "output")
    assert (output.verdict, output.inconclusive, output.compared) == ("agrees", 0, step.outputs[0].size)


@every_layer
def test_a_wrong_step_is_blamed_where_it_is(layer: Any) -> None:
    """An entry that one step gets wrong by 1e-4 is the worst of its tensor, and no gradient is blamed for it."""
    right = step_of(layer, (60, 8))
    output = right.outputs[0].copy()
    place = (1, 40, 3)  # of the forward direction, whose next step reads it
    output[place] += 1e-4
    found = {c.tensor: c for c in certify_layer(replace(right, output=output), PRECISIONS["float32"])}
    assert (found["output"].verdict, found["output"].index) == ("outside", place)
    assert {c.index[1] for c in [found["output"]]} == {40}
    assert not [name for name, c in found.items() if c.failed and name != "output"]


@pytest.mark.parametrize("layer", LAYERS[:-1], ids=str)  # the last step of a second direction is its first
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_wrong_gradient_of_a_sequence_is_caught(layer: Any, precision: str) -> None:
    """One part in a hundred of the gradient at the last of 12 steps is outside, where the bounds are the tightest."""
    right = step_of(layer, (12, 8), precision=precision)
    dx = right.d_inputs[0].copy()
    dx[:, -1] *= dx.dtype.type(1.01)
    assert verdicts(replace(right, d_inputs=(dx,)), precision)["dx"] == "outside"


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("layer", [RNN(1), RNN(3), GRU(1), GRU(3), LSTM(1), LSTM(3)], ids=str)
def test_states_may_be_kept_in_more_digits(layer: Any, precision: str) -> None:
    """An implementation that goes on from states of float64 and stores them is right, in every format."""
    for seed in range(20):
        step = step_of(layer, (7, 2), precision=precision, seed=seed)
        assert not [name for name, verdict in verdicts(step, precision).items() if verdict not in {"agrees", "inconclusive"}]


def cancelling(recorded: float) -> LayerTrace:
    """Return two steps of a unit whose state meets a weight of 64 and an input of -64 times it; the first is recorded as a factor of it."""
    layer, f = RNN(1, bias=False), np.float32
    h = f(np.tanh(0.5))
    x = np.array([[[0.5], [-64 * h + 2.0**-10]]], f)
    params = {"weight_ih_l0": f([[1.0]]), "weight_hh_l0": f([[64.0]])}
    step = answered(LayerTrace("it", layer, (x,), None, (), np.ones((1, 2, 1), f), params, {}), "float32")
    output = step.outputs[0].copy()
    output[0, 0] = h * f(recorded)
    return replace(step, output=output)


def test_a_state_may_be_rounded_otherwise_than_it_is_recorded() -> None:
    """A compiler may compute a state again for the next step: 6 roundings in it are 64 times as many there, and are let pass."""
    step, arithmetic = cancelling(1 + 6 * 2.0**-24), Arithmetic(PRECISIONS["float32"])
    output = step.outputs[0].astype(float)
    apart, again = (expected(step, arithmetic, reach=reach)["output"] for reach in (0, 1))
    assert (np.abs(output - apart.value) > apart.radius())[0, 1], "the next step does not follow from what is recorded"
    assert (np.abs(output - again.value) <= again.radius()).all()
    assert set(verdicts(step).values()) == {"agrees"}
    assert verdicts(cancelling(1 + 2.0**-12))["output"] == "outside"


@pytest.mark.parametrize("output", [None, np.zeros((2, 5, 15), np.float32), np.zeros((2, 5, 16))])
def test_outputs_that_cannot_be_gone_on_from(output: Any) -> None:
    """An output that is missing, of another shape or type is an error by itself; the gradients are judged by the whole rule."""
    found = verdicts(replace(step_of(GRU(16), (5, 8)), output=output))
    assert found.pop("output") == "error"
    assert set(found.values()) == {"agrees"}


def test_a_state_that_is_no_number_is_blamed_alone() -> None:
    """NaN in one output is `nonfinite` there; nothing is said against gradients that are right."""
    step = step_of(LSTM(4), (5, 3))
    output = step.outputs[0].copy()
    output[0, 2, 1] = np.nan
    found = verdicts(replace(step, output=output))
    assert found.pop("output") == "nonfinite"
    assert set(found.values()) == {"agrees"}


def test_the_last_state_is_judged_by_its_own_step() -> None:
    """Nothing goes on from it: a rounding away from the last entry of the output it is as right as that one."""
    step = step_of(GRU(4, states=True), (5, 3), (1, 4))
    output, last = step.outputs
    assert np.array_equal(output[:, -1], last[:, 0])
    assert set(verdicts(replace(step, output=(output, np.nextafter(last, np.float32(2))))).values()) == {"agrees"}
    assert verdicts(replace(step, output=(output, last * np.float32(1.001))))["h_n"] == "outside"


def by_each(step: LayerTrace) -> list[dict[str, Rounded]]:
    """Return the balls of the steps apart, of the steps beside what they may have been otherwise, and of the whole rule."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    return [expected(step, arithmetic, reach=0), expected(step, arithmetic, reach=FUSION_REACH), expected(step, arithmetic)]


def upper(ball: Rounded) -> np.ndarray:
    return ball.value + ball.radius()


def test_what_the_whole_rule_excludes_is_outside_though_the_steps_may_explain_it() -> None:
    """A second output further off than both its roundings is wrong, however its state might have been rounded otherwise."""
    step = step_of(RNN(4), (3, 2))
    _, near, whole = (upper(balls["output"])[:, 1] for balls in by_each(step))
    row, unit = np.unravel_index(int(np.argmax(near - whole)), near.shape)
    output = step.outputs[0].copy()
    output[row, 1, unit] = (near + whole)[row, unit] / 2
    assert whole[row, unit] < output[row, 1, unit] < near[row, unit]
    found = next(c for c in certify_layer(replace(step, output=output), PRECISIONS["float32"]) if c.tensor == "output")
    assert (found.verdict, found.index) == ("outside", (row, 1, unit))


def test_a_gradient_that_the_steps_exclude_is_outside_though_the_whole_rule_allows_it() -> None:
    """Of a long sequence the whole rule allows much; what does not follow from the states that came back is wrong all the same."""
    step = step_of(RNN(16), (40, 8))
    _, near, whole = (balls["dweight_hh_l0"] for balls in by_each(step))
    place = np.unravel_index(int(np.argmax(whole.radius() / near.radius())), near.shape)
    wrong = step.d_params["weight_hh_l0"].copy()
    wrong[place] = near.value[place] + 4 * near.radius()[place]
    assert wrong[place] < upper(whole)[place]
    found = certify_layer(replace(step, d_params=step.d_params | {"weight_hh_l0": wrong}), PRECISIONS["float32"])
    assert [(c.tensor, c.verdict, c.index) for c in found if c.failed] == [("dweight_hh_l0", "outside", place)]
    assert [c for c in found if not c.failed] == [c for c in certify_layer(step, PRECISIONS["float32"]) if c.tensor != "dweight_hh_l0"]


def test_every_tensor_may_be_rounded_otherwise_at_once() -> None:
    """Where nothing follows from the steps apart, and all of it is explained by the two further bounds, all of it agrees."""
    step = step_of(RNN(4), (6, 2))

    def moved(name: str, right: np.ndarray) -> np.ndarray:
        apart, near, whole = (upper(balls[name]) for balls in by_each(step))
        gap = np.minimum(near, whole) - apart
        place, wrong = np.unravel_index(int(np.argmax(gap / np.spacing(np.abs(right)))), gap.shape), right.copy()
        wrong[place] = apart[place] + gap[place] / 2
        assert apart[place] < wrong[place] < apart[place] + gap[place], name
        return wrong

    step = replace(step, output=moved("output", step.outputs[0]))
    step = replace(step, d_inputs=(moved("dx", step.d_inputs[0]),), d_params={k: moved(f"d{k}", d) for k, d in step.d_params.items()})
    assert set(verdicts(step).values()) == {"agrees"}
