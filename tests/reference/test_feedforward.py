"""The founding algorithm against the layer form, exact rationals and complex steps; the comparison against planted mistakes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from backproof.reference import feedforward
from backproof.reference.activations import ReLU
from backproof.reference.feedforward import OUTPUTS, ROUTES, backpropagation, cost, forward_propagation
from backproof.reference.heads import OUTPUTS as HEAD_OUTPUTS
from backproof.reference.heads import Head
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from hypothesis import given, settings
from hypothesis import strategies as st

Parameters = dict[str, np.ndarray]
HEADS = {
    "linear": Head("linear", "half_squared_error"),
    "sigmoid": Head("sigmoid", "bce", reduction="sum"),  # the text sums over outputs, torch's mean would not
    "softmax": Head("softmax", "cross_entropy"),
}
WIDTHS = (1, 2, 3, 5, 8)


def draw(widths: tuple[int, ...], m: int, output: str, seed: int, whole: bool) -> tuple[np.ndarray, np.ndarray, Parameters]:
    """Draw X, Y and parameters; `whole` draws small integers, which put many Z exactly on the kink."""
    rng = np.random.default_rng(seed)

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-1, 2, shape).astype(float) if whole else rng.standard_normal(shape)

    parameters: Parameters = {}
    for layer, (before, after) in enumerate(pairwise(widths), start=1):
        parameters |= {f"W{layer}": numbers(after, before), f"b{layer}": numbers(after, 1)}
    shape = (widths[-1], m)
    if output == "linear":
        Y = numbers(*shape)
    elif output == "sigmoid":
        Y = rng.integers(2, size=shape).astype(float)
    else:
        Y = np.eye(widths[-1])[rng.integers(widths[-1], size=m)].T
    return numbers(widths[0], m), Y, parameters


def column_form(module: Any, X: np.ndarray, Y: np.ndarray, parameters: Parameters, output: str,
                route: str = "fused") -> dict[str, Any]:
    """Return cost, cache and gradients of the founding form, in one dictionary."""
    AL, cache = module.forward_propagation(X, parameters, output)
    assert AL is cache[f"A{len(parameters) // 2}"]
    results = {"J": module.cost(AL, Y, output), **cache, **module.backpropagation(cache, Y, parameters, route)}
    del results["output"]
    return results


def layer_form(X: Any, Y: Any, parameters: Mapping[str, Any], output: str, one: Any) -> dict[str, Any]:
    """Return the same by Linear, ReLU and Head, examples in rows, turned into the founding form's letters and scale.

    `one` is the number 1 in the arithmetic to compute in. A head's mean puts 1/m into dZ already: m dZ is the founding dZ.
    J is by the general route, from A as in the founding form; where A is too near 0 or 1 to say anything of it, it is left out.
    """
    m, depth = X.shape[1], len(parameters) // 2
    layers: list[Layer] = []
    named: dict[str, dict[str, Any]] = {}
    for layer in range(1, depth + 1):
        W, b = parameters[f"W{layer}"], parameters[f"b{layer}"]
        named[f"layers.{len(layers)}"] = {"weight": W, "bias": b.reshape(-1)}
        layers.append(Linear(W.shape[0]))
        if layer < depth:
            named[f"layers.{len(layers)}"] = {}
            layers.append(ReLU())
    upstream = one / m if HEADS[output].reduction == "sum" else one
    head = HEADS[output]
    trace = Network((X.shape[0],), tuple(layers), head).run(named, X.T, Y.T, upstream)
    last = trace.layers[-1].inputs[0]
    results = {"A0": X, f"A{depth}": HEAD_OUTPUTS[output](last)[0].T}
    J = head.forward({}, last, Y.T, route="general")[0] * upstream
    if not isinstance(J, Rounded) or np.isfinite(J.radius()):
        results["J"] = J
    for index, step in enumerate(trace.layers[:-1]):
        layer = index // 2 + 1
        if index % 2 == 0:
            bias = step.d_params["bias"]
            results |= {f"Z{layer}": step.output.T, f"dW{layer}": step.d_params["weight"], f"db{layer}": bias.reshape(-1, 1),
                        f"dZ{layer}": step.d_output.T * m, f"dA{layer - 1}": step.d_inputs[0].T * m}
        else:
            results[f"A{layer}"] = step.output.T
    return results


def disagreements(found: Mapping[str, Any], balls: Mapping[str, Any]) -> list[str]:
    """Name what differs from the layer form by more than rounding can explain: by two radii, one for each of the two.

    An infinite ball is a disagreement too, and only J may be without a ball: nothing else passes unchecked.
    """
    assert found.keys() - balls.keys() <= {"J"}
    names = []
    for name, ball in balls.items():
        if isinstance(ball, Rounded):
            value, reach = ball.value, 2 * ball.radius()
        else:
            value, reach = ball, np.zeros(())
        if np.shape(found[name]) != np.shape(value) or not np.all((np.abs(found[name] - value) <= reach) & (reach < np.inf)):
            names.append(name)
    return names


def rounded_layer_form(X: np.ndarray, Y: np.ndarray, parameters: Parameters, output: str) -> dict[str, Any]:
    """Return the layer form in rounded float64 arithmetic."""
    exact = Arithmetic(PRECISIONS["float64"]).exact
    return layer_form(exact(X), exact(Y), {k: exact(a) for k, a in parameters.items()}, output, exact(1.0))


def rational(a: np.ndarray) -> np.ndarray:
    """Return the array as fractions."""
    return np.array([Fraction(float(x)) for x in a.ravel()], dtype=object).reshape(a.shape)


architectures = st.tuples(st.sampled_from(WIDTHS), *[st.sampled_from(WIDTHS)] * 4)
drawn = given(widths=architectures, depth=st.integers(1, 4), m=st.sampled_from((1, 2, 7)), seed=st.integers(0, 10**6),
              whole=st.booleans())


@pytest.mark.parametrize("output", OUTPUTS)
@settings(max_examples=60, deadline=None)
@drawn
def test_equal_to_the_layer_form(output: str, widths: tuple[int, ...], depth: int, m: int, seed: int, whole: bool) -> None:
    """Cost, every Z and A, and every gradient equal the layer form's, transposed, up to rounding."""
    X, Y, parameters = draw(widths[: depth + 1], m, output, seed, whole)
    found = column_form(feedforward, X, Y, parameters, output)
    assert disagreements(found, rounded_layer_form(X, Y, parameters, output)) == []


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_cost_is_nearly_always_compared(output: str) -> None:
    """Of a hundred networks the cost of hardly one is left out for an A too near 0 or 1."""
    compared = sum("J" in rounded_layer_form(*draw((3, 5, 2), 3, output, seed, whole=False), output) for seed in range(100))
    assert compared > 95


