"""The running counts of a run, which the parts of a run merge into."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from .certify import Certificate
from .finding import SEVERITY, Finding
from .report import Key, SelfTest, Tally

__all__ = ["Ledger"]


class Ledger:
    """What was counted and found. Its size depends on the layers seen, not on the number of cases."""

    def __init__(self) -> None:
        self.tallies: dict[Key, Tally] = {}
        self.coverage: dict[str, Counter[str]] = {}
        self.skipped: Counter[str] = Counter()
        self.found: dict[tuple[str, ...], Finding] = {}
        self.reached: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.self_test = SelfTest()
        self.seconds = {"frameworks": 0.0, "harness": 0.0, "reporting": 0.0}
        self.cases = 0

    def merge(self, other: Ledger) -> None:
        """Add the counts of a later part; a finding that is there already keeps its case and adds its count."""
        for key, tally in other.tallies.items():
            self.tallies.setdefault(key, Tally()).merge(tally)
        for what, counts in other.coverage.items():
            self.coverage.setdefault(what, Counter()).update(counts)
        for found, finding in other.found.items():
            if not self.seen(found, finding.count):
                self.found[found] = finding
        self.skipped.update(other.skipped)
        self.reached.update(other.reached)
        self.met.update(other.met)
        self.self_test.merge(other.self_test)
        for clock, seconds in other.seconds.items():
            self.seconds[clock] += seconds
        self.cases += other.cases

    def count(self, adapter: str, precision: str, certificate: Certificate) -> None:
        key = (adapter, precision, type(certificate.layer).__name__, certificate.tensor)
        self.tallies.setdefault(key, Tally()).add(certificate)
        if certificate.inconclusive:
            self.skipped["inconclusive: the bound is larger than the value"] += certificate.inconclusive

    def reach(self, what: str, name: str) -> None:
        self.coverage.setdefault(what, Counter())[name] += 1

    def seen(self, key: tuple[str, ...], times: int = 1) -> bool:
        """Count a finding that was met before; say whether it was."""
        if key not in self.found:
            return False
        self.found[key] = replace(self.found[key], count=self.found[key].count + times)
        return True

    def sorted_findings(self, which: str) -> tuple[Finding, ...]:
        """Return the findings of a kind (`new`, `known`, `convention`), worst first."""
        def kind(finding: Finding) -> str:
            return "convention" if finding.verdict == "convention" else "known" if finding.known else "new"

        chosen = [f for f in self.found.values() if kind(f) == which]
        return tuple(sorted(chosen, key=lambda f: (SEVERITY[f.verdict], f.adapter, f.layer, f.tensor.startswith("d"), f.tensor)))
