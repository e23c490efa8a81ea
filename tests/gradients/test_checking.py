"""`check_gradients` on right hand-written backpropagation, which must pass, and on wrong, which must be named and explained."""

from __future__ import annotations

import doctest
import json
import math
import runpy
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.gradients import check_gradients
from backproof.reference.feedforward import backpropagation, cost, forward_propagation
from backproof.report.finding import Finding
from backproof.report.report import Report
from scipy import special

Parameters = dict[str, Any]
Loss = Callable[[Parameters], Any]
Gradients = Callable[[Parameters], dict[str, Any]]
Model = tuple[Loss, Gradients, Parameters]

EXAMPLE = Path(__file__).parents[2] / "examples" / "notebook_network.py"
HIDDEN = {"relu": (lambda Z: np.maximum(Z, 0), lambda Z, A: Z > 0), "tanh": (np.tanh, lambda Z, A: 1 - A * A)}


def network(widths: tuple[int, ...] = (4, 6, 3), m: int = 12, output: str = "softmax", *, hidden: str = "tanh", lam: float = 0.6,
            dtype: type = np.float64, seed: int = 0) -> Model:
    """Return a network in the founding text's form, with a regularisation term lam / 2m ||W||^2."""
    rng, depth = np.random.default_rng(seed), len(widths) - 1
    X = rng.standard_normal((widths[0], m)).astype(dtype)
    labels = {"linear": lambda: rng.standard_normal((widths[-1], m)), "sigmoid": lambda: rng.integers(2, size=(widths[-1], m)),
              "softmax": lambda: np.eye(widths[-1])[rng.integers(widths[-1], size=m)].T}
    Y = labels[output]().astype(dtype)
    parameters: Parameters = {}
    for l, (before, after) in enumerate(pairwise(widths), 1):
        parameters[f"W{l}"] = (rng.standard_normal((after, before)) / math.sqrt(before)).astype(dtype)
        parameters[f"b{l}"] = (rng.standard_normal((after, 1)) / 10).astype(dtype)
    g, slope = HIDDEN[hidden]

    def forward(parameters: Parameters) -> Parameters:
        cache: Parameters = {"A0": X}
        for l in range(1, depth + 1):
            Z = parameters[f"W{l}"] @ cache[f"A{l - 1}"] + parameters[f"b{l}"]
            if l < depth or output == "linear":
                A = g(Z) if l < depth else Z
            elif output == "sigmoid":
                A = 1 / (1 + np.exp(-Z))
            else:
                e = np.exp(Z - np.max(Z, axis=0, keepdims=True))
                A = e / np.sum(e, axis=0, keepdims=True)
            cache[f"Z{l}"], cache[f"A{l}"] = Z, A
        return cache

    def loss(parameters: Parameters) -> Any:
        A = forward(parameters)[f"A{depth}"]
        losses = {"linear": lambda: (A - Y) ** 2 / 2, "sigmoid": lambda: -(Y * np.log(A) + (1 - Y) * np.log(1 - A)),
                  "softmax": lambda: -Y * np.log(A)}[output]()
        return np.sum(losses) / m + lam / (2 * m) * sum(np.sum(np.square(parameters[f"W{l}"])) for l in range(1, depth + 1))

    def gradients(parameters: Parameters) -> Parameters:
        cache, found = forward(parameters), dict[str, Any]()
        dZ = cache[f"A{depth}"] - Y
        for l in range(depth, 0, -1):
            found[f"dW{l}"] = dZ @ cache[f"A{l - 1}"].T / m + lam / m * parameters[f"W{l}"]
            found[f"db{l}"] = np.sum(dZ, axis=1, keepdims=True) / m
            if l > 1:
                dZ = parameters[f"W{l}"].T @ dZ * slope(cache[f"Z{l - 1}"], cache[f"A{l - 1}"])
        return found

    return loss, gradients, parameters


def changed(gradients: Gradients, **by: Callable[[Any], Any]) -> Gradients:
    """Return gradients of which some are changed."""
    return lambda parameters: {key: by[key](value) if key in by else value for key, value in gradients(parameters).items()}


def one_off(part: float, index: tuple[int, ...] = (1, 2)) -> Callable[[np.ndarray], np.ndarray]:
    """Return a mistake: one entry is off by a part of the largest."""

    def off(gradient: np.ndarray) -> np.ndarray:
        gradient = gradient.copy()
        gradient[index] += part * np.max(np.abs(gradient))
        return gradient

    return off


