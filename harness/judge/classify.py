"""Classify a failed certificate as `wrong` (another formula) or `imprecise` (the right formula, digits lost).

The evidence is how the error behaves when the precision changes. An implementation of the right formula that loses digits errs by K unit
roundoffs of the layer's natural scale, with about the same K in every precision (so its float64 error is 2^-29 of its
float32 error); a wrong formula errs by the same amount whatever the precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.judge.certificate import Certificate
from backproof.reference.heads import Head
from backproof.reference.layer import Elementwise
from backproof.reference.linear import Linear
from backproof.reference.rounding import Precision, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["PARTNERS", "LostDigits", "classify", "comparable", "natural_scale"]

PARTNERS = {"float64": "float32", "float32": "float64", "bfloat16": "float32", "float16": "float32", "tf32": "float64"}
"""The precision in which a failing case is run again to tell `wrong` from `imprecise`."""

FEW_ROUNDOFFS = 32.0  # an elementary function's budget is 8 ulps, which is 16 unit roundoffs; a formula takes two of them


@dataclass(frozen=True)
class LostDigits:
    """How far a tensor is off: `roundoffs` is K, the error in unit roundoffs of the natural scale; `digits` how many decimals are gone."""

    roundoffs: float
    digits: float

    @classmethod
    def of(cls, step: LayerTrace, certificate: Certificate, precision: Precision) -> LostDigits:
        """Measure a certificate that keeps its numbers; one that agrees has lost nothing."""
        if certificate.actual is None or certificate.ball is None:
            return cls(0.0, 0.0)
        with quiet():
            ball, actual = certificate.ball, certificate.actual.astype(np.float64)
            error = np.abs(actual - ball.value)
            outside = np.isfinite(error) & np.isfinite(ball.radius()) & (error > ball.radius())
            relative = float(np.max(error / np.abs(ball.value), initial=0.0, where=outside & (ball.value != 0)))
            size = np.abs(ball.value)
            own = size if isinstance(step.layer, Elementwise) else np.max(size, initial=0.0, where=np.isfinite(size))
            scale = np.maximum(natural_scale(step, certificate.tensor), own)
            if not isinstance(step.layer, (Elementwise, Head, Linear)) and ball.arithmetic.kinks != "hull":  # of which no rounding is
                # the bound follows the numbers through whatever the layer does with them
                radius = ball.radius()
                scale = np.maximum(scale, np.max(radius, initial=0.0, where=np.isfinite(radius)) / precision.store)
            roundoffs = float(np.max(error / scale, initial=0.0, where=outside)) / precision.store
        lost = max(0.0, np.log10(max(min(relative, 1.0) / precision.store, 1.0)))
        return cls(roundoffs, float(lost))


def natural_scale(step: LayerTrace, tensor: str) -> Any:
    """Return the size of the numbers a layer adds and multiplies on the way to a tensor: what its roundoffs are relative to.

    For an element-wise layer that is an array, entry by entry; otherwise the largest number that enters.
    """
    if isinstance(step.layer, Elementwise) and tensor in {"output", "dx"}:
        return np.abs((step.inputs if tensor == "output" else step.d_outputs)[0].astype(np.float64))
    largest_x, largest_dy = _largest(*step.inputs, step.params.get("running_mean")), _largest(*step.d_outputs)
    if isinstance(step.layer, Head):
        count = max(step.inputs[0].size, 1) if step.layer.reduction == "mean" else 1
        return _largest(step.inputs[0]) if tensor == "output" else largest_dy / count
    gain = _largest(step.params["weight"]) if "weight" in step.params else 1.0
    return {"output": largest_x * gain, "dx": largest_dy * gain, "dweight": largest_dy * largest_x}.get(tensor, largest_dy)


def _largest(*arrays: np.ndarray | None) -> float:
    sizes = (np.abs(a.astype(np.float64)) for a in arrays if a is not None)
    return max((float(np.max(size, initial=0.0, where=np.isfinite(size))) for size in sizes), default=0.0)


def comparable(precision: Precision, partner: Precision) -> float:
    """Return the factor by which K may change between two precisions while digits are merely lost: half of their bits."""
    return float(np.sqrt(max(precision.store, partner.store) / min(precision.store, partner.store)))


def classify(here: LostDigits, there: LostDigits | None, precision: Precision, partner: Precision) -> str:
    """Return `imprecise` or `wrong` from the loss in the failing precision and, where it could be run, in its partner.

    Digits lost leave K as it is; a wrong formula's K grows by the ratio of the unit roundoffs, 2^29 from float32 to float64. What
    changes by less than half of those bits is imprecise.
    """
    if there is None:
        return "imprecise" if here.roundoffs <= FEW_ROUNDOFFS else "wrong"
    ratio = max(here.roundoffs, 1.0) / max(there.roundoffs, 1.0)
    return "imprecise" if 1 / comparable(precision, partner) <= ratio <= comparable(precision, partner) else "wrong"
