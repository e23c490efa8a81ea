"""How errors are worded in reports."""

from __future__ import annotations

from backproof.wording import said


def test_an_error_is_one_line() -> None:
    """The type comes first, line breaks become spaces, 200 characters of the text are kept, and an empty text leaves the type alone."""
    assert said(ValueError("no\n  number")) == "ValueError: no number"
    assert said(KeyError()) == "KeyError"
    assert said(TypeError("x" * 300)) == f"TypeError: {'x' * 200}"
