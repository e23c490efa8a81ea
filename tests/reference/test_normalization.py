"""Normalisations against loops over the definition; every usual way to compute them within the bounds, cancelling ones outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.mistake import Mistake
from backproof.judge.mistakes.normalization import MISTAKES
from backproof.judge.rules import expected, expected_plain
from backproof.reference.layer import Shape, ShapeError
from backproof.reference.moments import standardised
from backproof.reference.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from backproof.reference.normalization_sums import sum_by_example, weight_gradient
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

LAYERS: tuple[Any, ...] = (BatchNorm, LayerNorm, RMSNorm, GroupNorm, InstanceNorm)
EXAMPLES: tuple[tuple[Any, Shape], ...] = (
    *(example for cls in LAYERS for example in cls.examples()),
    (BatchNorm(), (5, 4, 3)), (LayerNorm(axes=3), (3, 2, 4)), (RMSNorm(), (3, 17)), (GroupNorm(3), (6, 2, 5)),
    (InstanceNorm(affine=True), (2, 9)),
)
WIDE: tuple[tuple[Any, Shape], ...] = (
    (BatchNorm(), (3, 7)), (LayerNorm(), (64,)), (RMSNorm(), (64,)), (GroupNorm(2), (4, 9)), (InstanceNorm(affine=True), (2, 30)),
)

every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_wide = pytest.mark.parametrize(("layer", "shape"), WIDE, ids=[type(layer).__name__ for layer, _ in WIDE])


def step_of(layer: Any, shape: Shape, precision: str = "float64", *, batch: int = 3, offset: float = 0.0, scale: float = 1.0) -> LayerTrace:
    """Return a step with random numbers as the precision holds them, whose outputs are not filled in."""
    rng = np.random.default_rng(11)
    dtype = PRECISIONS[precision].dtype
    params = {name: rng.standard_normal(size).astype(dtype) for name, size in layer.parameters(shape).items()}
    constants = {name: (0.5 + rng.random(constant.shape)).astype(dtype) for name, constant in layer.constants(shape).items()}
    x = (scale * rng.standard_normal((batch, *shape)) + offset).astype(dtype)
    dy = rng.standard_normal((batch, *shape)).astype(dtype)
    return LayerTrace("0", layer, (x,), dy, (x,), dy, params | constants, params)


def balls(step: LayerTrace, precision: str) -> dict[str, Rounded]:
    return expected(step, Arithmetic(PRECISIONS[precision]))


def excess(actual: np.ndarray, ball: Rounded) -> float:
    difference = np.abs(np.asarray(actual, dtype=np.float64) - ball.value)
    return float(np.max(np.where(difference == 0, 0.0, difference / np.where(difference == 0, 1.0, ball.radius())), initial=0.0))


@pytest.mark.parametrize("layer", [BatchNorm(), BatchNorm(training=False), GroupNorm(2), RMSNorm()], ids=str)
def test_the_fused_form_may_overflow(layer: Any) -> None:
    """Kernels form x a - mean a with a = rstd weight: where x a may overflow an infinite y is forgiven, of that entry alone."""
    step = step_of(layer, (4,), "float32", batch=6)
    params = near = step.params | {"weight": np.array([1e36, 1e36, 1.0, 1e31], np.float32)}
    x = (1e3 + 0.1 * step.inputs[0]).astype(np.float32)
    if "running_mean" in params:
        params = near | {"running_mean": np.full(4, 1e3, np.float32), "running_var": np.full(4, 1e-2, np.float32)}
    known = np.isfinite(balls(replace(step, inputs=(x,), params=params), "float32")["output"].bounds())
    assert (known == ([True] * 4 if isinstance(layer, RMSNorm) else [False, False, True, True])).all()
    assert np.isfinite(balls(replace(step, params=near), "float32")["output"].bounds()).all()


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm(), GroupNorm(2)], ids=lambda layer: type(layer).__name__)
def test_a_product_with_the_input_may_overflow(layer: Any) -> None:
    """Kernels add up dy x before they divide by the deviation: where that overflows nothing is known, and where it cannot everything is."""
    step = step_of(layer, (4,), "float32", batch=6, scale=1e6)
    for size, finite in ((1e30, True), (1e33, False)):
        dy = (size * step.d_output).astype(np.float32)
        for weight in (1.0, 1e-6):  # which kernels may multiply by before or after
            params = {**step.params, "weight": np.full_like(step.params["weight"], weight)}
            ball = balls(replace(step, d_output=dy, params=params), "float32")["dx"]
            assert np.isfinite(ball.radius()).all() == finite, (size, weight)


# The definition, entry by entry.


def group_of(layer: Any, index: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
    """Return the label of the group that an entry belongs to."""
    if isinstance(layer, BatchNorm):
        return index[1:2]
    if isinstance(layer, LayerNorm):
        return index[: len(shape) + 1 - layer.axes]
    if isinstance(layer, RMSNorm):
        return index[:-1]
    if isinstance(layer, GroupNorm):
        return index[0], index[1] * layer.num_groups // shape[0]
    return index[:2]


def place_of(layer: Any, index: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
    """Return which weight an entry is multiplied by."""
    if isinstance(layer, LayerNorm):
        return index[len(shape) + 1 - layer.axes :]
    return index[-1:] if isinstance(layer, RMSNorm) else index[1:2]


def by_definition(step: LayerTrace) -> dict[str, np.ndarray]:
    """Return y and the gradients by loops, with the Jacobian of each group written out."""
    layer, (x,), dy = step.layer, step.inputs, step.d_output
    shape = x.shape[1:]
    weight, bias = step.params.get("weight"), step.params.get("bias")
    shapes = {"output": x.shape, "dx": x.shape, **{f"d{name}": step.params[name].shape for name in step.d_params}}
    found = {name: np.zeros(size) for name, size in shapes.items()}
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for index in np.ndindex(x.shape):
        groups.setdefault(group_of(layer, index, shape), []).append(index)
    for label, members in groups.items():
        n, constant = len(members), "running_mean" in step.params
        mean = step.params["running_mean"][label] if constant else math.fsum(x[i] for i in members) / n
        mean = 0.0 if isinstance(layer, RMSNorm) else mean
        variance = step.params["running_var"][label] if constant else math.fsum((x[i] - mean) ** 2 for i in members) / n
        r = 1 / math.sqrt(variance + layer.eps)
        for i in members:
            h, place = (x[i] - mean) * r, place_of(layer, i, shape)
            w = 1.0 if weight is None else weight[place]
            found["output"][i] = h * w + (0.0 if bias is None else bias[place])
            if weight is not None:
                found["dweight"][place] += dy[i] * h
            if bias is not None:
                found["dbias"][place] += dy[i]
            for j in members:
                slope = r * (i == j)
                if not constant:
                    slope -= (0 if isinstance(layer, RMSNorm) else r / n) + (x[i] - mean) * r**3 * (x[j] - mean) / n
                found["dx"][j] += dy[i] * w * slope
    return found


@every_example
def test_rule_equals_the_definition(layer: Any, shape: Shape) -> None:
    """y and every gradient are those of loops over the definition, up to what rounding may do to both."""
    step = step_of(layer, shape)
    found, bounds = by_definition(step), balls(step, "float64")
    assert found.keys() == bounds.keys()
    for name, value in found.items():
        assert excess(value, bounds[name]) <= 2, f"{layer}: {name} is not as defined"


@every_example
@pytest.mark.parametrize("precision", PRECISIONS)
def test_rounded_arithmetic_holds_the_exact_result(layer: Any, shape: Shape, precision: str) -> None:
    """The float64 result lies within a finite bound in every precision."""
    step = step_of(layer, shape, precision)
    bounds = balls(step, precision)
    for name, value in expected_plain(step).items():
        assert excess(value, bounds[name]) <= 1
        assert np.isfinite(bounds[name].radius()).all()


@every_example
def test_balls_that_come_in_are_carried_through(layer: Any, shape: Shape) -> None:
    """With x and dy known to within bounds, the results of all points of those balls lie within the bounds that come out."""
    step, rng = step_of(layer, shape), np.random.default_rng(3)
    arithmetic = Arithmetic(PRECISIONS["float64"])
    reach = 1e-3 * rng.random(step.d_output.shape)
    params = {name: arithmetic.exact(value) for name, value in step.params.items()}
    y, backward = layer.forward(params, Rounded(step.inputs[0], reach, arithmetic))
    dx, dparams = backward(Rounded(step.d_output, reach, arithmetic))
    bounds = {"output": y, "dx": dx, **{f"d{name}": ball for name, ball in dparams.items()}}
    for _ in range(30):
        x, dy = (centre + reach * rng.choice([-1.0, 1.0], size=reach.shape) for centre in (step.inputs[0], step.d_output))
        for name, value in expected_plain(replace(step, inputs=(x,), d_output=dy)).items():
            assert excess(value, bounds[name]) <= 1, name


@every_wide
def test_a_small_error_leaves_the_bound(layer: Any, shape: Shape) -> None:
    """In float32 the right tensors scaled by 1 + 2^-10 are outside."""
    step = step_of(layer, shape, "float32")
    bounds = balls(step, "float32")
    for name, value in expected_plain(step).items():
        assert excess(value * (1 + 2.0**-10), bounds[name]) > 1, name


# Other ways to compute the same, in float32.

Rows = np.ndarray
F = np.float32


def two_passes(x: Rows) -> tuple[Rows, Rows]:
    mean = np.cumsum(x, axis=1)[:, -1:] / F(x.shape[1])
    return mean, np.cumsum((x - mean) ** 2, axis=1)[:, -1:] / F(x.shape[1])


def welford(x: Rows) -> tuple[Rows, Rows]:
    mean, squares = np.zeros_like(x[:, :1]), np.zeros_like(x[:, :1])
    for k in range(x.shape[1]):
        delta = x[:, k : k + 1] - mean
        mean = mean + delta / F(k + 1)
        squares = squares + delta * (x[:, k : k + 1] - mean)
    return mean, squares / F(x.shape[1])


def merged(x: Rows) -> tuple[Rows, Rows]:
    """Chan's merge of the statistics of two halves, each by Welford's update."""
    (left, left_variance), (right, right_variance) = (welford(half) for half in np.split(x, 2, axis=1))
    delta = right - left
    return left + delta / F(2), (left_variance + right_variance) / F(2) + delta * delta / F(4)


def textbook(x: Rows) -> tuple[Rows, Rows]:
    mean = np.mean(x, axis=1, keepdims=True)
    return mean, np.maximum(np.mean(x * x, axis=1, keepdims=True) - mean * mean, F(0))


def composed(x: Rows, mean: Rows, r: Rows, w: Rows, b: Rows, dy: Rows) -> tuple[Rows, Rows, Rows]:
    h, g = (x - mean) * r, dy * w
    along = np.mean(g * h, axis=1, keepdims=True)
    return h * w + b, r * (g - np.mean(g, axis=1, keepdims=True) - h * along), np.sum(dy * h, axis=0)


def multiplied_out(x: Rows, mean: Rows, r: Rows, w: Rows, b: Rows, dy: Rows) -> tuple[Rows, Rows, Rows]:
    """y = x a + c with everything folded, dx from the sums of g and g x."""
    n, g = F(x.shape[1]), dy * w
    a, sum_g, sum_gx = r * w, np.sum(g, axis=1, keepdims=True), np.sum(g * x, axis=1, keepdims=True)
    slope = (sum_g * mean - sum_gx) * r * r * r / n
    return x * a + (b - mean * a), r * g + slope * x + (-slope * mean - sum_g * r / n), np.sum(dy * x * r - dy * (mean * r), axis=0)


def candidate(step: LayerTrace, moments: Callable[[Rows], tuple[Rows, Rows]],
              form: Callable[..., tuple[Rows, Rows, Rows]]) -> dict[str, Rows]:
    mean, variance = moments(step.inputs[0])
    r = F(1) / np.sqrt(variance + F(step.layer.eps))
    y, dx, dweight = form(step.inputs[0], mean, r, step.params["weight"], step.params["bias"], step.d_output)
    return {"output": y, "dx": dx, "dweight": dweight}


@pytest.mark.parametrize("offset", [0.0, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("form", [composed, multiplied_out])
@pytest.mark.parametrize("moments", [two_passes, welford, merged])
@pytest.mark.parametrize("entries", [2, 6, 64])
def test_usual_forms_are_accepted(entries: int, moments: Any, form: Any, offset: float) -> None:
    """Two passes, Welford's update and Chan's merge, composed or multiplied out, stay within the bound also where mean >> deviation."""
    step = step_of(LayerNorm(eps=1e-5), (entries,), "float32", batch=40, offset=offset)
    bounds = balls(step, "float32")
    for name, value in candidate(step, moments, form).items():
        assert value.dtype == np.float32
        assert excess(value, bounds[name]) <= 1, name


@pytest.mark.parametrize("form", [composed, multiplied_out])
def test_the_textbook_variance_is_accepted_where_it_is_harmless(form: Any) -> None:
    """E[x^2] - E[x]^2 stays within the bound where the mean is not large against the deviation."""
    step = step_of(LayerNorm(), (64,), "float32", batch=40, offset=1.0)
    bounds = balls(step, "float32")
    assert all(excess(value, bounds[name]) <= 1 for name, value in candidate(step, textbook, form).items())


def test_a_textbook_variance_that_cancels_is_not_forgiven() -> None:
    """E[x^2] - E[x]^2 leaves the float32 bound in y and dx where the mean is a thousand deviations, in dweight at three thousand."""
    for offset, tensors in ((1000.0, ("output", "dx")), (3000.0, ("output", "dx", "dweight"))):
        step = step_of(LayerNorm(), (64,), "float32", batch=40, offset=offset)
        bounds, found = balls(step, "float32"), candidate(step, textbook, composed)
        assert all(excess(found[name], bounds[name]) > 1 for name in tensors)


def test_a_fold_of_the_mean_is_not_forgiven_beyond_its_roundings() -> None:
    """x a - mean a with a mean rounded to bfloat16 leaves the float32 bound: the factor is shared, the mean is not to be."""
    step = step_of(LayerNorm(), (64,), "float32", batch=40, offset=30.0)
    coarse = step.inputs[0].mean(axis=1, keepdims=True).astype(PRECISIONS["bfloat16"].dtype).astype(F)
    found = candidate(step, lambda x: (coarse, two_passes(x)[1]), multiplied_out)
    assert excess(found["output"], balls(step, "float32")["output"]) > 1


def test_squares_that_leave_float16_are_known() -> None:
    """Kernels take squares in float32: entries of a thousand have a finite bound in float16."""
    for layer, shape in WIDE:
        step = step_of(layer, shape, "float16", scale=800.0)
        assert all(np.isfinite(ball.radius()).all() for ball in balls(step, "float16").values()), layer


def test_sums_by_example_may_be_stored() -> None:
    """In bfloat16 the bias gradient may be the sum of stored sums over space; with a sum of float32 alone it must be exact."""
    step = step_of(InstanceNorm(affine=True), (4, 9), "bfloat16", batch=5)
    dy, dtype = step.d_output.astype(np.float64), PRECISIONS["bfloat16"].dtype
    total = np.sum(np.sum(dy, axis=2).astype(dtype).astype(np.float64), axis=0).astype(dtype)
    ball = balls(step, "bfloat16")["dbias"]
    assert excess(total, ball) <= 1
    assert np.max(np.abs(total.astype(np.float64) - np.sum(dy, axis=(0, 2))) / np.abs(total.astype(np.float64))) > 2.0**-8
    assert excess(total.astype(np.float64) * 1.125, ball) > 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_sums_of_the_weights_gradient_by_example_may_be_stored(precision: str) -> None:
    """In a format narrower than its sums the weight's gradient is as sure as stored sums over space are, and else as one sum is."""
    step = step_of(InstanceNorm(affine=True), (4, 9), precision, batch=5)
    x, dy = (Arithmetic(PRECISIONS[precision]).exact(a) for a in (step.inputs[0], step.d_output))
    groups = standardised(x, (2,), 1e-5)
    found, whole = weight_gradient(groups, dy, (0, 2)), groups.gradient(dy, (0, 2))
    assert np.array_equal(found.value, whole.value)
    if PRECISIONS[precision].wide:
        by_example = np.abs(np.sum((dy * groups.summed).value, axis=2)).sum(axis=0)
        assert (found.bound >= whole.bound + 0.9 * PRECISIONS[precision].store * by_example).all()
    else:
        assert np.array_equal(found.bound, whole.bound)


