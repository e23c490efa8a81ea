"""Pooling against loops written from the definition; ties, divisors, ceil mode, bounds; and mistakes that must be caught."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.mistake import Mistake
from backproof.judge.mistakes.pooling import MISTAKES
from backproof.judge.rules import expected, expected_plain
from backproof.reference.adaptive_pooling import AdaptiveAvgPool2d, GlobalAvgPool, GlobalMaxPool
from backproof.reference.layer import Layer, Shape, ShapeError, build, describe
from backproof.reference.pooling import AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d, Mean, Sum
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

LAYERS: tuple[type[Layer], ...] = (MaxPool1d, MaxPool2d, AvgPool1d, AvgPool2d, AdaptiveAvgPool2d, GlobalAvgPool, GlobalMaxPool, Sum, Mean)

EXAMPLES: tuple[tuple[Any, Shape], ...] = tuple(example for cls in LAYERS for example in cls.examples())

SLIDING: tuple[tuple[Any, Shape], ...] = (
    *((layer, shape) for layer, shape in EXAMPLES if isinstance(layer, (MaxPool1d, MaxPool2d, AvgPool1d, AvgPool2d))),
    *((MaxPool1d(k, s, p, d, ceil), (2, n)) for k, s, p, d, n in ((3, 2, 1, 2, 8), (2, 3, 0, 1, 7), (4, 3, 2, 1, 6))
      for ceil in (False, True)),
    *((AvgPool1d(k, s, p, ceil, counted), (2, n)) for k, s, p, n in ((3, 2, 1, 8), (2, 3, 0, 7), (4, 3, 2, 6), (2, 3, 1, 7))
      for ceil in (False, True) for counted in (False, True)),
    (MaxPool1d(3, 1, ceil_mode=True), (1, 5)),
    (AvgPool1d(3, 2, ceil_mode=True), (1, 7)),
    (MaxPool2d(3, 2, 1, ceil_mode=True), (3, 6, 9)),
    (AvgPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True), (3, 6, 9)),
)

every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_sliding = pytest.mark.parametrize(("layer", "shape"), SLIDING, ids=[f"{layer}-{shape}" for layer, shape in SLIDING])


def both(option: Any, axes: int) -> tuple[int, ...]:
    return option if isinstance(option, tuple) else (option,) * axes


def starts(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> list[int]:
    """Return where windows start, one after another from the left padding on."""
    reach = dilation * (kernel - 1) + 1
    found, start = [], -padding
    while start + reach <= size + padding:
        found.append(start)
        start += stride
    if ceil and start < size and (not found or found[-1] + reach < size + padding):
        found.append(start)
    return found


def slid(layer: Any, shape: Shape) -> Iterator[tuple[tuple[int, ...], list[tuple[int, ...]], int]]:
    """Yield each window of a layer: its output index, the input indices in it, and how many places count for an average."""
    axes = len(shape) - 1
    given = (layer.kernel_size, layer.stride or layer.kernel_size, layer.padding, getattr(layer, "dilation", 1))
    options = [both(option, axes) for option in given]
    per_axis = [[(start, [start + j * d for j in range(k)], p) for start in starts(n, k, s, p, d, layer.ceil_mode)]
                for n, k, s, p, d in zip(shape[1:], *options, strict=True)]
    for index in np.ndindex(*(len(windows) for windows in per_axis)):
        chosen = [windows[i] for windows, i in zip(per_axis, index, strict=True)]
        inside = [[q for q in places if 0 <= q < n] for (_, places, _), n in zip(chosen, shape[1:], strict=True)]
        padded = [[q for q in places if q < n + p] for (_, places, p), n in zip(chosen, shape[1:], strict=True)]
        grid = [tuple(i) for i in np.stack(np.meshgrid(*inside, indexing="ij"), axis=-1).reshape(-1, axes).tolist()]
        yield index, grid, math.prod(map(len, padded if getattr(layer, "count_include_pad", False) else inside))


def looped(layer: Any, x: np.ndarray, dy_of: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return y and dx by loops over windows and entries."""
    windows = list(slid(layer, x.shape[1:]))
    y = np.zeros((*x.shape[:2], *(1 + max(axis) for axis in zip(*(index for index, _, _ in windows), strict=True))))
    dx, dy = np.zeros(x.shape), dy_of(y.shape)
    for n, c in np.ndindex(*x.shape[:2]):
        for out, grid, count in windows:
            if isinstance(layer, (MaxPool1d, MaxPool2d)):
                winner = max(grid, key=lambda place: x[n, c, *place])
                y[n, c, *out] = x[n, c, *winner]
                dx[n, c, *winner] += dy[n, c, *out]
            else:
                y[n, c, *out] = sum(x[n, c, *place] for place in grid) / count
                for place in grid:
                    dx[n, c, *place] += dy[n, c, *out] / count
    return y, dx


