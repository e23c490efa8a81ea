"""The self-test of a run plants what is a mistake, where it belongs, the kinds used least first, and counts what becomes of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge import neighbourhood
from backproof.judge.certificate import Certificate
from backproof.judge.neighbourhood import Neighbourhood
from backproof.judge.rules import expected, tensors
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import Arithmetic, Rounded, precision_named
from backproof.reference.trace import LayerTrace, Trace, Wired
from backproof.report.results import SelfTest
from backproof.verify import planting as plant
from backproof.verify.planting import ANYWHERE, BY_CODE, CANCELLED, KINDS, OF_A_FAMILY, PART, REPEATED, ROUNDS, Planter, with_tensor

FLOAT64 = precision_named("float64")
HERE = Network((5,), (Linear(4), bp.Tanh(), Linear(4)), CrossEntropyLoss())
ZEROED = "entry-zeroed"


@cache
def traced(precision: str = "float64", network: Network = HERE) -> Trace:
    return load("torch").run(Case(network, 1, batch=3, precision=precision))


def step_of(layer: Any, x: Any, dy: Any, dtype: Any = np.float64, **params: Any) -> LayerTrace:
    """Return the step of one layer on these numbers, as the reference itself computes it."""
    arrays = {name: np.asarray(value, dtype) for name, value in params.items()}
    xs = tuple(np.asarray(a, dtype) for a in (x if isinstance(x, tuple) else (x,)))
    dys = tuple(np.asarray(a, dtype) for a in (dy if isinstance(dy, tuple) else (dy,)))
    y, backward = layer.forward(arrays, *xs)
    dx, d_params = backward(*dys)
    return LayerTrace("layers.0", layer, xs, y, dx if isinstance(dx, tuple) else (dx,), dys if len(dys) > 1 else dys[0], arrays, d_params)


@pytest.mark.parametrize(("step", "names"), [
    (traced().layers[0], ["output", "dx", "dweight", "dbias"]),
    (traced().layers[-1], ["output", "dz"]),
    (step_of(bp.Multiply(), ([[1.0, 2.0]], [[3.0, 4.0]]), [[1.0, 1.0]]), ["output", "da", "db"]),
    (step_of(bp.Fork(2), [[1.0, 2.0]], ([[1.0, 1.0]], [[3.0, 1.0]])), ["output_0", "output_1", "dx"]),
    (step_of(bp.PReLU(), [[1.0, -2.0]], [[1.0, 1.0]], weight=[0.5]), ["output", "dx", "dweight"]),
], ids=lambda item: type(item.layer).__name__ if isinstance(item, LayerTrace) else "")
def test_one_tensor_is_replaced_and_no_other(step: LayerTrace, names: list[str]) -> None:
    """Whatever a step produced can be replaced by name; everything else of it stays the very same."""
    before = tensors(step)
    assert list(before) == names
    assert tensors(with_tensor(step, "dw", 1)).keys() - before.keys() == {"dw"}  # what the layer does not have is a parameter's
    for name in names:
        value = before[name] * 7
        altered = with_tensor(step, name, value)
        after = tensors(altered)
        assert list(after) == names
        assert after[name] is value
        assert all(after[other] is before[other] for other in names if other != name)
        assert isinstance(altered.output, tuple) == isinstance(step.output, tuple)
        assert (altered.d_params is step.d_params) == (name[1:] not in step.d_params)
        assert (altered.inputs, altered.params, altered.d_output) == (step.inputs, step.params, step.d_output)


def test_mistakes_in_one_entry_are_in_the_largest() -> None:
    """The largest entry, of either sign, is zeroed or off by one part in ten thousand; the tensor itself is left alone."""
    right = np.array([[1.0, -8.0], [4.0, 0.0]])
    assert plant.ENTRIES[ZEROED](right).tolist() == [[1, 0], [4, 0]]
    assert plant.ENTRIES["entry-off-by-1e-4"](right).tolist() == [[1, -8 * (1 + PART)], [4, 0]]
    assert right[0, 1] == -8


# What is a mistake worth the name.


def made(monkeypatch: pytest.MonkeyPatch, wrong: Any, step: LayerTrace, tensor: str, precision: str = "float64") -> np.ndarray | None:
    """Return what the planter makes of a step, were `wrong` what a mistake makes of a tensor."""
    monkeypatch.setitem(plant.ENTRIES, ZEROED, wrong if callable(wrong) else lambda _: wrong)
    trace = Trace(step.inputs[0], (step,), (Wired(("x",), ("y",)),))
    return Planter(0, SelfTest())._wrong(ZEROED, plant._Rules(trace, precision_named(precision), fused=False), 0, tensor)


IDENTITY = step_of(bp.Identity(), [[0.0, -4.0]], [[1.0, 1.0]])


@pytest.mark.parametrize(("change", "counts"), [(PART * 4 / 2, True), (0.4999 * PART * 4, False), (1e300, True), (-1.0, True),
                                                (np.nan, False), (np.inf, False), (-np.inf, False)])
@pytest.mark.parametrize("at", [0, 1])
def test_a_mistake_changes_some_entry_by_half_a_ten_thousandth_of_the_largest(change: float, counts: bool, at: int,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Less is left alone, and so is what is not a number any more."""
    wrong = IDENTITY.output.copy()
    wrong[0, at] += change if at == 0 else change * 1.0001  # which covers that the sum is rounded
    found = made(monkeypatch, wrong, IDENTITY, "output")
    assert (found is not None) == counts
    if found is not None:
        assert np.array_equal(found, wrong)


