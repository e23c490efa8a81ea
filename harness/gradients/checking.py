"""The check of all gradients of a model: what rounding does to them, the verdict on each, and what a wrong one is called."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.gradients.derivatives import LossDerivatives
from backproof.gradients.explanation import explained, within_single
from backproof.gradients.model import Model, d
from backproof.gradients.parameter import NAMED, SUMS, ParameterCheck
from backproof.gradients.purity import PurityCheck
from backproof.gradients.record import SUBJECT, Record
from backproof.gradients.stand_in import stand_in
from backproof.gradients.wellformed import comparable, well_formed
from backproof.judge.certificate import Certificate
from backproof.judge.comparing import compare
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement, judge
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.report.finding import HANDWRITTEN, Finding
from backproof.report.results import Tally
from backproof.truth.random_rounding import FLOAT64, SIZES, error_size

__all__ = ["ModelCheck"]


class ModelCheck:
    """The check of a model: its record fills as it runs."""

    def __init__(self, model: Model) -> None:
        self.model, self.derivatives, self.record = model, LossDerivatives(model), Record(model)
        self.unmeasured: set[str] = set()

    def run(self) -> None:
        """Check the functions themselves, then each gradient."""
        model = self.model
        purity = PurityCheck(self.derivatives, self.record)
        purity.shared()
        value = float(np.real(model.value(model.given)))
        given = model.answers(model.given) if math.isfinite(value) else {}
        repeats = purity.repeats(value, given)
        purity.mutation()
        if not (repeats and self._rounding() and purity.stale()):
            reason = "the loss is no function of the parameters that has a derivative"
            self.record.skipped[reason] += sum(a.size for a in model.given.values())
            return
        for name, extra in dict(model.extra).items():
            self.record.skipped[f"{name} is the gradient of no parameter: expected {', '.join(map(d, model.given))}"] += np.size(extra)
        judged = [name for name, array in given.items() if well_formed(self.record, name, array)]
        if not judged:
            return
        wide = self._wide(given)
        self._find_unmeasured(wide, judged)
        responses = self._responses(wide, judged, SIZES)
        coarse = self._responses(wide, judged, (error_size(model.precision),)) if model.precision is not FLOAT64 else {}
        for name in judged:
            self._judge(name, given[name], wide[name], responses[name], coarse.get(name, []))

    def _rounding(self) -> bool:
        """Measure what rounding does to the loss; say whether it is finite in float64 too."""
        self.derivatives.base = base = float(np.real(self.model.value(self.model.exact)))
        if not math.isfinite(base):
            sentence = f"loss is not finite in float64: got {base}, expected a number; no derivative can be taken of it"
            self.record.problem("nonfinite", "loss", "nonfinite", sentence, entries=(1, 1), actual=base)
            return False
        self.derivatives.measure_noise()
        return True

    def _find_unmeasured(self, wide: dict[str, Any], names: list[str]) -> None:
        """Note the gradients whose rounding cannot be measured, since a function drops the class of its arrays, as np.array does."""
        loss, gradients = self.model.carries(self.model.value), self.model.carries(self.model.answers_anyhow) or {}
        for name in names:
            changes = comparable(gradients.get(name), wide[name]) and not np.array_equal(gradients[name], wide[name])
            if loss is None or np.real(loss) == self.derivatives.base or (not changes and wide[name].any()):
                self._leave_unmeasured(name, wide[name].size)

    def _leave_unmeasured(self, name: str, size: int) -> None:
        if name not in self.unmeasured:
            self.unmeasured.add(name)
            self.record.skipped[f"{d(name)} beyond half its digits, as no rounding could be measured in the functions"] += size

    # The comparison.

    def _wide(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the gradients of the same parameters in float64, where the functions carry it."""
        if self.model.precision is FLOAT64:
            return given
        answers = self.model.answers(self.model.exact)
        return {name: array if comparable(array, given[name]) and array.dtype.itemsize >= 8 else given[name]
                for name, array in answers.items()}

    def _responses(self, center: dict[str, Any], names: list[str], sizes: tuple[float, ...]) -> dict[str, list[np.ndarray]]:
        """Return by name how the gradients change under random errors of the first size that leaves them finite.

        Changes under the sizes that stand for float64 are scaled to its rounding.
        """
        responses: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for size in sizes:
            missing = [name for name in names if not responses[name]]
            runs = self.model.noisy(size, self.model.answers_anyhow) if missing else []
            scale = error_size(FLOAT64) / size if size in SIZES else 1.0
            for name in missing:
                changes = [scale * (np.asarray(run[name], dtype=np.float64) - center[name]) for run in runs
                           if comparable(run[name], center[name])]
                responses[name] = [change for change in changes if np.isfinite(change).all()]
                if not responses[name] and size == sizes[-1]:
                    self._leave_unmeasured(name, center[name].size)
        return responses

    def _judge(self, name: str, given: np.ndarray, wide: np.ndarray, responses: list[np.ndarray], coarse: list[np.ndarray]) -> None:
        """Judge a gradient in float64, where the formula shows best, then what its own format loses.

        `wide` is the gradient in float64; `responses` and `coarse` are its changes under random errors of float64 and of its own format.
        """
        if not given.size:
            self.record.skipped[f"{name} has no entries"] += 0
            return
        narrow = wide.dtype.itemsize < 8  # the functions do not compute in float64
        precision = PRECISIONS[wide.dtype.name] if narrow else FLOAT64
        size = math.sqrt(precision.store) if name in self.unmeasured else error_size(precision)
        check = ParameterCheck(self.derivatives, self.record.skipped, name, wide.astype(np.float64), coarse if narrow else responses, size)
        certificate = check.certificate()
        self.record.truths[name] = " ".join([check.truth.method, *(f"({reason})" for reason in check.truth.reasons.values())])
        if certificate.verdict == "agrees" and coarse and not narrow and name not in self.unmeasured:
            certificate = self._judged_in_own_format(certificate, name, given, wide, coarse)
        else:
            self._add(certificate, name, check)
        if certificate.verdict == "agrees":
            check.plant(self.record.self_test)
        key = (SUBJECT, self.model.given[name].dtype.name, HANDWRITTEN, d(name))
        self.record.tallies.setdefault(key, Tally()).merge(Tally.of(certificate))
        if certificate.inconclusive:
            self.record.skipped["inconclusive: the truth is less certain than its size"] += certificate.inconclusive
        if check.only_in_sums:
            self.record.skipped[f"{d(name)} one by one, only in {SUMS} random sums over all its entries"] += check.only_in_sums

    def _judged_in_own_format(self, in_float64: Certificate, name: str, given: np.ndarray, wide: np.ndarray,
                              coarse: list[np.ndarray]) -> Certificate:
        """Judge what a gradient in its own format differs by from the same in float64, which agrees with the truth."""
        precision = PRECISIONS.get(given.dtype.name, FLOAT64)
        largest = float(np.max(np.abs(wide)))
        bound = max((float(np.max(np.abs(r))) for r in coarse), default=0.0) + error_size(precision) * largest + precision.underflow
        ball = Rounded(wide.astype(np.float64), np.full(wide.shape, bound), Arithmetic(FLOAT64))
        certificate = compare(stand_in(self.model, name, ball), d(name), given.astype(np.float64), ball, FLOAT64)
        if not certificate.failed:
            return in_float64
        off = float(np.max(np.abs(given - wide))) / (largest or 1.0)
        sentence = (f"the formula is right in float64, and in {given.dtype} {d(name)} is off by {off:.2g} of its largest entry, "
                    f"{certificate.excess:.3g} times what rounding explains")
        digits = math.log10(max(off / precision.store, 1.0))
        diagnosis = Diagnosis("digits-lost", sentence)
        self.record.findings.append(self._finding(Judgement(certificate, None, "imprecise", lambda: diagnosis, digits), name))
        return certificate

    def _add(self, certificate: Certificate, name: str, check: ParameterCheck) -> None:
        """Enter what is said of a gradient that did not agree."""
        if not certificate.failed and certificate.verdict != "convention":
            return
        small = certificate.failed and within_single(certificate)
        diagnosis = _explained(check, certificate, name, small=small)
        verdict = "imprecise" if small and diagnosis.code != "single-entry" else "wrong"
        judgement = judge(certificate, stand_in(self.model, name, check.ball()), FLOAT64, tell_apart=lambda _: verdict,
                          explain=lambda *_: diagnosis)
        kept = self.record.conventions if judgement.verdict == "convention" else self.record.findings
        kept.append(self._finding(replace(judgement, digits=0.0), name))

    def _finding(self, judgement: Judgement, name: str) -> Finding:
        return Finding.of(replace(judgement, step=None), subject=SUBJECT, precision=self.model.given[name].dtype.name, case=None)


def _explained(check: ParameterCheck, certificate: Certificate, name: str, *, small: bool) -> Diagnosis:
    """Return what explains a gradient that did not agree; `small` says that single precision would lose as much."""
    if certificate.verdict == "convention":
        return Diagnosis("kink", f"the loss has no derivative there, and {d(name)} lies between those nearby")
    diagnosis = explained(check, certificate)
    if small and diagnosis.code in {"unknown", "single-precision-constant"}:
        sentence = (f"{d(name)} is right to single precision only: a small constant, as in log(A + 1e-8), or one held in float32 "
                    "is in one of the two functions and not in the other")
        diagnosis = Diagnosis("small-constant", sentence)
    more = f"; the search stopped at {NAMED} wrong entries" if check.stopped else ""
    return replace(diagnosis, sentence=f"{diagnosis.sentence}{more} (true values by {check.truth.method})")
