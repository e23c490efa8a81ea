"""Which mistake explains the wrong numbers of a gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backproof.gradients.model import d
from backproof.gradients.parameter import ParameterCheck
from backproof.gradients.stand_in import stand_in
from backproof.judge.certificate import Certificate
from backproof.judge.diagnosis import Diagnosis, diagnose
from backproof.reference.rounding import PRECISIONS, Rounded
from backproof.truth.random_rounding import FLOAT64, HALF, error_size

__all__ = ["explained", "within_single"]


def within_single(certificate: Certificate) -> bool:
    """Say whether all that is off is less than what single precision would lose."""
    if certificate.actual is None or certificate.ball is None:
        return False
    with np.errstate(invalid="ignore"):
        off = np.abs(certificate.actual - certificate.ball.value)
    return bool(np.nanmax(off) <= error_size(PRECISIONS["float32"]) * np.nanmax(np.abs(certificate.ball.value)))


def explained(check: ParameterCheck, certificate: Certificate) -> Diagnosis:
    """Return the first mistake that explains the numbers, the general ones before regularisation."""
    tensor, ball = certificate.tensor, check.ball()
    actual = check.flat[check.entries].reshape(ball.shape)
    if not actual.any():
        return Diagnosis("zero", f"{tensor} is zero everywhere, and the derivative is not: it is never computed")
    shown = replace(certificate, actual=actual, ball=ball, index=_shown_at(check, certificate, ball.shape))
    diagnosis = diagnose(stand_in(check.model, check.name, ball), shown, FLOAT64)
    if diagnosis.code == "factor":
        largest = np.unravel_index(int(np.argmax(np.abs(ball.value))), ball.shape)
        return replace(diagnosis, sentence=_about_factor(tensor, float(actual[largest] / ball.value[largest])))
    if diagnosis.code in {"unknown", "single-entry"}:
        diagnosis = _transposed(check, ball) or _regularised(check, actual, ball) or diagnosis
    if diagnosis.code == "single-entry":
        return replace(diagnosis, sentence=diagnosis.sentence.replace(str(list(shown.index)), str(list(certificate.index))))
    return diagnosis


def _shown_at(check: ParameterCheck, certificate: Certificate, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the worst entry in an array of that shape, the whole gradient's or that of a sample."""
    if shape == check.actual.shape:
        return certificate.index
    return (int(np.flatnonzero(check.entries == np.ravel_multi_index(certificate.index, check.actual.shape))[0]),)


def _transposed(check: ParameterCheck, ball: Rounded) -> Diagnosis | None:
    """Recognise the transposed gradient of a square matrix of which only a sample is known."""
    if check.actual.ndim != 2 or check.actual.shape[0] != check.actual.shape[1] or ball.shape == check.actual.shape:
        return None
    turned = check.actual.T.reshape(-1)[check.entries]
    return Diagnosis("transposed", f"{d(check.name)} is transposed") if (np.abs(turned - ball.value) <= ball.radius()).all() else None


def _regularised(check: ParameterCheck, actual: np.ndarray, ball: Rounded) -> Diagnosis | None:
    """Recognise a difference of one number times the parameter, or its sign: a regularisation term on one side only."""
    tensor = d(check.name)
    parameter = check.model.exact[check.name].reshape(-1)
    parameter = (parameter if ball.shape == check.actual.shape else parameter[check.entries]).reshape(ball.shape)
    off, radius = actual - ball.value, ball.radius()
    for term, basis in ((check.name, parameter), (f"sign({check.name})", np.sign(parameter))):
        if np.count_nonzero(basis) < 2:
            continue
        best = np.unravel_index(int(np.argmax(np.abs(basis))), basis.shape)
        factor = float(off[best] / basis[best])
        doubt = 2 * float(radius[best] / abs(basis[best]))
        slack = radius + doubt * np.abs(basis)
        if abs(factor) > doubt and (np.abs(off - factor * basis) <= slack).all():
            amount = f"{abs(factor):.6g} * {term}"
            number = f"lambda, with its 1/m or 2 if any, is {abs(factor):.6g}"
            if factor < 0:
                return Diagnosis("regularization-missing", f"{tensor} lacks {amount} everywhere: a regularisation term is in the loss "
                                 f"and not in the gradient ({number})")
            return Diagnosis("regularization-extra", f"{tensor} has {amount} too much everywhere: a regularisation term is in the "
                             f"gradient and not in the loss ({number})")
    return None


def _about_factor(tensor: str, factor: float) -> str:
    """Say what one common factor may come from: whole numbers are counts of examples or units."""
    sentence = f"{tensor} is {factor:.6g} times what it should be, everywhere"
    sign = ", and the sign is wrong" if factor < 0 else ""
    for count, what in ((abs(factor), "a division by {} is missing"), (1 / abs(factor), "it is divided by {} once too often")):
        whole = round(count)
        if whole > 1 and abs(count - whole) <= HALF * whole:
            return f"{sentence}: {what.format(whole)}{sign}; is m = {whole}?"
    return sentence