def no_class(function: Callable[[Parameters], Any]) -> Callable[[Parameters], Any]:
    """Return a function that turns its arrays into plain ones."""
    return lambda parameters: function({name: np.array(array) for name, array in parameters.items()})


def no_complex(loss: Loss) -> Loss:
    """Return a loss that takes no complex numbers."""

    def real(parameters: Parameters) -> Any:
        if any(np.iscomplexobj(array) for array in parameters.values()):
            raise TypeError("real numbers only")
        return loss(parameters)

    return real


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


# What is right.


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("output", ["linear", "sigmoid", "softmax"])
def test_right_networks_agree(output: str, hidden: str, dtype: type) -> None:
    """Right gradients raise no alarm, every entry is compared with the complex step, and the planted mistakes are caught."""
    model = network(output=output, hidden=hidden, dtype=dtype, seed=3)
    report = check_gradients(*model)
    assert report.ok
    assert report.verdict == "agrees"
    assert report.compared == sum(array.size for array in model[2].values())
    assert set(report.options["truth"].values()) == {"complex step"}
    assert report.margin < 0.5
    assert report.self_test.planted == report.self_test.blamed == len(model[2])


@pytest.mark.parametrize("output", ["linear", "sigmoid", "softmax"])
def test_the_founding_algorithm_agrees(output: str) -> None:
    """The reference's own founding form agrees; its dZ and dA are counted as gradients of no parameter."""
    rng = np.random.default_rng(5)
    X, Y = rng.standard_normal((3, 7)), np.eye(2)[rng.integers(2, size=7)].T
    parameters = {"W1": rng.standard_normal((4, 3)), "b1": np.zeros((4, 1)), "W2": rng.standard_normal((2, 4)), "b2": np.zeros((2, 1))}
    report = check_gradients(lambda p: cost(forward_propagation(X, p, output)[0], Y, output),
                             lambda p: backpropagation(forward_propagation(X, p, output)[1], Y, p), parameters)
    assert report.verdict == "agrees"
    assert {reason.split()[0]: count for reason, count in report.skipped.items()} == {"dZ2": 14, "dA1": 28, "dZ1": 28, "dA0": 21}


@pytest.mark.parametrize("change", [np.square, np.abs, lambda W: np.sqrt(1 + W * W), special.expit, lambda W: np.maximum(W, 0.1)],
                         ids=["square", "abs", "sqrt", "expit", "maximum"])
def test_a_loss_with_branches_has_a_complex_step(change: Callable[[Any], Any]) -> None:
    """Absolute values, maxima and the logistic function are stepped through, also where the loss ends in float()."""
    slopes = {np.square: lambda W: 2 * W, np.abs: np.sign, special.expit: lambda W: special.expit(W) * special.expit(-W)}
    W = np.random.default_rng(2).standard_normal((3, 2))
    slope = slopes.get(change) or (lambda W: W / np.sqrt(1 + W * W) if change(np.array(0.0)) == 1 else (W > 0.1).astype(float))
    report = check_gradients(lambda p: float(np.sum(change(p["W"]) * [1, 2])), lambda p: {"W": slope(p["W"]) * [1, 2]}, {"W": W})
    assert report.verdict == "agrees"
    assert report.options["truth"] == {"W": "complex step"}


def test_a_loss_that_is_not_analytic_is_found_out() -> None:
    """A modulus taken of plain arrays gives a wrong complex step: differences contradict it, for the one parameter."""
    loss, gradients, parameters = network()
    right = check_gradients(lambda p: loss(p) + np.sum(np.abs(np.asarray(p["W1"]))),
                            lambda p: (found := gradients(p)) | {"dW1": found["dW1"] + np.sign(p["W1"])}, parameters)
    assert right.verdict == "agrees"
    assert right.options["truth"]["W1"] == "differences (the complex step contradicts them: loss is not analytic there)"
    assert right.options["truth"]["W2"] == "complex step"


