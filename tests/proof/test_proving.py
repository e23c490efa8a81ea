"""`prove` on right layers, and on wrong ones: each mistake named in the tensor that it is in, by the method that knows."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.judge.mistakes import MISTAKES, Mistake
from backproof.judge.mistakes.mistake import Faulty
from backproof.proof.properties import sprinkled
from backproof.proof.proving import Proof, prove
from backproof.proof.setting import Setting, fitting
from backproof.reference.layer import Backward, Constant, Layer, Params, Shape, ShapeError
from backproof.reference.rounding import Array
from scipy import special

DERIVATIVES = ("complex step", "exact rationals", "arbitrary precision")
Gradients = tuple[Any, dict[str, Array]]


def named(found: Proof) -> set[str]:
    """Return the tensors that the sentences of the derivative methods name."""
    return {match[1] for text in found.sentences if (match := re.match(r"(\S+?)(\[[\d, ]*\])? (is wrong|loses digits)", text))}


def faulty(layer: Layer, mistake: Callable[..., Gradients]) -> Faulty:
    """Return a layer whose backward answers `mistake(inputs, dys, dx, dparams)`."""

    def rule(right: Layer, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        y, backward = right.forward(params, *inputs)
        return y, lambda *dys: mistake(inputs, dys, *backward(*dys))

    return Faulty(layer, rule)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


# Layers of a user.


@dataclass(frozen=True)
class Bilinear(Layer):
    """y = mask * (a b) + offset: two inputs, two outputs, a parameter, constants of all kinds, and indices."""

    input_names = ("a", "b", "rows")
    output_names = ("product", "total")

    def parameters(self, *shapes: Shape) -> dict[str, Shape]:
        return {"offset": (3, shapes[0][-1])}

    def constants(self, *shapes: Shape) -> dict[str, Constant]:
        return {"keep": Constant(shapes[0], "keep", batched=True), "scale": Constant(shapes[0], "positive"),
                "shift": Constant(shapes[0]), "on": Constant(shapes[0], "boolean"), "pick": Constant((2,), "index", below=shapes[0][-1])}

    def index_below(self) -> tuple[int | None, ...]:
        return (None, None, 3)

    def output_shape(self, *shapes: Shape) -> tuple[Shape, ...]:
        if len(shapes[0]) != 1 or shapes[0] != shapes[1] or shapes[2] != ():
            raise ShapeError(self, shapes[0], "two equal vectors and a row number")
        return shapes[0], (2,)

    def forward(self, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        a, b, rows = inputs
        factor = np.where(params["on"], params["keep"], 1) / params["scale"]
        product = factor * (a * b) + params["offset"][rows] + params["shift"]
        total = (a + b)[:, params["pick"]]

        def backward(dproduct: Array, dtotal: Array) -> tuple[tuple[Array, Array, None], dict[str, Array]]:
            picked = np.stack([np.sum(np.where(params["pick"] == k, dtotal, 0), axis=-1) for k in range(a.shape[-1])], axis=-1)
            doffset = np.stack([np.sum(np.where((rows == k)[:, None], dproduct, 0), axis=0) for k in range(3)])
            return (dproduct * factor * b + picked, dproduct * factor * a + picked, None), {"offset": doffset}

        return (product, total), backward


@dataclass(frozen=True)
class Plain(Layer):
    """A user's layer made of two functions."""

    function: Callable[[Any], Any]
    slope: Callable[[Any], Any]

    def forward(self, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        (x,) = inputs
        return self.function(x), lambda dy: (dy * self.slope(x), {})


@dataclass(frozen=True)
class Images(Layer):
    """A sum over two axes, which says nothing of the shapes it cannot take."""

    size: int

    def output_shape(self, *shapes: Shape) -> Shape:
        return shapes[0][:-2]

    def forward(self, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        (x,) = inputs
        return np.sum(x, axis=(-2, -1)), lambda dy: (dy[..., None, None] + x * 0, {})


def test_a_layer_with_everything_is_proved_by_every_method() -> None:
    """Several inputs and outputs, indices, parameters and every kind of constant."""
    found = bp.prove(Bilinear(), (4,), (4,), ())
    assert found.ok, str(found)
    assert set(found.methods.values()) == {"passed"}
    assert set(found.ulps) == {"product", "total", "da", "db", "doffset"}
    assert max(found.ulps.values()) < 8
    assert not found.notes


def test_one_entry_of_one_input_is_named() -> None:
    """A mistake in one entry of the second input is named there, and by every method."""

    def wrong(inputs: Any, dys: Any, dx: Any, dparams: Any) -> Gradients:
        entry = np.arange(4) == 2
        return (dx[0], dx[1] + np.where(entry, dys[0], 0) / 2**40, None), dparams

    found = prove(faulty(Bilinear(), wrong), (4,), (4,), ())
    assert named(found) == {"db"}
    for name in DERIVATIVES:
        assert found.methods[name] == "failed"
    assert sum(bool(re.match(r"db\[\d, 2\] is wrong: got \S+, expected \S+, says ", text)) for text in found.sentences) == 3
    assert any(text.startswith("the dot-product test is off: got <J^T dy, v> = ") for text in found.sentences)
    assert found.methods["linearity"] == "passed"


@pytest.mark.parametrize("layer", [
    Plain(np.sin, np.cos), Plain(np.exp, np.exp), Plain(np.abs, np.sign),
    Plain(lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0)),
    Plain(lambda x: np.sqrt(x * x + 1), lambda x: x / np.sqrt(x * x + 1)),
    Plain(special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)),
    Plain(np.tanh, lambda x: 1 - np.tanh(x) ** 2), Plain(lambda x: np.logaddexp(x, 0), sigmoid),
    Plain(lambda x: x**3 / 7, lambda x: x**2 * 3 / 7),
    Plain(lambda x: np.where(x > 0.3, x * x, 0.09), lambda x: np.where(x > 0.3, 2 * x, 0)), Images(2),
], ids=["sin", "exp", "abs", "relu", "sqrt", "erf", "tanh", "softplus", "cube", "branches", "images"])
def test_a_right_layer_of_a_user_is_proved(layer: Layer) -> None:
    """Functions that only some methods know are proved by those, without shapes given."""
    found = prove(layer)
    assert found.ok, str(found)
    assert "passed" in [found.methods[name] for name in DERIVATIVES]
    assert found.shapes


