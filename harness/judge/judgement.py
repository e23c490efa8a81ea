"""The one path from a certificate that did not agree to what is said of it: verdict, excuse, diagnosis.

Every product walks it. What differs between them is handed in: how `wrong` is told from `imprecise`, what may be excused, and who explains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from backproof.judge.certificate import Certificate
from backproof.judge.classify import PARTNERS, LostDigits, classify
from backproof.judge.comparing import compare
from backproof.judge.diagnosis import Diagnosis, diagnose, digits_lost, source_of
from backproof.judge.known import Known
from backproof.reference.rounding import Precision, precision_named
from backproof.reference.trace import LayerTrace

__all__ = ["Excuse", "Explain", "Judgement", "TellApart", "by_known_mistakes", "by_second_precision", "judge", "nondeterministic", "raised"]

TellApart = Callable[[LostDigits], str]
"""Returns `wrong` or `imprecise` for a tensor outside its bound that is so far off."""
Excuse = Callable[[str, Certificate], tuple[np.ndarray, Sequence[Known]]]
"""Returns, for a verdict and a failed certificate, which of its entries are known discrepancies, and these."""
Explain = Callable[[str, LostDigits, Certificate], Diagnosis]
"""Returns what explains a verdict, from how far the tensor is off and its certificate."""
Twin = Callable[[str], tuple[LayerTrace, Certificate] | None]
"""Returns the same tensor in the precision of that name: its layer's trace and its certificate, None where there is none."""


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is said of one tensor that did not agree.

    `certificate` leaves out the entries that known discrepancies excuse; where these excuse all, it is the whole one and `known` holds
    them. The diagnosis is found when it is asked for, as most judgements repeat one that was made before.
    """

    certificate: Certificate
    step: LayerTrace | None
    verdict: str
    explain: Callable[[], Diagnosis]
    digits: float = 0.0
    known: tuple[Known, ...] = ()
    met: tuple[Known, ...] = field(default=(), repr=False)
    """The known discrepancies of which some entry was excused, whether or not that was all."""

    @property
    def reasons(self) -> str:
        """The reasons of the known discrepancies that explain the whole tensor; empty where something is left unexplained."""
        return " ".join(entry.reason for entry in self.known)

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two judgements of one subject the same finding."""
        return type(self.certificate.layer).__name__, self.certificate.label, self.verdict, self.reasons

    @property
    def diagnosis(self) -> Diagnosis:
        return self.explain()


def judge(certificate: Certificate, step: LayerTrace, precision: Precision, *, tell_apart: TellApart, excuse: Excuse | None = None,
          explain: Explain | None = None) -> Judgement:
    """Return what is said of a certificate that failed, or that shows another subgradient than the reference's own."""
    explain = explain or by_known_mistakes(step, precision)
    lost, verdict = LostDigits(0.0, 0.0), certificate.verdict
    if certificate.failed and verdict != "error":
        lost = LostDigits.of(step, certificate, precision)
    if verdict == "outside":  # of a whole run in which every layer agreed by itself, no rounding explains it
        verdict = "wrong" if certificate.end_to_end else tell_apart(lost)
    rest, met = certificate, tuple[Known, ...]()
    if excuse is not None and certificate.failed and verdict != "error" and not certificate.end_to_end:
        rest, met = _without_known(certificate, step, precision, *excuse(verdict, certificate))
    explained = bool(met) and not rest.failed
    shown = certificate if explained else rest
    return Judgement(shown, step, verdict, lambda: explain(verdict, lost, shown), lost.digits, met if explained else (), met)


def by_known_mistakes(step: LayerTrace, precision: Precision) -> Explain:
    """Explain a layer's tensor: digits lost as what they are, anything else by the mistake that reproduces the numbers."""

    def explain(verdict: str, lost: LostDigits, certificate: Certificate) -> Diagnosis:
        if verdict == "convention":
            return explain_convention(step, certificate)
        return digits_lost(step, certificate, lost.digits) if verdict == "imprecise" else diagnose(step, certificate, precision)

    return explain


def _without_known(certificate: Certificate, step: LayerTrace, precision: Precision, excused: np.ndarray,
                   met: Sequence[Known]) -> tuple[Certificate, tuple[Known, ...]]:
    """Compare a tensor again without the entries that are known; return the certificate with the discrepancies met."""
    if not met or certificate.actual is None or certificate.ball is None:
        return certificate, ()
    return compare(step, certificate.tensor, certificate.actual, certificate.ball, precision, excused), tuple(met)


def by_second_precision(precision: Precision, twin: Twin) -> TellApart:
    """Tell `wrong` from `imprecise` by how far the same tensor is off in the partner precision, where that can be run."""
    partner = precision_named(PARTNERS[precision.name])

    def tell_apart(lost: LostDigits) -> str:
        there = twin(partner.name)
        return classify(lost, None if there is None else LostDigits.of(*there, partner), precision, partner)

    return tell_apart


def explain_convention(step: LayerTrace, certificate: Certificate) -> Diagnosis:
    """Say that another subgradient was chosen, and at which input where that is known."""
    x, actual = source_of(step, certificate.tensor), certificate.actual
    where = f" at input {float(x[certificate.index]):g}" if actual is not None and x.shape == actual.shape else ""
    sentence = f"another subgradient than the reference's own{where}: valid, since the layer has a kink there"
    return Diagnosis("subgradient", sentence if actual is not None else "another subgradient at a kink")


def raised(layer: Any, path: str, sentence: str, *, code: str = "raised", known: Known | None = None) -> Judgement:
    """Return the judgement of a call that gave no numbers, as it raised, hung, died or modified what it was given."""
    certificate = Certificate(path, layer, "", "error", 0, message=sentence)
    return Judgement(certificate, None, "error", lambda: Diagnosis(code, sentence), known=(known,) if known is not None else ())


def nondeterministic(certificate: Certificate, step: LayerTrace, sentence: str) -> Judgement:
    """Return the judgement of a tensor that came out otherwise when the same call was made again."""
    return Judgement(certificate, step, "nondeterministic", lambda: Diagnosis("nondeterministic", sentence))
