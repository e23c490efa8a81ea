"""Progress in a log: few lines, each later than the one before, and none when quiet."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from backproof.verify.progress import watch
from backproof.verify.run import Run


def _said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: int, *, quiet: bool = False) -> list[str]:
    """Return the lines of a run that ends a case each second."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    run = Run(["torch"], seconds, 0, ("float64",), None, None)
    with watch(run, quiet=quiet) as update:
        for _ in range(seconds):
            clock[0] += 1
            run.ledger.cases += 1
            update(run)
    return capsys.readouterr().err.splitlines()


def test_lines_of_a_log_come_ever_later(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """After 15 s, then each twice as long after the one before, at most five minutes, so that CI does not take it for dead."""
    lines = _said(monkeypatch, capsys, 3600)
    at = [int(line.partition("/")[0]) for line in lines]
    assert at[:5] == [16, 47, 108, 229, 470]
    assert {b - a for a, b in pairwise(at[5:])} == {301}
    assert lines[0] == "16/3600 cases: 0 entries, 0 findings, 1.0 cases/s, about 3584 s left"


def test_a_terminal_of_ci_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Some CI has a terminal, whose log a live bar would fill."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert len(_said(monkeypatch, capsys, 20)) == 1


def test_quiet_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet has no progress."""
    assert _said(monkeypatch, capsys, 1000, quiet=True) == []
