"""Convolutions: against the definition in exact arithmetic, as adjoints of each other, their bounds, and their planted mistakes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.convolution import MISTAKES
from backproof.judge.rules import expected, expected_plain, tensors
from backproof.reference.convolution import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d
from backproof.reference.layer import ShapeError, build, describe
from backproof.reference.rounding import PRECISIONS, Arithmetic
from backproof.reference.trace import LayerTrace

LAYERS = (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d)
EXAMPLES = tuple(example for cls in LAYERS for example in cls.examples())
RICH = (
    (Conv1d(4, 3, stride=2, padding=1, dilation=2, groups=2), (4, 8)),
    (Conv2d(4, (3, 2), stride=(2, 3), padding=1, dilation=(2, 1), groups=2), (4, 8, 5)),
    (Conv3d(4, (3, 2, 1), stride=(2, 1, 1), padding=(1, 1, 0), dilation=(2, 1, 1), groups=2), (4, 8, 3, 2)),
    (ConvTranspose1d(4, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2), (4, 5)),
    (ConvTranspose2d(4, (3, 2), stride=(2, 1), padding=1, output_padding=(1, 0), groups=2, dilation=(2, 1)), (4, 4, 5)),
)
"""One setting of each layer with every option in play: on it each mistake shows."""

FORWARD_ONLY, TRANSPOSED_ONLY = ("conv-overlap-overwritten", "conv-edges-dropped"), ("conv-transpose-overlap-overwritten",)

every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_layer = pytest.mark.parametrize(("layer", "shape"), RICH, ids=[type(layer).__name__ for layer, _ in RICH])
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def whole(rng: np.random.Generator, shape: Any) -> np.ndarray:
    """Return random whole numbers as fractions."""
    return np.vectorize(Fraction, otypes=[object])(rng.integers(-9, 10, shape))


def draw(layer: Any, shape: Any, kind: Callable[[np.random.Generator, Any], np.ndarray], batch: int = 2) -> Any:
    """Return parameters, x and dy."""
    rng = np.random.default_rng(3)
    params = {name: kind(rng, size) for name, size in layer.parameters(shape).items()}
    return params, kind(rng, (batch, *shape)), kind(rng, (batch, *layer.output_shape(shape)))


def normal(rng: np.random.Generator, shape: Any) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32).astype(np.float64)


def step_of(layer: Any, shape: Any) -> LayerTrace:
    """Return a right step in float64 holding numbers of float32."""
    params, x, dy = draw(layer, shape, normal)
    y, backward = layer.forward(params, x)
    dx, dparams = backward(dy)
    return LayerTrace("x", layer, (x,), y, (dx,), dy, params, dparams)


def by_definition(layer: Any, params: Any, x: np.ndarray) -> np.ndarray:
    """Slide the kernel over x (or, transposed, spread it over y) one number at a time."""
    transposed = hasattr(layer, "output_padding")
    weight, groups, sizes = params["weight"], layer.groups, layer.output_shape(x.shape[1:])
    y = np.zeros((len(x), *sizes), dtype=object)
    if layer.bias:
        y = y + params["bias"].reshape(-1, *[1] * layer.axes)
    before = {"valid": (0,) * layer.axes, "same": tuple(d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))}
    padding = before[layer.padding] if isinstance(layer.padding, str) else layer.padding
    wide, narrow = (y, x) if transposed else (x, y)
    for n, rows in enumerate(weight):
        of_group = n // (len(weight) // groups) * weight.shape[1]
        for at in np.ndindex(*weight.shape[1:]):
            for o in np.ndindex(*narrow.shape[2:]):
                i = tuple(p * s + k * d - pad for p, s, k, d, pad in zip(o, layer.stride, at[1:], layer.dilation, padding, strict=True))
                if not all(0 <= j < size for j, size in zip(i, wide.shape[2:], strict=True)):
                    continue
                here, there = (slice(None), n, *o), (slice(None), of_group + at[0], *i)
                y[there if transposed else here] += x[here if transposed else there] * rows[at]
    return y


@every_example
def test_output_is_the_definition_in_exact_arithmetic(layer: Any, shape: Any) -> None:
    """Fractions in, fractions out, equal to the loops entry by entry."""
    params, x, _ = draw(layer, shape, whole)
    y, _ = layer.forward(params, x)
    assert (y == by_definition(layer, params, x)).all()


@every_example
def test_gradients_are_the_exact_adjoint_of_the_definition(layer: Any, shape: Any) -> None:
    """A convolution is linear in x, in the weight and in the bias: <y(v), dy> = <v, dv> for the loops' y, exactly."""
    params, x, dy = draw(layer, shape, whole)
    dx, dparams = layer.forward(params, x)[1](dy)
    rng = np.random.default_rng(4)
    no_bias = {"bias": params["bias"] * 0} if layer.bias else {}
    v = whole(rng, x.shape)
    assert (by_definition(layer, {**params, **no_bias}, v) * dy).sum() == (v * dx).sum()
    v = whole(rng, params["weight"].shape)
    assert (by_definition(layer, {"weight": v, **no_bias}, x) * dy).sum() == (v * dparams["weight"]).sum()
    assert set(dparams) == set(params)
    if layer.bias:
        assert (dparams["bias"] == dy.sum(axis=(0, *range(2, dy.ndim)))).all()


