"""How errors are worded in sentences of a report. The ground floor: this module imports nothing of the package."""

from __future__ import annotations

__all__ = ["said"]

LONGEST = 200  # characters of an error's text


def said(error: BaseException) -> str:
    """Return an error as one line: its type, and its text cut to 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LONGEST]}" if text else type(error).__name__
