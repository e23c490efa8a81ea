"""Every registered layer against complex step, exact rationals and arbitrary precision, and these against planted mistakes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backproof.reference import activations as a
from backproof.reference import network
from backproof.reference.layer import REGISTRY, Backward, Layer, Params, Shape, ShapeError, build, describe
from backproof.reference.linear import Linear
from backproof.reference.rounding import PRECISIONS, Arithmetic, Array
from scipy import special

PROOF = Path(__file__).parents[2] / "benchmarks" / "proof.py"
SPEC = importlib.util.spec_from_file_location("proof", PROOF)
assert SPEC is not None
assert SPEC.loader is not None
proof = importlib.util.module_from_spec(SPEC)
sys.modules["proof"] = proof
SPEC.loader.exec_module(proof)

assert network  # enrols the layers

Arrays = dict[str, np.ndarray]

EXAMPLES: tuple[tuple[Layer, Shape], ...] = (
    (Linear(3), (4,)),
    (Linear(4, bias=False), (2, 4)),
    (a.PReLU(), (2, 3)),
    (a.PReLU(3), (3, 2)),
    (a.PReLU(2), (2,)),
    (a.Softmax(), (5,)),
    (a.Softmax(1), (3, 2)),
    (a.Softmax(-2), (3, 2)),
    (a.LogSoftmax(), (5,)),
    (a.LogSoftmax(1), (3, 2)),
    (a.GLU(), (2, 4)),
    (a.SwiGLU(), (6,)),
    *((layer, (3, 2)) for layer in (
        a.Identity(), a.ReLU(), a.LeakyReLU(), a.LeakyReLU(-0.5), a.LeakyReLU(1.0), a.ReLU6(), a.Hardtanh(),
        a.Hardtanh(-0.25, 2.0), a.Hardsigmoid(), a.Hardswish(), a.ELU(), a.ELU(1.6), a.SELU(), a.CELU(), a.CELU(0.7), a.GELU(),
        a.GELU("tanh"), a.SiLU(), a.Mish(), a.Sigmoid(), a.LogSigmoid(), a.Tanh(), a.Softplus(), a.Softplus(0.7), a.Softsign())),
)  # fmt: skip
"""A layer enrols here: some settings of its options, each with an input shape."""

MIXING = (Linear, a.Softmax, a.LogSoftmax, a.GLU, a.SwiGLU)
"""Layers whose outputs depend on several inputs each: no single input value is a kink."""

ENTRYWISE = tuple(example for example in EXAMPLES if not isinstance(example[0], MIXING))

every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_formula = pytest.mark.parametrize("exact", proof.EXACT, ids=[str(exact.layer) for exact in proof.EXACT])


def draw(layer: Layer, shape: Shape, scale: float = 1.0, batch: int = 3) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Return random parameters, x and dy."""
    rng = np.random.default_rng(7)
    params = {name: rng.standard_normal(size) for name, size in layer.parameters(shape).items()}
    return params, scale * rng.standard_normal((batch, *shape)), rng.standard_normal((batch, *layer.output_shape(shape)))


def outside(layer: Layer, shape: Shape, scale: float = 1.0) -> dict[str, float]:
    """Return the largest |complex step - gradient| by tensor, in units of twice the gradient's rounding bound."""
    params, x, dy = draw(layer, shape, scale)
    assert not np.isin(x, layer.kinks(params)).any(), "complex step has no say where there is no derivative"
    actual, balls = proof.evaluate(layer, params, x, dy), proof.rounded(layer, params, x, dy)
    steps = proof.complex_step(layer, params, x, dy)
    return {name: float(np.max(proof.excess(step - actual[name], 2 * balls[name].radius()))) for name, step in steps.items()}


def test_every_registered_layer_has_an_example() -> None:
    """A new layer must enrol in EXAMPLES."""
    registered = {name for name, cls in REGISTRY.items() if issubclass(cls, Layer)}
    assert {type(layer).__name__ for layer, _ in EXAMPLES} == registered


def test_every_activation_has_an_exact_formula() -> None:
    """A new activation must enrol in the proof, which docs/proof.md is made of."""
    assert {type(exact.layer).__name__ for exact in proof.EXACT} == set(a.__all__)


def test_the_committed_table_has_every_formula() -> None:
    """docs/proof.md is as new as the formulas it is made of."""
    assert all(f"| `{exact.layer}` |" in proof.TARGET.read_text() for exact in proof.EXACT), f"stale: run {proof.COMMAND}"


