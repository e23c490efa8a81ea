"""Recurrent layers against loops written from the definition, their bounds from both sides, and the family's mistakes."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.recurrent import MISTAKES
from backproof.reference.direction import Directed
from backproof.reference.functions import sum_of_products
from backproof.reference.gate_functions import mixed, mixed_pullback, rounded_more, tanh_slope
from backproof.reference.layer import ShapeError, build, describe
from backproof.reference.recurrent import GRU, LSTM, RNN
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace
from backproof.reference.unrolling import Retraced, _rounded_again

Arrays = dict[str, np.ndarray]

EXAMPLES = tuple(example for of in (RNN, GRU, LSTM) for example in of.examples())
STEP = 2.0**-100

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=[str(layer) for layer, *_ in EXAMPLES])


def shapes_of(layer: Any, shapes: Any) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the outputs, also of an only one."""
    found = layer.output_shape(*shapes)
    return found if layer.states else (found,)


def draw(layer: Any, *shapes: Any, batch: int = 2, seed: int = 3) -> tuple[Arrays, list[np.ndarray], list[np.ndarray]]:
    """Return random parameters, inputs and upstream gradients."""
    rng = np.random.default_rng(seed)
    params = {name: rng.standard_normal(shape) for name, shape in layer.parameters(*shapes).items()}
    return (params, [rng.standard_normal((batch, *shape)) for shape in shapes],
            [rng.standard_normal((batch, *shape)) for shape in shapes_of(layer, shapes)])


def evaluate(layer: Any, params: Any, inputs: Any, dys: Any) -> dict[str, Any]:
    """Return every output and gradient by name."""
    y, backward = layer.forward(params, *inputs)
    dx, dparams = backward(*dys)
    outputs, dinputs = (y, dx) if len(layer.output_names) > 1 else ((y,), (dx,))
    return (dict(zip(layer.output_names, outputs, strict=True)) | {f"d{name}": d for name, d in dparams.items()}
            | {f"d{name}": d for name, d in zip(layer.input_names, dinputs, strict=True)})


def rounded(layer: Any, params: Any, inputs: Any, dys: Any, precision: str = "float64", kinks: str = "own") -> dict[str, Rounded]:
    """Return the same in rounded arithmetic."""
    arithmetic = Arithmetic(PRECISIONS[precision], kinks=kinks)
    balls = evaluate(layer, {k: arithmetic.exact(v) for k, v in params.items()}, map(arithmetic.exact, inputs), map(arithmetic.exact, dys))
    return {name: arithmetic.lift(ball) for name, ball in balls.items()}


def inside(value: np.ndarray, ball: Rounded, widened: float = 1.0) -> np.ndarray:
    return np.abs(value - ball.value) <= widened * ball.radius()


# An independent definition: loops over single numbers, example by example.


def sigmoid(a: complex) -> complex:
    return 1 / (1 + cmath.exp(-a))


def row(params: Arrays, name: str, suffix: str, index: int, v: list[complex]) -> complex:
    bias = params.get(f"bias_{name}{suffix}")
    return sum((params[f"weight_{name}{suffix}"][index, j] * v[j] for j in range(len(v))), 0 if bias is None else bias[index])


def rnn_step(layer: RNN, params: Arrays, suffix: str, x: list[complex], h: list[complex]) -> list[complex]:
    a = [row(params, "ih", suffix, k, x) + row(params, "hh", suffix, k, h) for k in range(layer.hidden_size)]
    return [cmath.tanh(v) if layer.nonlinearity == "tanh" else v * (v.real > 0) for v in a]


