"""Baselines: what is accepted does not fail, everything else does; the file is small, sorted and says what it changes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from backproof.cli import main
from backproof.compare.baseline import accepted, baseline_of, compare_with_baseline, read_baseline, text_of
from backproof.compare.outcome import Conclusion

Data = dict[str, Any]
PLANTED = """
from dataclasses import replace
import backproof.adapters as adapters

load = adapters.load


class Mistaken:
    def __init__(self, name):
        self.name = name

    def run(self, case):
        trace = load(self.name).run(case)
        return replace(trace, layers=tuple(
            replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s for s in trace.layers))


adapters.load = Mistaken
"""
RUN = ("verify", "--adapter", "torch", "--cases", "8", "--layers", "Linear", "--quiet")


MAIN = "from backproof.cli import main; main()"


def _call(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
    return subprocess.run([sys.executable, "-c", MAIN, *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=240,
                          env={**environment, **more})


def test_what_is_accepted_is_no_difference(wrong: Data, tmp_path: Path) -> None:
    """A report against its own baseline, written to a file and read back."""
    path = tmp_path / "baseline.toml"
    path.write_text(text_of(baseline_of(wrong)))
    baseline = read_baseline(path)
    assert baseline == baseline_of(wrong)
    found = compare_with_baseline(wrong, baseline)
    assert (found.lines, found.runs, found.versions) == ((), (), {})


def test_what_is_new_or_worse_fails(right: Data, wrong: Data) -> None:
    """A finding that the baseline does not have, and a verdict that became worse than the one accepted."""
    found = compare_with_baseline(wrong, baseline_of(right))
    assert [(line.weight, str(line.about)) for line in found.lines if line.weight == "worse"] == [("worse", "Linear dweight on torch")]
    imprecise = deepcopy(wrong)
    imprecise["findings"][0]["verdict"] = "imprecise"
    (line,) = compare_with_baseline(wrong, baseline_of(imprecise)).of("worse")
    assert line.sentence.startswith("was imprecise [halved]; is wrong [halved]")


def test_what_is_gone_is_said_and_does_not_fail(right: Data, wrong: Data) -> None:
    """An accepted finding that is not there any more."""
    found = compare_with_baseline(right, baseline_of(wrong))
    assert not found.worse
    assert [(line.change, str(line.about)) for line in found.of("better")] == [("gone", "Linear dweight on torch")]


def test_known_discrepancies_need_no_baseline(right: Data, wrong: Data) -> None:
    """They are explained in the package; one that was accepted before it was known is said to be explained."""
    known = deepcopy(right)
    known["known"] = [{**wrong["findings"][0], "known": "torch halves it"}]
    known["stale"] = ["gelu"]
    assert compare_with_baseline(known, baseline_of(right)).lines == ()
    assert baseline_of(known)["findings"] == []
    found = compare_with_baseline(known, baseline_of(wrong))
    assert [(line.weight, line.change) for line in found.lines if line.kind != "margin"] == [("better", "explained")]


def test_margins_and_coverage_are_compared(right: Data) -> None:
    """A margin that moved is a warning, a layer that is not compared any more fails; other cases show neither."""
    baseline = baseline_of(right)
    new = deepcopy(right)
    at = next(i for i, t in enumerate(new["tallies"]) if (t["layer"], t["tensor"], t["precision"]) == ("Linear", "dx", "float32"))
    baseline["margins"]["torch float32"]["Linear"]["dx"], new["tallies"][at]["margin"] = 0.01, 0.6
    new["tallies"] = [t for t in new["tallies"] if t["layer"] != "Softsign"]
    found = compare_with_baseline(new, baseline)
    assert [str(line.about) for line in found.of("warning")] == ["Linear dx on torch (float32)"]
    assert [str(line.about) for line in found.of("worse")] == ["Softsign on torch (float32)", "Softsign on torch (float64)"]
    new["options"]["seed"] = 5
    found = compare_with_baseline(new, baseline)
    assert (found.of("worse"), found.of("warning")) == ((), ())


def test_the_file_is_small_sorted_and_reviewable(wrong: Data) -> None:
    """One line for each finding and layer, whatever the order of the report, and no number that is evidence of a finding."""
    text = text_of(baseline_of(wrong))
    assert '    {adapter = "torch", layer = "Linear", tensor = "dweight", verdict = "wrong", code = "halved"},' in text.splitlines()
    assert text.startswith("# What a run may show without failing")
    assert len(text.splitlines()) < 40
    shuffled = deepcopy(wrong)
    for name in ("findings", "known", "conventions", "tallies"):
        shuffled[name].reverse()
    shuffled["findings"][0].update(excess=7.0, count=3)
    assert text_of(baseline_of(shuffled)) == text
    assert tomllib.loads(text)["run"]["cases"] == 32


def test_a_reason_is_kept(wrong: Data) -> None:
    """What a reviewer wrote beside a finding stays when the baseline is written anew."""
    before = baseline_of(wrong)
    before["findings"][0]["why"] = "fixed in 2.14, see #1"
    assert baseline_of(wrong, before)["findings"][0]["why"] == "fixed in 2.14, see #1"
    assert compare_with_baseline(wrong, before).lines == ()


def test_an_exception_is_accepted_by_its_message(wrong: Data, tmp_path: Path) -> None:
    """A finding of no tensor is told by what was raised, quotes and control characters and all."""
    diagnosis = {"code": "raised", "sentence": 'RuntimeError: "x"\x1b of shape (2, 3)', "equation": ""}
    wrong["findings"][0].update(layer="Network", tensor="", verdict="error", diagnosis=diagnosis)
    path = tmp_path / "baseline.toml"
    path.write_text(text_of(baseline_of(wrong)))
    assert compare_with_baseline(wrong, read_baseline(path)).lines == ()
    assert read_baseline(path)["findings"][0]["about"] == 'RuntimeError: "x"\x1b of shape #'


def test_digits_lost_are_part_of_what_is_accepted(wrong: Data, tmp_path: Path) -> None:
    """An imprecise tensor that loses a digit more on the same cases is to be looked at."""
    wrong["findings"][0].update(verdict="imprecise", digits_lost=2.4)
    path = tmp_path / "baseline.toml"
    path.write_text(text_of(baseline_of(wrong)))
    assert "digits = 2.4}," in path.read_text()
    wrong["findings"][0]["digits_lost"] = 3.3
    assert compare_with_baseline(wrong, read_baseline(path)).lines == ()
    wrong["findings"][0]["digits_lost"] = 3.4
    (line,) = compare_with_baseline(wrong, read_baseline(path)).lines
    assert (line.weight, line.sentence) == ("warning", "imprecise, and 3.4 digits are lost, 2.4 before")


def test_no_baseline_is_made_of_nothing(right: Data) -> None:
    """It would expect nothing, and pass for ever."""
    with pytest.raises(ValueError, match="the report compared nothing"):
        baseline_of(right | {"tallies": []})


def test_what_changes_is_listed(right: Data, wrong: Data) -> None:
    """What is accepted that was not, what is dropped, what is no longer expected, margins that moved."""
    one, two = baseline_of(right), baseline_of(wrong)
    line = "wrong [halved]: Linear dweight on torch"
    assert f"accepts {line}" in accepted(one, two)
    assert accepted(None, two) == [f"accepts {line}"]
    assert f"drops {line}" in accepted(two, one)
    assert accepted(one, deepcopy(one)) == []
    less = deepcopy(one)
    del less["margins"]["torch float64"]["Softsign"]["dx"]
    less["margins"]["torch float32"]["Linear"]["dx"], one["margins"]["torch float32"]["Linear"]["dx"] = 0.6, 0.01
    assert accepted(one, less) == ["no longer expects Softsign dx on torch float64",
                                   "accepts a margin of 0.6, before 0.01: Linear dx on torch float32"]


@pytest.mark.parametrize(("found", "put", "said"), [
    ("schema = 1", "schema = 2", "schema: got 2, expected 1"),
    ('verdict = "wrong"', 'verdict = "wrnog"', "findings[0].verdict: got 'wrnog', expected one of 'error', 'wrong'"),
    ("tensor =", "tensr =", "findings[0].tensor: the field is missing (and 1 more)"),
    ("cases = 32", "cases = -1", "run.cases: got -1, expected greater than or equal to 0"),
    ("[versions]", "[version]", "versions: the field is missing (and 1 more)"),
    ('"torch float64"', '"torch"', "margins.'torch': expected an adapter and a precision, such as 'torch float64'"),
    ("schema = 1", "schema = ", "not readable as TOML"),
])
def test_a_baseline_that_is_none_is_named(found: str, put: str, said: str, wrong: Data, tmp_path: Path) -> None:
    """A misspelt line accepts nothing in silence: file, field and what was expected."""
    path = tmp_path / "baseline.toml"
    path.write_text(text_of(baseline_of(wrong)).replace(found, put))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_baseline(path)
    assert str(caught.value).startswith(f"{path}: ")


def _baseline(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[Any, str]:
    """Run `backproof baseline reports accepted.toml` in this process; return exit status and what it prints."""
    status: Any = 0
    try:
        main(["baseline", "reports", "accepted.toml", *options])
    except SystemExit as end:
        status = end.code
    return status, capsys.readouterr().out


def test_a_planted_mistake_is_accepted_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """verify fails, `backproof baseline` accepts and says so, verify --baseline passes; without the mistake it says what is gone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "sitecustomize.py").write_text(PLANTED)  # the workers' too
    planted = {"PYTHONPATH": str(tmp_path / "planted")}
    first = _call(*RUN, cwd=tmp_path, **planted)
    assert first.returncode == 1, first.stderr
    said = "accepts wrong [halved]: Linear dweight on torch\naccepted.toml: 1 finding and 0 conventions are accepted\n"
    assert _baseline(capsys) == (0, said)
    assert _baseline(capsys, "--check")[0] == 0
    again = _call(*RUN, "--baseline", "accepted.toml", cwd=tmp_path, **planted)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "NOT WORSE: no difference" in again.stdout
    fixed = _call(*RUN, "--baseline", "accepted.toml", cwd=tmp_path)
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert "gone finding" in fixed.stdout
    text = (tmp_path / "accepted.toml").read_text()
    status, would = _baseline(capsys, "--check")
    assert status == 1
    assert "drops wrong [halved]: Linear dweight on torch" in would
    assert (tmp_path / "accepted.toml").read_text() == text
    (tmp_path / "accepted.toml").write_text(text.replace("Linear", "Bilinear"))
    worse = _call(*RUN, "--baseline", "accepted.toml", "--junit", "out/junit.xml", cwd=tmp_path, GITHUB_ACTIONS="true", **planted)
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert "::error title=Linear dweight on torch::wrong [halved]" in worse.stdout
    assert '<failure message="wrong: dweight is half' in (tmp_path / "out" / "junit.xml").read_text()