def test_a_rounded_constant_is_a_note() -> None:
    """A rule that rounds 2 / sqrt(pi) agrees with the exact method within rounding only, and is told so."""
    found = prove(Plain(special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-x * x)))
    assert found.methods["arbitrary precision"] == "passed"
    note = r"dx is right within rounding, not exactly, as where a constant is rounded: a sum .* says arbitrary precision"
    assert re.match(note, found.notes[0])
    wrong = prove(Plain(special.erf, lambda x: 1.128379167 * np.exp(-x * x)))
    assert named(wrong) == {"dx"}


def test_digits_lost_in_float64_are_named() -> None:
    """A right formula that cancels in float64, by more than the bound of its rule says, does not exist: the bound knows; it is counted."""
    found = prove(Plain(lambda x: (x + 1e8) * (x + 1e8) - 1e16, lambda x: 2 * (x + 1e8)))
    assert found.ok
    assert found.ulps["output"] > 1e6


def test_float64_that_leaves_the_exact_rule_is_named() -> None:
    """A rule that is right in every kind of number but float64 is caught there."""

    def slope(x: Any) -> Any:
        return np.exp(x) * (1 + 1e-9) if isinstance(x, np.ndarray) and x.dtype == np.float64 else np.exp(x)

    found = prove(Plain(np.exp, slope))
    assert any(re.match(r"dx\[.*\] loses digits in float64: got \S+, expected \S+ within \S+, says arbitrary precision", text)
               for text in found.sentences), str(found)


# Mistakes made by hand.