def gru_step(layer: GRU, params: Arrays, suffix: str, x: list[complex], h: list[complex]) -> list[complex]:
    size = layer.hidden_size
    r, z = ([sigmoid(row(params, "ih", suffix, g * size + k, x) + row(params, "hh", suffix, g * size + k, h)) for k in range(size)]
            for g in (0, 1))
    reset = [r[k] * h[k] for k in range(size)]
    new = []
    for k in range(size):
        own = row(params, "ih", suffix, 2 * size + k, x)
        hidden = (r[k] * row(params, "hh", suffix, 2 * size + k, h) if layer.reset_after
                  else row(params, "hh", suffix, 2 * size + k, reset))
        new.append((1 - z[k]) * cmath.tanh(own + hidden) + z[k] * h[k])
    return new


def lstm_step(layer: LSTM, params: Arrays, suffix: str, x: list[complex], h: list[complex], c: list[complex]) -> Any:
    size = layer.hidden_size
    i, f, g, o = ([row(params, "ih", suffix, q * size + k, x) + row(params, "hh", suffix, q * size + k, h) for k in range(size)]
                  for q in range(4))
    c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * cmath.tanh(g[k]) for k in range(size)]
    return [sigmoid(o[k]) * cmath.tanh(c[k]) for k in range(size)], c


