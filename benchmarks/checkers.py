"""Local certificates beside `torch.autograd.gradcheck` and `jax.test_util.check_grads`, on the same mistakes and the same correct networks.

Every checker gets the loss of a network of the same layers, parameters and inputs, with the same wrong backward in it or none. A catch is any
alarm for the others; for backproof it is one failed certificate and no more: that of the layer and the gradient where the mistake is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from statistics import median
from time import perf_counter
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
import torch
from backproof.adapters import jax as jax_adapter
from backproof.adapters import load
from backproof.adapters import torch as torch_adapter
from backproof.certify import Certificate, certify, tensors
from backproof.reference import activations as a
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import precision_named
from backproof.verify import Run
from document import conditions, milliseconds, note, share, table, typical, write
from jax.test_util import check_grads
from planted import MISTAKES, PART, Plant, PlantedLinear, PlantedReLU, PlantedSigmoid, PlantedTanh

WIDTHS = (1, 4, 16, 64, 256, 512)
SLOW_WIDTH = 16  # slow mode runs the network twice per parameter
BATCH = 4
REGIMES = ("normal", "kinks", "zeros", "saturated")
ACTIVATIONS: dict[type[Layer], type[Layer]] = {a.ReLU: PlantedReLU, a.Tanh: PlantedTanh, a.Sigmoid: PlantedSigmoid}
ALL_ACTIVATIONS = (*ACTIVATIONS, a.GELU, a.LeakyReLU)
LARGE = 500  # a Linear of 500 x 500 has 250,000 weights


# The checkers: each takes a case and answers with an alarm, the certificates that failed, and the seconds it took.


@dataclass(frozen=True)
class Answer:
    """`known` marks an alarm that `verify` explains by its list of known discrepancies of the framework."""

    alarm: bool
    seconds: float
    failed: tuple[Certificate, ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Checker:
    name: str
    precision: str
    check: Callable[[Case], Answer]
    ours: bool = False
    widest: int = max(WIDTHS)

    def run(self, case: Case) -> Answer:
        return self.check(replace(case, precision=self.precision))

    @property
    def title(self) -> str:
        return f"{self.name}, {self.precision}"


def backproof(adapter: str, case: Case) -> Answer:
    """Run the network on the adapter and certify its trace, as `verify` does.

    Where no mistake is planted, what fails goes through the rest of `verify`, which knows the digits that torch's own GELU loses.
    """
    runner, precision = load(adapter), precision_named(case.precision)
    case.values()
    start = perf_counter()
    certificates = certify(runner.run(case), precision, fused=getattr(runner, "fused", False))
    seconds = perf_counter() - start
    failed = tuple(c for c in certificates if c.failed)
    if not failed or any(getattr(layer, "plant", None) for layer in case.network.layers):
        return Answer(bool(failed), seconds, failed)
    run = Run([adapter], 1, case.seed, [case.precision], None, None)
    run.examine(case)
    unexplained = bool(run.ledger.sorted_findings("new"))
    return Answer(unexplained, seconds, failed, known=not unexplained)


def gradcheck(fast: bool, case: Case, *, wordless: bool = True) -> Answer:
    """Call gradcheck with its own defaults on the loss as a function of the input and of every parameter.

    When fast mode objects it computes the whole Jacobian to word its message, for minutes on wide networks; `wordless` leaves that out.
    """
    values = case.values()
    names = [(path, name) for path, named in values.params.items() for name in named]
    leaves = [torch_adapter.to_torch(v).requires_grad_() for v in (values.x, *(values.params[p][n] for p, n in names))]
    target = torch_adapter.to_torch(values.target)

    def loss(x: Any, *flat: Any) -> Any:
        params: dict[str, Any] = {path: {} for path in values.params}
        for (path, name), p in zip(names, flat, strict=True):
            params[path][name] = p
        for path, layer, _ in case.network.paths():
            x = torch_adapter.LOWERINGS[type(layer)](layer, params[path], x)
        return torch_adapter.HEADS[type(case.network.head)](case.network.head, x, target)

    torch.manual_seed(case.seed)
    short = patch.object(sys.modules["torch.autograd.gradcheck"], "_run_slow_mode_and_get_error", lambda *_: "")
    with short if wordless else nullcontext():
        return _called(lambda: torch.autograd.gradcheck(loss, leaves, fast_mode=fast))


@lru_cache(maxsize=2)
def _jax_loss(network: Network) -> Callable[..., Any]:
    def loss(x: Any, params: Any, target: Any) -> Any:
        for path, layer, _ in network.paths():
            x = jax_adapter.LOWERINGS[type(layer)](layer, params[path], x)
        return jax_adapter.HEADS[type(network.head)](network.head, x, target)

    return jax.jit(loss)


def checkgrads(case: Case) -> Answer:
    """Call check_grads with its own defaults, in reverse mode, on the same loss, compiled once for all values of a network."""
    values = case.values()
    with jax.enable_x64(case.precision == "float64"):
        loss = partial(_jax_loss(case.network), target=values.target)
        return _called(lambda: check_grads(loss, (values.x, dict(values.params)), order=1, modes=["rev"]))


def _called(check: Callable[[], Any]) -> Answer:
    """Time a checker; whatever it raises, and False, are alarms."""
    start = perf_counter()
    try:
        right = check() is not False
    except (AssertionError, RuntimeError, ValueError):
        right = False
    return Answer(not right, perf_counter() - start)


TORCH = (
    Checker("backproof (torch)", "float64", partial(backproof, "torch"), ours=True),
    Checker("gradcheck fast", "float64", partial(gradcheck, True)),
    Checker("gradcheck slow", "float64", partial(gradcheck, False), widest=SLOW_WIDTH),
    Checker("backproof (torch)", "float32", partial(backproof, "torch"), ours=True),
)
JAX = (
    Checker("backproof (jax:jit)", "float64", partial(backproof, "jax:jit"), ours=True),
    Checker("check_grads", "float64", checkgrads),
    Checker("backproof (jax:jit)", "float32", partial(backproof, "jax:jit"), ours=True),
    Checker("check_grads", "float32", checkgrads),
)

# The trials.


@dataclass(frozen=True)
class Trial:
    """A case, with the mistake in it (none in a correct network); `fresh` marks the first values drawn for its network."""

    case: Case
    width: int
    fresh: bool
    mistake: str = ""
    path: str = ""
    tensor: str = ""


def _network(rng: np.random.Generator, width: int, activation: type[Layer], depth: int) -> Network:
    layers: list[Layer] = []
    for index in range(depth):
        layers += [activation()] if index else []
        layers.append(Linear(width))
    return Network((width,), tuple(layers), MSELoss(reduction=("sum", "mean")[int(rng.integers(2))]))


def _with(network: Network, index: int, layer: Layer) -> Network:
    return replace(network, layers=(*network.layers[:index], layer, *network.layers[index + 1 :]))


def _planted(layer: Layer, plant: Plant | None) -> Layer:
    """Return the stand-in for a layer, whose backward is written by hand."""
    return PlantedLinear(layer.out_features, layer.bias, plant) if isinstance(layer, Linear) else ACTIVATIONS[type(layer)](plant=plant)  # type: ignore[call-arg]


def mistaken(widths: Sequence[int], structures: int, seeds: int, seed: int) -> Iterator[Trial]:
    """Yield networks of 2 or 3 Linear layers with every mistake, in a random layer and gradient of those it can be in."""
    for width in widths:
        for code, mistake in MISTAKES.items():
            for number in range(structures if width > 1 or not mistake.wide else 0):
                rng = np.random.default_rng((seed, width, list(MISTAKES).index(code), number))
                activation = a.ReLU if code == "stale-mask" and number % 2 == 0 else list(ACTIVATIONS)[rng.integers(len(ACTIVATIONS))]
                network = _network(rng, width, activation, int(rng.integers(2, 4)))
                places = [(i, t) for i, layer in enumerate(network.layers)
                          for t in (mistake.linear if isinstance(layer, Linear) else mistake.activation)]  # fmt: skip
                index, tensor = places[rng.integers(len(places))]
                layer = network.layers[index]
                wrong, right = (_with(network, index, _planted(layer, plant)) for plant in (Plant(code, tensor), None))
                cases = _telling(wrong, right, index, tensor, rng)
                for drawn in range(seeds):
                    case = next(cases, None)
                    if case is None:
                        note(f"no values show {code} in {tensor} of {network}")
                        break
                    yield Trial(case, width, drawn == 0, code, f"layers.{index}", tensor)


def _telling(wrong: Network, right: Network, index: int, tensor: str, rng: np.random.Generator, tries: int = 100) -> Iterator[Case]:
    """Yield cases in which the mistake changes the gradient: by half of 1 part in 10,000 of its largest entry or more."""
    for number in rng.integers(2**32, size=tries):
        case = Case(wrong, int(number), "normal", BATCH)
        one, two = (tensors(load("torch").run(replace(case, network=n)).layers[index])[tensor] for n in (wrong, right))
        size = float(np.max(np.abs(two)))
        if size > 1e-30 and float(np.max(np.abs(one - two))) >= PART * size / 2:
            yield case


def correct(widths: Sequence[int], seeds: int, seed: int) -> Iterator[Trial]:
    """Yield correct networks in every regime, half of them (by width and activation) with a right hand-written backward in them."""
    for place, width in enumerate(widths):
        for turn, activation in enumerate(ALL_ACTIVATIONS):
            rng = np.random.default_rng((seed, width, turn))
            network = _network(rng, width, activation, 2 + turn % 2)
            if (place + turn) % 2:
                network = replace(network, layers=tuple(
                    _planted(layer, None) if type(layer) in {Linear, *ACTIVATIONS} else layer for layer in network.layers))  # fmt: skip
            for number in range(seeds):
                for regime in REGIMES:
                    yield Trial(Case(network, int(rng.integers(2**32)), regime, BATCH), width, number == 0 and regime == REGIMES[0])


# The measurement.


@dataclass(frozen=True)
class Result:
    trial: Trial
    checker: Checker
    alarm: bool
    caught: bool
    seconds: float
    known: bool


def measure(trials: Sequence[Trial], checkers: Sequence[Checker]) -> list[Result]:
    """Let every checker see every trial that is not too wide for it."""
    results = []
    for number, trial in enumerate(trials):
        note(f"{number} of {len(trials)} trials")
        for checker in checkers:
            if trial.width > checker.widest:
                continue
            answer = checker.run(trial.case)
            caught = [(c.path, c.tensor) for c in answer.failed] == [(trial.path, trial.tensor)] if checker.ours else answer.alarm
            results.append(Result(trial, checker, answer.alarm, caught and bool(trial.mistake), answer.seconds, answer.known))
            if checker.ours and (not caught if trial.mistake else answer.alarm):
                _tell(trial, checker, answer)
    return results


def _tell(trial: Trial, checker: Checker, answer: Answer) -> None:
    """Print a miss or a false alarm of ours in full, with all that rebuilds it."""
    got = [(c.path, c.tensor, c.verdict, c.outside, f"{c.excess:.3g}") for c in answer.failed]
    print(f"\nOURS, {checker.title}: planted {trial.mistake or 'nothing'} in {trial.tensor} of {trial.path}; failed {got}\n  {trial.case!r}")


def _rate(results: Sequence[Result], *, caught: bool = True) -> str:
    found, known = share(sum(r.caught if caught else r.alarm for r in results), len(results)), sum(r.known for r in results)
    return f"{found} ({known} known)" if known else found


def report(wrong: Sequence[Result], right: Sequence[Result], checkers: Sequence[Checker]) -> str:
    """Return the tables: all together, then by mistake, by width, by loss and by regime."""

    def of(results: Sequence[Result], checker: Checker, keep: Callable[[Trial], bool] = lambda t: True) -> list[Result]:
        return [r for r in results if r.checker is checker and keep(r.trial)]

    def seconds(checker: Checker, width: int, fresh: bool) -> str:
        return typical([r.seconds for r in of((*wrong, *right), checker, lambda t: t.width == width and t.fresh == fresh)])

    widths = sorted({r.trial.width for r in wrong})
    middle, widest = widths[len(widths) // 2 - 1], widths[-1]
    summary = [(c.title, _rate(of(wrong, c)), _rate(of(right, c, lambda t: t.case.regime == "normal"), caught=False),
                _rate(of(right, c, lambda t: t.case.regime != "normal"), caught=False), seconds(c, middle, False),
                seconds(c, widest, False), seconds(c, widest, True)) for c in checkers]  # fmt: skip
    titles = [c.title for c in checkers]
    parts = [
        table(("checker", "mistakes caught", "correct networks refused", "the same at kinks, zeros and saturation",
               f"ms per check, width {middle}", f"width {widest}", f"first check, width {widest}"), summary),
        "Caught, by mistake:\n", _split(titles, checkers, wrong, of, [(code, lambda t, m=code: t.mistake == m) for code in MISTAKES]),
        "Caught, by width:\n", _split(titles, checkers, wrong, of, [(f"{w} x {w}", lambda t, w=w: t.width == w) for w in widths]),
        "Caught, by loss:\n", _split(titles, checkers, wrong, of, [(f"squared error, {m}", lambda t, m=m: t.case.network.head.reduction == m)
                                                                   for m in ("sum", "mean")]),
        "Correct networks refused (false alarms), by regime and activation:\n",
        _split(titles, checkers, right, of, [(r, lambda t, r=r: t.case.regime == r) for r in REGIMES]
               + [(f"normal, {n.__name__}", lambda t, n=n: t.case.regime == "normal" and any(isinstance(x, n) for x in t.case.network.layers))
                  for n in ALL_ACTIVATIONS]
               + [(f"normal, width {w}", lambda t, w=w: t.case.regime == "normal" and t.width == w) for w in widths], caught=False),
    ]  # fmt: skip
    return "\n".join(parts) + "\n" + _ratios(wrong, right, widest)


def _split(titles: Sequence[str], checkers: Sequence[Checker], results: Sequence[Result], of: Any, rows: Any, caught: bool = True) -> str:
    return table(("", *titles), [(name, *(_rate(of(results, c, keep), caught=caught) for c in checkers)) for name, keep in rows])


def _ratios(wrong: Sequence[Result], right: Sequence[Result], widest: int) -> str:
    """Say how many times longer each other checker takes than backproof, on the trials both saw."""
    lines = []
    for theirs in (c for c in (*TORCH, *JAX) if not c.ours):
        ours = next(c for c in (TORCH if theirs in TORCH else JAX) if c.ours and c.precision == theirs.precision)
        times = {(c.title, r.trial): r.seconds for c in (ours, theirs) for r in (*wrong, *right) if r.checker is c and not r.trial.fresh}
        pairs = [(s, times[ours.title, t]) for (title, t), s in times.items() if title == theirs.title]
        if pairs:
            among = [x / y for x, y in pairs]
            lines.append(f"- {theirs.title}: {median(among):.2g} times the seconds of {ours.name} (median over {len(among)} trials)")
    return "\n".join(lines) + "\n" if lines else ""


def _message(width: int = 64) -> str:
    """Say how long fast mode takes to object with its message and without."""
    case = Case(Network((width,), (PlantedLinear(width, plant=Plant("sign", "dweight")),), MSELoss(reduction="sum")), 1, "normal", BATCH)
    without, full = (gradcheck(True, case, wordless=short).seconds for short in (True, False))
    return f"one {width} x {width} Linear: {milliseconds(full)} ms with the message, {milliseconds(without)} without"


# One zeroed entry among 250,000.


def single_entries(checkers: Sequence[Checker], trials: int, slow: bool, seed: int) -> str:
    """Zero one random weight gradient of a 500 x 500 Linear; show the right one too, since a checker that always objects catches all."""
    rng = np.random.default_rng((seed, LARGE))
    counts = {c.title: [0, 0, 0, 0] for c in checkers}
    times: dict[str, list[float]] = {c.title: [] for c in checkers}
    for number in range(trials):
        index = tuple(int(i) for i in rng.integers(LARGE, size=2))
        drawn = int(rng.integers(2**32))
        for checker in checkers:
            if checker.widest < LARGE and (number or not slow):
                continue
            note(f"one entry of 250,000: {number} of {trials}, {checker.title}")
            count = counts[checker.title]
            for plant in (Plant("entry-zeroed", "dweight", index), None):
                layer = PlantedLinear(LARGE, plant=plant)
                answer = checker.run(Case(Network((LARGE,), (layer,), MSELoss(reduction="sum")), drawn, "normal", BATCH))
                times[checker.title].append(answer.seconds)
                if plant is None:
                    count[2] += answer.alarm
                    continue
                count[3] += 1
                blamed = [(c.path, c.tensor, c.index, c.outside) for c in answer.failed]
                count[0] += answer.alarm if not checker.ours else blamed[:1] != [] and len(blamed) == 1
                count[1] += blamed == [("layers.0", "dweight", index, 1)]
    rows = [(c.title, share(n[0], n[3]), share(n[1], n[3]) if c.ours else "cannot", share(n[2], n[3]), typical(times[c.title]))
            for c in checkers if (n := counts[c.title])[3]]  # fmt: skip
    return table(("checker", "caught", "index named", "the right one refused", "ms per check"), rows)


INTRODUCTION = """\
## Beside other gradient checkers

