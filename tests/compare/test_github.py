"""What GitHub Actions is told: commands that it reads as they were meant, no more than it shows, and a summary it accepts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from backproof.compare.baseline import baseline_of, text_of
from backproof.compare.comparison import compare_reports
from backproof.compare.github import commands, running_there, summarise
from backproof.compare.reading import read_report

Data = dict[str, Any]
COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]


def _read(line: str) -> tuple[str, str, str]:
    """Read a command as the runner does: type, title and message, escapes undone."""
    found = re.fullmatch(r"::(error|warning) title=([^:,]*)::(.*)", line)
    assert found, line

    def plain(text: str) -> str:
        for code, c in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, c)
        return text

    return found[1], plain(found[2]), plain(found[3])


def test_findings_are_errors_and_stale_entries_warnings(wrong: Data) -> None:
    """The title says verdict and place, the message the diagnosis."""
    wrong["stale"] = ["gelu"]
    assert [_read(line) for line in commands(wrong)] == [
        ("error", "wrong: Linear dweight on torch (float64)", "dweight is half of what it should be"),
        ("warning", "stale known discrepancy", "gelu matched nothing although it was looked for"),
    ]


def test_a_clean_run_says_nothing(right: Data) -> None:
    """No annotation where there is nothing to say."""
    assert list(commands(right)) == []


def test_a_comparison_speaks_of_what_changed(right: Data, wrong: Data) -> None:
    """With a baseline what is accepted is no error."""
    assert list(commands(wrong, compare_reports(wrong, wrong))) == []
    ((kind, title, message),) = [_read(line) for line in commands(wrong, compare_reports(right, wrong))]
    assert (kind, title) == ("error", "Linear dweight on torch")
    assert message.startswith("wrong [halved]")


def test_what_steers_the_runner_is_escaped(wrong: Data) -> None:
    """Percent signs, colons and commas come through; line ends cannot start another command."""
    wrong["findings"][0].update(layer="A,b:c%2C", diagnosis={"code": "x", "sentence": "50% off:\r\n::error::x, y\x1b", "equation": ""})
    (line,) = commands(wrong)
    kind, title, message = _read(line)
    assert (kind, title) == ("error", "wrong: A,b:c%2C dweight on torch (float64)")
    assert message == "50% off:  ::error::x, y\N{REPLACEMENT CHARACTER}"
    assert "\n" not in line
    assert "\r" not in line


def test_ten_annotations_are_shown_and_the_rest_counted(wrong: Data) -> None:
    """GitHub shows ten of a kind: the nine worst, and one that counts the others."""
    wrong["findings"] = [{**wrong["findings"][0], "layer": f"L{i}"} for i in range(30)]
    lines = list(commands(wrong))
    assert len(lines) == 10
    assert [_read(line)[1] for line in lines[:9]] == [f"wrong: L{i} dweight on torch (float64)" for i in range(9)]
    assert _read(lines[9]) == ("error", "21 more", "21 more are in the report")
    wrong["findings"] = wrong["findings"][:10]
    assert "more" not in "".join(commands(wrong))


def test_a_missed_mistake_and_an_empty_run_are_errors(right: Data) -> None:
    """What a run says of itself fails it too."""
    right["self_test"]["missed"], right["compared"] = ["sign in dx"], 0
    assert [_read(line)[1] for line in commands(right)] == ["a planted mistake was missed", "nothing was compared"]


def test_only_github_is_told() -> None:
    """The variable that GitHub sets decides."""
    assert running_there({"GITHUB_ACTIONS": "true"})
    assert not running_there({"GITHUB_ACTIONS": "false"})
    assert not running_there({"CI": "true"})


@pytest.mark.parametrize("there", [0, 500_000, 2**20 - 100, 2**20 + 5])
def test_the_summary_is_as_long_as_github_takes(there: int, tmp_path: Path) -> None:
    """What stands in the file stays, and together it is at most a mebibyte of whole lines and characters."""
    path = tmp_path / "summary.md"
    path.write_text("x" * there)
    summarise("a line é\n" * 200_000, path)
    data = path.read_bytes()
    assert data.startswith(b"x" * there)
    assert len(data) <= max(2**20, there)
    rest = data[there:].decode()
    if there < 600_000:
        assert rest.endswith("a line é\n\nThe rest is in report.md.\n")
    short = tmp_path / "short.md"
    summarise("short\n", short)
    assert short.read_text() == "short\n"


def test_a_run_on_github_annotates_and_summarises(tmp_path: Path) -> None:
    """A real run writes its summary; one that cannot be written changes nothing, and neither does a baseline of more layers."""
    run = [*COMMAND, "verify", "--adapter", "torch", "--cases", "8", "--layers", "Linear,ReLU", "--quiet"]
    environment = {**os.environ, "GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::" not in done.stdout
    assert (tmp_path / "summary.md").read_text().startswith("# backproof: OK")
    text = text_of(baseline_of(read_report(tmp_path / "reports")))
    (tmp_path / "b.toml").write_text(text.replace('[margins."torch float32"]', '[margins."torch float32"]\nTanh = {dx = 0.1}'))
    unwritable = environment | {"GITHUB_STEP_SUMMARY": str(tmp_path)}
    done = subprocess.run([*run, "--baseline", "b.toml"], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240,
                          env=unwritable)
    assert "the summary of the step was not written" in done.stdout
    assert done.returncode == 0, done.stdout  # --layers leaves Tanh out
    for folder in (tmp_path / "reports").iterdir():
        assert json.loads((folder / "report.json").read_text())["ok"]
