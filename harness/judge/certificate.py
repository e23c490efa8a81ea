"""One tensor of a layer's trace against its bound: what was compared, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.reference.rounding import Rounded
from backproof.reference.trace import LayerTrace

__all__ = ["END_TO_END", "OFF", "Certificate", "Index", "error_certificate"]

Index = tuple[int, ...]

END_TO_END = "end-to-end "  # begins the label of a tensor that was compared with a whole run of the reference
OFF = frozenset({"outside", "nonfinite"})
"""Verdicts of certificates whose numbers are not where they should be."""


@dataclass(frozen=True)
class Certificate:
    """One tensor of a trace against its bound.

    `verdict` is `agrees`, `convention`, `inconclusive`, `nonfinite`, `error` or `outside`, which a second precision turns into
    `wrong` or `imprecise`. `excess` is the largest |difference| / bound, `margin` the largest one among the entries that agree.
    `actual` and `ball` hold the tensors of a certificate that does not agree, in full. `end_to_end` says that the tensor was compared with
    a whole run of the reference, and not with its own layer's rule.
    """

    path: str
    layer: Any
    tensor: str
    verdict: str
    compared: int
    outside: int = 0
    conventions: int = 0
    inconclusive: int = 0
    excess: float = 0.0
    margin: float = 0.0
    index: Index = ()
    message: str = ""
    actual: np.ndarray | None = None
    ball: Rounded | None = None
    end_to_end: bool = False

    @property
    def label(self) -> str:
        """The tensor's name as tallies and findings bear it."""
        return f"{END_TO_END}{self.tensor}" if self.end_to_end else self.tensor

    @property
    def failed(self) -> bool:
        return self.verdict in {"outside", "nonfinite", "error"}


def error_certificate(step: LayerTrace, tensor: str, message: str, actual: np.ndarray | None = None,
                      ball: Rounded | None = None) -> Certificate:
    """Return the certificate of a tensor that cannot be compared, with the reason."""
    return Certificate(step.path, step.layer, tensor, "error", 0, message=message, actual=actual, ball=ball)
