"""Progress of a run: a live line on a terminal, in a log a few plain lines, none when quiet."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from backproof.verify.run import Run
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["watch"]

FIRST_LINE, LONGEST_WAIT = 15.0, 300.0  # seconds; each plain line waits twice as long as the one before, and CI kills what is silent
REFRESHES = 2  # of the live line, in a second: what it takes is taken from the workers


@contextmanager
def watch(run: Run, *, quiet: bool = False) -> Iterator[Callable[[Run], None]]:
    """Yield what a run calls after each case."""
    if quiet:
        yield lambda _: None
    else:
        yield from _live(run) if sys.stderr.isatty() and not os.environ.get("CI") else _plain()


def _line(run: Run, elapsed: float) -> str:
    compared = sum(t.compared for t in run.ledger.tallies.values())
    return f"{compared:,} entries, {len(run.ledger.sorted_findings('new'))} findings, {run.ledger.cases / max(elapsed, 1e-9):.1f} cases/s"


def _live(run: Run) -> Iterator[Callable[[Run], None]]:
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=REFRESHES) as bar:
        task, due = bar.add_task("cases", total=run.total, state=""), 0.0

        def update(run: Run) -> None:
            nonlocal due
            now = time.perf_counter()
            if now >= due:
                due = now + 1 / REFRESHES
                bar.update(task, completed=run.ledger.cases, state=_line(run, now - run.started))

        yield update


def _plain() -> Iterator[Callable[[Run], None]]:
    wait = FIRST_LINE
    due = time.perf_counter() + wait

    def update(run: Run) -> None:
        nonlocal wait, due
        now = time.perf_counter()
        if now > due:
            wait = min(2 * wait, LONGEST_WAIT)
            due = now + wait
            elapsed = now - run.started
            left = f", about {elapsed / run.ledger.cases * (run.total - run.ledger.cases):.0f} s left" if run.total else ""
            sys.stderr.write(f"{run.ledger.cases}/{run.total or '?'} cases: {_line(run, elapsed)}{left}\n")

    yield update
