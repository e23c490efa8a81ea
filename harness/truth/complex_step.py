"""The complex step Im f(x + ih) / h, in which nothing cancels (Squire, Trapp, *SIAM Review* 40, 1998), and arrays that carry it.

Arrays of class `Stepped` give absolute values, signs and comparisons the meaning that they have for real numbers, and raise where a
function of them is not analytic.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from backproof.truth.lifted import Lifted
from scipy import special

__all__ = ["STEP", "NotAnalyticError", "Stepped", "stepped"]

STEP = 2.0**-100
"""The length h of the step. The derivative is off by the order of its square."""


class NotAnalyticError(TypeError):
    """A rule took of a complex step what is no analytic function of it."""


def _absolute(x: Any) -> Any:
    return np.where(x.real < 0, -x, x)


def _log_add(x: Any, y: Any) -> Any:
    return np.where(np.real(x) < np.real(y), y, x) + special.log1p(np.exp(-_absolute(np.asarray(x - y))))


def _refused(x: Any) -> Any:
    raise NotAnalyticError("the rule takes the conjugate of its numbers, which is no analytic function")


class Stepped(Lifted):
    """A complex array: real numbers with a small step into the imaginary direction."""

    kind = "c"
    rules: ClassVar[dict[Any, Any]] = {
        np.absolute: _absolute, np.fabs: _absolute, np.sign: lambda x: np.sign(x.real).astype(complex), np.log1p: special.log1p,
        np.logaddexp: _log_add, np.conjugate: _refused,
        special.expit: lambda x: special.expit(x.real) + 1j * x.imag * (special.expit(x.real) * special.expit(-x.real)),
    }

    def var(  # type: ignore[override]
        self, axis: Any = None, dtype: Any = None, out: Any = None, ddof: int = 0, keepdims: bool = False, **_: Any) -> Any:
        """Return the variance, for which NumPy takes the squares of absolute values."""
        mean = self.mean(axis=axis, keepdims=True)
        return ((self - mean) ** 2).sum(axis=axis, keepdims=keepdims) / (self.size / np.size(mean) - ddof)

    def std(self, *args: Any, **options: Any) -> Any:
        return np.sqrt(self.var(*args, **options))

    @property  # type: ignore[misc]
    def real(self) -> Any:
        raise NotAnalyticError("the rule takes the real part of its numbers, which is no analytic function")

    @property  # type: ignore[misc]
    def imag(self) -> Any:
        raise NotAnalyticError("the rule takes the imaginary part of its numbers, which is no analytic function")


def stepped(array: Any) -> Stepped:
    """Return an array of numbers as complex ones."""
    return np.asarray(array).astype(complex).view(Stepped)
