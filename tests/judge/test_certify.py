"""Local certificates: mistakes planted into real traces are caught and blamed; what is right, or a valid subgradient, is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify, certify_layer, certify_step
from backproof.judge.comparing import compare
from backproof.judge.end_to_end import certify_end_to_end
from backproof.judge.neighbourhood import Neighbourhood
from backproof.judge.rules import expected, expected_plain, tensors
from backproof.judge.subgradients import conserves
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, Head, MSELoss
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import BOUND_SLACK, Arithmetic, Rounded, precision_named
from backproof.reference.trace import LayerTrace, Trace, Wired

LAYERS = (Linear(6), bp.ReLU(), Linear(6, bias=False), bp.PReLU(6), Linear(8), bp.SwiGLU(), Linear(3), bp.Softmax())
NETWORKS = {str(head): Network((5,), LAYERS, head) for head in (
    MSELoss(), CrossEntropyLoss(), Head("tanh", "huber"), Head("sigmoid", "bce", "sum"), Head("linear", "l1"))}
FIRST = next(iter(NETWORKS.values()))
PLACES = [(path, tensor) for path, layer, shape in ((s.path, s.layer, FIRST.graph.shapes[s.inputs[0]]) for s in FIRST.steps)
          for tensor in ("output", "dx", *(f"d{name}" for name in layer.parameters(shape)))]
PLACES += [("head", "output"), ("head", "dz")]
PART = 1e-3
FLOAT64 = precision_named("float64")

every_place = pytest.mark.parametrize(("path", "tensor"), PLACES)
every_precision = pytest.mark.parametrize("precision", ["float64", "float32"])


@cache
def traced(adapter: str, case: Case) -> Trace:
    return load(adapter).run(case)


def step_of(trace: Trace, path: str) -> LayerTrace:
    return next(step for step in trace.layers if step.path == path)


def planted(trace: Trace, path: str, **changes: Any) -> Trace:
    """Return the trace with fields of one layer's step replaced."""
    return replace(trace, layers=tuple(replace(step, **changes) if step.path == path else step for step in trace.layers))


def with_tensor(trace: Trace, path: str, tensor: str, value: Any) -> Trace:
    """Return the trace with one tensor replaced, which is named as in a certificate."""
    if tensor == "output":
        return planted(trace, path, output=value)
    if tensor in {"dx", "dz"}:
        return planted(trace, path, d_inputs=(value,))
    return planted(trace, path, d_params={**step_of(trace, path).d_params, tensor[1:]: value})