@pytest.mark.parametrize(("layer", "shape"), [*EXAMPLES, *RICH], ids=str)
def test_there_are_as_many_outputs_as_windows_that_fit(layer: Any, shape: Any) -> None:
    """Along each axis a window is put down wherever the padded input, or the output that is padded away from, holds all of it."""
    transposed = hasattr(layer, "output_padding")
    outputs = layer.output_shape(shape)
    assert outputs[0] == layer.out_channels
    for axis, (k, s, d, size, out) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, shape[1:], outputs[1:], strict=True)):
        if layer.padding == "same":
            assert out == size
            continue
        padding = 0 if layer.padding == "valid" else layer.padding[axis]
        wide, narrow = (out, size) if transposed else (size, out)
        extra = layer.output_padding[axis] if transposed else 0
        fitting = [start for start in range(0, wide + 2 * padding - extra, s) if start + d * (k - 1) < wide + 2 * padding - extra]
        assert len(fitting) == narrow
        assert not transposed or fitting[-1] + d * (k - 1) == wide + 2 * padding - extra - 1


def test_transpose_is_the_adjoint_of_the_convolution_with_the_same_weight() -> None:
    """<conv(x), z> = <x, transpose(z)>, exactly, with the convolution's own weight and the remainder as output padding."""
    options: dict[str, Any] = {"stride": (2, 3), "padding": (1, 0), "dilation": (1, 2), "groups": 2, "bias": False}
    conv, transpose = Conv2d(4, (3, 2), **options), ConvTranspose2d(6, (3, 2), output_padding=(1, 0), **options)
    params, x, z = draw(conv, (6, 6, 6), whole)
    assert transpose.parameters(z.shape[1:]) == conv.parameters(x.shape[1:])
    assert (conv.forward(params, x)[0] * z).sum() == (x * transpose.forward(params, z)[0]).sum()


@every_precision
@pytest.mark.parametrize(("layer", "shape"), [*EXAMPLES, *RICH], ids=str)
def test_the_ball_holds_the_plain_result(layer: Any, shape: Any, precision: str) -> None:
    """In every precision the float64 result lies within the bound."""
    step = step_of(layer, shape)
    held = LayerTrace("x", layer, tuple(map(PRECISIONS[precision].held, step.inputs)), step.output, step.d_inputs,
                      PRECISIONS[precision].held(step.d_output), {k: PRECISIONS[precision].held(p) for k, p in step.params.items()},
                      step.d_params)
    balls, plain = expected(held, Arithmetic(PRECISIONS[precision])), expected_plain(held)
    assert set(balls) == set(plain)
    assert all((np.abs(plain[name] - ball.value) <= ball.radius()).all() for name, ball in balls.items())