@settings(max_examples=40, deadline=None)
@drawn
def test_equal_to_the_layer_form_exactly(widths: tuple[int, ...], depth: int, m: int, seed: int, whole: bool) -> None:
    """In rationals, kinks included, the two forms of a network with linear output are equal to the last digit."""
    X, Y, parameters = draw(widths[: depth + 1], m, "linear", seed, whole)
    X, Y, parameters = rational(X), rational(Y), {k: rational(a) for k, a in parameters.items()}
    found = column_form(feedforward, X, Y, parameters, "linear")
    assert disagreements(found, layer_form(X, Y, parameters, "linear", Fraction(1))) == []
    assert all(isinstance(x, Fraction | int) or x == 0 for a in found.values() for x in np.ravel(a)), "no float got in"


@pytest.mark.parametrize("output", OUTPUTS)
@settings(max_examples=40, deadline=None)
@drawn
def test_both_routes_to_the_last_dz_agree(output: str, widths: tuple[int, ...], depth: int, m: int, seed: int,
                                          whole: bool) -> None:
    """A - Y equals the loss's derivative pulled back through the output, and so do all gradients behind it.

    The general route divides by A and 1 - A, which are kept away from 0 here: its digits go as they near it.
    """
    X, Y, parameters = draw(widths[: depth + 1], m, output, seed, whole)
    _, cache = forward_propagation(X, parameters, output)
    parameters[f"W{depth}"] = parameters[f"W{depth}"] / (1 + np.abs(cache[f"Z{depth}"]).max())
    parameters[f"b{depth}"] = parameters[f"b{depth}"] / 4
    found = column_form(feedforward, X, Y, parameters, output, "general")
    balls = rounded_layer_form(X, Y, parameters, output)
    assert disagreements(found, balls) == []
    assert found.keys() == column_form(feedforward, X, Y, parameters, output, "fused").keys()


