"""The main job: random networks through every adapter, in this process or several, into one report."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from backproof.adapters import Adapter, lowering
from backproof.adapters.framework import default_adapters
from backproof.draw.strategies import checked
from backproof.draw.structures import BLOCK, DRAWS, Drawing, Later
from backproof.judge.known import KnownList
from backproof.reference.case import Case
from backproof.reference.usage import UsageError
from backproof.report.environment import environment
from backproof.report.ledger import Ledger
from backproof.report.report import Report
from backproof.verify.campaign import Campaign
from backproof.verify.examining import Examiner
from backproof.verify.executor import Engine, Limits
from backproof.verify.store import Examined

__all__ = ["Run", "run_all", "verify"]

SHRINKING = 300.0  # seconds in which findings are brought to their smallest cases; what is left then stays on the case it was found on

ADAPTERS, CASES, PRECISIONS = default_adapters(), 200, ("float64", "float32")
DEFAULTS = {"adapters": ADAPTERS, "cases": CASES, "seed": 0, "precisions": PRECISIONS, "layers": None}

Progress = Callable[["Run"], None]
"""Called after each structure."""


def verify(*, adapters: Sequence[str | Adapter] = ADAPTERS, cases: int | None = CASES, seed: int = 0,
           precisions: Sequence[str] = PRECISIONS, layers: Sequence[str] | None = None, reports: str | Path | None = "reports",
           jobs: int = 1, minutes: float | None = None, scheduler: str | Executor | None = None, timeout: float | None = None,
           memory: float | None = None, resume: str | Path | None = None, progress: Progress | None = None) -> Report:
    """Check frameworks over random networks.

    Parameters
    ----------
    adapters : sequence of str or Adapter
        Frameworks and modes, such as ``"torch"`` or ``"jax:jit"``, or objects with a ``name`` and ``run(case) -> Trace``. Default: those
        of the registered frameworks that name one.
    cases : int or None, default 200
        How many draws of values, four of them through each network; every case runs on every adapter in every precision. None goes on
        until ``minutes`` are over.
    seed : int, default 0
        What networks and values are drawn from; at least 0. The same seed gives the same cases and the same verdicts, however many jobs.
    precisions : sequence of str, default ("float64", "float32")
        ``"float16"`` and ``"bfloat16"`` too.
    layers : sequence of str or None, default None
        Draw stacks of these layers only; None draws all.
    reports : str, pathlib.Path or None, default "reports"
        A folder below which the report is written; None writes nothing.
    jobs : int, default 1
        Worker processes. With one, and none of the next three, all happens in this process.
    minutes : float or None, default None
        Draw no further case after so many minutes.
    scheduler : str, concurrent.futures.Executor or None, default None
        The address of a Dask scheduler, or an executor that makes ``jobs`` calls at a time.
    timeout : float or None, default None
        Seconds that one case may take on all adapters; a case that takes longer, or ends its process, is a finding.
    memory : float or None, default None
        GiB that one process may hold. None: its share of the machine's, where there are processes of their own.
    resume : str, pathlib.Path or None, default None
        The folder of a campaign to go on with; what is left at its default is as it was begun with.
    progress : callable or None, default None
        Called with the run after each network.

    Returns
    -------
    Report
        ``report.ok`` says whether nothing unexplained was found and every planted mistake was; ``report.findings`` holds what was.

    Raises
    ------
    UsageError
        A ValueError, and a TypeError where a type is wrong: an unknown adapter, layer or precision, a number out of range, a folder that is
        no campaign.
    MissingFrameworkError
        An ImportError: the framework of an adapter is not installed.
    OSError
        If nothing can be written, or no scheduler answers.

    Examples
    --------
    >>> import backproof as bp
    >>> report = bp.verify(adapters=["torch"], cases=8, layers=["Linear", "Tanh"], reports=None)
    >>> report.ok, report.compared > 0
    (True, True)
    """
    if jobs < 1:
        raise UsageError(f"verify needs at least one job: got {jobs}")
    limits = Limits(Limits.seconds if timeout is None else timeout, None if memory is None else int(memory * 2**30))
    campaign = Campaign.resume(Path(resume)) if resume is not None else None
    made_of: dict[str, Any] = {"adapters": adapters, "cases": cases, "seed": seed, "precisions": precisions, "layers": layers}
    with campaign or nullcontext():
        if campaign is not None:
            made_of |= {name: campaign.options[name] for name, default in DEFAULTS.items() if made_of[name] == default}
        here = jobs == 1 and scheduler is None and timeout is None and memory is None
        with nullcontext() if here else Engine.of(scheduler, jobs, limits) as engine:
            run = Run(minutes=minutes, engine=engine, **made_of)
            if campaign is None and reports is not None:
                campaign = Campaign.start(Path(reports))
            return run_all(run, progress or (lambda _: None), campaign)


def run_all(run: Run, progress: Progress, campaign: Campaign | None = None) -> Report:
    """Examine every case of a run and return its report, which a campaign keeps; Ctrl-C ends it with what was done."""
    with campaign or nullcontext():
        if campaign is not None:
            run.into(campaign)
        with _interrupts() as interrupted:
            try:
                for _ in run.parts():
                    progress(run)
                    if interrupted:
                        break
                else:
                    run.shrink()
            except KeyboardInterrupt:
                run.interrupted = True
            run.interrupted |= bool(interrupted)
        report = run.report()
        if campaign is not None:
            campaign.folder.write(report)
    return report


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield a list that is filled by Ctrl-C, which raises KeyboardInterrupt as ever.

    Python discards what is raised while a callback of its garbage collector runs, and Hypothesis has such a callback.
    """
    seen: list[int] = []

    def handler(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    mine = {number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is signal.default_int_handler}
    if threading.current_thread() is not threading.main_thread():
        mine = set()
    for number in mine:
        signal.signal(number, handler)
    try:
        yield seen
    finally:
        for number in mine:
            signal.signal(number, signal.default_int_handler)


class Run:
    """A run in progress: its options, its ledger and its clock."""

    def __init__(self, adapters: Sequence[str | Adapter], cases: int | None, seed: int, precisions: Sequence[str],
                 layers: Sequence[str] | None, minutes: float | None, engine: Engine | None = None) -> None:
        if cases is not None and cases < 1:
            raise UsageError(f"verify needs at least one case: got {cases}")
        if seed < 0:
            raise UsageError(f"verify needs a seed of at least 0: got {seed}")
        if minutes is not None and not minutes >= 0:
            raise UsageError(f"verify needs minutes of at least 0: got {minutes}")
        if layers is not None and not layers:
            raise UsageError("verify needs at least one layer: got an empty list")
        self.engine = engine
        if engine is not None and not all(isinstance(a, str) for a in adapters):
            raise UsageError("several jobs need adapters by name, since their processes load their own: got an adapter object")
        self.adapters, self.precisions, self.seed = tuple(adapters), tuple(precisions), seed
        self.total, self.families, self.minutes = cases, layers, minutes
        checked(layers)
        self.ledger, self.drawing, self.first = Ledger(), Drawing(seed, layers), 0
        self.campaign: Campaign | None = None
        self.interrupted = False
        self.started = time.perf_counter()
        if engine is None:
            self.examiner = Examiner(adapters, precisions, seed)
            self.environment, self.names = environment(), [adapter.name for adapter in self.examiner.adapters]
        else:
            self.work = engine.work([str(a) for a in adapters], precisions, seed)
            # every worker loads its frameworks at once, since none has anything else to do yet
            wanted = engine.workers if cases is None else min(engine.workers, -(-cases // DRAWS))
            first, *_ = [engine.submit(self.work.environment) for _ in range(wanted)]
            self.environment, self.names = first.result(), list(self.work.adapters)

    @property
    def options(self) -> dict[str, Any]:
        """What the run was asked for, as JSON-ready data."""
        return {"adapters": self.names, "precisions": list(self.precisions), "cases": self.total, "seed": self.seed,
                "layers": list(self.families) if self.families else None, "draws_per_network": DRAWS,
                "jobs": self.engine.workers if self.engine is not None else 1}

    def into(self, campaign: Campaign) -> None:
        """Have a campaign keep what is done from now on, and go on from where it stands."""
        campaign.begin(self.options, self.environment)
        self.campaign, self.first = campaign, campaign.store.structures
        if self.first:
            self.ledger, self.drawing = campaign.ledger(), Drawing(self.seed, self.families, campaign.store.fact("drawing"))
            lowered = {key: self._apart(lowering, finding.subject, type(finding.step.layer))
                       for key, finding in self.ledger.found.items() if finding.step is not None}
            self.ledger.found |= {key: replace(self.ledger.found[key], lowering=found.result()) for key, found in lowered.items()}

    def _apart(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Have a function called where the frameworks are loaded: by a worker, or in this process where there is none."""
        return Later(function, *arguments) if self.engine is None else self.engine.submit(self.work.call, function, *arguments)

    def examine(self, case: Case) -> None:
        """Examine one case by itself, in this process."""
        self._count(self.examiner.structure(0, [case]))

    def parts(self) -> Iterator[None]:
        """Examine the structures that are left and take them in, in order, until their number or the time is used up."""
        waiting: deque[tuple[int, Any, tuple[Case, ...], Any]] = deque()
        ahead = self.engine.ahead if self.engine is not None else 0
        for index, state, cases in self._structures():
            submit = Later if self.engine is None else self.engine.submit
            examine = self.examiner.structure if self.engine is None else self.work.examine
            waiting.append((index, state, cases, submit(examine, index, cases)))
            if len(waiting) > ahead:
                self._take(waiting)
                yield
        while waiting:
            self._take(waiting)
            yield

    def _structures(self) -> Iterator[tuple[int, Any, tuple[Case, ...]]]:
        """Yield the structures that are left with their cases, counting the time that drawing takes in this process."""
        wanted = None if self.total is None else -(-self.total // DRAWS)
        source = self.drawing.structures(self._apart, None if wanted is None else -(-wanted // BLOCK))
        while self.minutes is None or time.perf_counter() - self.started < 60 * self.minutes:
            start = time.perf_counter()
            index, state, cases = next(source, (wanted, None, ()))
            self.ledger.seconds["harness"] += time.perf_counter() - start
            if index == wanted or index is None:
                return
            if index >= self.first:
                yield index, state, cases if self.total is None else cases[: self.total - index * DRAWS]

    def _take(self, waiting: deque[tuple[int, Any, tuple[Case, ...], Any]]) -> None:
        """Wait for the first structure, keep it and those behind it that are done where there is a campaign, and count them."""
        done: list[Examined] = []
        while waiting and (not done or waiting[0][-1].done()):
            index, state, cases, part = waiting.popleft()
            done.append(Examined(index, index * DRAWS, cases, part.result(), state))
        if self.campaign is not None:
            self.campaign.add(done, self.ledger.found)
        for structure in done:
            self._count(structure.ledger)

    def _count(self, part: Ledger) -> None:
        part.certificates = []  # they name cases one by one, and would fill the memory
        self.ledger.merge(part)

    def shrink(self) -> None:
        """Rebuild each unexplained finding on the smallest case that shows it."""
        start = time.perf_counter()
        done = self.campaign.store.smallest() if self.campaign is not None else set()
        left = [(key, finding) for key, finding in self.ledger.found.items()
                if key not in done and not finding.known and finding.verdict not in {"convention", "nondeterministic"}]
        if self.engine is None:
            waiting: list[Any] = [Later(self.examiner.shrunk, finding) for _, finding in left]
        else:
            waiting = [self.engine.submit(self.work.shrunk, finding) for _, finding in left]
        for (key, finding), shrunk in zip(left, waiting, strict=True):
            if time.perf_counter() - start > SHRINKING:
                break
            smallest = shrunk.result()
            if self.campaign is not None:
                self.campaign.smallest(key, finding, smallest)
            self.ledger.found[key] = smallest
        self.ledger.seconds["reporting"] += time.perf_counter() - start

    def report(self) -> Report:
        """Return the report of what was done so far."""
        report = self.ledger.report(self.options, self.environment)
        return replace(report, stale=KnownList().stale(self.ledger.reached, self.ledger.met), interrupted=self.interrupted,
                       seconds={**report.seconds, "total": time.perf_counter() - self.started})