def test_a_mistake_is_stored_in_the_tensors_own_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a mistake makes in float64 is rounded to the format, also where that is infinite; another shape or None is no mistake."""
    step = step_of(bp.Identity(), [[2.0, -4.0]], [[1.0, 1.0]], np.float32)
    found = made(monkeypatch, np.array([[2.1, -4.0]]), step, "output", "float32")
    assert found is not None
    assert found.dtype == np.float32
    assert made(monkeypatch, np.array([[1e300, -4.0]]), step, "output", "float32") is None
    assert made(monkeypatch, np.array([2.1, -4.0]), step, "output", "float32") is None
    assert made(monkeypatch, lambda _: None, step, "output", "float32") is None
    empty = step_of(bp.Identity(), np.zeros((0, 2)), np.zeros((0, 2)))
    assert made(monkeypatch, np.zeros((0, 2)), empty, "output") is None


@pytest.mark.parametrize(("size", "counts"), [(1.6e-154, True), (1.4e-154, False), (0.0, False), (np.inf, False), (np.nan, False)])
def test_what_is_close_to_underflow_is_left_alone(size: float, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor whose largest entry is no larger than the root of what may underflow, or not a number, takes no mistake."""
    assert 1.4e-154 < np.sqrt(FLOAT64.underflow) < 1.6e-154
    step = step_of(bp.Identity(), [[size, 0.0]], [[1.0, 1.0]])
    assert (made(monkeypatch, np.array([[-size, 0.0]]), step, "output") is not None) == counts


