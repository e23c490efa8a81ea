"""The newest report below a folder, and a browser to look at it."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from backproof.reference.usage import UsageError

__all__ = ["newest_page", "open_page"]

PAGE = "report.html"


def newest_page(folder: Path) -> Path:
    """Return the page of the report written last at or below a folder, or the page itself; raise ValueError where there is none.

    A report is complete when its report.json is there; a page without one is passed over.
    """
    if folder.is_file():
        if folder.name != PAGE:
            raise UsageError(f"not a report: got {folder}, expected a folder or a {PAGE}. Do: backproof show reports")
        return folder
    if not folder.is_dir():
        raise UsageError(f"no such folder: got {folder}. Do: backproof verify, which writes one below reports")
    complete = [page for page in folder.rglob(PAGE) if page.with_name("report.json").is_file()]
    if not complete:
        older = next(folder.rglob("report.json"), None)
        what = f"{older} was written without one" if older else "there is no report"
        raise UsageError(f"no {PAGE} in {folder} or below: {what}. Do: backproof verify --reports {folder}")
    return max(complete, key=lambda page: (page.with_name("report.json").stat().st_mtime_ns, str(page)))


def open_page(page: Path) -> bool:
    """Open a page in the user's browser; say whether there is one."""
    return webbrowser.open(page.resolve().as_uri())