def test_general_route_is_not_the_fused_one() -> None:
    """Where A reaches 1 the general route has no number to give, and the fused one does: they are two computations."""
    X, Y = np.array([[1.0]]), np.array([[0.0]])
    parameters = {"W1": np.array([[40.0]]), "b1": np.zeros((1, 1))}
    _, cache = forward_propagation(X, parameters, "sigmoid")
    assert backpropagation(cache, Y, parameters)["dZ1"] == 1
    with np.errstate(all="ignore"):
        assert np.isnan(backpropagation(cache, Y, parameters, route="general")["dZ1"])


# A 2-2-1 network worked by hand: two examples, linear output, every number a fraction.
#   Z1 = W1 X + b1 = [[1 -1][2 1]] [[1 2][3 1]] + [1/2, -1] = [[-3/2 3/2][4 4]];   A1 = [[0 3/2][4 4]]
#   Z2 = [2 -1] A1 + 1 = [-3 0];   A2 - Y = [-3 0] - [1 -1/2] = [-4 1/2];   J = (16 + 1/4) / 4 = 65/16
#   dW2 = 1/2 [-4 1/2] A1^T = 1/2 [3/4, -14] = [3/8, -7];   db2 = 1/2 (-7/2) = -7/4;   dA1 = [2 -1]^T [-4 1/2] = [[-8 1][4 -1/2]]
#   dZ1 = [[0 1][4 -1/2]];   dW1 = 1/2 dZ1 X^T = 1/2 [[2 1][3 23/2]];   db1 = 1/2 [1, 7/2];   dA0 = W1^T dZ1 = [[8 0][4 -3/2]]
F = Fraction
BY_HAND = {
    "X": [[1, 2], [3, 1]], "Y": [[1, F(-1, 2)]],
    "W1": [[1, -1], [2, 1]], "b1": [[F(1, 2)], [-1]], "W2": [[2, -1]], "b2": [[1]],
    "Z1": [[F(-3, 2), F(3, 2)], [4, 4]], "A1": [[0, F(3, 2)], [4, 4]], "Z2": [[-3, 0]], "A2": [[-3, 0]],
    "dZ2": [[-4, F(1, 2)]], "dW2": [[F(3, 8), -7]], "db2": [[F(-7, 4)]], "dA1": [[-8, 1], [4, F(-1, 2)]],
    "dZ1": [[0, 1], [4, F(-1, 2)]], "dW1": [[1, F(1, 2)], [F(3, 2), F(23, 4)]], "db1": [[F(1, 2)], [F(7, 4)]],
    "dA0": [[8, 0], [4, F(-3, 2)]],
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [object, float])
def test_worked_by_hand(dtype: Any, route: str) -> None:
    """A 2-2-1 network gives the numbers worked out on paper, in fractions and (they are binary) in floats."""
    by_hand = {k: np.array(v, dtype=dtype) for k, v in BY_HAND.items()}
    parameters = {k: by_hand[k] for k in ("W1", "b1", "W2", "b2")}
    AL, cache = forward_propagation(by_hand["X"], parameters, "linear")
    assert cost(AL, by_hand["Y"], "linear") == F(65, 16)
    assert list(cache) == ["output", "A0", "Z1", "A1", "Z2", "A2"]
    grads = backpropagation(cache, by_hand["Y"], parameters, route)
    assert list(grads) == ["dZ2", "dW2", "db2", "dA1", "dZ1", "dW1", "db1", "dA0"]
    for name, value in {**cache, **grads}.items():
        if name not in {"output", "A0"}:
            assert np.array_equal(value, by_hand[name]), name
            assert value.shape == by_hand[name].shape


