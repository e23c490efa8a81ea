"""A candidate by its address: what `MODULE:NAME` names, imported from where the user stands."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from backproof.reference.usage import UsageError
from backproof.wording import said

__all__ = ["imported"]


def imported(name: str) -> Any:
    """Return what `MODULE:NAME` names, looked for from the current folder on; raise UsageError for what is not there."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"the candidate: got {name!r}, expected MODULE:NAME, such as my_layers:layer_norm")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _raised_at_import(module, error) from error
        raise UsageError(f"the candidate: no module {error.name!r} here or among the installed ones") from error
    except Exception as error:
        raise _raised_at_import(module, error) from error
    try:
        return attrgetter(attribute)(found)
    except AttributeError as error:
        raise UsageError(f"the candidate: {error}") from error


def _raised_at_import(module: str, error: Exception) -> UsageError:
    """Return what a module of the user's raised when it was imported, with the last line of their own that was reached."""
    file, line = (error.filename, error.lineno) if isinstance(error, SyntaxError) else ("", None)
    for frame, number in traceback.walk_tb(error.__traceback__):
        if not isinstance(error, SyntaxError) and not frame.f_code.co_filename.startswith("<frozen") and frame.f_globals is not globals():
            file, line = (frame.f_code.co_filename, number) if frame.f_globals.get("__name__") == module or not file else (file, line)
    where = f" ({file}, line {line})" if file else ""
    return UsageError(f"the candidate: importing {module} raises {said(error)}{where}")
