"""Run the one case of a report again."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from backproof.adapters import Adapter
from backproof.draw.probe import Probe
from backproof.reference.case import Case
from backproof.reference.usage import UsageError
from backproof.report.reading import read_json
from backproof.report.report import Report
from backproof.truth.own_forward import OwnForward
from backproof.verify.run import Run

__all__ = ["load_case", "replay"]

ENTRIES = 2**24  # of all arrays of a case together; the largest that is drawn has a hundredth of it

def load_case(path: Path) -> tuple[Case | Probe, tuple[str, ...]]:
    """Return the case in a case.json, finding.json or report.json (its first finding) and the adapters it names; a check's is a probe.

    Raises ValueError, naming the file, for anything else.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected a case, a finding or a report: got a JSON {type(data).__name__}")
    found: Any = data
    if "findings" in data:
        if not data["findings"]:
            raise UsageError(f"{path}: the report has no finding to replay")
        found = data["findings"][0]
    adapters = (found["adapter"],) if isinstance(found, dict) and isinstance(found.get("adapter"), str) else ()
    described = found.get("case", found) if isinstance(found, dict) else found
    try:
        if isinstance(described, dict) and "condition" in described:
            return _checked(Probe.build(described)), ()
        return _checked(Case.build(described)), adapters
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    except (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:  # what no rule is made for
        raise UsageError(f"{path}: no case that can be run: {type(error).__name__}: {error}") from error


def _checked(case: Case | Probe) -> Case | Probe:
    """Return a case whose numbers can be drawn; raise ValueError for one whose arrays would fill the memory, or what drawing raises."""
    if isinstance(case, Probe):
        shapes, single = list(case.shapes), []
    else:
        shapes, single = list(case.network.graph.shapes.values()), list(case.network.graph.parameters.values())
    entries = case.batch * sum(map(prod, shapes)) + sum(map(prod, single))
    if entries > ENTRIES:
        raise UsageError(f"a case too large to run again: got {entries:,} entries, expected at most {ENTRIES:,}")
    if not (isinstance(case, Probe) and isinstance(case.layer, OwnForward)):  # what that takes only its candidate knows
        _ = case.call() if isinstance(case, Probe) else case.values()
    return case


def replay(case: Case, adapters: Sequence[str | Adapter]) -> Report:
    """Run one case on some adapters and return its report."""
    run = Run(adapters, 1, 0, (case.precision,), None, None)
    run.examine(case)
    return run.report()
