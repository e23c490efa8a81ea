"""The main job: random networks through every adapter, in this process or several, into one report."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .adapters import Adapter
from .environment import environment
from .examine import Examiner
from .generate import DRAWS, structures
from .known import KnownList
from .ledger import Ledger
from .reference.case import Case
from .report import Report
from .strategies import checked

__all__ = ["Run", "run_all", "verify"]

Progress = Callable[["Run"], None]
"""Called after each structure."""

Options = tuple[tuple[str | Adapter, ...], tuple[str, ...], int]
"""Adapters, precisions and seed: what an examiner is made of."""


def verify(*, adapters: Sequence[str | Adapter] = ("torch", "jax:jit"), cases: int | None = 200, seed: int = 0,
           precisions: Sequence[str] = ("float64", "float32"), layers: Sequence[str] | None = None,
           reports: str | Path | None = "reports", jobs: int = 1, minutes: float | None = None,
           progress: Progress | None = None) -> Report:  # fmt: skip
    """Check frameworks over random networks and return the report; write it below `reports` unless that is None.

    `cases` counts draws of values, `DRAWS` of them through each network; every case runs on every adapter in every
    precision. The same seed gives the same report for any number of `jobs`, which are processes. Raises ValueError for an unknown
    adapter, layer or precision, MissingFrameworkError for an absent framework.
    """
    run = Run(adapters, cases, seed, precisions, layers, minutes, jobs)
    report = run_all(run, progress or (lambda _: None))
    if reports is not None:
        report.save(reports)
    return report


def run_all(run: Run, progress: Progress) -> Report:
    """Examine every case of a run and return its report; Ctrl-C ends it with a report of what was done."""
    try:
        for part in run.parts():
            run.ledger.merge(part)
            progress(run)
        run.shrink()
    except KeyboardInterrupt:
        run.interrupted = True
    return run.report()


class Run:
    """A run in progress: its options, its ledger and its clock."""

    def __init__(self, adapters: Sequence[str | Adapter], cases: int | None, seed: int, precisions: Sequence[str],
                 layers: Sequence[str] | None, minutes: float | None, jobs: int = 1) -> None:  # fmt: skip
        if cases is not None and cases < 1:
            raise ValueError(f"verify needs at least one case: got {cases}")
        if seed < 0:
            raise ValueError(f"verify needs a seed of at least 0: got {seed}")
        if minutes is not None and not minutes >= 0:
            raise ValueError(f"verify needs minutes of at least 0: got {minutes}")
        if layers is not None and not layers:
            raise ValueError("verify needs at least one layer: got an empty list")
        if jobs < 1:
            raise ValueError(f"verify needs at least one job: got {jobs}")
        if jobs > 1 and not all(isinstance(a, str) for a in adapters):
            raise ValueError("several jobs need adapters by name, since their processes load their own: got an adapter object")
        self.options = (tuple(adapters), tuple(precisions), seed)
        self.examiner = Examiner(*self.options)
        self.total, self.seed, self.families, self.minutes, self.jobs = cases, seed, layers, minutes, jobs
        checked(layers)
        self.ledger = Ledger()
        self.interrupted = False
        self.started = time.perf_counter()

    def examine(self, case: Case) -> None:
        """Examine one case by itself."""
        self.ledger.merge(self.examiner.structure(0, [case]))

    def parts(self) -> Iterator[Ledger]:
        """Yield the ledgers of the structures in order, until their number or the time is used up."""
        if self.jobs == 1:
            for index, cases in self._structures():
                yield self.examiner.structure(index, cases)
            return
        # spawned, since a framework's threads do not survive a fork
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            waiting: deque[Future[Ledger]] = deque()
            try:
                for index, cases in self._structures():
                    waiting.append(pool.submit(_work, self.options, index, cases))
                    if len(waiting) > 4 * self.jobs:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _structures(self) -> Iterator[tuple[int, tuple[Case, ...]]]:
        """Yield the structures with their cases, counting the time that generation takes."""
        source = enumerate(structures(self.total, self.seed, self.families))
        while self.minutes is None or time.perf_counter() - self.started < 60 * self.minutes:
            start = time.perf_counter()
            found = next(source, None)
            self.ledger.seconds["harness"] += time.perf_counter() - start
            if found is None:
                return
            yield found

    def shrink(self) -> None:
        """Rebuild each unexplained finding on the smallest case that shows it."""
        start = time.perf_counter()
        for key, finding in self.ledger.found.items():
            if not finding.known and finding.verdict != "convention":
                self.ledger.found[key] = self.examiner.shrunk(finding)
        self.ledger.seconds["reporting"] += time.perf_counter() - start

    def report(self) -> Report:
        """Return the report of what was done so far."""
        adapters, precisions, seed = [a.name for a in self.examiner.adapters], [p.name for p in self.examiner.precisions], self.seed
        options: dict[str, Any] = {"adapters": adapters, "precisions": precisions, "cases": self.total, "seed": seed,
                                   "layers": list(self.families) if self.families else None, "draws_per_network": DRAWS,
                                   "jobs": self.jobs}  # fmt: skip
        ledger = self.ledger
        return Report(
            findings=ledger.sorted_findings("new"), known=ledger.sorted_findings("known"),
            conventions=ledger.sorted_findings("convention"), stale=KnownList().stale(ledger.reached, ledger.met),
            tallies=ledger.tallies, skipped=ledger.skipped, self_test=replace(ledger.self_test), environment=environment(),
            options=options, coverage=ledger.coverage, cases=ledger.cases, interrupted=self.interrupted,
            seconds={**ledger.seconds, "total": time.perf_counter() - self.started},
        )  # fmt: skip


@lru_cache(maxsize=1)
def _examiner(options: Options) -> Examiner:
    return Examiner(*options)


def _work(options: Options, index: int, cases: tuple[Case, ...]) -> Ledger:
    """Examine one structure in a worker process, whose adapters are loaded once."""
    return _examiner(options).structure(index, cases)
