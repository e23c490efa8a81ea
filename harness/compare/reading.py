"""The data of a report, wherever it lies: in a file, in a folder, or in the store of a campaign that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backproof.reference.usage import UsageError
from backproof.report.folders import CAMPAIGN, REPORT, newest_report
from backproof.report.reading import read_report_file
from backproof.verify.store import summary

__all__ = ["read_report"]


def read_report(path: str | Path) -> dict[str, Any]:
    """Return the data of a report: of a report.json, of a report's folder, or of the newest report in a folder of them.

    A campaign in progress is summed up from its store. Raises ValueError for what is no report, OSError for what cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    return summary(path) if path.suffix == Path(CAMPAIGN).suffix else read_report_file(path)


def _file_in(folder: Path) -> Path:
    """Return the file to read in a report's folder, or in the newest report below it."""
    holder = folder if any((folder / name).is_file() for name in (REPORT, CAMPAIGN)) else newest_report(folder)
    if holder is None:
        raise UsageError(f"{folder}: no report there: expected {REPORT} or {CAMPAIGN}, in it or in a folder below it")
    return holder / (REPORT if (holder / REPORT).is_file() else CAMPAIGN)
