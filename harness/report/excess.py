"""How far each entry of a tensor is from its bound, laid out as a map of rows and columns, also in characters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from backproof.reference.rounding import quiet
from backproof.report.finding import Finding

__all__ = ["AGREES", "LEVELS", "NOT_FINITE", "OPEN", "OUTSIDE", "Map", "flat", "levels_of", "rows_of", "text_map"]

LEVELS = ("up to 0.1", "0.1 to 0.5", "0.5 to 1", "1 to 10", "10 to 1e4", "1e4 to 1e8", "over 1e8", "not finite", "nothing claimed")
EDGES = (0.1, 0.5, 1.0, 10.0, 1e4, 1e8)
AGREES, OUTSIDE, NOT_FINITE, OPEN = 2, 3, 7, 8  # the last level that agrees, the first that does not, and the two without a number
CHARACTERS = "...oxX#!?"  # one per level: what agrees is a dot
ONE = "one"  # row, where a tensor has one axis
LINES, WIDTH = 16, 64  # of a map in characters


@dataclass(frozen=True)
class Map:
    """The levels of a tensor in rows and columns; `rows` and `columns` say which axes they are, `block` what one cell stands for."""

    cells: np.ndarray
    rows: str
    columns: str
    block: str

    @classmethod
    def of(cls, levels: np.ndarray, most: tuple[int, int]) -> Map:
        """Lay levels out; of a tensor of more rows or columns than `most`, a cell is the worst entry of its block."""
        split, whole = rows_of(levels.ndim), flat(levels)
        cells = _worst(whole, most)
        block = " × ".join(str(-(-n // m)) for n, m in zip(whole.shape, cells.shape, strict=True))
        return cls(cells, _axes(levels.shape, 0, split), _axes(levels.shape, split, levels.ndim),
                   "" if cells.shape == whole.shape else f"the worst of a block of up to {block} entries")


def text_map(finding: Finding) -> str:
    """Return the map in characters with its legend; nothing where its numbers are not at hand, or there is only one."""
    levels = levels_of(finding)
    if levels is None or levels.size < 2:
        return ""
    drawn = Map.of(levels, (LINES, WIDTH))
    lines = ["".join(CHARACTERS[level] for level in row) for row in drawn.cells]
    words = {CHARACTERS[level]: LEVELS[level] for level in np.unique(drawn.cells) if level > AGREES}
    legend = ", ".join(f"{sign} {label}" for sign, label in ((".", "agrees"), *words.items()))
    rows = "" if drawn.rows == ONE else f"rows are {drawn.rows}, "
    block = f"; each sign is {drawn.block}" if drawn.block else ""
    return "\n".join((f"excess by entry: {rows}columns are {drawn.columns}{block}", *lines, legend))


def levels_of(finding: Finding) -> np.ndarray | None:
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


def rows_of(axes: int) -> int:
    """Return how many axes are laid along the rows: examples, or with more axes than two examples and channels or times."""
    return min(axes - 1, 1 if axes <= 2 else 2) if axes else 0


def flat(array: np.ndarray) -> np.ndarray:
    """Return a tensor as rows and columns."""
    split = rows_of(array.ndim)
    return array.reshape(math.prod(array.shape[:split]), math.prod(array.shape[split:]))


def _worst(levels: np.ndarray, most: tuple[int, int]) -> np.ndarray:
    """Return the map, each cell the worst level of its block; an entry of which nothing is claimed counts least."""
    ranked = np.where(levels == OPEN, -1, levels)
    for axis, limit in enumerate(most):
        size = ranked.shape[axis]
        if size > limit:
            starts = -(-np.arange(limit) * size // limit)  # so that entry i falls into block i * limit // size
            ranked = np.maximum.reduceat(ranked, starts, axis=axis)
    return np.where(ranked < 0, OPEN, ranked)


def _axes(shape: tuple[int, ...], start: int, stop: int) -> str:
    if start == stop:
        return ONE
    sizes = " × ".join(map(str, shape[start:stop]))
    return f"ax{'is' if stop - start == 1 else 'es'} {', '.join(map(str, range(start, stop)))} (size {sizes})"
