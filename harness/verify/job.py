"""What an executor is given to do: structures examined in a process of their own, so that a case that hangs or dies is a finding."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

from backproof.draw.shrinking import shrink
from backproof.judge.judgement import raised
from backproof.judge.known import KnownList
from backproof.process import STARTING, LostError, Worker
from backproof.reference.case import Case
from backproof.report.environment import environment
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.verify.examining import Examiner

__all__ = ["HARNESS", "TRIES", "WORKERS", "Work"]

HARNESS = "harness-failed"  # the code of a finding that is a failure of ours
FAILED = frozenset({"hung", "died", "memory", HARNESS})  # codes of cases that could not be examined
SHRINKING = 60.0  # seconds in which a smaller case is looked for that fails in the same way
TRIES = 3  # times that the same work is handed out, since who does it may be ended from outside
HERE = threading.local()  # its worker ends with its thread
WORKERS: MutableMapping[int, Worker] = WeakValueDictionary()
"""The process of each thread that examines."""


@dataclass(frozen=True)
class Work:
    """How cases are examined: on which adapters, in which precisions, with which seed, and within which limits.

    `seconds` are for one case on all adapters, `memory` is in bytes and for one process, `variables` go into its environment.
    """

    adapters: tuple[str, ...]
    precisions: tuple[str, ...]
    seed: int
    seconds: float
    memory: int | None = None
    variables: tuple[tuple[str, str], ...] = ()

    def examine(self, index: int, cases: Sequence[Case]) -> Ledger:
        """Return the ledger of a structure.

        Where that cannot be examined whole, it is examined on one adapter in one precision at a time: what fails then is a finding on
        the case it fails on, of which the cases after that are skipped, and the rest counts.
        """
        error: Exception = RuntimeError()
        for attempt in range(1, TRIES + 1):
            try:
                return Ledger.of(self._each(_draws, index, tuple(cases)))
            except LostError as lost:
                error = lost
                if lost.hung or attempt == TRIES:
                    break
            except Exception as unnamed:  # noqa: BLE001  (found again below, and named there)
                error = unnamed
                break
        return self._in_parts(index, cases, error)

    def _in_parts(self, index: int, cases: Sequence[Case], error: Exception) -> Ledger:
        draws = [Ledger() for _ in cases]
        for part in self._singly():
            done = 0
            try:
                for ledger in part._each(_draws, index, tuple(cases)):  # noqa: SLF001  (the same class)
                    draws[done].merge(ledger)
                    done += 1
            except Exception as single:  # noqa: BLE001  (what is looked for)
                finding = _failed(part, cases[done], single)
                draws[done].enter_error(finding)
                if left := len(cases) - done - 1:
                    draws[done].skipped[f"not run: the draw before it failed ({finding.diagnosis.code})"] += left
        if not any(finding.diagnosis.code in FAILED for draw in draws for finding in draw.found.values()):
            draws[0].enter_error(_failed(self, cases[0], error))
        for draw in draws:
            draw.cases = 1
        return Ledger.of(draws)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function returns in the process; raise LostError where that is lost again and again."""
        for _ in range(TRIES - 1):
            with suppress(LostError):
                return self._ready().call(self.seconds, function, *arguments)
        return self._ready().call(self.seconds, function, *arguments)

    def shrunk(self, finding: Finding) -> Finding:
        """Return a finding on the smallest case that shows it, with the options that it needs."""
        if finding.diagnosis.code in FAILED:
            return self._still_failing(finding)
        found = [finding]
        with suppress(Exception):  # a smaller case hangs, dies or is beyond us: what was found before stands
            found.extend(self._each(_shrunk, finding))
        return found[-1]

    def _still_failing(self, finding: Finding) -> Finding:
        """Return a finding of a case that could not be examined on the smallest one that fails in the same way."""
        work = replace(self, adapters=tuple(finding.adapter.split(", ")), precisions=(finding.precision,))
        found = {finding.case: finding}

        def shows(case: Case) -> bool:
            try:
                Ledger.of(work._each(_draws, 0, (case,)))  # noqa: SLF001  (the same class)
            except Exception as error:  # noqa: BLE001  (what is looked for)
                found[case] = replace(_failed(work, case, error), count=finding.count)
                return found[case].diagnosis.code == finding.diagnosis.code
            return False

        return found[shrink(finding.case, shows, seconds=SHRINKING)]

    def environment(self) -> dict[str, str]:
        """Return the environment that cases are run in; raise what keeps an adapter from being loaded."""
        return dict(self.call(environment))

    def _each(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        return self._ready().each(self.seconds, function, self.adapters, self.precisions, self.seed, *arguments)

    def _ready(self) -> Worker:
        """Return the process of this thread, with its frameworks loaded: no case pays for that. One of other limits is replaced."""
        limits = self.memory, dict(self.variables)
        worker: Worker | None = getattr(HERE, "worker", None)
        if worker is None or (worker.memory, worker.environment) != limits:
            if worker is not None:
                worker.close()
            worker = HERE.worker = WORKERS[threading.get_ident()] = Worker(*limits)
        if worker.process is None:
            worker.call(STARTING, _load, self.adapters, self.precisions, self.seed)
        return worker

    def _singly(self) -> Iterator[Work]:
        for adapter in self.adapters:
            for precision in self.precisions:
                yield replace(self, adapters=(adapter,), precisions=(precision,))


def _failed(work: Work, case: Case, error: Exception) -> Finding:
    """Return a finding that says that a case could not be examined, and why."""
    if isinstance(error, LostError):
        code, said = "hung" if error.hung else "died", str(error)
    elif isinstance(error, MemoryError):
        code, said = "memory", f"out of memory: {error}"
    else:
        code, said = HARNESS, f"the harness itself failed, a bug of ours: {type(error).__name__}: {error}"
    together = "" if len(work.adapters) == len(work.precisions) == 1 else ", only where adapters and precisions follow each other"
    precision = work.precisions[0]
    layers = (step.layer for step in case.network.steps)
    known = KnownList().raised(work.adapters[0], precision, layers, said) if not together else None
    judgement = raised(case.network, "", said + together, code=code, known=known)
    return Finding.of(judgement, subject=", ".join(work.adapters), precision=precision, case=replace(case, precision=precision))


@lru_cache(maxsize=1)
def _examiner(adapters: tuple[str, ...], precisions: tuple[str, ...], seed: int) -> Examiner:
    return Examiner(adapters, precisions, seed)


def _load(adapters: tuple[str, ...], precisions: tuple[str, ...], seed: int) -> None:
    _examiner(adapters, precisions, seed)


def _draws(adapters: tuple[str, ...], precisions: tuple[str, ...], seed: int, index: int, cases: tuple[Case, ...]) -> Iterator[Ledger]:
    yield from _examiner(adapters, precisions, seed).draws(index, cases)


def _shrunk(adapters: tuple[str, ...], precisions: tuple[str, ...], seed: int, finding: Finding) -> Iterator[Finding]:
    examiner = _examiner(adapters, precisions, seed)
    small = examiner.smallest(finding)
    yield small
    yield examiner.with_options(small)
