"""Calls of a candidate in a process of its own, so that one that hangs or kills its process is a finding and not the end of the check."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from backproof.adapters.calls import Answer, Call, Driver, driver
from backproof.process import STARTING, LostError, Worker
from backproof.reference.usage import UsageError

__all__ = ["Isolated"]

PATIENCE = 3  # times that a candidate may hang or die before the check ends


class Isolated:
    """A driver that makes each call in a worker process and gives it `timeout` seconds; a new worker replaces one that was lost.

    `home` names the module that the candidate was written in.
    """

    def __init__(self, inner: Driver, timeout: float, home: str) -> None:
        if not timeout > 0:
            raise UsageError(f"timeout: got {timeout}, expected seconds above 0")
        self.framework, self.layouts, self.modes = inner.framework, inner.layouts, inner.modes
        self.selective, self.compiles = inner.selective, inner.compiles
        self.timeout, self.lost, self.home = timeout, 0, home
        self.worker = Worker()

    @property
    def exhausted(self) -> bool:
        """Whether the candidate was lost so often that no more calls are worth the time."""
        return self.lost >= PATIENCE

    def run(self, candidate: Callable[..., Any], call: Call) -> Answer:
        """Call a candidate in the worker; raise what it raises there, LostError where there is no answer."""
        if self.worker.process is None:
            self._start(candidate)
        try:
            found: Answer = self.worker.call(self.timeout, _call, call)
        except LostError:
            self.lost += 1
            raise
        return found

    def _start(self, candidate: Callable[..., Any]) -> None:
        try:
            self.worker.call(STARTING, _receive, self.framework, _pickled(candidate, self.home))
        except Exception as error:
            self.close()
            raise UsageError(f"timeout: the candidate cannot be sent to a process of its own: {error}. Put it into a module") from error

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        self.worker.close()


def _pickled(candidate: Callable[..., Any], home: str) -> bytes:
    """Return a candidate as bytes, with the text of its module's functions where a new process would not find that module."""
    module = sys.modules.get(home)
    if module is None or home == "__main__" or _importable(home, Path(getattr(module, "__file__", None) or "")):
        return bytes(cloudpickle.dumps(candidate))
    cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(candidate))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _importable(home: str, file: Path) -> bool:
    """Say whether a new process finds a module's file by its name; pytest loads test files from anywhere."""
    top = PathFinder.find_spec(home.partition(".")[0])
    if top is None:
        return False
    return file == Path(top.origin or "") or any(file.is_relative_to(place) for place in top.submodule_search_locations or ())


HERE: list[Any] = []
"""In the process: what makes calls, and the candidate."""


def _receive(framework: str, pickled: bytes) -> None:
    HERE[:] = driver(framework), cloudpickle.loads(pickled)


def _call(call: Call) -> Answer:
    makes, candidate = HERE
    answer: Answer = makes.run(candidate, call)
    return answer
