"""What a run found, what it compared, and what it skipped and why: the data that every form of a report shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backproof.judge.certificate import Certificate
from backproof.judge.verdicts import SEVERITY
from backproof.report.finding import Finding, number

__all__ = ["SCHEMA", "Counts", "Key", "Results", "SelfTest", "Tally"]

SCHEMA = 1

Key = tuple[str, str, str, str]
"""Adapter, precision, layer, tensor."""

Counts = tuple[int, int, int, int, float]
"""A tally as it is sent and kept: entries compared, conventions, inconclusive, outside; margin."""


@dataclass
class Tally:
    """What was compared of one tensor of one layer on one adapter in one precision, entries all."""

    compared: int = 0
    conventions: int = 0
    inconclusive: int = 0
    outside: int = 0
    margin: float = 0.0

    @classmethod
    def of(cls, certificate: Certificate) -> Tally:
        """Return the tally of one certificate."""
        c = certificate
        return cls(c.compared, c.conventions, c.inconclusive, c.outside, c.margin)

    @property
    def counts(self) -> Counts:
        return self.compared, self.conventions, self.inconclusive, self.outside, self.margin

    def merge(self, other: Tally) -> None:
        self.compared += other.compared
        self.conventions += other.conventions
        self.inconclusive += other.inconclusive
        self.outside += other.outside
        self.margin = max(self.margin, other.margin)


@dataclass
class SelfTest:
    """Mistakes planted into real traces: how many, how many the certificates caught, and blamed on the right layer and tensor.

    `hidden` counts those not planted because they lie within the rounding of a precision coarser than float64.
    """

    planted: int = 0
    caught: int = 0
    blamed: int = 0
    hidden: int = 0
    missed: list[str] = field(default_factory=list)
    by_mistake: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return self.caught == self.blamed == self.planted

    def merge(self, other: SelfTest) -> None:
        self.planted += other.planted
        self.caught += other.caught
        self.blamed += other.blamed
        self.hidden += other.hidden
        self.missed += other.missed
        self.by_mistake.update(other.by_mistake)


@dataclass(frozen=True)
class Results:
    """Everything a run says. `findings` are unexplained and worst first; `known` are explained ones, `conventions` valid subgradients."""

    findings: tuple[Finding, ...] = ()
    known: tuple[Finding, ...] = ()
    conventions: tuple[Finding, ...] = ()
    stale: tuple[str, ...] = ()
    tallies: Mapping[Key, Tally] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    self_test: SelfTest = field(default_factory=SelfTest)
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cases: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def compared(self) -> int:
        """How many entries were compared."""
        return sum(t.compared for t in self.tallies.values())

    @property
    def margin(self) -> float:
        """The largest excess that still agreed: how close a correct number came to its bound."""
        return max((t.margin for t in self.tallies.values()), default=0.0)

    @property
    def verdict(self) -> str:
        """The worst verdict of the run; `error` when nothing was compared."""
        if self.findings:
            return min((f.verdict for f in self.findings), key=SEVERITY.__getitem__)
        if not self.compared:
            return "error"
        if self.conventions:
            return "convention"
        return "inconclusive" if all(t.inconclusive == t.compared for t in self.tallies.values()) else "agrees"

    @property
    def ok(self) -> bool:
        """Whether nothing unexplained is worse than a convention, something was compared, and every planted mistake was caught."""
        return SEVERITY[self.verdict] >= SEVERITY["inconclusive"] and self.self_test.ok

    def describe(self) -> dict[str, Any]:
        """Return the report as JSON-ready data, as docs/report.md documents it."""
        return {
            "schema": SCHEMA, "ok": self.ok, "verdict": self.verdict, "interrupted": self.interrupted, "cases": self.cases,
            "compared": self.compared, "margin": number(self.margin), "options": dict(self.options),
            "findings": [f.describe() for f in self.findings], "known": [f.describe() for f in self.known],
            "conventions": [f.describe() for f in self.conventions], "stale": list(self.stale), "skipped": dict(self.skipped),
            "self_test": vars(self.self_test),
            "tallies": [{"adapter": a, "precision": p, "layer": layer, "tensor": tensor, "compared": t.compared,
                         "conventions": t.conventions, "inconclusive": t.inconclusive, "outside": t.outside, "margin": number(t.margin)}
                        for (a, p, layer, tensor), t in sorted(self.tallies.items())],
            "coverage": {name: dict(counts) for name, counts in self.coverage.items()},
            "seconds": {name: round(s, 3) for name, s in self.seconds.items()}, "environment": dict(self.environment),
        }

    def to_json(self) -> str:
        return json.dumps(self.describe(), indent=2, allow_nan=False)
