"""Every registered layer, enrolled by its examples: proved by all methods, its bounds, its kinks, its way through JSON, its messages."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
from backproof import reference
from backproof.judge.mistakes.mistake import Faulty
from backproof.proof.proving import prove
from backproof.proof.setting import Point, Setting
from backproof.reference import activations as a
from backproof.reference.gated import DOMINANT, _may_dominate
from backproof.reference.layer import REGISTRY, Backward, Elementwise, Layer, Params, ShapeError, build, describe
from backproof.reference.normalization import InstanceNorm, RMSNorm
from backproof.reference.rounding import PRECISIONS, Arithmetic, Array, Rounded
from backproof.truth.complex_step import stepped
from backproof.truth.exact import Ball, balls, precise
from scipy import special

PROOF = Path(__file__).parents[2] / "benchmarks" / "proof.py"
SPEC = importlib.util.spec_from_file_location("proof", PROOF)
assert SPEC is not None
assert SPEC.loader is not None
proof = importlib.util.module_from_spec(SPEC)
sys.modules["proof"] = proof
SPEC.loader.exec_module(proof)

for module in iter_modules(reference.__path__):
    import_module(f"backproof.reference.{module.name}")

LAYERS = tuple(cls for cls in REGISTRY.values() if issubclass(cls, Layer) and cls.__module__.startswith("backproof.reference."))
FLOATS = ("float64", "float32", "bfloat16")
TRANSCENDENTAL = re.compile(r"not applicable: the rule raises \w+: .*(no callable \w+ method|has no attribute '\w+'|whole powers only)")


def examples(cls: type[Layer]) -> tuple[Setting, ...]:
    """Return what a class enrols itself with; one that has nothing fails in the test of its examples."""
    try:
        return tuple(Setting(layer, tuple(shapes)) for layer, *shapes in cls.examples())
    except TypeError:
        return ()


EXAMPLES = tuple(setting for cls in LAYERS for setting in examples(cls))
FIRST = tuple({type(setting.layer): setting for setting in reversed(EXAMPLES)}.values())
ENTRYWISE = tuple(setting for setting in EXAMPLES if isinstance(setting.layer, Elementwise))


def each(settings: tuple[Setting, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("setting", settings, ids=[f"{s.layer}-{'-'.join(map(str, s.shapes))}" for s in settings])


BUT_FOR_EPS = (("dx", Setting(InstanceNorm(affine=True), ((3, 2),))), ("dx", Setting(RMSNorm(), ((2, 1),))))
"""Gradients that are 0 but for eps: of so few entries nothing is left when those that the statistics take are taken."""

every_example = each(EXAMPLES)
every_formula = pytest.mark.parametrize("exact", proof.EXACT, ids=[str(exact.layer) for exact in proof.EXACT])


@pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)
def test_every_registered_layer_has_examples_that_fit(cls: type[Layer]) -> None:
    """A layer enrols by its `examples`: small settings of itself, each with one shape per input that it accepts."""
    settings = examples(cls)
    assert settings, f"{cls.__name__} has no examples, or its default ones do not fit: write its `examples`"
    assert cls in {type(setting.layer) for setting in settings}
    for setting in settings:
        assert len(setting.shapes) == len(setting.layer.input_names)
        assert setting.outputs.keys() == set(setting.layer.output_names)
        numbers = sum(int(np.prod(shape)) for shape in (*setting.shapes, *setting.parameters.values()))
        assert numbers <= 400, f"{setting}: {numbers} numbers are too many for an example"


def test_every_activation_has_an_exact_formula() -> None:
    """A new activation must enrol in the definitions that docs/proof.md is made of."""
    assert {type(exact.layer).__name__ for exact in proof.EXACT} == set(a.__all__)


def test_the_committed_table_has_every_formula() -> None:
    """docs/proof.md is as new as the formulas it is made of."""
    assert all(f"| `{exact.layer}` |" in proof.TARGET.read_text() for exact in proof.EXACT), f"stale: run {proof.COMMAND}"


@every_example
def test_the_rule_is_proved(setting: Setting) -> None:
    """Complex step or rationals, and arbitrary precision to hundreds of bits, know the gradients that the rule gives."""
    found = prove(setting.layer, *setting.shapes)
    assert found.ok, str(found)
    assert not found.notes, str(found)
    assert "passed" in {found.methods["complex step"], found.methods["exact rationals"]}, str(found)
    assert {found.methods[name] for name in ("contract", "arbitrary precision", "dot-product test", "linearity")} == {"passed"}, str(found)
    rational = found.methods["exact rationals"]
    assert rational == "passed" or TRANSCENDENTAL.match(rational), f"a rational rule turns numbers into floats: {rational}"


@each(FIRST)
def test_a_wrong_scale_is_caught_in_every_gradient(setting: Setting) -> None:
    """Gradients scaled by 1 + 2^-30 are named one by one by every method that knows the derivative."""

    def scaled(layer: Layer, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        y, backward = layer.forward(params, *inputs)

        def wrong(*dys: Array) -> tuple[Any, dict[str, Array]]:
            dx, dparams = backward(*dys)
            dxs = tuple(d if d is None else d * (1 + 2.0**-30) for d in (dx if isinstance(dx, tuple) else (dx,)))
            return dxs if isinstance(dx, tuple) else dxs[0], {name: d * (1 + 2.0**-30) for name, d in dparams.items()}

        return y, wrong

    found = prove(Faulty(setting.layer, scaled), *setting.shapes)
    point = setting.draw()
    nonzero = {tensor for tensor, value in setting.evaluate(point).items() if tensor in setting.places and np.any(value)}
    named = {match[1] for text in found.sentences if (match := re.match(r"(\S+)\[[\d, ]*\] is wrong: got", text))}
    assert named == nonzero, str(found)
    assert found.methods["arbitrary precision"] == ("failed" if nonzero else "passed")


@every_example
def test_description_builds_the_layer_again(setting: Setting) -> None:
    """A layer survives the way through JSON."""
    assert build(json.loads(json.dumps(describe(setting.layer)))) == setting.layer


@every_example
def test_rounded_arithmetic_holds_the_plain_result(setting: Setting) -> None:
    """The rule on float64 arrays lands within the bound of the rule on rounded arrays, which is finite."""
    point = setting.draw(scale=4)
    bounds = setting.rounded(point)
    for name, value in setting.evaluate(point).items():
        assert np.all(np.isfinite(bounds[name].radius())), f"{setting.layer}: the bound of {name} is infinite"
        assert np.all(np.abs(value - bounds[name].value) <= bounds[name].radius()), f"{setting.layer}: {name} leaves its bound"


@every_example
def test_rounded_arithmetic_holds_the_truth(setting: Setting) -> None:
    """The exact result, by the rule in arbitrary precision, lies within the bound in every precision."""
    for precision in FLOATS:
        point = setting.draw(scale=2).lifted(PRECISIONS[precision].held)
        bounds = setting.rounded(point, precision)
        with precise(200):
            for name, value in setting.evaluate(point.lifted(balls)).items():
                middle, radius = bounds[name].value, bounds[name].radius()
                off = [abs(float((Ball.of(t) - float(m)).number.mid())) for t, m in zip(np.ravel(value), np.ravel(middle), strict=True)]
                assert np.all(np.array(off) <= radius.ravel()), f"{setting.layer}: the bound of {name} in {precision} leaves out the truth"


@every_example
def test_rounded_arithmetic_is_narrow(setting: Setting) -> None:
    """At the largest entry of a tensor the bound is at most 2^12 roundoffs of it, in every precision; else a mistake could hide there."""
    for precision in FLOATS:
        point = setting.draw().lifted(PRECISIONS[precision].held)
        bounds = setting.rounded(point, precision)
        for name, value in setting.evaluate(point).items():
            largest = np.max(np.abs(value), initial=0)
            if largest and (name, setting) not in BUT_FOR_EPS:
                radius = bounds[name].radius()[np.abs(value) == largest].max()
                assert radius <= 2**12 * PRECISIONS[precision].store * largest, f"{setting.layer}: {name} in {precision} is too wide"


@every_example
def test_no_warning_over_the_whole_range(setting: Setting) -> None:
    """Branches not taken neither overflow nor turn invalid, on real arrays and on those of a complex step."""
    small = setting.draw()
    sweep = np.concatenate([np.linspace(-proof.RANGE, proof.RANGE, 401), np.array([*setting.layer.kinks(small.params), 0.0])])
    rows = -(-sweep.size // max(1, min((int(np.prod(s)) for s, below in zip(setting.shapes, setting.below, strict=True) if below is None),
                                       default=1)))
    drawn = setting.draw(batch=rows)

    def spread(x: Array) -> Array:
        return x if x.dtype.kind in "biu" else np.resize(sweep, x.shape)

    def shifted(step: complex) -> Point:
        return replace(drawn, inputs=tuple(x if x.dtype.kind in "biu" else stepped(spread(x) + step) for x in drawn.inputs))

    real = replace(drawn, inputs=tuple(spread(x) for x in drawn.inputs))
    with np.errstate(all="raise", under="ignore"):
        for point in (real, shifted(1j * proof.STEP), shifted(-1j * proof.STEP)):
            for name, value in setting.evaluate(point).items():
                assert np.all(np.isfinite(value)), f"{setting.layer}: {name} is not finite"


# Arbitrary precision.


@every_formula
def test_rule_keeps_its_digits_over_the_whole_range(exact: Any) -> None:
    """y and dx are within the elementary functions' budget of ulps, tails included."""
    errors = list(proof.measure(exact, proof.inputs(exact, 60)))
    worst = max(errors, key=lambda error: error.ulps)
    assert len(errors) >= 120
    assert worst.ulps <= PRECISIONS["float64"].ulps, f"{exact.layer}: loses digits: got {worst}"


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@every_formula
def test_bound_holds_the_truth(exact: Any, precision: str) -> None:
    """The exact y and dx lie within the rounded rule's bound, which is finite."""
    x = proof.inputs(exact, 60)
    x = x[np.all(np.abs(x) >= PRECISIONS["float32"].underflow, axis=-1)].astype(PRECISIONS[precision].dtype).astype(np.float64)
    x = x[~np.isin(x, exact.layer.kinks(exact.parameters())).any(axis=-1)]
    balls = proof.rounded(exact.layer, exact.parameters(), x, proof.upstream(exact, len(x)), precision)
    for index, values in enumerate(x):
        for tensor, numbers in proof.truth(exact, tuple(float(v) for v in values)).items():
            value, radius = balls[tensor].value[index], balls[tensor].radius()[index]
            distance = np.array([proof.size(proof.arb(float(v)) - number) for v, (number, _) in zip(value, numbers, strict=True)])
            assert np.all(distance <= radius), f"{exact.layer}: {tensor} at {values}: got {value} +- {radius}, truth {numbers}"
            assert np.all(np.isfinite(radius))


