"""The pytest plugin: the fixture `backproof` checks a candidate in a test, and where it is wrong the failure shows the report.

It is loaded in every run of pytest where backproof is installed, so it imports only pytest until a check is made.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import shutil
import sys
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from backproof.report.report import Report

__all__ = ["Checks"]

PROPERTY = "backproof_report"  # of a test, as JUnit files show it
NARROWEST, WIDEST, MARGIN = 76, 110, 4  # columns of a report, and of what pytest writes to its left
NAME = 80  # characters of a folder's name that tell of the test


class Checks:
    """The fixture `backproof` of one test, with the defaults that its markers and the command line set."""

    def __init__(self, node: pytest.Item, defaults: Mapping[str, Any], reports: Path | None) -> None:
        self.node, self.defaults, self.reports = node, defaults, reports

    def check(self, candidate: Any, like: Any, **options: Any) -> Report:
        """Check a candidate with the options of `bp.check` and return the report; raise GradientMismatch where it is wrong.

        Options given here go before those of the marker, and these before those of the command line.
        """
        __tracebackhide__ = True
        from backproof.check.checking import GradientMismatch, check  # noqa: PLC0415  (a run of pytest without a check loads nothing)

        folder = options.pop("reports", self.reports)
        report = check(candidate, like, **{**self.defaults, **options})
        lines = _commands(self.node, like, report, options)
        if folder is not None:
            path = report.save(folder) / "report.md"
            self.node.user_properties.append((PROPERTY, str(path)))
            lines.append(f"report: {_shown(path, self.node.config)}")
        if report.ok:
            return report
        mismatch = GradientMismatch(report)
        mismatch.args = ("\n".join([_headline(report), _rendered(report), *lines]),)  # pytest's summary shows the first line
        raise mismatch


def _headline(report: Report) -> str:
    if not report.findings:
        return f"{report.verdict}: nothing was compared"
    more = len(report.findings) - 1
    return report.findings[0].title + (f", and {more} more finding{'s' if more > 1 else ''}" if more else "")


def _rendered(report: Report) -> str:
    from backproof.report.terminal import render  # noqa: PLC0415

    columns = shutil.get_terminal_size((WIDEST + MARGIN, 24)).columns
    return render(report, min(WIDEST, max(NARROWEST, columns - MARGIN)), brief=True)


def _commands(node: pytest.Item, like: Any, report: Report, options: Mapping[str, Any]) -> list[str]:
    """Return what to type for the same check: this test, and where the candidate can be imported, the check alone."""
    seed, cases = report.options["seed"], report.options["cases"]
    file, *rest = node.nodeid.split("::")
    name = "::".join([str(_shown(node.config.rootpath / file, node.config)), *rest])
    lines = [f"again: pytest {shlex.quote(name)} --backproof-seed {seed} --backproof-cases {cases}"]
    case: Any = report.findings[0].case if report.findings else None
    module = getattr(case, "candidate", "").partition(":")[0]
    own = getattr(getattr(node, "module", None), "__name__", "")
    if module not in {"", "conftest", own} and type(like).__module__.startswith("backproof.") and "shapes" not in options:
        words = ["backproof", "check", case.candidate, "--like", str(like), "--framework", case.framework]
        words += [word for pair in case.names for word in ("--param", "=".join(pair))]
        words += [word for precision in report.options["precisions"] for word in ("--precision", precision)]
        lines.append(f"or: {shlex.join([*words, '--seed', str(seed), '--cases', str(cases)])}")
    return lines


def _shown(path: Path, config: pytest.Config) -> Path:
    here = config.invocation_params.dir
    return path.relative_to(here) if path.is_relative_to(here) else path


def _whole(name: str, value: Any, least: int) -> int:
    """Return an option as a whole number; raise UsageError for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise pytest.UsageError(f"{name}: got {value!r}, expected a whole number from {least} upward")
    return value


LEAST = {"cases": 1, "seed": 0}


