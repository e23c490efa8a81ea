"""Baselines: a small file of what a run may show without failing, one line for each thing accepted, reviewed like code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import tomlkit
from backproof.adapters.framework import all_frameworks
from backproof.compare.comparison import Diff, compare
from backproof.compare.rules import FACTOR, HALF
from backproof.compare.summary import Evidence, FindingKey, Row, RunSummary
from backproof.judge.certificate import END_TO_END
from backproof.reference.usage import UsageError
from backproof.report.reading import checked, read_bytes
from backproof.report.schema import Count, Verdict
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

__all__ = ["accepted", "baseline_of", "compare_with_baseline", "read_baseline", "text_of"]

SCHEMA = 1
HEAD = """\
What a run may show without failing: findings and conventions, and how near to its bound each tensor came.
Written by `backproof baseline REPORT FILE`. Review each line; a `why = "..."` added to one is kept."""


def _versions() -> tuple[str, ...]:
    """Return the packages whose versions a baseline keeps: ours, and of each framework that `verify` runs its own."""
    return ("backproof", *(framework.packages[0] for framework in all_frameworks() if framework.adapters and framework.packages))
CLOSED = ConfigDict(strict=True, extra="forbid")  # a misspelt line would accept nothing


@with_config(CLOSED)
class _Accepted(TypedDict):
    adapter: str
    layer: str
    tensor: str
    verdict: Verdict
    code: str
    about: NotRequired[str]
    digits: NotRequired[Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]]
    why: NotRequired[str]


@with_config(CLOSED)
class _Drawn(TypedDict):
    adapters: list[str]
    precisions: list[str]
    cases: Count
    draws: Annotated[int, Field(ge=1)]
    seed: NotRequired[Count]
    layers: NotRequired[list[str]]
    like: NotRequired[str]


Margin = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@with_config(CLOSED)
class _Baseline(TypedDict):
    schema: Literal[1]
    findings: list[_Accepted]
    conventions: list[_Accepted]
    run: _Drawn
    versions: dict[str, Any]
    margins: dict[str, dict[str, dict[str, Margin]]]


@lru_cache(maxsize=1)
def _schema() -> TypeAdapter[Any]:
    return TypeAdapter(_Baseline)


def read_baseline(path: Path) -> dict[str, Any]:
    """Return what a baseline holds; raise ValueError, naming file and field, for what is none."""
    try:
        data = tomllib.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not readable as TOML: {error}") from error
    baseline: dict[str, Any] = checked(_schema(), data, path)
    for name in baseline["margins"]:
        if not all(name.rpartition(" ")):
            raise UsageError(f"{path}: margins.{name!r}: expected an adapter and a precision, such as 'torch float64'")
    return baseline


def baseline_of(report: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the baseline that accepts what a report shows; the reasons written into the one before are kept.

    Raises ValueError for a report that compared nothing.
    """
    side = RunSummary.of(report, "the report")
    if not side.counted:
        raise UsageError("the report compared nothing, so that a baseline of it would expect nothing")
    reasons = {_identity(entry): entry["why"] for entry in _entries(before) if "why" in entry}
    kinds: dict[str, list[dict[str, Any]]] = {"finding": [], "convention": []}
    for key, by_verdict in sorted(side.seen.items()):
        for verdict, seen in sorted(by_verdict.items()):
            if seen.kind == "known":
                continue
            entry: dict[str, Any] = {"adapter": key.subject, "layer": key.layer, "tensor": key.tensor, "verdict": verdict}
            entry["code"] = seen.code
            entry |= ({"about": key.about} if key.about else {}) | ({"digits": seen.digits} if seen.digits else {})
            entry |= {"why": reasons[_identity(entry)]} if _identity(entry) in reasons else {}
            kinds[seen.kind].append(entry)
    margins: dict[str, dict[str, dict[str, float]]] = {}
    for row, (_, margin) in sorted(side.counted.items()):
        if row.tensor.startswith(END_TO_END):
            continue
        margins.setdefault(f"{row.subject} {row.precision}", {}).setdefault(row.layer, {})[row.tensor] = float(f"{min(margin, 1.0):.1e}")
    drawn = {"adapters": list(side.adapters), "precisions": list(side.precisions), **side.sampling, "layers": list(side.layers)}
    return {"schema": SCHEMA, "findings": kinds["finding"], "conventions": kinds["convention"],
            "run": {name: value for name, value in drawn.items() if value not in (None, [])},
            "versions": {name: side.versions[name] for name in _versions() if name in side.versions}, "margins": margins}


