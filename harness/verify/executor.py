"""Where work is done: by processes of this machine, or wherever another executor has it done."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import psutil  # type: ignore[import-untyped,unused-ignore]
from backproof.reference.usage import MissingPackageError, UsageError, UsageTypeError
from backproof.verify.job import TRIES, WORKERS, Work
from platformdirs import user_cache_path

__all__ = ["Engine", "Limits", "cores"]

PART = 0.8  # of the machine's memory, which the processes of a run may hold together
AHEAD = 8  # structures that wait for each worker


@dataclass(frozen=True)
class Limits:
    """What one case may take on all adapters: seconds, and bytes of memory (left out: its share of the machine's).

    `cache` keeps what XLA compiled for later runs.
    """

    seconds: float = 120.0
    memory: int | None = None
    cache: bool = True

    def __post_init__(self) -> None:
        for name, value, unit in (("timeout", self.seconds, "seconds"), ("memory", self.memory, "bytes")):
            if value is not None and not value > 0:
                raise UsageError(f"{name}: got {value}, expected {unit} above 0")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Engine:
    """An executor of the standard library's kind, with the number of its workers and the limits of what they do."""

    def __init__(self, executor: Executor, workers: int, limits: Limits) -> None:
        self.executor, self.workers, self.limits = executor, workers, limits

    @property
    def ahead(self) -> int:
        """How many structures may wait, so that no worker does."""
        return AHEAD * self.workers

    def work(self, adapters: Sequence[str], precisions: Sequence[str], seed: int) -> Work:
        """Return what an executor is handed: how cases are examined."""
        return Work(tuple(adapters), tuple(precisions), seed, self.limits.seconds, self.limits.memory, _variables(cache=self.limits.cache))

    def submit(self, function: Callable[..., Any], *arguments: Any) -> _Kept:
        """Have a function called by the executor; what that loses is handed to it again."""
        return _Kept(self.executor, function, arguments)

    @classmethod
    def of(cls, scheduler: str | Executor | None, jobs: int, limits: Limits) -> AbstractContextManager[Engine]:
        """Return the engine of a Dask cluster by its address, of an executor that makes `jobs` calls at a time, or of this machine."""
        if isinstance(scheduler, str):
            return cls.dask(scheduler, limits)
        if not isinstance(scheduler, Executor | None):
            raise UsageTypeError(f"scheduler: got {type(scheduler).__name__}, expected the address of a Dask scheduler or a "
                            "concurrent.futures.Executor")
        return cls.local(jobs, limits) if scheduler is None else nullcontext(cls(scheduler, jobs, limits))

    @classmethod
    @contextmanager
    def local(cls, jobs: int, limits: Limits | None = None) -> Iterator[Engine]:
        """Give an engine whose threads each keep one process; all of them end with it, at once where a run is broken off."""
        limits = limits or Limits()
        memory = limits.memory or int(PART * psutil.virtual_memory().total / jobs)
        threads: list[int] = []
        pool = ThreadPoolExecutor(jobs, "backproof", initializer=lambda: threads.append(threading.get_ident()))
        try:
            yield cls(pool, jobs, replace(limits, memory=memory))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for thread in threads:
                if (worker := WORKERS.get(thread)) is not None:
                    worker.close()
            pool.shutdown()

    @classmethod
    @contextmanager
    def dask(cls, address: str, limits: Limits | None = None) -> Iterator[Engine]:
        """Give the engine of a Dask cluster by the address of its scheduler: each thread of its workers keeps one process.

        Raises ImportError without Dask, OSError where nobody answers.
        """
        try:
            from distributed import Client  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise MissingPackageError('a scheduler needs Dask, which is not installed. Do: pip install "backproof[dask]"') from error
        with Client(address, timeout=10, set_as_default=False) as client:  # type: ignore[no-untyped-call,unused-ignore]
            workers = sum(client.nthreads().values())
            if not workers:
                raise OSError(f"the scheduler at {address} has no workers. Do: dask worker {address} --nthreads 1")
            yield cls(client.get_executor(pure=False), workers, limits or Limits())


class _Kept:
    """A call that an executor was handed, which is handed to it again where its worker is lost."""

    def __init__(self, executor: Executor, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.executor, self.function, self.arguments = executor, function, arguments
        self.future: Future[Any] = executor.submit(function, *arguments)

    def done(self) -> bool:
        """Whether the result is there."""
        return self.future.done() and not self.future.cancelled() and self.future.exception() is None

    def result(self) -> Any:
        for _ in range(TRIES - 1):
            try:
                return self.future.result()
            except Exception as error:
                if type(error).__name__ != "KilledWorker":  # of Dask, which need not be installed
                    raise
                self.future = self.executor.submit(self.function, *self.arguments)
        return self.future.result()


def _variables(*, cache: bool) -> tuple[tuple[str, str], ...]:
    """Return what goes into the environment of processes: one thread, and where XLA keeps what it compiled.

    With several threads sums are taken in another order, and the margins of a campaign would depend on the number of its workers. What
    the caller has set stands.
    """
    wanted = {"OMP_NUM_THREADS": "1"}
    if cache:
        wanted |= {"JAX_COMPILATION_CACHE_DIR": str(user_cache_path("backproof") / "xla"), "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return tuple((name, value) for name, value in wanted.items() if name not in os.environ)
