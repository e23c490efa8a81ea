"""Calls in a process of their own: what comes back, what is lost, and that nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from backproof.adapters import MissingFrameworkError
from backproof.process import ClosedError, LostError, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    found = Worker()
    yield found
    found.close()


def gone(pid: int) -> bool:
    """Say whether a process ends within some seconds; one that ended and was not waited for counts as gone."""
    for _ in range(100):
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


def test_a_call_is_made_in_another_process(worker: Worker) -> None:
    """Results and exceptions come back, what is printed does not disturb them, and one process makes all calls."""
    def talk() -> str:
        print("noise", flush=True)  # noqa: T201
        os.write(1, b"more noise")
        return "answer"

    first = worker.call(60, os.getpid)
    assert first != os.getpid()
    assert worker.call(60, talk) == "answer"
    with pytest.raises(MissingFrameworkError, match=r'pip install "backproof\[jax\]"'):
        worker.call(60, raising(lambda: MissingFrameworkError("jax:jit", "jax")))
    assert worker.call(60, os.getpid) == first


def raising(error: Callable[[], Exception]) -> Callable[[], None]:
    """Return a function that raises, for another process to call."""
    def function() -> None:
        raise error()

    return function


def test_what_cannot_be_sent_is_said(worker: Worker) -> None:
    """A result or an exception that no other process can read is an error that names it, and the next call is made."""
    class Odd(Exception):  # noqa: N818
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    with pytest.raises(RuntimeError, match="Odd: odd"):
        worker.call(60, raising(lambda: Odd(1, 2)))
    with pytest.raises(TypeError, match="lock"):
        worker.call(60, threading.Lock)
    assert worker.call(60, abs, -3) == 3


def test_a_generator_is_yielded_and_may_be_left(worker: Worker) -> None:
    """Each item has its own time; what was yielded before a loss is kept, and a generator left early disturbs no later call."""
    def items(last: Callable[[], object]) -> Iterator[int]:
        yield 1
        yield 2
        last()

    assert list(worker.each(60, items, lambda: None)) == [1, 2]
    source = worker.each(60, items, lambda: os._exit(5))
    assert [next(source), next(source)] == [1, 2]
    with pytest.raises(LostError, match="exit status 5"):
        next(source)
    for _ in worker.each(60, items, lambda: None):
        break
    assert worker.call(60, abs, -3) == 3


@pytest.mark.parametrize(("death", "said"), [
    (lambda: os._exit(7), "the process died (exit status 7)"),
    (lambda: ctypes.string_at(0), "the process died (SIGSEGV)"),
    (lambda: os.kill(os.getpid(), signal.SIGKILL), "the process died (SIGKILL)"),
], ids=["exit", "segfault", "kill"])
def test_a_death_is_said_and_the_next_call_is_made(worker: Worker, death: Callable[[], object], said: str) -> None:
    """A process that ends by itself is a LostError that says how; another takes its place."""
    with pytest.raises(LostError) as lost:
        worker.call(60, death)
    assert str(lost.value) == said
    assert not lost.value.hung
    assert worker.call(60, abs, -3) == 3


def test_last_words_are_part_of_what_is_said(worker: Worker) -> None:
    """What a failed check of a framework printed before the end explains it; what an earlier call printed does not."""
    def abort() -> None:
        os.write(2, b"W1122 10:00:00.0 1 loud.cc:1] warning\nF1122 10:00:00.0 12 simplifier.cc:586] Check failed: a is b (why)\n  @ 0x7f\n")
        os.abort()

    worker.call(60, os.write, 2, b"Check failed: long ago\n")
    with pytest.raises(LostError, match=r"^the process died \(SIGABRT\): Check failed: a is b \(why\)$"):
        worker.call(60, abort)
    worker.call(60, os.write, 2, b"Check failed: survived\n")
    with pytest.raises(LostError, match=r"^the process died \(exit status 3\)$"):
        worker.call(60, os._exit, 3)


def test_a_call_that_takes_too_long_is_ended(worker: Worker) -> None:
    """A process that does not answer in time is killed."""
    pid = worker.call(60, os.getpid)
    with pytest.raises(LostError, match=r"^no answer within 0\.3 s$") as lost:
        worker.call(0.3, time.sleep, 600)
    assert lost.value.hung
    assert gone(pid)


def test_memory_is_limited() -> None:
    """An allocation beyond the limit fails inside of the process, where it is an exception like any other."""
    worker = Worker(memory=2**31)
    assert worker.call(60, lambda: np.ones(2**20).sum()) == 2**20
    with pytest.raises(MemoryError):
        worker.call(60, lambda: np.ones(2**29).sum())
    worker.close()


def test_a_closed_worker_ends_the_call_it_is_in() -> None:
    """Closing from another thread ends a call at once, and none is taken after it."""
    worker = Worker()
    pid = worker.call(60, os.getpid)
    timer = threading.Timer(0.5, worker.close)
    timer.start()
    start = time.monotonic()
    with pytest.raises(ClosedError):
        worker.call(600, time.sleep, 600)
    assert time.monotonic() - start < 60
    with pytest.raises(ClosedError):
        worker.call(60, abs, -3)
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_a_process_does_not_outlive_its_caller(tmp_path: Path) -> None:
    """Where the caller is killed, a process that hangs is not left behind."""
    told = tmp_path / "pid"
    code = f"""
import os, time
from pathlib import Path
from backproof.process import Worker
def busy():
    Path({str(told)!r} + ".new").write_text(str(os.getpid()))
    os.rename({str(told)!r} + ".new", {str(told)!r})
    time.sleep(600)
Worker().call(600, busy)
"""
    caller = subprocess.Popen([sys.executable, "-c", code])
    while not told.exists():
        assert caller.poll() is None
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    assert gone(int(told.read_text()))
