"""What a run found, what it compared, and what it skipped and why: the data that every form of a report shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from backproof.judge.certificate import Certificate
from backproof.judge.verdicts import SEVERITY
from backproof.report.finding import FINDING, Finding
from backproof.report.schema import COUNT, FLAG, NUMBER, SUBJECT, TEXT, TEXTS, VERDICT, Count, Form, Record, kind_of, record_of
from pydantic import Field

__all__ = ["KEY", "REPORT", "RUN", "SELF_TEST", "TALLY", "Counts", "Key", "Results", "SelfTest", "Tally"]

SCHEMA = 1
COUNTS = Form(dict[str, Count], write=dict)

Key = tuple[str, str, str, str]
"""Subject (adapter or candidate), precision, layer, tensor."""

Counts = tuple[float, ...]
"""The numbers of a tally in the order of its fields, as they are sent and kept."""


@dataclass
class Tally:
    """What was compared of one tensor of one layer on one adapter in one precision, entries all.

    Tallies merge: counts are added, and of two margins the larger one stays.
    """

    compared: Annotated[int, COUNT] = 0
    conventions: Annotated[int, COUNT] = 0
    inconclusive: Annotated[int, COUNT] = 0
    outside: Annotated[int, COUNT] = 0
    margin: Annotated[float, NUMBER] = 0.0

    @classmethod
    def of(cls, certificate: Certificate) -> Tally:
        """Return the tally of one certificate, which has numbers of the same names."""
        return cls(**{name: getattr(certificate, name) for name in TALLY.fields})

    @property
    def counts(self) -> Counts:
        return tuple(getattr(self, name) for name in TALLY.fields)

    def merge(self, other: Tally) -> None:
        for name, (_, form) in TALLY.fields.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + theirs if form is COUNT else max(mine, theirs))


TALLY = record_of(Tally)


@dataclass
class SelfTest:
    """Mistakes planted into real traces: how many, how many the certificates caught, and blamed on the right layer and tensor.

    `hidden` counts those not planted because they lie within the rounding of a precision coarser than float64.
    """

    planted: Annotated[int, COUNT] = 0
    caught: Annotated[int, COUNT] = 0
    blamed: Annotated[int, COUNT] = 0
    hidden: Annotated[int, COUNT] = 0
    missed: Annotated[list[str], TEXTS] = field(default_factory=list)
    by_mistake: Annotated[Counter[str], COUNTS] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return self.caught == self.blamed == self.planted

    def merge(self, other: SelfTest) -> None:
        for name in SELF_TEST.names(COUNT):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.missed += other.missed
        self.by_mistake.update(other.by_mistake)


SELF_TEST = record_of(SelfTest)

KEY = {"subject": SUBJECT, "precision": TEXT, "layer": TEXT, "tensor": TEXT}
"""What a tally is counted by, and the names of it in a file."""


def _tallies(tallies: Mapping[Key, Tally]) -> list[dict[str, Any]]:
    def named(key: Key) -> dict[str, str]:
        return {kind_of(key[0]) if form is SUBJECT else name: part for (name, form), part in zip(KEY.items(), key, strict=True)}

    return [{**named(key), **TALLY.describe(tally)} for key, tally in sorted(tallies.items())]


_TALLY = Record.of(KEY | {name: form for name, (_, form) in TALLY.fields.items()})
RUN = Record.of({
    "adapters": replace(TEXTS, needed=False), "candidate": Form(str, needed=False), "precisions": TEXTS,
    "cases": Form(Count | None, needed=False), "seed": Form(Count, needed=False), "layers": Form(list[str] | None, needed=False),
    "draws_per_network": Form(Annotated[int, Field(ge=1, le=2**63)], needed=False),
})
"""The options of a run that later programs read; a report has others too."""

FINDINGS = Form(FINDING.accepts_many("Finding"), write=lambda findings: [finding.describe() for finding in findings])
TALLIES = Form(_TALLY.accepts_many("Tally"), write=_tallies)
COVERAGE = Form(dict[str, dict[str, Count]], write=lambda coverage: {name: dict(counts) for name, counts in coverage.items()})
SECONDS = Form(dict[str, Annotated[float, Field(allow_inf_nan=False)]],
               write=lambda seconds: {name: round(spent, 3) for name, spent in seconds.items()})


@dataclass(frozen=True)
class Results:
    """Everything a run says. `findings` are unexplained and worst first; `known` are explained ones, `conventions` valid subgradients."""

    findings: Annotated[tuple[Finding, ...], FINDINGS] = ()
    known: Annotated[tuple[Finding, ...], FINDINGS] = ()
    conventions: Annotated[tuple[Finding, ...], FINDINGS] = ()
    stale: Annotated[tuple[str, ...], TEXTS] = ()
    skipped: Annotated[Mapping[str, int], COUNTS] = field(default_factory=dict)
    self_test: Annotated[SelfTest, Form(SELF_TEST.accepts("SelfTest"), write=SELF_TEST.describe)] = field(default_factory=SelfTest)
    tallies: Annotated[Mapping[Key, Tally], TALLIES] = field(default_factory=dict)
    coverage: Annotated[Mapping[str, Mapping[str, int]], COVERAGE] = field(default_factory=dict)
    seconds: Annotated[Mapping[str, float], SECONDS] = field(default_factory=dict)
    environment: Annotated[Mapping[str, str], Form(dict[str, str], write=dict)] = field(default_factory=dict)
    options: Annotated[Mapping[str, Any], Form(RUN.accepts("Options"), write=dict)] = field(default_factory=dict)
    cases: Annotated[int, COUNT] = 0
    interrupted: Annotated[bool, FLAG] = False

    @property
    def schema(self) -> Annotated[int, Form(Literal[1])]:
        """The version of what is written."""
        return SCHEMA

    @property
    def compared(self) -> Annotated[int, COUNT]:
        """How many entries were compared."""
        return sum(t.compared for t in self.tallies.values())

    @property
    def margin(self) -> Annotated[float, NUMBER]:
        """The largest excess that still agreed: how close a correct number came to its bound."""
        return max((t.margin for t in self.tallies.values()), default=0.0)

    @property
    def verdict(self) -> Annotated[str, VERDICT]:
        """The worst verdict of the run; `error` when nothing was compared."""
        if self.findings:
            return min((f.verdict for f in self.findings), key=SEVERITY.__getitem__)
        if not self.compared:
            return "error"
        if self.conventions:
            return "convention"
        return "inconclusive" if all(t.inconclusive == t.compared for t in self.tallies.values()) else "agrees"

    @property
    def ok(self) -> Annotated[bool, FLAG]:
        """Whether nothing unexplained is worse than a convention, something was compared, and every planted mistake was caught."""
        return SEVERITY[self.verdict] >= SEVERITY["inconclusive"] and self.self_test.ok

    def describe(self) -> dict[str, Any]:
        """Return the report as JSON-ready data, as docs/report.md documents it."""
        return REPORT.describe(self)

    def to_json(self) -> str:
        return json.dumps(self.describe(), indent=2, allow_nan=False)


REPORT = record_of(Results, first=("schema", "ok", "verdict", "interrupted", "cases", "compared", "margin", "options"))
"""What a report.json holds."""