def test_differences_judge_where_no_complex_number_goes() -> None:
    """Without complex numbers right gradients agree and one entry off by 1e-4 of the largest is found; the report says why."""
    loss, gradients, parameters = network()
    right = check_gradients(no_complex(loss), gradients, parameters)
    assert right.verdict == "agrees"
    assert right.options["truth"]["b1"] == "differences (no complex step: loss raises TypeError: real numbers only)"
    wrong = check_gradients(no_complex(loss), changed(gradients, dW1=one_off(1e-4)), parameters)
    assert (only(wrong).tensor, only(wrong).index, only(wrong).diagnosis.code) == ("dW1", (1, 2), "single-entry")
    assert only(wrong).diagnosis.sentence.endswith("(true values by differences)")


def test_functions_that_drop_the_class_are_judged_to_half_their_digits() -> None:
    """Where no random error goes through, the report says so, and an entry off by 1e-4 of the largest is still found."""
    loss, gradients, parameters = network()
    right = check_gradients(no_class(loss), no_class(gradients), parameters)
    assert right.verdict == "agrees"
    assert sum(n for reason, n in right.skipped.items() if "beyond half its digits" in reason) == right.compared
    assert only(check_gradients(no_class(loss), no_class(changed(gradients, dW1=one_off(1e-4))), parameters)).index == (1, 2)


@pytest.mark.parametrize("complex_step", [True, False])
def test_a_kink_is_a_convention(complex_step: bool) -> None:
    """At relu(0) any derivative between those nearby is a convention, and none outside of them is."""
    X, G = np.array([[1.0, -1.0, 2.0], [1.0, 1.0, -1.0]]), np.array([[1.0, -2.0, 3.0], [1.0, 1.0, 1.0]])

    def loss(p: Parameters) -> Any:
        return np.sum(np.maximum(p["W"] @ X + p["b"], 0) * G)

    def gradients(p: Parameters, at: float = 0.0) -> Parameters:
        Z = p["W"] @ X + p["b"]
        dZ = np.where(Z > 0, 1.0, np.where(Z == 0, at, 0.0)) * G
        return {"dW": dZ @ X.T, "db": np.sum(dZ, axis=1, keepdims=True)}

    taken = loss if complex_step else no_complex(loss)
    for at in (0.0, 0.5, 1.0):
        report = check_gradients(taken, lambda p, at=at: gradients(p, at), {"W": np.ones((2, 2)), "b": np.zeros((2, 1))})
        assert report.ok
        assert report.verdict in {"agrees", "convention"}
    beyond = check_gradients(taken, lambda p: gradients(p, 5.0), {"W": np.ones((2, 2)), "b": np.zeros((2, 1))})
    assert beyond.verdict == "wrong"


def test_the_gradient_of_nothing_is_inconclusive() -> None:
    """A gradient that is 0 but for rounding, as of a bias before a normalization, is counted as inconclusive."""
    X = np.random.default_rng(0).standard_normal((9, 2))

    def centred(p: Parameters) -> Any:
        Z = X + p["b"]
        return Z - np.mean(Z, axis=0)

    def gradients(p: Parameters) -> Parameters:
        slope = 2 * np.tanh(centred(p)) * (1 - np.tanh(centred(p)) ** 2)
        return {"b": np.sum(slope - np.mean(slope, axis=0), axis=0)}

    report = check_gradients(lambda p: np.sum(np.tanh(centred(p)) ** 2), gradients, {"b": np.ones(2)})
    assert report.ok
    assert report.skipped["inconclusive: the truth is less certain than its size"] >= 1


# What is wrong.