def _number(name: str) -> Any:
    def parse(value: str) -> int:
        try:
            return _whole(name, value, LEAST[name])
        except pytest.UsageError as error:
            raise argparse.ArgumentTypeError(str(error).partition(": ")[2]) from error

    return parse


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, each of them as an ini value too."""
    group = parser.getgroup("backproof", "gradient checks (backproof)")
    for name, metavar, said in (("cases", "N", "draws of shapes and values for each check (default: 100)"),
                                ("seed", "S", "seed of the checks; the same seed gives the same cases (default: 0)"),
                                ("reports", "DIR", "write the report of each check into a folder of its test below DIR")):
        group.addoption(f"--backproof-{name}", metavar=metavar, help=said, type=_number(name) if name in LEAST else str)
        parser.addini(f"backproof_{name}", f"{said}; --backproof-{name} goes before it", default=None, type="string")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and read the options, so that a wrong one is said before any test runs."""
    config.addinivalue_line("markers", "backproof(precisions=(...), cases=N, seed=S): options of the checks by the fixture `backproof`.")
    _defaults(config)
    _reports(config)


def _defaults(config: pytest.Config) -> dict[str, Any]:
    """Return cases and seed as the command line gives them, or the ini file; what neither gives is left to `bp.check`."""
    found = {}
    for name, least in LEAST.items():
        value = config.getoption(f"backproof_{name}")
        if value is None and config.getini(f"backproof_{name}"):
            value = _whole(f"backproof_{name}", config.getini(f"backproof_{name}"), least)
        if value is not None:
            found[name] = value
    return found


def _reports(config: pytest.Config) -> Path | None:
    """Return the folder of the reports: an option counts from where pytest was started, an ini value from its file."""
    given = config.getoption("backproof_reports")
    if given:
        return Path(config.invocation_params.dir, given)
    ini = config.getini("backproof_reports")
    return Path(config.inipath.parent if config.inipath else config.rootpath, ini) if ini else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker with wrong arguments: here and not when tests are collected, where a worker of pytest-xdist would die of it."""
    try:
        _marked(item)
    except pytest.UsageError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _marked(item: pytest.Item) -> dict[str, Any]:
    """Return the options that the markers of a test set, the nearest first; raise UsageError for arguments they do not take."""
    found: dict[str, Any] = {}
    for marker in item.iter_markers("backproof"):
        where = "@pytest.mark.backproof"
        if marker.args:
            given = ", ".join(map(repr, marker.args))
            raise pytest.UsageError(f"{where}: got {given} without a name, expected cases=..., precisions=... or seed=...")
        for name, value in marker.kwargs.items():
            found.setdefault(name, _checked(where, name, value))
    return found


def _checked(where: str, name: str, value: Any) -> Any:
    if name in LEAST:
        return _whole(f"{where}: {name}", value, LEAST[name])
    if name != "precisions":
        raise pytest.UsageError(f"{where}: unknown argument: got {name}, expected one of cases, precisions, seed")
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(one, str) for one in value):
        raise pytest.UsageError(f'{where}: precisions: got {value!r}, expected names, such as ("float64", "float32")')
    return tuple(value)


@pytest.fixture(name="backproof")
def _backproof(request: pytest.FixtureRequest) -> Checks:
    """Check gradients: backproof.check(candidate, like, **options) fails the test where they are wrong."""
    reports = _reports(request.config)
    folder = reports / _safe(request.node.nodeid) if reports is not None else None
    return Checks(request.node, {**_defaults(request.config), **_marked(request.node)}, folder)


def _safe(nodeid: str) -> str:
    """Return a name for the folder of a test, of safe characters, with a digest that keeps apart what they make equal."""
    digest = hashlib.sha256(nodeid.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', nodeid)[-NAME:].strip('._')}-{digest}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give pytest's summary the first line of what a check said, where pytest itself would repeat all of it: in CI."""
    report = yield
    checker = sys.modules.get("backproof.check.checking")
    crash = getattr(report.longrepr, "reprcrash", None)
    if checker is not None and crash is not None and call.excinfo is not None and call.excinfo.errisinstance(checker.GradientMismatch):
        crash.message = crash.message.partition("\n")[0]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the reports lie: one by one those of tests that failed."""
    written = {category: _written(results) for category, results in terminalreporter.stats.items()}
    count = len({path for paths in written.values() for path in paths})
    if not count:
        return
    terminalreporter.section("backproof reports")
    for path, nodeid in {**written.get("failed", {}), **written.get("error", {})}.items():
        terminalreporter.write_line(f"{nodeid}: {_shown(Path(path), config)}")
    reports = _reports(config)
    below = f" below {_shown(reports, config)}" if reports is not None else ""
    terminalreporter.write_line(f"{count} report{'s' if count > 1 else ''}{below}")


def _written(results: Iterable[Any]) -> dict[str, str]:
    """Return the tests by the reports they wrote."""
    return {path: result.nodeid for result in results for name, path in getattr(result, "user_properties", ()) if name == PROPERTY}
