"""Local certificates beside `torch.autograd.gradcheck` and `jax.test_util.check_grads`: same mistakes, same correct networks.

Every checker gets the loss of a network of the same layers, parameters and inputs, with the same wrong backward in it or none.
A catch is any alarm for the others; for backproof it is one failed certificate and no more: that of the layer and the gradient
where the mistake is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import torch
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.network import Network
from contestants import CHECKERS, JAX, SLOW_WIDTH, TORCH, Answer, Checker, gradcheck
from document import conditions, milliseconds, note, share, table, typical, write
from planted import PART, Plant, PlantedLinear
from trials import BATCH, LARGE, WIDTHS, Trial, correct, large, mistaken

Keep = Callable[[Trial], bool]


@dataclass(frozen=True)
class Result:
    """What a checker made of a trial: `blamed` if exactly the certificate at fault failed, `named` if its index is right too."""

    trial: Trial
    checker: Checker
    alarm: bool
    blamed: bool
    named: bool
    known: bool
    seconds: float

    @property
    def caught(self) -> bool:
        return bool(self.trial.mistake) and (self.blamed if self.checker.ours else self.alarm)


def examine(trial: Trial, checker: Checker) -> Result:
    """Let a checker see a trial; print a miss or a false alarm of ours with all that rebuilds it."""
    answer = checker.run(trial.case)
    blamed = [(c.path, c.tensor) for c in answer.failed] == [(trial.path, trial.tensor)]
    named = blamed and (answer.failed[0].index, answer.failed[0].outside) == (trial.index, 1)
    result = Result(trial, checker, answer.alarm, blamed, named, answer.known, answer.seconds)
    if checker.ours and (not result.caught if trial.mistake else result.alarm):
        _tell(trial, checker, answer)
    return result


def measure(trials: Sequence[Trial], checkers: Sequence[Checker]) -> list[Result]:
    """Let every checker see every trial that is not too wide for it."""
    results = []
    for number, trial in enumerate(trials):
        note(f"{number} of {len(trials)} trials")
        results += [examine(trial, checker) for checker in checkers if trial.width <= checker.widest]
    return results


def _tell(trial: Trial, checker: Checker, answer: Answer) -> None:
    failed = [(c.path, c.tensor, c.verdict, c.outside, f"{c.excess:.3g}") for c in answer.failed]
    planted = f"{trial.mistake} in {trial.tensor} of {trial.path}" if trial.mistake else "nothing"
    print(f"\nOURS, {checker.title}: planted {planted}; failed {failed}\n  {trial.case!r}")


def chosen(results: Sequence[Result], checker: Checker, keep: Keep = lambda trial: True) -> list[Result]:
    """Return the results of a checker on some of the trials."""
    return [r for r in results if r.checker is checker and keep(r.trial)]


def caught(results: Sequence[Result]) -> str:
    return share(sum(r.caught for r in results), len(results))


def refused(results: Sequence[Result]) -> str:
    known = sum(r.known for r in results)
    return share(sum(r.alarm for r in results), len(results)) + (f" ({known} known)" if known else "")


def summary(wrong: Sequence[Result], right: Sequence[Result], checkers: Sequence[Checker]) -> str:
    """Return the table of all trials together."""
    widths = sorted({r.trial.width for r in wrong})
    middle, widest = widths[(len(widths) - 1) // 2], widths[-1]

    def normal(trial: Trial) -> bool:
        return trial.case.regime == "normal"

    def seconds(checker: Checker, width: int, *, fresh: bool = False) -> str:
        both = chosen((*wrong, *right), checker, lambda t: (t.width, t.fresh) == (width, fresh))
        return typical([r.seconds for r in both])

    rows = [
        (c.title, caught(chosen(wrong, c)), refused(chosen(right, c, normal)), refused(chosen(right, c, lambda t: not normal(t))),
         seconds(c, middle), seconds(c, widest), seconds(c, widest, fresh=True))
        for c in checkers
    ]
    return table(("checker", "mistakes caught", "correct networks refused", "the same at kinks, zeros and saturation",
                  f"ms per check, width {middle}", f"width {widest}", f"first check, width {widest}"), rows)


def split(what: str, label: Callable[[Trial], str], results: Sequence[Result], rate: Callable[[Sequence[Result]], str]) -> str:
    """Return a table with one column per checker and one row per label of a trial."""
    checkers = list(dict.fromkeys(r.checker for r in results))
    cells: dict[str, list[str]] = {}
    for name in dict.fromkeys(label(r.trial) for r in results):
        alike = [r for r in results if label(r.trial) == name]
        cells[name] = [rate(chosen(alike, checker)) for checker in checkers]
    lines = [(name, *row) for name, row in cells.items()]
    return table((what, *(c.title for c in checkers)), lines)


def details(wrong: Sequence[Result], right: Sequence[Result]) -> str:
    """Return the tables by mistake, width, loss, regime and activation."""
    normal = [r for r in right if r.trial.case.regime == "normal"]
    return "\n".join((
        split("caught, by mistake", lambda t: t.mistake, wrong, caught),
        split("caught, by width", lambda t: f"{t.width} x {t.width}", wrong, caught),
        split("caught, by loss", lambda t: f"squared error, {t.case.network.head.reduction}", wrong, caught),
        split("correct networks refused, by regime", lambda t: t.case.regime, right, refused),
        split("in the normal regime, by activation", lambda t: t.activation, normal, refused),
        split("in the normal regime, by width", lambda t: f"{t.width} x {t.width}", normal, refused),
    ))


def ratios(results: Sequence[Result], checkers: Sequence[Checker]) -> str:
    """Say how many times longer each other checker takes than backproof on the trials that both saw, first draws left out."""
    lines = []
    for theirs in (c for c in checkers if not c.ours):
        ours = next(c for c in (TORCH if theirs in TORCH else JAX) if c.ours and c.precision == theirs.precision)
        own = {r.trial: r.seconds for r in results if r.checker is ours}
        among = [r.seconds / own[r.trial] for r in results if r.checker is theirs and not r.trial.fresh]
        if among:
            times = f"{median(among):.2g} times the seconds of {ours.name}"
            lines.append(f"- {theirs.title}: {times}, median over {len(among)} trials")
    return "\n".join(lines) + "\n" if lines else ""


def single_entries(checkers: Sequence[Checker], count: int, seed: int, *, slow: bool) -> str:
    """Return the table of one zeroed entry in 250,000, with the right layer beside it: one that always objects catches all."""
    wrong, right = [], []
    for number, (planted, intact) in enumerate(large(count, seed)):
        for checker in checkers:
            if checker.widest < LARGE and (number or not slow):
                continue
            note(f"one entry of 250,000: {number} of {count}, {checker.title}")
            wrong.append(examine(planted, checker))
            right.append(examine(intact, checker))
    rows = []
    for checker in checkers:
        found, control = chosen(wrong, checker), chosen(right, checker)
        named = share(sum(r.named for r in found), len(found)) if checker.ours else "names none"
        if found:
            rows.append((checker.title, caught(found), named, refused(control), typical([r.seconds for r in control])))
    return table(("checker", "caught", "index named", "the right one refused", "ms per check of the right one"), rows)


def message_cost(width: int = 64) -> str:
    """Say how long fast mode takes to object with its message and without."""
    case = Case(Network((width,), (PlantedLinear(width, plant=Plant("sign", "dweight")),), MSELoss(reduction="sum")), 1)
    without, full = (gradcheck(case, fast=True, wordless=short).seconds for short in (True, False))
    return f"one {width} x {width} Linear: {milliseconds(full)} ms with the message, {milliseconds(without)} without"


INTRODUCTION = """\
## Beside other gradient checkers

