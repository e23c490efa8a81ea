"""What the benchmarks share: Markdown tables, and the generated sections of docs/benchmarks.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from backproof.report.environment import environment

__all__ = ["TARGET", "conditions", "milliseconds", "note", "share", "table", "typical", "write"]

TARGET = Path(__file__).parent.parent / "docs" / "benchmarks.md"
TITLE = "# Benchmarks\n\nEach section is written by the script it names; figures to be compared come from one run.\n"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"


def share(part: int, whole: int) -> str:
    """Return `part/whole`, a dash where nothing was tried."""
    return f"{part}/{whole}" if whole else "-"


def typical(seconds: Sequence[float]) -> str:
    """Return the median of some durations in milliseconds."""
    return milliseconds(median(seconds)) if seconds else "-"


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def conditions() -> str:
    """Return one line that says what the figures were measured on."""
    found = environment()
    names = ("python", "numpy", "torch", "jax", "cpu", "cores", "torch threads", "OMP_NUM_THREADS")
    load = os.getloadavg()[0]
    return "Measured on: " + ", ".join(f"{n} {found[n]}" for n in names if n in found) + f", load {load:.1f} at the end.\n"


def note(text: str) -> None:
    """Tell the terminal, if there is one, how far a run is; nothing of it enters the results."""
    if sys.stderr.isatty():
        print(f"\r{text:<100}", end="", file=sys.stderr, flush=True)


def write(section: str, text: str) -> None:
    """Put the text between the section's markers in docs/benchmarks.md, at the end where the section is new."""
    begin, end = f"<!-- begin {section} -->", f"<!-- end {section} -->"
    old = TARGET.read_text(encoding="utf-8") if TARGET.exists() else TITLE
    block = f"{begin}\n\n{text.strip()}\n\n{end}"
    if begin in old:
        before, rest = old.split(begin, 1)
        new = before + block + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(new, encoding="utf-8")
    print(f"wrote section {section} of {TARGET}", file=sys.stderr)