@dataclass(frozen=True)
class CancellingGELU(Layer):
    """GELU by 1 + erf: right, and without digits at the left."""

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        _, backward = a.GELU().forward(params, x)
        return 0.5 * x * (1 + special.erf(x / np.sqrt(2))), backward


def test_lost_digits_are_measured() -> None:
    """The measurement objects to a formula that cancels, in y and not in dx."""
    exact = next(exact for exact in proof.EXACT if exact.layer == a.GELU())
    errors = list(proof.measure(replace(exact, layer=CancellingGELU()), proof.inputs(exact, 60)))
    assert {error.tensor for error in errors if error.ulps > PRECISIONS["float64"].ulps} == {"output"}


# What a bound forgives, and what it does not.

FROM_OUTPUT: tuple[tuple[Layer, Callable[[Array, Array], Array]], ...] = (
    (a.Sigmoid(), lambda x, y: y * (1 - y)),
    (a.Tanh(), lambda x, y: 1 - y * y),
    (a.Softplus(), lambda x, y: np.exp(x - y)),
    (a.LogSigmoid(), lambda x, y: np.exp(y - x)),
    (a.Softsign(), lambda x, y: (1 - np.abs(y)) / (1 + np.abs(x))),
    (a.SiLU(), lambda x, y: special.expit(x) * (1 + x * (1 - special.expit(x)))),
)


