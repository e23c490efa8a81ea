"""Public functions of torch and jax against the derivative of their own forward: alarms that `like=None` raises.

Run: python benchmarks/own_forwards.py [--cases N] [--seed S] [--precision P]... [NAME]...

The functions are listed by introspection: every public one of a module that takes one array or two, returns real arrays with the batch
as the first axis, and can be differentiated. Each alarm is a false one unless arbitrary precision says otherwise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import backproof as bp
import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import torch

MODULES = {"torch": ("torch", torch), "torch.special": ("torch", torch.special), "torch.nn.functional": ("torch", torch.nn.functional),
           "torch.linalg": ("torch", torch.linalg), "jax.numpy": ("jax", jnp), "jax.nn": ("jax", jax.nn),
           "jax.scipy.special": ("jax", jax.scipy.special)}
SHAPES = ([(3,)], [(2, 3)], [(3, 3)], [((3,), (3,))], [((2, 3), (2, 3))])
RANDOM = ("rand", "dropout", "bernoulli", "poisson", "normal", "multinomial", "empty", "rrelu", "gumbel")


def differentiated(framework: str, function: Callable[..., Any], shapes: tuple[Any, ...]) -> bool:
    """Say whether a function takes inputs of these shapes and has a gradient that is not 0 everywhere."""
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.5, 1.5, (2, *shape)).astype(np.float32) for shape in shapes]
    try:
        if framework == "torch":
            leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
            y = function(*leaves)
            if not isinstance(y, torch.Tensor) or not y.is_floating_point() or not y.requires_grad or (y.ndim and len(y) != 2):
                return False
            found = torch.autograd.grad(y.sum(), leaves, allow_unused=True)
            return any(d is not None and bool(d.any()) for d in found)
        y = function(*map(jnp.asarray, arrays))
        if not isinstance(y, jax.Array) or y.dtype != jnp.float32 or (y.ndim and len(y) != 2):
            return False
        return any(bool(d.any()) for d in jax.grad(lambda a: jnp.sum(function(*a)))(tuple(map(jnp.asarray, arrays))))
    except Exception:  # noqa: BLE001  (whatever a function raises for what it does not take)
        return False


def functions(wanted: list[str]) -> Iterator[tuple[str, str, Callable[..., Any], Any]]:
    """Yield name, framework, function and shapes of every public function that can be checked."""
    seen = set[int]()
    for home, (framework, module) in MODULES.items():
        for name in sorted(vars(module)):
            function, label = getattr(module, name), f"{home}.{name}"
            if name.startswith("_") or name.endswith("_") or isinstance(function, type) or not callable(function) or id(function) in seen:
                continue
            if any(word in name for word in RANDOM) or (wanted and not any(label.startswith(w) for w in wanted)):
                continue
            shapes = next((one for one in SHAPES
                           if differentiated(framework, function, one[0] if isinstance(one[0][0], tuple) else one)), None)
            if shapes is not None:
                seen.add(id(function))
                yield label, framework, function, shapes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", action="append", dest="precisions")
    options = parser.parse_args()
    count = alarms = compared = unknown = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for label, framework, function, shapes in functions(options.names):
            start = time.perf_counter()
            try:
                report = bp.check(function, None, framework=framework, cases=options.cases, seed=options.seed, shapes=shapes,
                                  precisions=options.precisions or ("float64", "float32"))
            except Exception as error:  # noqa: BLE001  (counted as what it is: no report)
                print(f"{label}: no report: {type(error).__name__}: {str(error)[:150]}", flush=True)
                continue
            count, compared = count + 1, compared + report.compared
            unknown += sum(t.inconclusive for t in report.tallies.values())
            alarms += bool(report.findings)
            print(f"{label} {shapes}: {report.verdict}, {report.compared:,} entries, {time.perf_counter() - start:.1f} s", flush=True)
            for f in report.findings:
                print(f"    {f.verdict} {f.tensor} in {f.precision}: {f.actual!r}, expected {f.expected!r} +- {f.bound!r}; {f.case}")
            for line in report.unjudged:
                print(f"    hardly judged: {line}")
    print(f"{count} functions, {alarms} with an alarm; {compared:,} entries, {unknown:,} of them inconclusive")


if __name__ == "__main__":
    main()
