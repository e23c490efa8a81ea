"""Under which conditions a finding shows: the simplest probe that shows it, and what it still needs, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from math import prod
from typing import Any

import numpy as np
from backproof.adapters.calls import PLAIN
from backproof.draw.probe import Condition, Probe
from backproof.judge.directional import DIRECTIONAL
from backproof.reference.layer import Shape

__all__ = ["condition", "simpler", "where"]

IN_MEMORY = {
    "transposed": "transposed in memory", "stepped": "every second place of their storage", "channels last": "channels last in memory",
    "rows expanded": "one row expanded, with stride 0", "expanded": "one number expanded, with stride 0: what the gradient of a sum is",
}
REFINEMENTS = 3
FEW_SHAPES = 12
DEGENERATE = 2  # sizes up to which many a gradient is zero whatever the rule
SEVERAL = 3  # layouts that show the same, from which on it is not one of them
REGIMES = {
    "zeros": "where inputs or parameters are all zero", "kinks": "where inputs lie exactly on a knee, at 0, 1 or -1, say",
    "ties": "where values are equal", "saturated": "for large inputs", "tiny": "for tiny numbers, down to the subnormal ones",
    "wide-range": "where numbers of very different size meet",
}


def simpler(shapes: Sequence[tuple[Shape, ...]]) -> Callable[[Probe], Iterator[Probe]]:
    """Return what yields simpler probes than a given one, boldest first; `shapes` are those that the layer takes."""
    by_size = sorted(shapes, key=lambda every: (sum(int(np.prod(shape)) for shape in every), every))

    def smaller(probe: Probe) -> Iterator[Probe]:
        for part in fields(Condition):
            if getattr(probe.condition, part.name) != part.default:
                plain: dict[str, Any] = {part.name: part.default}
                yield replace(probe, condition=replace(probe.condition, **plain))
        if probe.regime != "normal":
            yield replace(probe, regime="normal")
        for batch in sorted({1, 2, probe.batch // 2}):
            if 0 < batch < probe.batch:
                yield replace(probe, batch=batch)
        few = [s for s in by_size if replace(probe, shapes=s).size < probe.size]
        yield from (replace(probe, shapes=s) for s in few[:8])
        if probe.seed > 3:
            yield from (replace(probe, seed=seed) for seed in range(4))

    return smaller


def condition(probe: Probe, shows: Callable[[Probe], bool], modes: dict[str, str], place: str,
              shapes: Sequence[tuple[Shape, ...]] = ()) -> str:
    """Say what a probe that cannot be made simpler still needs for its finding to show; nothing where it shows on any input.

    `modes` are the driver's words for its modes; `place` says for which values of the inputs, where that is known; `shapes` are those
    that the layer takes.
    """
    how, found = probe.condition, []
    for part, words in (("layout", "inputs that are"), ("upstream", "an upstream gradient that is")):
        if (own := getattr(how, part)) != "dense":
            every = [name for name in IN_MEMORY if name == own or shows(_in_layout(probe, part, name))]
            found.append(f"for {words} {_laid(every)}".replace("their", "its" if part == "upstream" else "their"))
    if how.mode not in {PLAIN, *DIRECTIONAL}:  # a derivative along a direction shows nowhere else
        found.append(modes[how.mode])
    if how.alone is not None:
        name = how.alone if isinstance(how.alone, str) else probe.layer.input_names[how.alone]
        found.append(f"when {name} is the only array that requires a gradient")
    if place or probe.regime != "normal":
        found.append(place or REGIMES[probe.regime])
    if probe.batch == 0:
        found.append("for an empty batch")
    elif probe.batch > 1 and not shows(replace(probe, batch=1)):
        found.append("for a batch of more than one example")
    elif not found and (sizes := _sizes(probe, shows, shapes)):
        found.append(sizes)
    return f"only {', and '.join(found)}" if found else ""


def _in_layout(probe: Probe, part: str, layout: str) -> Probe:
    """Return the probe with another layout, and a batch that has one."""
    other: dict[str, Any] = {part: layout}
    return replace(probe, batch=max(3, probe.batch), condition=replace(probe.condition, **other))


def _sizes(probe: Probe, shows: Callable[[Probe], bool], shapes: Sequence[tuple[Shape, ...]]) -> str:
    """Say for which sizes of the first input's last axis, or of all its entries, a finding shows, where that decides."""
    tried = [every for every in shapes if len(every[0]) == len(probe.shapes[0])][:FEW_SHAPES]
    shown = {every: shows(replace(probe, shapes=every)) for every in tried}
    if all(shown.values()):
        return ""
    sizes: dict[str, Callable[[tuple[Shape, ...]], int]] = {
        "a last axis of": lambda every: every[0][-1] if every[0] else 1,
        "examples whose number of entries is": lambda every: prod(every[0]),
    }
    for words, size in sizes.items():
        bad, good = ({size(every) for every, shows_it in shown.items() if shows_it is which} for which in (True, False))
        if bad and not bad & good and max(good) > DEGENERATE:
            return f"for {words} {_some(bad)}, not of {_some(good)}"
    return ""


def _some(sizes: set[int]) -> str:
    listed = sorted(sizes)[:6]
    return ", ".join(map(str, listed)) + (", ..." if len(sizes) > len(listed) else "")


def _laid(layouts: Sequence[str]) -> str:
    """Say in words what several layouts have in common."""
    if len(layouts) >= SEVERAL:
        return f"not contiguous in memory ({', '.join(layouts)})"
    return " or ".join(IN_MEMORY[name] for name in layouts)


def where(numbers: np.ndarray, outside: np.ndarray, evaluate: Callable[[np.ndarray], np.ndarray]) -> str:
    """Say for which inputs an entry-by-entry layer is off, from numbers and which of them are; nothing where no rule is seen.

    `evaluate` says of other numbers which are off: the end of a range is looked for between two of them.
    """
    wrong, right = numbers[outside], numbers[~outside]
    if not wrong.size or not right.size:
        return ""
    points = np.unique(wrong)
    if points.size <= 2 and not np.isin(points, right).any():
        return f"at x = {' and '.join(f'{p:.6g}' for p in points)}"
    ranges = {
        "for x from about {:.4g} on": (right.max(), wrong.min()),
        "for |x| from about {:.4g} on": (np.abs(right).max(), np.abs(wrong).min()),
        "for x up to about {:.4g}": (-right.min(), -wrong.max()),
        "for |x| up to about {:.4g}": (-np.abs(right).min(), -np.abs(wrong).max()),
    }
    for words, (inside, beyond) in ranges.items():
        if beyond > inside:
            sign = -1.0 if "up to" in words else 1.0
            return words.format(sign * _end(sign, inside, beyond, evaluate))
    low, high = wrong.min(), wrong.max()
    if ((right > low) & (right < high)).any():
        return ""
    ends = _end(1.0, right[right < low].max(), low, evaluate), -_end(-1.0, -right[right > high].min(), -high, evaluate)
    return "for x between about {:.4g} and {:.4g}".format(*ends)


def _end(sign: float, inside: float, beyond: float, evaluate: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return where numbers, times `sign`, begin to be off, between one that is not and a larger one that is."""
    for _ in range(REFINEMENTS):
        tried = np.linspace(inside, beyond, 64)
        off = evaluate(sign * tried)
        first = int(np.argmax(off)) if off.any() else 63
        inside, beyond = (tried[first - 1] if first else inside), tried[first]
    return float(beyond)