# What the layers have in common, and the edges.


def test_sums_that_nothing_stores_in_between_are_one_sum() -> None:
    """Only a format narrower than its sums, and a sum over more than one axis, may have stored sums; one entry's sum is not another's."""
    numbers = np.stack([np.full((3, 4), 0.75), np.full((3, 4), -0.625)], axis=1)
    for precision in PRECISIONS:
        a = Arithmetic(PRECISIONS[precision]).exact(numbers)
        assert (sum_by_example(a, (0,)).radius() == a.sum((0,)).radius()).all()
        whole, stored = a.sum((0, 2)).radius(), sum_by_example(a, (0, 2)).radius()
        assert ((stored > whole) if PRECISIONS[precision].wide else (stored == whole)).all()
        assert (stored <= 8 * whole).all()


@pytest.mark.parametrize(("layer", "names"), [
    (BatchNorm(), ["weight", "bias"]), (BatchNorm(affine=False), []), (GroupNorm(2, affine=False), []), (InstanceNorm(), []),
    (InstanceNorm(affine=True), ["weight", "bias"]), (LayerNorm(), ["weight", "bias"]), (LayerNorm(bias=False), ["weight"]),
    (LayerNorm(elementwise_affine=False), []), (RMSNorm(), ["weight"]), (RMSNorm(elementwise_affine=False), []),
], ids=str)
def test_options_say_which_parameters_there_are(layer: Any, names: list[str]) -> None:
    """What is switched off is no parameter."""
    assert [*layer.parameters((4, 3))] == names


