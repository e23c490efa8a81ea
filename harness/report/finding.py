"""A finding: a certificate that did not agree, classified, diagnosed and tied to the case that shows it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from backproof.adapters import lowering
from backproof.draw.probe import Probe
from backproof.judge.certificate import Certificate
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement
from backproof.judge.verdicts import SEVERITY, VERDICTS
from backproof.reference.case import Case
from backproof.reference.layer import describe
from backproof.reference.network import Network
from backproof.reference.trace import LayerTrace

__all__ = ["SEVERITY", "VERDICTS", "Finding", "number"]

NUMBER = re.compile(r"0x[0-9a-f]+|[0-9]+")  # what differs between two messages of one cause: sizes, addresses


@dataclass(frozen=True)
class Finding:
    """One distinct discrepancy: adapter x layer x tensor x verdict, seen `count` times, shown on its smallest case.

    `entries` is (outside, total) of the tensor shown; `known` is the reason of a known discrepancy, empty for a new one;
    `suspects_reference` says that the frameworks agree with each other and not with us; `digits` are the decimals lost. `lowering` is the
    name and source of the function that gave the numbers, where it is ours: who writes the report need not have loaded the framework.
    """

    adapter: str
    precision: str
    layer: str
    path: str
    tensor: str
    verdict: str
    excess: float
    entries: tuple[int, int]
    index: tuple[int, ...]
    actual: float
    expected: float
    bound: float
    diagnosis: Diagnosis
    case: Case | Probe | None
    count: int = 1
    digits: float = 0.0
    known: str = ""
    suspects_reference: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    lowering: tuple[str, str] = field(default=("", ""), repr=False, compare=False)
    step: LayerTrace | None = field(default=None, repr=False, compare=False)
    certificate: Certificate | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a finding distinct."""
        return (self.adapter, self.layer, self.tensor, self.verdict)

    @property
    def cause(self) -> str:
        """What was raised, without its numbers, by which findings of no tensor are told apart; empty for the others."""
        return "" if self.tensor else NUMBER.sub("#", self.diagnosis.sentence)

    @property
    def title(self) -> str:
        what = " ".join(part for part in (self.layer, self.tensor) if part)
        return f"{self.verdict}{f': {what}' if what else ''} on {self.adapter} ({self.precision})"

    @classmethod
    def of(cls, judgement: Judgement, *, adapter: str, precision: str, case: Case | Probe | None, **extra: Any) -> Finding:
        """Return the finding that a judgement of an adapter or candidate is."""
        certificate, step = judgement.certificate, judgement.step
        at, actual, ball = certificate.index, certificate.actual, certificate.ball
        numbers = (math.nan, math.nan, math.nan)
        if actual is not None and ball is not None and certificate.verdict != "error":
            numbers = float(actual[at]), float(ball.value[at]), float(ball.radius()[at])
        layer = "" if isinstance(certificate.layer, Network) else type(certificate.layer).__name__
        return cls(
            adapter, precision, layer, certificate.path, certificate.label, judgement.verdict, certificate.excess,
            (certificate.outside or certificate.conventions, certificate.compared), at, *numbers, judgement.diagnosis, case,
            digits=judgement.digits, known=judgement.reasons, options=describe(step.layer) if step is not None else {}, step=step,
            certificate=certificate, lowering=lowering(adapter, type(step.layer)) if step is not None else ("", ""), **extra,
        )

    @classmethod
    def restored(cls, data: Mapping[str, Any]) -> Finding:
        """Return the finding that `describe` described, without its arrays; raise ValueError for data that describes none."""
        if data.get("verdict") not in VERDICTS:
            raise ValueError(f"a finding has an unknown verdict: got {data.get('verdict')!r}, expected one of {', '.join(VERDICTS)}")
        try:
            case = None if data["case"] is None else (Probe if "condition" in data["case"] else Case).build(data["case"])
            names = ("adapter", "precision", "layer", "path", "tensor", "verdict", "known")
            texts: dict[str, Any] = {name: str(data[name]) for name in names}
            numbers: dict[str, Any] = {name: float(data[name]) for name in ("excess", "actual", "expected", "bound")}
            return cls(
                **texts, **numbers, entries=(int(data["entries"]["outside"]), int(data["entries"]["total"])),
                index=tuple(map(int, data["index"])), diagnosis=Diagnosis(**{name: str(said) for name, said in data["diagnosis"].items()}),
                case=case, count=int(data["count"]), digits=float(data["digits_lost"]),
                suspects_reference=bool(data["suspects_reference"]), options=dict(data["options"]),
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"a finding lacks a field or has a value of a wrong type: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Return the finding as JSON-ready data; a number that is not finite becomes a string."""
        return {
            "adapter": self.adapter, "precision": self.precision, "layer": self.layer, "path": self.path, "tensor": self.tensor,
            "verdict": self.verdict, "excess": number(self.excess), "entries": {"outside": self.entries[0], "total": self.entries[1]},
            "index": list(self.index), "actual": number(self.actual), "expected": number(self.expected), "bound": number(self.bound),
            "diagnosis": {"code": self.diagnosis.code, "sentence": self.diagnosis.sentence, "equation": self.diagnosis.equation,
                          "condition": self.diagnosis.condition},
            "count": self.count, "digits_lost": number(round(self.digits, 1)), "known": self.known,
            "suspects_reference": self.suspects_reference,
            "options": dict(self.options),
            "case": self.case.describe() if self.case is not None else None,
        }


def number(value: float) -> float | str:
    """Return a number that JSON can hold: `inf` and `nan` are written as strings."""
    value = float(value)
    return value if np.isfinite(value) else str(value)
