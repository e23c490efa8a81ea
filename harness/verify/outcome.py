"""What one case gave on one adapter in one precision."""

from __future__ import annotations

from dataclasses import dataclass

from backproof.adapters import Adapter
from backproof.judge.certificate import Certificate
from backproof.reference.case import Case
from backproof.reference.rounding import Precision, precision_named
from backproof.reference.trace import LayerTrace, Trace

__all__ = ["Outcome", "Outcomes"]

Outcomes = dict[tuple[str, str], "Outcome"]
"""What one case gave, by adapter and precision."""


@dataclass(frozen=True)
class Outcome:
    """One case on one adapter in one precision: its trace and certificates, or the exception it raised."""

    adapter: Adapter
    case: Case
    trace: Trace | None
    certificates: tuple[Certificate, ...]
    error: str = ""

    def step(self, path: str) -> LayerTrace:
        if self.trace is None:
            raise LookupError(f"no trace: {self.error}")
        return next(s for s in self.trace.layers if s.path == path)

    def certificate(self, path: str, label: str) -> Certificate | None:
        return next((c for c in self.certificates if (c.path, c.label) == (path, label)), None)

    def twin(self, certificate: Certificate) -> tuple[LayerTrace, Certificate] | None:
        """Return the same tensor as this outcome has it, with its layer's trace."""
        found = self.certificate(certificate.path, certificate.label)
        return None if found is None else (self.step(certificate.path), found)

    @property
    def precision(self) -> Precision:
        return precision_named(self.case.precision)
