"""Every command that reads a file, on thousands of files that are not what they should be: each ends in one line or as usual.

    python benchmarks/malformed.py [FILES] [SEED]

Exit status 1, with the file kept in a new temporary folder, where a command shows a traceback, says more than a line, exits with another
status than 0, 1 or 2, takes longer than two minutes, or writes where it should not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import backproof as bp
from backproof.cli import main
from backproof.compare.baseline import baseline_of, text_of
from backproof.compare.reading import read_report

SLOW = 120.0  # seconds: a campaign that goes on shrinks its findings
STRANGE: tuple[Any, ...] = (None, True, 0, -1, 1, 2, 3, 2**31, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, "", "nan", "inf", "Linear",
                            "torch", "x" * 5000, "\x00\x1b[2J\n::error::x", "é\u202e", [], {}, [[]], [None], {"": None})
CASES = ("--adapter", "torch", "--cases", "1", "--layers", "ReLU", "--quiet", "--reports", "reports")


@dataclass(frozen=True)
class Command:
    """A command line that reads a mutated sample, and how often it is its turn."""

    sample: str
    arguments: tuple[str, ...]
    share: int = 1


COMMANDS = (
    Command("case.json", ("replay", "{}", "--adapter", "torch"), 3),
    Command("finding.json", ("replay", "{}"), 3),
    Command("report.json", ("replay", "{}", "--adapter", "torch"), 2),
    Command("report.json", ("diff", "{}", "good/report.json"), 4),
    Command("report.json", ("diff", "good", "{}", "--format", "markdown"), 4),
    Command("report.json", ("diff", "{}", "{}", "--format", "json"), 2),
    Command("report.json", ("baseline", "{}", "reports/new.toml"), 4),
    Command("baseline.toml", ("baseline", "good/report.json", "{}", "--check"), 6),
    Command("baseline.toml", ("verify", *CASES, "--baseline", "{}")),
    Command("report.json", ("show", "{folder}", "--print")),
    Command("campaign.sqlite", ("diff", "{}", "good"), 4),
    Command("campaign.sqlite", ("verify", "--quiet", "--resume", "{folder}"), 2),
)
"""What is run: `{}` is the mutated file, `{folder}` the folder that holds it and nothing else."""


def samples(folder: Path) -> dict[str, bytes]:
    """Return one good file of each kind, of a run of an adapter with a mistake, and put its report into `folder`."""
    from dataclasses import replace

    torch = bp.adapters.load("torch")

    class Mistaken:
        name = "torch"

        def run(self, case: bp.Case) -> bp.Trace:
            trace = torch.run(case)
            wrong = [replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s
                     for s in trace.layers]
            return replace(trace, layers=tuple(wrong))

    report = bp.verify(adapters=[Mistaken()], cases=16, layers=["Linear", "LeakyReLU", "Hardsigmoid"], reports=folder / "made")
    (made,) = (folder / "made").iterdir()
    shutil.move(made, folder / "good")
    place = next(p for p in (folder / "good").iterdir() if p.is_dir() and not p.name.endswith("known"))
    if report.ok:
        raise RuntimeError("the mistake was not found: there is no finding to mutate")
    good = {name: (folder / "good" / name).read_bytes() for name in ("campaign.sqlite", "report.json")}
    return {**good, **{name: (place / name).read_bytes() for name in ("case.json", "finding.json")},
            "baseline.toml": text_of(baseline_of(read_report(folder / "good"))).encode()}


def mutated(rng: random.Random, data: bytes, *, is_json: bool) -> bytes:
    """Return content with one to three faults: in its bytes, or where it is JSON in a value that stays JSON."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if is_json and rng.random() < 0.7:
            try:
                data = json.dumps(_other_value(rng, json.loads(data)), indent=2).encode("utf-8", "surrogatepass")
            except (ValueError, RecursionError):
                continue
        else:
            data = rng.choice(BYTES)(rng, data)
    return data


