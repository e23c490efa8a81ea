"""Reports, baselines and cases read back: what is whole comes back as it was, all else ends in one ValueError that names file and field."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from backproof.compare.baseline import baseline_of, read_baseline, text_of
from backproof.compare.reading import read_report
from backproof.judge.verdicts import VERDICTS
from backproof.report import reading
from backproof.report.folders import keep, newest_report
from backproof.report.report import Report
from backproof.verify.replay import load_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Data = dict[str, Any]
SAMPLE = Path(__file__).parents[2] / "reports" / "sample"
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)


def _written(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data))
    return path


def test_a_report_comes_back_as_it_was(wrong: Data, tmp_path: Path) -> None:
    """From its file, its folder, and the folder of several reports, of which the newest counts; unknown fields stay."""
    folder = tmp_path / "2026-03-01T00-00-00Z"
    folder.mkdir()
    wrong["later"] = {"x": [1]}
    _written(folder / "report.json", wrong)
    (tmp_path / "2026-02-01T00-00-00Z").mkdir()
    _written(tmp_path / "2026-02-01T00-00-00Z" / "report.json", {})
    assert read_report(folder / "report.json") == read_report(folder) == read_report(tmp_path) == wrong


def test_the_committed_sample_is_a_report() -> None:
    """The sample of reports/ can be read and compared."""
    assert read_report(SAMPLE)["findings"][0]["layer"] == "Linear"


@pytest.mark.parametrize(("change", "said"), [
    (lambda d: d["findings"][0].update(verdict="wrnog"),
     f"findings[0].verdict: got 'wrnog', expected one of {', '.join(map(repr, list(VERDICTS)[:-1]))} or 'agrees'"),
    (lambda d: d.update(schema=2), "schema: got 2, expected 1"),
    (lambda d: d.pop("tallies"), "tallies: the field is missing"),
    (lambda d: d["findings"][0]["diagnosis"].pop("code"), "findings[0].diagnosis.code: the field is missing"),
    (lambda d: d["tallies"][1].update(margin="1.0"), "tallies[1].margin: got '1.0', expected a number, 'inf', '-inf' or 'nan'"),
    (lambda d: d["tallies"][1].update(margin=True), "tallies[1].margin: got true, expected a number, 'inf', '-inf' or 'nan'"),
    (lambda d: d["findings"][0].update(excess=10**400), "findings[0].excess: got an integer of 1329 bits, expected a number"),
    (lambda d: d["findings"][0].update(count=-1), "findings[0].count: got -1, expected greater than or equal to 0"),
    (lambda d: d["findings"][0].update(count=1.0), "findings[0].count: got 1.0, expected a valid integer"),
    (lambda d: d["environment"].update(torch=["2"]), "environment.torch: got a list, expected a valid string"),
    (lambda d: d["coverage"].update(regimes=None), "coverage.regimes: got null, expected a valid dictionary"),
    (lambda d: d.update(ok="yes", cases=-3), "ok: got 'yes', expected a valid boolean (and 1 more)"),
    (lambda d: d["options"].update(draws_per_network=0), "options.draws_per_network: got 0, expected greater than or equal to 1"),
])
def test_what_is_wrong_is_named(change: Callable[[Data], Any], said: str, wrong: Data, tmp_path: Path) -> None:
    """File, field, what it holds and what it should hold."""
    change(wrong)
    path = _written(tmp_path / "report.json", wrong)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {said}")) as caught:
        read_report(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [
    (b"", "not readable as JSON: EOF"), (b"\xff\xfe", "not readable as JSON"), (b"[" * 100_000, "not readable as JSON: recursion limit"),
    (b'{"schema": 1e999}', "schema: got inf, expected 1"), (b'{"schema": NaN}', "not readable as JSON"),
    (b'{"schema": %s}' % (b"9" * 5000), "not readable as JSON: number"),
    (b'{"schema": "\\ud800"}', "not readable as JSON"), (b"[1, 2]", "got a list, expected a valid dictionary"),
])
def test_what_is_no_json_is_said(content: bytes, said: str, tmp_path: Path) -> None:
    """Empty, binary, nested without end, with numbers that are none, or something else than an object."""
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: {said}")):
        read_report(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports, cases and baselines have one limit."""
    monkeypatch.setattr(reading, "LARGEST", 10)
    path = tmp_path / "report.json"
    path.write_text(" " * 11)
    for read in (read_report, load_case, read_baseline):
        with pytest.raises(ValueError, match="too large: got 11 bytes, expected at most 10"):
            read(path)


def test_a_folder_without_a_report_is_said(tmp_path: Path) -> None:
    """A folder in the place of a file, and one that holds none."""
    with pytest.raises(ValueError, match=r"no report there: expected report.json or campaign.sqlite"):
        read_report(tmp_path)
    with pytest.raises(ValueError, match="expected a file, got a folder"):
        load_case(tmp_path)


def test_ten_thousand_findings_are_read_in_two_seconds(wrong: Data, tmp_path: Path) -> None:
    """The best of three."""
    wrong["findings"] *= 10_000
    path = _written(tmp_path / "report.json", wrong)
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        read_report(path)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 2