def nudged(array: np.ndarray, by: float) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the array with its largest entry multiplied, and where that is."""
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(array))), array.shape))
    wrong = array.copy()
    wrong[at] *= array.dtype.type(by)
    return wrong, at


def failed(certificates: list[Certificate]) -> list[tuple[str, str, str]]:
    return [(c.path, c.tensor, c.verdict) for c in certificates if c.failed]


def the_failed(certificates: list[Certificate]) -> Certificate:
    (certificate,) = (c for c in certificates if c.failed)
    return certificate


def one_layer(layer: Any, x: Any, dy: Any, dtype: Any = np.float64, **params: Any) -> LayerTrace:
    """Return the step of one layer on these numbers, as the reference itself computes it, held in `dtype`."""
    arrays = {name: np.asarray(value, dtype) for name, value in params.items()}
    x, dy = np.asarray(x, dtype), np.asarray(dy, dtype)
    with np.errstate(all="ignore"):
        y, backward = layer.forward(arrays, x)
        dx, d_params = backward(dy)
    return LayerTrace("layers.0", layer, (x,), np.asarray(y, dtype), (np.asarray(dx, dtype),), dy, arrays,
                      {name: np.asarray(d, dtype) for name, d in d_params.items()})


@every_precision
@pytest.mark.parametrize("head", NETWORKS)
def test_nothing_is_found_in_a_correct_trace(head: str, precision: str) -> None:
    """Before anything is planted every certificate agrees, and every entry of every tensor was compared."""
    trace = traced("torch", Case(NETWORKS[head], 1, precision=precision))
    certificates = certify(trace, precision_named(precision))
    assert [(c.path, c.tensor) for c in certificates] == PLACES
    assert all(c.layer == step_of(trace, c.path).layer for c in certificates)
    assert {c.verdict for c in certificates} == {"agrees"}
    assert [c.compared for c in certificates] == [tensors(step_of(trace, path))[tensor].size for path, tensor in PLACES]
    assert all(0 <= c.excess == c.margin <= 1 for c in certificates)


@every_precision
@pytest.mark.parametrize("head", NETWORKS)
@every_place
def test_one_entry_off_by_a_thousandth_is_caught_and_blamed(path: str, tensor: str, head: str, precision: str) -> None:
    """One entry of one tensor off by 1e-3 fails that certificate alone, with its index and its numbers."""
    trace = traced("torch", Case(NETWORKS[head], 1, precision=precision))
    right = tensors(step_of(trace, path))[tensor]
    wrong, at = nudged(right, 1 + PART)
    found = the_failed(certify(with_tensor(trace, path, tensor, wrong), precision_named(precision)))
    assert (found.path, found.tensor, found.verdict, found.index, found.outside) == (path, tensor, "outside", at, 1)
    assert found.layer == step_of(trace, path).layer
    assert found.compared == right.size
    assert found.excess > 1 >= found.margin
    assert found.actual is wrong
    assert found.ball is not None
    assert abs(float(found.ball.value[at]) - float(right[at])) <= found.ball.radius()[at]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@every_place
def test_a_doubled_tensor_is_caught_in_half_precision(path: str, tensor: str, precision: str) -> None:
    """A factor of two in one tensor fails that certificate alone where numbers have eight or eleven bits."""
    trace = traced("torch", Case(FIRST, 1, precision=precision))
    assert failed(certify(trace, precision_named(precision))) == []
    doubled = tensors(step_of(trace, path))[tensor]
    doubled = (doubled * doubled.dtype.type(2)).astype(doubled.dtype)
    found = failed(certify(with_tensor(trace, path, tensor, doubled), precision_named(precision)))
    assert found == [(path, tensor, "outside")]


@pytest.mark.parametrize("adapter", ["torch", "jax:jit"])
@every_place
def test_looking_at_neighbours_hides_no_mistake(path: str, tensor: str, adapter: str) -> None:
    """What is granted to compilers that fuse layers does not cover an entry off by 1e-3 in float64."""
    trace = traced(adapter, Case(FIRST, 1))
    assert failed(certify(trace, FLOAT64, fused=True)) == []
    wrong, at = nudged(tensors(step_of(trace, path))[tensor], 1 + PART)
    found = the_failed(certify(with_tensor(trace, path, tensor, wrong), FLOAT64, fused=True))
    assert (found.path, found.tensor, found.verdict, found.index) == (path, tensor, "outside", at)


WIDE = bp.Hardtanh(-64.0, 64.0)


def around(*between: Any) -> Trace:
    """Return a trace of layers between two linear ones, on numbers that are far from the kinks of WIDE and from 0."""
    network = Network((1,), (Linear(1), *between, Linear(1)), MSELoss())
    for seed in range(99):
        trace = traced("torch", Case(network, seed, batch=1))
        arrays = [a for step in trace.layers[1:-1] for a in (*step.inputs, *step.outputs, *step.d_inputs, *step.d_outputs)]
        if all(2.0**-6 < float(np.abs(a).min()) <= float(np.abs(a).max()) < 32 for a in arrays):
            return trace
    raise AssertionError("no such numbers")


def moved(trace: Trace, to: int, tensor: str) -> Trace:
    """Record what goes into layer `to` a rounding off, from the first layer on or from the last one back, but not what comes out."""
    layers = list(trace.layers)
    if tensor == "output":
        off = layers[0].output + np.spacing(np.abs(layers[0].output))
        for i in range(to):
            layers[i], layers[i + 1] = replace(layers[i], output=off), replace(layers[i + 1], inputs=(off,))
    else:
        off = layers[-2].d_inputs[0] + np.spacing(np.abs(layers[-2].d_inputs[0]))
        for i in range(len(layers) - 3, to - 1, -1):
            layers[i + 1], layers[i] = replace(layers[i + 1], d_inputs=(off,)), replace(layers[i], d_output=off)
    return replace(trace, layers=tuple(layers))


@dataclass(frozen=True)
class Twofold(Layer):
    """The identity as the double of the half, which may underflow: it rounds, if hardly anything."""

    def forward(self, params: Any, x: Any) -> Any:
        return x * 0.5 * 2, lambda dy: (dy * 0.5 * 2, {})


def rounding(trace: Trace) -> Trace:
    """Put a layer that may round in the place of each that hands on what it gets."""
    return replace(trace, layers=tuple(replace(step, layer=Twofold()) if isinstance(step.layer, bp.Identity) else step
                                       for step in trace.layers))


@pytest.mark.parametrize("tensor", ["output", "dx"])
@pytest.mark.parametrize(("between", "rounds"), [(1, False), (2, False), (2, True), (3, False), (3, True), (5, False)])
def test_neighbours_explain_another_rounding_at_most_two_layers_away(between: int, rounds: bool, tensor: str) -> None:
    """A layer that took a number before it was rounded is outside on its own, and agrees together with the layer that made it.

    Layers that round nothing, Identity here, do not count.
    """
    others = (bp.Identity(),) * (between - 1)
    to, layers = (between, (*others, WIDE)) if tensor == "output" else (1, (WIDE, *others))
    trace = moved(around(*layers), to, tensor)
    trace, away = (rounding(trace), between) if rounds else (trace, 1)
    alone, together = certify(trace, FLOAT64), certify(trace, FLOAT64, fused=True)
    assert failed(certify_step(trace, to, FLOAT64)) == failed(alone)
    outside = [(f"layers.{to}", tensor, "outside")]
    assert failed(alone) == outside
    assert failed(together) == (outside if away > 2 else [])
    assert [(c.path, c.tensor) for c in together] == [(c.path, c.tensor) for c in alone]
    if away <= 2:
        (found,) = (c for c in together if (c.path, c.tensor) == (f"layers.{to}", tensor))
        nearest = Neighbourhood(trace, FLOAT64).expected(to, away)[tensor]
        assert found == compare(trace.layers[to], tensor, tensors(trace.layers[to])[tensor], nearest, FLOAT64)
        assert 0 < found.excess <= 1


def test_neighbours_explain_both_tensors_of_a_layer() -> None:
    """Also where nothing of a layer agrees together with the nearest neighbours, those behind them are asked."""
    trace = moved(moved(around(bp.Identity(), WIDE, bp.Identity()), 2, "output"), 2, "dx")
    assert failed(certify(trace, FLOAT64)) == [("layers.2", "output", "outside"), ("layers.2", "dx", "outside")]
    assert failed(certify(trace, FLOAT64, fused=True)) == []


def cancelling(layer: Any, x: Any, dx: Any) -> Trace:
    """Return a layer before a linear one whose gradient cancels to 2, and so is 2 only up to 200 roundoffs; the layer's own is dx."""
    weight, one = np.array([[100.0], [-98.0]], np.float32), np.ones((1, 2), np.float32)
    first = one_layer(layer, x, np.full((1,) * x.ndim, 2.0), np.float32)
    first = replace(first, d_inputs=(np.asarray(dx, np.float32),))
    hidden = first.output.reshape(1, 1)
    second = one_layer(Linear(2, bias=False), hidden, one, np.float32, weight=weight)
    assert second.d_inputs[0].item() == 2
    flat = replace(one_layer(bp.Flatten(), first.output, hidden * 0 + 2, np.float32), path="layers.1")
    layers = (first, flat, replace(second, path="layers.2"))
    return Trace(first.output, layers, tuple(Wired((f"w{i}",), (f"w{i + 1}",)) for i in range(3)))


OFF = 2 * (1 + 100 * 2.0**-24)  # as another order of the sum may give it


@pytest.mark.parametrize(("layer", "x", "dx"), [
    (bp.LeakyReLU(0.25), [[0.0]], [[OFF]]), (bp.MaxPool1d(2), [[[1.0, 1.0]]], [[[0.0, OFF]]]),
    (bp.MaxPool1d(2), [[[1.0, 1.0]]], [[[OFF / 2, OFF / 2]]]),
], ids=["slope", "first", "shared"])
def test_neighbours_explain_another_rounding_at_a_kink(layer: Any, x: Any, dx: Any) -> None:
    """Any subgradient of what a neighbour may have handed on is accepted; a tie that hands on more than that is not."""
    trace, float32 = cancelling(layer, np.asarray(x), np.asarray(dx)), precision_named("float32")
    assert failed(certify(trace, float32)) == [("layers.0", "dx", "outside")]
    assert failed(certify(trace, float32, fused=True)) == []
    twice = planted(trace, "layers.0", d_inputs=(np.full_like(trace.layers[0].d_inputs[0], OFF + 0.25),))
    assert failed(certify(twice, float32, fused=True)) == [("layers.0", "dx", "outside")]


BRANCHES = bp.Sequential((bp.Parallel((Linear(2), bp.Identity())), bp.Concatenate(-1)))


def test_neighbours_reach_a_loss_behind_layers_that_round_nothing() -> None:
    """XLA adds the loss's gradient 2 (z - y) dJ to a branch's before it rounds that product, which the trace has rounded."""
    case = Case(Network((8,), (bp.Softmax(), bp.Hardswish(), BRANCHES), MSELoss(reduction="sum")), 2163520159, regime="tiny", batch=3,
                precision="float32")
    trace, float32 = traced("jax:jit", case), precision_named("float32")
    fork, head = (step_of(trace, path) for path in ("layers.1.fork", "head"))
    z, y = (a[:, 2:].astype(np.float32) for a in head.inputs)
    product = 2.0 * (z - y).astype(np.float64) * float(head.d_output)
    unrounded = (product + step_of(trace, "layers.2.0.0").d_inputs[0]).astype(np.float32)
    assert np.array_equal(fork.d_inputs[0], unrounded)
    assert failed(certify(trace, float32)) == [("layers.1.fork", "dx", "outside")]
    assert failed(certify(trace, float32, fused=True)) == []