Written by `{command}`.

Networks of 2 or 3 Linear layers of the width given, ReLU, tanh or sigmoid between them (for the correct ones GELU and leaky ReLU too), batch {batch}, squared error
summed or averaged, numbers of the regime `normal` where nothing else is said. One mistake stands in one gradient of one layer, inside a
`torch.autograd.Function` or a `jax.custom_vjp` that all checkers differentiate alike; values are drawn until it changes that gradient by at
least {part:g} of its largest entry (judged without any checker). The others are called with their own defaults on the loss as a function of the input
and all parameters: an alarm of any kind counts as a catch. For backproof only this counts: exactly one certificate fails, that of the layer and the gradient at fault.
Its alarms on correct networks are the findings `verify` leaves unexplained; "known" are those it explains by its list of known discrepancies.
`gradcheck` needs float64; its slow mode runs on widths up to {slow}. When fast mode objects it runs slow mode to word its message, which is left out
here ({message}). check_grads works with `order=1, modes=["rev"]`, on a compiled loss.

{wrong} trials with a mistake ({structures} networks per mistake and width, {seeds} draws of values each), {right} with none, half of which have the hand-written backward
without a mistake. Seconds are medians over draws after a network's first one; jax compiles in the first, shown apart.

"""

LARGE_INTRODUCTION = """
### One zeroed weight gradient among 250,000