Written by `{command}`.

Networks of 2 or 3 Linear layers of the width given, with ReLU, tanh or sigmoid between them (in the correct ones GELU and leaky
ReLU too), batch {batch}, squared error summed or averaged, numbers of the regime `normal` where nothing else is said. One
mistake stands in one gradient of one layer, inside a `torch.autograd.Function` or a `jax.custom_vjp` that all checkers
differentiate alike; values are drawn until it changes that gradient by at least {part:g} of its largest entry, which no checker
is asked about.

- The others are called with their own defaults on the loss as a function of the input and all parameters. Any alarm is a catch.
  So one that refuses correct networks catches some mistakes by accident: read both columns together.
- `gradcheck` needs float64. Its slow mode runs on widths up to {slow}. When fast mode objects it runs slow mode to word its
  message, which is left out here ({message}).
- `check_grads` works with `order=1, modes=["rev"]`, on a compiled loss.
- For backproof one thing counts as a catch: exactly one certificate fails, that of the layer and the gradient at fault. An alarm
  on a correct network is a finding that `verify` leaves unexplained; "known" are those its list of known discrepancies explains.

{wrong} trials with a mistake (networks per mistake and width: {structures}; draws of values through each: {seeds}), {right}
without, half of them with the hand-written backward and no mistake. Milliseconds are medians over draws after a network's first,
which is shown apart since jax compiles in it.

"""

LARGE_INTRODUCTION = """
### One zeroed weight gradient among 250,000

A Linear of {large} x {large}, one random entry of its weight's gradient zero; {trials} trials (gradcheck's slow mode: {slow}).

"""


def main() -> None:
    """Measure, print and, where asked, write the section of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default=",".join(map(str, WIDTHS)), help="comma-separated")
    parser.add_argument("--structures", type=int, default=1, help="networks per mistake and width")
    parser.add_argument("--seeds", type=int, default=2, help="draws of values per network")
    parser.add_argument("--large", type=int, default=3, help="trials with one entry of 250,000")
    parser.add_argument("--slow-large", action="store_true", help="gradcheck's slow mode on one of those (minutes)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-jax", action="store_true")
    parser.add_argument("--write", action="store_true", help="write the section of docs/benchmarks.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    widths = [int(w) for w in options.widths.split(",")]
    checkers = TORCH if options.no_jax else CHECKERS
    start = perf_counter()
    mistakes = list(mistaken(widths, options.structures, options.seeds, options.seed))
    intact = list(correct(widths, options.seeds, options.seed))
    wrong, right = measure(mistakes, checkers), measure(intact, checkers)
    asked = f"--structures {options.structures} --seeds {options.seeds} --large {options.large}"
    asked += " --slow-large" * options.slow_large + f" --widths {options.widths}" * (tuple(widths) != WIDTHS)
    text = INTRODUCTION.format(command=f"python benchmarks/checkers.py {asked}", batch=BATCH, part=PART / 2, slow=SLOW_WIDTH,
                               wrong=len(mistakes), right=len(intact), message=message_cost(), structures=options.structures,
                               seeds=options.seeds)
    text += f"{summary(wrong, right, checkers)}\n{details(wrong, right)}\n{ratios((*wrong, *right), checkers)}"
    if options.large:
        text += LARGE_INTRODUCTION.format(large=LARGE, trials=options.large, slow="1" if options.slow_large else "not run")
        text += single_entries(checkers, options.large, options.seed, slow=options.slow_large)
    text += f"\n{conditions()}The whole took {perf_counter() - start:,.0f} s.\n"
    print(text)
    if options.write:
        write("checkers", text)


if __name__ == "__main__":
    main()
