"""What GitHub Actions shows of a run: annotations beside the code, and the summary of the step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from backproof.compare.comparison import Diff
from backproof.report.terminal import printable

__all__ = ["commands", "running_there", "summarise"]

SHOWN = 10  # annotations of one kind that GitHub shows of a step
SUMMARY = 2**20  # bytes of a step's summary; a larger one is not shown at all
ENDING = "\n\nThe rest is in report.md.\n"

Note = tuple[str, str]
"""Title and message."""


def running_there(environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether this process is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def commands(report: Mapping[str, Any], diff: Diff | None = None) -> Iterator[str]:
    """Yield workflow commands: an error for what fails the run, a warning for what is to be looked at, the worst first.

    With a comparison those are what got worse and what changed, otherwise the unexplained findings and stale known discrepancies.
    """
    if diff is not None:
        errors, warnings = ([(str(line.about), line.sentence) for line in diff.of(weight)] for weight in ("worse", "warning"))
    else:
        errors = [(f"{f['verdict']}: {f['layer']} {f['tensor']} on {f['adapter']} ({f['precision']})", f["diagnosis"]["sentence"])
                  for f in report["findings"]]
        errors += [("a planted mistake was missed", sentence) for sentence in report["self_test"]["missed"]]
        errors += [] if report["compared"] else [("nothing was compared", "a run that compares nothing says nothing")]
        warnings = [("stale known discrepancy", f"{name} matched nothing although it was looked for") for name in report["stale"]]
    for kind, notes in (("error", errors), ("warning", warnings)):
        yield from (_command(kind, note) for note in _limited(notes))


def _limited(notes: Sequence[Note]) -> Sequence[Note]:
    """Return as many as are shown; the last of too many counts those that are not."""
    if len(notes) <= SHOWN:
        return notes
    left = len(notes) - SHOWN + 1
    return [*notes[: SHOWN - 1], (f"{left} more", f"{left} more are in the report")]


def _command(kind: str, note: Note) -> str:
    title, message = map(_escaped, map(printable, note))
    return f"::{kind} title={title.replace(':', '%3A').replace(',', '%2C')}::{message}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def summarise(text: str, path: Path) -> None:
    """Append Markdown to the summary of the step, no more than GitHub shows of it."""
    there = path.stat().st_size if path.exists() else 0
    data = text.encode()
    if there + len(data) > SUMMARY:
        room = max(SUMMARY - there - len(ENDING), 0)
        kept = data[:room].rpartition(b"\n")[0]
        data = kept + ENDING.encode() if kept else b""
    with path.open("ab") as file:
        file.write(data)