LINEAR, PRELU, GELU, GLU = bp.Linear(3), bp.PReLU(3), bp.GELU(), bp.GLU()
HAND_MADE: tuple[tuple[str, Layer, Shape, str, Callable[..., Gradients]], ...] = (
    ("scaled", LINEAR, (3,), "dweight", lambda xs, dys, dx, dp: (dx, dp | {"weight": dp["weight"] * (1 + 2.0**-30)})),
    ("scaled", LINEAR, (3,), "dx", lambda xs, dys, dx, dp: (dx * (1 + 2.0**-30), dp)),
    ("transposed", LINEAR, (3,), "dweight", lambda xs, dys, dx, dp: (dx, dp | {"weight": dp["weight"].T})),
    ("mean for sum", LINEAR, (4,), "dbias", lambda xs, dys, dx, dp: (dx, dp | {"bias": dp["bias"] / 3})),
    ("forgotten sum", LINEAR, (4,), "dbias", lambda xs, dys, dx, dp: (dx, dp | {"bias": dys[0][0]})),
    ("forgotten sum", PRELU, (3, 2), "dweight",
     lambda xs, dys, dx, dp: (dx, {"weight": np.sum(np.where(xs[0] > 0, 0, dys[0] * xs[0])[:1], axis=(0, 2))})),
    ("wrong side", bp.PReLU(), (4,), "dweight", lambda xs, dys, dx, dp: (dx, {"weight": np.sum(dys[0] * xs[0]).reshape((1,))})),
    ("term missing", bp.SiLU(), (4,), "dx", lambda xs, dys, dx, dp: (dys[0] * sigmoid(xs[0]), dp)),
    ("term missing", GELU, (4,), "dx", lambda xs, dys, dx, dp: (dys[0] * special.erfc(-xs[0] / np.sqrt(2)) / 2, dp)),
    ("derivative missing", bp.Tanh(), (4,), "dx", lambda xs, dys, dx, dp: (dys[0], dp)),
    ("at the output", bp.Sigmoid(), (4,), "dx",
     lambda xs, dys, dx, dp: (dys[0] * sigmoid(sigmoid(xs[0])) * sigmoid(-sigmoid(xs[0])), dp)),
    ("halves swapped", GLU, (4,), "dx", lambda xs, dys, dx, dp: (np.flip(dx, -1), dp)),
    ("zero", bp.ReLU(), (4,), "dx", lambda xs, dys, dx, dp: (dx * 0, dp)),
)


@pytest.mark.parametrize(("what", "layer", "shape", "tensor", "mistake"), HAND_MADE, ids=[f"{h[0]}-{h[1]}-{h[3]}" for h in HAND_MADE])
def test_a_mistake_made_by_hand_is_named_in_its_tensor(what: str, layer: Layer, shape: Shape, tensor: str,
                                                       mistake: Callable[..., Gradients]) -> None:
    """A wrong backward is caught, in the tensor that is wrong and in no other, and by each method that applies."""
    found = prove(faulty(layer, mistake), shape)
    assert not found.ok
    assert named(found) == {tensor}, str(found)
    assert found.methods["arbitrary precision"] == found.methods["dot-product test"] == "failed"
    assert "passed" not in [found.methods[name] for name in DERIVATIVES]