def naive(layer: Any, params: Arrays, inputs: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Return output and final states of one example after the other."""
    directions = 2 if layer.bidirectional else 1
    names = 2 if isinstance(layer, LSTM) else 1
    found: list[list[Any]] = [[] for _ in range(1 + names)]
    for n in range(len(inputs[0])):
        steps = [list(x) for x in inputs[0][n]]
        finals: list[list[Any]] = [[] for _ in range(names)]
        for k in range(layer.num_layers):
            halves = []
            for d in range(directions):
                place, suffix = k * directions + d, f"_l{k}" + "_reverse" * d
                state = [list(s[n, place]) for s in inputs[1:]] or [[0j] * layer.hidden_size for _ in range(names)]
                out: list[Any] = [None] * len(steps)
                for t in range(len(steps))[:: -1 if d else 1]:
                    if isinstance(layer, LSTM):
                        state = list(lstm_step(layer, params, suffix, steps[t], *state))
                    else:
                        state = [(rnn_step if isinstance(layer, RNN) else gru_step)(layer, params, suffix, steps[t], *state)]
                    out[t] = state[0]
                halves.append(out)
                for kept, s in zip(finals, state, strict=True):
                    kept.append(s)
            steps = [[v for part in parts for v in part] for parts in zip(*halves, strict=True)]
        for kept, array in zip(found, [steps, *finals], strict=True):
            kept.append(array)
    return tuple(np.array(array, dtype=complex) for array in found[: None if layer.states else 1])


@every_example
def test_rule_is_the_definition_and_its_derivative(example: Any) -> None:
    """Outputs equal the loops', and every gradient equals the complex step through the loops, within rounding."""
    layer, *shapes = example
    params, inputs, dys = draw(layer, *shapes)
    actual, balls = evaluate(layer, params, inputs, dys), rounded(layer, params, inputs, dys)
    for name, y in zip(layer.output_names, naive(layer, params, inputs), strict=True):
        assert inside(y.real, balls[name]).all(), f"{layer}: {name}"
    for name, value in {**params, **dict(zip(layer.input_names, inputs, strict=True))}.items():
        assert actual[f"d{name}"].shape == value.shape
        for index in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[index] += STEP * 1j
            point = {**params, **dict(zip(layer.input_names, inputs, strict=True)), name: moved}
            ys = naive(layer, point, [point[n] for n in layer.input_names])
            slope = sum(float(np.sum(dy * y.imag)) for dy, y in zip(dys, ys, strict=True)) / STEP
            assert abs(slope - actual[f"d{name}"][index]) <= 2 * balls[f"d{name}"].radius()[index], f"{layer}: d{name} at {index}"


def test_relu_network_is_exact_on_rationals() -> None:
    """An RNN of ReLUs returns fractions for fractions, which equal the numbers of float64 within rounding."""
    layer = RNN(2, num_layers=2, nonlinearity="relu", bidirectional=True)
    params, inputs, dys = draw(layer, (3, 2))
    exact = np.vectorize(Fraction, otypes=[object])
    found = evaluate(layer, {k: exact(v) for k, v in params.items()}, map(exact, inputs), map(exact, dys))
    for name, ball in rounded(layer, params, inputs, dys).items():
        assert all(isinstance(v, Fraction | int) for v in found[name].ravel()), f"a float came into {name}"
        assert inside(found[name].astype(float), ball).all(), name


# Bounds.


@pytest.mark.parametrize("precision", PRECISIONS)
@every_example
def test_ball_holds_the_plain_result(example: Any, precision: str) -> None:
    """What the rule gives on plain arrays lies in the ball of every precision, saturated gates and large states included."""
    layer, *shapes = example
    for scale in (0.5, 1.0, 30.0):
        params, inputs, dys = draw(layer, *shapes)
        inputs = [scale * x for x in inputs]
        held = PRECISIONS[precision].held
        params, inputs, dys = {k: held(v) for k, v in params.items()}, [held(x) for x in inputs], [held(d) for d in dys]
        balls = rounded(layer, params, inputs, dys, precision)
        for name, value in evaluate(layer, params, inputs, dys).items():
            assert inside(value, balls[name]).all(), f"{name} at scale {scale}"


@pytest.mark.parametrize("layer", [RNN(4), GRU(4), GRU(4, reset_after=False), LSTM(4)], ids=str)
def test_a_thousandth_leaves_the_float32_ball(layer: Any) -> None:
    """A relative error of 2^-10 is outside in every tensor of a layer of six time steps, and of 2^-14 in its output."""
    params, inputs, dys = draw(layer, (6, 3))
    params = {name: value / 2 for name, value in params.items()}
    balls = rounded(layer, params, inputs, dys, "float32")
    for name, value in evaluate(layer, params, inputs, dys).items():
        assert not inside(value * (1 + 2.0**-10), balls[name]).all(), name
    output = evaluate(layer, params, inputs, dys)["output"]
    assert not inside(output * (1 + 2.0**-14), balls["output"]).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_sum_of_products_holds_every_order(precision: str) -> None:
    """Single terms added in any order are inside; where sums are wide, so are products and partial sums stored one by one."""
    rng, dtype = np.random.default_rng(1), PRECISIONS[precision].dtype
    wide = PRECISIONS[precision].wide
    for _ in range(50):
        pairs = [(rng.standard_normal((1, n)).astype(dtype), rng.standard_normal((n, 1)).astype(dtype)) for n in (3, 1, 5)]
        terms = [(10 * rng.standard_normal((1, 1))).astype(dtype) for _ in range(2)]
        arithmetic = Arithmetic(PRECISIONS[precision])
        ball = sum_of_products([(arithmetic.exact(a), arithmetic.exact(b)) for a, b in pairs], [arithmetic.exact(t) for t in terms])
        single = [np.float32(a[0, j]) * np.float32(b[j, 0]) for a, b in pairs for j in range(a.shape[1])]
        flat = [*single, *(np.float32(t[0, 0]) for t in terms)]
        total = np.float32(0)
        for k in rng.permutation(len(flat)):
            total = total + flat[k]
        assert inside(np.array([[dtype.type(total)]], dtype=np.float64), ball).all()
        if wide:
            parts = [*(dtype.type(np.float32(a[0]) @ np.float32(b[:, 0])) for a, b in pairs), *(t[0, 0] for t in terms)]
            stored = dtype.type(0)
            for k in rng.permutation(len(parts)):
                stored = dtype.type(stored + parts[k])
            assert inside(np.array([[stored]], dtype=np.float64), ball).all()
            assert np.max(ball.radius()) < 40 * PRECISIONS[precision].store * 20


def test_both_forms_of_the_gru_mean_are_inside() -> None:
    """(1 - z) n + z h and n + z (h - n) in float32, and their gradients as written by automatic differentiation, lie in one ball."""
    rng, arithmetic = np.random.default_rng(4), Arithmetic(PRECISIONS["float32"])
    z = (1 / (1 + np.exp(rng.uniform(-12, 12, 400)))).astype(np.float32)
    n, h, dy = rng.standard_normal((3, 400)).astype(np.float32)
    h = np.where(rng.random(400) < 0.5, h * np.float32(1e-3), n * (1 + np.float32(2e-5) * h))
    n_ball, h_ball, dy_ball, z_ball = (arithmetic.exact(v) for v in (n, h, dy, z))
    ball = mixed(1 - z_ball, z_ball, n_ball, h_ball)
    dz, dn, dh = mixed_pullback(dy_ball, 1 - z_ball, z_ball, n_ball, h_ball)
    one = np.float32(1)
    for value, target in (((one - z) * n + z * h, ball), (n + z * (h - n), ball), (dy * (h - n), dz), (dy * h - dy * n, dz),
                          (dy * (one - z), dn), (dy - dy * z, dn), (dy * z, dh)):
        assert inside(value.astype(np.float64), target).all()
    assert not inside(ball.value * (1 + 2.0**-10), ball).all()


def test_the_bound_of_the_gru_mean_counts_its_roundings() -> None:
    """Of exact operands, n + z (h - n) rounds each product three times; dy h - dy n and dy - dy z round twice. Nothing else is added."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    z, n, h, dy = 0.25, 3.0, -5.0, 3.0
    ball = mixed(*(arithmetic.exact(np.array(v)) for v in (1 - z, z, n, h)))
    dz, dn, _ = mixed_pullback(*(arithmetic.exact(np.array(v)) for v in (dy, 1 - z, z, n, h)))
    u = arithmetic.roundoff
    for got, own, roundings, magnitude in ((ball, 0.0, 3, n + z * (-h + n)), (dz, 2 * u * dy * (n - h), 2, dy * (-h + n)),
                                           (dn, u * dy * (1 - z), 2, dy * (1 + z))):
        other = roundings * u / (1 - roundings * u) * magnitude
        assert 0.9999 * (own + other) <= got.radius() <= 1.0001 * (own + other)


def test_the_bound_of_an_equal_expression() -> None:
    """k roundings of terms that sum to m add gamma_k m and k + 1 underflows, and no warning; a sum that may overflow gives up."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    u, least, most = arithmetic.roundoff, PRECISIONS["float32"].underflow, PRECISIONS["float32"].largest
    ball = rounded_more(Rounded(np.array([1.0, 0.0]), np.array([0.5, 0.0]), arithmetic), 3, np.array([2.0, 0.0]))
    gamma = 3 * u / (1 - 3 * u)
    assert ball.bound.tolist() == [0.5 + gamma * 2 + 4 * (1 + gamma) * least, 4 * (1 + gamma) * least]
    ball = rounded_more(Rounded(np.zeros(3), np.array([0.0, 0.0, 1.7e308]), arithmetic), 2, np.array([most / 64, 2 * most, 1.7e308]))
    assert np.isinf(ball.bound).tolist() == [False, True, True]
    coarse = Arithmetic(PRECISIONS["bfloat16"])
    assert np.isinf(rounded_more(Rounded(np.zeros(1), np.array([1.79e308]), coarse), 2, np.array([1.7e308])).bound).all()


def test_balls_that_have_given_up_pass_through_the_gru_mean() -> None:
    """Infinite bounds and magnitudes stay infinite, without a warning."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    zero, huge = (arithmetic.exact(np.array([v])) for v in (0.0, 1e38))
    lost = Rounded(np.zeros(1), np.array([np.inf]), arithmetic)
    assert np.isinf(mixed(zero, zero, lost, lost).bound).all()
    assert np.isinf(mixed_pullback(huge, zero, lost, huge, huge)[0].bound).all()
    assert np.isinf(mixed_pullback(zero, zero, zero, lost, lost)[0].bound).all()


@pytest.mark.parametrize(("bn", "bh"), [(0.0, 0.125), (0.125, 0.0)])
def test_the_gru_mean_of_balls_holds_its_extremes(bn: float, bh: float) -> None:
    """With z off by 1/8, and n or h too, the furthest value is inside and half as far again is not."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    z, left, n, h = (Rounded(np.array(v), np.array(b), arithmetic) for v, b in ((0.5, 0.125), (0.5, 0.125), (1.0, bn), (1.0, bh)))
    furthest = 0.625 * (bn + bh)  # of (1 - z) n + z h, at the z that gives the one that is off more weight
    ball = mixed(left, z, n, h)
    assert inside(np.array(1 + furthest), ball).all()
    assert not inside(np.array(1 + 1.5 * furthest), ball).any()


def test_saturated_tanh_slope_allows_for_a_fused_multiply_add() -> None:
    """On the left (dy + dy y)(1 - y), y = -1, may leave a rounding of dy, and nothing more; on the right it is 0."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    a = arithmetic.exact(np.array([-30.0, 30.0]))
    slope = tanh_slope(a, np.tanh(a))
    assert inside(np.array([2.0**-23, 0.0]), slope).all()
    assert not inside(np.array([1.25 * 2.0**-23, 4.5 * np.exp(-60)]), slope).any()
    assert inside(4 * np.exp(np.array([-60.0, -60.0])), slope).all()
    assert inside(np.array([3 * 2.0**-23, 0.0]), 3 * slope).all()


def test_kinks_of_the_relu() -> None:
    """At a preactivation of exactly 0 the own choice is the slope 0, and the hull holds the slope 1 too."""
    layer = RNN(1, nonlinearity="relu", bias=False)
    params = {"weight_ih_l0": np.ones((1, 1)), "weight_hh_l0": np.zeros((1, 1))}
    x, dy = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    assert evaluate(layer, params, [x], [dy])["dx"] == 0
    hull = rounded(layer, params, [x], [dy], kinks="hull")["dx"]
    assert inside(np.zeros(1), hull).all()
    assert inside(np.ones(1), hull).all()
    assert not inside(np.full(1, 1.01), hull).any()


# Time, directions, states.


@pytest.mark.parametrize("layer", [RNN(2, states=True), GRU(2, num_layers=2, states=True), LSTM(2, num_layers=2, states=True)], ids=str)
def test_a_sequence_may_be_cut_where_the_state_is_handed_on(layer: Any) -> None:
    """Two halves, the second started from the first's final states and its gradients carried back, equal the whole."""
    state = (layer.num_layers, 2)
    params, (x, *start), (dy, *dlast) = draw(layer, (5, 3), *(state for _ in layer.carried))
    whole, balls = (f(layer, params, [x, *start], [dy, *dlast]) for f in (evaluate, rounded))
    (first, *middle), back_first = layer.forward(params, x[:, :2], *start)
    (second, *last), back_second = layer.forward(params, x[:, 2:], *middle)
    (dx_second, *dmiddle), dparams_second = back_second(dy[:, 2:], *dlast)
    (dx_first, *dstart), dparams_first = back_first(dy[:, :2], *dmiddle)
    halves = {"output": np.concatenate([first, second], 1), "dx": np.concatenate([dx_first, dx_second], 1)}
    halves |= dict(zip(layer.output_names[1:], last, strict=True)) | {f"d{p}": dparams_first[p] + dparams_second[p] for p in params}
    halves |= {f"d{name}": d for name, d in zip(layer.input_names[1:], dstart, strict=True)}
    assert set(halves) == set(whole)
    for name, value in halves.items():
        assert inside(value, balls[name], 2).all(), name


@pytest.mark.parametrize("of", [RNN, GRU, LSTM])
def test_reverse_direction_is_the_layer_on_the_reversed_sequence(of: Any) -> None:
    """The second half of the features is what a layer with the `_reverse` parameters gives on time turned round."""
    layer = of(2, bidirectional=True)
    params, (x,), _ = draw(layer, (4, 3))
    own = {name.removesuffix("_reverse"): value for name, value in params.items() if name.endswith("_reverse")}
    y, _ = layer.forward(params, x)
    turned, _ = of(2).forward(own, x[:, ::-1])
    np.testing.assert_array_equal(y[..., 2:], turned[:, ::-1])


def test_reset_gate_before_and_after_agree_for_one_hidden_unit() -> None:
    """With a single hidden unit and no bias W (r h) = r (W h): both conventions are one function, and differ otherwise."""
    params, inputs, dys = draw(GRU(1, bias=False), (4, 2))
    before, balls = evaluate(GRU(1, bias=False, reset_after=False), params, inputs, dys), rounded(GRU(1, bias=False), params, inputs, dys)
    assert all(inside(value, balls[name], 2).all() for name, value in before.items())
    params, inputs, dys = draw(GRU(2), (4, 2))
    before, balls = evaluate(GRU(2, reset_after=False), params, inputs, dys), rounded(GRU(2), params, inputs, dys)
    assert not inside(before["output"], balls["output"]).all()


@pytest.mark.parametrize("layer", [RNN(2), GRU(2), GRU(2, reset_after=False), LSTM(2, num_layers=2, bidirectional=True)], ids=str)
def test_empty_batch(layer: Any) -> None:
    """No example gives empty outputs and gradients of zero."""
    params, inputs, dys = draw(layer, (3, 2), batch=0)
    for found in (evaluate(layer, params, inputs, dys), {k: b.value for k, b in rounded(layer, params, inputs, dys).items()}):
        assert found["output"].shape == (0, *layer.output_shape((3, 2)))
        assert found["dx"].shape == (0, 3, 2)
        assert all(found[f"d{name}"].shape == p.shape and not found[f"d{name}"].any() for name, p in params.items())


# Configuration.

MESSAGES: tuple[tuple[Callable[[], object], type[Exception], str], ...] = (
    (lambda: RNN(0), ValueError, r"RNN: wrong hidden_size: got 0, expected at least 1"),
    (lambda: LSTM(2, num_layers=0), ValueError, r"LSTM: wrong num_layers: got 0, expected at least 1"),
    (lambda: RNN(2, nonlinearity="gelu"), ValueError, r"RNN: unknown nonlinearity: got 'gelu', expected 'tanh' or 'relu'"),
    (lambda: GRU(2).output_shape((3,)), ShapeError, r"got \(3,\), expected \(time, features\), both at least 1"),
    (lambda: GRU(2).output_shape((0, 3)), ShapeError, r"got \(0, 3\), expected \(time, features\), both at least 1"),
    (lambda: LSTM(2, states=True).output_shape((3, 1), (1, 2), (2, 2)), ShapeError, r"got \(2, 2\), expected \(1, 2\) of a state"),
)


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[message[:40] for _, _, message in MESSAGES])
def test_wrong_options_and_shapes_are_named(call: Callable[[], object], error: type[Exception], message: str) -> None:
    """A message says what is wrong, what it got and what it expected."""
    with pytest.raises(error, match=message):
        call()