def whole(layer: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return y, dy and dx of a rule on quarters, whose sums are exact."""
    y, backward = layer.forward({}, x)
    dy = np.random.default_rng(5).integers(-8, 9, y.shape) / 4
    return y, dy, backward(dy)[0]


def step_of(layer: Any, shape: Shape, seed: int = 3, batch: int = 2) -> LayerTrace:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *shape))
    y, backward = layer.forward({}, x)
    dy = rng.standard_normal(y.shape)
    return LayerTrace("x", layer, (x,), y, (backward(dy)[0],), dy, {}, {})


@every_sliding
@pytest.mark.parametrize("ties", [False, True])
def test_sliding_windows_follow_the_definition(layer: Any, shape: Shape, ties: bool) -> None:
    """Output and gradient are what loops over windows give; of tied entries the first in row-major order wins."""
    rng = np.random.default_rng(11)
    x = rng.integers(-1, 2, (2, *shape)) / 1.0 if ties else rng.permutation(2 * math.prod(shape)).reshape((2, *shape)) / 4
    y, dy, dx = whole(layer, x)
    y_looped, dx_looped = looped(layer, x, lambda _: dy)
    arithmetic = Arithmetic(PRECISIONS["float64"])
    balls = expected(LayerTrace("x", layer, (x,), y, (dx,), dy, {}, {}), arithmetic)
    for name, got, want in (("output", y, y_looped), ("dx", dx, dx_looped)):
        assert got.shape == want.shape
        assert np.all(np.abs(got - want) <= 2 * balls[name].radius()), f"{name}: got {got}, expected {want}"


@pytest.mark.parametrize(("layer", "expected_y", "expected_dx"), [
    # windows over _1 2 3 4 5 6_: (_ 1 2) (2 3 4) (4 5 6) (6 _ .), the last of which reaches beyond the padding by one
    (AvgPool1d(3, 2, 1, ceil_mode=True), [1, 3, 5, 3], [1 / 3, 2 / 3, 1 / 3, 2 / 3, 1 / 3, 5 / 6]),
    (AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False), [1.5, 3, 5, 6], [1 / 2, 5 / 6, 1 / 3, 2 / 3, 1 / 3, 4 / 3]),
    (AvgPool1d(3, 2, 1), [1, 3, 5], [1 / 3, 2 / 3, 1 / 3, 2 / 3, 1 / 3, 1 / 3]),
    (MaxPool1d(3, 2, 1, ceil_mode=True), [2, 4, 6, 6], [0, 1, 0, 1, 0, 2]),
    (MaxPool1d(2, 3, ceil_mode=True), [2, 5], [0, 1, 0, 0, 1, 0]),
])
def test_divisors_and_ceil_mode_by_hand(layer: Any, expected_y: list[float], expected_dx: list[float]) -> None:
    """Only what lies in the padded input counts; a window that would start behind the input is none."""
    y, backward = layer.forward({}, np.arange(1.0, 7.0).reshape((1, 1, 6)))
    dx = backward(np.ones_like(y))[0]
    assert [round(float(v), 12) for v in y.ravel()] == [round(v, 12) for v in expected_y]
    assert [round(float(v), 12) for v in dx.ravel()] == [round(v, 12) for v in expected_dx]


@pytest.mark.parametrize(("layer", "shape"), list(AdaptiveAvgPool2d.examples()))
def test_adaptive_windows_follow_the_definition(layer: Any, shape: Shape) -> None:
    """Window o reaches from floor(o size / out) to ceil((o + 1) size / out)."""
    step = step_of(layer, shape)
    x, dy = step.inputs[0], step.d_output
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    for o in np.ndindex(*dy.shape[2:]):
        cut = tuple(slice(math.floor(i * n / m), math.ceil((i + 1) * n / m)) for i, n, m in zip(o, x.shape[2:], dy.shape[2:], strict=True))
        y[:, :, *o] = x[:, :, *cut].mean(axis=(2, 3))
        dx[:, :, *cut] += (dy[:, :, *o] / x[0, 0][cut].size)[:, :, None, None]
    balls = expected(step, Arithmetic(PRECISIONS["float64"]))
    assert np.all(np.abs(y - step.output) <= 2 * balls["output"].radius())
    assert np.all(np.abs(dx - step.d_inputs[0]) <= 2 * balls["dx"].radius())


@every_example
def test_backward_equals_complex_step(layer: Any, shape: Shape) -> None:
    """The gradient is the complex step of the forward rule, entry by entry."""
    step = step_of(layer, shape)
    x, dx = step.inputs[0], step.d_inputs[0]
    radius = expected(step, Arithmetic(PRECISIONS["float64"]))["dx"].radius()
    for place in np.ndindex(*x.shape):
        direction = np.zeros(x.shape, dtype=complex)
        direction[place] = 1e-30j
        derivative = np.sum(layer.forward({}, x + direction)[0].imag / 1e-30 * step.d_output)
        assert abs(derivative - dx[place]) <= 2 * radius[place] + np.finfo(float).tiny


@every_example
@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=str)
@pytest.mark.parametrize("kinks", ["own", "hull"])
def test_the_ball_holds_the_plain_result(layer: Any, shape: Shape, precision: Any, kinks: str) -> None:
    """On numbers a format holds, its ball contains the result of the rule on float64 arrays; batch 0 and 1 included."""
    for batch in (0, 1, 3):
        step = step_of(layer, shape, batch=batch)
        held = LayerTrace("x", layer, (precision.held(step.inputs[0]),), step.output, step.d_inputs, precision.held(step.d_output), {}, {})
        balls, plain = expected(held, Arithmetic(precision, kinks)), expected_plain(held)
        for name, value in plain.items():
            assert value.shape == {"output": step.output, "dx": step.inputs[0]}[name].shape
            assert np.all(np.abs(value - balls[name].value) <= balls[name].radius())


@every_example
def test_a_thousandth_leaves_the_float32_ball(layer: Any, shape: Shape) -> None:
    """A relative mistake of 2^-10 in the largest entry is seen in float32, in output and gradient."""
    step = step_of(layer, shape)
    for name, ball in expected(step, Arithmetic(PRECISIONS["float32"])).items():
        largest = np.unravel_index(np.argmax(np.abs(ball.value)), ball.shape)
        assert ball.radius()[largest] < abs(ball.value[largest]) * 2.0**-12, f"{name} of {layer} is too loose"


@pytest.mark.parametrize(("layer", "shape"), [e for e in EXAMPLES if isinstance(e[0], (MaxPool1d, MaxPool2d, GlobalMaxPool))])
def test_the_largest_entry_is_exact(layer: Any, shape: Shape) -> None:
    """Choosing rounds nothing; a sure winner of windows that share no entry has an exact gradient, also where kinks are hulls."""
    step = step_of(layer, shape)
    arithmetic = Arithmetic(PRECISIONS["float32"], kinks="hull")
    x, dy = (arithmetic.exact(np.round(a * 64)) for a in (step.inputs[0], step.d_output))
    x = arithmetic.exact(np.arange(x.size).reshape(x.shape) * 1.0)
    y, backward = layer.forward({}, x)
    dx = arithmetic.lift(backward(dy)[0])
    assert not np.any(y.bound)
    if isinstance(layer, GlobalMaxPool) or layer.stride is None:
        assert not np.any(dx.bound)


@pytest.mark.parametrize(("layer", "shape"), [e for e in EXAMPLES if isinstance(e[0], (MaxPool1d, MaxPool2d, GlobalMaxPool))])
def test_a_channel_hands_on_what_it_is_given(layer: Any, shape: Shape) -> None:
    """Ties or not, the gradients of a channel's entries sum to those of its windows, example by example."""
    x = np.random.default_rng(2).integers(-1, 2, (3, *shape)) / 1.0
    _, dy, dx = whole(layer, x)
    rows, given = layer.conserved(dx, dy)
    assert rows.tolist() == [entries.ravel().tolist() for example in dx for entries in example]
    assert rows.sum(axis=1).tolist() == given.sum(axis=1).tolist()


@pytest.mark.parametrize("layer", [MaxPool1d(4), GlobalMaxPool()])
@pytest.mark.parametrize(("x", "own", "low", "high"), [
    ([1, 3, 3, 2], [0, 2, 0, 0], [0, 0, 0, 0], [0, 2, 2, 0]),
    ([3, 1, 2, 3], [2, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 2]),
    ([0, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]),
    ([1, 1, 2, 2], [0, 0, 2, 0], [0, 0, 0, 0], [0, 0, 2, 2]),
    ([1, 1, 2, 0], [0, 0, 2, 0], [0, 0, 2, 0], [0, 0, 2, 0]),
])
def test_ties_share_the_gradient_in_any_way(layer: Any, x: list[int], own: list[int], low: list[int], high: list[int]) -> None:
    """Own choice the first; as a hull, every largest entry may get anything from nothing to all, and no other entry anything."""
    array = np.reshape(np.asarray(x, dtype=float), (1, 1, 4))
    for kinks, least, most in (("own", own, own), ("hull", low, high)):
        arithmetic = Arithmetic(PRECISIONS["float64"], kinks=kinks)
        _, backward = layer.forward({}, arithmetic.exact(array))
        dx = backward(arithmetic.exact(np.full((1, 1, 1), 2.0)))[0]
        assert (dx.value - dx.bounds()).ravel().tolist() == least
        assert (dx.value + dx.bounds()).ravel().tolist() == most


def test_a_winner_that_rounding_leaves_open_is_a_hull() -> None:
    """Entries closer than their bounds may each be the largest, whatever a kink means; the others stay out."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = Rounded(np.array([[[1.0, 1.0625, 0.5, 1.25]]]), np.array([[[0.125, 0.0, 0.125, 0.25]]]), arithmetic)
    y, backward = MaxPool1d(4).forward({}, x)
    dx = backward(arithmetic.exact(np.ones((1, 1, 1))))[0]
    assert (dx.value - dx.bounds()).ravel().tolist() == [0, 0, 0, 0]
    assert (dx.value + dx.bounds()).ravel().tolist() == [1, 1, 0, 1]
    assert y.value.ravel()[0] - y.bounds().ravel()[0] <= 1.0625
    assert y.value.ravel()[0] + y.bounds().ravel()[0] >= 1.5


def test_padding_never_wins_and_never_ties() -> None:
    """Where all entries are negative or zero the padding is not the largest, and no tie is made up for its sake."""
    arithmetic = Arithmetic(PRECISIONS["float64"], kinks="hull")
    for number in (-3.0, 0.0):
        y, backward = MaxPool1d(2, stride=2, padding=1).forward({}, arithmetic.exact([[[number, number - 1]]]))
        dx = backward(arithmetic.exact([[[1.0, 10.0]]]))[0]
        assert y.value.ravel().tolist() == [number, number - 1]
        assert dx.value.ravel().tolist() == [1, 10]
        assert not np.any(dx.bound)


def test_the_first_of_many_equal_entries_wins_beside_padding() -> None:
    """In windows of 24, the first of them half padding, the own choice is the first entry that is there."""
    _, backward = MaxPool1d(24, stride=24, padding=12).forward({}, np.zeros((1, 1, 40)))
    dx, _ = backward(np.ones((1, 1, 2)))
    assert np.flatnonzero(dx).tolist() == [0, 12]


@pytest.mark.parametrize("cls", [Sum, Mean])
def test_a_reduction_drops_its_axis(cls: Any) -> None:
    """The last axis and the first one behind the batch, counted from either end; with `keepdim` its size is 1."""
    assert [cls(dim).output_shape((2, 3)) for dim in (-1, 1, 2, -2)] == [(2,), (3,), (2,), (3,)]
    assert cls(2, keepdim=True).output_shape((2, 3)) == (2, 1)
    assert cls().output_shape((4,)) == ()


def test_partial_sums_stored_in_half_precision_are_allowed_for() -> None:
    """Frameworks add overlapping windows to what is stored: 1 + 2^-9 - 1 is 0 in bfloat16, and 2^-9 in float32."""
    for layer, x in ((MaxPool1d(3, 1), [0, 0, 1, 0, 0]), (AvgPool1d(3, 1), [0, 0, 0, 0, 0])):
        for name, seen in (("bfloat16", False), ("float32", True)):
            arithmetic = Arithmetic(PRECISIONS[name])
            _, backward = layer.forward({}, arithmetic.exact(np.reshape(x, (1, 1, 5))))
            dx = backward(arithmetic.exact([[[1.0, 2.0**-9, -1.0]]]))[0]
            assert (abs(0 - dx.value[0, 0, 2]) > dx.radius()[0, 0, 2]) == seen


def test_exact_arithmetic_stays_exact() -> None:
    """The mean of thirds is a rational number."""
    from fractions import Fraction

    x = np.array([[[Fraction(1), Fraction(2), Fraction(4)]]], dtype=object)
    y, backward = AvgPool1d(3).forward({}, x)
    assert y[0, 0, 0] == Fraction(7, 3)
    assert backward(np.array([[[Fraction(1)]]], dtype=object))[0][0, 0, 1] == Fraction(1, 3)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: MaxPool1d(0), "MaxPool1d: wrong kernel_size: got 0, expected a whole number >= 1"),
    (lambda: MaxPool2d((2,)), "MaxPool2d: wrong kernel_size: got .2,., expected a whole number or 2 of them >= 1"),
    (lambda: AvgPool2d(2, stride=0), "AvgPool2d: wrong stride: got 0"),
    (lambda: AvgPool1d(2, padding=-1), "AvgPool1d: wrong padding: got -1"),
    (lambda: MaxPool1d(2, dilation=0), "MaxPool1d: wrong dilation: got 0"),
    (lambda: MaxPool1d(1.5), "MaxPool1d: wrong kernel_size: got 1.5"),
    (lambda: MaxPool2d(3, padding=(1, 2)), "MaxPool2d: wrong padding: got .1, 2., expected at most half of kernel_size=3"),
    (lambda: AdaptiveAvgPool2d((0, 1)), "AdaptiveAvgPool2d: wrong output_size: got .0, 1."),
    (lambda: AdaptiveAvgPool2d((1, 2, 3)), "AdaptiveAvgPool2d: wrong output_size"),
    (lambda: Sum(0), "Sum: wrong dim: got 0, expected an axis other than the batch axis"),
    (lambda: Mean(0), "Mean: wrong dim: got 0"),
])
def test_a_wrong_configuration_is_refused(make: Any, message: str) -> None:
    """The message says what is wrong, what came and what was expected."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("layer", "shape", "message"), [
    (MaxPool1d(2), (4,), r"expected \(channels, length\)"),
    (MaxPool2d(2), (1, 4), r"expected \(channels, height, width\)"),
    (AvgPool1d(3), (1, 2), "expected room for at least one window"),
    (MaxPool1d(2, stride=1, padding=1, dilation=3), (1, 2), "expected an entry in every window"),
    (MaxPool1d(2), (1, 0), "expected room for at least one window"),
    (MaxPool1d(2, padding=1), (1, 0), "expected an entry in every window"),
    (MaxPool1d(2, stride=2, padding=1, dilation=4, ceil_mode=True), (1, 2), "expected an entry in every window"),
    (AvgPool2d(2, padding=(0, 1)), (1, 4, 0), "expected an entry in every window"),
    (AdaptiveAvgPool2d(2), (1, 4), r"expected \(channels, height, width\)"),
    (AdaptiveAvgPool2d(2), (1, 0, 4), r"got \(1, 0, 4\), expected \(channels, height, width\)"),
    (GlobalAvgPool(), (3,), "with at least one axis"),
    (GlobalMaxPool(), (3, 0), "no empty one"),
    (Sum(2), (3,), "expected an axis 2 behind the batch axis"),
    (Mean(-2), (3,), "expected an axis -2 behind the batch axis"),
])
def test_a_wrong_shape_is_refused(layer: Any, shape: Shape, message: str) -> None:
    """An input the layer cannot take raises ShapeError, and a window of nothing but padding is one of them."""
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(shape)


