"""`imprecise` is the right formula with digits lost, `wrong` is another formula: told apart on real and on planted errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import Adapter, load
from backproof.judge.certificate import Certificate
from backproof.judge.classify import FEW_ROUNDOFFS, PARTNERS, LostDigits, classify, comparable, natural_scale
from backproof.judge.comparing import compare
from backproof.judge.rules import tensors
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, Head
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded, precision_named
from backproof.reference.trace import LayerTrace, Trace
from backproof.reference.values import Values
from backproof.report.finding import Finding
from backproof.verify.run import Run
from scipy import special

BOTH = ("float64", "float32")
HALF = comparable(PRECISIONS["float32"], PRECISIONS["float64"])
Change = Callable[[LayerTrace], LayerTrace]
Formula = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class At(Case):
    """A case whose input holds the given points, over and over."""

    points: tuple[float, ...] = (0.0,)

    def values(self) -> Values:
        values = super().values()
        return replace(values, x=np.resize(np.asarray(self.points), values.x.shape).astype(values.x.dtype))


class Altered:
    """A real adapter whose steps are changed on the way out, under a name that no known discrepancy speaks of."""

    def __init__(self, change: Change, base: str = "torch") -> None:
        self.name = "mine"
        self.base, self.change = load(base), change
        self.fused = getattr(self.base, "fused", False)

    def run(self, case: Case) -> Trace:
        trace = self.base.run(case)
        return replace(trace, layers=tuple(self.change(step) for step in trace.layers))


def real(name: str) -> Altered:
    """Return a framework's own adapter, unchanged but for its name."""
    return Altered(lambda step: step, name)


def computed(formula: Formula) -> Altered:
    """Return an adapter that computes y and dx of its layers by a formula, in the precision of the case."""

    def change(step: LayerTrace) -> LayerTrace:
        if isinstance(step.layer, Head):
            return step
        with np.errstate(all="ignore"):
            y, dx = formula(step.inputs[0], step.d_output)
        assert y.dtype == dx.dtype == step.output.dtype
        return replace(step, output=y, d_inputs=(dx,))

    return Altered(change)


