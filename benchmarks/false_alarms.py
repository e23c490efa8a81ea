"""How many entries of correct frameworks are compared without an unexplained finding, by value regime.

The cases are those of `verify`, which draws several times through each network; the options count networks.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from time import perf_counter

from backproof.draw.structures import DRAWS, structures
from backproof.judge.known import KnownList
from backproof.reference.case import Case
from backproof.reference.layer import REGISTRY
from backproof.reference.values import REGIMES
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.report.results import Tally
from backproof.verify.examining import Examiner
from document import conditions, note, table, write

Parts = list[tuple[str, Ledger]]
"""The ledger of each case, with the regime of the case."""

CHUNK = 200  # networks handed out at a time, so that memory does not grow with their number


@lru_cache(maxsize=1)
def examiner(adapter: str, precisions: tuple[str, ...], seed: int) -> Examiner:
    return Examiner([adapter], precisions, seed)


def work(adapter: str, precisions: tuple[str, ...], seed: int, index: int, cases: Sequence[Case]) -> Parts:
    """Examine the draws of one network, each into a ledger of its own."""
    own = examiner(adapter, precisions, seed)
    return [(case.regime, own.structure(index * DRAWS + number, [case])) for number, case in enumerate(cases)]


def parts(adapter: str, networks: int, seed: int, precisions: tuple[str, ...], jobs: int) -> Iterator[Parts]:
    """Yield what each network gives."""
    source = structures(networks * DRAWS, seed)
    if jobs == 1:
        yield from (work(adapter, precisions, seed, index, cases) for index, cases in enumerate(source))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for start in range(0, networks, CHUNK):
            chunk = enumerate(islice(source, CHUNK), start)
            waiting = [pool.submit(work, adapter, precisions, seed, index, cases) for index, cases in chunk]
            yield from (future.result() for future in waiting)


def measure(adapter: str, networks: int, seed: int, precisions: tuple[str, ...], jobs: int) -> tuple[str, tuple[Finding, ...]]:
    """Examine a number of networks on an adapter; return the section about it, and the unexplained findings."""
    ledgers = {regime: Ledger() for regime in REGIMES}
    start = perf_counter()
    for number, found in enumerate(parts(adapter, networks, seed, precisions, jobs)):
        for regime, ledger in found:
            ledgers[regime].merge(ledger)
        note(f"{adapter}: {number + 1} of {networks} networks, {sum(map(_compared, ledgers.values())):,} entries")
    seconds = perf_counter() - start
    every = Ledger()
    for ledger in ledgers.values():
        every.merge(ledger)
    rows = [(name, *_row(ledger)) for name, ledger in ledgers.items()]
    rows.append(("**all**", *(f"**{cell}**" for cell in _row(every))))
    header = ("regime", "cases", "entries compared", "inconclusive", "other subgradients", "known findings met", "unexplained")
    by_precision = Counter[str]()
    for (_, precision, _, _), tally in every.tallies.items():
        by_precision[precision] += tally.compared
    split = ", ".join(f"{n:,} in {p}" for p, n in by_precision.items())
    test, margin = every.self_test, max(t.margin for t in every.tallies.values())
    text = f"### {adapter}: {networks:,} networks, {every.cases:,} cases in {', '.join(precisions)}\n\n{table(header, rows)}\n"
    text += f"{split}; largest excess that agreed {margin:.4f}; planted mistakes: {test.blamed} of {test.planted} caught and "
    text += f"blamed, {test.hidden} more within rounding; {seconds:,.0f} s, {jobs} at a time.\n"
    text += f"\n{table(FAMILY_HEADER, _families(every))}"
    new, known = (every.sorted_findings(kind) for kind in ("new", "known"))
    missed = "".join(f"- missed: {line}\n" for line in test.missed)
    stale = KnownList().stale(every.reached, every.met)
    text += _list("Unexplained", new) + missed + _list("Known", known) + (f"\nStale: {', '.join(stale)}\n" if stale else "")
    return text, new


FAMILY_HEADER = ("family", "entries compared", "inconclusive", "other subgradients", "outside the bound", "largest excess that agreed")


def _families(ledger: Ledger) -> Iterator[tuple[str, ...]]:
    """Yield what was compared of each family: the layers of the files of the reference whose names end in the same word."""
    tallies: dict[str, list[Tally]] = {}
    for (_, _, layer, _), tally in ledger.tallies.items():
        tallies.setdefault(REGISTRY[layer].__module__.rpartition(".")[2].rpartition("_")[2], []).append(tally)
    for family, found in sorted(tallies.items()):
        counts = (sum(getattr(t, name) for t in found) for name in ("compared", "inconclusive", "conventions", "outside"))
        yield family, *(f"{n:,}" for n in counts), f"{max(t.margin for t in found):.4f}"


def _compared(ledger: Ledger) -> int:
    return sum(tally.compared for tally in ledger.tallies.values())


def _row(ledger: Ledger) -> list[str]:
    tallies = ledger.tallies.values()
    met = [sum(f.count for f in ledger.sorted_findings(kind)) for kind in ("known", "new")]
    numbers = (ledger.cases, _compared(ledger), sum(t.inconclusive for t in tallies), sum(t.conventions for t in tallies), *met)
    return [f"{number:,}" for number in numbers]


def _list(title: str, findings: Sequence[Finding]) -> str:
    lines = [f"- {f.title}, {f.count} times: {f.known or f.diagnosis.sentence}" for f in findings]
    return f"\n{title}:\n\n" + "\n".join(lines) + "\n" if lines else ""


INTRODUCTION = """\
## False alarms

Written by `{command}`.

Random networks over all families as `verify` draws them, {draws} draws of values through each, every regime in turn. Entries are
compared in local certificates, and in float64 end to end too. A finding is counted each time it is met.

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", type=int, default=100, help="networks on torch")
    parser.add_argument("--jax", type=int, default=10, help="networks on jax:jit")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--precisions", default="float64,float32", help="comma-separated")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    asked = f"--torch {options.torch} --jax {options.jax} --seed {options.seed}"
    text = INTRODUCTION.format(command=f"python benchmarks/false_alarms.py {asked}", draws=DRAWS)
    wrong: list[Finding] = []
    for adapter, networks in (("torch", options.torch), ("jax:jit", options.jax)):
        if networks:
            section, new = measure(adapter, networks, options.seed, tuple(options.precisions.split(",")), options.jobs)
            section += f"\n{conditions()}"
            print(section)
            if options.write:
                write(f"false-alarms {adapter}", text + section)
            wrong += new
    for finding in wrong:
        print(f"\nUNEXPLAINED {finding.title}, at {finding.index} of {finding.path}: {finding.actual!r} for {finding.expected!r} "
              f"+- {finding.bound:.3g}\n{finding.case.to_json() if finding.case else ''}")

if __name__ == "__main__":
    main()
