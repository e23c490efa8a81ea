"""A certificate by parts of the batch says what the certificate of the whole says, and the shortcut of the judge misses nothing."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backproof.judge import certify, comparing
from backproof.judge.certificate import Certificate
from backproof.judge.rules import tensors
from backproof.reference import library
from backproof.reference.layer import REGISTRY, Layer, each_shape
from backproof.reference.rounding import BOUND_SLACK, PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

library.load_all()
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FLOAT32 = PRECISIONS["float32"]
OWN = [cls for cls in REGISTRY.values() if issubclass(cls, Layer) and cls.__module__.startswith("backproof.reference.")]
SEPARATE = [cls for cls in OWN if cls.by_example]
EXAMPLES = [(layer, shapes) for cls in SEPARATE for layer, *shapes in cls.examples()]


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """Return the benchmark of certificates, whose steps are right and large."""
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("certificates", BENCHMARKS / "certificates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["certificates"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def step_of(layer: Layer, shapes: list[Any], batch: int) -> LayerTrace:
    """Return a step of random numbers; what came out is not looked at."""
    rng = np.random.default_rng(0)
    xs = tuple(rng.standard_normal((batch, *shape)).astype(np.float32) for shape in shapes)
    params: dict[str, Any] = {name: rng.standard_normal(shape) for name, shape in layer.parameters(*shapes).items()}
    for name, constant in layer.constants(*shapes).items():
        shape = (*(batch,) * constant.batched, *constant.shape)
        params[name] = rng.integers(constant.below, size=shape) if constant.kind == "index" else rng.random(shape) < constant.p
        if constant.kind in {"keep", "real"}:
            params[name] = params[name].astype(np.float32)
    dys = tuple(rng.standard_normal((batch, *shape)).astype(np.float32) for shape in each_shape(layer.output_shape(*shapes)))
    return LayerTrace("0", layer, xs, dys if len(dys) > 1 else dys[0], xs, dys if len(dys) > 1 else dys[0], params, {})


@pytest.mark.parametrize(("layer", "shapes"), EXAMPLES, ids=[f"{layer}-{shapes}" for layer, shapes in EXAMPLES])
def test_layers_by_example_do_not_mix_examples(layer: Layer, shapes: list[Any]) -> None:
    """What such a layer makes of some examples is what it makes of them in a larger batch: values and bounds."""
    step = step_of(layer, shapes, batch=5)
    batched = [name for name, constant in layer.constants(*shapes).items() if constant.batched]
    whole = certify.expected(step, Arithmetic(FLOAT32))
    for part in (slice(0, 2), slice(2, 5)):
        params = {**step.params, **{name: step.params[name][part] for name in batched}}
        some = replace(step, inputs=tuple(x[part] for x in step.inputs), d_output=step.d_output[part], params=params)
        for name, ball in certify.expected(some, Arithmetic(FLOAT32)).items():
            if name == "output" or name in {f"d{x}" for x in layer.input_names}:
                difference = np.abs(ball.value - whole[name].value[part])
                assert (difference <= 2.0**-45 * (np.abs(ball.value) + 1)).all()
                assert (np.abs(ball.bounds() - whole[name].bounds()[part]) <= 0.01 * ball.bounds() + 2.0**-60).all()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmark's steps be judged in several parts."""
    monkeypatch.setattr(certify, "LARGE", 2**16)
    monkeypatch.setattr(certify, "BLOCK", 2**15)


CALLS = ["GELU()", "ReLU()", "Softmax()", "ScaledDotProductAttention(mask='additive')", "Dropout()", "MaxPool2d(2)", "Add()",
         "Gather(-1, 512)", "CumProd()"]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("call", CALLS)