WEIGHT = bp.Shared(Linear(16, bias=False), "key")
TIED = Network((16,), (WEIGHT, WEIGHT), MSELoss())
FORK = "@key.weight.fork"


def contracted(first: LayerTrace, second: LayerTrace) -> np.ndarray:
    """Return the sum of two layers' dy x^T for a batch of 1, the second product not rounded, as a fused multiply-add leaves it."""
    dy, x, other_dy, other_x = (a.ravel() for step in (first, second) for a in (step.d_output, step.inputs[0]))
    return np.array([[float(Fraction(d * u) + Fraction(other_d) * Fraction(v)) for u, v in zip(x, other_x, strict=True)]
                     for d, other_d in zip(dy, other_dy, strict=True)])


def test_neighbours_explain_the_gradient_of_a_shared_weight_with_unrounded_products() -> None:
    """XLA adds the products of a batch of 1 by multiply-adds: where they nearly cancel, what the recorded ones were rounded by is left."""
    trace = traced("torch", Case(TIED, 0, batch=1))
    first, second = (step_of(trace, f"layers.{i}") for i in range(2))
    right, outside = contracted(second, first), [(FORK, "dx", "outside")]
    assert failed(certify(planted(trace, FORK, d_inputs=(right,)), FLOAT64)) == outside
    assert failed(certify(planted(trace, FORK, d_inputs=(right,)), FLOAT64, fused=True)) == []
    forgotten, off = first.d_params["weight"], nudged(right, 1 + PART)[0]
    for wrong in (forgotten, off):
        assert failed(certify(planted(trace, FORK, d_inputs=(wrong,)), FLOAT64, fused=True)) == outside


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_a_shared_weight_agree_after_xla_has_fused_them(seed: int, precision: str) -> None:
    """The very case: a batch of 1 through one weight of 16 x 16 twice."""
    case = Case(TIED, seed, batch=1, precision=precision)
    assert failed(certify(traced("jax:jit", case), precision_named(precision), fused=True)) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_slope_formed_from_the_saved_output_agrees(seed: int) -> None:
    """jax differentiates log(1 + e^x) as e^(x - y): at x = 33 the rounding of y is 14 roundoffs of the slope, and no mistake."""
    case = Case(Network((16,), (), Head("linear", "soft_margin")), seed, "saturated", 16)
    trace = traced("jax:jit", case)
    assert failed(certify(trace, FLOAT64, fused=True)) == []
    off, _ = nudged(trace.layers[-1].d_inputs[0], 1 + 1e-12)
    assert failed(certify(with_tensor(trace, "head", "dz", off), FLOAT64, fused=True)) == [("head", "dz", "outside")]


ZEROS = Network((3,), (bp.LeakyReLU(0.25),), MSELoss())
ZERO_CASE = Case(ZEROS, 1, "zeros")


def test_another_subgradient_at_a_kink_is_a_convention() -> None:
    """`leaky_relu` at exactly 0 has slope 1 in jax: a convention of all twelve entries; torch has the reference's own."""
    jax_trace, torch_trace = (traced(name, ZERO_CASE) for name in ("jax:jit", "torch"))
    assert not jax_trace.layers[0].inputs[0].any()
    assert jax_trace.layers[0].d_output.all()
    assert jax_trace.layers[0].d_inputs[0].tobytes() == jax_trace.layers[0].d_output.tobytes()
    verdicts = {c.tensor: c for c in certify(jax_trace, FLOAT64) if c.path == "layers.0"}
    assert verdicts["output"].verdict == "agrees"
    convention = verdicts["dx"]
    assert (convention.verdict, convention.compared, convention.conventions, convention.outside) == ("convention", 12, 12, 0)
    assert convention.excess <= 1
    assert not convention.failed
    assert convention.actual is jax_trace.layers[0].d_inputs[0]
    assert {c.verdict for c in certify(torch_trace, FLOAT64)} == {"agrees"}


@pytest.mark.parametrize(("slope", "verdict"), [(0.25, "agrees"), (0.6, "convention"), (1.0, "convention"), (2.0, "outside"),
                                                (0.2, "outside"), (-0.25, "outside"), (0.0, "outside")])
@pytest.mark.parametrize("fused", [False, True])
def test_only_slopes_between_both_sides_are_conventions(slope: float, verdict: str, *, fused: bool) -> None:
    """At the kink of `leaky_relu` any slope from 0.25 to 1 is valid; another one in a single entry is caught there."""
    trace = traced("torch", ZERO_CASE)
    dx = trace.layers[0].d_inputs[0].copy()
    dx[2, 1] = slope * trace.layers[0].d_output[2, 1]
    found = next(c for c in certify(with_tensor(trace, "layers.0", "dx", dx), FLOAT64, fused=fused) if c.tensor == "dx")
    assert found.verdict == verdict
    if verdict != "agrees":
        assert (found.index, found.conventions + found.outside) == ((2, 1), 1)
    whole = certify_end_to_end(with_tensor(trace, "layers.0", "dx", dx), ZERO_CASE, FLOAT64)
    assert [c.verdict for c in whole if c.tensor == "dx"] == ["outside" if verdict == "outside" else "agrees"]
    assert Neighbourhood(trace, FLOAT64).expected(0)["dx"].radius()[2, 1] >= 0.375 * abs(trace.layers[0].d_output[2, 1])


def test_a_convention_beside_a_wrong_output_is_still_one() -> None:
    """Another subgradient is no mistake, though nothing else of the layer agrees."""
    step = one_layer(bp.LeakyReLU(0.25), [[0.0, 1.0]], [[4.0, 1.0]])
    found = certify_layer(replace(step, output=step.output + 1, d_inputs=(np.array([[3.0, 1.0]]),)), FLOAT64)
    assert [(c.tensor, c.verdict) for c in found] == [("output", "outside"), ("dx", "convention")]


def test_a_loss_of_every_example_has_an_upstream_gradient_of_each() -> None:
    """Where nothing is reduced the upstream gradient has the loss's shape, which is the target's or that of z."""
    for head in (CrossEntropyLoss(reduction="none"), MSELoss(reduction="none")):
        trace = traced("torch", Case(Network((5,), (Linear(3),), head), 1))
        assert {c.verdict for c in certify(trace, FLOAT64)} == {"agrees"}
        (found,) = certify_layer(replace(trace.layers[-1], d_output=np.float64(1)), FLOAT64)
        assert found.message == f"wrong shape of d_output 0: got (), expected {trace.layers[-1].output.shape}"


