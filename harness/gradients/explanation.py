"""What the wrong numbers of a gradient look like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backproof.gradients.model import d
from backproof.gradients.one import One
from backproof.gradients.truth import stand_in
from backproof.judge.certify import Certificate
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


def explained(one: One, certificate: Certificate) -> Diagnosis:
    """Return the first mistake that explains the numbers, the general ones before regularisation."""
    tensor, ball = certificate.tensor, one.ball()
    actual = one.flat[one.places].reshape(ball.shape)
    if not actual.any():
        return Diagnosis("zero", f"{tensor} is zero everywhere, and the derivative is not: it is never computed")
    shown = replace(certificate, actual=actual, ball=ball, index=_shown_at(one, certificate, ball.shape))
    found = diagnose(stand_in(one.model, one.name, ball), shown, FLOAT64)
    if found.code == "factor":
        largest = np.unravel_index(int(np.argmax(np.abs(ball.value))), ball.shape)
        return replace(found, sentence=_about_factor(tensor, float(actual[largest] / ball.value[largest])))
    if found.code in {"unknown", "single-entry"}:
        extra = _transposed(one, ball) or _regularised(one, actual, ball)
        found = extra if extra is not None else found
    if found.code == "single-entry":
        return replace(found, sentence=found.sentence.replace(str(list(shown.index)), str(list(certificate.index))))
    return found


def _shown_at(one: One, certificate: Certificate, shape: tuple[int, ...]) -> tuple[int, ...]:
    if shape == one.actual.shape:
        return certificate.index
    return (int(np.flatnonzero(one.places == np.ravel_multi_index(certificate.index, one.actual.shape))[0]),)


def _transposed(one: One, ball: Rounded) -> Diagnosis | None:
    """Recognise the transposed gradient of a square matrix of which only a sample is known."""
    if one.actual.ndim != 2 or one.actual.shape[0] != one.actual.shape[1] or ball.shape == one.actual.shape:
        return None
    turned = one.actual.T.reshape(-1)[one.places]
    return Diagnosis("transposed", f"{d(one.name)} is transposed") if (np.abs(turned - ball.value) <= ball.radius()).all() else None


def _regularised(one: One, actual: np.ndarray, ball: Rounded) -> Diagnosis | None:
    """Recognise a difference of one number times the parameter, or its sign: a regularisation term on one side only."""
    tensor = d(one.name)
    parameter = one.model.exact[one.name].reshape(-1)
    parameter = (parameter if ball.shape == one.actual.shape else parameter[one.places]).reshape(ball.shape)
    off, radius = actual - ball.value, ball.radius()
    for term, basis in ((one.name, parameter), (f"sign({one.name})", np.sign(parameter))):
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
