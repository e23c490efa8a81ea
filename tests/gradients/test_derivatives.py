"""The true derivatives of a loss: complex step, where it can be believed, or differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.gradients import check_gradients
from scipy import special

from .networks import changed, network, no_complex, one_off, only


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