BROKEN: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("dparams missing", lambda xs, dys, dx, dp: (dx, {"weight": dp["weight"]}),
     r"dbias is missing: got None or nothing, expected an array of shape \(3,\) \(batch 3, float64\)"),
    ("too many", lambda xs, dys, dx, dp: (dx, dp | {"scale": dp["bias"]}), r"dscale is too many: got ndarray, expected no gradient"),
    ("shape", lambda xs, dys, dx, dp: (dx, dp | {"bias": dp["bias"][None]}), r"dbias has a wrong shape: got \(1, 3\), expected \(3,\)"),
    ("rank", lambda xs, dys, dx, dp: (dx[0], dp), r"dx has a wrong shape: got \(4,\), expected \(3, 4\)"),
    ("none", lambda xs, dys, dx, dp: (None, dp), r"dx is missing: got None or nothing, expected an array of shape \(3, 4\)"),
    ("dtype", lambda xs, dys, dx, dp: (dx.astype(np.float32), dp), r"dx has a wrong dtype: got float32, expected float64"),
    ("form", lambda xs, dys, dx, dp: dx, r"backward returns something else: got ndarray, expected \(dx, dparams\)"),
    ("count", lambda xs, dys, dx, dp: ((dx, dx), dp), r"backward returns a wrong number of input gradients: got 2, expected 1"),
    ("raises", lambda xs, dys, dx, dp: 1 / 0,
    r"the rule raises: got ZeroDivisionError: division by zero, expected an output and gradients"),
    ("warns", lambda xs, dys, dx, dp: (dx + np.log(dx * 0 - 1) * 0, dp),
     r"the rule warns: got RuntimeWarning: invalid value encountered in log"),
    ("not finite", lambda xs, dys, dx, dp: (np.where(np.arange(4) == 1, np.inf, dx), dp),
     r"dx\[0, 1\] is not finite: got inf, expected a number"),
    ("in place", lambda xs, dys, dx, dp: (dys[0].fill(0), (dx, dp))[1], r"the rule alters doutput in place: got other numbers"),
    ("batch 1", lambda xs, dys, dx, dp: (dx, {n: np.squeeze(d) if len(dx) == 1 else d for n, d in dp.items()}) if dx.size != 4 else
     (dx[0], dp), r"dx has a wrong shape: got \(4,\), expected \(1, 4\) \(batch 1, float64\)"),
    ("batch 0", lambda xs, dys, dx, dp: (dx, dp | {"bias": np.max(dys[0], axis=0) * 0 + dp["bias"]}),
     r"the rule raises: got ValueError: zero-size array to reduction .* \(batch 0, float64\)"),
)


@pytest.mark.parametrize(("mistake", "sentence"), [(m, s) for _, m, s in BROKEN], ids=[name for name, _, _ in BROKEN])
def test_a_broken_promise_is_a_sentence(mistake: Callable[..., Any], sentence: str) -> None:
    """Shapes, names, dtypes, warnings, errors and altered arrays are named, and nothing is raised."""
    found = prove(faulty(LINEAR, mistake), (4,))
    assert not found.ok
    assert found.methods["contract"] == "failed"
    assert any(re.match(sentence, text) for text in found.sentences), str(found)
    assert all(text.count(": got ") == 1 and ", expected " in text and "\n" not in text for text in found.sentences), str(found)


@pytest.mark.parametrize("bend", [lambda dy: dy * np.where(dy > 0, 2, 1), lambda dy: dy * dy, lambda dy: dy + 1],
                         ids=["by parts", "square", "constant"])
@pytest.mark.parametrize("layer", [bp.Identity(), bp.Tanh()], ids=["rational", "arbitrary precision"])
def test_a_backward_that_is_not_linear_is_named(layer: Layer, bend: Callable[[Array], Array]) -> None:
    """backward(3 dy - dz) must be 3 backward(dy) - backward(dz)."""
    found = prove(faulty(layer, lambda xs, dys, dx, dp: (dx * 0 + bend(dys[0]), dp)), (3,))
    assert found.methods["linearity"] == "failed"
    assert any(re.match(r"dx\[\d, \d\] is not linear in dy: got backward\(3 dy - dz\) = \S+, expected 3 backward", text)
               for text in found.sentences), str(found)


def test_linearity_within_rounding_is_judged_in_floats_too() -> None:
    """Where a rule runs neither on rationals nor on balls, rounded arithmetic bounds both sides."""

    def only_floats(layer: Layer, params: Params, x: Array) -> tuple[Array, Backward]:
        if x.dtype.kind == "O":
            raise TypeError("floats only")
        return np.tanh(x), lambda dy: ((dy if layer.min_val < -1 else dy * dy) * (1 - np.tanh(x) * np.tanh(x)), {})  # type: ignore[attr-defined]

    right, wrong = (prove(Faulty(bp.Hardtanh(low, 1.0), only_floats), (3,)) for low in (-2.0, -1.0))
    assert right.ok, str(right)
    assert right.methods["arbitrary precision"] == "not applicable: the rule raises TypeError: floats only"
    assert right.methods["dot-product test"] == "passed"
    assert wrong.methods["linearity"] == wrong.methods["dot-product test"] == "failed"
    assert any("says rounded arithmetic" in text for text in wrong.sentences)


# Special values.