def test_parts_agree_where_the_whole_agrees(call: str, benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right step has the same certificates by parts and as a whole: tensors, verdicts, counts, and the margin but for the last digits."""
    setting = next(s for s in benchmark.SETTINGS if s.call == call)
    step = benchmark.step_of(setting, FLOAT32)
    parts = certify._certify_in_parts(step, Arithmetic(FLOAT32))
    monkeypatch.setattr(certify, "_certify_in_parts", lambda *_: None)
    whole = certify.certify_layer(step, FLOAT32)
    assert parts is not None
    assert [(c.tensor, c.verdict, c.compared, c.inconclusive) for c in parts] == [(c.tensor, "agrees", c.compared, 0) for c in whole]
    assert all((c.path, c.layer, c.excess) == (step.path, step.layer, c.margin) for c in parts)
    assert all(abs(a.margin - b.margin) <= 0.02 * b.margin for a, b in zip(parts, whole, strict=True))


def elementwise(layer: Layer, shape: tuple[int, ...], **params: Any) -> LayerTrace:
    """Return a right step of a layer on 0.25, -0.5 and so on."""
    x = np.resize(np.float32([0.25, -0.5, 1.0]), shape)
    y, backward = layer.forward(params, x)
    dx, d_params = backward(x)
    return LayerTrace("0", layer, (x,), y, (dx,), x, params, d_params)


@pytest.mark.parametrize(("layer", "shape", "params", "parts"), [
    ("ReLU", (2, certify.LARGE // 2), {}, True),
    ("ReLU", (2, certify.LARGE // 2 - 1), {}, False),
    ("ReLU", (3, certify.LARGE // 2), {}, True),
    ("ReLU", (1, certify.LARGE), {}, False),
    ("CumSum", (2, certify.LARGE // 2), {}, True),
    ("Flatten", (2, 4, certify.LARGE // 8), {}, True),
    ("CumProd", (4, 256), {}, True),
    ("CumProd", (4, 255), {}, False),
    ("PReLU", (2, certify.LARGE // 2), {"weight": np.float32([0.5])}, False),
    ("Fork", (2, certify.LARGE // 2), {}, False),
])
def test_only_large_steps_of_separate_examples_are_judged_in_parts(layer: str, shape: tuple[int, ...], params: Any, parts: bool) -> None:
    """Two examples of half of what is large are, one example is not, nor what sums over the batch, nor a layer that knows no examples."""
    step = elementwise(REGISTRY[layer](), shape, **params)
    if layer == "Fork":
        step = replace(step, d_output=(step.d_output, step.d_output), d_inputs=(2 * step.d_output,))
    assert (certify._certify_in_parts(step, Arithmetic(FLOAT32)) is not None) == parts


@pytest.mark.parametrize("changes", [
    {"output": "off"}, {"output": "missing"}, {"output": "short"}, {"output": "double"}, {"d_inputs": "missing"}, {"d_inputs": "off"},
    {"d_inputs": "last off"},
])
def test_what_does_not_plainly_agree_is_left_to_the_whole(changes: dict[str, Any]) -> None:
    """A tensor that is missing, of another shape or format, or off anywhere, is none that the parts speak of."""
    step = elementwise(REGISTRY["ReLU"](), (4, certify.LARGE // 2))
    ((name, how),) = changes.items()
    right = tensors(step)["output" if name == "output" else "dx"]
    wrong = right.copy()
    wrong[(-1, -1) if how == "last off" else (0, 0)] += 1
    value = {"missing": None, "short": right[:, 1:], "double": right.astype(np.float64)}.get(how, wrong)
    altered = replace(step, **{name: value if name == "output" else (value,)})
    assert certify._certify_in_parts(step, Arithmetic(FLOAT32)) is not None
    assert certify._certify_in_parts(altered, Arithmetic(FLOAT32)) is None


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("where", [0, -1])
@pytest.mark.parametrize("call", ["GELU()", "Add()", "Softmax()"])
def test_one_wrong_entry_of_any_part_is_found(call: str, where: int, benchmark: Any) -> None:
    """One entry of the first or the last part off by a thousandth is outside, and named by its place in the whole tensor."""
    step = benchmark.step_of(next(s for s in benchmark.SETTINGS if s.call == call), FLOAT32)
    output = step.output.copy()
    row = where % len(output)
    place = (row, int(np.argmax(np.abs(output[row]))))
    output[place] *= np.float32(1.001)
    found = certify.certify_layer(replace(step, output=output), FLOAT32)
    assert [(c.tensor, c.index) for c in found if c.verdict == "outside"] == [("output", place)]
    assert all(c.compared == step.output.size for c in found)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("fault", ["missing", "shape", "dtype", "extra"])
def test_malformed_tensors_are_not_passed_by_parts(fault: str, benchmark: Any) -> None:
    """A gradient that is missing, too many, or of another shape or dtype is an error in a large step too."""
    step = benchmark.step_of(next(s for s in benchmark.SETTINGS if s.call == "GELU()"), FLOAT32)
    dx = step.d_inputs[0]
    changed = {"missing": {"d_inputs": (None,)}, "shape": {"d_inputs": (dx[:-1],)}, "dtype": {"d_inputs": (dx.astype(np.float64),)},
               "extra": {"d_params": {"weight": np.ones(3, np.float32)}}}[fault]
    assert [c.verdict for c in certify.certify_layer(replace(step, **changed), FLOAT32)].count("error") == 1


def judged(actual: Any, value: Any, bound: Any) -> Certificate:
    ball = Rounded(np.asarray(value, dtype=np.float64), np.asarray(bound, dtype=np.float64), Arithmetic(FLOAT32))
    step = LayerTrace("0", REGISTRY["Identity"](), (), None, (), None, {}, {})
    return comparing.compare(step, "output", np.asarray(actual, dtype=np.float32), ball, FLOAT32)


def same(a: float, b: float) -> bool:
    """Say whether two numbers are the same but for the last digits of a quotient."""
    return a == b or abs(a - b) <= 4 * np.spacing(b)


ROWS, APART = (np.broadcast_to([[1.0], [second]], (2, 2)) for second in (1.005, 1.5))
CASES = {
    "inside": ([1.0, 2.0], [1.0, 2.001], 0.01, ("agrees", 0, 0)),
    "no bound at all": ([1.0, 2.0], [1.0, 2.0], 0.0, ("agrees", 0, 0)),
    "off with no bound at all": ([1.0, 2.5], [1.0, 2.0], 0.0, ("outside", 1, 0)),
    "some without a bound": ([1.0, 2.0], [1.0, 2.001], [0.0, 0.01], ("agrees", 0, 0)),
    "off where there is no bound": ([1.5, 2.0], [1.0, 2.001], [0.0, 0.01], ("outside", 1, 0)),
    "not a number": ([np.nan, 2.0], [1.0, 2.0], 0.01, ("nonfinite", 1, 0)),
    "not a number, exact": ([np.nan, 2.0], [1.0, 2.0], 0.0, ("nonfinite", 1, 0)),
    "infinite": ([np.inf, 2.0], [1.0, 2.0], 0.01, ("nonfinite", 1, 0)),
    "one ball for all": ([1.0, 1.001], np.broadcast_to(1.0, 2), np.broadcast_to(0.01, 2), ("agrees", 0, 0)),
    "one ball, the largest off": ([1.0, 1.5], np.broadcast_to(1.0, 2), np.broadcast_to(0.01, 2), ("outside", 1, 0)),
    "one ball, the smallest off": ([0.5, 1.0], np.broadcast_to(1.0, 2), np.broadcast_to(0.01, 2), ("outside", 1, 0)),
    "one ball, not a number": ([1.0, np.nan], np.broadcast_to(1.0, 2), np.broadcast_to(0.01, 2), ("nonfinite", 1, 0)),
    "both infinite": ([np.inf, 2.0], [np.inf, 2.0], 0.0, ("agrees", 0, 1)),
    "unknown": ([5.0, 2.0], [1.0, 2.0], [np.inf, 0.01], ("agrees", 0, 1)),
    "known to less than its size": ([1.0, 0.3], [1.0, 0.0], [0.01, 2.0], ("agrees", 0, 1)),
    "the largest margin is of one hardly known": ([10.02, 2.4], [10.0, 1.0], [0.1, 1.5], ("agrees", 0, 0)),
    "of one known to more than a third": ([10.02, 2.4, 1.2], [10.0, 1.0, 1.0], [0.1, 1.5, 0.4], ("agrees", 0, 0)),
    "of one known to half its size": ([10.02, 1.4], [10.0, 1.0], [0.1, 0.5], ("agrees", 0, 0)),
    "of two known to half their size": ([10.02, 2.4, 1.4], [10.0, 1.0, 1.0], [0.1, 1.5, 0.5], ("agrees", 0, 0)),
    "nothing": (np.zeros((0, 2)), np.zeros((0, 2)), 0.0, ("agrees", 0, 0)),
    "one number": (1.0, 1.001, 0.01, ("agrees", 0, 0)),
    "spread along an axis": (np.ones((2, 3)), np.broadcast_to(np.ones((2, 1)), (2, 3)), 0.0, ("agrees", 0, 0)),
    "spread along an axis, off along the other": (np.ones((2, 2)), APART, np.broadcast_to(0.01, (2, 2)), ("outside", 2, 0)),
    "spread along an axis, each row its own": (ROWS, ROWS, np.broadcast_to(0.01, (2, 2)), ("agrees", 0, 0)),
    "a bound for all, not one value": ([1.0, 0.95], [1.0, 1.6], np.broadcast_to(0.6, 2), ("outside", 1, 0)),
    "one value, not a bound for all": ([100.0, 105.0], np.broadcast_to(100.0, 2), [10.0, 0.01], ("outside", 1, 0)),
    "a spread bound too wide in one row": (np.eye(2, 3) + 0.25, np.eye(2, 3), np.broadcast_to([[0.5], [10.0]], (2, 3)), ("agrees", 0, 3)),
    "off along an axis": (np.eye(2, 3), np.broadcast_to(np.ones((2, 1)), (2, 3)), 0.0, ("outside", 4, 0)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_judge_says_the_same_by_its_shortcut(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdict and counts are those of the whole comparison, and so are excess and margin."""
    actual, value, bound, expected = case
    short = judged(actual, value, bound)
    assert (short.verdict, short.outside, short.inconclusive) == expected
    monkeypatch.setattr(comparing, "margin_of", lambda *_: None)
    full = judged(actual, value, bound)
    assert (full.verdict, full.outside, full.inconclusive, full.index) == (short.verdict, short.outside, short.inconclusive, short.index)
    assert same(short.excess, full.excess)
    assert same(short.margin, full.margin)


def test_a_margin_known_before_stays_where_none_is_larger() -> None:
    """The shortcut hands a margin on, also where one ball serves several entries."""
    one = Rounded(np.broadcast_to(1.0, 2), np.broadcast_to(0.01, 2), Arithmetic(PRECISIONS["float64"]))
    assert comparing.margin_of(np.array([1.0, 1.001]), one, 0.5) == 0.5
    assert same(comparing.margin_of(np.array([1.0, 1.001]), one, 0.05), (1.001 - 1) / 0.01 / BOUND_SLACK)


def test_margins_are_taken_over_entries_known_to_half_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry close to the end of a bound as large as itself does not count, in either way of judging, in no block."""
    rng = np.random.default_rng(0)
    value = rng.standard_normal((300, 200))
    bound = np.where(np.abs(value) < 0.5, 0.6, 0.2)
    actual = value + bound * rng.uniform(-0.9, 0.9, value.shape) * np.where(np.abs(value) < 0.5, 1, 0.3)
    short = judged(actual, value, bound)
    monkeypatch.setattr(comparing, "margin_of", lambda *_: None)
    assert same(short.margin, judged(actual, value, bound).margin)
    assert 0.2 < short.margin < 0.3
