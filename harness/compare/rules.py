"""What became of the findings, the coverage and the margins of one run in another, line by line."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backproof.compare.summary import Evidence, FindingKey, Row, RunSummary
from backproof.judge.certificate import END_TO_END
from backproof.report.finding import times
from backproof.report.schema import kind_of

__all__ = ["FACTOR", "HALF", "WEIGHTS", "Line", "coverage", "findings", "margins", "rest"]

WEIGHTS: dict[str, str] = {
    "worse": "got worse",
    "warning": "changed, and may be the start of something worse",
    "better": "got better",
    "note": "differs as chance or the options of the runs explain",
}
"""Every weight of a line with its meaning, the heaviest first."""

HALF = 0.5  # of the bound: what lies below may double and still agrees
FACTOR = 4.0  # on the same cases another order of summation moved no margin over a tenth by more than 2.1 (docs/ci.md)
DIGITS = 1.0  # decimal digits
ENTRIES = 16  # the largest of fewer roundings is often four times that of another draw of them


@dataclass(frozen=True)
class Line:
    """One difference: how much it weighs, what it is about (`kind`, `about`), what became of it (`change`), and a sentence."""

    weight: str
    kind: str
    change: str
    about: FindingKey | Row | str
    sentence: str
    old: Mapping[str, Any] | None = None
    new: Mapping[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """Return the line as JSON-ready data."""
        if isinstance(self.about, str):
            about: dict[str, Any] = {"name": self.about}
        else:
            about = {kind_of(part) if name == "subject" else name: part for name, part in self.about._asdict().items()}
        return {"weight": self.weight, "kind": self.kind, "change": self.change, "about": about, "sentence": self.sentence,
                "old": self.old, "new": self.new}


def findings(old: RunSummary, new: RunSummary) -> Iterator[Line]:
    """Compare the verdicts on each key. A verdict that went while another came is one difference: the tensor is judged otherwise now."""
    for key in sorted({**old.seen, **new.seen}):
        had, has = old.seen.get(key, {}), new.seen.get(key, {})
        gone, came = _worst_first(had, has), _worst_first(has, had)
        if gone and came:
            yield _judged_otherwise(key, had[gone.pop(0)], has[came.pop(0)])
        for verdict in came:
            yield _new(key, has[verdict], old, new)
        for verdict in gone:
            yield _gone(key, had[verdict], old, new)
        for verdict in sorted(had.keys() & has.keys()):
            yield from _same(key, had[verdict], has[verdict], paired=new.paired(old))


def _worst_first(these: Mapping[str, Evidence], others: Mapping[str, Evidence]) -> list[str]:
    return sorted(these.keys() - others.keys(), key=lambda verdict: these[verdict].severity)


def _judged_otherwise(key: FindingKey, had: Evidence, has: Evidence) -> Line:
    weight = "note" if has.kind == had.kind == "known" else "better" if has.severity > had.severity else "worse"
    if has.kind != "finding" and weight == "worse":
        weight = "note"
    return _line(weight, "changed", key, f"was {_state(had)}; is {_state(has)}", had, has)


def _new(key: FindingKey, has: Evidence, old: RunSummary, new: RunSummary) -> Line:
    if has.kind == "finding":
        unseen = "" if old.judged(key) else f"; {old.name} did not compare it"
        return _line("worse", "new", key, f"{_state(has)}{unseen}", None, has)
    why = _why_only_here(key, has, new, old)
    weight = "warning" if has.kind == "convention" and not why else "note"
    return _line(weight, "new", key, f"{_state(has)}{why}", None, has)


def _gone(key: FindingKey, had: Evidence, old: RunSummary, new: RunSummary) -> Line:
    why = _why_only_here(key, had, old, new)
    if not new.judged(key):
        weight = "note"
    elif had.kind == "finding":
        weight = "better"
    else:
        weight = "warning" if had.kind == "convention" and not why else "note"
    return _line(weight, "gone", key, f"was {_state(had)}{why}", had, None)


def _why_only_here(key: FindingKey, evidence: Evidence, here: RunSummary, there: RunSummary) -> str:
    """Say, where it is so, that the other run could not show a finding, or may have missed it by chance."""
    if not there.judged(key):
        return f"; {there.name} did not compare it"
    if there.may_miss(here, evidence.count / max(len(here.precisions), 1)):
        return f"; met {times(evidence.count)} in {here.cases:,} cases: {there.name} may have missed it by chance"
    return ""


def _same(key: FindingKey, had: Evidence, has: Evidence, *, paired: bool) -> Iterator[Line]:
    if had.kind != has.kind:
        weight, change = ("worse", "unexplained") if has.kind == "finding" else ("better", "explained")
        yield _line(weight, change, key, f"was {_state(had)}; is {_state(has)}", had, has)
    elif had.code != has.code and has.kind == "finding":
        sentence = f"{has.verdict}, and the diagnosis was {had.code}, is {has.code}: {has.sentence}"
        yield _line("warning", "diagnosis", key, sentence, had, has)
    elif paired and has.kind == "finding" and has.digits >= had.digits + DIGITS:
        yield _line("warning", "digits", key, f"{has.verdict}, and {has.digits:.1f} digits are lost, {had.digits:.1f} before", had, has)


def _line(weight: str, change: str, key: FindingKey, sentence: str, had: Evidence | None, has: Evidence | None) -> Line:
    kind = min((evidence for evidence in (had, has) if evidence is not None), key=lambda evidence: evidence.severity).kind
    before, after = (evidence.describe() if evidence else None for evidence in (had, has))
    return Line(weight, kind, change, key, sentence, before, after)


def _state(evidence: Evidence) -> str:
    if evidence.kind == "finding":
        return f"{evidence.verdict} [{evidence.code}] {evidence.sentence}".rstrip()
    return f"known as {evidence.verdict}" if evidence.kind == "known" else "a convention (a valid subgradient, not the reference's own)"


def coverage(old: RunSummary, new: RunSummary) -> Iterator[Line]:
    """Compare what was looked at. What the options of the new side leave out is no loss; what chance explains is only counted."""
    if not new.counted:
        yield Line("worse", "coverage", "lost", "everything", f"{new.name} compared nothing")
        return
    asked = [row for row in old.counted if row.subject in new.adapters and row.precision in new.precisions
             and (not new.layers or row.layer in new.layers) and not row.tensor.startswith(END_TO_END)]
    if new.paired(old):
        yield from _fewer(asked, old, new)
    rare = yield from _lost(asked, old, new)
    rare += yield from _not_reached(old, new)
    if rare:
        sentence = f"{rare} of {len(asked)} tensors of {old.name} were not met in {new.name}, whose cases are others: they are rare"
        yield Line("note", "coverage", "lost", "what is rare", sentence)


def _fewer(asked: Sequence[Row], old: RunSummary, new: RunSummary) -> Iterator[Line]:
    """Yield the tensors of which less than half of the entries is judged now."""
    for row in asked:
        had, has = old.counted[row][0], new.counted.get(row, (None, 0.0))[0]
        if had is not None and has is not None and 2 * has < had:
            yield Line("worse", "coverage", "shrunk", row, f"{has:,} entries were judged, {had:,} in {old.name}")


def _lost(asked: Sequence[Row], old: RunSummary, new: RunSummary) -> Generator[Line, None, int]:
    """Yield the layers and tensors that are not compared any more; return how many more there are that chance explains."""
    layers, rare = {row[:3] for row in new.counted}, 0
    for adapter, precision, layer, *tensor in dict.fromkeys(row[:3] if row[:3] not in layers else row[:] for row in asked
                                                            if row not in new.counted):
        times = old.met.get("layers", {}).get(layer, 0) / max(len(old.adapters) * len(old.precisions), 1)
        if new.paired(old) or not (tensor or new.may_miss(old, times, len(asked))):
            what = f"{' '.join((layer, *tensor))} on {adapter} ({precision})"
            yield Line("worse", "coverage", "lost", what, f"compared in {old.name}, not in {new.name}")
        else:
            rare += 1
    return rare


def _not_reached(old: RunSummary, new: RunSummary) -> Generator[Line, None, int]:
    """Yield the regimes and conditions that are not reached any more; return how many more there are that chance explains."""
    rare = 0
    for kind in sorted(old.met.keys() & new.met.keys() - {"layers"}):
        for name in sorted(old.met[kind].keys() - new.met[kind].keys()):
            times = old.met[kind][name] / max(len(old.adapters) * len(old.precisions), 1)
            if new.may_miss(old, times, len(old.met[kind])):
                rare += 1
            else:
                yield Line("worse", "coverage", "lost", f"{kind}: {name}", f"reached in {old.name}, not in {new.name}")
    return rare


def margins(old: RunSummary, new: RunSummary) -> Iterator[Line]:
    """Return the margins that came to half of the bound or more and grew fourfold; on other cases that is chance, and noted."""
    for row in sorted(old.counted.keys() & new.counted.keys()):
        (_, had), (entries, has) = old.counted[row], new.counted[row]
        if has < HALF or has < FACTOR * had or (entries or 0) < ENTRIES or _failing(old, row) != _failing(new, row):
            continue
        weight, why = ("warning", "") if new.paired(old) else ("note", "; the cases are others")
        sentence = f"the margin was {had:.2g}, is {has:.2g} of the bound over {entries:,} entries{why}"
        yield Line(weight, "margin", "moved", row, sentence, {"margin": had}, {"margin": has})


def _failing(side: RunSummary, row: Row) -> set[str]:
    """Return the verdicts on a tensor whose entries agree in part; the margin is that of the others."""
    evidence = side.seen.get(FindingKey(row.subject, row.layer, row.tensor), {})
    return {verdict for verdict, shown in evidence.items() if shown.kind != "convention"}


def rest(old: RunSummary, new: RunSummary) -> Iterator[Line]:
    """Compare what a run says of itself: planted mistakes that were missed, known discrepancies that matched nothing."""
    for sentence in new.missed:
        if sentence not in old.missed:
            yield Line("worse", "self-test", "new", "self-test", f"missed a planted mistake: {sentence}")
    for name in new.stale:
        if name not in old.stale:
            weight = "warning" if new.paired(old) else "note"
            yield Line(weight, "known", "stale", name, "this known discrepancy matched nothing although it was looked for")
