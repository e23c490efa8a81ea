"""What is said of a wrong derivative along a direction, of numbers planted in place of the right ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters.calls import DOUBLE, JVP, Call
from backproof.draw.probe import Condition, Probe
from backproof.judge.comparing import compare
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.directional import expected_along
from backproof.judge.directional_diagnosis import CONSTANT, diagnose_directional
from backproof.reference.rounding import Rounded, precision_named
from backproof.reference.trace import LayerTrace

FLOAT64 = precision_named("float64")
X, DY, WEIGHT = "double backward x", "double backward dy", "double backward weight"


def along(mode: str, layer: Any = None) -> tuple[LayerTrace, Call, dict[str, Rounded]]:
    probe = Probe(layer or bp.LayerNorm(), ((4,),), 3, condition=Condition(mode=mode))
    call = probe.call()
    step = LayerTrace("candidate", probe.layer, call.inputs, np.zeros(1), (), call.dys[0], call.params, {})
    return step, call, expected_along(step, call, FLOAT64)


def said(tensor: str, actual: Any, layer: Any = None) -> Diagnosis:
    """Return the diagnosis of a tensor with these numbers, or what becomes of the right ones."""
    step, call, balls = along(JVP if tensor.startswith(JVP) else DOUBLE, layer)
    numbers = actual(balls[tensor].value) if callable(actual) else actual
    certificate = compare(step, tensor, numbers, balls[tensor], FLOAT64)
    assert certificate.failed
    return diagnose_directional(step, call, certificate, FLOAT64)


def without(tensor: str, key: int | str, layer: Any) -> np.ndarray:
    """Return a derivative in which one gradient is taken for a constant."""
    step, call, _ = along(DOUBLE, layer)
    held = {**call.tangents, key: np.zeros_like(call.tangents[key])}
    return np.asarray(expected_along(step, replace(call, tangents=held), FLOAT64)[tensor].value)


@pytest.mark.parametrize(("actual", "message"), [
    (None, "no jvp x came back: expected an array of shape (3, 4)"),
    (np.zeros((4, 3)), "wrong shape of jvp x: got (4, 3), expected (3, 4)"),
    (np.zeros((3, 4), np.float32), "wrong dtype of jvp x: got float32, expected float64"),
])
def test_an_array_of_another_kind_is_an_error(actual: Any, message: str) -> None:
    """The message of the certificate says it, and nothing is looked for in its numbers."""
    assert said("jvp x", actual) == Diagnosis("error", message)


def test_numbers_that_are_not_finite_are_counted() -> None:
    """It is said of how many entries there are how many."""
    assert said("jvp x", lambda right: np.where(np.arange(12).reshape(3, 4) < 5, np.nan, right)) == Diagnosis(
        "nonfinite", "5 of 12 entries of jvp x are not finite where the true value is")


@pytest.mark.parametrize(("tensor", "actual", "code", "sentence"), [
    ("jvp x", lambda right: 3 * right, "factor", "jvp x is 3 times what it should be, everywhere"),
    ("jvp x", lambda right: 0 * right, "zero", "jvp x is zero everywhere but for rounding"),
    (X, lambda right: 3 * right, "factor", f"{X} is 3 times what it should be, everywhere"),
    (DY, lambda right: 0 * right, "zero", f"{DY} is zero everywhere but for rounding"),
    (X, lambda right: 0 * right, "not-differentiated", f"{X} is zero: no gradient is differentiated by x; {CONSTANT}"),
    (WEIGHT, lambda right: 0 * right, "not-differentiated", f"{WEIGHT} is zero: no gradient is differentiated by weight; {CONSTANT}"),
    ("jvp x", lambda right: right * (1 + 2.0**-26), "single-precision-constant",
     "jvp x is off by +1.49e-08 of its value everywhere: a constant of the formula is held in single precision (unit roundoff 5.96e-08)"),
    (X, lambda right: right + np.eye(3, 4)[::-1], "unknown",
     "no known mistake reproduces these numbers; 3 of 12 entries are outside, spread over the whole tensor"),
    ("jvp x", lambda right: right + np.eye(3, 4)[::-1], "unknown",
     "no known mistake reproduces these numbers; 3 of 12 entries are outside, spread over the whole tensor"),
])
def test_mistakes_of_all_entries(tensor: str, actual: Any, code: str, sentence: str) -> None:
    """A factor is one of the derivative; of a double backward, zeros are a gradient that was not differentiated."""
    assert said(tensor, actual) == Diagnosis(code, sentence)


@pytest.mark.parametrize(("tensor", "key", "name"), [(X, 0, "dx"), (X, "weight", "dweight"), (WEIGHT, 0, "dx")])
def test_a_part_that_is_not_differentiated_is_named(tensor: str, key: int | str, name: str) -> None:
    """Of the gradients whose derivatives make up a double backward, the one that is lacking; alone, it leaves zeros."""
    layer = bp.LayerNorm()
    found = said(tensor, without(tensor, key, layer), layer)
    by = tensor.removeprefix(f"{DOUBLE} ")
    if tensor == WEIGHT:
        assert found == Diagnosis("not-differentiated", f"{tensor} is zero: no gradient is differentiated by {by}; {CONSTANT}")
    else:
        assert found == Diagnosis("not-differentiated", f"{tensor} lacks the part of {name}: it is not differentiated by {by}; {CONSTANT}")