def test_gradients_are_exact_differences_of_the_cost() -> None:
    """In fractions J is quadratic in each single number between kinks, so a central difference is its derivative exactly."""
    X, Y, parameters = draw((3, 4, 3, 2), 3, "linear", 0, whole=False)
    X, Y, parameters = rational(X), rational(Y), {k: rational(a) for k, a in parameters.items()}
    step = Fraction(1, 10**6)

    def slope(target: np.ndarray, index: tuple[int, ...]) -> Any:
        costs = []
        original = target[index]
        for sign in (1, -1):
            target[index] = original + sign * step
            AL, cache = forward_propagation(X, parameters, "linear")
            costs.append(cost(AL, Y, "linear"))
            assert all(((cache[z] > 0) == (start[z] > 0)).all() for z in ("Z1", "Z2")), "the step crossed a kink"
        target[index] = original
        return (costs[0] - costs[1]) / (2 * step)

    _, start = forward_propagation(X, parameters, "linear")
    grads = backpropagation(start, Y, parameters)
    for name, a in parameters.items():
        assert all(grads[f"d{name}"][i] == slope(a, i) for i in np.ndindex(a.shape))
    assert all(grads["dA0"][i] / 3 == slope(X, i) for i in np.ndindex(X.shape)), "dJ/dX is dA0 / m"


@pytest.mark.parametrize("output", OUTPUTS)
def test_gradients_are_complex_steps_of_the_cost(output: str) -> None:
    """Every output's dW and db, and dA0 / m, are the complex steps of J, up to rounding."""
    X, Y, parameters = draw((3, 4, 3), 5, output, 1, whole=False)
    balls = rounded_layer_form(X, Y, parameters, output)
    step = 2.0**-500
    found: dict[str, np.ndarray] = {}
    numbers = {"A0": X, **parameters}
    for name, a in numbers.items():
        found[name] = np.empty(a.shape)
        for index in np.ndindex(a.shape):
            moved = a.astype(complex)
            moved[index] += 1j * step
            changed = {**numbers, name: moved}
            AL, _ = forward_propagation(changed.pop("A0"), changed, output)
            found[name][index] = cost(AL, Y, output).imag / step
    found["A0"] = found["A0"] * X.shape[1]
    for name, gradient in found.items():
        assert (np.abs(gradient - balls[f"d{name}"].value) <= 2 * balls[f"d{name}"].radius()).all()


def test_relu_derivative_is_zero_at_zero() -> None:
    """At Z = 0, of either sign, nothing flows back; just above it everything does."""
    X = np.array([[0.0, -0.0, 5e-324, -5e-324]])
    parameters = {"W1": np.eye(1), "b1": np.array([[-0.0]]), "W2": np.eye(1), "b2": np.zeros((1, 1))}
    _, cache = forward_propagation(X, parameters, "linear")
    grads = backpropagation(cache, np.full((1, 4), -2.0), parameters)
    assert grads["dA1"].tolist() == [[2, 2, 2, 2]]
    assert grads["dZ1"].tolist() == [[0, 0, 2, 0]]
    assert grads["dA0"].tolist() == [[0, 0, 2, 0]]


def test_not_a_number_stays_one() -> None:
    """A NaN is not cut to zero by the hidden layers."""
    parameters = {"W1": np.eye(1), "b1": np.zeros((1, 1)), "W2": np.eye(1), "b2": np.zeros((1, 1))}
    assert np.isnan(forward_propagation(np.array([[np.nan]]), parameters, "linear")[0]).all()


def test_cost_at_certainty() -> None:
    """0 log 0 is 0: a certain output that is right costs nothing, one that is wrong costs infinity; neither warns."""
    with np.errstate(all="raise"):
        certain = np.array([[0.0, 1.0]])
        assert cost(certain, certain, "sigmoid") == 0
        assert cost(certain, 1 - certain, "sigmoid") == np.inf
        assert cost(np.eye(2), np.eye(2), "softmax") == 0
        assert cost(np.eye(2), np.eye(2)[::-1], "softmax") == np.inf


