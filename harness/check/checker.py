"""A check in progress: a candidate called under one condition after the other, each answer judged, what is found entered once."""

from __future__ import annotations

import re
import time
import traceback
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from backproof.adapters.calls import Answer, UnsupportedError, first_sentence
from backproof.check.candidate import Candidate, check_signature
from backproof.check.isolation import Isolated
from backproof.draw.probe import Probe, probes, shapes_for
from backproof.draw.strategies import each_input
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.classify import LostDigits
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.directional import DIRECTIONAL, alike, certify_directional, expected_along, said_of
from backproof.judge.directional_diagnosis import diagnose_directional
from backproof.judge.judgement import Judgement, by_known_mistakes, by_second_precision, judge, nondeterministic, raised
from backproof.judge.known import KnownList
from backproof.judge.rules import tensors
from backproof.process import LostError
from backproof.reference.layer import Layer, Shape
from backproof.reference.rounding import precision_named
from backproof.reference.trace import LayerTrace
from backproof.reference.usage import UsageError
from backproof.reference.whole import WholeNetwork
from backproof.report.environment import environment
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.report.report import Report
from backproof.report.schema import CandidateLabel
from backproof.truth.own_forward import OwnForward
from backproof.wording import said

__all__ = ["Checker"]

REPEAT_EVERY = 8  # one probe in eight is run twice
STRUCTURES = 6  # shapes and conditions that are compiled, where that takes longer than a dozen draws


