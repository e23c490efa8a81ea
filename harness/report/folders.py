"""Folders of reports and of findings: their names, which are ours, which is the newest, and which may be deleted."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from backproof.report.finding import Finding

__all__ = ["CAMPAIGN", "REPORT", "STAMP", "folder_name", "keep", "newest_report", "reports_in"]

REPORT, CAMPAIGN = "report.json", "campaign.sqlite"
STAMP = "%Y-%m-%dT%H-%M-%SZ"
NAMED = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)(?:-(\d{1,3}))?")
OURS = frozenset({"schema", "findings", "tallies", "environment"})


def folder_name(finding: Finding) -> str:
    """Return the name of a finding's folder, made of safe characters only.

    A checksum at its end tells exceptions apart by what was raised, and known discrepancies by their reasons.
    """
    reason = finding.cause or finding.known
    checksum = f"{zlib.crc32(reason.encode(errors='backslashreplace')):08x}" if reason else ""
    parts = (finding.verdict, finding.subject, finding.layer, finding.tensor, finding.precision, checksum)
    safe = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts if part)
    return f"{safe}-known" if finding.known else safe


def reports_in(parent: Path) -> list[Path]:
    """Return the folders right below `parent` that hold a report or a campaign, the newest last; links are not followed."""
    folders = [folder for folder in parent.iterdir() if folder.is_dir() and not folder.is_symlink() and any(_files(folder))]
    return sorted(folders, key=_age)


def newest_report(parent: Path) -> Path | None:
    """Return the newest report's folder right below `parent`, or None where there is none."""
    return folders[-1] if (folders := reports_in(parent)) else None


def keep(parent: Path, count: int) -> list[Path]:
    """Delete all but the newest `count` finished reports right below `parent`; return what was deleted.

    Only a folder that bears the name of a report and holds a report.json of ours is counted or deleted: a campaign without one
    may still be resumed. Raises OSError for what cannot be deleted.
    """
    ours = [folder for folder in reports_in(parent) if NAMED.fullmatch(folder.name) and _finished(folder / REPORT)]
    old = ours[: max(len(ours) - count, 0)]
    for folder in old:
        shutil.rmtree(folder)
    return old


def _finished(path: Path) -> bool:
    """Say whether a file is a report of ours."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(data, dict) and data.keys() >= OURS


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for name in (REPORT, CAMPAIGN) if (path := folder / name).is_file() and not path.is_symlink())


def _age(folder: Path) -> tuple[str, int, float]:
    """Order by the time in the name, which survives a checkout or a download; folders of other names come first, by their files' time."""
    stamp = NAMED.fullmatch(folder.name)
    written = max(path.stat().st_mtime for path in _files(folder))
    return (stamp[1], int(stamp[2] or 0), written) if stamp else ("", 0, written)
