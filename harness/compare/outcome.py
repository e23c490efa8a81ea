"""What a run leaves for those who wait for it: the comparison with a baseline, JUnit XML, annotations, and whether it passed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backproof.compare.baseline import compare_with_baseline, read_baseline
from backproof.compare.formats import as_markdown, as_text
from backproof.compare.github import commands, running_there, summarise
from backproof.compare.junit import junit
from backproof.compare.summary import FindingKey

__all__ = ["Conclusion"]


class Conclusion:
    """Made when a run starts, so that an unreadable baseline or an unwritable file is known at once."""

    def __init__(self, baseline: Path | None = None, junit_file: Path | None = None, *, strict: bool = False) -> None:
        self.source, self.junit_file, self.strict = baseline, junit_file, strict
        self.baseline = read_baseline(baseline) if baseline is not None else None
        if junit_file is not None:
            _probe(junit_file)

    def draw(self, report: Mapping[str, Any], folder: Path, echo: Callable[[str], None]) -> bool:
        """Write and show what was asked for of the data of a report; return whether the run passed."""
        diff = compare_with_baseline(report, self.baseline, self.source or "") if self.baseline is not None else None
        if self.junit_file is not None:
            self.junit_file.write_text(junit(report, self._accepted()), encoding="utf-8")
        if diff is not None:
            echo(as_text(diff))
        if running_there():
            for line in commands(report, diff):
                echo(line)
            if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
                text = (folder / "report.md").read_text(encoding="utf-8")
                try:
                    summarise(f"{as_markdown(diff)}\n{text}" if diff is not None else text, Path(summary))
                except OSError as error:  # the run itself is done, and its exit status stands
                    echo(f"the summary of the step was not written: {error}")
        if diff is None:
            return bool(report["ok"])
        return not (diff.worse or (self.strict and diff.of("warning")))

    def _accepted(self) -> frozenset[tuple[FindingKey, str]]:
        """Return the key and verdict of each finding that the baseline accepts."""
        entries = self.baseline["findings"] if self.baseline is not None else []
        return frozenset((FindingKey(e["adapter"], e["layer"], e["tensor"], e.get("about", "")), e["verdict"]) for e in entries)


def _probe(path: Path) -> None:
    """Raise OSError where a file cannot be written; leave none behind, which a run that dies would leave empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.exists()
    with path.open("ab"):
        pass
    if not there:
        path.unlink()
