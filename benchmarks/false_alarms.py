"""How many entries of correct frameworks `verify` compares without an unexplained finding, by value regime.

`verify` draws several times through each network; the options count networks.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from backproof.finding import Finding
from backproof.generate import DRAWS
from backproof.reference.values import REGIMES
from backproof.report import Report
from backproof.verify import Run, verify
from document import conditions, note, table, write

COUNTED = ("cases", "compared", "inconclusive", "conventions", "known", "unexplained")


@dataclass
class Tracker:
    """Follows a run case by case and books what each case adds to its regime."""

    total: int
    by_regime: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in REGIMES})
    before: Counter[str] = field(default_factory=Counter)
    regimes: Counter[str] = field(default_factory=Counter)

    def __call__(self, run: Run) -> None:
        now = _counts(run)
        seen: Counter[str] = run.ledger.coverage["regimes"]
        (regime,) = seen - self.regimes
        self.by_regime[regime].update(now - self.before)
        self.by_regime[regime]["cases"] += 1
        self.before, self.regimes = now, Counter(seen)
        if run.done % 20 == 0:
            note(f"{run.done} of {self.total} cases, {now['compared']:,} entries, {now['unexplained']} unexplained")


def _counts(run: Run) -> Counter[str]:
    """Return the running counts of a run; a finding met again counts again."""
    tallies = run.ledger.tallies.values()
    counts = Counter({name: sum(getattr(t, name) for t in tallies) for name in ("compared", "inconclusive", "conventions")})
    for finding in run.ledger.found.values():
        counts[_kind(finding)] += finding.count
    return counts


def _kind(finding: Finding) -> str:
    if finding.verdict == "convention":
        return "met"  # their entries are counted in the tallies
    return "known" if finding.known else "unexplained"


def measure(adapter: str, networks: int, seed: int, precisions: Sequence[str]) -> tuple[str, Report]:
    """Verify an adapter over a number of networks; return its table by regime, and the report."""
    cases = networks * DRAWS
    tracker, start = Tracker(cases), perf_counter()
    report = verify(adapters=(adapter,), cases=cases, seed=seed, precisions=precisions, reports=None, progress=tracker)
    seconds = perf_counter() - start
    rows = [(name, *(f"{counts[c]:,}" for c in COUNTED)) for name, counts in tracker.by_regime.items()]
    every = sum(tracker.by_regime.values(), Counter())
    rows.append(("**all**", *(f"**{every[c]:,}**" for c in COUNTED)))
    header = ("regime", "cases", "entries compared", "inconclusive", "other subgradients", "known findings met", "unexplained")
    by_precision = Counter[str]()
    for (_, precision, _, _), tally in report.tallies.items():
        by_precision[precision] += tally.compared
    split = ", ".join(f"{n:,} in {p}" for p, n in by_precision.items())
    test = report.self_test
    text = f"### {adapter}: {networks:,} networks, {cases:,} cases in {', '.join(precisions)}\n\n{table(header, rows)}\n"
    text += f"{split}; largest excess that agreed {report.margin:.4f}; planted mistakes: {test.blamed} of {test.planted} caught "
    text += f"and blamed, {test.hidden} more within rounding; {report.cases / seconds:.1f} cases/s, {seconds:,.0f} s.\n"
    return text + _list("Unexplained", report.findings) + _list("Known", report.known), report


def _list(title: str, findings: Sequence[Finding]) -> str:
    lines = [f"- {f.title}, {f.count} times: {f.known or f.diagnosis.sentence}" for f in findings]
    return f"\n{title}:\n\n" + "\n".join(lines) + "\n" if lines else ""


INTRODUCTION = """\
## False alarms

Written by `{command}`.

Random networks of depth 1 to 8 as `verify` draws them, {draws} draws of values through each, every regime in turn. Entries are
compared in local certificates, and in float64 end to end too.

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", type=int, default=100, help="networks on torch")
    parser.add_argument("--jax", type=int, default=10, help="networks on jax:jit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precisions", default="float64,float32", help="comma-separated")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    asked = f"--torch {options.torch} --jax {options.jax} --seed {options.seed}"
    text = INTRODUCTION.format(command=f"python benchmarks/false_alarms.py {asked}", draws=DRAWS)
    wrong = []
    for adapter, networks in (("torch", options.torch), ("jax:jit", options.jax)):
        if networks:
            section, report = measure(adapter, networks, options.seed, options.precisions.split(","))
            text += f"{section}\n"
            wrong += report.findings
    text += conditions()
    print(text)
    for finding in wrong:
        print(f"\nUNEXPLAINED {finding.title}, at {finding.index} of {finding.path}: {finding.actual!r} for {finding.expected!r} "
              f"+- {finding.bound:.3g}\n{finding.case.to_json() if finding.case else ''}")  # fmt: skip
    if options.write:
        write("false-alarms", text)


if __name__ == "__main__":
    main()
