"""Whether what was found shows again: a candidate that gives other numbers each time has that one finding, and no story besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from backproof.check.checker import Checker
from backproof.draw.probe import Probe
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.directional import DIRECTIONAL
from backproof.judge.rules import expected, tensors
from backproof.reference.rounding import Arithmetic, Rounded, precision_named, quiet
from backproof.report.finding import Finding

__all__ = ["unsteady"]

AGAIN = 4  # runs of one probe, after the one on which a finding was made
STORIES = frozenset({"wrong", "imprecise", "nonfinite", "convention", "nondeterministic"})
"""Verdicts on numbers, of which none is worth a story where the numbers change."""


def unsteady(checker: Checker) -> bool:
    """Run each probe with a finding again; where its numbers change, leave that as all that is said of numbers. Say whether they do."""
    found = checker.ledger.found
    stories = {key: f for key, f in found.items() if f.verdict in STORIES and isinstance(f.case, Probe)}
    if all(f.known or f.verdict == "convention" for f in stories.values()):
        return False
    said: dict[str, Finding] = {}
    for finding in stories.values():
        runs = _runs(checker, finding)
        if finding.verdict == "nondeterministic" or _change(runs):
            diagnosis = _diagnosed(checker, finding, runs, stories)
            said.setdefault(finding.tensor, replace(finding, verdict="nondeterministic", diagnosis=diagnosis, digits=0.0))
    for key in stories if said else ():
        del found[key]
    outputs = [f for f in said.values() if f.tensor in checker.like.output_names]
    for finding in outputs or said.values():  # of other outputs the gradients are others too
        found[(finding.subject, finding.layer, finding.tensor, "nondeterministic", "")] = finding
    return bool(said)


def _runs(checker: Checker, finding: Finding) -> list[np.ndarray]:
    """Return a tensor as it was found and as some runs more of its probe give it; nothing where it cannot be had again."""
    probe, step = finding.case, finding.step
    if step is None or not isinstance(probe, Probe) or probe.condition.mode in DIRECTIONAL:
        return []
    runs = [tensors(step).get(finding.tensor)]
    for _ in range(AGAIN):
        try:
            again, _ = probe.run(checker.candidate.driver, checker.candidate.function)
        except Exception:  # noqa: BLE001  (what is raised now and was not before is found by the runs of the check)
            return []
        runs.append(tensors(again).get(finding.tensor))
    return [np.asarray(run) for run in runs if run is not None]


def _change(runs: Sequence[np.ndarray]) -> bool:
    return any(run.tobytes() != runs[0].tobytes() for run in runs[1:])


def _diagnosed(checker: Checker, finding: Finding, runs: Sequence[np.ndarray], stories: dict[tuple[str, ...], Finding]) -> Diagnosis:
    """Say how a tensor changes: it grows by the true gradient, the first call was another, or no rule is seen."""
    tensor, step, probe = finding.tensor, finding.step, finding.case
    different = len({run.tobytes() for run in runs})
    if len(runs) > 2 and step is not None and isinstance(probe, Probe):
        ball = expected(step, Arithmetic(precision_named(probe.precision))).get(tensor)
        if ball is not None and _grows(runs[1:], ball):  # what was called between the first and these is not known
            sentence = f"{tensor} grows by the true gradient with every call: it is accumulated across calls, and nobody sets it to zero"
            return Diagnosis("accumulated", sentence)
        once = {(f.case, f.count) for f in stories.values() if f.verdict != "convention"} == {(probe, 1)}
        if different == 2 and not _change(runs[1:]) and once and probe == checker.first:
            sentence = f"{tensor} of the first call is another than {len(runs) - 1} calls more with the same arrays give, which agree"
            return Diagnosis("state", f"{sentence}: it depends on what was called before")
    often = f"{len(runs)} runs of one case give {different} different {tensor}"
    return Diagnosis("nondeterministic", often if different > 2 else f"two runs of one case give different {tensor}")


def _grows(runs: Sequence[np.ndarray], ball: Rounded) -> bool:
    """Say whether each run differs from the one before by what is true, and is not the same: each sum may be rounded once."""
    numbers = [run.astype(np.float64) for run in runs]
    if any(n.shape != ball.shape or not np.isfinite(n).all() for n in numbers) or not ball.value.any():
        return False
    unit = ball.arithmetic.precision.store
    with quiet():
        return all(bool((np.abs(after - before - ball.value) <= ball.radius() + 2 * unit * (np.abs(after) + np.abs(before))).all())
                   and not bool((np.abs(after - before) <= ball.radius()).all())
                   for before, after in pairwise(numbers))
