"""Every verdict on a tensor, with its meaning and its rank."""

from __future__ import annotations

__all__ = ["SEVERITY", "VERDICTS"]

VERDICTS: dict[str, str] = {
    "error": "raised, timed out, died, or returned a wrong shape or dtype",
    "wrong": "the difference does not shrink with precision: the formula is wrong",
    "nonfinite": "NaN or infinity where the reference is finite",
    "nondeterministic": "two runs of one case differ",
    "imprecise": "right formula, digits lost",
    "inconclusive": "the bound is larger than the value: nothing can be said",
    "convention": "outside the reference's own choice at a kink, but a valid subgradient",
    "agrees": "every entry within its bound",
}
"""Every verdict with its meaning, worst first."""

SEVERITY = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
"""The rank of every verdict: 0 is the worst."""
