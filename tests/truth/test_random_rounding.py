"""Random rounding: the errors have the size of rounding, and what is exact stays exact."""

from __future__ import annotations

import numpy as np
from backproof.truth.random_rounding import Noisy, NoisyStep, Step, drawn, errors, nudged


def test_nudged_numbers_keep_what_is_special() -> None:
    """Zeros, knees and ties stay; other numbers move, and upstream gradients one by one."""
    a = np.array([0.0, 1.0, -6.0, 0.3, 0.3, -0.3])
    moved = nudged(a, 0, 1e-3)
    assert (moved[:3] == a[:3]).all()
    assert moved[3] == moved[4] == -moved[5] != 0.3
    assert len(set(nudged(a, 0, 1e-3, every=True)[3:])) == 3


def test_random_errors_have_the_size_of_rounding() -> None:
    """An operation is off by a part of its result, a sum by a part of its terms' magnitudes; what only moves or compares is exact."""
    rng = np.random.default_rng(0)
    plain = rng.standard_normal(1000) * 2.0 ** rng.integers(-30, 30, 1000)
    with errors(1, 1e-6):
        noisy = plain.view(Noisy)
        for exact in (np.maximum(noisy, 0), -noisy, np.abs(noisy), np.sort(noisy), noisy[::2], np.where(noisy > 0, noisy, 1)):
            assert type(exact) is Noisy
        assert np.array_equal(np.abs(noisy), np.abs(plain))
        product = np.asarray(noisy * 3.0) / (3 * plain) - 1
        assert 0.9e-6 < np.max(np.abs(product)) <= 1.001e-6
        assert np.array_equal(noisy * 3.0, noisy * 3.0)  # what is computed twice is the same
        ones = np.concatenate([np.ones(500), -np.ones(500)]).view(Noisy)
        for total in (np.sum(ones), ones.sum(), ones @ np.ones(1000), ones.dot(np.ones(1000)), np.einsum("i,i->", ones, np.ones(1000))):
            assert abs(float(total)) <= 1e-3
        assert float(np.sum(ones)) == 0.0 or abs(float(np.sum(ones))) > 1e-6
        buffer = np.zeros(1000)
        buffer += noisy
        assert np.max(np.abs(buffer / plain - 1)) > 0.9e-6
        assert np.array_equal(noisy[3] + 0.0, (noisy + 0.0)[3])
    spread = drawn(rng.standard_normal(10000), 3)
    assert abs(np.mean(spread)) < 0.05
    assert spread.min() < -0.99
    assert spread.max() > 0.99


def test_a_float_of_a_complex_step_is_remembered() -> None:
    """float() of a stepped number gives its real part, and keeps the whole."""
    assert float(np.array(2 + 3e-30j).view(Step)) == 2.0
    assert Step.last == 2 + 3e-30j


def test_a_complex_step_has_random_errors_in_both_parts() -> None:
    """Each part of a stepped number is off by a part of its own magnitude, so that the slope's error is the slope's."""
    plain = np.linspace(1, 2, 50) + 1e-30j * np.linspace(3, 4, 50)
    with errors(1, 1e-6):
        noisy = plain.view(NoisyStep) + 0.0
    assert type(noisy) is NoisyStep
    for part in (np.real, np.imag):
        assert 0.5e-6 < np.max(np.abs(part(np.asarray(noisy)) / part(plain) - 1)) <= 1.001e-6
