"""The silencing of NumPy's floating-point warnings, entered once however many operations stand inside each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np

__all__ = ["quiet"]

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)
"""Whether `quiet` is in force: to enter it for every operation would cost as much as the operation on a small array."""

_ALREADY = nullcontext()


def quiet() -> AbstractContextManager[None]:
    """Silence NumPy's floating-point warnings where a result that is not finite is looked at afterwards."""
    return _ALREADY if _SILENT.get() else _silenced()


@contextmanager
def _silenced() -> Iterator[None]:
    token = _SILENT.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _SILENT.reset(token)
