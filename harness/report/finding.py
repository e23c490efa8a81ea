"""A finding: a certificate that did not agree, classified, diagnosed and tied to the case that shows it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from backproof.adapters import lowering
from backproof.draw.probe import Probe
from backproof.judge.certificate import Certificate
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement
from backproof.judge.verdicts import VERDICTS
from backproof.reference.case import Case
from backproof.reference.layer import describe
from backproof.reference.network import Network
from backproof.reference.trace import LayerTrace
from backproof.reference.usage import UsageError
from backproof.report.schema import COUNT, FLAG, NUMBER, SUBJECT, TEXT, VERDICT, Count, Form, Record, kind_of, number, record_of

__all__ = ["FINDING", "HANDWRITTEN", "Finding", "times"]

HANDWRITTEN = "Handwritten"  # stands for the layer in findings about a hand-written model
VARYING = re.compile(r"0x[0-9a-f]+|[0-9]+")  # what differs between two messages of one cause: sizes, addresses


def _described(case: Case | Probe | None) -> dict[str, Any] | None:
    return case.describe() if case is not None else None


def _built(data: Any) -> Case | Probe | None:
    """Return the case or probe that was described; a probe has a condition."""
    return None if data is None else (Probe if "condition" in data else Case).build(data)


_DIAGNOSIS = Record.of({f.name: replace(TEXT, needed=f.name != "condition") for f in fields(Diagnosis)})  # older files have no condition
_ENTRIES = Record.of({"outside": COUNT, "total": COUNT})

INDEX = Form(list[Count], write=list, restore=lambda index: tuple(map(int, index)))
ENTRIES = Form(_ENTRIES.accepts("Entries"), write=lambda entries: dict(zip(_ENTRIES.fields, entries, strict=True)),
               restore=lambda data: tuple(_ENTRIES.restore(data).values()))
DIAGNOSIS = Form(_DIAGNOSIS.accepts("Diagnosis"), write=_DIAGNOSIS.describe,
                 restore=lambda data: Diagnosis(**{name: str(text) for name, text in data.items()}))
DIGITS = replace(NUMBER, write=lambda digits: number(round(digits, 1)), name="digits_lost")
OPTIONS = Form(dict[str, Any], write=dict, restore=dict)
CASE = Form(dict[str, Any] | None, write=_described, restore=_built)


@dataclass(frozen=True)
class Finding:
    """One distinct discrepancy: subject x layer x tensor x verdict, seen `count` times, shown on its smallest case.

    The subject is the name of an adapter or the label of a candidate.

    `entries` is (outside, total) of the tensor shown; `known` is the reason of a known discrepancy, empty for a new one;
    `suspects_reference` says that the frameworks agree with each other and not with us; `digits` are the decimals lost. `lowering` is the
    name and source of the function that gave the numbers, where it is ours: who writes the report need not have loaded the framework.
    """

    subject: Annotated[str, SUBJECT]
    precision: Annotated[str, TEXT]
    layer: Annotated[str, TEXT]
    path: Annotated[str, TEXT]
    tensor: Annotated[str, TEXT]
    verdict: Annotated[str, VERDICT]
    excess: Annotated[float, NUMBER]
    entries: Annotated[tuple[int, int], ENTRIES]
    index: Annotated[tuple[int, ...], INDEX]
    actual: Annotated[float, NUMBER]
    expected: Annotated[float, NUMBER]
    bound: Annotated[float, NUMBER]
    diagnosis: Annotated[Diagnosis, DIAGNOSIS]
    case: Annotated[Case | Probe | None, CASE]
    count: Annotated[int, COUNT] = 1
    digits: Annotated[float, DIGITS] = 0.0
    known: Annotated[str, TEXT] = ""
    suspects_reference: Annotated[bool, FLAG] = False
    options: Annotated[Mapping[str, Any], OPTIONS] = field(default_factory=dict)
    lowering: tuple[str, str] = field(default=("", ""), repr=False, compare=False)
    step: LayerTrace | None = field(default=None, repr=False, compare=False)
    certificate: Certificate | None = field(default=None, repr=False, compare=False)

    @property
    def adapter(self) -> str:
        """The name of the adapter that was judged; empty for a candidate."""
        return "" if self.candidate else self.subject

    @property
    def candidate(self) -> str:
        """The label of the candidate that was judged; empty for an adapter."""
        return self.subject if kind_of(self.subject) == "candidate" else ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes a finding distinct."""
        return (self.subject, self.layer, self.tensor, self.verdict)

    @property
    def cause(self) -> str:
        """What was raised, without its numbers, by which findings of no tensor are told apart; empty for the others."""
        return "" if self.tensor else VARYING.sub("#", self.diagnosis.sentence)

    @property
    def title(self) -> str:
        what = " ".join(part for part in (self.layer, self.tensor) if part)
        return f"{self.verdict}{f': {what}' if what else ''} on {self.subject} ({self.precision})"

    @classmethod
    def of(cls, judgement: Judgement, *, subject: str, precision: str, case: Case | Probe | None, **extra: Any) -> Finding:
        """Return the finding that a judgement of an adapter or candidate is."""
        certificate, step = judgement.certificate, judgement.step
        at, actual, ball = certificate.index, certificate.actual, certificate.ball
        numbers = (math.nan, math.nan, math.nan)
        if actual is not None and ball is not None and certificate.verdict != "error":
            numbers = float(actual[at]), float(ball.value[at]), float(ball.radius()[at])
        layer = "" if isinstance(certificate.layer, Network) else type(certificate.layer).__name__
        return cls(
            subject, precision, layer, certificate.path, certificate.label, judgement.verdict, certificate.excess,
            (certificate.outside or certificate.conventions, certificate.compared), at, *numbers, judgement.diagnosis, case,
            digits=judgement.digits, known=judgement.reasons, options=describe(step.layer) if step is not None else {}, step=step,
            certificate=certificate, lowering=lowering(subject, type(step.layer)) if step is not None else ("", ""), **extra,
        )

    @classmethod
    def restored(cls, data: Mapping[str, Any]) -> Finding:
        """Return the finding that `describe` described, without its arrays; raise ValueError for data that describes none."""
        if data.get("verdict") not in VERDICTS:
            raise UsageError(f"a finding has an unknown verdict: got {data.get('verdict')!r}, expected one of {', '.join(VERDICTS)}")
        try:
            return cls(**FINDING.restore(data))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UsageError(f"a finding lacks a field or has a value of a wrong type: {error}") from error

    def describe(self) -> dict[str, Any]:
        """Return the finding as JSON-ready data; a number that is not finite becomes a string."""
        return FINDING.describe(self)


FINDING = record_of(Finding, last=("case",))
"""What a finding.json holds."""


def times(count: int) -> str:
    """Return how often something was seen: `once`, `3 times`."""
    return "once" if count == 1 else f"{count:,} times"
