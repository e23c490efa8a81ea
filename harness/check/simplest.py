"""What is found is brought to the simplest probe that shows it, with the conditions that it still needs; what only follows is dropped."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
from backproof.adapters.calls import DOUBLE
from backproof.check.checker import Checker
from backproof.check.conditions import Draws, condition, simpler, where
from backproof.check.steadiness import unsteady
from backproof.draw.probe import Condition, Probe
from backproof.draw.shrinking import shrink
from backproof.judge.certify import certify_layer
from backproof.judge.directional import DIRECTIONAL, first_order
from backproof.reference.layer import Elementwise
from backproof.reference.rounding import precision_named, quiet
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.wording import fault

__all__ = ["simplest"]

PLACES = ("normal", "kinks", "saturated", "tiny", "wide-range")  # regimes in which the values are looked for that are off
OTHER_SEEDS = (1, 2, 3)  # of the draws on which a diagnosis is made once more
OTHER_BATCHES = (3, 5)  # on which a claim of the batch size must hold too
OF_BATCH = frozenset({"over-batch", "times-batch"})
"""The diagnoses that claim the batch size."""
SECONDS = 10.0  # that a check may take longer where something is found
OVERLAPPING = ("rows expanded", "expanded")  # layouts in which several entries are one number in memory, which torch and NumPy do not write
SHRINKING = (60, 5.0)  # attempts, and seconds, to find a simpler probe that shows the same


def simplest(checker: Checker) -> None:
    """Bring every unexplained finding of a check to its simplest probe; drop those that only follow from others."""
    ledger, until = checker.ledger, time.monotonic() + SECONDS
    if unsteady(checker):
        return
    if any(finding.diagnosis.code == "mutation" for finding in ledger.found.values()):
        for key in [key for key, finding in ledger.found.items() if _refused(checker, finding)]:
            del ledger.found[key]
    for key, finding in sorted(ledger.found.items(), key=lambda item: _along(item[1])):
        if not finding.known and finding.verdict != "convention":
            if _along(finding) and _follows(checker, finding):
                del ledger.found[key]
            else:
                ledger.found[key] = _of(checker, finding, until)
    usual = {Condition(), *(Condition(mode=mode) for mode in DIRECTIONAL)}
    everywhere = {f.tensor for f in ledger.found.values() if f.verdict == "wrong" and not f.known and isinstance(f.case, Probe)
                  and f.case.batch and f.case.condition in usual and f.case.regime == "normal"}
    for key, finding in tuple(ledger.found.items()):  # where a wrong formula happens to come close, digits seem to be lost
        minor = finding.verdict in {"imprecise", "convention"} or finding.diagnosis.code == "empty-batch"
        if finding.tensor in everywhere and minor:
            del ledger.found[key]
    _join(ledger)


def _join(ledger: Ledger) -> None:
    """Make one finding of those of one cause: tensors that are those of the same other value of an option."""
    causes: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for key, finding in ledger.found.items():
        if finding.diagnosis.code == "other-option" and not finding.known:
            cause = finding.diagnosis.sentence.removeprefix(finding.tensor), finding.verdict, finding.diagnosis.condition
            causes.setdefault(cause, []).append(key)
    for keys in causes.values():
        keys.sort(key=lambda key: ledger.found[key].tensor.startswith("d"))  # the outputs first
        first, others = ledger.found[keys[0]], [ledger.found.pop(key).tensor for key in keys[1:]]
        if others:
            sentence = f"{first.diagnosis.sentence}; so {'are' if len(others) > 1 else 'is'} {' and '.join(others)}"
            ledger.found[keys[0]] = replace(first, diagnosis=replace(first.diagnosis, sentence=sentence))


def _of(checker: Checker, finding: Finding, until: float) -> Finding:
    """Return a finding on its simplest probe; as it was found, and saying so, where a fault of ours ends the search."""
    try:
        return Simplest(checker, until).of(finding)
    except Exception as error:  # noqa: BLE001  (a fault on the way to a story never loses the finding)
        sentence = f"{finding.diagnosis.sentence}; {fault('not brought to a simpler case', error)}"
        return replace(finding, diagnosis=replace(finding.diagnosis, sentence=sentence))


def _without_batch(finding: Finding, probe: Probe) -> Finding:
    """Return a finding that claims the batch size as what it is without that claim: a number."""
    factor = probe.batch if finding.diagnosis.code == "times-batch" else 1 / probe.batch
    sentence = f"{finding.tensor} is {factor:.6g} times what it should be, everywhere, in a batch of {probe.batch}"
    return replace(finding, diagnosis=replace(finding.diagnosis, code="factor", sentence=sentence))


def _refused(checker: Checker, finding: Finding) -> bool:
    """Say whether a candidate that writes over what it is given raised only since this could not be written to.

    An array with a stride of 0 cannot, nor one that is differentiated itself; given others, the candidate modifies them and does not raise.
    """
    probe = finding.case
    if finding.diagnosis.code != "raised" or not isinstance(probe, Probe):
        return False
    how = probe.condition
    if not ({how.layout, how.upstream} & set(OVERLAPPING) or how.mode == DOUBLE):
        return False
    other = checker.anew()
    other.examine_one(replace(probe, condition=Condition(alone=how.alone)), repeat=False)
    return {found.diagnosis.code for found in other.ledger.found.values() if not found.tensor} == {"mutation"}


def _along(finding: Finding) -> bool:
    """Say whether a finding is of a derivative along a direction."""
    return isinstance(finding.case, Probe) and finding.case.condition.mode in DIRECTIONAL


def _follows(checker: Checker, finding: Finding) -> bool:
    """Say whether a derivative along a direction is off since what it is a derivative of is.

    Double backward differentiates all gradients; forward mode moves one array, whose gradient is in most cases of the same rule.
    """
    off = {other.tensor for other in checker.ledger.found.values() if not other.known and other.verdict != "convention"
           and isinstance(other.case, Probe) and other.case.batch and other.case.condition in {Condition(), Condition(mode="create_graph")}}
    wanted = off if finding.tensor.startswith(DOUBLE) else {first_order(checker.like, finding.tensor), *checker.like.output_names}
    return bool(off & wanted - {""})


class Simplest:
    """The search for the simplest probe that shows what a check found."""

    def __init__(self, checker: Checker, until: float = math.inf) -> None:
        self.checker, self.candidate, self.until = checker, checker.candidate, until

    def of(self, finding: Finding) -> Finding:
        """Return a finding as the simplest probe shows it, with the conditions that it needs in its diagnosis."""
        probe = finding.case
        if not isinstance(probe, Probe) or finding.verdict == "nondeterministic" or self.checker.exhausted or self._late:
            return finding
        finding, probe = self._usual(finding, probe)
        attempts, seconds = SHRINKING

        def shows(tried: Probe) -> bool:
            return self._shown(finding, tried, same_code=True) is not None

        def off(tried: Probe) -> bool | None:
            """Say whether the tensor is off in any way; None where there is no time left to see."""
            return None if self._late else self._shown(finding, tried) is not None

        small = shrink(probe, shows, simpler(self.checker.shapes), attempts=attempts, seconds=min(seconds, self.until - time.monotonic()))
        found = self._shown(finding, small, same_code=True) or finding
        everywhere = small.regime == "normal" and found.entries[0] == found.entries[1]
        place = self._where(small, finding.tensor) if finding.step is not None and not everywhere else ""
        said = condition(small, Draws(off, small), dict(self.candidate.driver.modes), place, self.checker.shapes)
        if not said and "float64" in self.checker.precisions and finding.tensor and (finding.tensor, "float64") not in self.checker.failed:
            said = f"only in {finding.precision}"
        return replace(found, count=finding.count, diagnosis=replace(found.diagnosis, condition=said))

    def _usual(self, finding: Finding, probe: Probe) -> tuple[Finding, Probe]:
        """Return the finding as most of a few draws of its probe diagnose it: on one draw two mistakes may be the same numbers."""
        batches = (replace(probe, batch=batch) for batch in OTHER_BATCHES if probe.batch and finding.diagnosis.code in OF_BATCH)
        tried = [probe, *(replace(probe, seed=seed) for seed in OTHER_SEEDS), *batches]
        found = [(shown, one) for one in tried if (shown := self._shown(finding, one)) is not None] or [(finding, probe)]
        told = {shown.diagnosis.code for shown, one in found if one.batch > 1}
        batches_told = {one.batch for _, one in found if one.batch > 1}
        if told & OF_BATCH and (len(told) > 1 or len(batches_told) < 2):  # the same number at another batch size is not the batch size
            rest = [pair for pair in found if pair[0].diagnosis.code not in OF_BATCH]
            found = rest or [(_without_batch(finding, probe), probe)]
        code, _ = Counter(shown.diagnosis.code for shown, _ in found).most_common(1)[0]  # of codes as common as another, the first
        usual, where = next((shown, one) for shown, one in found if shown.diagnosis.code == code)
        return replace(usual, count=finding.count), where

    @property
    def _late(self) -> bool:
        return time.monotonic() > self.until

    def _shown(self, finding: Finding, probe: Probe, *, same_code: bool = False) -> Finding | None:
        """Return the same finding on another probe, with the same diagnosis if asked for, or None where it does not show there."""
        other = self.checker.anew()
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