MISTAKES: dict[str, tuple[str, Callable[[Any], Any], str, str]] = {
    "no division by m": ("db1", lambda d: 12 * d, "factor", "12 times what it should be, everywhere: a division by 12 is missing; is m"),
    "divided twice": ("dW2", lambda d: d / 12, "factor", "it is divided by 12 once too often; is m = 12?"),
    "sign": ("dW1", lambda d: -d, "sign", "dW1 has the opposite sign"),
    "doubled": ("dW1", lambda d: 2 * d, "doubled", "dW1 is twice too large"),
    "zero": ("db2", lambda d: 0 * d, "zero", "db2 is zero everywhere, and the derivative is not: it is never computed"),
    "one entry": ("dW1", one_off(1e-4), "single-entry", "one entry of dW1 is wrong, at [1, 2]"),
    "constant": ("dW1", lambda d: d + 0.1, "unknown", "no known mistake reproduces these numbers"),
    "None": ("dW1", lambda d: None, "missing", "no gradient of W1 came back: got nothing or None, expected dW1 of shape (6, 4)"),
    "transposed": ("dW1", lambda d: d.T, "shape", "got (4, 6), expected (6, 4); that is the transposed one, write dW1.T"),
    "flat": ("db1", np.ravel, "shape", "got (6,), expected (6, 1); write db1.reshape(6, 1), or keepdims=True in the sum"),
    "not summed": ("db1", lambda d: np.tile(d, 12), "shape", "got (6, 12), expected (6, 1); a sum over the examples is missing"),
    "other shape": ("db1", lambda d: d[1:], "shape", "a gradient has the shape of what it is the gradient of"),
    "whole numbers": ("db1", lambda d: d.astype(int), "dtype", "db1 has a wrong dtype: got int64, expected float"),
    "NaN": ("db1", lambda d: d * np.nan, "nonfinite", "6 of 6 entries of db1 are not finite, and loss is"),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, dtype: type) -> None:
    """Each mistake in one gradient makes the one finding, of that tensor, and a sentence that says what it is."""
    tensor, mistake, code, sentence = MISTAKES[name]
    loss, gradients, parameters = network(dtype=dtype)
    report = check_gradients(loss, changed(gradients, **{tensor: mistake}), parameters)
    assert not report.ok
    assert (only(report).tensor, only(report).diagnosis.code) == (tensor, code)
    assert sentence in only(report).diagnosis.sentence
    assert f"tensor {tensor}" in str(report)
    verdicts = {"missing": "error", "shape": "error", "dtype": "error", "nonfinite": "nonfinite"}
    assert report.verdict == verdicts.get(code, "wrong")


def test_a_mistake_in_single_precision_alone_is_imprecise() -> None:
    """A gradient that is right in float64 and loses digits in float32 is imprecise, with the digits lost."""
    loss, gradients, parameters = network(dtype=np.float32)

    def losing(p: Parameters) -> Parameters:
        found = gradients(p)
        return found if p["W1"].dtype != np.float32 else found | {"dW1": found["dW1"].astype(np.float16).astype(np.float32)}

    report = check_gradients(loss, losing, parameters)
    assert (only(report).verdict, only(report).tensor, only(report).diagnosis.code) == ("imprecise", "dW1", "digits-lost")
    assert 2 < only(report).digits < 5
    assert "the formula is right in float64, and in float32 dW1 is off by" in only(report).diagnosis.sentence


def test_a_small_constant_is_imprecise() -> None:
    """An epsilon in the loss that the gradient leaves out is no wrong formula, and no agreement either."""
    x, y = np.array([0.2, 0.7]), np.array([1.0, 0.0])

    def output(p: Parameters) -> Any:
        return 1 / (1 + np.exp(-x * p["w"]))

    report = check_gradients(lambda p: -np.sum(y * np.log(output(p) + 1e-9) + (1 - y) * np.log(1 - output(p) + 1e-9)),
                             lambda p: {"w": (output(p) - y) * x}, {"w": np.ones(2)})
    assert (only(report).verdict, only(report).diagnosis.code) == ("imprecise", "small-constant")


@pytest.mark.parametrize(("in_loss", "in_gradients", "code", "what"), [
    (0.6, 0.0, "regularization-missing", "lacks 0.05 * W1 everywhere"),
    (0.0, 0.6, "regularization-extra", "has 0.05 * W1 too much everywhere"),
    (0.6, 0.3, "regularization-missing", "lacks 0.025 * W1 everywhere"),
])
def test_regularisation_on_one_side_is_named_with_its_lambda(in_loss: float, in_gradients: float, code: str, what: str) -> None:
    """A term that is in the loss and not in the gradient, or the reverse, is recognised in every weight."""
    loss, _, parameters = network(lam=in_loss)
    report = check_gradients(loss, network(lam=in_gradients)[1], parameters)
    assert [(f.tensor, f.diagnosis.code) for f in report.findings] == [("dW1", code), ("dW2", code)]
    assert what in report.findings[0].diagnosis.sentence


def test_a_missing_l1_term_is_named() -> None:
    """A difference of one number times the sign of the parameter is the other regularisation."""
    loss, gradients, parameters = network()
    report = check_gradients(lambda p: loss(p) + 0.1 * np.sum(np.abs(p["W2"])), gradients, parameters)
    assert "dW2 lacks 0.1 * sign(W2) everywhere" in only(report).diagnosis.sentence


