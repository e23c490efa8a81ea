"""Local certificates: mistakes planted into real traces are caught and blamed; what is right, or a valid subgradient, is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.certify import Certificate, certify, certify_end_to_end, certify_layer, judge, tensors
from backproof.reference.case import Case
from backproof.reference.heads import CrossEntropyLoss, Head, MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import Arithmetic, Rounded, precision_named
from backproof.reference.trace import LayerTrace, Trace

LAYERS = (Linear(6), bp.ReLU(), Linear(6, bias=False), bp.PReLU(6), Linear(8), bp.SwiGLU(), Linear(3), bp.Softmax())
NETWORKS = {str(head): Network((5,), LAYERS, head) for head in (
    MSELoss(), CrossEntropyLoss(), Head("tanh", "huber"), Head("sigmoid", "bce", "sum"), Head("linear", "l1"))}  # fmt: skip
FIRST = next(iter(NETWORKS.values()))
PLACES = [(path, tensor) for path, layer, shape in ((s.path, s.layer, FIRST.graph.shapes[s.inputs[0]]) for s in FIRST.steps)
          for tensor in ("output", "dx", *(f"d{name}" for name in layer.parameters(shape)))]  # fmt: skip
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


def test_neighbours_explain_another_rounding_of_the_input() -> None:
    """A layer that took its input before it was rounded is outside on its own, and agrees together with its neighbour."""
    network = Network((1,), (Linear(1), bp.Hardtanh(-0.5, 2.0), Linear(1)), MSELoss())
    trace = traced("torch", Case(network, 1, batch=1))
    step = trace.layers[0]
    unit = np.spacing(np.abs(step.output))
    shifted = replace(trace, layers=(replace(step, output=step.output + unit),
                                     replace(trace.layers[1], inputs=(step.output + unit,)), *trace.layers[2:]))
    assert failed(certify(shifted, FLOAT64)) == [("layers.1", "output", "outside")]
    assert failed(certify(shifted, FLOAT64, fused=True)) == []


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
                                                (0.2, "outside"), (-0.25, "outside"), (0.0, "outside")])  # fmt: skip
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


@every_place
def test_a_wrong_dtype_is_an_error(path: str, tensor: str) -> None:
    """A tensor of the right numbers in another precision is an error that says both."""
    trace = traced("torch", Case(FIRST, 1))
    right = tensors(step_of(trace, path))[tensor]
    found = the_failed(certify(with_tensor(trace, path, tensor, right.astype(np.float32)), FLOAT64))
    assert (found.path, found.tensor, found.verdict) == (path, tensor, "error")
    assert found.message == f"wrong dtype of {tensor}: got float32, expected float64"


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


@pytest.mark.parametrize(("path", "tensor"), [("layers.1", "dx"), ("head", "dz"), ("layers.0", "output")])
def test_a_missing_tensor_is_an_error(path: str, tensor: str) -> None:
    """None in the place of an output or of an input's gradient is an error that names it."""
    found = the_failed(certify(with_tensor(traced("torch", Case(FIRST, 1)), path, tensor, None), FLOAT64))
    assert (found.path, found.tensor, found.verdict) == (path, tensor, "error")
    assert found.message.startswith(f"no {tensor} came back: expected an array of shape ")


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
    found = judge(STEP, "dx", actual, truth, FLOAT64)
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
        assert judge(STEP, "dx", np.array([actual]), truth, FLOAT64).verdict == verdict


def test_judge_excuses_entries_and_still_counts_them() -> None:
    """An excused entry is not judged but stays in the count; the others are judged as ever."""
    truth, actual = ball([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), np.array([5.0, 2.0, 9.0])
    assert judge(STEP, "dx", actual, truth, FLOAT64, np.array([True, False, True])).verdict == "agrees"
    found = judge(STEP, "dx", actual, truth, FLOAT64, np.array([False, False, True]))
    assert (found.verdict, found.compared, found.outside, found.index) == ("outside", 3, 1, (0,))
    everything = judge(STEP, "dx", actual, truth, FLOAT64, np.ones(3, dtype=bool))
    assert (everything.compared, everything.outside) == (3, 0)


def test_judge_names_the_largest_of_entries_known_exactly() -> None:
    """Where the bound is zero the excess is infinite and the largest difference is named."""
    found = judge(STEP, "dx", np.array([1.5, 2.0, 7.0]), ball([1.0, 2.0, 3.0], 0.0), FLOAT64)
    assert (found.verdict, found.outside, found.index, found.excess) == ("outside", 2, (2,), np.inf)


def test_judge_says_inconclusive_only_where_the_bound_hides_the_number() -> None:
    """A bound as large as the largest number of a tensor says nothing, unless the entry is outside or the same number."""
    truth = ball([1.0, 0.5], [2.0, 2.0])
    assert judge(STEP, "dx", np.array([1.5, 1.0]), truth, FLOAT64).verdict == "inconclusive"
    assert judge(STEP, "dx", np.array([1.0, 0.5]), truth, FLOAT64).inconclusive == 0
    assert judge(STEP, "dx", np.array([4.0, 1.0]), truth, FLOAT64).verdict == "outside"


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


def test_nan_from_above_may_go_to_any_tied_entry() -> None:
    """Where the gradient from above is NaN nothing is known of tied entries; an entry that is no maximum stays 0."""
    x, nan = np.array([[[1.0, 1.0, 0.0]]]), np.nan
    step = LayerTrace("0", bp.GlobalMaxPool(), (x,), np.array([[[1.0]]]), (np.array([[[nan, nan, 0.0]]]),), np.array([[[nan]]]), {}, {})
    assert not any(c.failed for c in certify_layer(step, FLOAT64))
    wrong = replace(step, d_inputs=(np.array([[[nan, nan, nan]]]),))
    assert [c.verdict for c in certify_layer(wrong, FLOAT64) if c.failed] == ["nonfinite"]