def test_norms_coincide_where_their_groups_do() -> None:
    """One group is a layer norm, one channel per group an instance norm, a batch of one example an instance norm too."""
    x, dy = (np.random.default_rng(seed).standard_normal((1, 4, 5)) for seed in (1, 2))

    def both(layer: Any) -> tuple[np.ndarray, np.ndarray]:
        y, backward = layer.forward({}, x)
        return y, backward(dy)[0]

    pairs = ((GroupNorm(1, affine=False), LayerNorm(elementwise_affine=False, axes=2)),
             (GroupNorm(4, affine=False), InstanceNorm()), (BatchNorm(affine=False), InstanceNorm()))
    for one, other in pairs:
        for a, b in zip(both(one), both(other), strict=True):
            assert np.max(np.abs(a - b)) < 1e-13, (one, other)


@pytest.mark.parametrize(("layer", "shape"), [(BatchNorm(), (3,)), (GroupNorm(3), (3,)), (LayerNorm(), (3, 1))])
def test_one_entry_is_its_own_mean(layer: Any, shape: Shape) -> None:
    """A group of one entry gives the bias, no gradient for x and none for the weight."""
    step = step_of(layer, shape, batch=1)
    found = expected_plain(step)
    bias = step.params["bias"].reshape(1, -1) if len(shape) == 1 else np.broadcast_to(step.params["bias"], (1, *shape))
    assert np.array_equal(found["output"], bias)
    assert not found["dx"].any()
    assert not found["dweight"].any()


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm(), GroupNorm(2), InstanceNorm(affine=True)])
def test_constant_groups_have_no_variance(layer: Any) -> None:
    """Where all entries are equal y is the bias, and eps alone bounds the gradient."""
    step = step_of(layer, (2, 4), scale=0.0, offset=3.0)
    found = expected_plain(step)
    bias = step.params["bias"] if isinstance(layer, LayerNorm) else step.params["bias"].reshape(-1, 1)
    assert np.array_equal(found["output"], np.broadcast_to(bias, found["output"].shape))
    assert np.max(np.abs(found["dx"])) > 1


