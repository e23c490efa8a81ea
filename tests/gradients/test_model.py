"""What `check_gradients` accepts, and what it says of arguments that it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from backproof.gradients import check_gradients

from .networks import network


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