def test_a_case_that_would_fill_the_memory_is_not_drawn(runs: dict[str, Report], tmp_path: Path) -> None:
    """A batch or a layer of billions is refused before anything is allocated."""
    case = runs["halved"].findings[0].case
    assert case is not None
    for change in ({"batch": 10**12}, {"batch": 10**30}):
        path = _written(tmp_path / "case.json", case.describe() | change)
        with pytest.raises(ValueError, match=r"case.json: a case too large to run again: got .* entries, expected at most 16,777,216"):
            load_case(path)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(("nan", "inf", 10**400, 2**63))
NAMES = st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found, stack = [], [tree]
    while stack:
        node = stack.pop()
        for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            found.append((node, key))
            if isinstance(value, dict | list):
                stack.append(value)
    return found


@st.composite
def _faulty(draw: Any, data: Data) -> bytes:
    """Draw the content of a file with a value replaced or removed, then perhaps cut, or with a byte changed."""
    tree = deepcopy(data)
    parent, key = draw(st.sampled_from(_places(tree)))
    if draw(st.booleans()):
        parent[key] = draw(JSON)
    else:
        del parent[key]
    content = json.dumps(tree).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.sampled_from((0, 0, 1, 3)))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        content = content[:at] + (bytes([draw(st.integers(0, 255))]) + content[at + 1 :] if draw(st.booleans()) else b"")
    return content


def _ends_well(read: Callable[[Path], Any], content: bytes, path: Path) -> None:
    """Assert that reading gives a result, or one line that names the file."""
    path.write_bytes(content)
    try:
        read(path)
    except ValueError as error:
        assert str(error).startswith(str(path))  # noqa: PT017  (either ending is right)


@QUICK
@given(st.data())
def test_any_report_is_read_or_refused(runs: dict[str, Report], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Mutated values and bytes of a report."""
    content = data.draw(_faulty(runs["halved"].describe()))
    _ends_well(read_report, content, tmp_path_factory.getbasetemp() / "report.json")


@QUICK
@given(st.data())
def test_any_case_is_read_or_refused(runs: dict[str, Report], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Mutated values and bytes of a case and of a finding."""
    finding = runs["halved"].findings[0]
    assert finding.case is not None
    content = data.draw(_faulty(finding.describe()) | _faulty(finding.case.describe()))
    _ends_well(load_case, content, tmp_path_factory.getbasetemp() / "case.json")


@QUICK
@given(st.data())
def test_any_baseline_is_read_or_refused(runs: dict[str, Report], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Mutated text of a baseline."""
    text = text_of(baseline_of(runs["halved"].describe()))
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.text(max_size=4) | st.sampled_from(("1e999", "nan", "[" * 2000, "{", '"""', "9" * 5000, "\x00", "1979-05-27")))
    content = (text[:at] + put + text[at + data.draw(st.integers(0, 40)) :]).encode("utf-8", "surrogatepass")
    _ends_well(read_baseline, content, tmp_path_factory.getbasetemp() / "baseline.toml")


def _report_folder(parent: Path, name: str, data: Any) -> Path:
    (parent / name).mkdir()
    (parent / name / "finding").mkdir()
    return _written(parent / name / "report.json", data).parent


def test_the_newest_report_is_told_by_its_name(right: Data, tmp_path: Path) -> None:
    """Times in names survive a download; the tenth report of a second is newer than the ninth."""
    for name in ("2026-01-01T00-00-00Z-9", "2026-01-01T00-00-00Z-10", "2025-12-31T23-59-59Z", "copy"):
        _report_folder(tmp_path, name, right)
    found = newest_report(tmp_path)
    assert found is not None
    assert found.name == "2026-01-01T00-00-00Z-10"


def test_only_old_reports_of_ours_are_deleted(right: Data, tmp_path: Path) -> None:
    """Not the newest, no other folder, no file, no link or what it points to, no campaign that may be resumed."""
    old = [_report_folder(tmp_path, f"2026-01-0{n}T00-00-00Z", right) for n in range(1, 6)]
    for name, data in (("sample", right), ("2025-01-01T00-00-00Z", {"schema": 1, "findings": "mine"}), ("2025-01-02T00-00-00Z", [1])):
        _report_folder(tmp_path, name, data)
    (tmp_path / "2025-01-03T00-00-00Z").mkdir()
    (tmp_path / "2025-01-03T00-00-00Z" / "campaign.sqlite").write_bytes(b"SQLite format 3\0")
    (tmp_path / "2025-01-04T00-00-00Z").mkdir()
    (tmp_path / "README.md").write_text("")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    _report_folder(elsewhere, "report", right)
    (tmp_path / "2025-01-05T00-00-00Z").symlink_to(elsewhere / "report", target_is_directory=True)
    before = set(tmp_path.iterdir())
    assert keep(tmp_path, 2) == old[:3]
    assert set(tmp_path.iterdir()) == before - set(old[:3])
    assert (elsewhere / "report" / "report.json").exists()
    assert keep(tmp_path, 2) == []
