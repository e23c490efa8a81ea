"""Calls in a process of their own, within limits of time and memory: what hangs or dies there is an answer, not the end of the caller."""

from __future__ import annotations

import ctypes
import inspect
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum, auto
from multiprocessing.connection import Connection
from tempfile import TemporaryFile
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

__all__ = ["STARTING", "ClosedError", "LostError", "Worker"]

SERVE = "import sys; sys.path[:] = {path!r}; from backproof.process import serve; serve({parent}, {memory})"
FATAL = re.compile(r"^F\d{4} .*?\] (?=\w)|(?=Check failed|Fatal |terminate called|Assertion )")  # of glog, Python, C++ and C
WORDS = 300  # characters
STARTING = 120.0  # seconds that a process may take until it answers


class LostError(RuntimeError):
    """There is no answer: the process was ended after its time (`hung`), or died by itself."""

    def __init__(self, said: str, *, hung: bool) -> None:
        super().__init__(said)
        self.hung = hung


class ClosedError(BaseException):
    """The worker was closed and takes no more calls: the end of the caller's work, which no handler of errors should go on from."""


class Answer(Enum):
    """What a message from the process says."""

    ONE = auto()
    END = auto()
    RAISED = auto()


class Worker:
    """One process at a time that makes calls, one after the other; one that was lost is replaced at the next call.

    `memory` is the most bytes it may hold, where the system has such a limit; `environment` is added to the caller's own.
    """

    def __init__(self, memory: int | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.memory, self.environment = memory, dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.closed = False
        self._ends: Callable[[], Any] = lambda: None

    def call(self, seconds: float | None, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in the process, or raise what it raises; raise LostError where no answer comes in time."""
        found = [*self.each(seconds, function, *arguments)]
        return found[0] if found else None

    def each(self, seconds: float | None, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        """Yield what a generator yields in the process, within so many seconds each; what is no generator yields what it returns."""
        kind, found = Answer.ONE, None
        try:
            if self.process is None:
                self._start()
            self.printed.truncate(0)
            self._send(cloudpickle.dumps((function, arguments)))
            while True:
                kind, found = self._received(seconds)
                if kind is not Answer.ONE:
                    break
                yield found
        except LostError:
            if self.closed:
                raise ClosedError("the worker was closed") from None
            raise
        finally:
            if kind is Answer.ONE:  # lost, or left by who asked: what else comes would be taken for the answer of the next call
                self._stop()
        if kind is Answer.RAISED:
            raise found

    def _start(self) -> None:
        if self.closed:
            raise ClosedError("the worker was closed")
        code = SERVE.format(path=sys.path, parent=os.getpid(), memory=self.memory)
        # its standard output is the channel; what a framework prints goes to a file, from which a death is explained
        self.printed = TemporaryFile("a+b")  # noqa: SIM115  (it lives as long as the process)
        weakref.finalize(self, self.printed.close)
        self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,  # noqa: S603
                                        stderr=self.printed, env={**os.environ, **self.environment})
        self.requests, self.answers = (Connection(os.dup(pipe.fileno()), readable=not out, writable=out)  # type: ignore[union-attr]
                                       for pipe, out in ((self.process.stdin, True), (self.process.stdout, False)))
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.stdout.close()  # type: ignore[union-attr]
        self._ends = weakref.finalize(self, _end, self.process)
        if self.closed:  # meanwhile, by another thread
            self._ends()
        self._received(STARTING)

    def _send(self, request: bytes) -> None:
        try:
            self.requests.send_bytes(request)
        except OSError:
            self._received(None)  # says how the process ended

    def _received(self, seconds: float | None) -> tuple[Answer, Any]:
        """Return what comes; end a process from which nothing comes in time, and say how one ended that did so by itself."""
        process = self.process
        try:
            if self.answers.poll(seconds):
                answer: tuple[Answer, Any] = cloudpickle.loads(self.answers.recv_bytes())
                return answer
            hung, said = True, f"no answer within {seconds:g} s"
        except (EOFError, OSError):
            hung, code = False, process.wait() if process is not None else 0
            said = f"the process died ({signal.Signals(-code).name if code < 0 else f'exit status {code}'}){self._last_words()}"
        self._stop()
        raise LostError(said, hung=hung)

    def _last_words(self) -> str:
        """Return what the process printed of a failed check or a fatal error, if it did."""
        self.printed.seek(0)
        lines = self.printed.read().decode(errors="replace").splitlines()
        fatal = [line for line in lines if FATAL.search(line)]
        return f": {FATAL.sub('', fatal[-1]).strip()[:WORDS]}" if fatal else ""

    def _stop(self) -> None:
        self._ends()
        if self.process is not None:
            self.requests.close()
            self.answers.close()
            self.printed.close()
            self.process = None

    def close(self) -> None:
        """End the process, whatever it is doing, from any thread."""
        self.closed = True
        self._ends()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def serve(parent: int, memory: int | None) -> None:
    """Answer calls until there are no more: what runs in the process."""
    answers, requests = Connection(os.dup(1), readable=False), Connection(os.dup(0), writable=False)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides
    _die_with(parent)
    if memory is not None:
        _limit(memory)
    answers.send_bytes(cloudpickle.dumps((Answer.END, None)))
    while True:
        try:
            request = requests.recv_bytes()
        except EOFError:
            return
        for answer in _answers(request):
            answers.send_bytes(answer)


def _answers(request: bytes) -> Iterator[bytes]:
    """Yield the messages that answer a call."""
    try:
        function, arguments = cloudpickle.loads(request)
        found = function(*arguments)
        for one in found if inspect.isgenerator(found) else (found,):
            yield cloudpickle.dumps((Answer.ONE, one))
        yield cloudpickle.dumps((Answer.END, None))
    except BaseException as error:  # noqa: BLE001  (handed on, whatever it is)
        try:
            answer = cloudpickle.dumps((Answer.RAISED, error.with_traceback(None)))
            cloudpickle.loads(answer)
        except Exception:  # noqa: BLE001  (an error that cannot be sent, or not be read again, is said)
            answer = cloudpickle.dumps((Answer.RAISED, RuntimeError(f"{type(error).__name__}: {error}")))
        yield answer


def _die_with(parent: int) -> None:
    """Have the system end this process with the caller's, where it can: one that hangs would be left behind."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of the thread that started this process
    if os.getppid() != parent:
        sys.exit()


def _limit(memory: int) -> None:
    """Have allocations fail beyond so many bytes of data, where the system knows such a limit."""
    with suppress(ImportError):
        import resource  # noqa: PLC0415  (not on every system)

        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
