"""How far each entry of a tensor is from its bound: a heat map of the excess, and the numbers around the worst entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import drawsvg
import numpy as np
from backproof.finding import Finding
from backproof.reference.rounding import quiet
from markupsafe import Markup

__all__ = ["HeatMap", "Level", "Window", "heat_map", "window"]

LEVELS = ("up to 0.1", "0.1 to 0.5", "0.5 to 1", "1 to 10", "10 to 1e4", "1e4 to 1e8", "over 1e8", "not finite", "nothing claimed")
EDGES = (0.1, 0.5, 1.0, 10.0, 1e4, 1e8)
AGREES, OUTSIDE, NOT_FINITE, OPEN = 2, 3, 7, 8  # the last level that agrees, the first that does not, and the two without a number
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
    levels = _levels(finding)
    if levels is None or levels.size < 2:
        return None
    split = _split(levels.ndim)
    flat = _flat(levels)
    cells = _worst(flat)
    block = " × ".join(str(-(-n // m)) for n, m in zip(flat.shape, cells.shape, strict=True))
    blocks = "" if cells.shape == flat.shape else f"the worst of a block of up to {block} entries"
    place = np.ravel_multi_index(finding.index, levels.shape) if levels.ndim else 0
    row, column = (int(at * m // n) for at, n, m in zip(divmod(int(place), flat.shape[1]), flat.shape, cells.shape, strict=True))
    counts = np.bincount(levels.ravel(), minlength=len(LEVELS))
    found = tuple(Level(n, label, int(counts[n])) for n, label in enumerate(LEVELS) if counts[n])
    return HeatMap(_svg(cells, row, column), found, _axes(levels.shape, 0, split), _axes(levels.shape, split, levels.ndim), blocks)


def window(finding: Finding) -> Window | None:
    """Return the numbers around the worst entry, to as many digits as tell them apart; None where they are not at hand."""
    levels, certificate = _levels(finding), finding.certificate
    if levels is None or certificate is None or certificate.actual is None or certificate.ball is None:
        return None
    split, flat = _split(levels.ndim), _flat(levels)
    place = np.ravel_multi_index(finding.index, levels.shape) if levels.ndim else 0
    row, column = divmod(int(place), flat.shape[1])
    rows, columns = (range(max(0, at - AROUND), min(n, at + AROUND + 1)) for at, n in zip((row, column), flat.shape, strict=True))
    actual, expected = (_flat(np.asarray(a)).astype(np.float64) for a in (certificate.actual, certificate.ball.value))
    digits = _digits(finding.actual, finding.expected)

    def entry(i: int, j: int) -> tuple[str, str, bool, bool]:
        outside = OUTSIDE <= int(flat[i, j]) <= NOT_FINITE
        return f"{actual[i, j]:.{digits}g}", f"{expected[i, j]:.{digits}g}", outside, (i, j) == (row, column)

    return Window(tuple(_place(j, levels.shape[split:]) for j in columns),
                  tuple((_place(i, levels.shape[:split]), tuple(entry(i, j) for j in columns)) for i in rows))  # fmt: skip


def _levels(finding: Finding) -> np.ndarray | None:
    """Return the level of excess of every entry, as the certificate judges them."""
    certificate = finding.certificate
    if certificate is None or certificate.actual is None or certificate.ball is None or certificate.verdict == "error":
        return None
    value = certificate.ball.value
    if certificate.actual.shape != value.shape or len(finding.index) != value.ndim or not value.size:
        return None
    with quiet():
        bound = certificate.ball.radius()
        difference = np.abs(certificate.actual.astype(np.float64) - value)
        excess = np.where(difference == 0, 0.0, difference / bound)
        known = np.isfinite(value) & np.isfinite(bound)
        levels = np.searchsorted(EDGES, excess, side="left")
    return np.where(known, np.where(np.isfinite(difference), levels, NOT_FINITE), OPEN)


def _split(axes: int) -> int:
    """Return how many axes are laid along the rows: examples, or with more axes than two examples and channels or times."""
    return min(axes - 1, 1 if axes <= 2 else 2) if axes else 0


def _flat(array: np.ndarray) -> np.ndarray:
    split = _split(array.ndim)
    return array.reshape(math.prod(array.shape[:split]), math.prod(array.shape[split:]))


def _worst(levels: np.ndarray) -> np.ndarray:
    """Return the map, each cell the worst level of its block; an entry of which nothing is claimed counts least."""
    ranked = np.where(levels == OPEN, -1, levels)
    for axis, most in enumerate((ROWS, COLUMNS)):
        size = ranked.shape[axis]
        if size > most:
            starts = -(-np.arange(most) * size // most)  # so that entry i falls into block i * most // size
            ranked = np.maximum.reduceat(ranked, starts, axis=axis)
    return np.where(ranked < 0, OPEN, ranked)


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


def _axes(shape: tuple[int, ...], start: int, stop: int) -> str:
    if start == stop:
        return "one"
    sizes = " × ".join(map(str, shape[start:stop]))
    return f"ax{'is' if stop - start == 1 else 'es'} {', '.join(map(str, range(start, stop)))} (size {sizes})"


def _place(at: int, shape: tuple[int, ...]) -> str:
    return "".join(f"[{int(i)}]" for i in np.unravel_index(at, shape)) if shape else ""


def _digits(actual: float, expected: float) -> int:
    """Return how many digits tell two numbers apart, with one more."""
    largest = max(abs(actual), abs(expected))
    if not math.isfinite(actual) or not math.isfinite(expected) or actual == expected:
        return 6
    return min(17, max(4, 2 + math.ceil(-math.log10(abs(actual - expected) / largest))))