@pytest.mark.parametrize(("layer", "slope"), FROM_OUTPUT, ids=[str(layer) for layer, _ in FROM_OUTPUT])
def test_a_backward_from_the_saved_output_is_accepted(layer: Layer, slope: Callable[[Array, Array], Array]) -> None:
    """A float32 backward formed from the rounded output lies within the bound; scaled by 1 + 2^-10 it does not."""
    x = np.concatenate([np.linspace(-1000, 1000, 801), np.linspace(-20, 20, 801)]).astype(np.float32).reshape(-1, 1)
    y, _ = layer.forward({}, x)
    dx = proof.rounded(layer, {}, x, np.ones_like(x), "float32")["dx"]
    assert y.dtype == np.float32
    assert np.max(proof.excess(slope(x, y) - dx.value, dx.radius())) <= 1
    assert np.max(proof.excess(slope(x, y) * (1 + 2.0**-10) - dx.value, dx.radius())) > 1


@pytest.mark.parametrize("layer", [a.ELU(), a.SELU(), a.CELU()], ids=str)
def test_an_elu_gradient_from_its_output_is_not_forgiven(layer: Layer) -> None:
    """expm1(x) + 1 in place of e^x leaves the float32 bound in the left tail, where it is 0 from -17 on."""
    x = np.linspace(-40, -0.1, 400).astype(np.float32).reshape(-1, 1)
    dx = proof.rounded(layer, {}, x, np.ones_like(x), "float32")["dx"]
    slope = dx.value / np.exp(x.astype(float)) * (np.expm1(x) + np.float32(1))
    off = x[proof.excess(slope - dx.value, dx.radius()) > 1]
    assert off.min() == x.min()
    assert off.max() > -10


