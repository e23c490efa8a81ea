"""Two reports compared: what got worse, what moved towards a bug, what is no longer looked at, what got better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backproof.compare.rules import WEIGHTS, Line, coverage, findings, margins, rest
from backproof.compare.summary import RunSummary

__all__ = ["Diff", "compare", "compare_reports"]

SCHEMA = 1


@dataclass(frozen=True)
class Diff:
    """What became of one run in another: the lines, the heaviest first; what the runs did otherwise, and versions that differ."""

    old: RunSummary
    new: RunSummary
    lines: tuple[Line, ...]
    runs: tuple[str, ...]
    versions: Mapping[str, tuple[str, str]]

    def of(self, weight: str) -> tuple[Line, ...]:
        """Return the lines of a weight."""
        return tuple(line for line in self.lines if line.weight == weight)

    @property
    def worse(self) -> bool:
        """Whether something got worse."""
        return bool(self.of("worse"))

    @property
    def verdict(self) -> str:
        """One sentence: what there is of each weight."""
        counts = [f"{len(lines)} {what}" for weight, what in (("worse", "worse"), ("warning", "to look at"), ("better", "better"))
                  if (lines := self.of(weight))]
        return f"{'WORSE' if self.worse else 'NOT WORSE'}: {', '.join(counts) or ('nothing worse' if self.lines else 'no difference')}"

    def describe(self) -> dict[str, Any]:
        """Return the comparison as JSON-ready data, as docs/ci.md documents it."""
        sides = {side.name: {"source": side.source, "cases": side.cases} for side in (self.old, self.new)}
        return {"schema": SCHEMA, "worse": self.worse, "verdict": self.verdict, "sides": sides, "runs": list(self.runs),
                "versions": {name: list(pair) for name, pair in self.versions.items()}, "lines": [line.describe() for line in self.lines]}


def compare_reports(old: Mapping[str, Any], new: Mapping[str, Any], sources: tuple[str | Path, str | Path] = ("", "")) -> Diff:
    """Compare the data of two reports."""
    return compare(RunSummary.of(old, "OLD", str(sources[0])), RunSummary.of(new, "NEW", str(sources[1])))


def compare(old: RunSummary, new: RunSummary) -> Diff:
    """Compare the summaries of two runs.

    A finding is the same where adapter, layer, tensor and verdict are. Its seed, case, excess, count, precision and diagnosis and the
    version of the framework are evidence. Where both runs drew the same cases no difference is chance; otherwise what
    chance explains is only noted.
    """
    order = tuple(WEIGHTS)
    lines = [*findings(old, new), *rest(old, new), *coverage(old, new), *margins(old, new)]
    versions = {name: (old.versions.get(name, "none"), new.versions.get(name, "none")) for name in {**old.versions, **new.versions}
                if old.versions.get(name) != new.versions.get(name)}
    return Diff(old, new, tuple(sorted(lines, key=lambda line: order.index(line.weight))), tuple(_runs(old, new)), versions)


def _runs(old: RunSummary, new: RunSummary) -> Iterator[str]:
    """Say what was asked of the two runs that is not the same."""
    for here, there in ((old, new), (new, old)):
        for what in ("adapters", "precisions"):
            if only := [name for name in getattr(here, what) if name not in getattr(there, what)]:
                yield f"{here.name} compared {', '.join(only)}, {there.name} did not"
    if old.layers != new.layers:
        yield f"{old.name} drew {_named(old.layers)}, {new.name} {_named(new.layers)}"
    if old.cases != new.cases:
        yield f"{new.name} is {'smaller' if new.cases < old.cases else 'larger'}: {new.cases:,} cases, {old.name} {old.cases:,}"
    for what in ("seed", "draws", "like"):
        if old.sampling[what] != new.sampling[what]:
            yield f"another {what}: {old.name} {old.sampling[what]}, {new.name} {new.sampling[what]}"
    yield from (f"{side.name} was interrupted" for side in (old, new) if side.interrupted)
    if not new.paired(old):
        yield "the cases are others: margins, and what is rarely met, differ by chance"


def _named(layers: tuple[str, ...]) -> str:
    return f"only {', '.join(layers)}" if layers else "all layers"
