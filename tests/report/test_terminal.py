"""The report as text and as HTML: what it says, and that names are text wherever it is shown."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import backproof as bp
import numpy as np
import pytest
from backproof.judge.certificate import Certificate
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement
from backproof.reference.rounding import Arithmetic, Rounded, precision_named
from backproof.report.excess import text_map
from backproof.report.finding import Finding, times
from backproof.report.results import Tally
from backproof.report.terminal import render, render_html, view
from rich.console import Console

HOSTILE = ["<script>alert(1)</script>", '[link="><script>alert(1)</script>]x[/link]', "[bold red]", "&lt;b&gt;", "[/]", '"onload="alert(1)']


def report_on(name: str) -> bp.Report:
    """Return a report in which every name, and what is said of it, is the one given."""
    finding = Finding(subject=name, precision="float64", layer=name, path=name, tensor=name, verdict="wrong", excess=7.0, entries=(1, 2),
                      index=(0,), actual=1.0, expected=2.0, bound=0.5, diagnosis=Diagnosis(name, name, name, name), case=None)
    tally = Tally(compared=2, outside=1)
    return bp.Report(findings=(finding,), known=(finding,), conventions=(finding,), stale=(name,), skipped={name: 1},
                     tallies={(name, "float64", name, name): tally})


class Tags(HTMLParser):
    """Collects the tags of a page, their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_no_markup_in_a_notebook(name: str) -> None:
    """Whatever a layer or an adapter is called, the page holds our own tags alone, and shows the name as it is."""
    page = Tags(report_on(name)._repr_html_())
    assert page.tags == {"pre", "span"}
    assert page.attributes == {"style"}
    assert page.text.count(name) >= 5


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_no_markup_in_a_terminal(name: str) -> None:
    """Brackets in a name reach a terminal as they are, by our own console or another."""
    page = StringIO()
    Console(file=page, width=200, emoji=False).print(view(report_on(name)))
    for text in (render(report_on(name), 200), page.getvalue()):
        assert text.count(name) >= 9
        assert f"1. wrong: {name} {name} on {name} (float64)" in text


def halved(x: np.ndarray) -> object:
    return np.maximum(x, 0), lambda dy: dy * (x > 0) / 2


def test_a_notebook_shows_what_a_terminal_shows() -> None:
    """The HTML of a real report is its text in colours; a report without findings has its own too."""
    wrong = bp.check(halved, bp.ReLU(), framework="numpy", cases=4)
    page = render_html(wrong)
    assert Tags(page).text.strip() == str(wrong).strip()
    assert re.search(r"color: #[0-9a-f]{6}", page)
    assert "NOT OK" in Tags(bp.Report()._repr_html_()).text


def test_in_a_notebook_a_report_is_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`str(report)` is the same in a notebook, where a console that knows of it would display the text and return none."""
    shell = type("ZMQInteractiveShell", (), {})
    expected = str(report_on("ReLU"))
    monkeypatch.setattr(builtins, "get_ipython", shell, raising=False)
    assert Console().is_jupyter
    assert str(report_on("ReLU")) == expected
    assert Tags(report_on("ReLU")._repr_html_()).text.strip() == expected.strip()


def test_a_brief_report_leaves_out_the_tables() -> None:
    """The brief text has the panels of the findings and the last lines, nothing of what is explained."""
    text = render(report_on("ReLU"), brief=True)
    assert "1. wrong: ReLU ReLU on ReLU (float64)" in text
    assert text.endswith("NOT OK: wrong; 1 unexplained finding")
    assert not any(title in text for title in ("What was compared", "Known discrepancies", "Conventions", "Stale"))


def spotted(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]]:
    """A tanh whose gradient has an error of its own in every third entry, by no rule."""

    def backward(dy: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        dx = (1 - np.tanh(x) ** 2) * dy
        third = dx.ravel()[::3]
        dx.ravel()[::3] = third * np.linspace(1.5, 7, third.size) ** 2 + np.sin(np.arange(third.size))
        return dx, {}

    return np.tanh(x), backward


def test_an_unexplained_error_is_drawn_in_characters(tmp_path: Path) -> None:
    """Where no diagnosis fits, terminal and report.md show which entries are off, one sign each, with a legend."""
    report = bp.check(spotted, bp.Tanh(), framework="numpy", precisions=["float64"], cases=4, shapes=[(7,)], reports=tmp_path)
    (finding,) = report.findings
    assert finding.diagnosis.code == "unknown"
    for text in (str(report), next(tmp_path.glob("*/report.md")).read_text()):
        assert "columns are axis 1 (size 7)" in text
        assert re.search(r"^\W*#\.\.#\.\.#\W*$", text, re.MULTILINE)
        assert ". agrees, # over 1e8" in text


def test_a_large_tensor_is_drawn_by_its_worst_entries() -> None:
    """A map has at most 16 lines of 64 signs; one wrong entry among ten thousand shows."""
    actual, ball = np.zeros((100, 100)), Rounded(np.zeros((100, 100)), np.ones((100, 100)), Arithmetic(precision_named("float64")))
    actual[57, 33] = 20.0
    certificate = Certificate("layers.0", bp.Tanh(), "dx", "outside", actual.size, 1, index=(57, 33), actual=actual, ball=ball)
    judgement = Judgement(certificate, None, "wrong", lambda: Diagnosis("unknown", "?"))
    finding = Finding.of(judgement, subject="torch", precision="float64", case=None)
    head, *lines, legend = text_map(finding).splitlines()
    assert head.endswith("columns are axis 1 (size 100); each sign is the worst of a block of up to 7 × 2 entries")
    assert [len(line) for line in lines] == [64] * 16
    assert [(i, line.index("x")) for i, line in enumerate(lines) if "x" in line] == [(57 * 16 // 100, 33 * 64 // 100)]
    assert legend == ". agrees, x 10 to 1e4"


def test_how_often_something_was_seen_reads_as_people_say_it() -> None:
    """What was seen a single time was seen once, in the panel too."""
    assert [times(count) for count in (1, 2, 1_000)] == ["once", "2 times", "1,000 times"]
    assert "seen once" in str(report_on("torch"))
