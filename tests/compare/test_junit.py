"""JUnit XML as the viewers read it: a suite for each adapter, a test for each layer in a precision, failures with the finding's text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from copy import deepcopy
from typing import Any

import pytest
from backproof.compare.junit import junit
from backproof.compare.summary import finding_key
from junitparser import JUnitXml

Data = dict[str, Any]
ALLOWED = {  # what the schema of Jenkins allows inside of each element
    "testsuites": {"testsuite"}, "testsuite": {"properties", "testcase", "system-out", "system-err"}, "properties": {"property"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"}, "property": set(), "skipped": set(), "error": set(),
    "failure": set(), "system-out": set(),
}
COUNTS = {"name", "time", "tests", "failures", "errors"}
ATTRIBUTES = {"testsuites": COUNTS, "testsuite": COUNTS | {"skipped"}, "properties": set(), "property": {"name", "value"},
              "testcase": {"name", "classname", "time"}, "skipped": {"type", "message"}, "error": {"type", "message"},
              "failure": {"type", "message"}, "system-out": set()}


def _cases(page: str) -> dict[tuple[str, str], ET.Element]:
    root = ET.fromstring(page)  # noqa: S314  (our own)
    return {(str(case.get("classname")), str(case.get("name"))): case for case in root.iter("testcase")}


def test_there_is_a_test_for_each_layer_in_each_precision(right: Data) -> None:
    """All of them pass, and say what was compared."""
    cases = _cases(junit(right))
    rows = {(f"backproof.{t['adapter']}.{t['precision']}", t["layer"]) for t in right["tallies"]}
    own = {("backproof.run", "something was compared"), ("backproof.run", "planted mistakes are caught")}
    assert set(cases) == rows | own
    assert not [case for case in cases.values() if case.find("failure") is not None or case.find("error") is not None]
    assert "dweight: " in str(cases["backproof.torch.float32", "Linear"].findtext("system-out"))


def test_a_finding_fails_its_test_in_every_precision_that_shows_it(wrong: Data) -> None:
    """The message names verdict and mistake, the text the worst entry."""
    cases = _cases(junit(wrong))
    for precision in ("float64", "float32"):
        failure = cases[f"backproof.torch.{precision}", "Linear"].find("failure")
        assert failure is not None
        assert failure.get("message") == "wrong: dweight is half of what it should be"
        assert failure.get("type") == "wrong"
        assert f"  actual    {wrong['findings'][0]['actual']}" in str(failure.text)
        assert "diagnosis [halved]: dweight is half" in str(failure.text)
    assert sum(case.find("failure") is not None for case in cases.values()) == 2


@pytest.mark.parametrize("kind", ["known", "convention", "accepted"])
def test_what_is_explained_does_not_fail(kind: str, wrong: Data) -> None:
    """A known discrepancy, a convention and what the baseline accepts stand in the output of their test."""
    (finding,) = wrong["findings"]
    allowed = frozenset({(finding_key(finding), "wrong")}) if kind == "accepted" else frozenset()
    if kind != "accepted":
        wrong["findings"] = []
        wrong["known" if kind == "known" else "conventions"] = [
            {**finding, "known": "torch divides twice"} if kind == "known" else {**finding, "verdict": "convention"}]
    cases = _cases(junit(wrong, allowed))
    assert not [case for case in cases.values() if case.find("failure") is not None]
    said = str(cases["backproof.torch.float64", "Linear"].findtext("system-out"))
    assert {"known": "known: torch divides twice", "convention": "convention\n", "accepted": "accepted\n"}[kind] in said


def test_an_exception_of_no_layer_is_an_error_of_the_run(wrong: Data) -> None:
    """What a framework raised belongs to a test of its adapter; it is an error, not a failure."""
    wrong["findings"][0].update(layer="Network", tensor="", verdict="error", entries={"outside": 0, "total": 0}, index=[],
                                diagnosis={"code": "raised", "sentence": "RuntimeError: no", "equation": ""})
    error = _cases(junit(wrong))["backproof.torch.float64", "the run"].find("error")
    assert error is not None
    assert error.get("message") == "error: RuntimeError: no"


def test_what_is_inconclusive_is_skipped(right: Data) -> None:
    """A layer of which nothing could be said did not pass."""
    for tally in right["tallies"]:
        if (tally["layer"], tally["precision"]) == ("Softsign", "float32"):
            tally["inconclusive"] = tally["compared"]
    skipped = _cases(junit(right))["backproof.torch.float32", "Softsign"].find("skipped")
    assert skipped is not None
    assert "inconclusive" in str(skipped.get("message"))


def test_a_run_that_checked_nothing_fails(right: Data) -> None:
    """Nothing compared, and a planted mistake that was missed."""
    empty = deepcopy(right) | {"tallies": [], "compared": 0}
    assert _cases(junit(empty))["backproof.run", "something was compared"].find("failure") is not None
    right["self_test"]["caught"] -= 1
    right["self_test"]["missed"] = ["sign in dx"]
    failure = _cases(junit(right))["backproof.run", "planted mistakes are caught"].find("failure")
    assert failure is not None
    assert failure.text == "sign in dx"


def test_hostile_characters_are_no_markup(wrong: Data) -> None:
    """Control characters, which XML does not allow, markup, and what ends a section."""
    hostile = "\x00\x1b[31m\ufffe]]></failure><x a='\"&'>\u2028é"
    wrong["findings"][0]["diagnosis"]["sentence"] = hostile
    wrong["findings"][0]["layer"] = f"Linear{hostile}"
    wrong["options"]["adapters"] = [f"torch{hostile}"]
    wrong["environment"]["cpu"] = hostile
    page = junit(wrong)
    assert JUnitXml.fromstring(page.encode()).failures == 1
    assert not [c for c in page if not c.isprintable() and c != "\n"]
    assert "<x a=" not in page
    assert "é" in page


def test_the_file_has_the_shape_that_viewers_expect(wrong: Data) -> None:
    """Only elements and attributes of the schema of Jenkins; counts that add up; versions as properties; the run's time."""
    page = junit(wrong)
    assert page.startswith('<?xml version="1.0" encoding="utf-8"?>\n')
    root = ET.fromstring(page)  # noqa: S314  (our own)
    for element in root.iter():
        assert {child.tag for child in element} <= ALLOWED[element.tag]
        assert set(element.attrib) <= ATTRIBUTES[element.tag]
    assert int(str(root.get("tests"))) == len(list(root.iter("testcase")))
    assert int(str(root.get("failures"))) == len(list(root.iter("failure"))) == 2
    assert float(str(root.get("time"))) > 0
    assert {p.get("name"): p.get("value") for p in root.iter("property")}["torch"] == wrong["environment"]["torch"]
    assert [suite.get("name") for suite in root] == ["torch", "backproof"]
