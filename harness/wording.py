"""How errors are worded in sentences of a report. The ground floor: this module imports nothing of the package."""

from __future__ import annotations

__all__ = ["fault", "said"]

LONGEST = 200  # characters of an error's text


def said(error: BaseException) -> str:
    """Return an error as one line: its type, and its text cut to 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LONGEST]}" if text else type(error).__name__


def fault(what: str, error: BaseException) -> str:
    """Return the clause that stands where a fault of the harness itself kept it from more: the finding is printed without."""
    return f"{what}, by a fault of backproof's own: {said(error)}"