def test_a_convention_keeps_what_is_inconclusive() -> None:
    """Entries of which nothing can be said are counted beside those that are another subgradient."""
    step = one_layer(bp.LeakyReLU(0.25), [[0.0, 1.0, 1.0]], [[4.0, np.inf, 1.0]])
    found = certify_layer(replace(step, d_inputs=(np.array([[3.0, np.inf, 1.0]]),)), FLOAT64)[1]
    assert (found.verdict, found.conventions, found.inconclusive, found.outside) == ("convention", 1, 1, 0)
    wide = one_layer(bp.ReLU(), [[0.0, 1.0]], [[4.0, 1.0]])  # the hull, [0, 4], is as wide as the largest number is far from 0
    found = certify_layer(replace(wide, d_inputs=(np.array([[3.0, 1.0]]),)), FLOAT64)[1]
    assert (found.verdict, found.conventions, found.inconclusive, found.outside) == ("convention", 1, 1, 0)


def test_a_mistake_beside_a_convention_is_caught() -> None:
    """Where jax differs by convention in every entry, one entry outside of the hull is still blamed."""
    trace = traced("jax:jit", ZERO_CASE)
    dx = trace.layers[0].d_inputs[0].copy()
    dx[3, 0] *= 2
    found = the_failed(certify(with_tensor(trace, "layers.0", "dx", dx), FLOAT64, fused=True))
    assert (found.tensor, found.verdict, found.index, found.outside) == ("dx", "outside", (3, 0), 1)


def test_a_kink_excuses_nothing_away_from_it() -> None:
    """A tensor with one entry at its kink has no freedom in the others."""
    step = one_layer(bp.ReLU(), [[0.0, 1.0, -1.0]], [[1.0, 2.0, 3.0]])
    for at, value in ((1, 1.0), (2, 1.5)):
        dx = step.d_inputs[0].copy()
        dx[0, at] = value
        found = the_failed(certify_layer(replace(step, d_inputs=(dx,)), FLOAT64))
        assert (found.tensor, found.index) == ("dx", (0, at))


@every_place
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_nonfinite(path: str, tensor: str, value: float) -> None:
    """NaN or infinity where the reference is finite is `nonfinite`, with its index and an infinite excess."""
    trace = traced("torch", Case(FIRST, 1, precision="float32"))
    wrong, at = nudged(tensors(step_of(trace, path))[tensor], 1.0)
    wrong[at] = value
    found = the_failed(certify(with_tensor(trace, path, tensor, wrong), precision_named("float32")))
    assert (found.path, found.tensor, found.verdict, found.index) == (path, tensor, "nonfinite", at)
    assert found.excess == np.inf


@every_place
def test_a_wrong_shape_is_an_error(path: str, tensor: str) -> None:
    """A tensor with one axis too many is an error that says both shapes, and nothing of it counts as compared."""
    trace = traced("torch", Case(FIRST, 1))
    right = tensors(step_of(trace, path))[tensor]
    found = the_failed(certify(with_tensor(trace, path, tensor, right[None]), FLOAT64))
    assert (found.path, found.tensor, found.verdict, found.compared) == (path, tensor, "error", 0)
    assert found.message == f"wrong shape of {tensor}: got {(1, *right.shape)}, expected {right.shape}"
    assert found.actual is not None
    assert found.ball is not None
    assert (found.actual.shape, found.ball.shape) == ((1, *right.shape), right.shape)


@every_place
def test_a_wrong_dtype_is_an_error(path: str, tensor: str) -> None:
    """A tensor of the right numbers in another precision is an error that says both."""
    trace = traced("torch", Case(FIRST, 1))
    right = tensors(step_of(trace, path))[tensor]
    found = the_failed(certify(with_tensor(trace, path, tensor, right.astype(np.float32)), FLOAT64))
    assert (found.path, found.tensor, found.verdict) == (path, tensor, "error")
    assert found.message == f"wrong dtype of {tensor}: got float32, expected float64"
    assert found.actual is not None
    assert found.ball is not None
    assert (found.actual.dtype, found.ball.shape) == (np.float32, right.shape)


@pytest.mark.parametrize("tensor", ["dweight", "dbias"])
def test_a_missing_parameter_gradient_is_an_error(tensor: str) -> None:
    """A parameter without a gradient is an error, whether its key is gone or holds None."""
    trace = traced("torch", Case(FIRST, 1))
    d_params = dict(trace.layers[0].d_params)
    shape = d_params.pop(tensor[1:]).shape
    for missing in (d_params, {**d_params, tensor[1:]: None}):
        found = the_failed(certify(planted(trace, "layers.0", d_params=missing), FLOAT64))
        assert (found.path, found.tensor, found.verdict) == ("layers.0", tensor, "error")
        assert found.message == f"no {tensor} came back: expected an array of shape {shape}"


@pytest.mark.parametrize(("path", "tensor"), [("layers.1", "dx"), ("head", "dz"), ("layers.0", "output"), ("layers.1", "output")])
def test_a_missing_tensor_is_an_error(path: str, tensor: str) -> None:
    """None in the place of an output or of an input's gradient is an error that names it."""
    found = the_failed(certify(with_tensor(traced("torch", Case(FIRST, 1)), path, tensor, None), FLOAT64))
    assert (found.path, found.tensor, found.verdict) == (path, tensor, "error")
    assert found.message.startswith(f"no {tensor} came back: expected an array of shape ")


def test_a_missing_output_is_an_error() -> None:
    """A layer of several outputs that returned fewer lacks the last ones."""
    x = np.ones((2, 3))
    step = LayerTrace("x.fork", bp.Fork(3), (x,), (x, x), (3 * x,), (x, x, x), {}, {})
    found = the_failed(certify_layer(step, FLOAT64))
    assert (found.tensor, found.verdict, found.message) == (
        "output_2", "error", "no output_2 came back: expected an array of shape (2, 3)")


def test_an_extra_gradient_is_an_error() -> None:
    """A gradient of something the layer does not have is an error that lists what it has."""
    trace = traced("torch", Case(FIRST, 1))
    extra = {**trace.layers[0].d_params, "gain": np.zeros(3)}
    found = the_failed(certify(planted(trace, "layers.0", d_params=extra), FLOAT64))
    assert (found.path, found.tensor, found.verdict) == ("layers.0", "dgain", "error")
    assert found.message == "a gradient that the layer does not have: got dgain, expected one of output, dx, dweight, dbias"


def test_overflow_is_inconclusive() -> None:
    """Where float32 may overflow nothing is said: the entry is counted as inconclusive and a finite one beside it is judged."""
    step = one_layer(bp.PReLU(), [[-1e20, -2.0]], [[1.0, 1.0]], np.float32, weight=[1e25])
    assert np.isinf(step.output[0, 0])
    certificate = next(c for c in certify_layer(step, precision_named("float32")) if c.tensor == "output")
    assert (certificate.verdict, certificate.compared, certificate.inconclusive) == ("agrees", 2, 1)
    wrong = replace(step, output=step.output * np.float32([1, 2]))
    found = next(c for c in certify_layer(wrong, precision_named("float32")) if c.tensor == "output")
    assert (found.verdict, found.index, found.inconclusive) == ("outside", (0, 1), 1)


