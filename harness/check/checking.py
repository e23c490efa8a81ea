"""Check one layer or head that somebody wrote: is its backward right, and if not, where, since when, and what mistake is it?"""

from __future__ import annotations

import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from backproof.adapters.calls import DOUBLE, Answer, UnsupportedError, first_sentence
from backproof.check.candidate import Candidate, check_signature
from backproof.check.conditions import condition, simpler, where
from backproof.check.isolation import Isolated
from backproof.check.stand_in import own_forward
from backproof.draw.probe import Condition, Probe, probes, shapes_for
from backproof.draw.shrinking import shrink
from backproof.draw.strategies import each_input
from backproof.judge.certify import Certificate, certify_layer, judge, tensors
from backproof.judge.classify import PARTNERS, Loss, classify
from backproof.judge.diagnosis import Diagnosis, diagnose, digits_lost
from backproof.judge.directional import DIRECTIONAL, alike, certify_directional, expected_along, first_order, said_of
from backproof.judge.directional_diagnosis import diagnose_directional
from backproof.judge.known import KnownList
from backproof.process import LostError
from backproof.reference.heads import Head
from backproof.reference.layer import Elementwise, Layer, Shape
from backproof.reference.network import Network
from backproof.reference.rounding import precision_named, quiet
from backproof.reference.trace import LayerTrace
from backproof.reference.whole import WholeNetwork, spread
from backproof.report.environment import environment
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.report.report import Report
from backproof.truth.own_forward import OwnForward
from backproof.wording import said

__all__ = ["GradientMismatch", "assert_gradients", "check", "check_again"]

REPEAT_EVERY = 8  # one probe in eight is run twice
PLACES = ("normal", "kinks", "saturated", "tiny", "wide-range")  # regimes in which the values are looked for that are off
STRUCTURES = 6  # shapes and conditions that are compiled, where that takes longer than a dozen draws
OTHER_SEEDS = (1, 2, 3)  # of the draws on which a diagnosis is made once more
SHRINKING = (60, 5.0)  # attempts, and seconds, to find a simpler probe that shows the same