def text_of(baseline: Mapping[str, Any]) -> str:
    """Return a baseline as the file that is reviewed."""
    page = tomlkit.document()
    for line in HEAD.splitlines():
        page.add(tomlkit.comment(line))
    page.add("schema", tomlkit.item(baseline["schema"]))
    for kind in ("findings", "conventions"):
        page.add(kind, _lines(baseline[kind]))
    for name in ("run", "versions"):
        page.add(tomlkit.nl())
        page.add(name, tomlkit.item(dict(baseline[name])))
    margins = tomlkit.table(is_super_table=True)
    for place, layers in baseline["margins"].items():
        table = tomlkit.table()
        for layer, tensors in layers.items():
            table.add(layer, _inline(tensors))
        margins.add(place, table)
    page.add(tomlkit.nl())
    page.add("margins", margins)
    return tomlkit.dumps(page)


def _lines(entries: list[dict[str, Any]]) -> Any:
    lines = tomlkit.array()
    for entry in entries:
        lines.append(_inline(entry))
    return lines.multiline(multiline=True)


def _inline(entry: Mapping[str, Any]) -> Any:
    table = tomlkit.inline_table()
    table.update(entry)
    return table


def compare_with_baseline(report: Mapping[str, Any], baseline: Mapping[str, Any], source: str | Path = "") -> Diff:
    """Compare the data of a report with a baseline: what it accepts is no difference, what is new or worse is."""
    run, counted = baseline["run"], dict[Row, tuple[int | None, float]]()
    for place, layers in baseline["margins"].items():
        adapter, _, precision = place.rpartition(" ")
        counted |= {Row(adapter, precision, layer, tensor): (None, margin)
                    for layer, tensors in layers.items() for tensor, margin in tensors.items()}
    seen: dict[FindingKey, dict[str, Evidence]] = {}
    for kind, name in (("finding", "findings"), ("convention", "conventions")):
        for entry in baseline[name]:
            key = FindingKey(entry["adapter"], entry["layer"], entry["tensor"], entry.get("about", ""))
            seen.setdefault(key, {})[entry["verdict"]] = Evidence(entry["verdict"], kind, entry["code"], entry.get("why", ""),
                                                                  digits=entry.get("digits", 0.0))
    sampling = {"cases": run["cases"], "seed": run.get("seed"), "layers": tuple(run.get("layers", ())), "draws": run["draws"],
                "like": run.get("like")}
    old = RunSummary("the baseline", str(source), tuple(run["adapters"]), tuple(run["precisions"]), sampling["layers"], run["cases"],
                     sampling, run["draws"], seen=seen, counted=counted, versions=baseline["versions"])
    return compare(old, _beside(RunSummary.of(report, "this run"), old))


def _beside(new: RunSummary, baseline: RunSummary) -> RunSummary:
    """Return a summary without what no baseline speaks of: known discrepancies, unless they were accepted as findings, and the machine."""
    seen = {key: kept for key, by_verdict in new.seen.items()
            if (kept := {v: shown for v, shown in by_verdict.items() if shown.kind != "known" or v in baseline.seen.get(key, {})})}
    versions = {name: version for name, version in new.versions.items() if name in _versions()}
    return replace(new, seen=seen, stale=(), versions=versions)


def accepted(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """Say line by line what a baseline accepts that the one before did not, and what it drops; small moves of margins have no line."""
    had, has = ({_identity(e): e for e in _entries(baseline)} for baseline in (before, after))
    said = [f"{what} {_sentence(here[key])}" for what, here, there in (("accepts", has, had), ("drops", had, has))
            for key in here if key not in there]
    old, new = ({(place, layer, tensor): margin for place, layers in (baseline["margins"] if baseline else {}).items()
                 for layer, tensors in layers.items() for tensor, margin in tensors.items()} for baseline in (before, after))
    if before is not None:
        said += [f"no longer expects {layer} {tensor} on {place}" for place, layer, tensor in old if (place, layer, tensor) not in new]
        said += [f"accepts a margin of {has:.2g}, before {had:.2g}: {layer} {tensor} on {place}"
                 for (place, layer, tensor), has in new.items()
                 if has >= HALF and has >= FACTOR * (had := old.get((place, layer, tensor), has))]
    return said


def _entries(baseline: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [*baseline["findings"], *baseline["conventions"]] if baseline else []


def _identity(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(entry.get(name, "") for name in ("adapter", "layer", "tensor", "verdict", "about"))


def _sentence(entry: Mapping[str, Any]) -> str:
    what = entry.get("about") or " ".join(part for part in (entry["layer"], entry["tensor"]) if part)
    return f"{entry['verdict']} [{entry['code']}]: {what} on {entry['adapter']}"