@every_layer
def test_the_ball_holds_what_float32_computes_in_any_order(layer: Any, shape: Any) -> None:
    """Each entry summed in float32 term by term, forwards, backwards and by the rule itself."""
    step = step_of(layer, shape)
    balls = expected(step, Arithmetic(PRECISIONS["float32"]))
    single = {name: p.astype(np.float32) for name, p in step.params.items()}
    x, dy = step.inputs[0].astype(np.float32), step.d_output.astype(np.float32)
    y, backward = layer.forward(single, x)
    dx, dparams = backward(dy)
    found = [("output", y), ("dx", dx), *((f"d{name}", d) for name, d in dparams.items())]
    turned = {"weight": single["weight"][:, ::-1], "bias": single["bias"]}  # channels in reverse: another order of the same sum
    if not hasattr(layer, "output_padding"):
        reverse = x.reshape(len(x), layer.groups, -1, *shape[1:])[:, :, ::-1].reshape(x.shape)
        found.append(("output", layer.forward(turned, reverse)[0]))
    for name, array in found:
        assert array.dtype == np.float32
        assert (np.abs(array.astype(np.float64) - balls[name].value) <= balls[name].radius()).all()


@every_layer
def test_a_relative_mistake_of_a_thousandth_leaves_the_float32_ball(layer: Any, shape: Any) -> None:
    """In every tensor, at its largest entry."""
    step = step_of(layer, shape)
    for name, ball in expected(step, Arithmetic(PRECISIONS["float32"])).items():
        right = tensors(step)[name]
        worst = np.unravel_index(int(np.argmax(np.abs(right))), right.shape)
        assert abs(right[worst]) * 2.0**-10 > 16 * ball.radius()[worst], name


def test_the_bound_counts_terms_and_not_padding() -> None:
    """Where windows do not overlap, an input meets one offset: its gradient is one product, rounded twice at most."""
    layer = Conv2d(1, 3, stride=3, padding=3)
    step = step_of(layer, (1, 3, 3))
    balls = expected(step, Arithmetic(PRECISIONS["float32"]))
    assert (balls["dx"].radius() <= 1.01 * 2.0**-24 * np.abs(balls["dx"].value)).all()
    outside = np.ones((3, 3), dtype=bool)
    outside[1, 1] = False
    assert (balls["output"].value[:, 0, outside] == step.params["bias"]).all()


