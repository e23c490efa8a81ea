"""The command line, by real subprocesses: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from backproof.reference.activations import Hardsigmoid, ReLU
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.linear import Linear
from backproof.reference.network import Network

COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]


def _call(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False, cwd=cwd,
                          env={**os.environ, **environment})


@pytest.fixture
def case() -> Case:
    return Case(Network((3,), (Linear(2), ReLU()), MSELoss()), 5, "normal", 4, "float64")


def test_verify_writes_a_report_and_exits_0(tmp_path: Path) -> None:
    """A small run ends with a table, a verdict, the place of the report, and exit status 0."""
    done = _call("verify", "--adapter", "torch", "--cases", "8", "--seed", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What was compared" in done.stdout
    assert "self-test:" in done.stdout
    assert "OK: " in done.stdout
    (folder,) = (tmp_path / "reports").iterdir()
    assert f"report: reports/{folder.name}/report.md" in done.stdout
    assert json.loads((folder / "report.json").read_text())["options"]["seed"] == 1


def test_verify_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """Two runs of a seed compare the same entries with the same outcome."""
    for name in ("one", "two"):
        _call("verify", "--adapter", "torch", "--cases", "12", "--seed", "3", "--reports", name, cwd=tmp_path)
    one, two = (json.loads(next((tmp_path / name).rglob("report.json")).read_text()) for name in ("one", "two"))
    assert one["tallies"] == two["tallies"]
    assert one["self_test"] == two["self_test"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "--adapter", "tensorflow"), "unknown adapter: got 'tensorflow', expected one of jax, jax:jit, torch"),
        (("verify", "--adapter", "torch", "--layers", "Lineer"), "unknown layer: got Lineer, expected one of"),
        (("verify", "--adapter", "torch", "--precision", "f32"), "unknown precision: got 'f32', expected one of float64, float32"),
        (("verify", "--cases", "-1"), "-1 is not in the range x>=1"),
        (("verify", "--cases", "many"), "'many' is not a valid integer"),
        (("verify", "--seed", "-4"), "-4 is not in the range x>=0"),
        (("verify", "--minutes", "0"), "0.0 is not in the range x>0"),
        (("replay", "missing.json"), "'missing.json' does not exist"),
        (("replay", "truncated.json"), "truncated.json: not readable as JSON"),
        (("replay", "list.json"), "expected a case, a finding or a report: got a JSON list"),
        (("replay", "layer.json"), "unknown layer: got 'Lineer', expected one of"),
        (("replay", "binary.json"), "binary.json: not readable as JSON"),
        (("replay", "negative.json"), "a case needs a batch of at least 1: got -2"),
        (("replay", "deep.json"), "deep.json: "),
        (("verify", "--adapter", "torch", "--cases", "1", "--reports", "list.json"), "list.json"),
        (("frobnicate",), "No such command 'frobnicate'"),
    ],
)
def test_bad_input_gets_one_clear_line_and_exit_2(arguments: tuple[str, ...], said: str, case: Case, tmp_path: Path) -> None:
    """Wrong usage and unreadable input name the choices, print no traceback and exit with 2."""
    text = case.to_json()
    (tmp_path / "truncated.json").write_text(text[: len(text) // 2])
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "layer.json").write_text(text.replace("Linear", "Lineer"))
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "negative.json").write_text(text.replace('"batch": 4', '"batch": -2'))
    (tmp_path / "deep.json").write_text("[" * 100_000)
    done = _call(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_folder_is_said_before_the_run_starts(tmp_path: Path) -> None:
    """A reports folder that cannot be made is one line and exit 2, at once."""
    (tmp_path / "file").write_text("")
    done = _call("verify", "--adapter", "torch", "--reports", "file/below", cwd=tmp_path)
    assert done.returncode == 2
    assert "file/below" in done.stderr
    assert "Traceback" not in done.stderr


def test_replay_shows_a_known_discrepancy(tmp_path: Path) -> None:
    """Replaying a case prints its report again: the known float64 error of torch's hardsigmoid."""
    path = tmp_path / "case.json"
    path.write_text(Case(Network((3,), (Hardsigmoid(),), MSELoss()), 5, "normal", 4, "float64").to_json())
    done = _call("replay", str(path), "--adapter", "torch", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Known discrepancies" in done.stdout
    assert "Hardsigmoid" in done.stdout


def test_replay_finds_the_case_in_a_finding(case: Case, tmp_path: Path) -> None:
    """A finding.json carries its case and its adapter."""
    path = tmp_path / "finding.json"
    path.write_text(json.dumps({"adapter": "torch", "case": case.describe()}))
    done = _call("replay", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "torch" in done.stdout


def test_a_missing_framework_is_one_line(tmp_path: Path) -> None:
    """Without jax, --adapter jax:jit says what to install and exits 2; the default run leaves it out and says so."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
    asked = _call("verify", "--adapter", "jax:jit", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert asked.returncode == 2
    assert 'pip install "backproof[jax]"' in asked.stderr
    assert "Traceback" not in asked.stderr
    default = _call("verify", "--cases", "4", cwd=tmp_path, PYTHONPATH=str(tmp_path), CI="")
    assert default.returncode == 0, default.stdout + default.stderr
    assert "left out: adapter jax:jit needs jax" in default.stderr


def test_in_ci_a_missing_framework_is_an_error(tmp_path: Path) -> None:
    """With CI set, a default run without jax fails: nothing is skipped in silence."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['jax'] = None\n")
    done = _call("verify", "--cases", "4", cwd=tmp_path, PYTHONPATH=str(tmp_path), CI="true")
    assert done.returncode == 2
    assert 'pip install "backproof[jax]"' in done.stderr


def test_ctrl_c_ends_with_a_report_of_what_was_done(tmp_path: Path) -> None:
    """An interrupt leaves a whole report that says it was interrupted."""
    # what a shell without job control starts in the background ignores SIGINT, and so does all that it starts
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from backproof.cli import main; main()"
    arguments = [sys.executable, "-c", heeding, "verify", "--adapter", "torch", "--cases", "100000"]
    with subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "cases:" not in (line := process.stderr.readline()):
                assert line, "the run ended before its first line of progress"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert "Interrupted: this is a report of what was done so far" in out, err
    data = json.loads(next((tmp_path / "reports").rglob("report.json")).read_text())
    assert data["interrupted"] is True
    assert data["cases"] > 0


def test_a_failure_of_the_harness_itself_exits_3(tmp_path: Path) -> None:
    """A bug of ours is a finding that says so and exits 3, so that nobody takes it for the framework's; the other cases count."""
    (tmp_path / "sitecustomize.py").write_text("""
import backproof.judge.certify as c
whole = c.certify
def certify(trace, precision, fused=False):
    return 1 / (precision.name != "float32") and whole(trace, precision, fused=fused)
c.certify = certify
""")
    done = _call("verify", "--adapter", "torch", "--cases", "4", "--layers", "Linear", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the harness itself failed, a bug of ours: ZeroDivisionError: " in done.stdout
    assert "the harness itself failed" in done.stderr
    (report,) = (tmp_path / "reports").rglob("report.json")
    data = json.loads(report.read_text())
    assert {tally["precision"] for tally in data["tallies"]} == {"float64"}
    assert data["findings"][0]["diagnosis"]["code"] == "harness-failed"
    assert data["findings"][0]["precision"] == "float32"