@pytest.mark.filterwarnings("error")
@every_example
def test_nothing_is_summed_over_an_empty_batch(layer: Any, shape: Shape) -> None:
    """A batch of 0 has empty results and parameter gradients of 0, in rounded arithmetic too."""
    step = step_of(layer, shape, batch=0)
    for found in (expected_plain(step), {name: ball.value for name, ball in balls(step, "float32").items()}):
        assert found["output"].shape == found["dx"].shape == (0, *shape)
        assert not any(found[f"d{name}"].any() for name in step.d_params)


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: LayerNorm(eps=0.0), ValueError, "LayerNorm: wrong eps: got 0.0, expected a finite number > 0"),
    (lambda: BatchNorm(eps=-1.0), ValueError, "BatchNorm: wrong eps: got -1.0"),
    (lambda: RMSNorm(eps=math.inf), ValueError, "RMSNorm: wrong eps: got inf"),
    (lambda: LayerNorm(axes=0), ValueError, "LayerNorm: wrong axes: got 0"),
    (lambda: GroupNorm(0), ValueError, "GroupNorm: wrong num_groups: got 0"),
    (lambda: GroupNorm(2).output_shape((3, 2)), ShapeError, "expected channels that 2 groups divide"),
    (lambda: LayerNorm(axes=2).output_shape((3,)), ShapeError, "expected at least 2 axes"),
    (lambda: BatchNorm().output_shape(()), ShapeError, "expected an axis of channels"),
    (lambda: RMSNorm().output_shape(()), ShapeError, "expected an axis of features"),
    (lambda: InstanceNorm().output_shape((3,)), ShapeError, "more than one entry of space"),
    (lambda: InstanceNorm().output_shape((3, 1, 1)), ShapeError, "more than one entry of space"),
])
def test_bad_settings_are_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    """A setting or shape that makes no sense is named."""
    with pytest.raises(error, match=message):
        call()