@every_example
def test_description_builds_the_layer_again(layer: Any, shape: Shape) -> None:
    """A layer survives the way through JSON, tuples and None included."""
    assert build(json.loads(json.dumps(describe(layer)))) == layer


def test_global_pools_are_those_of_one_window() -> None:
    """A global pool is the pool of a window as large as the image."""
    x = np.random.default_rng(0).integers(-8, 9, (2, 3, 2, 4)) / 4
    for global_pool, pool in ((GlobalAvgPool(), AvgPool2d((2, 4))), (GlobalMaxPool(), MaxPool2d((2, 4)))):
        for one, other in zip(whole(global_pool, x), whole(pool, x), strict=True):
            assert one.tolist() == other.tolist()


# The checker of the checks: each mistake is seen in the tensors it names, on some example, and touches no other.


def applies(mistake: Mistake, layer: Any, shape: Shape) -> set[str]:
    """Return the tensors that the mistake has a meaning in."""
    step = step_of(layer, shape)
    return {name for name in ("output", "dx") if mistake.wrong(step, name, expected_plain) is not None}


def caught(mistake: Mistake, layer: Any, shape: Shape) -> set[str]:
    """Return the tensors that leave the hull of all subgradients when the mistake is in them."""
    step = step_of(layer, shape)
    balls = expected(step, Arithmetic(PRECISIONS["float32"], kinks="hull"))
    wrong = {name: mistake.wrong(step, name, expected_plain) for name in applies(mistake, layer, shape)}
    return {name for name, value in wrong.items() if np.any(np.abs(value - balls[name].value) > balls[name].radius())}


