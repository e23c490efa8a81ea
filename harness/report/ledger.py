"""The running counts of a run, which the parts of a run merge into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from backproof.judge.certificate import Certificate
from backproof.judge.judgement import Judgement
from backproof.judge.verdicts import SEVERITY
from backproof.report.finding import Finding
from backproof.report.report import Report
from backproof.report.results import Counts, Key, SelfTest, Tally

__all__ = ["Ledger"]


class Ledger:
    """What was counted and found. Without `certificates`, which name their case, its size does not depend on the number of cases."""

    def __init__(self) -> None:
        self.certificates: list[tuple[int, Key, Counts]] = []
        self.tallies: dict[Key, Tally] = {}
        self.coverage: dict[str, Counter[str]] = {}
        self.skipped: Counter[str] = Counter()
        self.found: dict[tuple[str, ...], Finding] = {}
        self.reached: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.self_test = SelfTest()
        self.seconds = {"frameworks": 0.0, "harness": 0.0, "reporting": 0.0}
        self.cases = 0

    @classmethod
    def of(cls, parts: Iterable[Ledger]) -> Ledger:
        """Return parts as one."""
        whole = cls()
        for part in parts:
            whole.merge(part)
        return whole

    def merge(self, other: Ledger) -> None:
        """Add the counts of a later part; a finding that is there already keeps its case and adds its count."""
        self.certificates += [(self.cases + case, key, counts) for case, key, counts in other.certificates]
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, Tally()).merge(tally)
        for what, counts in other.coverage.items():
            self.coverage.setdefault(what, Counter()).update(counts)
        for finding_key, finding in other.found.items():
            if not self.seen(finding_key, finding.count):
                self.found[finding_key] = finding
        self.skipped.update(other.skipped)
        self.reached.update(other.reached)
        self.met.update(other.met)
        self.self_test.merge(other.self_test)
        for clock, seconds in other.seconds.items():
            self.seconds[clock] += seconds
        self.cases += other.cases

    def count(self, subject: str, precision: str, certificate: Certificate) -> None:
        key, tally = (subject, precision, type(certificate.layer).__name__, certificate.label), Tally.of(certificate)
        self.tallies.setdefault(key, Tally()).merge(tally)
        self.certificates.append((self.cases, key, tally.counts))
        if certificate.inconclusive:
            self.skipped["inconclusive: the bound is larger than the value"] += certificate.inconclusive

    def reach(self, what: str, name: str) -> None:
        self.coverage.setdefault(what, Counter())[name] += 1

    def enter(self, judgement: Judgement, subject: str, make: Callable[[], Finding]) -> None:
        """Enter what is said of a tensor, once for each key; `make` returns the finding where there is none yet."""
        self.met.update(entry.id for entry in judgement.met)
        key = (subject, *judgement.key)
        if not self.seen(key):
            self.found[key] = make()

    def enter_error(self, finding: Finding, cause: str = "") -> None:
        """Enter a finding of a call that gave no numbers, once for each cause: by itself, its message without the numbers."""
        key = (finding.subject, "", finding.diagnosis.code if cause else "", "error", cause or finding.cause)
        if not self.seen(key):
            self.found[key] = finding

    def seen(self, key: tuple[str, ...], times: int = 1) -> bool:
        """Count a finding that was met before; say whether it was."""
        if key not in self.found:
            return False
        self.found[key] = replace(self.found[key], count=self.found[key].count + times)
        return True

    def report(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> Report:
        """Return the report of what was counted and found so far."""
        return Report(
            findings=self.sorted_findings("new"), known=self.sorted_findings("known"), conventions=self.sorted_findings("convention"),
            tallies=self.tallies, skipped=self.skipped, self_test=replace(self.self_test), environment=environment, options=options,
            coverage=self.coverage, cases=self.cases, seconds=dict(self.seconds),
        )

    def sorted_findings(self, which: str) -> tuple[Finding, ...]:
        """Return the findings of a kind (`new`, `known`, `convention`), worst first."""
        def kind(finding: Finding) -> str:
            return "convention" if finding.verdict == "convention" else "known" if finding.known else "new"

        chosen = [f for f in self.found.values() if kind(f) == which]
        return tuple(sorted(chosen, key=lambda f: (SEVERITY[f.verdict], f.subject, f.layer, f.tensor.startswith("d"), f.tensor)))