@every_example
def test_layers_travel_as_data(example: Any) -> None:
    """A layer survives its description, and its names depend on `states` alone."""
    layer = example[0]
    assert build(describe(layer)) == layer
    assert len(layer.input_names) == len(layer.output_names) == (1 + len(layer.carried) if layer.states else 1)


# Mistakes.

PLANTED = tuple((mistake, layer) for mistake in MISTAKES
                for of in (RNN, GRU, LSTM) for layer in (of(2, num_layers=2, bidirectional=True, states=True), of(2)))


@pytest.mark.parametrize("kept", ["float64", "float32"])
@pytest.mark.parametrize(("mistake", "layer"), PLANTED, ids=[f"{mistake.code}-{layer}" for mistake, layer in PLANTED])
def test_mistakes_leave_the_ball_where_they_say(mistake: Any, layer: Any, kept: str) -> None:
    """A mistake is outside the ball in the tensors it names and in no other, and other layers do not have it."""
    state = (4, 2)
    params, inputs, dys = draw(layer, (3, 2), *((state,) * len(layer.carried) if layer.states else ()))
    balls = rounded(layer, params, inputs, dys, kept)
    step = LayerTrace("layer", layer, tuple(inputs), balls["output"].value, (), dys[0], params, {})
    seen: list[dict[str, Any]] = []

    def rule(altered: LayerTrace) -> dict[str, Any]:
        seen.append(evaluate(altered.layer, params, inputs, dys))
        return seen[-1]

    named = {name for name in balls if mistake.wrong(step, name, rule) is not None}
    for altered in seen[:1]:
        changed = {name for name, ball in balls.items() if not inside(altered[name], ball).all()}
        assert changed == named
        assert all(altered[name].shape == ball.shape for name, ball in balls.items())
    assert bool(named) == bool(seen)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_states_are_kept_as_they_are_stored(precision: str) -> None:
    """Of each direction the states, step by step; where more digits are computed than stored, each may be the half of an ulp away."""
    kind = PRECISIONS[precision]
    y = np.random.default_rng(0).standard_normal((2, 3, 10)).astype(kind.dtype)
    kept = Retraced(Arithmetic(kind).exact(y), 0)
    for direction in (0, 1):
        states, own = kept.states(5, direction), y[..., 5 * direction : 5 * direction + 5].astype(float)
        assert len(states) == 3
        for t, state in enumerate(states):
            assert np.array_equal(state.value, own[:, t])
            away = np.abs(own[:, t]) * 2.0**-11 / (1 - 2.0**-11) + 2.0**-24 if precision == "float16" else np.zeros((2, 5))
            assert np.abs(state.bounds() - away).max() <= 2.0**-60
            assert state.arithmetic.precision is kind


