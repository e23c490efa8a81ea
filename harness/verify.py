"""The main job: random networks through every adapter, each layer certified, what fails classified, diagnosed and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .adapters import Adapter, load
from .certify import Certificate, certify, certify_end_to_end, judge, tensors
from .classify import PARTNERS, Loss, classify
from .diagnose import Diagnosis, diagnose, digits_lost
from .environment import environment
from .finding import Finding
from .generate import DRAWS, generate
from .known import KnownList
from .plant import Planter
from .reference.case import Case
from .reference.rounding import Arithmetic, Precision, Rounded, precision_named, quiet
from .reference.trace import LayerTrace, Trace
from .report import Ledger, Report
from .shrink import shrink

__all__ = ["Run", "run_all", "verify"]

Progress = Callable[["Run"], None]
"""Called after each case."""

REPEAT_EVERY = 8  # one case in eight is run twice
EXACT_REGIMES = frozenset({"normal", "ties"})  # regimes whose numbers are of one size, so that a planted mistake is one


def verify(*, adapters: Sequence[str | Adapter] = ("torch", "jax:jit"), cases: int | None = 200, seed: int = 0,
           precisions: Sequence[str] = ("float64", "float32"), layers: Sequence[str] | None = None,
           reports: str | Path | None = "reports", jobs: int = 1, minutes: float | None = None,
           progress: Progress | None = None) -> Report:  # fmt: skip
    """Check frameworks over random networks and return the report; write it below `reports` unless that is None.

    `cases` counts draws of values, `DRAWS` of them through each network; every case runs on every adapter in every
    precision. Raises ValueError for an unknown adapter, layer or precision, MissingFrameworkError for an absent framework.
    """
    run = Run(adapters, cases, seed, precisions, layers, minutes)
    report = run_all(run, progress or (lambda _: None))
    if reports is not None:
        report.save(reports)
    return report


def run_all(run: Run, progress: Progress) -> Report:
    """Examine every case of a run and return its report; Ctrl-C ends it with a report of what was done."""
    try:
        for case in run.cases():
            run.examine(case)
            progress(run)
    except KeyboardInterrupt:
        run.interrupted = True
    return run.report()


@dataclass(frozen=True)
class Outcome:
    """One case on one adapter in one precision: its trace and certificates, or the exception it raised."""

    adapter: Adapter
    case: Case
    trace: Trace | None
    certificates: tuple[Certificate, ...]
    error: str = ""

    def step(self, path: str) -> LayerTrace:
        if self.trace is None:
            raise LookupError(f"no trace: {self.error}")
        return next(s for s in self.trace.layers if s.path == path)

    def certificate(self, path: str, tensor: str) -> Certificate | None:
        return next((c for c in self.certificates if (c.path, c.tensor) == (path, tensor)), None)


def _fused(adapter: Adapter) -> bool:
    return bool(getattr(adapter, "fused", False))


class Run:
    """A run in progress: its options, its ledger and its clocks."""

    def __init__(self, adapters: Sequence[str | Adapter], cases: int | None, seed: int, precisions: Sequence[str],
                 layers: Sequence[str] | None, minutes: float | None) -> None:  # fmt: skip
        if cases is not None and cases < 1:
            raise ValueError(f"verify needs at least one case: got {cases}")
        if not adapters:
            raise ValueError("verify needs at least one adapter: got none")
        if not precisions:
            raise ValueError("verify needs at least one precision: got none")
        self.adapters = [load(a) if isinstance(a, str) else a for a in adapters]
        self.precisions = [precision_named(p) for p in precisions]
        self.total, self.seed, self.families, self.minutes = cases, seed, layers, minutes
        self.ledger, self.known, self.planter = Ledger(), KnownList(), Planter(seed)
        self.seconds = {"frameworks": 0.0, "harness": 0.0, "reporting": 0.0}
        self.done, self.interrupted = 0, False
        self.started = time.perf_counter()

    def cases(self) -> Iterator[Case]:
        """Yield the cases until their number or the time is used up, counting the time generation takes."""
        source = generate(self.total, self.seed, self.families)
        while True:
            if self.minutes is not None and time.perf_counter() - self.started > 60 * self.minutes:
                return
            start = time.perf_counter()
            case = next(source, None)
            self.seconds["harness"] += time.perf_counter() - start
            if case is None:
                return
            yield case

    def examine(self, case: Case) -> None:
        """Run one case everywhere and enter what comes of it into the ledger."""
        outcomes = {(a.name, p.name): self.outcome(a, replace(case, precision=p.name)) for a in self.adapters for p in self.precisions}
        start = time.perf_counter()
        spent = self.seconds["frameworks"]
        for outcome in outcomes.values():
            self._count(outcome)
        for outcome in outcomes.values():
            self._judge(outcome, outcomes)
        if self.done % REPEAT_EVERY == 0:
            for outcome in outcomes.values():
                self._repeat(outcome)
        self.done += 1
        self.seconds["reporting"] += time.perf_counter() - start - (self.seconds["frameworks"] - spent)

    def outcome(self, adapter: Adapter, case: Case) -> Outcome:
        """Run a case on an adapter and certify its trace; an exception becomes an outcome too."""
        trace, error = self._trace(adapter, case)
        if trace is None:
            return Outcome(adapter, case, None, (), error)
        start = time.perf_counter()
        certificates = certify(trace, precision_named(case.precision), fused=_fused(adapter))
        if case.precision == "float64" and not any(c.failed for c in certificates):
            certificates += [replace(c, tensor=f"end-to-end {c.tensor}")
                             for c in certify_end_to_end(trace, case, precision_named(case.precision))]
        self.seconds["harness"] += time.perf_counter() - start
        return Outcome(adapter, case, trace, tuple(certificates))

    def _trace(self, adapter: Adapter, case: Case) -> tuple[Trace | None, str]:
        """Draw the values of a case and run it, each on its own clock; return the trace, or what was raised."""
        start = time.perf_counter()
        case.values()
        drawn = time.perf_counter()
        self.seconds["harness"] += drawn - start
        try:
            return adapter.run(case), ""
        except Exception as error:  # noqa: BLE001  (whatever a framework raises is a finding, not a crash of the run)
            lines = str(error).strip().splitlines()
            return None, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        finally:
            self.seconds["frameworks"] += time.perf_counter() - drawn

    def _count(self, outcome: Outcome) -> None:
        ledger, case = self.ledger, outcome.case
        for certificate in outcome.certificates:
            ledger.count(outcome.adapter.name, case.precision, certificate)
        ledger.reach("regimes", case.regime)
        if outcome.trace is None:
            return
        for step in outcome.trace.layers:
            ledger.reach("layers", type(step.layer).__name__)
            self.known.reach(outcome.adapter.name, case.precision, step)
        if case.precision == "float64" and any(c.failed for c in outcome.certificates):
            ledger.skipped["end to end: a layer of the network differs locally"] += 1
        clean = not any(c.failed for c in outcome.certificates)
        if clean and case.regime in EXACT_REGIMES and case.precision in {"float64", "float32"}:
            self.planter.plant(outcome.trace, precision_named(case.precision), f"{outcome.adapter.name}, seed {case.seed}",
                               fused=_fused(outcome.adapter))

    def _judge(self, outcome: Outcome, outcomes: dict[tuple[str, str], Outcome]) -> None:
        """Enter every certificate that did not agree as a finding, a known discrepancy or a convention."""
        if outcome.trace is None:
            self._enter_error(outcome)
            return
        for certificate in outcome.certificates:
            if certificate.verdict == "convention":
                step = outcome.step(certificate.path)
                self._enter(outcome, certificate, step, "convention", Diagnosis("subgradient", _convention(certificate, step)))
            elif certificate.failed:
                self._judge_failure(outcome, certificate, outcomes)

    def _judge_failure(self, outcome: Outcome, certificate: Certificate, outcomes: dict[tuple[str, str], Outcome]) -> None:
        precision = precision_named(outcome.case.precision)
        step = outcome.step(certificate.path)
        loss = Loss.of(step, certificate, precision)
        verdict = self._verdict(outcome, certificate, loss, outcomes)
        known = ""
        if certificate.actual is not None and certificate.ball is not None and certificate.verdict != "error":
            with quiet():
                outside = ~(np.abs(certificate.actual.astype(np.float64) - certificate.ball.value) <= certificate.ball.radius())
            excused, known = self.known.explain(outcome.adapter.name, precision.name, step, certificate.tensor, verdict, outside)
            rest = judge(step, certificate.tensor, certificate.actual, certificate.ball, precision, excused)
            if known and rest.failed:
                certificate, known = rest, ""
        key = (outcome.adapter.name, type(certificate.layer).__name__, certificate.tensor, verdict, known)
        if self.ledger.seen(key):
            return
        finding = self._finding(outcome, certificate, step, verdict, digits=loss.digits, known=known,
                                suspects_reference=not known and self._suspects_reference(outcome, certificate, outcomes))
        self.ledger.found[key] = finding if known else self._shrunk(finding, outcome.adapter)

    def _finding(self, outcome: Outcome, certificate: Certificate, step: LayerTrace, verdict: str, **extra: Any) -> Finding:
        precision = precision_named(outcome.case.precision)
        diagnosis = extra.pop("diagnosis", None)
        if diagnosis is None:
            lost = verdict == "imprecise"
            diagnosis = digits_lost(step, certificate, extra["digits"]) if lost else diagnose(step, certificate, precision)
        return Finding.of(certificate, adapter=outcome.adapter.name, precision=precision.name, verdict=verdict, diagnosis=diagnosis,
                          case=outcome.case, step=step, **extra)

    def _enter(self, outcome: Outcome, certificate: Certificate, step: LayerTrace, verdict: str, diagnosis: Diagnosis) -> None:
        key = (outcome.adapter.name, type(certificate.layer).__name__, certificate.tensor, verdict)
        if not self.ledger.seen(key):
            self.ledger.found[key] = self._finding(outcome, certificate, step, verdict, diagnosis=diagnosis)

    def _enter_error(self, outcome: Outcome) -> None:
        key = (outcome.adapter.name, "", "", "error", outcome.error)
        if not self.ledger.seen(key):
            smallest = shrink(outcome.case, lambda c: self.outcome(outcome.adapter, c).error == outcome.error)
            certificate = Certificate("", smallest.network, "", "error", 0, message=outcome.error)
            self.ledger.found[key] = Finding.of(certificate, adapter=outcome.adapter.name, precision=smallest.precision, verdict="error",
                                                diagnosis=Diagnosis("raised", outcome.error), case=smallest, step=None)

    def _verdict(self, outcome: Outcome, certificate: Certificate, loss: Loss, outcomes: dict[tuple[str, str], Outcome]) -> str:
        if certificate.verdict != "outside":
            return certificate.verdict
        return classify(loss, self._partner_loss(outcome, certificate, outcomes))

    def _partner_loss(self, outcome: Outcome, certificate: Certificate, outcomes: dict[tuple[str, str], Outcome]) -> Loss | None:
        """Measure the same tensor in the partner precision, running the case there unless that was done."""
        name = PARTNERS[outcome.case.precision]
        partner = outcomes.get((outcome.adapter.name, name)) or self.outcome(outcome.adapter, replace(outcome.case, precision=name))
        twin = partner.certificate(certificate.path, certificate.tensor)
        return Loss.of(partner.step(certificate.path), twin, precision_named(name)) if twin is not None else None

    def _suspects_reference(self, outcome: Outcome, certificate: Certificate, outcomes: dict[tuple[str, str], Outcome]) -> bool:
        """Say whether another framework is off by the same amounts: then the reference is the suspect."""
        mine = outcome.adapter.name.split(":")[0]
        for (name, precision), other in outcomes.items():
            if name.split(":")[0] == mine or precision != outcome.case.precision:
                continue
            twin = other.certificate(certificate.path, certificate.tensor)
            if twin is None or not twin.failed or twin.actual is None or twin.ball is None or certificate.ball is None:
                continue
            with quiet():
                ours = certificate.actual.astype(np.float64) - certificate.ball.value  # type: ignore[union-attr]
                theirs = twin.actual.astype(np.float64) - twin.ball.value
                slack = certificate.ball.radius() + twin.ball.radius()
                if ours.shape == theirs.shape and bool((np.abs(ours - theirs) <= slack).all()):
                    return True
        return False

    def _shrunk(self, finding: Finding, adapter: Adapter) -> Finding:
        """Rebuild a finding on the smallest case that shows it."""
        if finding.case is None:
            return finding
        found: dict[Case, Finding] = {}

        def shows(case: Case) -> bool:
            outcome = self.outcome(adapter, case)
            for certificate in outcome.certificates:
                if (type(certificate.layer).__name__, certificate.tensor) != (finding.layer, finding.tensor) or not certificate.failed:
                    continue
                step, precision = outcome.step(certificate.path), precision_named(case.precision)
                loss = Loss.of(step, certificate, precision)
                verdict = self._verdict(outcome, certificate, loss, {})
                if verdict == finding.verdict:
                    found[case] = self._finding(outcome, certificate, step, verdict, digits=loss.digits,
                                                suspects_reference=finding.suspects_reference)
                    return True
            return False

        smallest = shrink(finding.case, shows)
        return found.get(smallest, finding)

    def _repeat(self, outcome: Outcome) -> None:
        """Run a case again: the same numbers must come back, bit for bit."""
        if outcome.trace is None:
            return
        again, error = self._trace(outcome.adapter, outcome.case)
        if again is None:
            self._enter_error(replace(outcome, trace=None, error=error))
            return
        precision = precision_named(outcome.case.precision)
        for first, second in zip(outcome.trace.layers, again.layers, strict=True):
            one, two = tensors(first), tensors(second)
            for name, array in one.items():
                if array.tobytes() == two[name].tobytes():
                    continue
                ball = judge(first, name, array, _points(two[name], precision), precision)
                certificate = replace(ball, verdict="nondeterministic")
                sentence = f"two runs of one case differ in {certificate.outside} entries of {name}"
                self._enter(outcome, certificate, first, "nondeterministic", Diagnosis("nondeterministic", sentence))
                return

    def report(self) -> Report:
        """Return the report of what was done so far."""
        total = time.perf_counter() - self.started
        options = {"adapters": [a.name for a in self.adapters], "precisions": [p.name for p in self.precisions], "cases": self.total,
                   "seed": self.seed, "layers": list(self.families) if self.families else None, "draws_per_network": DRAWS}
        return Report(
            findings=self.ledger.sorted_findings("new"), known=self.ledger.sorted_findings("known"),
            conventions=self.ledger.sorted_findings("convention"), stale=self.known.stale(), tallies=self.ledger.tallies,
            skipped=self.ledger.skipped, self_test=self.planter.result(), environment=environment(), options=options,
            coverage=self.ledger.coverage, cases=self.done, seconds={**self.seconds, "total": total}, interrupted=self.interrupted,
        )  # fmt: skip


def _points(array: np.ndarray, precision: Precision) -> Rounded:
    """Return an array as balls without a radius."""
    return Rounded(array.astype(np.float64), np.zeros(()), Arithmetic(precision))


def _convention(certificate: Certificate, step: LayerTrace) -> str:
    x = step.inputs[0]
    actual, ball = certificate.actual, certificate.ball
    if actual is None or ball is None:
        return "another subgradient at a kink"
    where = f" at input {float(x[certificate.index]):g}" if x.shape == actual.shape else ""
    return f"another subgradient than the reference's own{where}: valid, since the layer has a kink there"
