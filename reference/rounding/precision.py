"""The number formats that a computation may run in, and what each of them loses in one operation.

`PRECISIONS` holds them by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from backproof.reference.usage import UsageError

__all__ = ["FLOAT32_LARGEST", "FLOAT32_NORMAL", "PRECISIONS", "TRUNCATED", "Precision", "precision_named"]


@dataclass(frozen=True)
class Precision:
    """A number format, with the unit roundoffs an implementation computing in it may use.

    `store` rounds every stored result, `multiply` the factors of a contraction (TF32 truncates them), `accumulate` the
    running sums and the inside of elementary functions (bfloat16 kernels compute in float32). `underflow` is
    the largest absolute error of one underflowing result: the smallest normal number where subnormals may be flushed.
    """

    name: str
    dtype: np.dtype[Any]
    store: float
    multiply: float
    accumulate: float
    underflow: float
    normal: float
    largest: float
    ulps: float = 8.0

    @property
    def wide(self) -> bool:
        """Say whether sums and elementary functions run in float32 and only their result is stored in this format."""
        return self.accumulate < self.store

    def held(self, numbers: np.ndarray) -> np.ndarray:
        """Return float64 numbers as this format holds them."""
        with np.errstate(over="ignore"):
            return numbers.astype(self.dtype).astype(np.float64)


FLOAT32_NORMAL, FLOAT32_LARGEST = (float(x) for x in (np.finfo(np.float32).smallest_normal, np.finfo(np.float32).max))
TRUNCATED = 2.0**-23  # tensor cores truncate their float32 sums (Fasi, Higham, Mikaitis, Pranesh, PeerJ CS 7:e330, 2021)


def _precision(name: str, dtype: Any, *, multiply: float | None = None, accumulate: float | None = None,
               underflow: float | None = None) -> Precision:
    finfo: Any = ml_dtypes.finfo
    info = finfo(dtype)
    store, normal = float(info.eps) / 2, float(info.smallest_normal)
    return Precision(name, np.dtype(dtype), store, multiply or store, accumulate or store, underflow or normal, normal,
                     float(info.max))


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        _precision("float64", np.float64),
        _precision("float32", np.float32),
        _precision("bfloat16", ml_dtypes.bfloat16, accumulate=TRUNCATED),
        # every kernel keeps the subnormals of float16: a result among them is off by half their spacing, which a product of three
        # factors, taken in another order than ours, may pay twice
        _precision("float16", np.float16, accumulate=TRUNCATED, underflow=2.0**-24),
        _precision("tf32", np.float32, multiply=2.0**-10, accumulate=TRUNCATED),  # truncated to 11 bits: twice 2^-11
    )
}


def precision_named(name: str) -> Precision:
    """Return a precision by name; raise ValueError naming the known ones."""
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision: got {name!r}, expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
