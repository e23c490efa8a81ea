"""Bounds found in a few passes: those that the rules give one after another, and given up where these are needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from backproof.reference import fused
from backproof.reference.fused import normalized_exp, weighted_difference
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded

CLOSE = 2.0**-18  # the largest of some quotients near 1 stands for each of them
TINY = 2.0**-20
each_precision = pytest.mark.parametrize("name", PRECISIONS)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Tell of each call whether it took the short way."""
    taken: list[bool] = []

    def watched(function: Any) -> Any:
        def called(*args: Any) -> Any:
            found = function(*args)
            taken.append(found is not None)
            return found

        return called

    for name in ("_normalized_exp", "_weighted_difference"):
        monkeypatch.setattr(fused, name, watched(getattr(fused, name)))
    return taken


def drawn(arithmetic: Arithmetic, shape: tuple[int, ...], seed: int, blur: float = 0.0, scale: float = 1.0) -> Rounded:
    """Balls of normal numbers in the format, exact or with bounds up to blur times the unit roundoff."""
    rng = np.random.default_rng(seed)
    held = arithmetic.precision.held(rng.standard_normal(shape) * scale)
    return Rounded(held, rng.random(shape) * blur * arithmetic.precision.store if blur else np.zeros(()), arithmetic)


def same(found: Rounded, expected: Rounded, more: float = CLOSE) -> None:
    """Assert that a ball has the centre and the bound of another, which is at most so much smaller."""
    assert found.arithmetic is expected.arithmetic
    assert np.array_equal(found.magnitude, np.abs(found.value))
    assert np.abs(found.value - expected.value).max() <= 2.0**-50 * np.abs(expected.value).max()
    assert (found.bounds() >= expected.bounds() * (1 - 2.0**-40)).all()
    assert (found.bounds() <= expected.bounds() * (1 + more)).all()


def one_by_one(x: Rounded, top: Rounded, axis: int, seen: Any) -> tuple[Rounded, Rounded]:
    if seen is None:
        e: Any = np.exp(x - top)
        total = np.sum(e, axis=axis, keepdims=True)
        return e / total, total
    e = np.where(seen, np.exp(np.where(seen, x, top) - top), 0)
    total = np.sum(e, axis=axis, keepdims=True)
    return np.where(seen, e / np.where(seen.any(axis=axis, keepdims=True), total, 1), 0), total


def top_of(x: Rounded, axis: int, seen: Any = None) -> Rounded:
    numbers = x.value if seen is None else np.where(seen, x.value, np.min(x.value))
    return x.arithmetic.exact(np.max(numbers, axis=axis, keepdims=True))


@each_precision
@pytest.mark.parametrize("blur", [0.0, 4.0])
@pytest.mark.parametrize("axis", [-1, 1])
def test_weights_have_the_bound_of_their_rules(name: str, blur: float, axis: int, short: list[bool]) -> None:
    """Rows of a few and of many numbers, exact and not."""
    arithmetic = Arithmetic(PRECISIONS[name])
    for shape in ((2, 3, 5), (1, 40, 1), (3, 1, 64)):
        x = drawn(arithmetic, shape, 1, blur / 8 if PRECISIONS[name].store > 2.0**-10 else blur)
        weights, total = normalized_exp(x, top_of(x, axis), axis)
        expected = one_by_one(x, top_of(x, axis), axis, None)
        same(weights, expected[0], 2.0**-8 if PRECISIONS[name].wide else CLOSE)
        same(total, expected[1])
    assert short
    assert all(short) or PRECISIONS[name].wide


