"""What is found is brought to the simplest probe that shows it, with the conditions that it still needs; what only follows is dropped."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
from backproof.adapters.calls import DOUBLE
from backproof.check.checker import Checker
from backproof.check.conditions import condition, simpler, where
from backproof.draw.probe import Condition, Probe
from backproof.draw.shrinking import shrink
from backproof.judge.certify import certify_layer
from backproof.judge.directional import DIRECTIONAL, first_order
from backproof.reference.layer import Elementwise
from backproof.reference.rounding import precision_named, quiet
from backproof.report.finding import Finding

__all__ = ["simplest"]

PLACES = ("normal", "kinks", "saturated", "tiny", "wide-range")  # regimes in which the values are looked for that are off
OTHER_SEEDS = (1, 2, 3)  # of the draws on which a diagnosis is made once more
SHRINKING = (60, 5.0)  # attempts, and seconds, to find a simpler probe that shows the same


def simplest(checker: Checker) -> None:
    """Bring every unexplained finding of a check to its simplest probe; drop those that only follow from others."""
    ledger = checker.ledger
    for key, finding in sorted(ledger.found.items(), key=lambda item: _along(item[1])):
        if not finding.known and finding.verdict != "convention":
            if _along(finding) and _follows(checker, finding):
                del ledger.found[key]
            else:
                ledger.found[key] = Simplest(checker).of(finding)
    usual = {Condition(), *(Condition(mode=mode) for mode in DIRECTIONAL)}
    everywhere = {f.tensor for f in ledger.found.values() if f.verdict == "wrong" and not f.known and isinstance(f.case, Probe)
                  and f.case.batch and f.case.condition in usual and f.case.regime == "normal"}
    for key, finding in tuple(ledger.found.items()):  # where a wrong formula happens to come close, digits seem to be lost
        minor = finding.verdict in {"imprecise", "convention"} or finding.diagnosis.code == "empty-batch"
        if finding.tensor in everywhere and minor:
            del ledger.found[key]


def _along(finding: Finding) -> bool:
    """Say whether a finding is of a derivative along a direction."""
    return isinstance(finding.case, Probe) and finding.case.condition.mode in DIRECTIONAL


def _follows(checker: Checker, finding: Finding) -> bool:
    """Say whether a derivative along a direction is off since what it is a derivative of is.

    Double backward differentiates all gradients; forward mode moves one array, whose gradient is in most cases of the same rule.
    """
    off = {other.tensor for other in checker.ledger.found.values() if not other.known and other.verdict != "convention"
           and isinstance(other.case, Probe) and other.case.batch and other.case.condition == Condition()}
    wanted = off if finding.tensor.startswith(DOUBLE) else {first_order(checker.like, finding.tensor), *checker.like.output_names}
    return bool(off & wanted - {""})


class Simplest:
    """The search for the simplest probe that shows what a check found."""

    def __init__(self, checker: Checker) -> None:
        self.checker, self.candidate = checker, checker.candidate

    def of(self, finding: Finding) -> Finding:
        """Return a finding as the simplest probe shows it, with the conditions that it needs in its diagnosis."""
        probe = finding.case
        if not isinstance(probe, Probe) or finding.verdict == "nondeterministic" or self.checker.exhausted:
            return finding
        finding, probe = self._usual(finding, probe)
        attempts, seconds = SHRINKING

        def shows(tried: Probe) -> bool:
            return self._shown(finding, tried, same_code=True) is not None

        def off(tried: Probe) -> bool:
            """Say whether the tensor is off in any way, for one of a few seeds."""
            return any(self._shown(finding, replace(tried, seed=seed)) is not None for seed in (tried.seed, *OTHER_SEEDS))

        small = shrink(probe, shows, simpler(self.checker.shapes), attempts=attempts, seconds=seconds)
        found = self._shown(finding, small, same_code=True) or finding
        everywhere = small.regime == "normal" and found.entries[0] == found.entries[1]
        place = self._where(small, finding.tensor) if finding.step is not None and not everywhere else ""
        said = condition(small, off, dict(self.candidate.driver.modes), place, self.checker.shapes)
        if not said and "float64" in self.checker.precisions and finding.tensor and (finding.tensor, "float64") not in self.checker.failed:
            said = f"only in {finding.precision}"
        return replace(found, count=finding.count, diagnosis=replace(found.diagnosis, condition=said))

    def _usual(self, finding: Finding, probe: Probe) -> tuple[Finding, Probe]:
        """Return the finding as most of a few draws of its probe diagnose it: on one draw two mistakes may be the same numbers."""
        tried = [probe, *(replace(probe, seed=seed) for seed in OTHER_SEEDS)]
        found = [(shown, one) for one in tried if (shown := self._shown(finding, one)) is not None] or [(finding, probe)]
        code, _ = Counter(shown.diagnosis.code for shown, _ in found).most_common(1)[0]  # of codes as common as another, the first
        usual, where = next((shown, one) for shown, one in found if shown.diagnosis.code == code)
        return replace(usual, count=finding.count), where

    def _shown(self, finding: Finding, probe: Probe, *, same_code: bool = False) -> Finding | None:
        """Return the same finding on another probe, with the same diagnosis if asked for, or None where it does not show there."""
        other = Checker(self.candidate, self.checker.like, self.checker.precisions)
        other.examine_one(probe, repeat=False)
        same = [f for f in other.ledger.found.values() if (f.tensor, f.verdict, f.known) == (finding.tensor, finding.verdict, finding.known)
                and (not same_code or f.diagnosis.code == finding.diagnosis.code)]
        return same[0] if same else None

    def _where(self, probe: Probe, tensor: str) -> str:
        """Say for which values of the input a tensor of an entry-by-entry layer is off, from some probes more."""
        if not isinstance(self.checker.like, Elementwise) or tensor not in {"output", "dx"}:
            return ""
        tried = [replace(probe, seed=seed, regime=regime, batch=16) for seed, regime in product(range(2), PLACES)]
        found = [pair for one in tried if (pair := self._outside(one, tensor)) is not None]
        if not found:
            return ""
        numbers, outside = (np.concatenate(arrays) for arrays in zip(*found, strict=True))

        def evaluate(xs: np.ndarray) -> np.ndarray:
            """Say which of some numbers are off."""
            pair = self._outside(replace(probe, regime="normal", batch=64), tensor, xs)
            return np.zeros(xs.shape, dtype=bool) if pair is None else pair[1][: xs.size]

        return where(numbers, outside, evaluate)

    def _outside(self, probe: Probe, tensor: str, xs: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the inputs of a probe, or `xs` in their place, and which entries of a tensor are off; None where that cannot be run."""
        try:
            step, _ = replace(probe, xs=None if xs is None else tuple(xs.tolist())).run(self.candidate.driver, self.candidate.function)
        except Exception:  # noqa: BLE001  (what is raised here was found before)
            return None
        found = next((c for c in certify_layer(step, precision_named(probe.precision)) if c.tensor == tensor), None)
        if found is None or found.verdict == "error":
            return None
        outside = np.zeros(step.inputs[0].shape, dtype=bool)
        if found.failed and found.actual is not None and found.ball is not None:
            with quiet():
                outside = ~(np.abs(found.actual.astype(np.float64) - found.ball.value) <= found.ball.radius())
        return step.inputs[0].astype(np.float64).ravel(), outside.ravel()
