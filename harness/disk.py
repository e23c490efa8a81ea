"""A report on disk: report.json, report.md, report.html and one folder per finding. Every file is written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from .finding import Finding
from .reference.heads import Head
from .report import Report
from .repro import script
from .text import rows_by_layer

__all__ = ["ReportFolder", "save"]

TEMPLATES = jinja2.Environment(loader=jinja2.PackageLoader("backproof", "templates"), undefined=jinja2.StrictUndefined,
                               trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False)  # fmt: skip  # noqa: S701


def save(report: Report, folder: Path) -> Path:
    """Write a report into a new folder below `folder`; return it. Raises OSError where it cannot be written."""
    return ReportFolder.new(folder).write(report)


class ReportFolder:
    """The folder of one run's report. It is made when the run starts, so that an unwritable place is known at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, parent: Path) -> ReportFolder:
        """Make a new folder, named after the time, below `parent`."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
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
        folder = self.path / name_of(finding)
        folder.mkdir(exist_ok=True)
        _write(folder / "finding.json", json.dumps(finding.describe(), indent=2, allow_nan=False))
        if finding.case is not None:
            _write(folder / "case.json", finding.case.to_json())
        if finding.step is not None and finding.certificate is not None and finding.certificate.ball is not None:
            _write_arrays(folder / "tensors.npz", _tensors(finding))
            _write(folder / "repro.py", script(finding, TEMPLATES))
        return folder

    def exchange(self, before: Finding, finding: Finding) -> None:
        """Write a finding in place of another."""
        if name_of(before) != name_of(finding):
            shutil.rmtree(self.path / name_of(before), ignore_errors=True)
        self.add(finding)

    def write(self, report: Report) -> Path:
        """Write every finding, then report.md, report.html and report.json; the report is complete when report.json is there."""
        from .page import page  # noqa: PLC0415  (it names folders as this module does)

        for finding in (*report.findings, *report.known, *report.conventions):
            self.add(finding)
        context: dict[str, Any] = {"report": report, "rows": rows_by_layer(report), "name_of": name_of, "options": _options}
        _write(self.path / "report.md", TEMPLATES.get_template("report.md.j2").render(context))
        _write(self.path / "report.html", page(report))
        _write(self.path / "report.json", report.to_json())
        return self.path


def name_of(finding: Finding) -> str:
    """Return the name of a finding's folder, made of safe characters only."""
    parts = (finding.verdict, finding.adapter, finding.layer, finding.tensor, finding.precision)
    safe = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts if part)
    return f"{safe}-known" if finding.known else safe


def _options(finding: Finding) -> str:
    return str(finding.step.layer) if finding.step is not None else finding.layer


def _tensors(finding: Finding) -> dict[str, np.ndarray]:
    step, certificate = finding.step, finding.certificate
    if step is None or certificate is None or certificate.actual is None or certificate.ball is None:
        return {}
    head = isinstance(step.layer, Head)
    inputs = zip(("x", "target") if head else step.layer.input_names, step.inputs, strict=True)
    outputs = ("dy",) if len(step.d_outputs) == 1 else tuple(f"d{name}" for name in step.layer.output_names)
    arrays = {**dict(inputs), **dict(zip(outputs, step.d_outputs, strict=True)), **{f"param_{k}": p for k, p in step.params.items()},
              "actual": certificate.actual, "expected": certificate.ball.value, "bound": np.asarray(certificate.ball.radius())}  # fmt: skip
    # bfloat16 has no NumPy type of its own: every bfloat16 is a float32
    return {name: a.astype(np.float32) if a.dtype.kind == "V" or a.dtype.name == "bfloat16" else a for name, a in arrays.items()}


def _write(path: Path, text: str) -> None:
    _replace(path, text.encode(errors="backslashreplace"))  # a path or message may hold what UTF-8 does not


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)  # noqa: PTH105  (Path.replace is the same; this one says atomic)


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)  # noqa: PTH105  (Path.replace is the same; this one says atomic)