@every_example
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_backward_equals_complex_step(layer: Layer, shape: Shape, scale: float) -> None:
    """Each gradient is the complex step of the forward rule, up to what rounding may do."""
    for tensor, excess in outside(layer, shape, scale).items():
        assert excess <= 1, f"{layer}: {tensor} differs from complex step: got excess {excess:.3g}, expected at most 1"


@every_example
def test_shapes_are_the_announced_ones(layer: Layer, shape: Shape) -> None:
    """Output and gradients have the shapes that output_shape and parameters promise."""
    params, x, dy = draw(layer, shape)
    shapes = {name: value.shape for name, value in proof.evaluate(layer, params, x, dy).items()}
    announced = {f"d{name}": size for name, size in layer.parameters(shape).items()}
    assert shapes == {"output": dy.shape, "dx": x.shape} | announced


@every_example
def test_description_builds_the_layer_again(layer: Layer, shape: Shape) -> None:
    """A layer survives the way through JSON."""
    assert build(json.loads(json.dumps(describe(layer)))) == layer


@every_example
def test_rounded_arithmetic_holds_the_plain_result(layer: Layer, shape: Shape) -> None:
    """The rule on float64 arrays lands within the bound of the rule on rounded arrays."""
    params, x, dy = draw(layer, shape, 4.0)
    balls = proof.rounded(layer, params, x, dy)
    for name, value in proof.evaluate(layer, params, x, dy).items():
        assert np.all(np.abs(value - balls[name].value) <= balls[name].radius()), f"{layer}: {name} leaves its bound"