@pytest.mark.parametrize(("part", "counts"), [(1.0, False), (1.001, True)])
def test_what_cancellation_left_over_is_left_alone(part: float, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor a million times smaller than the numbers it is the difference of takes no mistake: rounding has no right sign."""
    step = step_of(Linear(1, bias=False), [[8.0, 0.5], [8.0, 0.25]], [[4.0], [-4.0]], weight=[[1.0, 1.0]])
    left = replace(step, d_params={"weight": np.array([[0.0, part * CANCELLED * 8 * 4]])})
    assert (made(monkeypatch, lambda right: -right, left, "dweight") is not None) == counts


@pytest.mark.parametrize(("slope", "counts"), [(0.5, False), (1.0, False), (0.0, False), (1 + 2.0**-21, False), (1.001, True),
                                               (-0.001, True)])
def test_another_subgradient_is_no_mistake(slope: float, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the kink of relu any slope from 0 to 1 is right, so only what lies outside is planted; beside it everything counts."""
    step = step_of(bp.ReLU(), [[0.0, 1.0]], [[1.0, 1.0]])  # its hull, [0, 1], is taken 2^-21 wider at either end
    assert (made(monkeypatch, np.array([[slope, 1.0]]), step, "dx") is not None) == counts
    assert made(monkeypatch, np.array([[slope, 0.5]]), step, "dx") is not None
    larger = step_of(bp.ReLU(), [[0.0, 1.0]], [[1.0, 4.0]])
    assert made(monkeypatch, np.array([[PART * 4 / 2, 4.0]]), larger, "dx") is None


def test_a_tie_paid_twice_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tied entries receive more than there is to hand on, what each receives may lie in the hull and is planted all the same."""
    step = step_of(bp.MaxPool1d(2), [[[3.0, 3.0]]], [[[1.0]]])
    assert made(monkeypatch, np.array([[[0.5, 0.5]]]), step, "dx") is None
    assert made(monkeypatch, np.array([[[1.0, 1.0]]]), step, "dx") is not None


def test_rounding_may_hide_what_a_format_cannot_tell() -> None:
    """A mistake hides where both tensors lie in one ball: twice its radius apart at most, in every entry; neighbours widen the ball."""
    trace = traced("bfloat16")
    precision, step = precision_named("bfloat16"), trace.layers[0]
    own = expected(step, Arithmetic(precision))["dx"].radius()
    wide = Neighbourhood(trace, precision).expected(0)["dx"].radius()
    right = step.d_inputs[0].astype(np.float64)
    assert (wide > own).any()
    for fused, radius in ((False, own), (True, wide)):
        rules = plant._Rules(trace, precision, fused=fused)
        for part, hidden in ((1.999, True), (2.001, False)):
            assert rules.hides(0, "dx", right + part * radius) == hidden
        assert rules.hides(0, "dx", right)
        once = right.copy()
        once[1, 2] -= 2.001 * radius[1, 2]
        assert not rules.hides(0, "dx", once)


def test_rules_are_run_once_for_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Balls and ties of a layer, by itself and with its neighbours, are found when they are asked for, and once."""
    runs = []
    for module in (plant, neighbourhood):
        monkeypatch.setattr(module, "expected", lambda step, *arguments: runs.append(step.path) or expected(step, *arguments))
    trace = traced("float32")
    wrong = -trace.layers[0].d_inputs[0]
    for fused, most in ((False, 1), (True, 20)):
        rules = plant._Rules(trace, precision_named("float32"), fused=fused)
        assert runs == []
        assert not rules.hides(0, "dx", wrong)
        assert 0 < len(runs) <= most
        found = [runs.clear(), rules.hides(0, "dx", wrong), *runs]
        assert found == [None, False]
        assert rules.judged(0, "dx", wrong).all()
        assert runs == [trace.layers[0].path] * fused
        runs.clear()


def test_what_is_known_exactly_is_within_rounding_where_it_is_the_same() -> None:
    """An entry without any rounding hides nothing but itself."""
    x = np.array([[1.0, -2.0]], precision_named("bfloat16").dtype)
    step = LayerTrace("layers.0", bp.ReLU(), (x,), np.maximum(x, 0), (x,), x, {}, {})
    rules = plant._Rules(Trace(x, (step,), (Wired(("x",), ("y",)),)), precision_named("bfloat16"), fused=False)
    for wrong, hidden in (([[1.0, 0.0]], True), ([[1.0, 2.0**-9]], False)):
        assert rules.hides(0, "output", np.array(wrong)) == hidden


def test_a_tie_is_judged_by_its_own_subgradients() -> None:
    """What counts beside a tie is told by the layer alone, also where its neighbours could explain more."""
    x, dy = np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]])
    weight, above = np.eye(2), np.array([[1001.0, 0.0], [-1000.0, 1.0]])
    layers = (step_of(Linear(2, bias=False), x, dy * [[0, 1]], weight=weight), step_of(bp.ReLU(), x, dy),
              step_of(Linear(2, bias=False), x, dy, weight=above))
    names = ("x", "a", "b", "y")
    wires = tuple(Wired((names[i],), (names[i + 1],), (("weight", f"w{i}"),) if i != 1 else ()) for i in range(3))
    steps = tuple(replace(step, path=f"layers.{i}") for i, step in enumerate(layers))
    precision = precision_named("float32")
    rules = plant._Rules(Trace(x, steps, wires), precision, fused=True)
    hull, wide = (rules.around.expected(1, reach)["dx"].radius()[0, 0] for reach in (0, 2))
    wrong = np.array([[0.5 + (hull + wide) / 2, 1.0]])
    assert wide > hull + 2.0**-14
    assert rules.judged(1, "dx", wrong).tolist() == [[True, False]]