@pytest.mark.parametrize(("layer", "slope"), [
    (bp.ReLU(), 2.0), (bp.ReLU(), -0.25), (bp.LeakyReLU(0.5), 0.25), (bp.Identity(), 0.0), (bp.Tanh(), 0.5), (bp.Softsign(), np.nan),
], ids=str)
def test_a_wrong_slope_at_zero_alone_is_named(layer: Layer, slope: float) -> None:
    """What is wrong at a kink or another special value, and nowhere else, is caught by the slopes of both sides."""
    found = prove(faulty(layer, lambda xs, dys, dx, dp: (np.where(xs[0] == 0, slope * dys[0], dx), dp)), (4, 3))
    assert {name for name, outcome in found.methods.items() if outcome == "failed"} == {"special values"}, str(found)
    assert re.match(r"dx\[.*\] is wrong at special values: got \S+, expected .*, says arbitrary precision", found.sentences[0])


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
def test_any_slope_between_both_sides_is_right_at_a_kink(slope: float) -> None:
    """ReLU may have any slope from 0 to 1 at 0."""
    found = prove(faulty(bp.ReLU(), lambda xs, dys, dx, dp: (np.where(xs[0] == 0, slope * dys[0], dx), dp)), (4, 3))
    assert found.ok, str(found)


@pytest.mark.parametrize("layer", [
    Plain(lambda x: np.where(x > 0, 1.0, 0.0) * x**0, lambda x: 0 * x),
    Plain(lambda x: np.sqrt(np.abs(x)), lambda x: 0.5 * np.sign(x) / np.sqrt(np.abs(x))),
], ids=["jump", "infinite slope"])
def test_nothing_is_asked_where_there_is_no_slope(layer: Layer) -> None:
    """At a jump and at an infinite slope any gradient passes."""
    found = prove(layer, (4, 3))
    assert found.methods["special values"] == "passed" or found.methods["special values"].startswith("not applicable: "), str(found)


# Every registered mistake.


def _registered() -> Iterator[tuple[Mistake, dict[str, Any]]]:
    for mistake in MISTAKES:
        if getattr(mistake.wrong, "__qualname__", "").startswith("faulty."):
            yield mistake, dict(inspect.getclosurevars(mistake.wrong).nonlocals)


AT_TIES = {"tied-all-full": "a slope for each entry by itself is valid at a tie; that they add up is what certificates look at"}
REGISTERED = tuple((mistake, facts) for mistake, facts in _registered() if not callable(facts["tensors"]) and mistake.code not in AT_TIES)
"""Those that touch the same tensors in every setting; test_mistakes.py has the others."""