def test_a_state_rounded_again_is_two_bounds_away() -> None:
    """Both the recorded one and the other lie within the bound of the exact one; the widest counts."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    kept, *again = (Rounded(np.array([v, 2.0]), np.array([b, 1.0]), arithmetic) for v, b in ((1.0, 0.5), (1.25, 0.25), (0.5, 0.125)))
    assert _rounded_again(kept, []) is kept
    found = _rounded_again(kept, again)
    assert (found.value.tolist(), found.bound.tolist()) == ([1.0, 2.0], [1.0, 3.0])
    assert found.arithmetic is arithmetic


def test_an_equal_expression_that_may_overflow_is_unknown() -> None:
    """Where its terms may leave the range, or the bound does, nothing is known, and everything just before."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    for size in (arithmetic.safe * (1 - 2.0**-30), arithmetic.safe * (1 + 2.0**-30)):
        known = rounded_more(arithmetic.exact(np.ones(2)), 2, np.array([size, 1.0]))
        assert np.isfinite(known.bound).tolist() == [size < arithmetic.safe, True]
    wide = Rounded(np.zeros(2), np.array([arithmetic.precision.largest, 1.0]), arithmetic)
    assert np.isfinite(rounded_more(wide, 2, np.ones(2)).bound).tolist() == [False, True]


def test_the_slope_of_tanh_along_a_direction() -> None:
    """It is 1 - y^2 with the derivative -2 y (1 - y^2); the ball holds what 1 - y^2 loses near 1, and not much more."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, v = np.array([0.5, -1.0, 6.0]), np.array([1.0, 2.0, -0.5])
    a = Directed.of(x, arithmetic, v)
    slope = tanh_slope(a, np.tanh(a))
    y = np.tanh(x)
    assert (np.abs(slope.value.value - (1 - y * y)) <= 2.0**-50).all()
    assert (slope.value.bound >= 2.0**-25).all()
    assert (slope.value.bound <= 2.0**-18).all()
    found = slope.derivative()
    assert (np.abs(found.value + 2 * y * (1 - y * y) * v) <= found.bound).all()
    assert (found.bound <= 2.0**-15).all()