@pytest.mark.parametrize("strict", [False, True])
def test_a_warning_fails_a_strict_run(strict: bool, right: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A margin that moved is shown, and fails where that was asked for."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    baseline, said = baseline_of(right), list[str]()
    baseline["margins"]["torch float32"]["Head"]["dz"] = 0.01
    (tmp_path / "baseline.toml").write_text(text_of(baseline))
    next(t for t in right["tallies"] if (t["layer"], t["tensor"], t["precision"]) == ("Head", "dz", "float32"))["margin"] = 0.6
    conclusion = Conclusion(tmp_path / "baseline.toml", strict=strict)
    assert conclusion.draw(right, tmp_path, said.append) is not strict
    assert "moved margin" in said[0]


def test_strict_needs_a_baseline(tmp_path: Path) -> None:
    """Wrong usage, exit 2."""
    done = _call("verify", "--strict", cwd=tmp_path)
    assert done.returncode == 2
    assert "--strict needs a --baseline" in done.stderr


def test_an_unreadable_baseline_is_said_before_the_run(tmp_path: Path) -> None:
    """One line and exit 2, and no report is begun."""
    (tmp_path / "baseline.toml").write_text("schema = 7")
    done = _call(*RUN, "--baseline", "baseline.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "baseline.toml: schema: got 7, expected 1" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_keep_deletes_older_reports(tmp_path: Path) -> None:
    """--keep 1 leaves the report of this run, and says what went."""
    _call(*RUN, cwd=tmp_path)
    (old,) = (tmp_path / "reports").iterdir()
    done = _call(*RUN, "--keep", "1", cwd=tmp_path)
    (new,) = (tmp_path / "reports").iterdir()
    assert new != old
    assert f"deleted: reports/{old.name}" in done.stdout
    assert json.loads((new / "report.json").read_text())["ok"] is True