def _other_value(rng: random.Random, tree: Any) -> Any:
    """Return the tree with one value replaced, removed, wrapped, or taken from elsewhere in it."""
    places = list(_places(tree)) if isinstance(tree, dict | list) else []
    if not places:
        return rng.choice(STRANGE)
    parent, key = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        deep: Any = parent[key]
        for _ in range(rng.choice((1, 3, 150, 300))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        parent[key] = deep
    elif kind == 2:
        other, name = rng.choice(places)
        parent[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name % len(other)] if other else None))
    elif kind == 3 and isinstance(parent, dict):
        parent[rng.choice(("", "x", "schema", "é", "\x1b"))] = parent.pop(key)
    else:
        parent[key] = rng.choice(STRANGE)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            yield node, key
            if isinstance(value, dict | list):
                stack.append(value)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flipped(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice((1, 4, 32)) if data else 0):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _spliced(rng: random.Random, data: bytes) -> bytes:
    start, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    to = rng.randrange(len(data) + 1)
    return data[:to] + data[start : min(end, start + 4000)] + data[to:]


def _digits(rng: random.Random, data: bytes) -> bytes:
    """Put digits where digits stand."""
    places = [i for i, c in enumerate(data) if 48 <= c <= 57]
    at = rng.choice(places) if places else 0
    return data[:at] + rng.choice((b"9" * 30, b"9" * 5000, b"-", b"1e999", b"0", b".", b"NaN", b"0x", b"1_0")) + data[at:]


BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _cut, _flipped, _spliced, _digits, lambda _, __: b"", lambda _, data: b"\xef\xbb\xbf" + data, lambda rng, _: rng.randbytes(200),
    lambda _, data: b"[" * 10_000 + data,
)


def fault(arguments: list[str], folder: Path) -> str:
    """Run a command line in this process and return what is wrong with how it ended, or an empty string."""
    there = _files(folder)
    out, err = io.StringIO(), io.StringIO()
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
        status: Any = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException as error:  # noqa: BLE001  (what escapes is what is looked for)
        return f"{type(error).__name__} escaped: {error}"
    ENDINGS[status] += 1
    said = err.getvalue()
    if time.perf_counter() - start > SLOW:
        return f"took {time.perf_counter() - start:.0f} s"
    if status not in {0, 1, 2} or "Traceback" in said:
        return f"exit status {status}: {said[-600:]}"
    if status == 2 and (len(said.splitlines()) != 1 or len(said) > 1000 or not said[:-1].isprintable()):
        return f"not one line: {said[:600]!r}"
    if new := {path for path in _files(folder) - there if path.parts[0] not in {"reports", "mutated"}}:
        return f"written: {sorted(map(str, new))}"
    return ""


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


ENDINGS: Counter[int] = Counter()


def run(files: int, seed: int) -> int:
    """Run so many mutated files through the commands in turn; return how many ended badly."""
    bad, home, kept = 0, Path.cwd(), Path()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = samples(folder)
        (folder / "reports").mkdir()
        plan = [command for command in COMMANDS for _ in range(command.share)]
        os.chdir(folder)
        try:
            for number in range(files):
                rng, command = random.Random(f"{seed} {number}"), plan[number % len(plan)]  # noqa: S311  (a seed that is printed)
                shutil.rmtree(folder / "mutated", ignore_errors=True)
                (folder / "mutated").mkdir()
                path = folder / "mutated" / command.sample
                path.write_bytes(mutated(rng, good[command.sample], is_json=command.sample.endswith("json")))
                arguments = [part.replace("{}", f"mutated/{command.sample}").replace("{folder}", "mutated") for part in command.arguments]
                if said := fault(arguments, folder):
                    kept = kept if bad else Path(tempfile.mkdtemp(prefix="malformed-"))
                    bad += 1
                    shutil.copy(path, kept / f"{number}-{command.sample}")
                    print(f"{' '.join(arguments)} ({kept / f'{number}-{command.sample}'}): {said}", flush=True)
                if command.arguments[0] == "verify":
                    shutil.rmtree(folder / "reports")
                    (folder / "reports").mkdir()
        finally:
            os.chdir(home)
    print(f"{files:,} files, {bad} ended badly; exit statuses {dict(sorted(ENDINGS.items()))}")
    return bad


if __name__ == "__main__":
    count, first = (int(text) for text in (*sys.argv[1:], "10000", "0")[:2]) if len(sys.argv) != 2 else (int(sys.argv[1]), 0)
    sys.exit(1 if run(count, first) else 0)