# Which kinds are planted, and where.


class Recorded(Planter):
    """A planter that writes down the kinds it comes to, of which some cannot be planted."""

    def __init__(self, counts: dict[str, int], cannot: Callable[[str], bool] = lambda kind: False, seed: int = 0) -> None:
        super().__init__(seed, SelfTest(by_mistake=Counter(counts)))
        self.kinds: list[str] = []
        self.cannot = cannot
        self.plant(traced(), FLOAT64, "here", fused=False)

    def _plant_one(self, kind: str, rules: Any, where: str) -> bool:
        assert (rules.trace, rules.precision, rules.fused, where) == (traced(), FLOAT64, False, "here")
        self.kinds.append(kind)
        return not self.cannot(kind)


FITTING = [code for code in OF_A_FAMILY if any(isinstance(step.layer, BY_CODE[code].of) for step in traced().layers)]


def test_kinds_are_told_apart() -> None:
    """Every kind is one of a family or may be anywhere; those of a single entry are anywhere."""
    assert len(set(KINDS)) == len(KINDS) == len(BY_CODE) + len(plant.ENTRIES)
    assert set(KINDS) == {*OF_A_FAMILY, *ANYWHERE} >= plant.ENTRIES.keys()
    assert REPEATED < len(FITTING) < len(OF_A_FAMILY)


def test_new_kinds_come_first() -> None:
    """Kinds of the trace's own layers that were never planted are, up to a number; of those that may be anywhere one."""
    kinds = Recorded({}).kinds
    assert set(kinds[:-1]) <= set(FITTING)
    assert len(set(kinds)) == len(kinds) == min(ROUNDS, len(FITTING)) + 1
    assert kinds[-1] in ANYWHERE
    assert len({tuple(Recorded({}, seed=seed).kinds) for seed in range(5)}) == 5
    assert Recorded({}, seed=3).kinds == Recorded({}, seed=3).kinds


def test_kinds_are_repeated_the_least_planted_first() -> None:
    """Where all that fit were planted before, the ones used least come once more; what is new comes before them."""
    counts = dict.fromkeys(KINDS, 5) | {FITTING[3]: 1, FITTING[1]: 2, ANYWHERE[2]: 4}
    assert Recorded(counts).kinds == [*[FITTING[3], FITTING[1]][:REPEATED], ANYWHERE[2]]
    assert Recorded(counts | {FITTING[4]: 0, FITTING[3]: 0}).kinds[2:] == [ANYWHERE[2]]


def test_a_kind_that_cannot_be_planted_does_not_count() -> None:
    """The next kind takes its place, until there is none left."""
    counts = {kind: index + 1 for index, kind in enumerate((*FITTING, *ANYWHERE))}
    first = Recorded(counts, lambda kind: kind in {FITTING[0], FITTING[2], ANYWHERE[0]}).kinds
    assert first == [*FITTING[: 2 * REPEATED], *ANYWHERE[:2]]
    assert Recorded(counts, lambda kind: True).kinds == [*FITTING, *ANYWHERE]


def planted(kind: str, trace: Trace, precision: str = "float64", *, fused: bool = False, seed: int = 0) -> tuple[bool, SelfTest]:
    result = SelfTest()
    return Planter(seed, result)._plant_one(kind, plant._Rules(trace, precision_named(precision), fused=fused), "here"), result


@pytest.mark.parametrize("kind", [*FITTING, *ANYWHERE])
def test_what_is_planted_is_caught_and_blamed(kind: str) -> None:
    """Each kind is planted into some tensor, which fails, and only that one."""
    done, result = planted(kind, traced())
    assert done == (result.planted == 1)
    assert result == SelfTest(int(done), int(done), int(done), by_mistake=Counter({kind: 1} if done else {}))


def test_what_is_planted_adds_up() -> None:
    """The counts of one planter go on from trace to trace."""
    result = SelfTest()
    planter = Planter(0, result)
    for count in (1, 2, 3):
        assert planter._plant_one("sign", plant._Rules(traced(), FLOAT64, fused=False), "here")
        assert (result.planted, result.caught, result.blamed, result.by_mistake["sign"]) == (count,) * 4