@pytest.mark.parametrize("blur", [0.0, 4.0])
def test_weights_of_what_is_seen(blur: float, short: list[bool]) -> None:
    """What is not seen has the weight 0 and takes no part, whatever it is, and a row of which nothing is seen has no weights."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = drawn(arithmetic, (4, 6), 2, blur)
    seen = np.random.default_rng(3).random((4, 6)) < 0.6
    seen[2], seen[:, 0] = False, True
    seen[2, 0] = False
    x.value[~seen] = 3.0
    weights, total = normalized_exp(x, top_of(x, -1, seen), -1, seen)
    expected = one_by_one(x, top_of(x, -1, seen), -1, seen)
    assert short == [True]
    same(weights, expected[0])
    assert not weights.value[~seen].any()
    assert not weights.bound[~seen].any()
    rows = [0, 1, 3]
    same(total[rows], expected[1][rows])
    assert total.value[2] == 1


def test_weights_of_other_arrays_and_of_wide_balls(short: list[bool]) -> None:
    """Along any axis: plain numbers, of which some are seen, and balls that must take the rules."""
    x = np.random.default_rng(4).standard_normal((3, 4, 2))
    seen = np.random.default_rng(5).random((4, 1)) < 0.5
    seen[0], seen[1] = True, False
    e = np.exp(x - 2.0) * seen
    weights, total = normalized_exp(x, 2.0, -2, seen)
    assert np.abs(total - e.sum(axis=1, keepdims=True)).max() <= 2.0**-50
    assert np.abs(weights - e / total).max() <= 2.0**-50
    assert np.array_equal(weights != 0, np.broadcast_to(seen, x.shape))
    nothing, length = normalized_exp(np.full((2, 3), 2.0), 2.0, -1, np.array([[False], [True]]))
    assert nothing.tolist() == [[0] * 3, [1 / 3] * 3]
    assert length.tolist() == [[3], [3]]
    rows = np.random.default_rng(6).random((2, 3, 1)) < 0.7
    rows[0], rows[1, 1] = True, False
    y = np.broadcast_to(np.arange(3.0)[:, None], (2, 3, 4)).copy()
    y[1, 1] = 800.0  # would overflow, and is not seen
    assert not normalized_exp(y, 2.0, 1, rows)[0][1, 1].any()
    arithmetic = Arithmetic(PRECISIONS["float32"])
    wide = Rounded(np.zeros((2, 3)), np.full((2, 3), 0.25), arithmetic)
    mask = np.array([[True, False, True], [False, False, False]])
    balls, totals = normalized_exp(wide, arithmetic.exact(np.zeros((2, 1))), -1, mask)
    assert short == [False]
    expected, sums = one_by_one(wide, arithmetic.exact(np.zeros((2, 1))), -1, mask)
    assert np.array_equal(balls.value, expected.value)
    assert np.array_equal(balls.bounds()[0], expected.bounds()[0])
    assert np.array_equal(totals.bounds()[0], sums.bounds()[0])
    assert totals.value.tolist() == [[2], [3]]


@pytest.mark.parametrize(("length", "taken"), [(1000, True), (16_384, False), (20_000, False)])
def test_weights_of_so_many_that_a_reciprocal_underflows(length: int, taken: bool, short: list[bool]) -> None:
    """Past the reciprocal of the smallest normal number, 2^14 in float16, what 1 / total loses is the quotient's rule to say."""
    x = Arithmetic(PRECISIONS["float16"]).exact(np.zeros((1, length)))
    weights, _ = normalized_exp(x, top_of(x, -1), -1)
    assert short == [taken]
    assert (weights.bound >= one_by_one(x, top_of(x, -1), -1, None)[0].bound * (1 - 2.0**-40)).all()