def test_a_forward_that_cancels_is_not_forgiven() -> None:
    """GELU by 1 + erf leaves the float32 bound in its left tail, and only there."""
    x = np.linspace(-12, 12, 801).astype(np.float32).reshape(-1, 1)
    dy = np.ones_like(x)
    ball = proof.rounded(a.GELU(), {}, x, dy, "float32")["output"]
    off = x[proof.excess(proof.evaluate(CancellingGELU(), {}, x, dy)["output"] - ball.value, ball.radius()) > 1]
    assert off.size
    assert off.max() < -1


@pytest.mark.parametrize("precision", ["float32", "float64"])
@each(ENTRYWISE)
def test_a_bound_is_narrow_over_the_whole_range(setting: Setting, precision: str) -> None:
    """No branch widens a bound: y within 2^6 and dx within 2^12 roundoffs, past 60 2^6; past 40 a gradient of 0 is right or dx is exact."""
    params = {name: np.full(size, 0.25) for name, size in setting.parameters.items()}
    x = np.concatenate([np.linspace(-100, 100, 1001), np.linspace(-9, 9, 901), [-1e5, 1e5]])
    x = PRECISIONS[precision].held(x[~np.isin(x, setting.layer.kinks(params))])
    x = np.broadcast_to(x.reshape(-1, *(1 for _ in setting.shapes[0])), (x.size, *setting.shapes[0]))
    params |= {name: value for name, value in setting.draw(batch=len(x)).params.items() if name in setting.constants}
    u = PRECISIONS[precision].store
    found = setting.rounded(Point(params, (x,), (np.ones_like(x),)), precision)
    assert np.all(found["output"].radius() <= 2**6 * u * (1 + np.abs(x)))
    assert np.all(found["dx"].radius() <= np.where(np.abs(x) > 60, 2**6, 2**12) * u)
    assert np.all((found["dx"].radius() - np.abs(found["dx"].value))[np.abs(x) > 40] <= u)


@pytest.mark.parametrize("layer", [a.GELU(), a.GELU("tanh"), a.SiLU(), a.Mish(), a.SwiGLU()], ids=str)
def test_a_product_that_overflows_where_the_slope_is_zero_is_forgiven(layer: Layer) -> None:
    """Automatic differentiation forms (dy x) slope, so that a NaN in float32 at x = 1e12, dy = 1e30 is no finding."""
    x, dy = np.array([[1e12, 30.0, 1.0, 1.0]]), np.full((1, *layer.output_shape((4,))), 10.0)
    dy[0, 0] = 1e30
    dx = proof.rounded(layer, {}, x, dy, "float32")["dx"]
    assert np.isinf(dx.radius()[0, 0])
    assert dx.radius()[0, 1] < 1e-3


@pytest.mark.parametrize("layer", [a.ReLU(), a.LeakyReLU(), a.PReLU(), a.ELU(), a.CELU()], ids=str)
def test_nothing_is_rounded_on_the_right(layer: Layer) -> None:
    """Where y = x, y and dx are exact."""
    x = np.linspace(0.25, 8, 32).reshape(-1, 1)
    found = proof.rounded(layer, {"weight": np.array([0.25])}, x, np.ones_like(x), "float32")
    assert not found["output"].radius().any()
    assert not found["dx"].radius().any()


