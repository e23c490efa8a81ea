"""Summary of one run, indexed for comparison: its findings and counts by what stays the same from run to run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, isfinite
from typing import Any, NamedTuple

from backproof.judge.verdicts import SEVERITY
from backproof.report.schema import subject_of, subjects_of

__all__ = ["Evidence", "FindingKey", "Row", "RunSummary", "finding_key"]

VARYING = re.compile(r"0x[0-9a-f]+|[\[(]?\d[\d.,\s]*[\])]?", re.IGNORECASE)
"""Addresses, sizes and shapes in the message of an exception."""

REPEATS = 8  # how often a drawn network may hold one layer
UNLIKELY = 0.01  # that the comparison of two samples says something where nothing changed


class FindingKey(NamedTuple):
    """What a finding is about. An exception belongs to no tensor: `about` is its message, without what varies from case to case."""

    subject: str
    layer: str
    tensor: str
    about: str = ""

    def __str__(self) -> str:
        return f"{' '.join(part for part in (self.layer, self.tensor) if part)} on {self.subject}"


class Row(NamedTuple):
    """What a tally counts: the entries of one tensor of a layer, on an adapter, in a precision."""

    subject: str
    precision: str
    layer: str
    tensor: str

    def __str__(self) -> str:
        return f"{self.layer} {self.tensor} on {self.subject} ({self.precision})"


@dataclass(frozen=True)
class Evidence:
    """One verdict on a tensor, and what speaks for it. `kind` is `finding`, or where it is explained `known` or `convention`."""

    verdict: str
    kind: str
    code: str
    sentence: str
    precision: str = ""
    excess: float | str = 0.0
    count: int = 0
    digits: float = 0.0

    @property
    def severity(self) -> int:
        """How bad it is, the smaller the worse; what is explained is less bad than what is not."""
        return SEVERITY[self.verdict] + (0 if self.kind == "finding" else len(SEVERITY))

    def describe(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return vars(self)


@dataclass(frozen=True)
class RunSummary:
    """Summary of a report or a baseline, indexed for comparison; sentences call it by its `name`.

    `counted` has how many entries of a row were judged and the largest excess that agreed, `met` how often each regime and layer was
    reached; a baseline knows neither the entries nor what was met. `sampling` says which cases were drawn.
    """

    name: str
    source: str
    adapters: tuple[str, ...]
    precisions: tuple[str, ...]
    layers: tuple[str, ...]
    cases: int
    sampling: Mapping[str, Any]
    draws: int = 1
    interrupted: bool = False
    seen: Mapping[FindingKey, Mapping[str, Evidence]] = field(default_factory=dict)
    counted: Mapping[Row, tuple[int | None, float]] = field(default_factory=dict)
    met: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, report: Mapping[str, Any], name: str, source: str = "") -> RunSummary:
        """Take what is compared from the data of a report."""
        options = report["options"]
        layers, draws = tuple(options.get("layers") or ()), options.get("draws_per_network") or 1
        return cls(
            name, source, subjects_of(options), tuple(options["precisions"]), layers, report["cases"],
            sampling={"cases": report["cases"], "seed": options.get("seed"), "layers": layers, "draws": draws, "like": options.get("like")},
            draws=draws, interrupted=report["interrupted"], seen=_seen(report), counted=_counted(report["tallies"]), met=report["coverage"],
            stale=tuple(report["stale"]), missed=tuple(report["self_test"]["missed"]), versions=report["environment"],
        )

    def judged(self, key: FindingKey) -> bool:
        """Say whether anything was compared that could have shown a finding of this key."""
        if not key.tensor:  # an exception may come of any network
            return any(row.subject == key.subject for row in self.counted)
        return any((row.subject, row.layer, row.tensor) == key[:3] for row in self.counted)

    def paired(self, other: RunSummary) -> bool:
        """Say whether both runs drew the same cases: then no difference is chance."""
        return self.sampling == other.sampling and not (self.interrupted or other.interrupted)

    def may_miss(self, other: RunSummary, times: float, asked: int = 1) -> bool:
        """Say whether what the other side met so many times in each precision may be missing here by chance.

        The draws through one network meet the same layers, and one layer may stand there several times, so that networks are what
        counts; how many of them meet a thing is Poisson distributed. Of `asked` things together something is said by mistake once in a
        hundred comparisons.
        """
        if self.paired(other):
            return False
        expected = times / (other.draws * REPEATS) * self.cases / max(other.cases, 1)
        return exp(-expected) * asked > UNLIKELY


def _seen(report: Mapping[str, Any]) -> dict[FindingKey, dict[str, Evidence]]:
    """Return the findings by key and verdict; where some are unexplained, one of those stands for all."""
    evidence: dict[FindingKey, dict[str, Evidence]] = {}
    for kind, name in (("finding", "findings"), ("known", "known"), ("convention", "conventions")):
        for f in report[name]:
            code, sentence = f["diagnosis"]["code"], f["diagnosis"]["sentence"]
            shown = Evidence(f["verdict"], kind, code, f["known"] or sentence, f["precision"], f["excess"], f["count"], _digits(f))
            evidence.setdefault(finding_key(f), {}).setdefault(shown.verdict, shown)
    return evidence


def _digits(finding: Mapping[str, Any]) -> float:
    """Return the decimal digits that an imprecise finding loses; of what is wrong none is right."""
    lost = float(finding["digits_lost"])
    return lost if finding["verdict"] == "imprecise" and isfinite(lost) else 0.0


def finding_key(finding: Mapping[str, Any]) -> FindingKey:
    """Return the key of a finding in a report's data."""
    raised = not finding["tensor"] and finding["verdict"] == "error"
    about = " ".join(VARYING.sub("#", finding["diagnosis"]["sentence"]).split()) if raised else ""
    return FindingKey(subject_of(finding), finding["layer"], finding["tensor"], about)


def _counted(tallies: list[dict[str, Any]]) -> dict[Row, tuple[int | None, float]]:
    """Return rows of which something could be said."""
    return {Row(subject_of(t), t["precision"], t["layer"], t["tensor"]): (judged, float(t["margin"])) for t in tallies
            if (judged := t["compared"] - t["inconclusive"]) > 0}
