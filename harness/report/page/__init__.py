"""The report as a page: one HTML file that needs nothing else, for people who look at many findings.

Every text goes through Jinja's escaping, and the page's own Content-Security-Policy lets it load nothing and run its own script only.
"""

from __future__ import annotations

import hashlib
import shlex
from base64 import b64encode
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from typing import Any

from backproof.draw.probe import Probe
from backproof.judge.verdicts import SEVERITY, VERDICTS
from backproof.report.finding import Finding
from backproof.report.folders import folder_name
from backproof.report.page.drawing import Box, drawing
from backproof.report.page.equation import typeset
from backproof.report.page.heat import HeatMap, Window, heat_map, window
from backproof.report.page.matrix import LABELS, below, matrix
from backproof.report.repro import script
from backproof.report.results import Results
from backproof.report.templating import PAGES, TEMPLATES
from markupsafe import Markup

__all__ = ["page"]

FILTERS = ("verdict", "adapter", "precision", "layer", "tensor")
DETAILED = 100
"""Findings that are shown with drawing, numbers and script, worst first; the page of thousands stays a few megabytes so."""


@dataclass(frozen=True)
class Entry:
    """A finding with what the page shows of it."""

    finding: Finding
    number: int
    folder: str
    id: str
    equation: Markup
    options: str
    files: tuple[str, ...]
    commands: tuple[str, ...]
    detailed: bool
    boxes: tuple[Box, ...] = ()
    heat: HeatMap | None = None
    window: Window | None = None
    script: str = ""


def page(report: Results, cut: Container[str] = ()) -> str:
    """Return the page of a report, to lie beside report.json and the folders of the findings, of which those in `cut` have no repro.py."""
    style, code = _file("page.css"), _file("page.js")
    entries = list(_entries(report, cut))
    new, known = len(report.findings), len(report.findings) + len(report.known)
    groups = (("Unexplained findings", "unexplained", entries[:new]), ("Known discrepancies", "known", entries[new:known]),
              ("Conventions", "convention", entries[known:]))
    context: dict[str, Any] = {
        "report": report, "groups": [group for group in groups if group[2]], "entries": entries, "matrix": matrix(report),
        "facts": _facts(report), "below": below, "margins": LABELS, "choices": _choices(entries), "meanings": VERDICTS,
        "detailed": DETAILED, "style": style, "code": code,
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(code)}'; base-uri 'none'; form-action 'none'",
    }
    return PAGES.get_template("page.html.j2").render(context)


def _file(name: str) -> Markup:
    """Return the style or the script of the page as it is, to stand in the page unescaped."""
    return Markup(PAGES.get_template(name).render())  # noqa: S704


def _facts(report: Results) -> dict[str, str]:
    """Return the options, times and environment of a run as texts."""
    options = {name.replace("_", " "): _listed(value) for name, value in report.options.items() if value is not None}
    seconds = {f"seconds, {name}": f"{value:.1f}" for name, value in report.seconds.items()}
    return {**options, **seconds, **{name: str(value) for name, value in report.environment.items()}}


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _entries(report: Results, cut: Container[str]) -> Iterator[Entry]:
    """Yield the findings in the order of the page, the first of them in detail."""
    taken: dict[str, int] = {}
    for number, finding in enumerate((*report.findings, *report.known, *report.conventions), 1):
        name = folder_name(finding)
        taken[name] = taken.get(name, 0) + 1
        place = name if taken[name] == 1 else f"{name}-{taken[name]}"
        numbers = finding.step is not None and finding.certificate is not None and finding.certificate.ball is not None
        reproduced = numbers and name not in cut
        case = () if finding.case is None else ("case.json",)
        files = ("finding.json", *case, *(("tensors.npz",) if numbers else ()), *(("repro.py",) if reproduced else ()))
        entry = Entry(finding, number, name, place, typeset(finding.diagnosis.equation), _options(finding), files,
                      tuple(_commands(finding, name, reproduced=reproduced)), number <= DETAILED)
        if entry.detailed:
            entry = replace(entry, boxes=drawing(finding), heat=heat_map(finding), window=window(finding),
                            script=script(finding, TEMPLATES) if reproduced else "")
        yield entry


def _options(finding: Finding) -> str:
    return str(finding.step.layer) if finding.step is not None else finding.layer


def _commands(finding: Finding, name: str, *, reproduced: bool) -> Iterator[str]:
    """Yield the commands that show a finding again, for a shell in the report's folder."""
    if reproduced:
        yield f"python {name}/repro.py"
    if isinstance(finding.case, Probe):
        if finding.case.candidate:
            yield f"backproof replay {name}/case.json"
    elif finding.case is not None:
        yield f"backproof replay {name}/case.json --adapter {shlex.quote(finding.subject)}"


def _choices(entries: list[Entry]) -> dict[str, list[str]]:
    """Return what each filter offers: the values that occur, verdicts the worst first."""
    values = {name: sorted({getattr(e.finding, name) for e in entries} - {""}) for name in FILTERS}
    return {**values, "verdict": sorted(values["verdict"], key=SEVERITY.__getitem__)}
