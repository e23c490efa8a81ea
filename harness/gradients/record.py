"""What a check counted and found, and the report of it."""

from __future__ import annotations

import math
from collections import Counter

from backproof.gradients.model import Model
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.verdicts import SEVERITY
from backproof.report.environment import environment
from backproof.report.finding import HANDWRITTEN, Finding
from backproof.report.report import Report
from backproof.report.results import SelfTest, Tally
from backproof.report.schema import CandidateLabel

__all__ = ["SUBJECT", "Record"]

SUBJECT = CandidateLabel("numpy")


class Record:
    """A check in progress: what was counted and found."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.findings: list[Finding] = []
        self.conventions: list[Finding] = []
        self.tallies: dict[tuple[str, str, str, str], Tally] = {}
        self.skipped: Counter[str] = Counter()
        self.truths: dict[str, str] = {}
        self.self_test = SelfTest()

    def report(self, seconds: float) -> Report:
        """Return the report, the worst findings first."""

        def rank(finding: Finding) -> tuple[int, str]:
            return SEVERITY[finding.verdict], finding.tensor

        options = {"candidate": SUBJECT, "precisions": sorted({a.dtype.name for a in self.model.given.values()}), "cases": 1,
                   "seed": self.model.seed, "truth": self.truths}
        return Report(tuple(sorted(self.findings, key=rank)), conventions=tuple(sorted(self.conventions, key=rank)), tallies=self.tallies,
                      skipped=self.skipped, self_test=self.self_test, environment=environment(), options=options, cases=1,
                      seconds={"total": seconds})

    def problem(self, verdict: str, tensor: str, code: str, sentence: str, *, name: str = "", index: tuple[int, ...] = (),
                entries: tuple[int, int] = (0, 0), actual: float = math.nan, expected: float = math.nan) -> None:
        """Add a finding that was made without a comparison with the truth."""
        precision = self.model.given[name].dtype.name if name else self.model.precision.name
        self.findings.append(Finding(SUBJECT, precision, HANDWRITTEN, self.model.path, tensor, verdict, math.inf, entries, index,
                                     actual, expected, 0.0, Diagnosis(code, sentence), None))
