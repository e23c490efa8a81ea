"""Progress of a run: a live line on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .run import Run

__all__ = ["watch"]

LINE_EVERY = 15.0  # seconds between plain lines


@contextmanager
def watch(run: Run) -> Iterator[Callable[[Run], None]]:
    """Yield what a run calls after each case."""
    yield from _live(run) if sys.stderr.isatty() else _plain()


def _line(run: Run, elapsed: float) -> str:
    compared = sum(t.compared for t in run.ledger.tallies.values())
    return f"{compared:,} entries, {len(run.ledger.sorted_findings('new'))} findings, {run.ledger.cases / max(elapsed, 1e-9):.1f} cases/s"


def _live(run: Run) -> Iterator[Callable[[Run], None]]:
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("cases", total=run.total, state="")
        yield lambda r: bar.update(task, completed=r.ledger.cases, state=_line(r, time.perf_counter() - r.started))


def _plain() -> Iterator[Callable[[Run], None]]:
    shown = time.perf_counter()

    def update(run: Run) -> None:
        nonlocal shown
        now = time.perf_counter()
        if now - shown > LINE_EVERY:
            shown = now
            elapsed = now - run.started
            left = f", about {elapsed / run.ledger.cases * (run.total - run.ledger.cases):.0f} s left" if run.total else ""
            sys.stderr.write(f"{run.ledger.cases}/{run.total or '?'} cases: {_line(run, elapsed)}{left}\n")

    yield update