def gelu_by_erf(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exact GELU by (1 + erf(x / sqrt 2)) / 2, which cancels on the left."""
    t = x.dtype.type
    cdf = (t(1) + special.erf(x * t(np.sqrt(0.5)))) * t(0.5)
    return x * cdf, dy * (cdf + x * np.exp(-x * x / t(2)) * t(1 / np.sqrt(2 * np.pi)))


def elu_by_expm1(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ELU with the derivative y + 1, which cancels on the left."""
    t = x.dtype.type
    return np.where(x > 0, x, np.expm1(x)), dy * np.where(x > 0, t(1), np.expm1(x) + t(1))


def silu_by_quotient(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SiLU with the sigmoid as 1 / (1 + e^-x), where e^-x overflows on the left."""
    t = x.dtype.type
    s = t(1) / (t(1) + np.exp(-x))
    return x * s, dy * (s * (t(1) + x * (t(1) - s)))


def findings(adapter: Adapter, case: Case, *precisions: str) -> dict[str, Finding]:
    """Run a case and return what is found, by tensor."""
    run = Run([adapter], 1, 0, precisions, None, None)
    run.examine(case)
    report = run.report()
    assert report.compared > 0
    assert report.known == ()
    return {finding.tensor: finding for finding in report.findings}


def at(layer: Any, *points: float) -> At:
    return At(Network((3,), (layer,), Head("linear", "half_squared_error", "sum")), 1, points=points)


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("points", [(-8.0, -7.0, -6.0), (-8.0,), (-5.0, -8.0)])
def test_the_lost_tail_of_gelu_is_imprecise(points: tuple[float, ...], precision: str) -> None:
    """Exact GELU by 1 + erf at -8 is `imprecise` in output and gradient, with digits lost and an input named."""
    found = findings(computed(gelu_by_erf), at(bp.GELU(), *points), precision)
    assert {tensor: finding.verdict for tensor, finding in found.items()} == {"output": "imprecise", "dx": "imprecise"}
    for finding in found.values():
        assert finding.excess > 1
        assert finding.digits > 1
        assert finding.diagnosis.code == "digits-lost"
        assert f"loses about {finding.digits:.1f} decimal digits" in finding.diagnosis.sentence
        assert "worst at input -" in finding.diagnosis.sentence


@pytest.mark.parametrize("precision", BOTH)
def test_torch_loses_the_tail_of_gelu_the_same_way(precision: str) -> None:
    """Torch's own exact GELU at -8 is `imprecise`, jax's agrees."""
    case = at(bp.GELU(), -8.0, -7.0, -6.0)
    assert {f.verdict for f in findings(real("torch"), case, precision).values()} == {"imprecise"}
    assert findings(real("jax:jit"), case, precision) == {}


@pytest.mark.parametrize(("layer", "formula", "tensor", "point", "precision"), [
    (bp.GELU(), gelu_by_erf, "output", -8.0, "float64"),
    (bp.GELU(), gelu_by_erf, "output", -8.0, "float32"),
    (bp.ELU(), elu_by_expm1, "dx", -40.0, "float64"),
    (bp.ELU(), elu_by_expm1, "dx", -20.0, "float32"),
    (bp.SiLU(), silu_by_quotient, "output", -89.0, "float32"),
    (bp.SiLU(), silu_by_quotient, "dx", -89.0, "float32"),
    (bp.SiLU(), silu_by_quotient, "output", -710.0, "float64"),
])
def test_a_lost_tail_held_to_its_digits_is_imprecise(layer: Any, formula: Formula, tensor: str, point: float,
                                                     precision: str) -> None:
    """Against a truth that grants it no more than eight ulps, a tail that was lost altogether is `imprecise`, not `wrong`."""
    losses = {}
    for name in BOTH:
        trace = computed(formula).run(replace(at(layer, point), precision=name))
        truth = computed(formula).base.run(replace(at(layer, point), precision="float64")).layers[0]
        p, step = precision_named(name), trace.layers[0]
        y, backward = layer.forward({}, truth.inputs[0])
        right = {"output": y, "dx": backward(step.d_output.astype(np.float64))[0]}[tensor]
        sharp = Rounded(right, 16 * p.store * np.abs(right), Arithmetic(p))
        losses[name] = LostDigits.of(step, compare(step, tensor, tensors(step)[tensor], sharp, p), p)
    assert losses[precision].digits > 1
    partner = PARTNERS[precision]
    assert classify(losses[precision], losses[partner], PRECISIONS[precision], PRECISIONS[partner]) == "imprecise"


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize("points", [(-40.0, -20.0, -30.0), (-40.0,), (-40.0, 1.0, -0.1)])
@pytest.mark.parametrize("adapter", [computed(elu_by_expm1), real("jax:jit")], ids=["planted", "jax:jit"])
def test_the_lost_tail_of_elu_is_imprecise(adapter: Adapter, points: tuple[float, ...], precision: str) -> None:
    """The derivative of ELU as expm1(x) + 1, which is 0 at -40, is `imprecise` in the gradient alone; jax forms it so."""
    found = findings(adapter, at(bp.ELU(), *points), precision)
    assert {tensor: finding.verdict for tensor, finding in found.items()} == {"dx": "imprecise"}
    assert found["dx"].digits > 6
    assert found["dx"].diagnosis.code == "digits-lost"


def test_torch_keeps_the_tail_of_elu() -> None:
    """Torch forms the derivative of ELU by e^x, which keeps its digits at -40."""
    assert findings(real("torch"), at(bp.ELU(), -40.0, -20.0, -30.0), *BOTH) == {}


@pytest.mark.parametrize("precision", BOTH)
@pytest.mark.parametrize(("adapter", "points"), [
    (computed(silu_by_quotient), (-89.0, -88.0, -90.0)),
    (computed(silu_by_quotient), (-710.0, -709.0)),
    (real("torch"), (-89.0, -88.0, -90.0)),
    (real("jax:jit"), (-89.0, -88.0, -90.0)),
])
def test_the_underflow_of_silu_is_not_called_wrong(adapter: Adapter, points: tuple[float, ...], precision: str) -> None:
    """SiLU at -89 in float32 is at worst `imprecise`: its sigmoid is subnormal there, which may be flushed to 0."""
    assert {finding.verdict for finding in findings(adapter, at(bp.SiLU(), *points), precision).values()} <= {"imprecise"}


@pytest.mark.parametrize("points", [(20.5,), (22.0, 21.0, 20.25), (20.5, 1.0, -3.0)])
def test_softplus_above_its_threshold_is_wrong_in_float64(points: tuple[float, ...]) -> None:
    """Torch's softplus returns x itself past 20: in float64 `wrong`, in float32 within rounding."""
    case = at(bp.Softplus(), *points)
    found = findings(real("torch"), case, "float64")
    assert {tensor: finding.verdict for tensor, finding in found.items()} == {"output": "wrong", "dx": "wrong"}
    assert float(found["dx"].step.inputs[0][found["dx"].index]) > 20 if found["dx"].step is not None else False
    assert findings(real("torch"), case, "float32") == {}
    assert findings(real("jax:jit"), case, *BOTH) == {}


def test_a_constant_kept_in_single_precision_is_wrong_in_float64() -> None:
    """Torch's hardsigmoid multiplies by a float32 1/6: in float64 `wrong`, in float32 within rounding."""
    case = at(bp.Hardsigmoid(), 0.5, 1.0, -1.0)
    found = findings(real("torch"), case, "float64")
    assert {tensor: finding.verdict for tensor, finding in found.items()} == {"dx": "wrong"}
    assert found["dx"].excess > 1e6
    assert findings(real("torch"), case, "float32") == {}
    assert findings(real("jax:jit"), case, *BOTH) == {}


def off_by(part: float, only: tuple[str, ...] = tuple(PRECISIONS)) -> Change:
    """Return a change that multiplies every tensor of every step by 1 + part, where it is held in one of these formats."""
    dtypes = {precision_named(name).dtype for name in only}

    def scaled(array: np.ndarray) -> np.ndarray:
        return (array.astype(np.float64) * (1 + part)).astype(array.dtype)

    def change(step: LayerTrace) -> LayerTrace:
        if step.output.dtype not in dtypes:
            return step
        return replace(step, output=scaled(step.output), d_inputs=tuple(scaled(d) for d in step.d_inputs),
                       d_params={name: scaled(d) for name, d in step.d_params.items()})

    return change


MIXED = Network((5,), (Linear(4), bp.Tanh(), Linear(3, bias=False), bp.Softmax()), CrossEntropyLoss())
TENSORS = {(layer, tensor) for layer, named in (("Linear", ("output", "dx", "dweight", "dbias")), ("Tanh", ("output", "dx")),
                                                ("Softmax", ("output", "dx")), ("CrossEntropyLoss", ("output", "dz")))
           for tensor in named}


def verdicts(change: Change, *precisions: str) -> dict[tuple[str, str], str]:
    """Run the mixed network with a change and return the verdict of each layer and tensor."""
    run = Run([Altered(change)], 1, 0, precisions, None, None)
    run.examine(Case(MIXED, 2, batch=6))
    return {(finding.layer, finding.tensor): finding.verdict for finding in run.report().findings}


@pytest.mark.parametrize("precision", BOTH)
def test_one_part_in_ten_thousand_is_wrong(precision: str) -> None:
    """A formula off by 1e-4 is `wrong` in float64 and in float32, in every tensor of every layer and of the head."""
    assert verdicts(off_by(1e-4), precision) == dict.fromkeys(TENSORS, "wrong")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_sign_is_wrong_in_half_precision(precision: str) -> None:
    """A formula of the opposite sign is `wrong` in bfloat16 and float16 too, though float32 is but 13 bits finer."""
    assert verdicts(off_by(-2.0), precision) == dict.fromkeys(TENSORS, "wrong")


def test_digits_lost_in_one_precision_only_are_imprecise() -> None:
    """An error of 1e-4 in float32 that float64 does not have shrinks with precision: `imprecise`."""
    assert set(verdicts(off_by(1e-4, only=("float32",)), *BOTH).values()) == {"imprecise"}


@pytest.mark.parametrize(("here", "there", "verdict"), [
    (1.0, 1.0, "imprecise"),
    (FEW_ROUNDOFFS, FEW_ROUNDOFFS, "imprecise"),
    (1e6, 1e6, "imprecise"),
    (1e6, 1e3, "imprecise"),
    (1e12, 1e12 / 2**29, "wrong"),
    (1e12 / 2**29, 1e12, "wrong"),
    (HALF, 0.0, "imprecise"),
    (1.25 * HALF, 0.0, "wrong"),
    (0.0, HALF, "imprecise"),
    (0.0, 1.25 * HALF, "wrong"),
    (FEW_ROUNDOFFS, None, "imprecise"),
    (2 * FEW_ROUNDOFFS, None, "wrong"),
])
def test_classify_goes_by_the_growth_of_the_error(here: float, there: float | None, verdict: str) -> None:
    """Errors of about as many roundoffs in both precisions are lost digits; without a partner only a few roundoffs are."""
    partner = None if there is None else LostDigits(there, 0.0)
    assert classify(LostDigits(here, 0.0), partner, PRECISIONS["float32"], PRECISIONS["float64"]) == verdict


def test_a_loss_measures_roundoffs_and_digits() -> None:
    """`Loss.of` counts the error in unit roundoffs of the layer's scale and the decimal digits gone, of what is outside alone."""
    p = precision_named("float64")
    x = np.array([[1.0, 4.0]])
    step = LayerTrace("layers.0", bp.Identity(), (x,), x, (x,), x, {}, {})
    truth = Rounded(x, np.array([[1e-3, 2.0**-53]]), Arithmetic(p))
    loss = LostDigits.of(step, compare(step, "output", np.array([[1.0 + 2**-20, 4.0 + 2**-20]]), truth, p), p)
    assert loss.roundoffs == 2.0**-20 / 4 * 2**53
    assert loss.digits == np.log10(2.0**-20 / 4 * 2**53)
    assert LostDigits.of(step, compare(step, "output", x, truth, p), p) == LostDigits(0.0, 0.0)


TINY = 2.0**-20


def lost(layer: Any, value: Any, actual: Any, *, x: Any = (0.25,), dy: Any = (0.25,), bound: Any = 0.0, tensor: str = "output",
         precision: str = "float64", kinks: str = "own") -> tuple[float, float]:
    """Return the roundoffs and digits that a tensor of these numbers has lost, as a certificate by hand that fails."""
    p = precision_named(precision)
    inputs, dys = np.asarray(x, p.dtype), np.asarray(dy, p.dtype)
    step = LayerTrace("layers.0", layer, (inputs,), inputs, (inputs,), dys, {}, {})
    truth = Rounded(np.asarray(value, np.float64), np.asarray(bound, np.float64), Arithmetic(p, kinks))
    found = Certificate("layers.0", layer, tensor, "outside", 1, actual=np.asarray(actual, p.dtype), ball=truth)
    loss = LostDigits.of(step, found, p)
    return loss.roundoffs * p.store, loss.digits


def test_an_elementwise_layer_is_measured_entry_by_entry() -> None:
    """The error of an entry is set against that entry's own input and output, whichever is larger, not against the largest."""
    assert lost(bp.Softplus(), [2, 16], [2 + TINY, 16], x=[0.5, 16])[0] == TINY / 2
    assert lost(bp.Softplus(), [2, 16], [2 + TINY, 16], x=[4, 16])[0] == TINY / 4


def test_another_layer_is_measured_by_its_largest_number() -> None:
    """The error of any entry is set against the largest finite true value, whatever is smaller goes in."""
    assert lost(Linear(2), [0.5, 0.125], [0.5, 0.125 + TINY])[0] == TINY / 0.5
    assert lost(Linear(2), [np.inf, 0.5], [np.inf, 0.5 + TINY])[0] == TINY / 0.5


def test_the_bound_is_a_scale_where_a_layer_has_no_simple_one() -> None:
    """A layer that is neither element-wise nor linear nor a head is measured by its largest finite bound, if that says more."""
    values = {"value": [4, 1], "actual": [4 + 0.75, 1 + TINY], "bound": [0.5, 0]}
    assert lost(bp.Softmax(), **values)[0] == 0.75 * 2.0**-53 / (0.5 * (1 + 2.0**-20))
    assert lost(bp.Softmax(), **values | {"bound": [np.inf, 0]})[0] == TINY / 4
    assert lost(bp.Softmax(), [2, 1], [2, 1 + TINY], bound=2.0**-60)[0] == TINY / 2
    assert lost(Linear(2), **values)[0] == lost(Head("linear", "l1"), **values)[0] == 0.75 / 4


def test_only_entries_outside_count() -> None:
    """An entry on the edge of its ball has lost nothing, however wide the ball."""
    wide = 0.5 * (1 + 2.0**-20)
    assert lost(Linear(2), [0, 1], [wide, 1 + TINY], bound=[0.5, 0]) == (TINY, np.log10(TINY * 2**53))
    assert lost(Linear(2), [0, 1], [np.nextafter(wide, 1), 1 + TINY], bound=[0.5, 0])[0] == np.nextafter(wide, 1)


def test_digits_are_relative_to_the_true_value() -> None:
    """All digits are gone where nothing of the true value is left, none where the error is below a roundoff; 0 has no digits."""
    everything = np.log10(2.0**53)
    assert lost(Linear(2), [0, 1], [1, 1 + TINY])[1] == np.log10(TINY * 2**53)
    assert lost(Linear(2), [TINY, 1], [1, 1])[1] == everything
    assert lost(Linear(2), [TINY, 1], [0, 1])[1] == everything
    assert lost(Linear(2), [1, 1 + 2.0**-30], [1, 1], precision="float32") == (2.0**-30 / (1 + 2.0**-30), 0.0)


def test_the_width_of_a_hull_is_no_rounding() -> None:
    """What the bound of a layer that follows its numbers says of their size is taken for rounding; the width of a tie is none."""
    wide = {"bound": [0.25, 0.0], "x": [1, 1], "dy": [1, 1], "tensor": "dx"}
    for kinks, scale in (("own", 0.25 * (1 + 2.0**-20) * 2**53), ("hull", 1)):
        assert lost(bp.MaxPool1d(2), [1, 1], [1, 1 + TINY], kinks=kinks, **wide)[0] == TINY / scale


def test_a_certificate_without_its_numbers_has_lost_nothing() -> None:
    """Where the tensor or its truth was not kept there is nothing to measure."""
    p, x = precision_named("float64"), np.ones((1, 2))
    step = LayerTrace("layers.0", bp.Identity(), (x,), x, (x,), x, {}, {})
    for kept in ({"actual": x + 1}, {"ball": Arithmetic(p).exact(x)}):
        assert LostDigits.of(step, Certificate("layers.0", bp.Identity(), "output", "outside", 2, **kept), p) == LostDigits(0.0, 0.0)


def scaled(layer: Any, inputs: Any, dys: Any, tensor: str, **params: Any) -> Any:
    arrays = tuple(np.asarray(x, np.float32) for x in inputs)
    upstream = tuple(None if dy is None else np.asarray(dy, np.float32) for dy in dys)
    weights = {name: np.asarray(p, np.float32) for name, p in params.items()}
    return natural_scale(LayerTrace("layers.0", layer, arrays, None, arrays, upstream, weights, {}), tensor)


X, DY = [[1.0, -3.0]], [[-0.5, 0.25]]


@pytest.mark.parametrize(("layer", "inputs", "dys", "params", "scales"), [
    (bp.PReLU(), [X], [DY], {"weight": [-2.0]}, {"output": [[1, 3]], "dx": [[0.5, 0.25]], "dweight": 1.5}),
    (Linear(2), [X], [DY], {"weight": [[-2.0, 1.0]], "bias": [9.0]}, {"output": 6, "dx": 1, "dweight": 1.5, "dbias": 0.5}),
    (Linear(2), [[[np.inf, 3.0]]], [[[np.nan, 0.5]]], {"weight": [[-2.0, -np.inf]]}, {"output": 6, "dx": 1, "dweight": 1.5}),
    (bp.BatchNorm(training=False), [[[0.0, 0.0]]], [DY], {"weight": [2.0, 1.0], "running_mean": [0.25, -4.0]},
     {"output": 8, "dweight": 2.0}),
    (bp.Softmax(), [X], [DY], {}, {"output": 3, "dx": 0.5}),
    (bp.Add(), [X, [[5.0, 0.0]]], [DY], {}, {"output": 5, "dx_0": 0.5}),
    (bp.Fork(2), [X], [None, DY], {}, {"output": 3, "dx": 0.5}),
    (bp.Fork(2), [X], [None, None], {}, {"dx": 0}),
    (Head("linear", "l1"), [[*X, *X], X], [0.5], {}, {"output": 3, "dz": 0.125}),
    (Head("linear", "l1", "sum"), [[*X, *X], X], [-0.5], {}, {"output": 3, "dz": 0.5}),
    (Head("linear", "l1"), [np.zeros((0, 2)), np.zeros((0, 2))], [-0.5], {}, {"output": 0, "dz": 0.5}),
])
def test_the_natural_scale_is_the_size_of_what_is_multiplied(layer: Any, inputs: Any, dys: Any, params: Any, scales: Any) -> None:
    """Entry by entry for an element-wise layer, else the largest finite x, dy, weight, and a mean's dy over the entries it is of."""
    for tensor, scale in scales.items():
        assert np.array_equal(scaled(layer, inputs, dys, tensor, **params), scale)


def test_every_precision_has_a_partner() -> None:
    """Every precision is paired with another one of the table, so far off that a few roundoffs in both are no growth."""
    assert PARTNERS.keys() == PRECISIONS.keys()
    assert all(partner in PRECISIONS and partner != name for name, partner in PARTNERS.items())
    assert all(comparable(PRECISIONS[name], PRECISIONS[partner]) > FEW_ROUNDOFFS for name, partner in PARTNERS.items())
