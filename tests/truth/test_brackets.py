"""Ranges of one-sided derivatives: where they do not meet there is a kink, and what lies between is right."""

from __future__ import annotations

import numpy as np
from backproof.truth.brackets import Brackets


def bracketed(*ranges: tuple[float, float]) -> Brackets:
    """Return the ranges of one entry, each a value and its error."""
    brackets = Brackets(1)
    for value, error in ranges:
        brackets.add(np.arange(1), np.array([value]), np.array([error]))
    return brackets


def test_ranges_that_meet_show_no_kink() -> None:
    """Ranges with a common number give no ends, and none at all neither."""
    for brackets in (bracketed(), bracketed((1.0, 0.1)), bracketed((1.0, 0.1), (1.1, 0.05), (0.95, 0.1))):
        assert not brackets.apart[0]
        assert np.isnan(brackets.at_kinks()).all()


def test_a_kink_is_the_hull_of_all_ranges() -> None:
    """Two ranges that do not meet give the ends of all ranges, errors included."""
    brackets = bracketed((0.0, 0.01), (1.0, 0.02), (1.0, 0.01))
    assert brackets.apart[0]
    assert brackets.at_kinks() == brackets.hull == (np.array([-0.01]), np.array([1.02]))


def test_a_third_derivative_between_two_others_leaves_the_entry_open() -> None:
    """Where several kinks meet, not every limit is looked at, so that nothing is called wrong."""
    assert bracketed((0.0, 0.01), (1.0, 0.01), (0.5, 0.01)).at_kinks() == (np.array([-np.inf]), np.array([np.inf]))


def test_a_range_that_is_not_finite_says_nothing() -> None:
    """NaN and infinite errors are left out; other entries have ranges of their own."""
    brackets = Brackets(2)
    brackets.add(np.arange(2), np.array([0.0, 2.0]), np.array([0.1, 0.1]))
    brackets.add(np.arange(2), np.array([np.nan, 3.0]), np.array([0.0, np.inf]))
    assert not brackets.apart.any()
    brackets.add(np.arange(1, 2), np.array([5.0]), np.array([0.1]))
    assert brackets.apart.tolist() == [False, True]