def test_positions_in_no_window_are_exact() -> None:
    """A gradient that no window reaches is exactly 0, an output that no input reaches is exactly the bias."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    dx = expected(step_of(Conv1d(2, 1, stride=3), (1, 6)), arithmetic)["dx"]
    assert not dx.value[:, :, [1, 2, 4, 5]].any()
    assert not dx.radius()[:, :, [1, 2, 4, 5]].any()
    step = step_of(ConvTranspose1d(2, 1, stride=3, output_padding=2), (1, 2))
    y = expected(step, arithmetic)["output"]
    assert (y.value[:, :, [1, 2, 4, 5]] == step.params["bias"][:, None]).all()


def test_an_overflow_in_the_padding_stays_there() -> None:
    """Padding is zero whatever is next to it: an infinite input spoils the windows that see it and no others."""
    x = np.array([[[1.0, 2.0, np.inf]]])
    y, _ = Conv1d(1, 2, padding=1, bias=False).forward({"weight": np.ones((1, 1, 2))}, x)
    assert y.tolist() == [[[1.0, 3.0, np.inf, np.inf]]]


@every_example
def test_an_empty_batch_has_no_output_and_zero_gradients(layer: Any, shape: Any) -> None:
    params, x, dy = draw(layer, shape, normal, batch=0)
    y, backward = layer.forward(params, x)
    dx, dparams = backward(dy)
    assert (y.shape, dx.shape) == (dy.shape, x.shape)
    assert all(d.shape == params[name].shape and not d.any() for name, d in dparams.items())
    y, backward = layer.forward({k: Arithmetic(PRECISIONS["float32"]).exact(p) for k, p in params.items()},
                                Arithmetic(PRECISIONS["float32"]).exact(x))
    assert y.shape == dy.shape


@every_example
def test_layers_survive_json_and_take_a_number_for_every_axis(layer: Any, shape: Any) -> None:
    assert build(describe(layer)) == layer
    assert type(layer)(2, 3) == type(layer)(2, (3,) * layer.axes, stride=(1,) * layer.axes)
    assert type(layer)(2, 3).kernel_size == (3,) * layer.axes


def test_same_keeps_the_sizes_and_puts_the_odd_zero_behind() -> None:
    x = np.arange(1.0, 4.0).reshape(1, 1, 3)
    y, _ = Conv1d(1, 2, padding="same", bias=False).forward({"weight": np.array([[[1.0, 10.0]]])}, x)
    assert y.tolist() == [[[21.0, 32.0, 3.0]]]
    assert Conv2d(1, (4, 5), padding="same", dilation=(3, 2)).output_shape((2, 3, 4)) == (1, 3, 4)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Conv2d(0, 3), "Conv2d: wrong out_channels: got 0, expected a whole number >= 1"),
    (lambda: Conv2d(2, 3, groups=0), "Conv2d: wrong groups: got 0"),
    (lambda: Conv2d(3, 3, groups=2), "Conv2d: wrong out_channels: got 3, expected a multiple of groups = 2"),
    (lambda: Conv1d(2, 0), "Conv1d: wrong kernel_size: got 0, expected a whole number >= 1, or 1 of them"),
    (lambda: Conv2d(2, (3, 3, 3)), r"Conv2d: wrong kernel_size: got \(3, 3, 3\)"),
    (lambda: Conv3d(2, 3, stride=(1, 0, 1)), r"Conv3d: wrong stride: got \(1, 0, 1\)"),
    (lambda: Conv1d(2, 3, padding=-1), "Conv1d: wrong padding: got -1, expected 'same', 'valid', a whole number >= 0, or 1 of them"),
    (lambda: Conv1d(2, 3, padding="full"), "Conv1d: wrong padding: got 'full', expected 'same', 'valid'"),
    (lambda: Conv1d(2, 3, padding="same", stride=2), r"Conv1d: wrong stride: got \(2,\), expected 1 along every axis where padding='same'"),
    (lambda: Conv1d(2, 1.5), "Conv1d: wrong kernel_size: got 1.5"),
    (lambda: Conv1d(2, 3, dilation=0), "Conv1d: wrong dilation: got 0"),
    (lambda: ConvTranspose1d(2, 3, stride=2, output_padding=2), "ConvTranspose1d: wrong output_padding: got .*less than the stride or the"),
    (lambda: ConvTranspose1d(2, 3, padding="same"), "ConvTranspose1d: wrong padding: got 'same'"),
])
def test_wrong_options_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("layer", "shape", "message"), [
    (Conv2d(2, 3), (1, 5), "expected channels and 2 sizes of at least 1"),
    (Conv1d(2, 3), (1, 0), "expected channels and 1 sizes of at least 1"),
    (Conv1d(2, 3, groups=2), (3, 5), "expected a number of channels that is a multiple of groups = 2"),
    (Conv2d(2, 3, dilation=2), (1, 9, 4), r"got \(1, 9, 4\), expected sizes that, padded, hold the kernel with its dilation"),
    (ConvTranspose1d(2, 1, padding=2), (1, 4), "expected sizes of which the padding leaves something"),
])
def test_wrong_shapes_are_refused(layer: Any, shape: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(shape)


@every_layer
@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.code for m in MISTAKES])
def test_each_mistake_is_caught_in_the_tensors_it_names(layer: Any, shape: Any, mistake: Any) -> None:
    """In plain arithmetic it lies outside the float32 ball of the right rule, and its own ball holds it."""
    step, arithmetic = step_of(layer, shape), Arithmetic(PRECISIONS["float32"])
    right = expected(step, arithmetic)
    made = {name: (mistake.wrong(step, name, expected_plain), mistake.wrong(step, name, lambda s: expected(s, arithmetic)))
            for name in right}
    touched = {name for name, (plain, _) in made.items() if plain is not None}
    transposed = hasattr(layer, "output_padding")
    assert bool(touched) == (mistake.code not in (FORWARD_ONLY if transposed else TRANSPOSED_ONLY))
    for name in touched:
        plain, ball = made[name]
        assert plain.shape == right[name].shape
        assert (np.abs(plain - right[name].value) > 2 * right[name].radius()).any(), name
        assert (np.abs(plain - ball.value) <= ball.radius()).all(), name