def test_a_misnamed_gradient_is_guessed() -> None:
    """A gradient under another name is counted, and offered for the missing one of its shape."""
    loss, gradients, parameters = network()
    report = check_gradients(loss, lambda p: {{"dW2": "dw2"}.get(key, key): d for key, d in gradients(p).items()}, parameters)
    assert only(report).diagnosis.sentence.endswith("expected dW2 of shape (3, 6); is dw2 meant?")
    assert report.skipped["dw2 is the gradient of no parameter: expected dW1, db1, dW2, db2"] == 18


# Large parameters.


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_wrong_entry_of_many_is_found(dtype: type) -> None:
    """In 256 x 256 entries, judged in random sums, a single one off by 1e-4 of the largest is found and named."""
    loss, gradients, parameters = network((256, 256, 2), 3, dtype=dtype)
    report = check_gradients(loss, changed(gradients, dW1=one_off(1e-4, (100, 77))), parameters)
    assert (only(report).tensor, only(report).index, only(report).entries[0]) == ("dW1", (100, 77), 1)
    assert "one entry of dW1 is wrong, at [100, 77]" in only(report).diagnosis.sentence
    one_by_one = report.compared - sum(array.size for name, array in parameters.items() if name != "W1")
    assert report.skipped["dW1 one by one, only in 3 random sums over all its entries"] == 256**2 - one_by_one


@pytest.mark.parametrize(("mistake", "code"), [
    (lambda d: d, ""), (lambda d: d.T, "transposed"), (lambda d: 3 * d, "factor"), (lambda d: -d, "sign"), (lambda d: 0 * d, "zero"),
    (lambda d: d + np.eye(48)[0] * 1e-3, "unknown"),
])
def test_a_large_parameter_is_explained_from_its_sample(mistake: Callable[[Any], Any], code: str) -> None:
    """What is wrong with a large gradient is recognised from the entries that were looked at."""
    loss, gradients, parameters = network((48, 48, 2), 3)
    report = check_gradients(loss, changed(gradients, dW1=mistake), parameters)
    assert [f.diagnosis.code for f in report.findings] == ([code] if code else [])
    assert report.ok == (not code)


def test_a_few_wrong_entries_of_a_large_parameter_are_all_named() -> None:
    """Three wrong entries, whether the sample holds them or the sums betray them, are counted; a search that stops says so."""
    loss, gradients, parameters = network((60, 60, 2), 3)

    def wrong(count: int) -> Finding:
        places = np.random.default_rng(1).choice(3600, count, replace=False)

        def scale(gradient: np.ndarray) -> np.ndarray:
            gradient = gradient.copy()
            gradient.reshape(-1)[places] *= 1.1
            return gradient

        found = only(check_gradients(loss, changed(gradients, dW1=scale), parameters))
        assert np.ravel_multi_index(found.index, (60, 60)) in places
        return found

    assert wrong(3).entries[0] == 3
    assert "the search stopped" not in wrong(3).diagnosis.sentence
    assert "the search stopped at 8 wrong entries" in wrong(30).diagnosis.sentence


def test_kinks_of_a_large_parameter_are_conventions() -> None:
    """A unit whose input is exactly 0 puts a row of a large gradient on the kink, which the sums must not call wrong."""
    X = np.random.default_rng(0).standard_normal((60, 3))
    W = np.random.default_rng(1).standard_normal((50, 60))
    W[7] = 0.0
    report = check_gradients(lambda p: np.sum(np.maximum(p["W"] @ X, 0)), lambda p: {"W": (p["W"] @ X >= 0.0) @ X.T}, {"W": W})
    assert report.ok
    assert report.verdict in {"agrees", "convention"}


# What the functions do beside their mathematics.


def test_shared_memory_is_a_finding() -> None:
    """Two parameters that share memory are named, though each gradient is right."""
    loss, gradients, parameters = network((4, 4, 4))
    parameters["W2"] = parameters["W1"].T
    report = check_gradients(loss, gradients, parameters)
    assert (only(report).diagnosis.code, only(report).tensor) == ("shared-memory", "W2")
    assert "W1 and W2 share memory" in str(report)