class Checker:
    """A check in progress: everything it learns goes into a ledger."""

    def __init__(self, candidate: Candidate, like: Any, precisions: Sequence[str]) -> None:
        self.candidate, self.like = candidate, like
        self.precisions = [precision_named(p).name for p in precisions]
        self.label = CandidateLabel(f"{candidate.driver.framework}:{candidate.name}")
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
            raise UsageError(f"{self.like}: wrong shapes: got {strange[0]}, expected {len(names)} at a time, of {', '.join(names)}. "
                             f"Write shapes=[({each}), ...], batch axis left out")
        found = [every for every in found if self._fits(every)]
        if not found:
            raise UsageError(f"{self.like}: no input shape is known that it takes. Write shapes=[(3, 4), ...], batch axis left out")
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
        if own is None or not isinstance(self.like, Layer):
            return True
        wanted = self.like.parameters(*shapes)
        if set(own) != set(wanted):
            strange, missing = (sorted(set(a) - set(b)) for a, b in ((own, wanted), (wanted, own)))
            mapping = ", ".join(f'"{mine}": "{theirs}"' for mine, theirs in zip(strange, missing, strict=False))
            raise UsageError(f"the module has the parameters {', '.join(own) or 'none'}, expected {', '.join(wanted) or 'none'}. "
                             f"Write params={{{mapping}}}, or another layer as like")
        return all(tuple(wanted[name]) == shape for name, shape in own.items())

    def examine(self, planned: Iterable[Probe]) -> None:
        """Run every probe in every precision."""
        for number, probe in enumerate(planned):
            if self.exhausted:
                self.ledger.skipped["cases not run: the candidate hung or died too often"] += 1
                continue
            for precision in self.precisions:
                self.examine_one(replace(probe, precision=precision), repeat=number % REPEAT_EVERY == 0)
            self.ledger.cases += 1

    @property
    def exhausted(self) -> bool:
        """Whether the candidate hung or died so often that it is not called again."""
        return isinstance(self.candidate.driver, Isolated) and self.candidate.driver.exhausted

    def examine_one(self, probe: Probe, *, repeat: bool) -> None:
        """Run a probe in its precision and enter what comes of it."""
        certificates, step, changed = self._judged(probe)
        self.ledger.reach("regimes", probe.regime)
        self.ledger.reach("conditions", str(probe.condition) or "plain")
        for certificate in certificates:
            self.ledger.count(self.label, probe.precision, certificate)
            if step is not None and (certificate.failed or certificate.verdict == "convention"):
                self.failed |= {(certificate.tensor, probe.precision)} if certificate.failed else set()
                self._enter(probe, self._judgement(probe, certificate, step))
        for name in changed:
            sentence = f"the candidate modifies its {self._called(name)} in place: whoever else uses it reads other numbers"
            self._enter_error(probe, raised(self.like, "candidate", sentence, code="mutation"), name)
        if repeat and step is not None:
            self._compare(probe, step)

    def _called(self, name: str) -> str:
        """Return what a person calls an array that a driver numbers."""
        kind, _, number = name.rpartition(" ")
        names = self.like.argument_names
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
        known = self.known.raised(self.label, probe.precision, [self.like], message)
        place = _place_of(error)
        where = f" ({place})" if place else ""
        kind = re.sub(r"[\d, ()\[\]]+", "", message)  # numbers, of shapes and bytes, differ from case to case
        code, sentence = "raised", f"the candidate raised {message}{where}"
        if isinstance(error, LostError):
            code, sentence = "lost", f"the candidate was lost: {error}"
        self._enter_error(probe, raised(self.like, "candidate", sentence, code=code, known=known), kind)

    def _enter_error(self, probe: Probe, judgement: Judgement, kind: str) -> None:
        self.ledger.enter_error(self._finding(probe, judgement), kind)

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
                self._enter(probe, nondeterministic(certificate, step, sentence))

    def _judgement(self, probe: Probe, certificate: Certificate, step: LayerTrace) -> Judgement:
        """Return what is said of a certificate that did not agree; the same probe is run in the partner precision."""
        precision, along = precision_named(probe.precision), probe.condition.mode in DIRECTIONAL

        def twin(name: str) -> tuple[LayerTrace, Certificate] | None:
            partner = replace(probe, precision=name)
            try:
                step, answer = partner.run(self.candidate.driver, self.candidate.function)
            except Exception:  # noqa: BLE001  (without a partner the size of the error decides)
                return None
            found = next((c for c in self._certified(partner, step, answer) if c.tensor == certificate.tensor), None)
            return None if found is None else (step, found)

        def excuse(verdict: str, failed: Certificate) -> Any:
            shared: dict[str, Any] = {}
            if along:
                shared = {"alike": alike(self.like, failed.tensor),
                          "rounded": lambda other: expected_along(step, probe.call(), other)[failed.tensor]}
            return self.known.explain(self.label, probe.precision, step, verdict, failed, **shared)

        def explain(verdict: str, lost: LostDigits, failed: Certificate) -> Diagnosis:
            if along and verdict not in {"imprecise", "convention"}:
                return diagnose_directional(step, probe.call(), failed, precision)
            return by_known_mistakes(step, precision)(verdict, lost, failed)

        return judge(certificate, step, precision, tell_apart=by_second_precision(precision, twin), excuse=excuse, explain=explain)

    def _enter(self, probe: Probe, judgement: Judgement) -> None:
        self.ledger.enter(judgement, self.label, lambda: self._finding(probe, judgement))

    def _finding(self, probe: Probe, judgement: Judgement) -> Finding:
        mine = self.candidate
        case = replace(probe, candidate=mine.address, framework=mine.driver.framework, names=mine.names)
        return Finding.of(judgement, subject=self.label, precision=probe.precision, case=case)

    def report(self, options: Mapping[str, Any]) -> Report:
        """Return the report of what was done."""
        truth = {"truth": self.like.said()} if isinstance(self.like, OwnForward) else {}
        report = self.ledger.report({"candidate": self.label, "like": str(self.like), **truth, **options}, environment())
        return replace(report, seconds={**report.seconds, "total": time.perf_counter() - self.started})


def _wanted(probe: Probe) -> set[str]:
    """Return the tensors that a probe asks for: all, or with one array that alone requires a gradient, the outputs and that gradient."""
    layer, alone = probe.layer, probe.condition.alone
    names = {**dict(enumerate(layer.input_names)), **{name: name for name in layer.parameters(*probe.shapes)}}
    return {*layer.output_names, *(f"d{name}" for key, name in names.items() if alone in (None, key))}


def _place_of(error: BaseException) -> str:
    """Return file and line where something was raised, outside of this package; nothing where that is unknown."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)
              if frame.f_globals.get("__name__", "").partition(".")[0] != "backproof"]
    return f"{Path(frames[-1][0].f_code.co_filename).name}, line {frames[-1][1]}" if frames else ""
