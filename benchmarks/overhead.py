"""What the harness's own work costs beside the frameworks', and whether memory grows with the number of cases.

Every run is a process of its own, so that neither imports nor an earlier run count. All that is not an adapter's `run` counts
as our own work: generation, reference, bounds, comparison, self-test, classification, shrinking and writing the report.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from time import perf_counter
from typing import Any

from document import conditions, note, table, write

RUNS = {"default": ("torch", "jax:jit"), "torch": ("torch",)}


def child(adapters: list[str], cases: int, seed: int) -> None:
    """Run `verify` in this process and print its figures as JSON."""
    from backproof.adapters import load  # the parent needs no framework
    from backproof.verify.run import verify

    for name in adapters:
        load(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start = perf_counter()
        report = verify(adapters=adapters, cases=cases, seed=seed, reports=folder)
        wall = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": dict(report.seconds), "wall": wall, "peak": peak, "before": before, "cases": report.cases,
                      "compared": report.compared, "findings": [f.title for f in report.findings]}))


def run(adapters: tuple[str, ...], cases: int, seed: int = 0) -> dict[str, Any]:
    """Run `verify` in a fresh process and return its figures."""
    note(f"verify on {', '.join(adapters)}, {cases} cases")
    command = [sys.executable, __file__, "--child", ",".join(adapters), "--cases", str(cases), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"verify on {', '.join(adapters)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def shares(cases: int, seed: int) -> str:
    """Return the table of the seconds of one run per choice of adapters."""
    rows = []
    for name, adapters in RUNS.items():
        found = run(adapters, cases, seed)
        frameworks, harness, reporting = (found["seconds"][k] for k in ("frameworks", "harness", "reporting"))
        own = found["wall"] - frameworks
        seconds = [f"{s:.1f}" for s in (frameworks, harness, reporting, own - harness - reporting, found["wall"])]
        rows.append((name, found["cases"], f"{found['compared']:,}", *seconds, f"{100 * own / frameworks:.0f} %",
                     f"{found['cases'] / found['wall']:.1f}"))
    return table(("adapters", "cases", "entries", "frameworks: s", "draw, reference, compare: s", "self-test, verdicts: s",
                  "rest: s", "in all: s", "our own work / frameworks", "cases per s"), rows)


def memory(name: str, cases: int, seed: int) -> str:
    """Return the table of peak memory at a number of cases and at ten times as many."""
    rows = []
    for number in (cases, 10 * cases):
        found = run(RUNS[name], number, seed)
        rows.append((name, found["cases"], f"{found['before'] / 1024:.0f}", found["peak"] / 1024, f"{found['wall']:.1f}"))
    few, many = rows[0][3], rows[1][3]
    shown = [(*row[:3], f"{row[3]:.0f}", row[4]) for row in rows]
    return table(("adapters", "cases", "before the run: MiB", "peak: MiB", "s"), shown) + (
        f"\nTen times the cases: {many / few:.3f} times the peak, {1024 * (many - few) / (9 * cases):+.1f} KiB per case.\n")


INTRODUCTION = """\
## The harness's own work

Written by `{command}`.

One `verify` run per row, report written, each in a fresh process with the frameworks imported beforehand; default is torch and
jax:jit.

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40, help="cases of a verify run (a default run has 200)")
    parser.add_argument("--memory", type=int, default=100, help="cases of the smaller memory run; 0 leaves memory out")
    parser.add_argument("--memory-adapters", choices=RUNS, default="torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    if options.child:
        child(options.child.split(","), options.cases, options.seed)
        return
    asked = f"--cases {options.cases} --memory {options.memory}"
    text = INTRODUCTION.format(command=f"python benchmarks/overhead.py {asked}")
    text += shares(options.cases, options.seed)
    if options.memory:
        text += f"\n### Memory\n\n{memory(options.memory_adapters, options.memory, options.seed)}"
    text += f"\n{conditions()}"
    print(text)
    if options.write:
        write("overhead", text)


if __name__ == "__main__":
    main()