@pytest.mark.parametrize("role", ["loss", "gradients"])
def test_a_changed_argument_is_a_finding(role: str) -> None:
    """A function that changes the parameters it is given is named, with the parameter; the caller's own stay as they are."""
    loss, gradients, parameters = network()

    def stepping(function: Callable[[Parameters], Any]) -> Callable[[Parameters], Any]:
        def step(p: Parameters) -> Any:
            found = function({name: array.copy() for name, array in p.items()})
            p["W1"] -= 0.1
            return found

        return step

    before = parameters["W1"].copy()
    report = check_gradients(*((stepping(loss), gradients) if role == "loss" else (loss, stepping(gradients))), parameters)
    assert np.array_equal(before, parameters["W1"])
    assert (only(report).diagnosis.code, only(report).tensor, only(report).verdict) == ("mutation", "W1", "wrong")
    assert only(report).diagnosis.sentence.startswith(f"{role} changes W1, which it is given")
    assert only(report).entries == (24, 24)


def test_a_parameter_that_is_replaced_is_changed_too() -> None:
    """A function that puts another array, or none, in place of a parameter changes its argument."""
    loss, gradients, parameters = network()
    assert only(check_gradients(lambda p: (loss(p), p.update(W1=None))[0], gradients, parameters)).diagnosis.code == "mutation"


def test_a_loss_that_is_drawn_anew_is_nondeterministic() -> None:
    """A loss with fresh masks is named as such, and nothing is compared."""
    loss, gradients, parameters = network()
    rng = np.random.default_rng(0)
    report = check_gradients(lambda p: loss(p) * rng.uniform(0.9, 1.1), gradients, parameters)
    assert (report.verdict, report.compared, only(report).tensor) == ("nondeterministic", 0, "loss")
    assert report.skipped == {"the loss is no function of the parameters that has a derivative": 51}


def test_gradients_that_are_drawn_anew_or_add_up_are_nondeterministic() -> None:
    """Gradients that differ at the second call are named; those that are twice the first ones add up."""
    loss, gradients, parameters = network()
    rng, total = np.random.default_rng(0), dict[str, Any]()

    def adding(p: Parameters) -> Parameters:
        for key, value in gradients(p).items():
            total[key] = total.get(key, 0) + value
        return dict(total)

    drawn = check_gradients(loss, changed(gradients, db1=lambda d: d * rng.uniform(0.9, 1.1)), parameters)
    assert (drawn.verdict, only(drawn).tensor, only(drawn).diagnosis.code) == ("nondeterministic", "db1", "nondeterministic")
    assert only(check_gradients(loss, adding, parameters)).diagnosis.code == "accumulates"


def test_functions_of_other_parameters_are_stale() -> None:
    """A function that reads a global, or what the last call left behind, is named, though its numbers are right here."""
    loss, gradients, parameters = network()
    assert only(check_gradients(lambda p: loss(parameters), gradients, parameters)).diagnosis.sentence.startswith("loss does not change")
    ignoring = only(check_gradients(loss, lambda p: gradients(parameters), parameters))
    assert (ignoring.diagnosis.code, ignoring.tensor) == ("stale", "gradients")
    last: Parameters = {}

    def caching(p: Parameters) -> Any:
        last.update(p)
        return loss(p)

    cached = only(check_gradients(caching, lambda p: gradients(last), parameters))
    assert cached.diagnosis.sentence.startswith("dW1 uses what the last call of loss left behind")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_a_finding(value: float) -> None:
    """Nothing is compared where the loss is no finite number."""
    loss, gradients, parameters = network()
    report = check_gradients(lambda p: loss(p) * 0 + value, gradients, parameters)
    assert (report.verdict, report.compared, only(report).diagnosis.code) == ("nonfinite", 0, "nonfinite")