@every_example
def test_no_warning_over_the_whole_range(layer: Layer, shape: Shape) -> None:
    """Branches not taken neither overflow nor turn invalid, on real and on complex arrays."""
    params, x, dy = draw(layer, shape)
    sweep = np.concatenate([np.linspace(-proof.RANGE, proof.RANGE, 401), *(np.array([k]) for k in (*layer.kinks(params), 0.0))])
    x = np.resize(sweep, (-(-sweep.size // x[0].size), *shape))
    dy = np.resize(dy, (len(x), *dy.shape[1:]))
    with np.errstate(all="raise", under="ignore"):
        for values in (x, x + 1j * proof.STEP, np.flip(x, 0) - 1j * proof.STEP):
            assert all(np.all(np.isfinite(value)) for value in proof.evaluate(layer, params, values, dy).values())


# The checker of the checks: wrong rules that complex step must object to.

Mistake = Callable[[Array, Array, Array, dict[str, Array]], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True)
class Planted(Layer):
    """A layer whose backward is wrong: `mistake(x, dy, dx, dparams)` returns what it answers instead."""

    layer: Layer
    mistake: Mistake

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return self.layer.parameters(shape)

    def output_shape(self, shape: Shape) -> Shape:
        return self.layer.output_shape(shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        y, right = self.layer.forward(params, x)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return self.mistake(x, dy, *right(dy))

        return y, backward


def _scaled(x: Array, dy: Array, dx: Array, dparams: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
    return dx * (1 + 2.0**-30), dparams


PLANTS: tuple[tuple[str, Layer, Shape, str, Mistake], ...] = (
    ("term missing", a.GELU(), (4,), "dx", lambda x, dy, dx, dparams: (dy * special.ndtr(x), dparams)),
    ("term missing", a.SiLU(), (4,), "dx", lambda x, dy, dx, dparams: (dy * special.expit(x), dparams)),
    ("term missing", a.Softmax(), (4,), "dx", lambda x, dy, dx, dparams: (dy * special.softmax(x, -1), dparams)),
    ("derivative missing", a.Tanh(), (4,), "dx", lambda x, dy, dx, dparams: (dy, dparams)),
    ("derivative at y", a.Sigmoid(), (4,), "dx",
     lambda x, dy, dx, dparams: (dy * special.expit(special.expit(x)) * special.expit(-special.expit(x)), dparams)),
    ("halves swapped", a.GLU(), (4,), "dx", lambda x, dy, dx, dparams: (np.flip(dx, -1), dparams)),
    ("wrong transpose", Linear(3), (3,), "dweight", lambda x, dy, dx, dparams: (dx, dparams | {"weight": dparams["weight"].T})),
    ("mean for sum", Linear(3), (4,), "dbias", lambda x, dy, dx, dparams: (dx, dparams | {"bias": dparams["bias"] / 3})),
    ("forgotten sum", Linear(3), (4,), "dbias", lambda x, dy, dx, dparams: (dx, dparams | {"bias": dy[0]})),
    ("forgotten sum", a.PReLU(3), (3, 2), "dweight",
     lambda x, dy, dx, dparams: (dx, {"weight": np.sum(np.where(x > 0, 0, dy * x)[0], axis=-1)})),
    ("wrong side", a.PReLU(), (4,), "dweight", lambda x, dy, dx, dparams: (dx, {"weight": np.sum(dy * x).reshape(1)})),
    *(("wrong scale", layer, shape, "dx", _scaled) for layer, shape in EXAMPLES),
)  # fmt: skip


@pytest.mark.parametrize(("what", "layer", "shape", "tensor", "mistake"), PLANTS,
                         ids=[f"{what}-{layer}-{shape}" for what, layer, shape, _, _ in PLANTS])
def test_complex_step_catches_a_planted_mistake(what: str, layer: Layer, shape: Shape, tensor: str, mistake: Mistake) -> None:
    """A wrong backward is caught, in the tensor that is wrong and in no other."""
    params, x, dy = draw(layer, shape)
    planted = Planted(layer, mistake)
    actual, balls = proof.evaluate(planted, params, x, dy), proof.rounded(layer, params, x, dy)
    wrong = {name for name, step in proof.complex_step(planted, params, x, dy).items()
             if np.any(proof.excess(step - actual[name], 2 * balls[name].radius()) > 1)}
    assert wrong == {tensor}, f"{what}: got {wrong}, expected {tensor}"


# Arbitrary precision.


@every_formula
def test_rule_keeps_its_digits_over_the_whole_range(exact: Any) -> None:
    """y and dx are within the elementary functions' budget of ulps, tails included."""
    errors = list(proof.measure(exact, proof.inputs(exact, 60)))
    worst = max(errors, key=lambda error: error.ulps)
    assert len(errors) >= 120
    assert worst.ulps <= PRECISIONS["float64"].ulps, f"{exact.layer}: loses digits: got {worst}"


@every_formula
@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
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


# Kinks.


@pytest.mark.parametrize(("layer", "shape"), ENTRYWISE, ids=[f"{layer}-{shape}" for layer, shape in ENTRYWISE])
def test_kinks_are_where_the_slopes_of_both_sides_differ(layer: Layer, shape: Shape) -> None:
    """At a kink the hull holds both one-sided slopes and the own choice; at the other usual knees the slopes are the same."""
    params = {name: np.full(size, 0.25) for name, size in layer.parameters(shape).items()}
    kinks = layer.kinks(params)
    knees = np.array(sorted({0.0, 1.0, -1.0, 3.0, -3.0, 6.0, -6.0, *kinks}))
    below, at, above = (np.broadcast_to(x.reshape(-1, *(1 for _ in shape)), (knees.size, *shape))
                        for x in (np.nextafter(knees, -np.inf), knees, np.nextafter(knees, np.inf)))
    dy = np.ones_like(at)
    left, own, right = (proof.evaluate(layer, params, x, dy)["dx"] for x in (below, at, above))
    arithmetic = Arithmetic(PRECISIONS["float64"], kinks="hull")
    hull = proof.evaluate(layer, {name: arithmetic.exact(value) for name, value in params.items()}, arithmetic.exact(at),
                          arithmetic.exact(dy))["dx"]
    strict = proof.rounded(layer, params, at, dy)["dx"]
    for slope in (left, own, right):
        assert np.all(np.abs(slope - hull.value) <= hull.radius()), f"{layer}: the hull {hull} leaves out {slope}"
    differ = np.abs(left - right) > 2 * strict.radius()
    assert set(knees[differ.reshape(knees.size, -1).any(axis=1)]) == set(kinks)


# Exact rationals.


@dataclass(frozen=True)
class Dual:
    """A rational number and its derivative: forward differentiation by the four operations, exactly."""

    value: Fraction
    slope: Fraction = Fraction(0)

    @staticmethod
    def of(number: Any) -> Dual:
        return number if isinstance(number, Dual) else Dual(Fraction(number))

    def __add__(self, other: Any) -> Dual:
        return Dual(self.value + Dual.of(other).value, self.slope + Dual.of(other).slope)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slope)

    def __mul__(self, other: Any) -> Dual:
        b = Dual.of(other)
        return Dual(self.value * b.value, self.slope * b.value + self.value * b.slope)

    def __truediv__(self, other: Any) -> Dual:
        b = Dual.of(other)
        return Dual(self.value / b.value, (self.slope * b.value - self.value * b.slope) / b.value**2)

    def __lt__(self, other: Any) -> bool:
        return self.value < Dual.of(other).value

    def __le__(self, other: Any) -> bool:
        return self.value <= Dual.of(other).value

    def __gt__(self, other: Any) -> bool:
        return self.value > Dual.of(other).value

    def __ge__(self, other: Any) -> bool:
        return self.value >= Dual.of(other).value

    __radd__, __rmul__ = __add__, __mul__


RATIONAL: tuple[tuple[Layer, Shape], ...] = (
    (Linear(3), (4,)), (Linear(2), (2, 3)), (a.PReLU(), (3,)), (a.PReLU(3), (3, 2)),
    *((layer, (4,)) for layer in (a.Identity(), a.ReLU(), a.LeakyReLU(Fraction(1, 3)), a.ReLU6(),
                                  a.Hardtanh(Fraction(-1, 3), Fraction(2)),
                                  a.Hardsigmoid(), a.Hardswish(), a.Softsign())),
)  # fmt: skip


@pytest.mark.parametrize(("layer", "shape"), RATIONAL, ids=[f"{layer}-{shape}" for layer, shape in RATIONAL])
def test_backward_is_exact_on_rationals(layer: Layer, shape: Shape) -> None:
    """On fractions every gradient equals the derivative of the forward rule by dual numbers, with nothing rounded."""
    rng = np.random.default_rng(5)

    def fractions(size: Shape) -> np.ndarray:
        flat = [Fraction(int(rng.integers(-40, 41)) * 7 + 1, 14) for _ in range(int(np.prod(size)))]  # on no kink: odd / 14
        return np.array(flat, dtype=object).reshape(size)

    values = {name: fractions(size) for name, size in layer.parameters(shape).items()} | {"x": fractions((3, *shape))}
    dy = fractions((3, *layer.output_shape(shape)))
    params = {name: value for name, value in values.items() if name != "x"}
    actual = proof.evaluate(layer, params, values["x"], dy)
    assert all(isinstance(v, Fraction | int) for value in actual.values() for v in value.ravel()), "a float came in"
    for name, value in values.items():
        for index in np.ndindex(value.shape):
            moved = value.copy()
            moved[index] = Dual(value[index], Fraction(1))
            point = values | {name: moved}
            y, _ = layer.forward({key: v for key, v in point.items() if key != "x"}, point["x"])
            assert Dual.of(np.sum(dy * y)).slope == actual[f"d{name}"][index], f"{layer}: d{name} at {index}"


# Messages.

MESSAGES: tuple[tuple[Callable[[], object], type[Exception], str], ...] = (
    (lambda: a.LeakyReLU(float("nan")), ValueError, r"LeakyReLU: wrong negative_slope: got nan, expected a finite number"),
    (lambda: a.PReLU(0), ValueError, r"PReLU: wrong num_parameters: got 0, expected at least 1"),
    (lambda: a.PReLU(3).output_shape((2, 4)), ShapeError, r"wrong input shape: got \(2, 4\), expected 3 channels first"),
    (lambda: a.Hardtanh(2.0, 1.0), ValueError, r"Hardtanh: wrong range: got min_val=2.0, max_val=1.0, expected .* min_val < "),
    (lambda: a.ELU(0.0), ValueError, r"ELU: wrong alpha: got 0.0, expected a finite number > 0"),
    (lambda: a.CELU(float("inf")), ValueError, r"CELU: wrong alpha: got inf, expected a finite number > 0"),
    (lambda: a.Softplus(-1.0), ValueError, r"Softplus: wrong beta: got -1.0, expected a finite number > 0"),
    (lambda: a.GELU("erf"), ValueError, r"GELU: unknown approximate: got 'erf', expected 'none' or 'tanh'"),
    (lambda: a.Softmax(0), ValueError, r"Softmax: wrong dim: got 0, expected an axis other than the batch axis"),
    (lambda: a.LogSoftmax(-2).output_shape((3,)), ShapeError, r"got \(3,\), expected an axis -2 behind the batch axis"),
    (lambda: a.Softmax(2).output_shape((3,)), ShapeError, r"got \(3,\), expected an axis 2 behind the batch axis"),
    (lambda: a.GLU().output_shape((3,)), ShapeError, r"GLU\(\): wrong input shape: got \(3,\), expected an even last axis"),
    (lambda: a.SwiGLU().output_shape(()), ShapeError, r"SwiGLU\(\): wrong input shape: got \(\), expected an even last axis"),
)  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[message[:40] for _, _, message in MESSAGES])
def test_wrong_options_and_shapes_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """A message says what is wrong, what it got and what it expected."""
    with pytest.raises(error, match=message):
        call()