def test_cost_by_hand() -> None:
    """The three costs of two examples with two outputs, where every logarithm is one of 2."""
    A = np.array([[0.5, 0.25], [0.5, 0.75]])
    Y = np.array([[1.0, 1.0], [0.0, 0.0]])
    log2 = np.log(2)
    by_hand = {"linear": (0.25 + 0.5625 + 0.25 + 0.5625) / 4, "softmax": (1 + 2) * log2 / 2, "sigmoid": (2 + 4) * log2 / 2}
    for output, value in by_hand.items():
        assert abs(cost(A, Y, output) - value) <= PRECISIONS["float64"].ulps * np.spacing(value)


MISTAKES: dict[str, tuple[str, str, set[str]]] = {
    "no 1/m in dW": ("dZ @ A_previous.T / m", "dZ @ A_previous.T", {"dW1", "dW2", "dW3"}),
    "no 1/m in db": ("keepdims=True) / m\n", "keepdims=True)\n", {"db1", "db2", "db3"}),
    "1/m in dZ as well": ("AL - Y if", "(AL - Y) / m if", {"dZ3", "dW3", "db3", "dA2"}),
    "db summed over the wrong axis": ("np.sum(dZ, axis=1", "np.sum(dZ, axis=0", {"db1", "db2", "db3"}),
    "db not summed": ("np.sum(dZ, axis=1, keepdims=True) / m", "dZ / m", {"db1", "db2", "db3"}),
    "ReLU' is 1 at 0": ('layer - 1}") > 0', 'layer - 1}") >= 0', {"dZ1", "dW1", "db1", "dA0"}),
    "ReLU' is always 1": ('np.where(_cached(cache, f"Z{layer - 1}") > 0, dA, 0)', "dA", {"dZ1", "dW1", "db1", "dA0"}),
    "ReLU' of the layer behind": ('_cached(cache, f"Z{layer - 1}") > 0', "A_previous <= 0", {"dZ2", "dW2", "db2", "dA1"}),
    "W not transposed": ('parameters[f"W{layer}"].T @ dZ', 'parameters[f"W{layer}"] @ dZ', {"dA0", "dA1", "dA2"}),
    "dZ negated": ("AL - Y if", "Y - AL if", {"dZ3", "dW3", "db3", "dA2"}),
    "dW transposed": ("dZ @ A_previous.T / m", "(dZ @ A_previous.T).T / m", {"dW1", "dW2", "dW3"}),
    "cost without the half": ("(A - Y) * (A - Y) / 2", "(A - Y) * (A - Y)", {"J"}),
    "cost without 1/m": (" / AL.shape[1]", "", {"J"}),
    "bias left out": (' + parameters[f"b{layer}"]', "", {"Z1", "Z2", "Z3", "J"}),
    "ReLU after the last layer too": ("if layer < depth else", "if True else", {"dZ3", "J"}),
}
"""What is wrong, the text and its replacement, and what has to differ at least."""


def mutant(text: str, replacement: str) -> ModuleType:
    """Return reference/feedforward.py with one piece of its text replaced."""
    source = inspect.getsource(feedforward)
    assert source.count(text) == 1, f"the text to replace is there {source.count(text)} times: {text}"
    module = ModuleType(feedforward.__name__)
    module.__package__ = feedforward.__package__
    exec(compile(source.replace(text, replacement), "<mutant of feedforward.py>", "exec"), module.__dict__)  # noqa: S102
    return module


