"""How far each entry of a tensor is from its bound: a heat map of the excess, and the numbers around the worst entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import drawsvg
import numpy as np
from backproof.report.excess import LEVELS, NOT_FINITE, OUTSIDE, Map, flat, levels_of, rows_of
from backproof.report.finding import Finding
from markupsafe import Markup

__all__ = ["HeatMap", "Level", "Window", "heat_map", "window"]

ROWS, COLUMNS = 32, 64  # of the map; a larger tensor is reduced to the worst entry of each block
SEPARATE = 512  # cells up to which each is drawn by itself
WIDEST, CELL = 640, 22  # pixels
AROUND = 2  # entries on each side of the worst one


@dataclass(frozen=True)
class Level:
    """A class of excess, and how many entries are in it."""

    number: int
    label: str
    count: int


@dataclass(frozen=True)
class HeatMap:
    """The drawing with its legend; `rows` and `columns` say what they are, `blocks` how many entries one cell stands for."""

    svg: Markup
    levels: tuple[Level, ...]
    rows: str
    columns: str
    blocks: str


@dataclass(frozen=True)
class Window:
    """The numbers around the worst entry: for each row its place, and per entry (actual, expected, outside, worst)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str, bool, bool], ...]], ...]


def heat_map(finding: Finding) -> HeatMap | None:
    """Return the heat map of a finding's tensor; None where its numbers are not at hand, or there is only one."""
    levels = levels_of(finding)
    if levels is None or levels.size < 2:
        return None
    drawn, whole = Map.of(levels, (ROWS, COLUMNS)), flat(levels).shape
    place = np.ravel_multi_index(finding.index, levels.shape) if levels.ndim else 0
    row, column = (int(at * m // n) for at, n, m in zip(divmod(int(place), whole[1]), whole, drawn.cells.shape, strict=True))
    counts = np.bincount(levels.ravel(), minlength=len(LEVELS))
    legend = tuple(Level(n, label, int(counts[n])) for n, label in enumerate(LEVELS) if counts[n])
    return HeatMap(_svg(drawn.cells, row, column), legend, drawn.rows, drawn.columns, drawn.block)


def window(finding: Finding) -> Window | None:
    """Return the numbers around the worst entry, to as many digits as tell them apart; None where they are not at hand."""
    levels, certificate = levels_of(finding), finding.certificate
    if levels is None or certificate is None or certificate.actual is None or certificate.ball is None:
        return None
    split, whole = rows_of(levels.ndim), flat(levels)
    place = np.ravel_multi_index(finding.index, levels.shape) if levels.ndim else 0
    row, column = divmod(int(place), whole.shape[1])
    rows, columns = (range(max(0, at - AROUND), min(n, at + AROUND + 1)) for at, n in zip((row, column), whole.shape, strict=True))
    actual, expected = (flat(np.asarray(a)).astype(np.float64) for a in (certificate.actual, certificate.ball.value))
    digits = _digits(finding.actual, finding.expected)

    def entry(i: int, j: int) -> tuple[str, str, bool, bool]:
        outside = OUTSIDE <= int(whole[i, j]) <= NOT_FINITE
        return f"{actual[i, j]:.{digits}g}", f"{expected[i, j]:.{digits}g}", outside, (i, j) == (row, column)

    return Window(tuple(_place(j, levels.shape[split:]) for j in columns),
                  tuple((_place(i, levels.shape[:split]), tuple(entry(i, j) for j in columns)) for i in rows))


def _svg(cells: np.ndarray, row: int, column: int) -> Markup:
    rows, columns = cells.shape
    size = min(CELL, WIDEST / columns)
    picture = drawsvg.Drawing(columns, rows, viewBox=f"-.1 -.1 {columns + .2} {rows + .2}", aria_hidden="true")
    picture.set_render_size(f"{(columns + .2) * size:.0f}", f"{(rows + .2) * size:.0f}")
    separate = cells.size <= SEPARATE
    paths: dict[int, list[str]] = {}
    for i, line in enumerate(cells.tolist()):
        at = 0
        for level, run in groupby(line):
            length = len(list(run))
            wide = [(at + k, 1) for k in range(length)] if separate else [(at, length)]
            paths.setdefault(level, []).extend(f"M{j} {i}h{w}v1h-{w}z" for j, w in wide)
            at += length
    for level, path in sorted(paths.items()):
        picture.append(drawsvg.Path("".join(path), class_=f"e{level}{' cell' if separate else ''}"))
    picture.append(drawsvg.Rectangle(column, row, 1, 1, class_="worst"))
    return Markup(picture.as_svg(header="", skip_css=True, skip_js=True))  # noqa: S704  (numbers only)


def _place(at: int, shape: tuple[int, ...]) -> str:
    return "".join(f"[{int(i)}]" for i in np.unravel_index(at, shape)) if shape else ""


def _digits(actual: float, expected: float) -> int:
    """Return how many digits tell two numbers apart, with one more."""
    largest = max(abs(actual), abs(expected))
    if not math.isfinite(actual) or not math.isfinite(expected) or actual == expected:
        return 6
    return min(17, max(4, 2 + math.ceil(-math.log10(abs(actual - expected) / largest))))
