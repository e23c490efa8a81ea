"""The check of one gradient: kinks, and large parameters that are judged in sums and on a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.gradients import check_gradients
from backproof.report.finding import Finding

from .networks import Parameters, changed, network, no_complex, one_off, only


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
