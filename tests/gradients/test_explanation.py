"""What is wrong with a gradient is named and explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.gradients import check_gradients

from .networks import Parameters, changed, network, one_off, only

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
    assert f"gradient {tensor} returned by " in str(report)
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
