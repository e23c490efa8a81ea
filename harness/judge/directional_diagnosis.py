"""Which mistake makes a derivative along a direction wrong: a factor, or a part that is not differentiated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backproof.adapters.calls import DOUBLE, Call
from backproof.judge.certificate import Certificate
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.directional import expected_along, tangents_named
from backproof.judge.factors import about_factors, holds_all, pattern
from backproof.reference.rounding import Precision, Rounded
from backproof.reference.trace import LayerTrace

__all__ = ["diagnose_directional"]

CONSTANT = "backward takes numbers that come of it for constants"


def diagnose_directional(step: LayerTrace, call: Call, certificate: Certificate, precision: Precision) -> Diagnosis:
    """Return what explains every entry of a derivative; say plainly where nothing does."""
    tensor, actual, ball = certificate.tensor, certificate.actual, certificate.ball
    if certificate.verdict == "error" or actual is None or ball is None:
        return Diagnosis("error", certificate.message)
    numbers = actual.astype(np.float64)
    if certificate.verdict == "nonfinite":
        count = int(np.count_nonzero(~np.isfinite(numbers)))
        return Diagnosis("nonfinite", f"{count} of {actual.size} entries of {tensor} are not finite where the true value is")
    found = about_factors(tensor, numbers, ball, precision)
    name = tensor.removeprefix(f"{DOUBLE} ")
    if call.mode == DOUBLE and name in tangents_named(step.layer, call):
        if found is not None and found[0] == "zero":
            return Diagnosis("not-differentiated", f"{tensor} is zero: no gradient is differentiated by {name}; {CONSTANT}")
        missing = _missing(step, call, tensor, numbers, ball, precision)
        if missing:
            return Diagnosis("not-differentiated", f"{tensor} lacks the part of {missing}: it is not differentiated by {name}; {CONSTANT}")
    if found is not None:
        return Diagnosis(*found)
    return Diagnosis("unknown", f"no known mistake reproduces these numbers; {pattern(numbers, ball)}")


def _missing(step: LayerTrace, call: Call, tensor: str, numbers: np.ndarray, ball: Rounded, precision: Precision) -> str:
    """Return the gradient whose part of a double backward is not in the observed numbers, or nothing."""
    for (key, v), name in zip(call.tangents.items(), tangents_named(step.layer, call), strict=True):
        part = expected_along(step, replace(call, tangents={**call.tangents, key: np.zeros_like(v)}), precision)[tensor]
        if holds_all(part, numbers) and not holds_all(part, ball.value):
            return f"d{name}"
    return ""
