"""A report on disk: report.json, report.md, report.html, a folder per finding. Every file is written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from backproof.report.excess import text_map
from backproof.report.finding import Finding, times
from backproof.report.folders import REPORT, STAMP, folder_name
from backproof.report.page import page
from backproof.report.repro import script
from backproof.report.results import Results
from backproof.report.templating import TEMPLATES
from backproof.report.tensors import arrays_of, with_arrays, with_layer
from backproof.report.terminal import rows_by_layer

__all__ = ["ReportFolder", "save"]

ARRAYS = "tensors.npz"
FINDING_BYTES = 4 * 2**20  # of the tensors of one finding, compressed
REPORT_BYTES = 64 * 2**20  # of the tensors of all findings together
NEAR = 4  # entries kept to either side of the worst one, along each axis, where a tensor is too large


def save(report: Results, folder: Path) -> Path:
    """Write a report into a new folder below `folder`; return it. Raises OSError where it cannot be written."""
    return ReportFolder.new(folder).write(report)


class ReportFolder:
    """The folder of one run's report. It is made when the run starts, so that an unwritable place is known at once.

    Tensors beyond the limits are cut down to the entries around the worst one; the case rebuilds the whole of them.
    """

    def __init__(self, path: Path, finding_bytes: int = FINDING_BYTES, report_bytes: int = REPORT_BYTES) -> None:
        self.path, self.finding_bytes, self.cut, self.kept = path, finding_bytes, set[str](), dict[str, str]()
        self.left = report_bytes - sum(file.stat().st_size for file in path.glob(f"*/{ARRAYS}"))

    @classmethod
    def new(cls, parent: Path) -> ReportFolder:
        """Make a new folder, named after the time, below `parent`."""
        stamp = datetime.now(UTC).strftime(STAMP)
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1000):
            path = parent / (stamp if attempt == 0 else f"{stamp}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return cls(path)
        raise FileExistsError(f"no free name for a report in {parent}: got {stamp} a thousand times")

    def add(self, finding: Finding) -> Path:
        """Write one finding: finding.json, case.json, its tensors and a stand-alone reproduction."""
        folder = self.path / folder_name(finding)
        folder.mkdir(exist_ok=True)
        kept = self.kept.get(folder.name, "")
        if finding.case is not None:
            _write(folder / "case.json", finding.case.to_json())
        if finding.step is not None and finding.certificate is not None and finding.certificate.ball is not None:
            kept = self._add_arrays(folder / ARRAYS, finding)
            source = script(finding, TEMPLATES)
            if not kept or ARRAYS not in source:
                _write(folder / "repro.py", source)
            else:
                self.cut.add(folder.name)
        described = finding.describe() | ({"tensors": kept} if kept else {})
        _write(folder / "finding.json", json.dumps(described, indent=2, allow_nan=False))
        return folder

    def exchange(self, before: Finding, finding: Finding) -> None:
        """Write a finding in place of another."""
        if folder_name(before) != folder_name(finding):
            shutil.rmtree(self.path / folder_name(before), ignore_errors=True)
        self.add(finding)

    def restored(self, finding: Finding) -> Finding:
        """Return a finding that was written here before with its tensors; without them where they were cut down or are no longer whole."""
        folder, bare = self.path / folder_name(finding), with_layer(finding)
        try:
            described = json.loads((folder / "finding.json").read_text(encoding="utf-8"))
            if kept := described.pop("tensors", ""):
                self.kept[folder.name] = kept
                self.cut |= set() if (folder / "repro.py").exists() else {folder.name}
                return bare
            if {**described, "count": finding.count} != finding.describe():
                return bare
            with np.load(folder / ARRAYS, allow_pickle=False) as file:
                return with_arrays(finding, dict(file))
        except Exception:  # noqa: BLE001  (a file that somebody changed or deleted costs the picture, not the run)
            return bare

    def _add_arrays(self, path: Path, finding: Finding) -> str:
        """Write the tensors of a finding, all or what lies around the worst entry; say what was kept where that is not all."""
        self.left += path.stat().st_size if path.exists() else 0
        arrays, limit = arrays_of(finding), min(self.finding_bytes, self.left)
        whole = _write_arrays(path, arrays, limit)
        if whole <= limit:
            self.left -= whole
            return ""
        around = tuple(slice(max(i - NEAR, 0), i + NEAR + 1) for i in finding.index)
        near = {name: arrays[name][around] for name in ("actual", "expected", "bound")}
        _write_arrays(path, {**near, "first": np.array([s.start for s in around])}, self.finding_bytes)
        return (f"only actual, expected and bound up to {NEAR} entries around the worst one, from the index `first` on: all tensors take "
                f"{whole:,} bytes, the limit is {limit:,}; case.json rebuilds them")

    def write(self, report: Results) -> Path:
        """Write every finding, then report.md, report.html and report.json; the report is complete when report.json is there."""
        for finding in (*report.findings, *report.known, *report.conventions):
            self.add(finding)
        context: dict[str, Any] = {"report": report, "rows": rows_by_layer(report), "name_of": folder_name, "options": _options,
                                   "cut": self.cut, "text_map": text_map, "times": times}
        _write(self.path / "report.md", TEMPLATES.get_template("report.md.j2").render(context))
        _write(self.path / "report.html", page(report, self.cut))
        _write(self.path / REPORT, report.to_json())
        return self.path


def _options(finding: Finding) -> str:
    return str(finding.step.layer) if finding.step is not None else finding.layer


def _write(path: Path, text: str) -> None:
    _replace(path, text.encode(errors="backslashreplace"))  # a path or message may hold what UTF-8 does not


def _write_arrays(path: Path, arrays: dict[str, np.ndarray], limit: int) -> int:
    """Write arrays unless their file is larger than a limit; return its size."""
    temporary = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    size = temporary.stat().st_size
    if size > limit:
        temporary.unlink()
        return size
    os.replace(temporary, path)  # noqa: PTH105  (Path.replace is the same; this one says atomic)
    return size


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)  # noqa: PTH105  (Path.replace is the same; this one says atomic)
