"""The report of a run: its results, which can be saved as files and shown in a terminal and a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backproof.report.results import Results

__all__ = ["Report"]


@dataclass(frozen=True)
class Report(Results):
    """The results of a run. `str` gives them as a terminal shows them, and a notebook shows them in colours."""

    def save(self, folder: str | Path) -> Path:
        """Write report.json, report.md and one folder per finding into a new folder below `folder`; return it."""
        from backproof.report.disk import save  # noqa: PLC0415  (Jinja is loaded only when a report is written)

        return save(self, Path(folder))

    def __str__(self) -> str:
        from backproof.report.terminal import render  # noqa: PLC0415  (rich is loaded only when a report is shown)

        return render(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from backproof.report.terminal import render_html  # noqa: PLC0415  (rich is loaded only when a report is shown)

        return render_html(self)