@pytest.mark.parametrize("layer", [a.CELU(41.0)], ids=str)
def test_the_knee_is_multiplied_by_alpha_and_divided(layer: Layer) -> None:
    """At x = 0 the chain rule of alpha expm1(x / alpha) gives dy / alpha alpha, which is rounded twice."""
    ones = np.ones((1, 1), dtype=np.float32)
    dx = proof.rounded(layer, {}, 0 * ones, ones, "float32")["dx"]
    taken = ones / np.float32(41) * np.float32(41)
    assert taken != 1
    assert np.max(proof.excess(taken - dx.value, dx.radius())) <= 1


@pytest.mark.parametrize("layer", [a.ELU(1.6), a.SELU(), a.CELU(0.7)], ids=str)
def test_a_ball_across_the_knee_stays_narrow(layer: Layer) -> None:
    """Where rounding leaves the sign of x open, y is nearly as sure as x."""
    x = Rounded(np.zeros((1, 1)), np.full((1, 1), 2.0**-20), Arithmetic(PRECISIONS["float32"]))
    y, _ = layer.forward({}, x)
    assert y.radius() <= 2.0**-18


@pytest.mark.parametrize("layer", [a.CELU(0.001)], ids=str)
def test_a_short_scale_overflows_on_no_side(layer: Layer) -> None:
    """On the right the exponential of the left is not even computed, which for x = 0.9 would be e^900."""
    y, backward = layer.forward({}, np.array([[0.9, -0.9]]))
    assert y.tolist() == [[0.9, -0.001]]
    assert backward(np.ones((1, 2)))[0][0, 0] == 1


def test_a_share_at_the_edge_of_dominance() -> None:
    """The log-softmax of an entry whose share is 0.7 to the last bit is log 0.7, by whichever form."""
    x = np.array([[0.0, np.log(3 / 7)]])
    assert (np.exp(x) / np.sum(np.exp(x)))[0, 0] == DOMINANT
    for beside in ([0.0, 0.0], [5.0, 0.0]):  # a row of which an entry dominates, and one of which none does
        y, _ = a.LogSoftmax().forward({}, np.array([*x, beside]))
        assert abs(y[0, 0] - np.log(0.7)) < 1e-15


@pytest.mark.parametrize(("share", "bound", "may"), [
    (0.5, 0.125, False), (0.5, 0.25, True), (0.5, np.nan, True), (0.75, 0.0, True), (DOMINANT, 0.0, False),
])
def test_what_may_be_dominant(share: float, bound: float, may: bool) -> None:
    """A share beyond 0.7, or a ball that reaches beyond; of other numbers than floats nothing is known."""
    shares = np.array([0.25, share])
    assert _may_dominate(Rounded(shares, np.array([0.0, bound]), Arithmetic(PRECISIONS["float32"]))) == may
    assert _may_dominate(Rounded(shares, np.array(bound), Arithmetic(PRECISIONS["float32"]))) == may
    if not bound:
        assert _may_dominate(shares) == may
    assert _may_dominate(shares.astype(complex))
    assert _may_dominate(shares.astype(object))


# Kinks.

OWN: tuple[tuple[Layer, Mapping[float, float]], ...] = (
    (a.ReLU(), {0: 0}), (a.LeakyReLU(-0.5), {0: -0.5}), (a.PReLU(), {0: 0.25}), (a.ReLU6(), {0: 0, 6: 0}),
    (a.Hardtanh(-0.25, 2.0), {-0.25: 0, 2: 0}), (a.Hardsigmoid(), {-3: 0, 3: 0}), (a.Hardswish(), {-3: 0, 3: 1}),
    (a.ELU(1.6), {0: 1.6}), (a.SELU(), {0: 1.0507009873554804934193349852946 * 1.6732632423543772848170429916717}),
)


@pytest.mark.parametrize(("layer", "slopes"), OWN, ids=[str(layer) for layer, _ in OWN])
def test_the_own_choice_at_each_kink_is_the_documented_one(layer: Layer, slopes: Mapping[float, float]) -> None:
    """Of the subgradients of a kink the rule gives the one that its docstring names, in floats and in rounded arithmetic."""
    params = {"weight": np.array([0.25])} if isinstance(layer, a.PReLU) else {}
    assert tuple(slopes) == layer.kinks(params)
    x = np.array([*slopes]).reshape(-1, 1)
    dx = proof.evaluate(layer, params, x, np.ones_like(x))["dx"]
    assert dx.ravel().tolist() == [*slopes.values()]
    ball = proof.rounded(layer, params, x, np.ones_like(x), "float32")["dx"]
    assert np.all(np.abs(dx - ball.value) <= ball.radius())
    assert np.all(ball.radius() < 2.0**-16)