def test_nothing_but_overflow_is_inconclusive_as_a_whole() -> None:
    """A tensor whose every entry may have overflowed is `inconclusive`, whatever numbers came back."""
    step = one_layer(Linear(2, bias=False), [[1e30, 1e30]], [[1.0, 1.0]], np.float32, weight=[[1e30, 1e30], [1e30, -1e30]])
    certificate = next(c for c in certify_layer(step, precision_named("float32")) if c.tensor == "output")
    assert (certificate.verdict, certificate.compared, certificate.inconclusive) == ("inconclusive", 2, 2)
    assert not certificate.failed


def ball(value: Any, bound: Any) -> Rounded:
    return Rounded(np.asarray(value, np.float64), np.asarray(bound, np.float64), Arithmetic(FLOAT64))


STEP = one_layer(bp.Identity(), [1.0], [1.0])


def test_judge_counts_every_entry_once() -> None:
    """Agreeing, outside and inconclusive entries are counted, the worst one is named, the margin is the closest that agreed."""
    truth = ball([10.0, 20.0, 30.0, 40.0, 50.0, np.inf], [1.0, 1.0, 1.0, 2.0, np.inf, 1.0])
    actual = np.array([10.5, 20.0, 33.0, 45.0, 0.0, np.nan])
    found = compare(STEP, "dx", actual, truth, FLOAT64)
    radius = truth.radius()
    assert (found.verdict, found.compared, found.outside, found.inconclusive, found.index) == ("outside", 6, 2, 2, (2,))
    assert found.excess == 3 / radius[2]
    assert found.margin == 0.5 / radius[0]
    assert (found.path, found.layer, found.tensor) == ("layers.0", bp.Identity(), "dx")


def test_judge_goes_by_the_radius_and_nothing_else() -> None:
    """An entry on the edge of its ball agrees, the next number beyond is outside."""
    truth = ball([1.0], [0.25])
    edge = 1.0 + truth.radius()[0]
    inside, beyond = (edge, 2 - edge), (np.nextafter(edge, 2), np.nextafter(2 - edge, 0))
    for actual, verdict in (*((x, "agrees") for x in inside), *((x, "outside") for x in beyond)):
        assert compare(STEP, "dx", np.array([actual]), truth, FLOAT64).verdict == verdict


def test_judge_excuses_entries_and_still_counts_them() -> None:
    """An excused entry is not judged but stays in the count; the others are judged as ever."""
    truth, actual = ball([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), np.array([5.0, 2.0, 9.0])
    assert compare(STEP, "dx", actual, truth, FLOAT64, np.array([True, False, True])).verdict == "agrees"
    found = compare(STEP, "dx", actual, truth, FLOAT64, np.array([False, False, True]))
    assert (found.verdict, found.compared, found.outside, found.index) == ("outside", 3, 1, (0,))
    everything = compare(STEP, "dx", actual, truth, FLOAT64, np.ones(3, dtype=bool))
    assert (everything.compared, everything.outside) == (3, 0)


def test_judge_names_the_largest_of_entries_known_exactly() -> None:
    """Where the bound is zero the excess is infinite and the largest difference is named."""
    found = compare(STEP, "dx", np.array([1.5, 2.0, 7.0]), ball([1.0, 2.0, 3.0], 0.0), FLOAT64)
    assert (found.verdict, found.outside, found.index, found.excess) == ("outside", 2, (2,), np.inf)


def test_judge_says_inconclusive_only_where_the_bound_hides_the_number() -> None:
    """A bound as large as the largest number of a tensor says nothing, unless the entry is outside or the same number."""
    truth = ball([1.0, 0.5], [2.0, 2.0])
    assert compare(STEP, "dx", np.array([1.5, 1.0]), truth, FLOAT64).verdict == "inconclusive"
    assert compare(STEP, "dx", np.array([1.0, 0.5]), truth, FLOAT64).inconclusive == 0
    assert compare(STEP, "dx", np.array([4.0, 1.0]), truth, FLOAT64).verdict == "outside"


WIDTH = 0.25 * BOUND_SLACK  # the radius of a bound of 0.25


@pytest.mark.parametrize(("value", "bound", "actual", "inconclusive"), [
    ([np.inf, 1.0, 0.5], [0.0, 2.0, 2.0], [7.0, 1.5, 1.0], 3), ([np.inf, 0.25], [0.0, 0.5], [7.0, 0.5], 2),
    ([np.nan, 1.0, 0.5], [0.0, 2.0, 0.1], [7.0, 1.5, 0.5], 2),
    ([0.5, 0.25], 0.75, [0.75, 0.5], 2), ([0.5, 0.25], 0.5, [0.75, 0.5], 2),
    ([WIDTH, 0.0], 0.25, [0.25, 0.125], 2), ([np.nextafter(WIDTH, 1), 0.0], 0.25, [0.25, 0.125], 0),
    ([0.125, 0.0], 0.25, [0.125 + WIDTH, WIDTH], 2), ([0.0, 0.0], 0.25, [0.0, 0.0], 0),
])
def test_judge_compares_a_bound_with_the_largest_known_number(value: Any, bound: Any, actual: Any, inconclusive: int) -> None:
    """An entry says nothing where its bound is as large as that number, or not finite; the edge of the bound belongs to it."""
    found = compare(STEP, "dx", np.array(actual), ball(value, bound), FLOAT64)
    assert (found.inconclusive, found.outside) == (inconclusive, 0)
    assert found.verdict == ("inconclusive" if inconclusive == len(value) else "agrees")


@pytest.mark.parametrize(("value", "bound", "actual", "margin"), [
    (2 * WIDTH, 0.25, 2 * WIDTH + 0.2, 0.2 / WIDTH), (np.nextafter(2 * WIDTH, 0), 0.25, 0.5, 0.0), (1.0, 0.25, 1 + WIDTH, 1.0),
    (1.0, 0.25, 1 - 0.1, 0.1 / WIDTH), (-1.0, 0.25, -1 + 0.1, 0.1 / WIDTH), (np.inf, 0.25, 2.0, 0.0), (5.0, np.inf, 6.0, 0.0),
])
def test_the_margin_is_of_entries_known_to_half_their_size(value: float, bound: float, actual: float, margin: float) -> None:
    """Beside an entry that is outside, the margin is the largest part of its bound that an entry takes, all of it included."""
    found = compare(STEP, "dx", np.array([actual, 99.0]), ball([value, 10.0], [bound, 0.1]), FLOAT64)
    assert (found.verdict, found.index) == ("outside", (1,))
    assert abs(found.margin - margin) <= 4 * np.spacing(margin)


@pytest.mark.parametrize("head", NETWORKS)
def test_end_to_end_agrees_with_a_correct_run(head: str) -> None:
    """Loss, outputs, the input's gradient and every parameter's gradient of a correct run agree with the whole reference."""
    case = Case(NETWORKS[head], 1)
    certificates = certify_end_to_end(traced("torch", case), case, FLOAT64)
    assert {c.verdict for c in certificates} == {"agrees"}
    wanted = [(path, tensor) for path, tensor in PLACES if tensor not in {"dx", "dz"} or path == "layers.0"]
    assert [(c.path, c.tensor) for c in certificates] == wanted


def test_end_to_end_catches_wrong_wiring() -> None:
    """Layers each right on their own numbers, but handed another run's, pass locally and fail end to end."""
    case, other = Case(FIRST, 1), Case(FIRST, 2)
    spliced = replace(traced("torch", case), layers=(*traced("torch", case).layers[:4], *traced("torch", other).layers[4:]))
    assert failed(certify(spliced, FLOAT64)) == []
    blamed = {path for path, _, _ in failed(certify_end_to_end(spliced, case, FLOAT64))}
    assert blamed == {"layers.4", "layers.5", "layers.6", "layers.7", "head"}


def test_end_to_end_catches_an_upstream_gradient_that_was_ignored() -> None:
    """A backward started from 1 in place of the case's upstream gradient, and recorded so, passes locally only."""
    case = next(c for c in (Case(FIRST, seed) for seed in range(20)) if float(c.values().upstream) not in {1.0, 0.0})
    trace = traced("torch", case)
    scale = 1 / case.values().upstream

    def undone(step: LayerTrace) -> LayerTrace:
        return replace(step, d_inputs=tuple(d * scale for d in step.d_inputs), d_output=step.d_output * scale,
                       d_params={name: d * scale for name, d in step.d_params.items()})

    ignoring = replace(trace, layers=tuple(undone(step) for step in trace.layers))
    assert failed(certify(ignoring, FLOAT64)) == []
    blamed = {(path, tensor) for path, tensor, _ in failed(certify_end_to_end(ignoring, case, FLOAT64))}
    gradients = {(path, tensor) for path, tensor in PLACES if tensor in {"dweight", "dbias"}} | {("layers.0", "dx")}
    assert blamed == gradients


@pytest.mark.parametrize(("path", "tensor"), [(p, t) for p, t in PLACES if t not in {"dx", "dz"} or p == "layers.0"])
def test_end_to_end_catches_one_entry_off_by_a_thousandth(path: str, tensor: str) -> None:
    """The bounds of a whole run in float64 are still tight enough for an entry off by 1e-3."""
    case = Case(FIRST, 1)
    trace = traced("torch", case)
    wrong, at = nudged(tensors(step_of(trace, path))[tensor], 1 + PART)
    found = the_failed(certify_end_to_end(with_tensor(trace, path, tensor, wrong), case, FLOAT64))
    assert (found.path, found.tensor, found.index) == (path, tensor, at)


@pytest.mark.parametrize("layer", [bp.ReLU(), bp.Hardtanh(), bp.LeakyReLU(), bp.Sigmoid(), bp.Softmax()], ids=str)
def test_what_comes_of_nan_is_inconclusive(layer: Any) -> None:
    """A layer that was handed NaN, by an overflow before it, is not blamed for handing it on."""
    nan = np.full((2, 3), np.nan, dtype=np.float32)
    step = LayerTrace("layers.0", layer, (nan,), nan, (np.ones_like(nan),), np.ones_like(nan), {}, {})
    output, dx = certify_layer(step, precision_named("float32"))
    assert output.verdict == "inconclusive"
    assert not dx.failed


# What cannot be judged at all.

AFFINE = one_layer(Linear(2), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], [3.0, 4.0]], weight=np.eye(2, 3), bias=[1.0, 2.0])
(X,), DY = AFFINE.inputs, AFFINE.d_output
HEAD = traced("torch", Case(FIRST, 1)).layers[-1]
Z, TARGET = HEAD.inputs
NORM = one_layer(bp.BatchNorm(training=False), [[1.0, 2.0]], [[1.0, 2.0]], weight=[1.0, 1.0], bias=[0.0, 0.0], running_mean=[0.0, 0.0],
                 running_var=[1.0, 1.0])