class GradientMismatch(AssertionError):  # noqa: N818  (a mismatch is what it is called; pytest shows it as a failure)
    """The gradients of a candidate are wrong. Carries the `.report` that says where; its text is that of the report."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


GradientMismatch.__module__ = "backproof"  # where it is imported from


def assert_gradients(candidate: Any, like: Any, **options: Any) -> None:
    """Check a candidate, with the same options as `check`; raise GradientMismatch where its gradients are wrong."""
    __tracebackhide__ = True
    report = check(candidate, like, **options)
    if not report.ok:
        raise GradientMismatch(report)


def check(candidate: Any, like: Any, *, framework: str | None = None, precisions: str | Sequence[str] = ("float64", "float32"),
          cases: int = 100, seed: int = 0, reports: str | Path | None = None, params: Mapping[str, Any] | None = None,
          shapes: Sequence[Any] | None = None, timeout: float | None = None) -> Report:
    """Check a candidate against a layer, head or network of the reference, or with `like=None` its own forward; return the report.

    `candidate` is, for torch and jax, a function `candidate(*inputs, **params) -> y` (a head's: `candidate(z, target) -> loss`) or a
    `torch.nn.Module`; for numpy `candidate(*inputs, **params) -> (y, backward)`, with `backward(dy) -> (dx, {name: gradient})`. For a
    network it is `candidate(x, target, **params) -> loss` with parameters named as `layers.0.weight`, in numpy with `backward()`. `params`
    maps the candidate's own names of parameters to those of `like`. Each of `cases` draws shapes, values, upstream gradients and conditions
    anew and runs in every precision; `shapes` (of the inputs, batch axis left out) restricts the shapes. `reports` names a folder to
    write the report to. With `timeout`, in seconds, each call is made in a process of its own, so that a candidate that never returns, or
    that kills its process, becomes a finding.

    With `like=None` the truth is the derivative of the candidate's own forward, which is taken as right; `params` then gives the shapes of
    its parameters, `params={"weight": (5, 4)}`, and `options["truth"]` of the report says how the derivative was found.

    Raises ValueError or TypeError, saying what to write instead, for a candidate that cannot be called so.
    """
    if not isinstance(like, (Layer, Head, Network, NoneType)):
        raise TypeError(f"like is a bp.Layer, a bp.Head or a bp.Network: got {like!r}. Write like=bp.LayerNorm(), say, or like=None for "
                        "the truth to come from the candidate's own forward")
    if cases < 1:
        raise ValueError(f"check needs at least one case: got {cases}")
    if not precisions:
        raise ValueError("check needs at least one precision: got none")
    precisions = (precisions,) if isinstance(precisions, str) else precisions
    if like is not None and (strange := {name: theirs for name, theirs in (params or {}).items() if not isinstance(theirs, str)}):
        raise TypeError(f'params: got {strange!r}, expected names: the layer knows the shapes. Write params={{"my_name": "weight"}}')
    given = Candidate.of(candidate, framework, (params or {}) if like is not None else {})
    if isinstance(like, Network):
        given, like = replace(given, function=spread(given.function)), WholeNetwork(like)
    isolated = None if timeout is None else Isolated(given.driver, timeout, getattr(candidate, "__module__", ""))
    given = given if isolated is None else replace(given, driver=isolated)
    try:
        if like is None:
            given, like, shapes = own_forward(given, shapes, params or {})
        run = Checker(given, like, precisions)
        run.examine(run.planned(cases, seed, shapes))
    finally:
        if isolated is not None:
            isolated.close()
    report = run.report({"cases": cases, "seed": seed, "precisions": list(precisions)})
    if reports is not None:
        report.save(reports)
    return report


def check_again(probe: Probe, candidate: Any) -> Report:
    """Check a candidate on one probe and return the report."""
    given = Candidate.of(candidate, probe.framework, dict(probe.names))
    if isinstance(probe.layer, OwnForward):
        given, layer, _ = own_forward(given, [probe.shapes], {} if given.own is not None else dict(probe.layer.sizes))
        probe = replace(probe, layer=layer)
    run = Checker(given, probe.layer, (probe.precision,))
    run.shapes = (probe.shapes,)
    run.examine([probe])
    return run.report({"cases": 1, "seed": probe.seed, "precisions": [probe.precision]})


class Checker:
    """A check in progress: everything it learns goes into a ledger."""

    def __init__(self, candidate: Candidate, like: Any, precisions: Sequence[str]) -> None:
        self.candidate, self.like = candidate, like
        self.precisions = [precision_named(p).name for p in precisions]
        self.adapter = f"{candidate.driver.framework}:{candidate.name}"
        self.known = KnownList()
        self.ledger = Ledger()
        self.failed: set[tuple[str, str]] = set()  # tensors, each with a precision in which it was off
        self.shapes: Sequence[tuple[Shape, ...]] = ()
        self.started = time.perf_counter()

    def planned(self, cases: int, seed: int, shapes: Sequence[Any] | None) -> Iterable[Probe]:
        """Return the probes; raise ValueError where there are no shapes to try, TypeError for a signature that does not fit."""
        found = [each_input(one) for one in shapes] if shapes is not None else shapes_for(self.like)
        names = self.like.input_names
        strange = [one for one in found if len(one) != len(names)]
        if strange and not isinstance(self.like, WholeNetwork):
            each = ", ".join("(3, 4)" for _ in names)
            raise ValueError(f"{self.like}: wrong shapes: got {strange[0]}, expected {len(names)} at a time, of {', '.join(names)}. "
                             f"Write shapes=[({each}), ...], batch axis left out")
        found = [every for every in found if self._fits(every)]
        if not found:
            raise ValueError(f"{self.like}: no input shape is known that it takes. Write shapes=[(3, 4), ...], batch axis left out")
        check_signature(self.candidate, self.like, found[0])
        self.shapes = found
        draws = max(1, cases // STRUCTURES) if self.candidate.driver.compiles else 1
        planned = probes(self.like, found, cases, seed, self.candidate.driver, draws)
        if isinstance(self.like, OwnForward):
            return (replace(probe, batch=self.like.batch(probe.shapes, probe.batch)) for probe in planned)
        return planned

    def _fits(self, shapes: tuple[Shape, ...]) -> bool:
        """Say whether a module's own parameters have the shapes that the layer's have; raise ValueError where their names differ."""
        own = self.candidate.own
        if own is None or isinstance(self.like, Head):
            return True
        wanted = self.like.parameters(*shapes)
        if set(own) != set(wanted):
            strange, missing = (sorted(set(a) - set(b)) for a, b in ((own, wanted), (wanted, own)))
            mapping = ", ".join(f'"{mine}": "{theirs}"' for mine, theirs in zip(strange, missing, strict=False))
            raise ValueError(f"the module has the parameters {', '.join(own) or 'none'}, expected {', '.join(wanted) or 'none'}. "
                             f"Write params={{{mapping}}}, or another layer as like")
        return all(tuple(wanted[name]) == shape for name, shape in own.items())

    def examine(self, planned: Iterable[Probe]) -> None:
        """Run every probe in every precision."""
        for number, probe in enumerate(planned):
            if isinstance(self.candidate.driver, Isolated) and self.candidate.driver.exhausted:
                self.ledger.skipped["cases not run: the candidate hung or died too often"] += 1
                continue
            for precision in self.precisions:
                self._examine(replace(probe, precision=precision), repeat=number % REPEAT_EVERY == 0)
            self.ledger.cases += 1
        for key, finding in sorted(self.ledger.found.items(), key=lambda item: _along(item[1])):
            if not finding.known and finding.verdict != "convention":
                if _along(finding) and self._follows(finding):
                    del self.ledger.found[key]
                else:
                    self.ledger.found[key] = self._shrunk(finding)
        usual = {Condition(), *(Condition(mode=mode) for mode in DIRECTIONAL)}
        everywhere = {f.tensor for f in self.ledger.found.values() if f.verdict == "wrong" and not f.known and isinstance(f.case, Probe)
                      and f.case.batch and f.case.condition in usual and f.case.regime == "normal"}
        for key, finding in tuple(self.ledger.found.items()):  # where a wrong formula happens to come close, digits seem to be lost
            minor = finding.verdict in {"imprecise", "convention"} or finding.diagnosis.code == "empty-batch"
            if finding.tensor in everywhere and minor:
                del self.ledger.found[key]

    def _follows(self, finding: Finding) -> bool:
        """Say whether a derivative along a direction is off since what it is a derivative of is.

        Double backward differentiates all gradients; forward mode moves one array, whose gradient is in most cases of the same rule.
        """
        off = {other.tensor for other in self.ledger.found.values() if not other.known and other.verdict != "convention"
               and isinstance(other.case, Probe) and other.case.batch and other.case.condition == Condition()}
        wanted = off if finding.tensor.startswith(DOUBLE) else {first_order(self.like, finding.tensor), *self.like.output_names}
        return bool(off & wanted - {""})

    def _examine(self, probe: Probe, *, repeat: bool) -> None:
        certificates, step, changed = self._judged(probe)
        self.ledger.reach("regimes", probe.regime)
        self.ledger.reach("conditions", str(probe.condition) or "plain")
        for certificate in certificates:
            self.ledger.count(self.adapter, probe.precision, certificate)
            self._enter(probe, certificate, step)
        for name in changed:
            sentence = f"the candidate modifies its {self._called(name)} in place: whoever else uses it reads other numbers"
            self._error(probe, Diagnosis("mutation", sentence), name)
        if repeat and step is not None:
            self._compare(probe, step)

    def _called(self, name: str) -> str:
        """Return what a person calls an array that a driver numbers."""
        kind, _, number = name.rpartition(" ")
        names = ("z", "target") if isinstance(self.like, Head) else self.like.input_names
        if kind == "input":
            return f"input {names[int(number)]}"
        return "upstream gradient" if kind == "upstream gradient" and number == "0" else name

    def _judged(self, probe: Probe) -> tuple[list[Certificate], LayerTrace | None, tuple[str, ...]]:
        """Run a probe and certify what was asked for; what the candidate raises becomes an error, a mode it does not support a note."""
        mode = probe.condition.mode
        if mode in DIRECTIONAL and precision_named(probe.precision).wide:
            self.ledger.skipped[f"{mode}: not compared in {probe.precision}, where each step may or may not be stored"] += 1
            return [], None, ()
        probe.call()  # what fails here is not the candidate's
        start = time.perf_counter()
        try:
            with nullcontext() if probe.batch else warnings.catch_warnings(action="ignore"):  # of means of nothing
                step, answer = probe.run(self.candidate.driver, self.candidate.function)
        except UnsupportedError as error:
            self.ledger.skipped[f"{probe.condition}: not supported by the candidate: {error}"] += 1
            return [], None, ()
        except Exception as error:  # noqa: BLE001  (whatever a candidate raises is a finding)
            if probe.batch or isinstance(error, LostError):
                self._raised(probe, error)
            else:
                self.ledger.skipped[f"an empty batch: not supported by the candidate: {first_sentence(error)}"] += 1
            return [], None, ()
        finally:
            self.ledger.seconds["frameworks"] += time.perf_counter() - start
        start = time.perf_counter()
        found = self._certified(probe, step, answer)
        self.ledger.seconds["harness"] += time.perf_counter() - start
        return found, step, answer.changed

    def _certified(self, probe: Probe, step: LayerTrace, answer: Answer) -> list[Certificate]:
        """Judge what was asked for."""
        precision, mode = precision_named(probe.precision), probe.condition.mode
        if mode not in DIRECTIONAL:
            wanted = _wanted(probe)
            return [c for c in certify_layer(step, precision) if c.tensor in wanted or c.verdict != "error"]
        try:
            found, left_out = certify_directional(step, probe.call(), answer, precision)
        except Exception as error:  # noqa: BLE001  (a user's own rule may use what has no derivative along a direction)
            self.ledger.skipped[f"{mode}: no truth for {self.like}: {said(error)}"] += 1
            return []
        if left_out:
            self.ledger.skipped[said_of(mode)] += left_out
        if answer.undefined and any(c.failed for c in found):
            self.ledger.skipped[f"{probe.condition}: not defined by the candidate: {answer.undefined}"] += 1
            return [c for c in found if not c.failed]
        return found

    def _raised(self, probe: Probe, error: Exception) -> None:
        message = f"{type(error).__name__}: {first_sentence(error) or 'no message'}"
        known = self.known.raised(self.adapter, probe.precision, [self.like], message)
        ours = {Path(str(module.__file__)).parent for name, module in tuple(sys.modules.items())
                if name.startswith("backproof") and getattr(module, "__file__", None)}
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).parent not in ours]
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        kind = re.sub(r"[\d, ()\[\]]+", "", message)  # numbers, of shapes and bytes, differ from case to case
        diagnosis = Diagnosis("raised", f"the candidate raised {message}{where}")
        if isinstance(error, LostError):
            diagnosis = Diagnosis("lost", f"the candidate was lost: {error}")
        self._error(probe, diagnosis, kind, known.reason if known else "")

    def _error(self, probe: Probe, diagnosis: Diagnosis, kind: str, known: str = "") -> None:
        certificate = Certificate("candidate", self.like, "", "error", 0, message=diagnosis.sentence)
        key = ("", diagnosis.code, kind, known)
        if not self.ledger.seen(key):
            self.ledger.found[key] = self._finding(probe, certificate, None, "error", diagnosis, known=known)

    def _compare(self, probe: Probe, step: LayerTrace) -> None:
        """Run a probe once more: the same numbers must come out, bit by bit."""
        _, again, _ = self._judged(probe)
        if again is None:
            return
        for name, array in tensors(step).items():
            other = tensors(again).get(name)
            if array is not None and other is not None and np.asarray(array).tobytes() != np.asarray(other).tobytes():
                sentence = f"two runs of one case give different {name}"
                certificate = Certificate("candidate", self.like, name, "nondeterministic", int(array.size), message=sentence)
                key = (name, "nondeterministic")
                if not self.ledger.seen(key):
                    self.ledger.found[key] = self._finding(probe, certificate, step, "nondeterministic",
                                                           Diagnosis("nondeterministic", sentence))

    def _enter(self, probe: Probe, certificate: Certificate, step: LayerTrace | None) -> None:
        """Enter a certificate that did not agree as a finding, a known discrepancy or a convention."""
        if certificate.failed:
            self.failed.add((certificate.tensor, probe.precision))
        if step is None or not (certificate.failed or certificate.verdict == "convention"):
            return
        if certificate.verdict == "convention":
            key: tuple[str, ...] = (certificate.tensor, "convention")
            if not self.ledger.seen(key):
                sentence = "another valid subgradient than the reference's own, at a kink"
                self.ledger.found[key] = self._finding(probe, certificate, step, "convention", Diagnosis("subgradient", sentence))
            return
        precision = precision_named(probe.precision)
        loss = Loss.of(step, certificate, precision) if certificate.verdict != "error" else Loss(0.0, 0.0)
        verdict = self._verdict(probe, certificate, loss)
        rest, known = self._excused(probe, certificate, step, verdict)
        key = (certificate.tensor, verdict, known)
        if self.ledger.seen(key):
            return
        if verdict == "imprecise":
            diagnosis = digits_lost(step, rest, loss.digits)
        elif probe.condition.mode in DIRECTIONAL:
            diagnosis = diagnose_directional(step, probe.call(), rest, precision)
        else:
            diagnosis = diagnose(step, rest, precision)
        self.ledger.found[key] = self._finding(probe, rest, step, verdict, diagnosis, digits=loss.digits, known=known)

    def _verdict(self, probe: Probe, certificate: Certificate, loss: Loss) -> str:
        """Tell `wrong` from `imprecise` by the same probe in the partner precision."""
        if certificate.verdict != "outside":
            return certificate.verdict
        partner = replace(probe, precision=PARTNERS[probe.precision])
        here, there = precision_named(probe.precision), precision_named(partner.precision)
        try:
            step, answer = partner.run(self.candidate.driver, self.candidate.function)
        except Exception:  # noqa: BLE001  (without a partner the size of the error decides)
            return classify(loss, None, here, there)
        twin = next((c for c in self._certified(partner, step, answer) if c.tensor == certificate.tensor), None)
        return classify(loss, Loss.of(step, twin, there) if twin is not None else None, here, there)

    def _excused(self, probe: Probe, certificate: Certificate, step: LayerTrace, verdict: str) -> tuple[Certificate, str]:
        """Judge a failed certificate again without the entries that are known of the framework; return it with the reasons."""
        if certificate.actual is None or certificate.ball is None or verdict == "error":
            return certificate, ""
        along: dict[str, Any] = {}
        if probe.condition.mode in DIRECTIONAL:
            along = {"alike": alike(self.like, certificate.tensor),
                     "rounded": lambda precision: expected_along(step, probe.call(), precision)[certificate.tensor]}
        excused, met = self.known.explain(self.adapter, probe.precision, step, verdict, certificate, **along)
        if not met:
            return certificate, ""
        rest = judge(step, certificate.tensor, certificate.actual, certificate.ball, precision_named(probe.precision), excused)
        return (rest, "") if rest.failed else (certificate, " ".join(entry.reason for entry in met))

    def _finding(self, probe: Probe, certificate: Certificate, step: LayerTrace | None, verdict: str, diagnosis: Diagnosis,
                 **extra: Any) -> Finding:
        mine = self.candidate
        case = replace(probe, candidate=mine.address, framework=mine.driver.framework, names=mine.names)
        return Finding.of(certificate, adapter=self.adapter, precision=probe.precision, verdict=verdict, diagnosis=diagnosis,
                          case=case, step=step, **extra)

    def _shrunk(self, finding: Finding) -> Finding:
        """Return a finding as the simplest probe shows it, with the conditions that it needs in its diagnosis."""
        probe = finding.case
        lost = isinstance(self.candidate.driver, Isolated) and self.candidate.driver.exhausted
        if not isinstance(probe, Probe) or finding.verdict == "nondeterministic" or lost:
            return finding
        finding, probe = self._usual(finding, probe)
        attempts, seconds = SHRINKING

        def shows(tried: Probe) -> bool:
            return self._shown(finding, tried, same_code=True) is not None

        def off(tried: Probe) -> bool:
            """Say whether the tensor is off in any way, for one of a few seeds."""
            return any(self._shown(finding, replace(tried, seed=seed)) is not None for seed in (tried.seed, *OTHER_SEEDS))

        small = shrink(probe, shows, simpler(self.shapes), attempts=attempts, seconds=seconds)
        found = self._shown(finding, small, same_code=True) or finding
        everywhere = small.regime == "normal" and found.entries[0] == found.entries[1]
        place = self._where(small, finding.tensor) if finding.step is not None and not everywhere else ""
        said = condition(small, off, dict(self.candidate.driver.modes), place, self.shapes)
        if not said and "float64" in self.precisions and finding.tensor and (finding.tensor, "float64") not in self.failed:
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
        other = Checker(self.candidate, self.like, self.precisions)
        other._examine(probe, repeat=False)
        same = [f for f in other.ledger.found.values() if (f.tensor, f.verdict, f.known) == (finding.tensor, finding.verdict, finding.known)
                and (not same_code or f.diagnosis.code == finding.diagnosis.code)]
        return same[0] if same else None

    def _where(self, probe: Probe, tensor: str) -> str:
        """Say for which values of the input a tensor of an entry-by-entry layer is off, from some probes more."""
        if not isinstance(self.like, Elementwise) or tensor not in {"output", "dx"}:
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

    def report(self, options: Mapping[str, Any]) -> Report:
        """Return the report of what was done."""
        ledger = self.ledger
        truth = {"truth": self.like.said()} if isinstance(self.like, OwnForward) else {}
        return Report(
            findings=ledger.sorted_findings("new"), known=ledger.sorted_findings("known"),
            conventions=ledger.sorted_findings("convention"), tallies=ledger.tallies, skipped=ledger.skipped,
            environment=environment(), options={"adapters": [self.adapter], "like": str(self.like), **truth, **options},
            coverage=ledger.coverage, cases=ledger.cases,
            seconds={**ledger.seconds, "total": time.perf_counter() - self.started},
        )


def _along(finding: Finding) -> bool:
    """Say whether a finding is of a derivative along a direction."""
    return isinstance(finding.case, Probe) and finding.case.condition.mode in DIRECTIONAL


def _wanted(probe: Probe) -> set[str]:
    """Return the tensors that a probe asks for: all, or with one array that alone requires a gradient, the outputs and that gradient."""
    layer, alone = probe.layer, probe.condition.alone
    if isinstance(layer, Head):
        return {"output", "dz"}
    names = {**dict(enumerate(layer.input_names)), **{name: name for name in layer.parameters(*probe.shapes)}}
    return {*layer.output_names, *(f"d{name}" for key, name in names.items() if alone in (None, key))}
