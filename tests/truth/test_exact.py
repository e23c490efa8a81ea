"""Exact numbers: rationals with a derivative, and arbitrary-precision balls."""

from __future__ import annotations

import numpy as np
import pytest
from backproof.truth.exact import Ball, BallArray, Dual, balls, duals


def test_exact_numbers_never_turn_into_floats() -> None:
    """Writing a ball or a dual number into an array of floats raises, whatever it would lose."""
    for number in (Ball(2), Dual.of(2)):
        out = np.zeros(2)
        with pytest.raises((TypeError, ValueError)):
            out[0] = number
    assert isinstance(np.exp(np.where(np.array([True, False]), 0, balls([1.0, 2.0])))[0], Ball)
    assert isinstance(balls([1.0]) + np.ones(1), BallArray)


def test_dual_numbers_differentiate() -> None:
    """Sums, products, quotients, powers and constants of floats keep the slope exactly; comparisons see the value."""
    x = Dual.of(3) + duals([0])[0]
    x = Dual(x.value, x.value / 3)  # slope 1
    assert ((x * x - 1) / (2 * x + 1) - 0.5).slope == (2 * 3 * 7 - 8 * 2) / Dual.of(49).value
    assert (x**3).slope == 27
    assert (2 / x).slope == -Dual.of(2).value / 9
    assert max(x, Dual.of(2)) == x == 3
    assert abs(-x).slope == 1
    with pytest.raises(TypeError, match=r"rationals are raised to whole powers only: got 0.5"):
        x**0.5