SUM = replace(AFFINE, layer=bp.Add(), inputs=(X, X), output=X + X, d_inputs=(X, X), d_output=X, params={}, d_params={})
PLACE = "(batch axis left out)"


@pytest.mark.parametrize(("step", "changes", "tensor", "message"), [
    (AFFINE, {"inputs": ([[1.0]],)}, "input 0", "no array for input 0: got list"),
    (SUM, {"inputs": (X, None)}, "input 1", "no array for input 1: got NoneType"),
    (AFFINE, {"d_output": [1.0]}, "d_output 0", "no array for d_output 0: got list"),
    (AFFINE, {"params": {**AFFINE.params, "bias": 1.0}}, "bias", "no array for bias: got float"),
    (AFFINE, {"output": "y"}, "output", "no array for output: got str"),
    (AFFINE, {"d_inputs": (1,)}, "dx", "no array for dx: got int"),
    (AFFINE, {"d_params": {**AFFINE.d_params, "bias": 1.0}}, "dbias", "no array for dbias: got float"),
    (AFFINE, {"d_inputs": ()}, "dx", "wrong number of input gradients: got 0, expected 1"),
    (AFFINE, {"d_inputs": (X, X)}, "dx", "wrong number of input gradients: got 2, expected 1"),
    (SUM, {"d_inputs": (X,)}, "dx", "wrong number of input gradients: got 1, expected 2"),
    (HEAD, {"d_inputs": (Z, TARGET)}, "dx", "wrong number of input gradients: got 2, expected 1"),
    (HEAD, {"inputs": (Z,)}, "input 1", "wrong number of inputs: got 1, expected z and target"),
    (HEAD, {"d_output": Z}, "d_output 0", f"wrong shape of d_output 0: got {Z.shape}, expected ()"),
    (HEAD, {"d_output": None}, "d_output 0", "no d_output 0 came with the layer: expected an array of shape ()"),
    (AFFINE, {"d_output": None}, "d_output 0", "no d_output 0 came with the layer: expected an array of shape (2, 2)"),
    (AFFINE, {"d_output": DY[:1]}, "d_output 0", "wrong shape of d_output 0: got (1, 2), expected (2, 2)"),
    (AFFINE, {"params": {"weight": np.eye(2, 3)}}, "bias", "no bias came with the layer: expected an array of shape (2,)"),
    (AFFINE, {"params": {"weight": np.eye(3), "bias": DY}}, "weight", "wrong shape of weight: got (3, 3), expected (2, 3)"),
    (AFFINE, {"inputs": (X[0, 0],)}, "input 0",
     f"wrong shape of input 0: {Linear(2)}: wrong input shape: got (), expected at least one axis of features {PLACE}"),
    (SUM, {"inputs": (X,), "d_inputs": (X,)}, "input 1", "wrong number of inputs: got 1, expected a and b"),
    (SUM, {"inputs": (X, X[:, :2])}, "input 0",
     f"wrong shape of input 0: {bp.Add()}: wrong input shape: got ((3,), (2,)), expected sizes that are equal or 1, from the last axis on "
     + PLACE),
    (NORM, {"params": {**NORM.params, "running_mean": np.zeros(3)}}, "running_mean",
     "wrong shape of running_mean: got (3,), expected (2,)"),
])
def test_a_malformed_step_is_one_error(step: LayerTrace, changes: dict[str, Any], tensor: str, message: str) -> None:
    """A step that the rule cannot be run on gets one certificate, which names the array and says what is wrong with it."""
    assert not any(c.failed for c in certify_layer(step, FLOAT64))
    (found,) = certify_layer(replace(step, **changes), FLOAT64)
    assert (found.path, found.layer, found.tensor, found.verdict, found.compared) == (step.path, step.layer, tensor, "error", 0)
    assert found.message == message
    assert found.actual is None


