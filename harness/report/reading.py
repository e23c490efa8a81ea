"""Reports read back from disk, as the data that docs/report.md describes. What is none ends in one ValueError that names file and field."""

from __future__ import annotations

import reprlib
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from backproof.reference.usage import UsageError
from backproof.report.results import REPORT
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

__all__ = ["LARGEST", "checked", "read_bytes", "read_json", "read_report_file"]

LARGEST = 64 * 2**20  # bytes; a report is far below


def read_report_file(path: Path) -> dict[str, Any]:
    """Return the data of a report.json; raise ValueError for what is no report, OSError for what cannot be read."""
    return checked(_schema(), read_json(path), path)


@lru_cache(maxsize=1)
def _schema() -> TypeAdapter[Any]:
    return TypeAdapter(REPORT.accepts("Report"))


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raise ValueError, naming the file, where it is none or too large."""
    try:
        return from_json(read_bytes(path), allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(f"{path}: not readable as JSON: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Return the content of a file that is no larger than any of ours."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path}: expected a file, got {'a folder' if stat.S_ISDIR(status.st_mode) else 'something else'}")
    if status.st_size > LARGEST:
        raise UsageError(f"{path}: too large: got {status.st_size} bytes, expected at most {LARGEST}")
    return path.read_bytes()


def checked(schema: TypeAdapter[Any], data: Any, path: Path) -> Any:
    """Return data that fits a schema; raise ValueError that names the file, the first field that does not, and what it should be."""
    try:
        return schema.validate_python(data)
    except ValidationError as error:
        first, count = error.errors(include_url=False, include_context=False)[0], error.error_count()
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise UsageError(f"{path}: {_where(first['loc'])}{_fault(first)}{more}") from None


def _where(place: tuple[int | str, ...]) -> str:
    """Return a field as a person writes it: findings[3].verdict."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{reprlib.repr(part)[1:-1]}" for part in place]
    return f"{''.join(parts).removeprefix('.')}: " if parts else ""


def _fault(error: Any) -> str:
    if error["type"] == "missing":
        return "the field is missing"
    wanted = error["msg"].removeprefix("Input should be ")
    choices = "one of " if error["type"] == "literal_error" and "," in wanted else ""
    return f"got {_shown(error['input'])}, expected {choices}{wanted}"


def _shown(value: Any) -> str:
    """Return a value in a few characters."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= 2**63:
        return f"an integer of {value.bit_length()} bits"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else reprlib.repr(value)
