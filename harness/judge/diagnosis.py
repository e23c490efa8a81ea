"""Which known mistake reproduces the numbers of a failed certificate, within the bound."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from backproof.judge.certificate import Certificate
from backproof.judge.derivation import derivation
from backproof.judge.factors import about_factors, about_parameter, axes_in_words, beside, coarser_format, explains, pattern
from backproof.judge.mistakes import MISTAKES
from backproof.judge.rules import expected
from backproof.reference.rounding import Arithmetic, Precision, Rounded
from backproof.reference.trace import LayerTrace

__all__ = ["Diagnosis", "diagnose", "digits_lost", "source_of"]


@dataclass(frozen=True)
class Diagnosis:
    """`code` names the mistake (`unknown` when none fits), `sentence` says it, `equation` is the line of the derivation it violates.

    `condition` says when it shows: `only for a batch of more than one example`; empty where it shows on any input, or nobody looked.
    """

    code: str
    sentence: str
    equation: str = ""
    condition: str = ""


def diagnose(step: LayerTrace, certificate: Certificate, precision: Precision) -> Diagnosis:  # noqa: C901, PLR0911  (one per explanation)
    """Return the first mistake that explains every entry of a failed certificate; say plainly when none does."""
    tensor, actual, ball = certificate.tensor, certificate.actual, certificate.ball
    equation = derivation(step.layer, tensor)
    if certificate.verdict == "error":
        axes = _sums_over_axes(actual, ball) if actual is not None and ball is not None else ""
        return Diagnosis("not-summed" if axes else "error", certificate.message + axes, equation)
    if actual is None or ball is None:
        return Diagnosis("unknown", "the numbers of this finding were not kept", equation)
    batch = step.inputs[0].shape[0]
    if not batch:
        return Diagnosis("empty-batch", f"of no examples {tensor} is a sum of nothing, 0: something else came back", equation)
    if certificate.end_to_end:
        sentence = f"every layer is right by itself and yet {certificate.label} of the network is not: a wrong connection between layers"
        return Diagnosis("wiring", sentence, equation)

    right = expected(step, Arithmetic(precision))

    def rule(altered: LayerTrace) -> dict[str, Rounded]:
        return right if altered is step else expected(altered, Arithmetic(precision))

    numbers = actual.astype(np.float64)
    if certificate.verdict == "nonfinite":
        count = int(np.count_nonzero(~np.isfinite(numbers)))
        return Diagnosis("nonfinite", f"{count} of {actual.size} entries of {tensor} are not finite where the true value is", equation)
    for mistake in MISTAKES:
        wrong = mistake.wrong(step, tensor, rule)
        if wrong is not None and explains(wrong, numbers):
            return Diagnosis(mistake.code, mistake.sentence.format(tensor=tensor, m=batch), equation)
    most = 2 * certificate.outside > np.count_nonzero(ball.value)
    found = (about_parameter(step, tensor, numbers, ball) if most else None) or about_factors(tensor, numbers, ball, precision)
    if found is not None:
        return Diagnosis(*found, equation)
    coarse = coarser_format(step, tensor, numbers, precision) if most else None
    if coarse is not None:
        return Diagnosis("coarse-precision", f"{tensor} is right to the digits of {coarse} only: it was computed in that", equation)
    if certificate.outside == 1 < actual.size:
        at = certificate.index
        sentence = f"one entry of {tensor} is wrong, at {list(at)}: it is {beside(numbers[at], ball.value[at])}"
        return Diagnosis("single-entry", sentence, equation)
    return Diagnosis("unknown", f"no known mistake reproduces these numbers; {pattern(numbers, ball)}", equation)


def _sums_over_axes(actual: np.ndarray, ball: Rounded) -> str:
    """Say over which axes a tensor with too many of them must be summed to be right; nothing where that does not help."""
    if actual.dtype == ball.arithmetic.precision.dtype:
        for axes in combinations(range(actual.ndim), max(1, actual.ndim - ball.ndim)):
            if explains(ball, actual.astype(np.float64).sum(axis=axes)):
                return f". Summed over {axes_in_words(axes)} it is right"
    return ""


def digits_lost(step: LayerTrace, certificate: Certificate, digits: float) -> Diagnosis:
    """Return the diagnosis of an imprecise tensor: how many digits are gone, and at which input."""
    x, actual = source_of(step, certificate.tensor), certificate.actual
    where = f", worst at input {float(x[certificate.index]):.4g}" if actual is not None and x.shape == actual.shape else ""
    lost = f"about {digits:.1f} decimal digits in {certificate.outside} entries of {certificate.tensor}{where}"
    return Diagnosis("digits-lost", f"the formula is right but loses {lost}", derivation(step.layer, certificate.tensor))


def source_of(step: LayerTrace, tensor: str) -> np.ndarray:
    """Return the input that a gradient is of, or else the first."""
    names = step.layer.input_names
    return step.inputs[names.index(tensor[1:]) if tensor[1:] in names else 0]
