"""Arrays of a complex step carry it through branches, and raise where a function is not analytic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backproof.truth.complex_step import STEP, NotAnalyticError, stepped


def test_complex_steps_pass_through_what_has_branches() -> None:
    """|x|, its sign, log(1 + x) and log(e^x + e^y) of a complex step have the derivative of the real function."""
    x = stepped([-1e-30, 2.0]) + 1j * STEP
    cases: tuple[tuple[Any, list[float]], ...] = (
        (np.abs, [-1, 1]), (np.sign, [0, 0]), (np.log1p, [1, 1 / 3]), (lambda v: np.logaddexp(v, 0), [0.5, 1 / (1 + np.exp(-2))]))
    for function, slopes in cases:
        assert np.asarray(function(x)).imag / STEP == pytest.approx(slopes)
    with pytest.raises(NotAnalyticError, match="real part"):
        np.real(x)