def test_a_kind_of_a_family_is_planted_into_its_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that the kind has no meaning for is not even asked, whatever the kind would make of it."""
    asked = []

    def wrong(step: LayerTrace, tensor: str, _: Any) -> None:
        asked.append((type(step.layer), tensor))

    kind = FITTING[0]
    monkeypatch.setitem(plant.BY_CODE, kind, replace(BY_CODE[kind], wrong=wrong, of=bp.Tanh))
    assert not planted(kind, traced())[0]
    assert sorted(asked, key=str) == [(bp.Tanh, "dx"), (bp.Tanh, "output")]


def test_a_place_that_does_not_do_is_passed_over() -> None:
    """A kind that has a meaning in one tensor alone is planted there, wherever the search begins."""
    for seed in range(8):
        done, result = planted("transposed", traced(), seed=seed)
        assert done
        assert result.planted == result.blamed == 1
        assert not planted("transposed", traced(network=Network((5,), (bp.Tanh(),), MSELoss())), seed=seed)[0]


def test_every_place_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that may be anywhere comes to every tensor of every layer, one of a family to those of its layers."""
    found: set[tuple[str, str]] = set()

    def failing(trace: Trace, index: int, precision: Any, around: Neighbourhood | None) -> list[Certificate]:
        before, after = tensors(traced().layers[index]), tensors(trace.layers[index])
        (name,) = (name for name in after if after[name] is not before[name])
        assert np.max(np.abs(after[name] + before[name])) < 2.0**-40
        assert [a is b for a, b in zip(trace.layers, traced().layers, strict=True)].count(False) == 1
        assert (precision, around is not None) == (FLOAT64, len(found) % 2 == 1)
        found.add((trace.layers[index].path, name))
        return [Certificate(trace.layers[index].path, None, name, "outside", 1)]

    monkeypatch.setattr(plant, "certify_step", failing)
    for seed in range(80):
        assert planted("sign", traced(), seed=seed, fused=len(found) % 2 == 1)[1].blamed == 1
    assert found == {(step.path, name) for step in traced().layers for name in tensors(step)}


def test_what_is_missed_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake that nothing objects to, or that something else is blamed for, is listed with kind, place, precision and regime."""
    certificate = Certificate("layers.9", None, "dx", "outside", 1)
    trace = traced(network=Network((5,), (Linear(5),), MSELoss()))
    for found, caught, blamed in (([], 0, "nothing"), ([certificate], 1, "[('layers.9', 'dx')]"),
                                  ([replace(certificate, verdict="agrees")], 0, "nothing")):
        monkeypatch.setattr(plant, "certify_step", lambda *_, found=found, **__: found)
        done, result = planted("transposed", trace)
        assert done
        assert (result.planted, result.caught, result.blamed, result.by_mistake["transposed"]) == (1, caught, 0, 1)
        assert result.missed == [f"transposed in dweight of layers.0 (Linear, float64), here: blamed {blamed}"]


@pytest.mark.parametrize(("precision", "fused", "hides"), [("float64", False, False), ("float64", True, True), ("float32", False, True)])
def test_no_mistake_hides_in_float64_layer_by_layer(precision: str, fused: bool, hides: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies within rounding is passed over and counted as hidden; in float64 only where a compiler fuses layers."""
    places = sum(len(tensors(step)) for step in traced(precision).layers)
    everything, nearby = Rounded(np.zeros(()), np.array(np.inf), Arithmetic(FLOAT64)), []
    balls = defaultdict(lambda: everything)
    monkeypatch.setattr(plant, "expected", lambda *_: balls)
    monkeypatch.setattr(Neighbourhood, "expected", lambda *_: nearby.append(True) or balls)
    done, result = planted("sign", traced(precision), precision, fused=fused)
    assert len(nearby) == places * hides * fused
    assert (done, result.hidden, result.planted) == ((False, places, 0) if hides else (True, 0, 1))


def test_a_small_mistake_hides_in_bfloat16() -> None:
    """One part in ten thousand cannot be told in eight bits, and is planted nowhere; a sign can."""
    done, result = planted("entry-off-by-1e-4", traced("bfloat16"), "bfloat16")
    assert not done
    assert result.planted == 0
    assert planted("sign", traced("bfloat16"), "bfloat16")[1].blamed == 1