def square(whole: bool) -> tuple[np.ndarray, np.ndarray, Parameters]:
    """Return a network whose layers and batch are all 3 wide, so that a wrong axis or a missing transpose fits."""
    return draw((3, 3, 3, 3), 3, "linear", 2, whole)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_caught_exactly(mistake: str) -> None:
    """The comparison in rationals, with zeros on the kinks, names what a mistake in the text spoils."""
    X, Y, parameters = square(whole=True)
    X, Y, parameters = rational(X), rational(Y), {k: rational(a) for k, a in parameters.items()}
    *change, spoiled = MISTAKES[mistake]
    truth = layer_form(X, Y, parameters, "linear", Fraction(1))
    found = disagreements(column_form(mutant(*change), X, Y, parameters, "linear"), truth)
    assert spoiled <= set(found), f"{mistake} went unnoticed: {found}"
    assert len(found) < len(truth), "a comparison that rejects everything shows nothing"


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name != "ReLU' is 1 at 0"])  # a kink has measure zero
def test_planted_mistakes_are_caught_within_rounding(mistake: str) -> None:
    """The comparison by rounded arithmetic names them too: its bounds are far smaller than the mistakes."""
    X, Y, parameters = square(whole=False)
    *change, spoiled = MISTAKES[mistake]
    truth = rounded_layer_form(X, Y, parameters, "linear")
    found = disagreements(column_form(mutant(*change), X, Y, parameters, "linear"), truth)
    assert spoiled <= set(found), f"{mistake} went unnoticed: {found}"


ROUTE_MISTAKES = {
    "linear": ("return dA\n", "return 2 * dA\n"),
    "sigmoid": ("dA * A * (1 - A)", "dA * A"),
    "sigmoid's loss": ("-(Y / A) + (1 - Y) / (1 - A)", "-(Y / A) - (1 - Y) / (1 - A)"),
    "softmax": ("A * (dA - np.sum(dA * A, axis=0, keepdims=True))", "A * (dA - np.sum(dA * A, axis=1, keepdims=True))"),
    "softmax's diagonal": ("A * (dA - np.sum(dA * A, axis=0, keepdims=True))", "A * dA * (1 - A)"),
    "softmax's loss": ("return -(Y / A)\n", "return Y / A\n"),
}


@pytest.mark.parametrize("mistake", ROUTE_MISTAKES)
def test_planted_mistakes_in_the_general_route_are_caught(mistake: str) -> None:
    """A wrong loss derivative or a wrong g' spoils every gradient of the general route, and leaves the cost alone."""
    output = mistake.partition("'")[0]
    X, Y, parameters = draw((3, 3, 3, 3), 3, output, 4, whole=False)
    balls = rounded_layer_form(X, Y, parameters, output)
    assert disagreements(column_form(feedforward, X, Y, parameters, output, "general"), balls) == []
    found = disagreements(column_form(mutant(*ROUTE_MISTAKES[mistake]), X, Y, parameters, output, "general"), balls)
    assert {name for name in balls if name.startswith("d")} == set(found)


