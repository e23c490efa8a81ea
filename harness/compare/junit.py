"""A report as JUnit XML, which GitHub, GitLab and Jenkins show as tests: one for each adapter, layer and precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from backproof.compare.summary import FindingKey, finding_key
from backproof.report.finding import times
from backproof.report.schema import subject_of, subjects_of
from backproof.report.terminal import printable
from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

__all__ = ["junit"]

RUN = "the run"
Finding = Mapping[str, Any]


def junit(report: Mapping[str, Any], accepted: frozenset[tuple[FindingKey, str]] = frozenset()) -> str:
    """Return the JUnit XML of a report's data.

    A suite is an adapter, a test a layer in a precision; it fails with each unexplained finding. What is known, a convention, or
    `accepted` (its key and verdict) does not fail and stands in the test's output. Findings of no layer, such as exceptions, and what the
    run says of itself are tests of the name `the run`. Times of single tests are not known; the run's own is that of its suite.
    """
    page = JUnitXml("backproof")
    tests: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for tally in report["tallies"]:
        tests.setdefault((subject_of(tally), tally["precision"], tally["layer"]), []).append(tally)
    told = _by_test(report, set(tests))
    for adapter in dict.fromkeys([*subjects_of(report["options"]), *(place[0] for place in (*tests, *told))]):
        suite = TestSuite(printable(adapter))
        for place in sorted({place for place in (*tests, *told) if place[0] == adapter}):
            suite.add_testcase(_test(place, tests.get(place, []), told.get(place, []), accepted))
        page.add_testsuite(suite)
    page.add_testsuite(_run(report))
    for count in ("tests", "failures", "errors"):  # the schema of Jenkins has no `skipped` here, which update_statistics would write
        setattr(page, count, sum(getattr(suite, count) for suite in page))
    page.time = report["seconds"].get("total", 0.0)
    text: bytes = page.tostring()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text.decode()}\n'


def _by_test(report: Mapping[str, Any], tests: set[tuple[str, str, str]]) -> dict[tuple[str, str, str], list[Finding]]:
    """Return the findings of all kinds by adapter, precision and layer; those of a layer that was never judged belong to the run.

    A report holds a finding once, in the precision it was first met in. Where nothing else was found of its tensor, it belongs to every
    precision with entries outside.
    """
    outside: dict[tuple[str, ...], list[str]] = {}
    for t in report["tallies"]:
        if t["outside"]:
            outside.setdefault((subject_of(t), t["layer"], t["tensor"]), []).append(t["precision"])
    told = [f for name in ("findings", "known", "conventions") for f in report[name]]
    many = Counter((subject_of(f), f["layer"], f["tensor"]) for f in told if f["verdict"] != "convention")
    by_test: dict[tuple[str, str, str], list[Finding]] = {}
    for f in told:
        what = (subject_of(f), f["layer"], f["tensor"])
        for precision in {f["precision"], *(outside.get(what, ()) if many[what] == 1 else ())}:
            place = (subject_of(f), precision, f["layer"])
            by_test.setdefault(place if place in tests else (*place[:2], RUN), []).append(f)
    return by_test


def _test(place: tuple[str, str, str], tallies: list[Mapping[str, Any]], told: list[Finding],
          accepted: frozenset[tuple[FindingKey, str]]) -> TestCase:
    adapter, precision, layer = map(printable, place)
    case = TestCase(layer, f"backproof.{adapter}.{precision}")
    failing = [f for f in told if f["verdict"] != "convention" and not f["known"] and (finding_key(f), f["verdict"]) not in accepted]
    case.result = [_failure(f) for f in failing]
    judged = sum(t["compared"] - t["inconclusive"] for t in tallies)
    if tallies and not judged and not failing:
        case.result = [Skipped("inconclusive: the bound is larger than every value")]
    counts = [f"{t['tensor']}: {t['compared']:,} entries compared, {t['outside']:,} outside, margin {float(t['margin']):.3f}"
              for t in tallies]
    explained = [f"{_why(f)}\n{_text(f)}" for f in told if f not in failing]
    case.system_out = _lines([*counts, *explained])
    return case


def _why(finding: Finding) -> str:
    return f"known: {finding['known']}" if finding["known"] else "convention" if finding["verdict"] == "convention" else "accepted"


def _failure(finding: Finding) -> Error | Failure:
    kind = Error if finding["verdict"] == "error" else Failure
    failure = kind(printable(f"{finding['verdict']}: {finding['diagnosis']['sentence']}"), finding["verdict"])
    failure.text = _lines([_text(finding)])
    return failure


def _text(finding: Finding) -> str:
    """Return what a finding says, for people."""
    index, entries, diagnosis = "".join(f"[{i}]" for i in finding["index"]), finding["entries"], finding["diagnosis"]
    where = f"{finding['layer']} {finding['tensor']} on {finding['adapter']} in {finding['precision']}"
    lines = [f"{finding['verdict']}: {where}, seen {times(finding['count'])}"]
    if finding["tensor"] and entries["total"]:
        lines += [f"{entries['outside']:,} of {entries['total']:,} entries outside; worst {finding['tensor']}{index}",
                  f"  actual    {finding['actual']}", f"  expected  {finding['expected']} +- {finding['bound']}",
                  f"  excess    {finding['excess']} times the bound"]
    lines += [f"diagnosis [{diagnosis['code']}]: {diagnosis['sentence']}"]
    lines += [f"  should be {diagnosis['equation']}"] if diagnosis["equation"] else []
    lines += [f"  shows {diagnosis['condition']}"] if diagnosis.get("condition") else []
    return "\n".join(lines)


def _lines(parts: Iterable[str]) -> str:
    """Return text in the characters that XML allows."""
    return "\n".join(printable(line) for part in parts for line in part.split("\n"))


def _run(report: Mapping[str, Any]) -> TestSuite:
    """Return the suite of what the run says of itself, with the versions it ran on as properties."""
    suite = TestSuite("backproof")
    for name, value in report["environment"].items():
        suite.add_property(printable(name), printable(value))
    compared, self_test = TestCase("something was compared", "backproof.run"), TestCase("planted mistakes are caught", "backproof.run")
    if not report["compared"]:
        compared.result = [Failure("nothing was compared")]
    if not self_test_ok(report):
        self_test.result = [Failure("planted mistakes were missed or blamed on another tensor")]
        self_test.result[0].text = _lines(report["self_test"]["missed"])
    compared.system_out = f"{report['cases']:,} cases, {report['compared']:,} entries"
    for case in (compared, self_test):
        suite.add_testcase(case)
    return suite


def self_test_ok(report: Mapping[str, Any]) -> bool:
    """Say whether every planted mistake was caught and blamed on the right tensor."""
    test = report["self_test"]
    return test["planted"] == test["caught"] == test["blamed"]