# The mistakes.

PLANTED: tuple[tuple[Any, Shape], ...] = (
    (BatchNorm(eps=0.1), (3, 4)), (BatchNorm(eps=0.1, training=False), (3, 4)), (LayerNorm(eps=0.1), (5,)), (RMSNorm(eps=0.1), (5,)),
    (GroupNorm(2, eps=0.1), (4, 3)), (InstanceNorm(eps=0.1, affine=True), (2, 4)),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.code for mistake in MISTAKES])
def test_a_mistake_leaves_the_bound(mistake: Mistake) -> None:
    """Each mistake is caught on some layer, in every tensor it names and in no other, in plain and in rounded arithmetic."""
    met = 0
    for layer, shape in PLANTED:
        step = step_of(layer, shape, "float32", batch=4, offset=0.5)
        for name, ball in balls(step, "float32").items():
            planted = mistake.wrong(step, name, expected_plain)
            if planted is None:
                continue
            met += 1
            assert excess(planted, ball) > 1, (mistake.code, layer, name)
            rounded = mistake.wrong(step, name, lambda step: balls(step, "float32"))
            assert excess(planted, rounded) <= 1, (mistake.code, layer, name)
    assert met


def test_every_layer_has_its_mistakes() -> None:
    """At least three mistakes have a meaning for each layer."""
    for layer, shape in PLANTED:
        step = step_of(layer, shape, batch=4)
        assert sum(mistake.wrong(step, "dx", expected_plain) is not None for mistake in MISTAKES) >= 3, layer


def test_mistakes_have_no_meaning_where_they_change_nothing() -> None:
    """On a batch of one, without a weight or without groups to mix, nothing is planted."""
    nowhere = {"statistics-over-batch": (LayerNorm(), (4,)), "norm-weight-missing": (LayerNorm(elementwise_affine=False), (4,)),
               "groups-interleaved": (GroupNorm(1), (4, 2)), "variance-unbiased": (LayerNorm(), (1,)),
               "batch-statistics-in-evaluation": (BatchNorm(), (4, 2)), "statistics-not-over-space": (BatchNorm(), (4,)),
               "statistics-held-constant": (BatchNorm(training=False), (4,))}
    for mistake in MISTAKES:
        if mistake.code in nowhere:
            layer, shape = nowhere[mistake.code]
            assert mistake.wrong(step_of(layer, shape, batch=1), "dx", expected_plain) is None, mistake.code