def test_what_the_functions_raise_is_a_finding() -> None:
    """An exception of either function is a finding of error, with its type and message."""
    loss, gradients, parameters = network()
    in_loss = check_gradients(lambda p: loss({}), gradients, parameters)
    assert (in_loss.verdict, only(in_loss).tensor, only(in_loss).diagnosis.sentence) == ("error", "loss", "loss raises KeyError: 'W1'")
    in_gradients = check_gradients(loss, lambda p: 1 // 0, parameters)  # type: ignore[arg-type, return-value]
    assert "gradients raises ZeroDivisionError" in str(in_gradients)


# Usage.


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"loss": 3}, TypeError, r"loss is no function: got int, expected loss\(parameters\)"),
    ({"gradients": {}}, TypeError, "gradients is no function: got dict"),
    ({"parameters": [np.ones(2)]}, TypeError, "parameters is no dict: got list, expected arrays by name"),
    ({"parameters": {}}, ValueError, "parameters is empty: got no array, expected at least one"),
    ({"parameters": {1: np.ones(2)}}, TypeError, "a parameter has no name: got the key 1, expected a string"),
    ({"parameters": {"W1": [1.0]}}, TypeError, r"W1 is no array: got list, expected a NumPy array; write np.array\(W1\)"),
    ({"parameters": {"W1": np.ones(2, int)}}, TypeError, r"W1 holds int64: expected one of float64, .*; write W1.astype\(float\)"),
    ({"parameters": {"W1": np.ones(2, complex)}}, TypeError, "W1 holds complex128"),
    ({"parameters": {"W1": np.array([1, np.nan])}}, ValueError, "W1 is not finite: got 1 of 2 entries that are not"),
    ({"loss": lambda p: np.ones(3)}, ValueError, r"loss returns an array of shape \(3,\): got 3 numbers, expected one; sum or average"),
    ({"loss": lambda p: None}, TypeError, "loss returns no number: got NoneType, expected a float"),
    ({"loss": lambda p: "1.0"}, TypeError, "loss returns no number: got str"),
    ({"gradients": lambda p: (1, 2)}, TypeError, r"gradients returns no dict: got tuple, expected one array per parameter, as in {'dW1'"),
    ({"seed": -1}, ValueError, "check_gradients needs a seed of at least 0: got -1"),
])
def test_wrong_usage_says_what_to_write(change: Mapping[str, Any], error: type[Exception], message: str) -> None:
    """A wrong argument raises: what was got, what was expected, what to write."""
    loss, gradients, parameters = network()
    with pytest.raises(error, match=message):
        check_gradients(**{"loss": loss, "gradients": gradients, "parameters": parameters, **change})


def test_plain_names_and_other_shapes_are_taken() -> None:
    """Gradients go by the parameter's own name too; numbers without an axis and empty arrays are parameters."""
    parameters = {"a": np.array(0.3), "b": np.zeros(0), "c": np.ones((2, 1, 2), np.float16)}
    report = check_gradients(lambda p: p["a"] ** 2 + np.sum(p["c"]) ** 2, lambda p: {
        "a": 2 * float(p["a"]), "db": np.zeros(0), "c": np.full_like(p["c"], 2 * np.sum(p["c"]))}, parameters)
    assert report.verdict == "agrees"
    assert report.compared == 5


# The report.


def test_a_report_is_saved_and_reads_well(tmp_path: Path) -> None:
    """The report is written with a folder per finding, says what it is, and the same seed gives the same report."""
    loss, gradients, parameters = network()
    wrong = changed(gradients, dW1=lambda d: 2 * d, db2=lambda d: None)
    report = check_gradients(loss, wrong, parameters, reports=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.md", "report.html", "error-numpy-Handwritten-db2-float64",
                                                        "wrong-numpy-Handwritten-dW1-float64"}
    saved = json.loads((folder / "report.json").read_text())
    assert [f["tensor"] for f in saved["findings"]] == ["db2", "dW1"]  # worst first
    assert saved["options"]["truth"] == {"W1": "complex step", "b1": "complex step", "W2": "complex step"}
    assert "dW1 is twice too large" in (folder / "report.md").read_text()
    assert "24 of 24 entries outside; worst dW1" in str(report)
    again = check_gradients(loss, wrong, parameters)
    assert again.tallies == report.tallies


def test_the_example_prints_its_mistake(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook's network of the examples is reported with the factor that it forgets, and with nothing else."""
    monkeypatch.setattr(bp, "check_gradients", check_gradients, raising=False)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    runpy.run_path(str(EXAMPLE))
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "db1 is 50 times what it should be, everywhere: a division by 50 is missing; is m = 50?" in shown
    assert "NOT OK: wrong; 1 unexplained finding" in shown


def test_the_example_of_the_docstring_runs() -> None:
    """The example prints what the docstring says."""
    failed, tried = doctest.testmod(import_module("backproof.gradients"))
    assert tried >= 7
    assert failed == 0
