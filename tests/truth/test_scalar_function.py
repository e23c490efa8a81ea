"""The derivatives of a scalar function of named arrays, from evaluations alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.truth.brackets import Brackets
from backproof.truth.complex_step import stepped
from backproof.truth.differences import LONGEST
from backproof.truth.scalar_function import ScalarFunction

ARRAYS = {"W": np.array([[0.5, -1.5], [2.0, 0.25]]), "b": np.array([1.5])}


class Given(ScalarFunction):
    """A function of the arrays W and b as a test writes it."""

    def __init__(self, function: Callable[[Any, Any], Any], arrays: dict[str, np.ndarray] = ARRAYS) -> None:
        super().__init__(arrays, np.random.default_rng(0))
        self.function = function
        self.base, self.noise = self.value(self.z), 1e-15

    def value(self, z: np.ndarray) -> float:
        return float(self.function(**self.named(z)))

    def imaginary(self, z: np.ndarray) -> float:
        return float(np.asarray(self.function(**{name: stepped(a) for name, a in self.named(z).items()})).imag)

    def first_step(self, by: np.ndarray) -> float:
        return LONGEST


def smooth(W: Any, b: Any) -> Any:
    return np.sum(np.exp(W) * np.sin(b))


def broken(W: Any, b: Any) -> Any:
    """Return |W|^2 + b with a modulus that is wrong for complex numbers."""
    return np.sum(np.abs(np.asarray(W)) ** 2) + np.sum(b)


def ramp(W: Any, b: Any) -> Any:
    return np.sum(np.maximum(W - 0.5, 0) * 3) + np.sum(b)


def test_arrays_and_vectors_correspond() -> None:
    """Every entry has its place; a direction of one array is 0 in all others, and nowhere near 0 in its own."""
    function = Given(smooth)
    assert {name: a.tolist() for name, a in function.named(function.z).items()} == {name: a.tolist() for name, a in ARRAYS.items()}
    assert function.embedded("b", np.array([7.0])).tolist() == [0, 0, 0, 0, 7]
    by = np.abs(function.direction("W"))
    assert by[4] == 0
    assert 1 <= by[:4].min() <= by[:4].max() < 2


def test_complex_step_and_differences_agree() -> None:
    """Along a direction, entry by entry, and at another point than the given one."""
    function = Given(smooth)
    by = function.direction("W", "b")
    gradient = np.concatenate([(np.exp(ARRAYS["W"]) * np.sin(1.5)).ravel(), [np.sum(np.exp(ARRAYS["W"])) * np.cos(1.5)]])
    assert function.step(by) == pytest.approx(gradient @ by)
    slope, error = function.along(by)
    assert abs(slope - gradient @ by) <= error < 1e-7
    values, errors = function.by_entries(range(5))
    assert (np.abs(values - gradient) <= errors).all()
    beside = function.z + 0.5 * by
    slope, error = function.along(by, point=beside)
    assert abs(slope - function.step(by, beside)) <= error < 1e-6


def test_a_wrong_complex_step_is_contradicted() -> None:
    """Differences contradict the complex step of a modulus of complex numbers, and no step that is right."""
    for function, wrong in ((Given(smooth), False), (Given(broken), True)):
        for _ in range(5):
            by = function.direction("W")
            assert function.contradicts(by, function.step(by), 1e-12) is wrong
            assert function.contradicts(by, function.step(by) * (1 + 1e-5), 1e-12)
            assert not function.contradicts(by, function.step(by), 1e3)


def test_a_kink_is_seen_from_both_sides() -> None:
    """One-sided derivatives differ at the knee alone, and the limits from all sides bracket them."""
    function = Given(ramp)
    apart, both = function.one_sided(range(5))
    assert apart.tolist() == [True, False, False, False, False]
    assert all(abs(values[0] - slope) <= errors[0] < 0.1 for (values, errors), slope in zip(both, (0, 3), strict=True))
    assert function.turns(function.unit(0))
    assert not function.turns(function.unit(2))
    ranges = Brackets(5)
    for side in function.sides([("W", "b"), ("W",)], 2):
        ranges.add(np.arange(5), *function.limit(lambda z, _: (np.array([function.step(function.unit(k), z) for k in range(5)]),
                                                               np.zeros(5)), side))
    assert ranges.apart.tolist() == apart.tolist()
    low, high = ranges.at_kinks()
    assert (low[0], high[0]) == (0, 3)


def test_sides_are_approached_both_ways() -> None:
    """Each group of arrays and each random direction comes with its opposite; a group of no arrays is left out."""
    sides = Given(smooth).sides([("W",), (), ("W", "b")], 3)
    assert len(sides) == 10
    assert all((there == -back).all() for there, back in zip(sides[::2], sides[1::2], strict=True))
    assert sides[0].tolist() == [1, 1, 1, 1, 0]