def test_weights_that_need_the_rules(short: list[bool]) -> None:
    """A ball too wide for the expansion, numbers too far apart, NaN, a top that is none, and nothing at all."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    wide = Rounded(np.zeros((1, 3)), np.full((1, 3), 0.25), arithmetic)
    far = arithmetic.exact(np.array([[0.0, -1e30, 3e38]]))
    lost = arithmetic.exact(np.array([[0.0, np.nan, 1.0]]))
    below = arithmetic.exact(np.array([[0.0, -1.0, -2.0]]))
    for x, top in ((wide, top_of(wide, -1)), (far, top_of(far, -1)), (lost, arithmetic.exact(np.zeros((1, 1)))),
                   (below, arithmetic.exact(np.full((1, 1), 2.0))), (below, arithmetic.exact(np.full((1, 1), -150.0)))):
        weights, total = normalized_exp(x, top, -1)
        expected = one_by_one(x, top, -1, None)
        assert np.array_equal(weights.bounds(), expected[0].bounds())
        assert np.array_equal(total.bounds(), expected[1].bounds())
    assert short == [False] * 5
    empty = arithmetic.exact(np.zeros((0, 3)))
    assert normalized_exp(empty, arithmetic.exact(np.zeros((0, 1))), -1)[0].shape == (0, 3)
    blurred = Rounded(np.zeros((1, 1)), np.full((1, 1), TINY), arithmetic)
    normalized_exp(below, blurred, -1)
    assert short == [False] * 5


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_weights_hold_what_is_computed(precision: str) -> None:
    """Numbers of the format through the steps, each stored, are inside, and not by far."""
    kind = PRECISIONS[precision]
    x = np.random.default_rng(5).standard_normal((50, 16)).astype(kind.dtype)
    ball = Arithmetic(kind).exact(x)
    weights, _ = normalized_exp(ball, top_of(ball, -1), -1)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    found = (e / e.astype(np.float32).sum(axis=-1, keepdims=True).astype(kind.dtype)).astype(np.float64)
    excess = np.abs(found - weights.value) / weights.radius()
    assert 0.02 < excess.max() <= 1


@each_precision
@pytest.mark.parametrize("blurs", [(0.0, 0.0), (3.0, 0.0), (0.0, 3.0), (3.0, 5.0)])
@pytest.mark.parametrize("factor", [None, 0.3, (0.7, 2.0**-9), 3.0])
def test_differences_have_the_bound_of_their_rules(name: str, blurs: tuple[float, float], factor: Any, short: list[bool]) -> None:
    """Exact numbers and others, with a factor that is exact, rounded, known by a ball, and none."""
    arithmetic = Arithmetic(PRECISIONS[name])
    weight, x = (drawn(arithmetic, (3, 8), seed, blur) for seed, blur in enumerate(blurs))
    by = 1 if factor is None else Rounded(*map(np.asarray, factor), arithmetic) if isinstance(factor, tuple) else factor
    for m in (drawn(arithmetic, (3, 1), 7, 2.0), drawn(arithmetic, (3, 1), 7)):
        found, expected = weighted_difference(weight, x, m, by), weight * (x - m) * by
        same(found, expected, 2.0**-30)
    assert short == [True, True]


@pytest.mark.parametrize("numbers", [
    ([1.0, 2.0], [3e38, 1.0], [-3e38], 1.0), ([0.0, 2.0], [3e38, 1.0], [-3e38], 1.0), ([1e30, 2.0], [1e30, 1.0], [0.0], 2.0**-100),
    ([1.0, 2.0], [np.nan, 1.0], [0.0], 1.0), ([1.0, 2.0], [1.0, 1.0], [0.0], 0.0), ([1e30, 1.0], [1e8, 1.0], [0.0], 3.0),
])
def test_differences_that_need_the_rules(numbers: Any, short: list[bool]) -> None:
    """What may overflow on the way, though the result does not, is unknown; so is what is not a number."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    weight, x, m, factor = (arithmetic.exact(np.array(one)) for one in numbers)
    found, expected = weighted_difference(weight, x, m, factor), weight * (x - m) * factor
    assert short == [False]
    assert np.array_equal(found.bounds(), expected.bounds())


@pytest.mark.parametrize(("share", "taken"), [(0.1, True), (0.22, False)])
def test_differences_near_overflow(share: float, taken: bool, short: list[bool]) -> None:
    """With a factor above 1 the product must be as far from overflow as the result."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    weight, x, m = (arithmetic.exact(np.array([one])) for one in (1.0, float(np.float32(share * arithmetic.safe)), 0.0))
    weighted_difference(weight, x, m, 3.0)
    assert short == [taken]


def test_differences_of_other_arrays(short: list[bool]) -> None:
    """Plain numbers and a weight that broadcasts take the expression."""
    weight, x = np.array([1.0, 2.0]), np.array([5.0, 7.0])
    assert weighted_difference(weight, x, np.array(3.0), 2.0).tolist() == [4, 16]
    arithmetic = Arithmetic(PRECISIONS["float32"])
    assert weighted_difference(arithmetic.exact(weight), x, 3.0, 2.0).value.tolist() == [4, 16]
    assert weighted_difference(arithmetic.exact(weight[:1]), arithmetic.exact(x), arithmetic.exact([3.0])).value.tolist() == [2, 4]
    assert not short
