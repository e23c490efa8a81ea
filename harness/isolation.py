"""Calls of a candidate in a process of its own, so that one that hangs or kills its process is a finding and not the end of the check."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from .adapters.calls import Answer, Call, Driver, driver

__all__ = ["CandidateDiedError", "Isolated"]

PATIENCE = 3  # times that a candidate may hang or die before the check ends
STARTING = 120.0  # seconds that a process may take to import its framework and the candidate


class CandidateDiedError(RuntimeError):
    """The process that called the candidate is gone, or was ended after its time was up."""


class Isolated:
    """A driver that makes each call in a worker process and gives it `timeout` seconds; a new worker replaces one that was lost.

    `home` names the module that the candidate was written in.
    """

    def __init__(self, inner: Driver, timeout: float, home: str) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout: got {timeout}, expected seconds above 0")
        self.framework, self.layouts, self.modes = inner.framework, inner.layouts, inner.modes
        self.selective, self.compiles = inner.selective, inner.compiles
        self.timeout, self.lost, self.home = timeout, 0, home
        self.worker: Any = None
        self.pipe: Any = None

    @property
    def exhausted(self) -> bool:
        """Whether the candidate was lost so often that no more calls are worth the time."""
        return self.lost >= PATIENCE

    def run(self, candidate: Callable[..., Any], call: Call) -> Answer:
        """Call a candidate in the worker; raise what it raises there, CandidateDiedError where there is no answer."""
        if self.worker is None:
            self._start(candidate)
        self.pipe.send(call)
        found = self._received(self.timeout)
        if isinstance(found, BaseException):
            raise found
        answer: Answer = found
        return answer

    def _start(self, candidate: Callable[..., Any]) -> None:
        context = get_context("spawn")  # a framework's threads do not survive a fork
        self.pipe, theirs = context.Pipe()
        self.worker = context.Process(target=_serve, args=(theirs, self.framework, _pickled(candidate, self.home)), daemon=True)
        self.worker.start()
        theirs.close()
        problem = self._received(STARTING)
        if problem is not None:
            self.close()
            raise ValueError(f"timeout: the candidate cannot be sent to a process of its own: {problem}. Put it into a module") from problem

    def _received(self, seconds: float) -> Any:
        """Return what the worker sends; end it where that does not come in time, and say how it ended where it did by itself."""
        try:
            if self.pipe.poll(seconds):
                return self.pipe.recv()
            said = f"no answer within {seconds:g} s"
        except (EOFError, ConnectionError):
            self.worker.join()
            code = self.worker.exitcode
            said = f"the process died ({signal.Signals(-code).name if code < 0 else f'exit status {code}'})"
        self.lost += 1
        self.close()
        raise CandidateDiedError(said)

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        if self.worker is not None:
            self.worker.kill()
            self.worker.join()
            self.pipe.close()
            self.worker = None


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


def _serve(pipe: Connection, framework: str, pickled: bytes) -> None:
    """Answer calls until the pipe is closed."""
    try:
        candidate, makes = cloudpickle.loads(pickled), driver(framework)
    except Exception as error:  # noqa: BLE001  (said by the one who asked)
        pipe.send(error.with_traceback(None))
        return
    pipe.send(None)
    while True:
        try:
            call = pipe.recv()
        except EOFError:
            return
        try:
            found: Any = makes.run(candidate, call)
        except BaseException as error:  # noqa: BLE001  (whatever a candidate raises is handed on)
            found = error.with_traceback(None)
        pipe.send(found)