@each(ENTRYWISE)
def test_kinks_are_where_the_slopes_of_both_sides_differ(setting: Setting) -> None:
    """At a kink the hull holds both one-sided slopes and the own choice; at the other usual knees the slopes are the same."""
    layer, (shape,) = setting.layer, setting.shapes
    params = {name: np.full(size, 0.25) for name, size in setting.parameters.items()}
    kinks = layer.kinks(params)
    knees = np.array(sorted({0.0, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0, *kinks}))
    below, at, above = (np.broadcast_to(x.reshape(-1, *(1 for _ in shape)), (knees.size, *shape))
                        for x in (np.nextafter(knees, -np.inf), knees, np.nextafter(knees, np.inf)))
    dy = np.ones_like(at)
    params |= {name: value for name, value in setting.draw(batch=knees.size).params.items() if name in setting.constants}
    left, own, right = (setting.evaluate(Point(params, (x,), (dy,)))["dx"] for x in (below, at, above))
    hull = setting.rounded(Point(params, (at,), (dy,)), kinks="hull")["dx"]
    strict = setting.rounded(Point(params, (at,), (dy,)))["dx"]
    for slope in (left, own, right):
        assert np.all(np.abs(slope - hull.value) <= hull.radius()), f"{layer}: the hull {hull} leaves out {slope}"
    differ = np.abs(left - right) > 2 * strict.radius()
    assert set(knees[differ.reshape(knees.size, -1).any(axis=1)]) == set(kinks)


# Messages.

MESSAGES: tuple[tuple[Callable[[], object], type[Exception], str], ...] = (
    (lambda: a.LeakyReLU(float("nan")), ValueError, r"LeakyReLU: wrong negative_slope: got nan, expected a finite number"),
    (lambda: a.PReLU(0), ValueError, r"PReLU: wrong num_parameters: got 0, expected at least 1"),
    (lambda: a.PReLU(3).output_shape((2, 4)), ShapeError, r"wrong input shape: got \(2, 4\), expected 3 channels first"),
    (lambda: a.PReLU(2).output_shape((3, 2)), ShapeError, r"wrong input shape: got \(3, 2\), expected 2 channels first"),
    (lambda: a.Hardtanh(2.0, 1.0), ValueError, r"Hardtanh: wrong range: got min_val=2.0, max_val=1.0, expected .* min_val < "),
    (lambda: a.Hardtanh(1.0, 1.0), ValueError, r"Hardtanh: wrong range: got min_val=1.0, max_val=1.0, expected .* min_val < "),
    (lambda: a.ELU(0.0), ValueError, r"ELU: wrong alpha: got 0.0, expected a finite number > 0"),
    (lambda: a.ELU(float("inf")), ValueError, r"ELU: wrong alpha: got inf, expected a finite number > 0"),
    (lambda: a.CELU(0.0), ValueError, r"CELU: wrong alpha: got 0.0, expected a finite number > 0"),
    (lambda: a.CELU(float("inf")), ValueError, r"CELU: wrong alpha: got inf, expected a finite number > 0"),
    (lambda: a.Softplus(0.0), ValueError, r"Softplus: wrong beta: got 0.0, expected a finite number > 0"),
    (lambda: a.Softplus(float("inf")), ValueError, r"Softplus: wrong beta: got inf, expected a finite number > 0"),
    (lambda: a.GELU("erf"), ValueError, r"GELU: unknown approximate: got 'erf', expected 'none' or 'tanh'"),
    (lambda: a.Softmax(0), ValueError, r"Softmax: wrong dim: got 0, expected an axis other than the batch axis"),
    (lambda: a.LogSoftmax(-2).output_shape((3,)), ShapeError, r"got \(3,\), expected an axis -2 behind the batch axis"),
    (lambda: a.Softmax(2).output_shape((3,)), ShapeError, r"got \(3,\), expected an axis 2 behind the batch axis"),
    (lambda: a.GLU().output_shape((3,)), ShapeError, r"GLU\(\): wrong input shape: got \(3,\), expected an even last axis"),
    (lambda: a.SwiGLU().output_shape(()), ShapeError, r"SwiGLU\(\): wrong input shape: got \(\), expected an even last axis"),
)


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[message[:40] for _, _, message in MESSAGES])
def test_wrong_options_and_shapes_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """A message says what is wrong, what it got and what it expected."""
    with pytest.raises(error, match=message):
        call()
