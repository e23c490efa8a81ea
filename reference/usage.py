"""What is raised where somebody asks for what cannot be done: told apart from a fault of ours by its type alone."""

from __future__ import annotations

__all__ = ["MissingPackageError", "UsageError", "UsageTypeError"]


class UsageError(ValueError):
    """An argument, an option or a file that cannot be used as it is; the message says what was got, what is expected and what to do."""


class UsageTypeError(UsageError, TypeError):
    """An argument of a wrong type."""


class MissingPackageError(ImportError):
    """A package that is needed for what was asked, and is not installed; the message says how to get it."""
