"""`check_gradients` on right hand-written backpropagation, which must pass, and its report."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.gradients import check_gradients
from backproof.reference.feedforward import backpropagation, cost, forward_propagation

from .networks import HIDDEN, Parameters, changed, network, no_class, one_off, only

EXAMPLE = Path(__file__).parents[2] / "examples" / "notebook_network.py"


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


def test_functions_that_drop_the_class_are_judged_to_half_their_digits() -> None:
    """Where no random error goes through, the report says so, and an entry off by 1e-4 of the largest is still found."""
    loss, gradients, parameters = network()
    right = check_gradients(no_class(loss), no_class(gradients), parameters)
    assert right.verdict == "agrees"
    assert sum(n for reason, n in right.skipped.items() if "beyond half its digits" in reason) == right.compared
    assert only(check_gradients(no_class(loss), no_class(changed(gradients, dW1=one_off(1e-4))), parameters)).index == (1, 2)


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
