"""One case through every adapter: run, certify, classify what fails, and enter it into a ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.adapters import Adapter, load
from backproof.draw.coverage import reached
from backproof.draw.shrinking import shrink
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify
from backproof.judge.comparing import compare
from backproof.judge.end_to_end import certify_end_to_end, wrong_connections
from backproof.judge.judgement import Judgement, by_second_precision, judge, nondeterministic, raised
from backproof.judge.known import KnownList
from backproof.judge.rules import tensors
from backproof.proof.setting import Setting
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.layer import Layer
from backproof.reference.network import Network
from backproof.reference.rounding import Arithmetic, Precision, Rounded, precision_named, quiet
from backproof.reference.trace import HEAD_PATH, LayerTrace, Trace
from backproof.reference.usage import UsageError
from backproof.report.finding import Finding
from backproof.report.ledger import Ledger
from backproof.report.results import SelfTest
from backproof.verify.options import options_that_decide, variants
from backproof.verify.outcome import Outcome, Outcomes
from backproof.verify.planting import Planter

__all__ = ["Examiner"]

REPEAT_EVERY = 8  # one case in eight is run twice
OPTIONS_SECONDS, OPTIONS_BATCH = 10.0, 3  # to find out with which options a layer is off, and the batch in which they are tried
EXACT_REGIMES = frozenset({"normal", "ties", "trained"})  # regimes whose numbers are of one size, so that a planted mistake is one


def _fused(adapter: Adapter) -> bool:
    return bool(getattr(adapter, "fused", False))


class Examiner:
    """Examines cases on some adapters in some precisions. Everything it learns goes into `ledger`."""

    def __init__(self, adapters: Sequence[str | Adapter], precisions: Sequence[str], seed: int) -> None:
        if not adapters:
            raise UsageError("verify needs at least one adapter: got none")
        if not precisions:
            raise UsageError("verify needs at least one precision: got none")
        self.adapters = [load(a) if isinstance(a, str) else a for a in adapters]
        self.precisions = [precision_named(p) for p in precisions]
        self.seed = seed
        self.known = KnownList()
        self.ledger = Ledger()

    def structure(self, index: int, cases: Sequence[Case]) -> Ledger:
        """Examine the cases of one structure and return their ledger, which depends on nothing examined before."""
        return Ledger.of(self.draws(index, cases))

    def draws(self, index: int, cases: Sequence[Case]) -> Iterator[Ledger]:
        """Examine the cases of one structure and yield the ledger of each; the last holds what the self-test of all of them gave."""
        test = SelfTest()
        planter = Planter((self.seed, index), test)
        for offset, case in enumerate(cases):
            self.ledger = Ledger()
            self._examine(case, planter, repeat=(index * len(cases) + offset) % REPEAT_EVERY == 0)
            if offset == len(cases) - 1:
                self.ledger.self_test = test
            yield self.ledger

    def _examine(self, case: Case, planter: Planter, *, repeat: bool) -> None:
        """Run one case everywhere and enter what comes of it into the ledger."""
        outcomes = {(a.name, p.name): self.outcome(a, replace(case, precision=p.name)) for a in self.adapters for p in self.precisions}
        start = time.perf_counter()
        spent = self.ledger.seconds["frameworks"]
        for outcome in outcomes.values():
            self._count(outcome, planter)
        for outcome in outcomes.values():
            self._judge(outcome, outcomes)
        if repeat:
            for outcome in outcomes.values():
                self._repeat(outcome)
        self.ledger.cases += 1
        self.ledger.seconds["reporting"] += time.perf_counter() - start - (self.ledger.seconds["frameworks"] - spent)

    def outcome(self, adapter: Adapter, case: Case) -> Outcome:
        """Run a case on an adapter and certify its trace; an exception becomes an outcome too."""
        trace, error = self._trace(adapter, case)
        if trace is None:
            return Outcome(adapter, case, None, (), error)
        start = time.perf_counter()
        certificates = certify(trace, precision_named(case.precision), fused=_fused(adapter))
        if case.precision == "float64" and not any(c.failed for c in certificates):
            certificates += certify_end_to_end(trace, case, precision_named(case.precision))
        if case.precision != "float64" and not any(c.failed for c in certificates):
            certificates += wrong_connections(trace, case)
        self.ledger.seconds["harness"] += time.perf_counter() - start
        return Outcome(adapter, case, trace, tuple(certificates))

    def _trace(self, adapter: Adapter, case: Case) -> tuple[Trace | None, str]:
        """Draw the values of a case and run it, each on its own clock; return the trace, or what was raised."""
        start = time.perf_counter()
        case.values()
        drawn = time.perf_counter()
        self.ledger.seconds["harness"] += drawn - start
        try:
            trace = adapter.run(case)
        except Exception as error:  # noqa: BLE001  (whatever a framework raises is a finding, not a crash of the run)
            lines = str(error).strip().splitlines()
            return None, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        finally:
            self.ledger.seconds["frameworks"] += time.perf_counter() - drawn
        if not isinstance(trace, Trace):
            return None, f"the adapter returned {type(trace).__name__}, expected a Trace"
        got, wanted = [s.path for s in trace.layers], [*(step.path for step in case.network.steps), HEAD_PATH]
        return (trace, "") if got == wanted else (None, f"the trace has the layers {got}, expected {wanted}")

    def _count(self, outcome: Outcome, planter: Planter) -> None:
        ledger, case = self.ledger, outcome.case
        for certificate in outcome.certificates:
            ledger.count(outcome.adapter.name, case.precision, certificate)
        ledger.reach("regimes", case.regime)
        if outcome.trace is None or any(c.verdict == "error" for c in outcome.certificates):
            return
        for what, names in reached(case).items():
            for name in names:
                ledger.reach(what, name)
        for step in outcome.trace.layers:
            ledger.reached.update(self.known.reached(outcome.adapter.name, case.precision, step))
        if case.precision == "float64" and any(c.failed for c in outcome.certificates):
            ledger.skipped["end to end: a layer of the network differs locally"] += 1
        clean = not any(c.failed for c in outcome.certificates)
        if clean and case.regime in EXACT_REGIMES:
            planter.plant(outcome.trace, precision_named(case.precision), f"{outcome.adapter.name}, seed {case.seed}",
                          fused=_fused(outcome.adapter))

    def _judge(self, outcome: Outcome, outcomes: Outcomes) -> None:
        """Enter every certificate that did not agree as a finding, a known discrepancy or a convention."""
        if outcome.trace is None:
            self._enter_error(outcome)
            return
        for certificate in outcome.certificates:
            if certificate.failed or certificate.verdict == "convention":
                self._enter(outcome, self._judgement(outcome, certificate, outcomes), outcomes)

    def _judgement(self, outcome: Outcome, certificate: Certificate, outcomes: Outcomes) -> Judgement:
        """Return what is said of a certificate that did not agree; the partner precision is run where that was not done."""
        step, adapter = outcome.step(certificate.path), outcome.adapter

        def twin(precision: str) -> tuple[LayerTrace, Certificate] | None:
            partner = outcomes.get((adapter.name, precision)) or self.outcome(adapter, replace(outcome.case, precision=precision))
            return partner.twin(certificate)

        def excuse(verdict: str, failed: Certificate) -> Any:
            return self.known.explain(adapter.name, outcome.case.precision, step, verdict, failed)

        return judge(certificate, step, outcome.precision, tell_apart=by_second_precision(outcome.precision, twin), excuse=excuse)

    def _enter(self, outcome: Outcome, judgement: Judgement, outcomes: Outcomes) -> None:
        def finding() -> Finding:
            unexplained = judgement.certificate.failed and not judgement.known and judgement.verdict != "nondeterministic"
            suspect = unexplained and self._suspects_reference(outcome, judgement.certificate, outcomes)
            return _finding(outcome, judgement, suspects_reference=suspect)

        self.ledger.enter(judgement, outcome.adapter.name, finding)

    def _enter_error(self, outcome: Outcome) -> None:
        layers = (step.layer for step in outcome.case.network.steps)
        known = self.known.raised(outcome.adapter.name, outcome.case.precision, layers, outcome.error)
        self.ledger.enter_error(_finding(outcome, raised(outcome.case.network, "", outcome.error, known=known)))

    def _suspects_reference(self, outcome: Outcome, certificate: Certificate, outcomes: Outcomes) -> bool:
        """Say whether another framework is off by the same amounts: then the reference is the suspect."""
        mine = outcome.adapter.name.split(":")[0]
        for (name, precision), other in outcomes.items():
            if name.split(":")[0] == mine or precision != outcome.case.precision:
                continue
            twin = other.certificate(certificate.path, certificate.label)
            if twin is None or not twin.failed or twin.actual is None or twin.ball is None or certificate.ball is None:
                continue
            with quiet():
                ours = certificate.actual.astype(np.float64) - certificate.ball.value  # type: ignore[union-attr]
                theirs = twin.actual.astype(np.float64) - twin.ball.value
                slack = certificate.ball.radius() + twin.ball.radius()
                if ours.shape == theirs.shape and bool((np.abs(ours - theirs) <= slack).all()):
                    return True
        return False

    def shrunk(self, finding: Finding) -> Finding:
        """Return a finding on the smallest case that shows it, with the options that it needs."""
        return self.with_options(self.smallest(finding))

    def smallest(self, finding: Finding) -> Finding:
        """Rebuild a finding on the smallest case that shows it, by the same cause."""
        adapter = next(a for a in self.adapters if a.name == finding.adapter)
        found: dict[Case, Finding] = {}

        def shows(case: Case) -> bool:
            again = self._again(self.outcome(adapter, case), finding)
            if again is None or finding.diagnosis.code not in {"unknown", again.diagnosis.code}:
                return False
            found[case] = again
            return True

        if finding.case is None or finding.verdict == "nondeterministic":
            return finding
        smallest = found.get(shrink(finding.case, shows), finding)
        return replace(smallest, count=finding.count)

    def with_options(self, finding: Finding) -> Finding:
        """Return a finding with the options of its layer that it needs, where a simple rule says which, in its diagnosis."""
        step, case, stop = finding.step, finding.case, time.monotonic() + OPTIONS_SECONDS
        if step is None or not isinstance(case, Case) or not isinstance(step.layer, Layer) or finding.known:
            return finding
        adapter = next(a for a in self.adapters if a.name == finding.adapter)

        def shows(setting: Setting) -> bool | None:
            """Say whether the layer alone is off; None where its tensor is missing or zero anyway."""
            alone = replace(case, network=Network(setting.shapes[0], (setting.layer,), MSELoss()), batch=max(OPTIONS_BATCH, case.batch))
            outcomes = [self.outcome(adapter, replace(alone, seed=seed)) for seed in (case.seed, 0, 1)]
            if any(self._again(outcome, finding) is not None for outcome in outcomes):
                return True
            traced = (tensors(outcome.trace.layers[0]).get(finding.tensor) for outcome in outcomes if outcome.trace is not None)
            return False if any(array is not None and array.any() for array in traced) else None

        shown: dict[Setting, bool] = {}
        own = Setting(step.layer, tuple(x.shape[1:] for x in step.inputs))
        for setting in variants(own):
            found = None
            with suppress(ValueError, IndexError):  # a shape that no network begins with
                found = shows(setting)
            if found is not None:
                shown[setting] = found
            if time.monotonic() > stop or (setting == own and not found):  # late, or it needs its neighbours to show
                break
        return replace(finding, diagnosis=replace(finding.diagnosis, condition=options_that_decide(shown)))

    def _again(self, outcome: Outcome, finding: Finding) -> Finding | None:
        """Return the finding as this outcome shows it, or None where it does not."""
        if outcome.trace is None:
            same = outcome.error == finding.diagnosis.sentence
            return _finding(outcome, raised(outcome.case.network, "", outcome.error)) if same else None
        for certificate in outcome.certificates:
            if (type(certificate.layer).__name__, certificate.label) != (finding.layer, finding.tensor) or not certificate.failed:
                continue
            judgement = self._judgement(outcome, certificate, {})
            if judgement.verdict == finding.verdict and not judgement.known:
                return _finding(outcome, judgement, suspects_reference=finding.suspects_reference)
        return None

    def _repeat(self, outcome: Outcome) -> None:
        """Run a case again: the same numbers must come back, bit for bit."""
        if outcome.trace is None or any(c.verdict == "error" for c in outcome.certificates):
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
                compared = compare(first, name, array, _points(two[name], precision), precision)
                sentence = f"two runs of one case differ in {compared.outside} entries of {name}"
                self._enter(outcome, nondeterministic(replace(compared, verdict="nondeterministic"), first, sentence), {})
                return


def _finding(outcome: Outcome, judgement: Judgement, **extra: Any) -> Finding:
    return Finding.of(judgement, subject=outcome.adapter.name, precision=outcome.case.precision, case=outcome.case, **extra)


def _points(array: np.ndarray, precision: Precision) -> Rounded:
    """Return an array as balls without a radius."""
    return Rounded(array.astype(np.float64), np.zeros(()), Arithmetic(precision))
