"""Two runs compared: real ones, with mistakes planted into one, and for the rest data changed by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from backproof.compare.comparison import compare_reports
from backproof.compare.formats import as_json, as_markdown, as_text

Data = dict[str, Any]
COMMAND = [sys.executable, "-c", "from backproof.cli import main; main()"]


def _lines(old: Data, new: Data, weight: str) -> list[tuple[str, str, str, str]]:
    return [(line.change, line.kind, str(line.about), line.sentence) for line in compare_reports(old, new).of(weight)]


def _diff(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "diff", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=cwd, timeout=120,
                          env={**os.environ, "COLUMNS": "40"})


def _known(finding: Data) -> Data:
    return {**finding, "known": "torch divides twice"}


def test_a_run_and_the_same_run_again_do_not_differ(right: Data) -> None:
    """The same seed and version leave nothing to say."""
    found = compare_reports(right, deepcopy(right))
    assert (found.lines, found.runs, found.versions, found.worse) == ((), (), {}, False)
    assert found.verdict == "NOT WORSE: no difference"


def test_a_planted_mistake_is_new_and_worse(right: Data, wrong: Data) -> None:
    """A gradient that is halved in NEW alone is one new finding; the other way round it is gone."""
    ((change, kind, about, sentence),) = _lines(right, wrong, "worse")
    assert (change, kind, about) == ("new", "finding", "Linear dweight on torch")
    assert sentence == "wrong [halved] dweight is half of what it should be"
    assert compare_reports(right, wrong).worse
    back = compare_reports(wrong, right)
    assert not back.worse
    assert [(line.change, line.sentence) for line in back.of("better")] == [
        ("gone", "was wrong [halved] dweight is half of what it should be")]


def test_a_finding_is_the_same_whatever_its_evidence(wrong: Data) -> None:
    """Seed, case, excess, count, precision, entry and version of the framework do not make another finding."""
    new = deepcopy(wrong)
    new["findings"][0].update(excess=2.5, count=1, precision="float32", index=[0], actual=1.0, path="layers.9", case=None, digits_lost=1.0)
    new["environment"]["torch"] = "2.99"
    found = compare_reports(wrong, new)
    assert found.lines == ()
    assert found.versions == {"torch": (wrong["environment"]["torch"], "2.99")}


def test_another_diagnosis_of_the_same_verdict_is_to_be_looked_at(wrong: Data, other_wrong: Data) -> None:
    """Half of a gradient before and twice of it now: wrong as before, and said."""
    found = compare_reports(wrong, other_wrong)
    assert not found.worse
    assert [line.sentence for line in found.of("warning") if line.change == "diagnosis"] == [
        "wrong, and the diagnosis was halved, is doubled: dweight is twice too large"]


@pytest.mark.parametrize(("before", "after", "weight"), [("imprecise", "wrong", "worse"), ("wrong", "imprecise", "better"),
                                                         ("nonfinite", "error", "worse")])
def test_a_changed_verdict_is_one_line(before: str, after: str, weight: str, wrong: Data) -> None:
    """What was imprecise and is wrong got worse, the reverse better; nothing is both gone and new."""
    old, new = deepcopy(wrong), deepcopy(wrong)
    old["findings"][0]["verdict"], new["findings"][0]["verdict"] = before, after
    (line,) = compare_reports(old, new).lines
    assert (line.weight, line.change) == (weight, "changed")
    assert line.sentence.startswith(f"was {before} [halved]")
    assert f"; is {after} [halved]" in line.sentence


def test_a_finding_that_became_known_is_better_and_back_worse(wrong: Data) -> None:
    """An explanation is progress; a known discrepancy that is no longer explained fails."""
    known = deepcopy(wrong)
    known["known"] = [_known(known["findings"].pop())]
    assert [line[0] for line in _lines(wrong, known, "better")] == ["explained"]
    assert [line[0] for line in _lines(known, wrong, "worse")] == ["unexplained"]


def test_a_convention_that_changed_is_to_be_looked_at(right: Data, wrong: Data) -> None:
    """On the same cases another subgradient than before is a change of the framework, and no bug."""
    new = deepcopy(right)
    new["conventions"] = [{**wrong["findings"][0], "layer": "LeakyReLU", "tensor": "dx", "verdict": "convention"}]
    for old_side, new_side, change in ((right, new, "new"), (new, right, "gone")):
        found = compare_reports(old_side, new_side)
        assert not found.worse
        (line,) = found.of("warning")
        assert (line.change, line.kind, str(line.about)) == (change, "convention", "LeakyReLU dx on torch")


def test_a_rare_convention_of_other_cases_is_only_noted(other_seed: Data, right: Data, wrong: Data) -> None:
    """Seen twice under one seed and never under another: the other run may have missed it."""
    right["conventions"] = [{**wrong["findings"][0], "layer": "LeakyReLU", "tensor": "dx", "verdict": "convention", "count": 2}]
    (line,) = [line for line in compare_reports(right, other_seed).lines if line.kind == "convention"]
    assert line.weight == "note"
    assert "met 2 times in 32 cases: NEW may have missed it by chance" in line.sentence
    right["conventions"][0]["count"] = 100_000
    (line,) = [line for line in compare_reports(right, other_seed).lines if line.kind == "convention"]
    assert line.weight == "warning"


def test_exceptions_are_the_same_where_only_numbers_differ(wrong: Data) -> None:
    """A message with other shapes and addresses is the same exception; another message is another one."""
    def raised(message: str) -> Data:
        data = deepcopy(wrong)
        diagnosis = {"code": "raised", "sentence": message, "equation": ""}
        data["findings"][0].update(layer="Network", tensor="", verdict="error", diagnosis=diagnosis)
        return data

    one = raised("RuntimeError: shape (2, 3) and [4] at 0x7fA0 do not match")
    assert compare_reports(one, raised("RuntimeError: shape (2, 3, 17) and [40] at 0x10b do not match")).lines == ()
    assert compare_reports(one, raised("RuntimeError: out of memory")).worse


def test_the_margin_that_went_from_a_hundredth_to_six_tenths_is_a_warning(right: Data) -> None:
    """On the same cases it is to be looked at, and does not fail by itself."""
    new = deepcopy(right)
    at = next(i for i, t in enumerate(right["tallies"]) if (t["layer"], t["tensor"], t["precision"]) == ("Linear", "dx", "float32"))
    right["tallies"][at]["margin"], new["tallies"][at]["margin"] = 0.01, 0.6
    found = compare_reports(right, new)
    assert not found.worse
    ((change, kind, about, sentence),) = _lines(right, new, "warning")
    assert (change, kind, about) == ("moved", "margin", "Linear dx on torch (float32)")
    assert sentence.startswith("the margin was 0.01, is 0.6 of the bound over ")
    assert compare_reports(new, right).lines == ()


def test_a_tanh_that_lost_digits_within_its_bound_is_a_warning(near: tuple[Data, Data, Data]) -> None:
    """A real run, whose every number still agrees; the layer and tensor that moved are named, and another seed raises no warning."""
    before, after, other = near
    found = compare_reports(before, after)
    assert not found.worse
    moved = {str(line.about): line.new for line in found.of("warning")}
    assert "Tanh output on torch (float64)" in moved
    assert {about.split(" on ")[0].removeprefix("Tanh ") for about in moved} <= {"output", "end-to-end output"}
    assert compare_reports(before, other).of("warning") == ()


@pytest.mark.parametrize(("had", "has"), [(0.01, 0.49), (0.2, 0.7), (0.4, 1.0)])
def test_margins_that_another_order_of_summation_may_give_raise_no_warning(had: float, has: float, right: Data) -> None:
    """Below half of the bound, or less than four times as large, nothing is said."""
    new = deepcopy(right)
    right["tallies"][0]["margin"], new["tallies"][0]["margin"] = had, has
    assert compare_reports(right, new).lines == ()


@pytest.mark.parametrize(("entries", "warned"), [(15, False), (16, True)])
def test_the_largest_of_a_few_roundings_is_chance(entries: int, warned: bool, right: Data) -> None:
    """A handful of entries may come four times as near to the bound when they are rounded otherwise."""
    right["tallies"][0].update(compared=entries, inconclusive=0, margin=0.1)
    new = deepcopy(right)
    new["tallies"][0]["margin"] = 0.9
    assert bool(compare_reports(right, new).lines) is warned


def test_other_cases_with_a_larger_margin_are_noted(right: Data, other_seed: Data) -> None:
    """A margin that moved under another seed is shown and explained."""
    for data, margin in ((right, 0.01), (other_seed, 0.6)):
        next(t for t in data["tallies"] if (t["layer"], t["tensor"], t["precision"]) == ("LeakyReLU", "dx", "float32"))["margin"] = margin
    (line,) = [line for line in compare_reports(right, other_seed).lines if str(line.about) == "LeakyReLU dx on torch (float32)"]
    assert (line.weight, line.change) == ("note", "moved")
    assert line.sentence.endswith("; the cases are others")


def test_two_seeds_of_one_version_raise_no_alarm(right: Data, other_seed: Data) -> None:
    """Other cases have other margins and meet other things: noted, never worse and never a warning."""
    for old, new in ((right, other_seed), (other_seed, right)):
        found = compare_reports(old, new)
        assert [line for line in found.lines if line.weight in {"worse", "warning"}] == []
        assert "another seed: OLD" in found.runs[0]
        assert found.runs[-1] == "the cases are others: margins, and what is rarely met, differ by chance"


def test_a_layer_that_is_no_longer_compared_is_worse(right: Data) -> None:
    """The same cases without one layer, tensor or regime: less is checked, and nobody asked for less."""
    new = deepcopy(right)
    new["tallies"] = [t for t in new["tallies"] if (t["layer"], t["precision"]) != ("Softsign", "float32")
                      and (t["layer"], t["tensor"], t["precision"]) != ("Linear", "dweight", "float64")]
    del new["coverage"]["regimes"]["ties"]
    assert _lines(right, new, "worse") == [
        ("lost", "coverage", "Softsign on torch (float32)", "compared in OLD, not in NEW"),
        ("lost", "coverage", "Linear dweight on torch (float64)", "compared in OLD, not in NEW"),
        ("lost", "coverage", "regimes: ties", "reached in OLD, not in NEW"),
    ]


def test_less_than_half_of_the_entries_is_worse(right: Data) -> None:
    """On the same cases as many entries are judged; half of them may have become inconclusive, not more."""
    new = deepcopy(right)
    tally = next(t for t in new["tallies"] if (t["layer"], t["tensor"], t["precision"]) == ("Softsign", "dx", "float32"))
    entries = tally["compared"]
    tally["inconclusive"] = entries // 2
    assert compare_reports(right, new).lines == ()
    tally["inconclusive"] = entries // 2 + 1
    assert _lines(right, new, "worse") == [("shrunk", "coverage", "Softsign dx on torch (float32)",
                                            f"{entries - entries // 2 - 1:,} entries were judged, {entries:,} in OLD")]


def test_inconclusive_is_not_compared(right: Data) -> None:
    """A tensor whose bound is larger than all of its values was not checked."""
    new = deepcopy(right)
    for tally in new["tallies"]:
        if (tally["layer"], tally["precision"]) == ("Softsign", "float64"):
            tally["inconclusive"] = tally["compared"]
    assert [about for _, _, about, _ in _lines(right, new, "worse")] == ["Softsign on torch (float64)"]


def test_other_options_are_said_first_and_are_no_loss(right: Data) -> None:
    """A run of fewer adapters, precisions, layers or cases did what it was asked for."""
    new = deepcopy(right)
    new["options"].update(precisions=["float64"], layers=["Linear", "LeakyReLU"])
    new["tallies"] = [t for t in new["tallies"] if t["precision"] == "float64" and t["layer"] != "Softsign"]
    new["cases"] = 8
    right["options"]["adapters"].append("jax:jit")
    found = compare_reports(right, new)
    assert found.runs == (
        "OLD compared jax:jit, NEW did not", "OLD compared float32, NEW did not",
        "OLD drew only Linear, LeakyReLU, Softsign, NEW only Linear, LeakyReLU", "NEW is smaller: 8 cases, OLD 32",
        "the cases are others: margins, and what is rarely met, differ by chance",
    )
    assert not found.worse


def test_a_finding_of_what_is_not_compared_any_more_is_not_gone(right: Data, wrong: Data) -> None:
    """Only what was looked at can be better."""
    right["tallies"] = [t for t in right["tallies"] if t["tensor"] != "dweight"]
    found = compare_reports(wrong, right)
    assert found.of("better") == ()
    assert "NEW did not compare it" in next(line.sentence for line in found.of("note") if line.kind == "finding")


def test_a_common_layer_that_is_missing_under_another_seed_is_worse(other_seed: Data, right: Data) -> None:
    """What 8,000 draws met and as many others did not is no chance."""
    for data in (right, other_seed):
        data["cases"] *= 500
        data["coverage"]["layers"] = {name: 500 * count for name, count in data["coverage"]["layers"].items()}
    other_seed["tallies"] = [t for t in other_seed["tallies"] if t["layer"] != "Softsign"]
    assert [about for *_, about, _ in _lines(right, other_seed, "worse")] == ["Softsign on torch (float32)", "Softsign on torch (float64)"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda d: d["self_test"]["missed"].append("sign in dx of layers.1"), "missed a planted mistake: sign in dx of layers.1"),
    (lambda d: d.update(tallies=[]), "NEW compared nothing"),
])
def test_a_run_that_cannot_be_trusted_is_worse(change: Callable[[Data], None], said: str, right: Data) -> None:
    """A planted mistake that was missed, and a run that compared nothing."""
    new = deepcopy(right)
    change(new)
    assert [sentence for *_, sentence in _lines(right, new, "worse")] == [said]


def test_a_known_discrepancy_that_became_stale_is_to_be_looked_at(right: Data) -> None:
    """What no longer shows on the same cases may be gone from the framework."""
    new = deepcopy(right)
    new["stale"] = ["gelu"]
    assert [(change, about) for change, _, about, _ in _lines(right, new, "warning")] == [("stale", "gelu")]


def test_every_format_says_the_same(right: Data, wrong: Data) -> None:
    """Text, Markdown and JSON hold each line."""
    found = compare_reports(right, wrong, ("before", "after"))
    data = json.loads(as_json(found))
    assert data["worse"] is True
    assert data["lines"][0]["about"] == {"adapter": "torch", "layer": "Linear", "tensor": "dweight", "about": ""}
    assert data["lines"][0]["new"]["verdict"] == "wrong"
    assert data["lines"][0]["old"] is None
    for page in (as_text(found), as_markdown(found)):
        assert "WORSE: 1 worse" in page
        assert "Linear dweight on torch" in page
        assert "before, 32 cases" in page
        assert "half of what it should be" in page


def test_names_are_text_and_no_markup(right: Data, wrong: Data) -> None:
    """Markup, control characters and line ends in a name or message steer neither terminal nor page."""
    wrong["findings"][0]["diagnosis"]["sentence"] = "a\x1b[2J|b\n::error::<script>[red]*x*"
    wrong["options"]["adapters"] = ["torch\x07"]
    found = compare_reports(right, wrong)
    text, page = as_text(found, 200), as_markdown(found)
    assert "\x1b" not in text + page
    assert "\x07" not in text + page
    assert "\n::error" not in text + page
    assert "[red]" in text
    assert "&lt;script&gt;" in page
    assert "\\|b" in page


def test_long_lists_are_cut_and_counted(right: Data, wrong: Data) -> None:
    """A thousand findings fit on a page; JSON has all."""
    wrong["findings"] = [{**wrong["findings"][0], "layer": f"Layer{i}"} for i in range(1000)]
    found = compare_reports(right, wrong)
    assert "800 more" in as_text(found)
    assert "800 more" in as_markdown(found)
    assert len(json.loads(as_json(found))["lines"]) == 1000


def test_the_command_compares_files_and_folders(right: Data, wrong: Data, tmp_path: Path) -> None:
    """Exit 0 with nothing worse, 1 with something; a folder of reports stands for its newest."""
    for name, data in (("2026-01-02T00-00-00Z", right), ("2026-01-10T00-00-00Z", wrong)):
        (tmp_path / "reports" / name).mkdir(parents=True)
        (tmp_path / "reports" / name / "report.json").write_text(json.dumps(data))
    old = "reports/2026-01-02T00-00-00Z"
    worse = _diff(old, "reports", cwd=tmp_path)
    assert (worse.returncode, worse.stderr) == (1, "")
    assert "WORSE: 1 worse" in worse.stdout
    better = _diff("reports", f"{old}/report.json", cwd=tmp_path)
    assert better.returncode == 0, better.stderr
    assert "NOT WORSE: 1 better" in better.stdout
    written = _diff(old, "reports", "--format", "json", "--output", "diff.json", cwd=tmp_path)
    assert (written.returncode, written.stdout) == (1, "")
    assert json.loads((tmp_path / "diff.json").read_text())["worse"] is True


def test_strict_fails_on_warnings_too(right: Data, tmp_path: Path) -> None:
    """A moved margin is shown, and fails with --strict."""
    right["tallies"][0]["margin"] = 0.01
    (tmp_path / "old.json").write_text(json.dumps(right))
    right["tallies"][0]["margin"] = 1.0
    (tmp_path / "new.json").write_text(json.dumps(right))
    assert _diff("old.json", "new.json", cwd=tmp_path).returncode == 0
    assert _diff("old.json", "new.json", "--strict", cwd=tmp_path).returncode == 1


def test_what_is_no_report_exits_2_in_one_line(right: Data, tmp_path: Path) -> None:
    """The line names the file, the field, what it holds and what it should."""
    (tmp_path / "good.json").write_text(json.dumps(right))
    right["tallies"][3]["compared"] = "many"
    (tmp_path / "report.json").write_text(json.dumps(right))
    done = _diff("good.json", "report.json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "backproof: report.json: tallies[3].compared: got 'many', expected a valid integer\n"
    (tmp_path / "empty").mkdir()
    done = _diff("good.json", "empty", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "empty: no report there: expected report.json or campaign.sqlite" in done.stderr