def _planted(layer: Layer, rule: Callable[..., Any], tensors: set[str]) -> Faulty:
    """Return the layer with these gradients of a faulty rule in place of its own."""

    def mixed(right: Layer, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        y, good = right.forward(params, *inputs)
        _, bad = rule(right, params, *inputs)

        def backward(*dys: Array) -> Gradients:
            (dx, dparams), (wrong_dx, wrong_dparams) = good(*dys), bad(*dys)
            dxs = [w if f"d{name}" in tensors else d for name, d, w in zip(right.input_names, _each(dx), _each(wrong_dx), strict=True)]
            return tuple(dxs) if isinstance(dx, tuple) else dxs[0], {
                name: wrong_dparams[name] if f"d{name}" in tensors else d for name, d in dparams.items()}

        return y, backward

    return Faulty(layer, mixed)


def _each(item: Any) -> tuple[Any, ...]:
    return item if isinstance(item, tuple) else (item,)


def _apart(right: Any, wrong: Any) -> bool:
    """Say whether two arrays differ by more than a float32 shows."""
    return np.shape(right) != np.shape(wrong) or not np.all(np.abs(right - wrong) <= 2.0**-24 * np.max(np.abs(right), initial=0))


@pytest.mark.parametrize(("mistake", "facts"), REGISTERED, ids=[mistake.code for mistake, _ in REGISTERED])
def test_a_registered_mistake_is_named_in_its_tensors(mistake: Mistake, facts: dict[str, Any]) -> None:
    """The gradients of a faulty rule are each caught on one of its layer's examples, and no others are blamed."""
    classes, shown = _each(facts["of"]), set()
    wanted = {tensor for tensor in facts["tensors"] if tensor.startswith("d")}
    for cls in classes:
        for layer, *shapes in cls.examples():
            setting = Setting(layer, tuple(shapes))
            gradients = wanted & setting.places.keys() - shown
            if not isinstance(layer, cls) or not gradients:
                continue
            planted = _planted(layer, facts["rule"], gradients)
            differ = set()
            for point in (setting.draw(), sprinkled(setting.draw(), 7)):
                with np.errstate(all="ignore"):
                    try:
                        right, wrong = setting.evaluate(point), Setting(planted, tuple(shapes)).evaluate(point)
                    except (ValueError, IndexError):
                        break  # a rule may be wrong in shape for some settings
                differ |= {name for name in gradients if _apart(right[name], wrong[name])}
            if differ:
                found = prove(planted, *shapes)
                assert named(found) == differ, str(found)
                shown |= differ
    assert shown or not wanted, f"{mistake.code}: no example of {', '.join(cls.__name__ for cls in classes)} shows this mistake"


# What it is made of.


def test_shapes_are_found_where_none_are_given() -> None:
    """The shapes come from the equal example, then from another of the class, then from usual ones that the layer accepts."""
    assert prove(bp.PReLU(3)).shapes == ((3, 2),)
    assert next(fitting(bp.Softmax(2))) == ((3, 2),)
    assert prove(Images(2)).ok
    nothing = prove(Bilinear())
    assert not nothing.ok
    assert nothing.sentences[0].startswith("no input shapes are known: got none that output_shape accepts, expected prove(layer, *shapes)")


def test_shapes_that_do_not_fit_are_a_sentence() -> None:
    """What output_shape refuses is said, not raised."""
    found = prove(bp.GLU(), (3,))
    assert not found.ok
    refusal = r"the layer does not take these shapes: got ShapeError: GLU\(\): wrong input shape: got \(3,\), expected an even last axis"
    assert re.match(refusal, found.sentences[0])


def test_nothing_said_is_no_proof() -> None:
    """A rule that no method can run on is not proved by that."""

    def floats(layer: Layer, params: Params, x: Array) -> tuple[Array, Backward]:
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            raise TypeError("floats only")
        return x, lambda dy: (dy, {})

    found = prove(Faulty(bp.Identity(), floats), (3,))
    assert not found.ok
    reasons = "got complex step: .*; exact rationals: .*; arbitrary precision: .*"
    assert re.match(f"no method could say anything: {reasons}, expected one that runs", found.sentences[-1])


def test_a_rule_that_is_not_analytic_leaves_the_complex_step_without_a_say() -> None:
    """Real parts and conjugates are refused, so that the complex step never blames a right rule."""
    for function in (lambda x: np.real(x) * 2, lambda x: np.conj(x) * 2, lambda x: np.asarray(x, dtype=float) * 2):
        found = prove(Plain(function, lambda x: 2 + 0 * x), (3,))
        assert found.methods["complex step"].startswith("not applicable: ")
        assert not [text for text in found.sentences if "complex step" in text and "no method" not in text]


def test_the_proof_reads_well() -> None:
    """The text has a line per method, the ulps, and every sentence."""
    right = str(prove(bp.Tanh(), (2,)))
    assert right.startswith("Tanh(), input shapes (2,): proved\n  contract             passed\n")
    assert re.search(r"\n  float64 is off by    [\d.]+ ulps in output, [\d.]+ ulps in dx", right)
    found = prove(faulty(bp.Tanh(), lambda xs, dys, dx, dp: (dys[0], dp)), (2,))
    assert "NOT PROVED" in str(found)
    assert all(f"\n  - {text}" in str(found) for text in found.sentences)


def test_prove_warns_of_nothing_and_leaves_no_trace() -> None:
    """NumPy's error state, the warning filters and Arb's precision are as they were."""
    import flint

    before = np.geterr(), list(warnings.filters), flint.ctx.prec
    prove(bp.GELU(), (2,))
    assert (np.geterr(), list(warnings.filters), flint.ctx.prec) == before
