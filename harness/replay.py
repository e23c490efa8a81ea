"""Run the one case of a report again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .adapters import Adapter
from .probe import Probe
from .reading import read_json
from .reference.case import Case
from .report import Report
from .run import Run

__all__ = ["load_case", "replay"]

def load_case(path: Path) -> tuple[Case | Probe, tuple[str, ...]]:
    """Return the case in a case.json, finding.json or report.json (its first finding) and the adapters it names; a check's is a probe.

    Raises ValueError, naming the file, for anything else.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a case, a finding or a report: got a JSON {type(data).__name__}")  # noqa: TRY004  (unreadable input)
    found: Any = data
    if "findings" in data:
        if not data["findings"]:
            raise ValueError(f"{path}: the report has no finding to replay")
        found = data["findings"][0]
    adapters = (found["adapter"],) if isinstance(found, dict) and isinstance(found.get("adapter"), str) else ()
    described = found.get("case", found) if isinstance(found, dict) else found
    try:
        if isinstance(described, dict) and "condition" in described:
            return Probe.build(described), ()
        return Case.build(described), adapters
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


def replay(case: Case, adapters: Sequence[str | Adapter]) -> Report:
    """Run one case on some adapters and return its report."""
    run = Run(adapters, 1, 0, (case.precision,), None, None)
    run.examine(case)
    return run.report()