OUTSIDE = [m for m in MISTAKES if m.code != "tied-all-full"]  # which a hull holds entry by entry: see tests/judge/test_mistakes.py


@pytest.mark.parametrize("mistake", OUTSIDE, ids=[m.code for m in OUTSIDE])
def test_every_mistake_is_caught_in_the_tensors_it_names(mistake: Mistake) -> None:
    """For every layer a mistake applies to, some example shows it in every tensor it names."""
    concerned = 0
    for cls in LAYERS:
        named = set().union(*(applies(mistake, layer, shape) for layer, shape in cls.examples()))
        concerned += bool(named)
        seen = set().union(*(caught(mistake, layer, shape) for layer, shape in cls.examples()))
        assert seen == named, f"{mistake.code} in {cls.__name__}"
    assert concerned


@pytest.mark.parametrize("cls", LAYERS)
def test_every_layer_has_three_mistakes(cls: type[Layer]) -> None:
    """At least three mistakes typical of pooling are planted into each layer."""
    layer, shape = next(iter(cls.examples()))
    assert sum(bool(applies(mistake, layer, shape)) for mistake in MISTAKES) >= 3


@every_example
def test_mistakes_run_in_rounded_arithmetic(layer: Any, shape: Shape) -> None:
    """Diagnosis asks each mistake for bounds, which hold what it computes in plain arithmetic."""
    step = step_of(layer, shape)
    for mistake in MISTAKES:
        for name in applies(mistake, layer, shape):
            wrong = mistake.wrong(step, name, expected_plain)
            ball = mistake.wrong(step, name, lambda altered: expected(altered, Arithmetic(PRECISIONS["float32"])))
            assert np.all(np.abs(wrong - ball.value) <= ball.radius()), mistake.code
