"""The frameworks' own functions as candidates of `check`: every layer and head, every setting of them, every precision.

Whatever layout, upstream gradient, transform or special value a check draws, a framework's own function may be blamed for nothing but
what is known of it. A setting whose check finds more is printed with the case that shows it.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from time import perf_counter
from typing import Any

import backproof as bp
from backproof.adapters import own_function
from backproof.draw import strategies
from backproof.reference.head import pairs
from backproof.reference.heads import Head
from backproof.reference.layer import REGISTRY
from document import conditions, note, table, write

PRECISIONS = ("float64", "float32", "bfloat16", "float16")


def settings(framework: str) -> Iterator[tuple[Any, int]]:
    """Yield every setting of every layer that a framework has, with a seed, then every head."""
    for cls in sorted(import_module(f"backproof.adapters.{framework}").LOWERINGS, key=lambda cls: cls.__name__):
        yield from ((layer, seed) for seed, (layer, *_) in enumerate(cls.examples()))
    for head in (*(Head(*pair) for pair in pairs()), *(REGISTRY[name]() for name in strategies.HEADS if name != "Head")):
        yield head, 0


def scan(framework: str, cases: int) -> tuple[Counter[str], float]:
    """Check every function of a framework; return what was counted, and the seconds it took."""
    start, counted = perf_counter(), Counter[str]()
    for like, seed in settings(framework):
        note(f"{framework}: {counted['settings']} {like}")
        report = bp.check(own_function(framework, like), like, framework=framework, cases=cases, seed=seed, precisions=PRECISIONS)
        counted += Counter({"settings": 1, "layers": seed == 0 and not isinstance(like, Head), "heads": isinstance(like, Head),
                            "entries": report.compared, "known": len(report.known), "unexplained": len(report.findings)})
        for finding in report.findings:
            print(f"UNEXPLAINED on {framework}: {finding.title}\n  {finding.case}\n  {finding.diagnosis.sentence}", flush=True)
    return counted, perf_counter() - start



INTRODUCTION = """\
## The frameworks' own functions

Written by `{command}`.

`bp.check` of torch's and jax's own functions and losses, {cases} cases each, in {precisions}: every setting in which a layer of the
reference is special, every head. Known are tensors with a difference that `backproof/known/` explains.

"""


def main() -> None:
    """Scan, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--framework", action="append", choices=("torch", "jax"), help="both unless given")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # torch remarks on slow batching rules and on copies
    rows = []
    for framework in options.framework or ("torch", "jax"):
        counted, seconds = scan(framework, options.cases)
        rows.append((framework, *(f"{counted[name]:,}" for name in ("layers", "heads", "settings", "entries", "known", "unexplained")),
                     f"{seconds:,.0f}"))
    text = INTRODUCTION.format(command=f"python benchmarks/own_functions.py --cases {options.cases}", cases=options.cases,
                               precisions=", ".join(PRECISIONS))
    text += f"{table(('framework', 'layers', 'heads', 'settings', 'entries compared', 'known', 'unexplained', 'seconds'), rows)}\n"
    text += conditions()
    print(text)
    if options.write:
        write("own functions", text)


if __name__ == "__main__":
    main()