def test_a_mask_of_another_batch_is_malformed() -> None:
    """A constant that has the batch axis is held to the batch of the input."""
    layer, ones = bp.Dropout(), np.ones((2, 3))
    step = LayerTrace("layers.0", layer, (ones,), ones * 2, (ones * 2,), ones, {"mask": ones}, {})
    assert not any(c.failed for c in certify_layer(step, FLOAT64))
    (found,) = certify_layer(replace(step, params={"mask": ones[:1]}), FLOAT64)
    assert found.message == "wrong shape of mask: got (1, 3), expected (2, 3)"


def test_inputs_that_a_rule_refuses_are_an_error() -> None:
    """Classes that do not exist are an error of the target in the rule's own words."""
    (found,) = certify_layer(replace(HEAD, layer=CrossEntropyLoss(), inputs=(Z, np.full(len(Z), 99)), d_output=np.float64(1)), FLOAT64)
    assert (found.tensor, found.verdict) == ("input 0", "error")
    assert found.message.startswith("the layer cannot take these inputs: CrossEntropyLoss")


def test_an_extra_input_gradient_of_indices_is_none() -> None:
    """Indices have no gradient: none is asked for, and a fork of indices has no tensor that could be wrong."""
    index, rows = np.array([[0, 2]]), np.arange(6.0).reshape(3, 2)
    y = rows[index]
    dweight = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    dy = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    step = LayerTrace("layers.0", bp.Embedding(3, 2), (index,), y, (None,), dy, {"weight": rows}, {"weight": dweight})
    assert [(c.tensor, c.verdict) for c in certify_layer(step, FLOAT64)] == [("output", "agrees"), ("dweight", "agrees")]
    fork = LayerTrace("x.fork", bp.Fork(2), (index,), (index, index), (None,), (None, None), {}, {})
    assert tensors(fork) == expected(fork, Arithmetic(FLOAT64)) == expected_plain(fork) == {}
    assert certify_layer(fork, FLOAT64) == []


# Gradients that must hand on all of dy.

FLOAT32 = precision_named("float32")
POOL = one_layer(bp.MaxPool1d(2), [[[1.0, 1.0, 2.0, 1.0]]], [[[1.0, 1.0]]])


def handing_on(dx: Any, dy: Any, upstream: Any = ()) -> bool:
    """Say whether dx of a max pooling conserves dy, where sums are taken in float32; the numbers need not be of that format."""
    return conserves(replace(POOL, d_output=np.asarray(dy)), "dx", np.asarray(dx), FLOAT32, upstream)


GAMMA = 6 * (2.0**-24 + 2.0**-53) / (1 - 6 * (2.0**-24 + 2.0**-53))  # of 4 entries of dx and 2 of dy


@pytest.mark.parametrize("size", [1.0, 1e-30])
@pytest.mark.parametrize("side", [1, -1])
def test_what_is_handed_on_is_held_to_its_rounding(size: float, side: int) -> None:
    """The sum of a row of m entries may differ from that of n entries of dy by gamma_(m+n) of the magnitudes and m n underflows."""
    allowed = (GAMMA * 4 * size + 8 * FLOAT32.underflow) / (1 - side * GAMMA)
    for part, right in ((0.999, True), (1.001, False)):
        rows = [[0, size, size + side * part * allowed, 0], [0, 1e6, 1e6, 0]]
        assert handing_on([rows], [[[size, size], [1e6, 1e6]]]) == right


def test_each_row_hands_on_its_own() -> None:
    """What one channel gives too much is not made up for by another; a negative entry counts by its size; NaN hands nothing on."""
    assert handing_on([[[1, 0, 1, 0], [1, 0, -1, 0]]], [[[1, 1], [1, -1]]])
    assert not handing_on([[[1, 0, 2, 0], [1, 0, 0, 0]]], [[[1, 1], [1, 1]]])
    assert not handing_on([[[np.nan, 0, 1, 0]]], [[[1, 1]]])


def test_rounding_of_the_neighbours_may_be_handed_on() -> None:
    """Where dy is a ball, as a fusing compiler may have rounded it, dx may sum to anything in it, row by row; to anything if unknown."""
    bounds = np.array([[[0.25, 0.25], [0.0, 0.0]]])
    dy = Rounded(np.ones((1, 2, 2)), bounds, Arithmetic(FLOAT32))
    allowed = (0.5 + GAMMA * 4.5 + 8 * FLOAT32.underflow) / (1 - GAMMA)
    for part, right in ((1 - 1e-9, True), (1 + 1e-9, False)):
        assert handing_on([[[0, 1, 1 + part * allowed, 0], [1, 0, 1, 0]]], [[[7, 7], [7, 7]]], (dy,)) == right
    assert not handing_on([[[0, 1, 1, 0], [1, 0, 1.01, 0]]], [[[7, 7], [7, 7]]], (dy,))
    unknown = Rounded(np.ones((1, 1, 2)), np.full((1, 1, 2), np.inf), Arithmetic(FLOAT32))
    assert handing_on([[[0, np.inf, 1, 0]]], [[[7, 7]]], (unknown,))


def test_what_binds_no_entries_together_is_conserved() -> None:
    """Tensors other than dx, layers without such a rule, and heads hand on whatever they do."""
    zeros = np.zeros((1, 1, 4))
    assert conserves(POOL, "output", zeros, FLOAT32)
    assert not conserves(POOL, "dx", zeros, FLOAT32)
    assert conserves(AFFINE, "dx", zeros, FLOAT32)
    assert conserves(HEAD, "dz", zeros, FLOAT32)


@pytest.mark.parametrize("fused", [False, True])
def test_a_shared_tie_is_a_convention_and_one_paid_twice_is_outside(*, fused: bool) -> None:
    """Of two tied entries either or both may have dy; not each all of it, also where a compiler may have rounded dy otherwise."""
    trace = replace(traced("torch", Case(FIRST, 1)), layers=(POOL,), wires=(Wired(("x",), ("y",)),))
    for dx, verdict in (([1, 0], "agrees"), ([0, 1], "convention"), ([0.25, 0.75], "convention"), ([1, 1], "outside"), ([0, 0], "outside")):
        gradient = np.array([[[*dx, 1.0, 0.0]]])
        found = certify(planted(trace, "layers.0", d_inputs=(gradient,)), FLOAT64, fused=fused)
        assert [c.verdict for c in found] == ["agrees", verdict]


# Layers together with their neighbours.

RESIDUAL = Network((4,), (Linear(4), bp.Residual(Linear(4)), bp.Parallel((bp.Identity(), bp.Sigmoid())), bp.Multiply(), Linear(2)),
                   MSELoss())