def test_an_unbounded_ball_is_no_agreement() -> None:
    """The comparison objects to a ball that says nothing, to a shape that broadcasts and to NaN."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    wide = Rounded(np.zeros((2, 1)), np.full((2, 1), np.inf), arithmetic)
    assert disagreements({"dA0": np.zeros((2, 1))}, {"dA0": wide}) == ["dA0"]
    assert disagreements({"dA0": np.zeros((2, 2))}, {"dA0": arithmetic.exact(np.zeros((2, 1)))}) == ["dA0"]
    assert disagreements({"dA0": np.full((2, 1), np.nan)}, {"dA0": arithmetic.exact(np.zeros((2, 1)))}) == ["dA0"]
    assert disagreements({"dA0": np.zeros((2, 1))}, {"dA0": arithmetic.exact(np.zeros((2, 1)))}) == []


def parameters_of(*shapes: tuple[str, tuple[int, ...]]) -> Parameters:
    return {name: np.zeros(shape) for name, shape in shapes}


GOOD = (("W1", (4, 3)), ("b1", (4, 1)), ("W2", (2, 4)), ("b2", (2, 1)))


def changed(name: str, shape: tuple[int, ...]) -> Parameters:
    return parameters_of(*GOOD) | {name: np.zeros(shape)}


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (np.zeros((3, 5)), {}, r"parameters: no W1, b1: got none, expected W1, b1$"),
        (np.zeros((3, 5)), parameters_of(*GOOD[:3]), r"parameters: no b2: got W1, b1, W2, expected W1, b1, W2, b2$"),
        (np.zeros((3, 5)), parameters_of(*GOOD[:2], ("W3", (2, 4)), ("b3", (2, 1))), r"no W2, b2: got W1, b1, W3, b3"),
        (np.zeros(3), parameters_of(*GOOD), r"wrong shape of X: got \(3,\), expected \(n0, m\) with one column per example"),
        (np.zeros((3, 0)), parameters_of(*GOOD), r"wrong shape of X: got \(3, 0\), expected \(n0, m\)"),
        (np.zeros((5, 3)), parameters_of(*GOOD), r"wrong shape of W1: got \(4, 3\), expected \(n1, 5\), since A0 has 5 rows"),
        (np.zeros((3, 5)), changed("W2", (4, 2)), r"wrong shape of W2: got \(4, 2\), expected \(n2, 4\), since A1 has 4 rows"),
        (np.zeros((3, 5)), changed("W2", (4,)), r"wrong shape of W2: got \(4,\), expected \(n2, 4\)"),
        (np.zeros((3, 5)), changed("b1", (4,)), r"wrong shape of b1: got \(4,\), expected \(4, 1\), since W1 has 4 rows"),
        (np.zeros((3, 5)), changed("b2", (1, 2)), r"wrong shape of b2: got \(1, 2\), expected \(2, 1\), since W2 has 2 rows"),
    ],
)
def test_parameters_that_do_not_fit_are_named(X: np.ndarray, parameters: Parameters, message: str) -> None:
    """A missing or misshapen array is refused by name, before NumPy broadcasts it."""
    with pytest.raises(ValueError, match=message):
        forward_propagation(X, parameters, "linear")


CALLS: dict[str, Callable[[], Any]] = {
    "forward_propagation": lambda: forward_propagation(np.zeros((3, 5)), parameters_of(*GOOD), "x"),
    "cost": lambda: cost(np.zeros((2, 5)), np.zeros((2, 5)), "x"),
    "backpropagation": lambda: backpropagation({"output": "x"}, np.zeros((2, 5)), parameters_of(*GOOD)),
}


@pytest.mark.parametrize("caller", CALLS)
def test_an_unknown_output_is_named(caller: str) -> None:
    """All three functions name the outputs there are."""
    with pytest.raises(ValueError, match=rf"^{caller}: unknown output: got 'x', expected one of linear, sigmoid, softmax$"):
        CALLS[caller]()


def test_misuse_of_backpropagation_is_named() -> None:
    """A wrong Y, an unknown route and a cache of another network are refused."""
    parameters = parameters_of(*GOOD)
    AL, cache = forward_propagation(np.zeros((3, 5)), parameters, "linear")
    wrong = r"wrong shape of Y: got \(2,\), expected \(2, 5\), one column per example"
    with pytest.raises(ValueError, match=f"^cost: {wrong}"):
        cost(AL, np.zeros(2), "linear")
    with pytest.raises(ValueError, match=f"^backpropagation: {wrong}"):
        backpropagation(cache, np.zeros(2), parameters)
    with pytest.raises(ValueError, match=r"^backpropagation: unknown route: got 'x', expected one of fused, general$"):
        backpropagation(cache, np.zeros((2, 5)), parameters, route="x")
    del cache["Z1"]
    with pytest.raises(ValueError, match=r"the cache has no Z1: got output, A0, A1, Z2, A2. Do: pass the cache of forward_prop"):
        backpropagation(cache, np.zeros((2, 5)), parameters)


def test_inputs_are_left_alone() -> None:
    """Neither pass writes into its arguments."""
    X, Y, parameters = square(whole=False)
    before = [a.copy() for a in (X, Y, *parameters.values())]
    column_form(feedforward, X, Y, parameters, "linear")
    assert all(np.array_equal(a, b) for a, b in zip(before, (X, Y, *parameters.values()), strict=True))
