"""Extrapolated differences: their error estimates hold, also where they diverge."""

from __future__ import annotations

import numpy as np
import pytest
from backproof.truth.differences import amplification, differences


def test_differences_that_diverge_are_known_as_such() -> None:
    """At an infinite derivative no number is given; at a jump of the second derivative the error covers what is left."""
    (_,), (error,) = differences(lambda t, _: np.sign(t) * np.sqrt(np.abs(t)), np.array([0.25]), 1e-16)
    assert error == np.inf
    (value,), (error,) = differences(lambda t, _: t + np.where(t > 0, t * t, 0), np.array([0.25]), 1e-16)
    assert 0 < abs(value - 1) <= error


@pytest.mark.parametrize(("order", "side"), [(8, 0), (4, 1), (4, -1)])
def test_the_amplification_bounds_what_rounding_does_to_differences(order: int, side: int) -> None:
    """Differences of pure noise stay below noise times the sum of the weights over the step, and come near."""
    from scipy.differentiate import derivative

    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        result = derivative(lambda x: rng.choice([-1.0, 1.0], x.shape), np.zeros(1), initial_step=1.0, maxiter=1, order=order,
                            step_direction=side)
        found.append(abs(float(result.df[0])))
    assert 0.5 * amplification(order, side) < max(found) <= 1.0001 * amplification(order, side)
