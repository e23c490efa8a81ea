"""Functions that are no functions of their argument alone are findings, whatever their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.gradients import check_gradients

from .networks import Parameters, changed, network, only


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