TOKENS = Network((4,), (bp.Parallel((bp.Embedding(5, 3), bp.Embedding(5, 3))), bp.Add(), bp.Flatten(), Linear(2)), MSELoss())
STATE = bp.Sequential((bp.Flatten(), Linear(2), bp.Reshape((1, 2))))
LSTM = Network((1, 3), (bp.Parallel((bp.Tanh(), STATE, STATE)), bp.LSTM(2, states=True), bp.Concatenate(1, 3), bp.Flatten(), Linear(2)),
               MSELoss())


@pytest.mark.parametrize("network", [RESIDUAL, LSTM, TOKENS], ids=["residual", "lstm", "shared indices"])
def test_neighbours_only_widen_what_a_layer_may_produce(network: Network) -> None:
    """With every neighbour taken into account, as far as there are any, each tensor's ball holds its own, and grows with the reach."""
    trace = traced("torch", Case(network, 1))
    widened, around = set(), Neighbourhood(trace, FLOAT64)
    for index, step in enumerate(trace.layers):
        narrow = expected(step, Arithmetic(FLOAT64))
        for reach in (0, 1, 3):
            wide = around.expected(index, reach)
            assert wide.keys() == narrow.keys() == tensors(step).keys()
            for name, ball in wide.items():
                assert ball.shape == narrow[name].shape
                apart = np.abs(ball.value - narrow[name].value) + narrow[name].bounds()
                assert (apart <= ball.radius()).all()
                assert (ball.radius() < np.inf).all()
                if (ball.bounds() > 1.5 * narrow[name].bounds()).any():
                    widened.add((step.path, name, reach))
            if reach == 0:
                assert all((wide[name].bounds() == ball.bounds()).all() for name, ball in narrow.items())
            narrow = wide
    assert {path for path, _, reach in widened if reach == 1} >= {"layers.3", "layers.4"} & {step.path for step in trace.layers}


@pytest.mark.parametrize("network", [RESIDUAL, LSTM, TOKENS], ids=["residual", "lstm", "shared indices"])
def test_end_to_end_compares_every_output_and_every_leaf(network: Network) -> None:
    """All outputs of all layers, and the gradients of input and parameters where they are not shared, but nothing of whole numbers."""
    case = Case(network, 1)
    found = certify_end_to_end(traced("torch", case), case, FLOAT64)
    assert {c.verdict for c in found} == {"agrees"}
    wanted = []
    for step in network.steps:
        if step.path != "x.fork" or network is not TOKENS:
            wanted += [(step.path, name) for name in step.layer.output_names]
        wanted += [(step.path, f"d{name}") for name, wire in zip(step.layer.input_names, step.inputs, strict=True) if wire == "x"
                   and network is not TOKENS]
        wanted += [(step.path, f"d{name}") for name, wire in step.params]
    assert [(c.path, c.tensor) for c in found] == [*wanted, ("head", "output")]


@pytest.mark.parametrize("lost", [np.nan, np.inf])
@pytest.mark.parametrize("layer", [bp.Hardswish(), bp.ReLU(), bp.Hardtanh(-3.0, 3.0), bp.PReLU()], ids=str)
def test_zero_times_what_is_not_finite_is_zero_or_nan(layer: Any, lost: float) -> None:
    """Where the derivative is 0 an upstream NaN may be selected away or multiplied by 0; with a finite one NaN is a mistake."""
    x, dy = np.array([[-5.0, -5.0]]), np.array([[lost, 1.0]])
    params = {name: np.zeros(shape) for name, shape in layer.parameters((2,)).items()}
    right = one_layer(layer, x, np.ones_like(dy), np.float64, **params)
    for entry in (0.0, np.nan):
        d_params = {name: np.full(shape, entry) for name, shape in layer.parameters((2,)).items()}
        step = replace(right, d_output=dy, d_inputs=(np.array([[entry, 0.0]]),), d_params=d_params)
        assert not any(c.failed for c in certify_layer(step, FLOAT64))
    leaked = replace(right, d_output=dy, d_inputs=(np.array([[0.0, np.nan]]),))
    assert [(c.tensor, c.verdict, c.index) for c in certify_layer(leaked, FLOAT64) if c.failed] == [("dx", "nonfinite", (0, 1))]


@pytest.mark.parametrize(("x", "verdict"), [(-2e29, "inconclusive"), (-2e9, "nonfinite")])
def test_a_running_mean_begins_with_the_square_of_x(x: float, verdict: str) -> None:
    """torch's group_norm gives NaN for a group of one entry whose square leaves float32, though nothing of its deviation does."""
    step = one_layer(bp.GroupNorm(1, affine=False), [[x]], [[1.0]], np.float32)
    lost = replace(step, output=np.full((1, 1), np.nan, np.float32))
    output, _ = certify_layer(lost, precision_named("float32"))
    assert output.verdict == verdict


@pytest.mark.parametrize(("dy", "verdict"), [(-6.3e-37, "inconclusive"), (-6.3e-30, "outside")])
def test_a_product_that_underflows_on_the_way_may_be_lost(dy: float, verdict: str) -> None:
    """jax takes dy alpha e^(x / alpha) / alpha from the left: at alpha = 1/2 it is flushed to 0 where the result is a normal number."""
    layer, x = bp.CELU(0.5), [[-1.7687]]
    step = one_layer(layer, x, [[dy]], np.float32)
    lost = replace(step, d_inputs=(np.zeros((1, 1), np.float32),))
    assert [c.verdict for c in certify_layer(lost, precision_named("float32"))] == ["agrees", verdict]


def test_nan_from_above_may_go_to_any_tied_entry() -> None:
    """Where the gradient from above is NaN nothing is known of tied entries; an entry that is no maximum stays 0."""
    x, nan = np.array([[[1.0, 1.0, 0.0]]]), np.nan
    step = LayerTrace("0", bp.GlobalMaxPool(), (x,), np.array([[[1.0]]]), (np.array([[[nan, nan, 0.0]]]),), np.array([[[nan]]]), {}, {})
    assert {c.tensor: c.verdict for c in certify_layer(step, FLOAT64)} == {"output": "agrees", "dx": "agrees"}
    wrong = replace(step, d_inputs=(np.array([[[nan, nan, nan]]]),))
    assert [c.verdict for c in certify_layer(wrong, FLOAT64) if c.failed] == ["nonfinite"]


def test_the_excess_of_a_convention_is_that_in_the_hull() -> None:
    """Between the slopes 0.75 and 1 at a kink, excesses go from 0 in the middle to 1 at the ends."""
    x, dy = np.array([[0.0, 1.0]]), np.array([[8.0, 1.0]])
    for slope, excess in ((1.0, 1.0), (0.9375, 0.5)):
        step = LayerTrace("0", bp.LeakyReLU(0.75), (x,), np.array([[0.0, 1.0]]), (np.array([[8.0 * slope, 1.0]]),), dy, {}, {})
        found = next(c for c in certify_layer(step, FLOAT64) if c.tensor == "dx")
        assert found.verdict == "convention"
        assert abs(found.excess - excess) < 1e-5  # a bound has a little slack for its own rounding