A Linear of {large} x {large}, one random entry of its weight's gradient zero; {trials} trials (gradcheck's slow mode: {slow}).

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)), help="comma-separated")
    parser.add_argument("--structures", type=int, default=2, help="networks per mistake and width")
    parser.add_argument("--seeds", type=int, default=3, help="draws of values per network")
    parser.add_argument("--large", type=int, default=10, help="trials with one entry of 250,000")
    parser.add_argument("--slow-large", action="store_true", help="gradcheck's slow mode on one of those (a minute or two)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-jax", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    widths = [int(w) for w in options.widths.split(",")]
    checkers = TORCH if options.no_jax else (*TORCH, *JAX)
    start = perf_counter()
    wrong_trials = list(mistaken(widths, options.structures, options.seeds, options.seed))
    right_trials = list(correct(widths, options.seeds, options.seed))
    wrong, right = measure(wrong_trials, checkers), measure(right_trials, checkers)
    text = INTRODUCTION.format(command=f"python benchmarks/checkers.py --structures {options.structures} --seeds {options.seeds}", batch=BATCH,
                               part=PART / 2, slow=SLOW_WIDTH, wrong=len(wrong_trials), right=len(right_trials),
                               structures=options.structures, seeds=options.seeds, message=_message())  # fmt: skip
    text += report(wrong, right, checkers)
    if options.large:
        text += LARGE_INTRODUCTION.format(large=LARGE, trials=options.large, slow="1" if options.slow_large else "not run")
        text += single_entries(checkers, options.large, options.slow_large, options.seed)
    text += f"\n{conditions()}The whole took {milliseconds(perf_counter() - start)} ms.\n"
    print(text)
    if options.write:
        write("checkers", text)


if __name__ == "__main__":
    main()
