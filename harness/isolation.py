"""Calls of a candidate in a process of its own, so that one that hangs or kills its process is a finding and not the end of the check."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from .adapters.calls import Answer, Call, Driver, driver

__all__ = ["CandidateDiedError", "Isolated"]

PATIENCE = 3  # times that a candidate may hang or die before the check ends
STARTING = 120.0  # seconds that a process may take to import its framework and the candidate


class CandidateDiedError(RuntimeError):
    """The process that called the candidate is gone, or was ended after its time was up."""


class Isolated:
    """A driver that makes each call in a worker process and gives it `timeout` seconds; a new worker replaces one that was lost."""

    def __init__(self, inner: Driver, timeout: float) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout: got {timeout}, expected seconds above 0")
        self.framework, self.layouts, self.modes = inner.framework, inner.layouts, inner.modes
        self.selective, self.compiles = inner.selective, inner.compiles
        self.timeout, self.lost = timeout, 0
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
        self.worker = context.Process(target=_serve, args=(theirs, self.framework, cloudpickle.dumps(candidate)), daemon=True)
        self.worker.start()
        theirs.close()
        self._received(STARTING)

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


def _serve(pipe: Connection, framework: str, pickled: bytes) -> None:
    """Answer calls until the pipe is closed."""
    candidate, makes = cloudpickle.loads(pickled), driver(framework)
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
