"""What was compared at a glance: one square for each tensor of a layer, by adapter and precision, coloured by its margin."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from urllib.parse import urlencode

from backproof.report.results import Results, Tally

__all__ = ["LABELS", "Matrix", "Square", "below", "matrix"]

EDGES = (0.1, 0.25, 0.5, 0.75)
LABELS = ("up to 0.1", "to 0.25", "to 0.5", "to 0.75", "to 1")
OUTPUTS = frozenset({"output", "y"})


@dataclass(frozen=True)
class Square:
    """One tensor: its class and mark, what is said of it, and where its finding is, if it has one."""

    style: str
    mark: str
    sentence: str
    link: str = ""


@dataclass(frozen=True)
class Matrix:
    """The columns, adapter and precision, and for each layer its squares in each column."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, tuple[tuple[Square, ...], ...]], ...]


def matrix(report: Results) -> Matrix:
    """Return the tallies of a report by layer, the output of each first, then its gradients."""
    columns = tuple(dict.fromkeys((adapter, precision) for adapter, precision, _, _ in report.tallies))
    tensors = {(f.subject, f.layer, f.tensor) for f in (*report.findings, *report.known, *report.conventions)}
    cells: dict[str, dict[tuple[str, str], list[tuple[str, Square]]]] = {}
    for (adapter, precision, layer, tensor), tally in report.tallies.items():
        link = ""
        if (adapter, layer, tensor) in tensors:
            link = f"#{urlencode({'layer': layer, 'tensor': tensor, 'adapter': adapter})}"
        cells.setdefault(layer, {}).setdefault((adapter, precision), []).append((tensor, _square(tensor, tally, link)))
    return Matrix(columns, tuple((layer, tuple(_ordered(row.get(column, [])) for column in columns))
                                 for layer, row in sorted(cells.items())))


def _ordered(squares: list[tuple[str, Square]]) -> tuple[Square, ...]:
    return tuple(square for _, square in sorted(squares, key=lambda pair: (pair[0] not in OUTPUTS, not pair[0].startswith("dx"), pair[0])))


def _square(tensor: str, tally: Tally, link: str) -> Square:
    if tally.outside or not math.isfinite(tally.margin):
        return Square("outside", "×", f"{tensor}: {tally.outside:,} of {tally.compared:,} entries outside", link)
    if not tally.compared or tally.inconclusive == tally.compared:
        return Square("nothing", "?", f"{tensor}: nothing could be said of {tally.compared:,} entries", link)
    margin = f"margin {below(tally.margin)} over {tally.compared:,} entries"
    style = f"m{bisect_left(EDGES, tally.margin)}"
    if tally.conventions:
        return Square(style, "~", f"{tensor}: {margin}, {tally.conventions:,} of them by another convention", link)
    return Square(style, "", f"{tensor}: {margin}", link)


def below(margin: float) -> str:
    """Return a margin to three decimals, cut and not rounded: one that agrees never reads as 1 where it is less."""
    return f"{math.floor(1000 * margin) / 1000:.3f}" if math.isfinite(margin) else str(margin)
