"""The bounds of groups are those derived in `moments_bounds` and `normalization_bounds`, worked out here once more, group by group."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from backproof.reference import moments_bounds
from backproof.reference.direction import Directed
from backproof.reference.moments import Standardised, given, root_mean_square, standardised
from backproof.reference.rounding import BOUND_SLACK, FLOAT32_LARGEST, PRECISIONS, Arithmetic, Rounded, either

EPS = 1e-5
N = 5
Ball = Any


class Group:
    """One group of n entries, whose statistics and results are bounded step by step: pairs of numbers and bounds, one after the other."""

    def __init__(self, arithmetic: Arithmetic, x: Ball, *, centred: bool = True) -> None:
        self.arithmetic, self.precision = arithmetic, arithmetic.precision
        self.u, self.tiny, self.n = arithmetic.roundoff, self.precision.underflow, x.shape[-1]
        self.x, self.centred = (x.value, x.bounds()), centred
        self.largest = FLOAT32_LARGEST if self.precision.wide else self.precision.largest
        self.mean = self.average(*self.x, 6 + math.ceil(3 * math.log(self.n))) if centred else (np.zeros(1), np.zeros(1))
        self.rstd = self.root(*self.variance())
        self.finish()

    def few(self, roundings: float) -> float:
        return self.gamma(roundings, min(self.precision.accumulate, self.precision.store) + 2.0**-53)

    def gamma(self, roundings: float, unit: float) -> float:
        return roundings * unit / (1 - roundings * unit)

    def average(self, value: Ball, bound: Ball, more: int = 2) -> Ball:
        if self.n == 1:
            return value[0], bound[0]
        mean, spread = np.array([value.sum() / self.n]), np.array([bound.sum() / self.n])
        size = np.array([np.abs(value).sum() / self.n]) + spread
        off = spread + self.few(self.n + more) * size + self.tiny
        if self.precision.wide:
            off = off + (np.abs(mean) + off) * self.arithmetic.quotient + self.tiny
        return mean, np.where((self.n * size + off) * BOUND_SLACK <= self.largest, off, np.inf)

    def variance(self) -> Ball:
        (x, b), (mean, mean_b) = self.x, self.mean
        d = x - mean
        value, spread = np.array([(d * d).sum() / self.n]), np.array([((2 * np.abs(d) + b) * b).sum() / self.n])
        most, moved = value + spread, np.zeros(1)
        if self.centred:
            summed = self.few(self.n + math.ceil(6 + 3 * math.log(self.n))) * (np.abs(x) + b).sum() / self.n if self.n > 1 else 0
            moved = 2 * summed * np.sqrt(2 * most) + mean_b**2
        stored = 5 * self.precision.store if self.precision.wide else 0
        off = spread + moved + (self.few(self.n + 4) + stored) * (most + moved) + 2 * self.tiny
        return value, np.where(self.n * (most + off) * BOUND_SLACK <= self.largest, off, np.inf)

    def root(self, value: Ball, bound: Ball) -> Ball:
        total, off = value + EPS, bound + self.arithmetic.lift(EPS).bound
        off = off + (total + off) * self.u + self.tiny
        ball = 1 / np.sqrt(Rounded(total, off, self.arithmetic))
        return ball.value, ball.bounds()

    def finish(self) -> None:
        (x, b), (mean, mean_b), (rstd, rstd_b) = self.x, self.mean, self.rstd
        d, self.r, twice = x - mean, rstd + rstd_b, self.u * (2 + self.u)
        self.reach = np.abs(x) + b + np.abs(mean) + mean_b
        off = np.abs(d) * (rstd_b + self.r * twice) + (b + mean_b) * self.r * (1 + twice) + self.tiny * (1 + 2 * self.r)
        self.unit = d * rstd, np.where(self.reach * (1 + twice) <= self.precision.largest / 2, off, np.inf)
        self.summed = self.unit[1] + (self.reach * self.few(self.n + 6) * self.r if self.centred else 0)

    def mapped(self, weight: Ball, bias: Ball) -> Ball:
        w, wb = (1.0, 0.0) if weight is None else (weight.value, weight.bounds())
        c, cb = (0.0, 0.0) if bias is None else (bias.value, bias.bounds())
        twice = 0 if weight is None and bias is None else self.gamma(2, self.u)
        (h, hb), most, most_c = self.unit, np.abs(w) + wb, np.abs(c) + cb
        off = hb * most * (1 + twice) + np.abs(h) * (wb + most * twice) + most_c * (twice + self.few(4)) + cb + 4 * self.tiny
        return h * w + c, off + self.reach * (self.tiny + (self.few(4) * self.r * most if self.centred else 0))

    def weighted(self, dy: Rounded) -> Ball:
        terms = dy * Rounded(self.unit[0], self.summed, self.arithmetic)
        return terms.value, terms.bounds() + self.tiny * self.r

    def pulled(self, dy: Rounded, weight: Rounded | None) -> Ball:
        ball = dy if weight is None else dy * weight
        g, gb, w = ball.value, ball.bounds(), 0 if weight is None else np.abs(weight.value) + weight.bounds()
        (mean, mean_b) = self.average(g, gb) if self.centred else (np.zeros(1), np.zeros(1))
        (along, along_b) = self.average(*self.weighted(ball))
        (h, hb), (rstd, rstd_b), p = self.unit, self.rstd, np.abs(along) + along_b
        value, stored = rstd * (g - mean - h * along), self.gamma(8, self.u) * self.r
        off = stored * (np.abs(mean) + mean_b) + self.r * mean_b + 4 * self.tiny * (1 + w) * (1 + self.r)
        off = off + np.abs(g) * (stored + self.tiny) + gb * (self.r + stored + self.tiny) + np.abs(value) * rstd_b / rstd
        off = off + np.abs(h) * (stored * p + self.r * along_b) + hb * (self.r + stored) * p + self.reach * self.tiny
        if self.centred:
            off = off + self.r * self.few(self.n + 2) * p + stored * p + self.reach * self.few(6) * self.r**2 * p
        return value, off


def drawn(arithmetic: Arithmetic, seed: int, scale: float, part: float) -> Rounded:
    """Return a group of numbers with bounds of a part of their size, none of them close to 0."""
    rng = np.random.default_rng(seed)
    numbers = arithmetic.precision.held((0.5 + rng.random((1, N))) * rng.choice([-1, 1], size=(1, N)) * scale)
    return Rounded(numbers, np.abs(numbers) * part if part else np.zeros(()), arithmetic)


def equal(found: Rounded, wanted: Ball) -> bool:
    """Say whether value and bound are the same but for our own rounding."""
    assert isinstance(found.arithmetic, Arithmetic)
    return all(bool((np.abs(a - b) <= 2.0**-44 * np.abs(b)).all()) for a, b in zip((found.value, found.bounds()), wanted, strict=True))


every_setting = pytest.mark.parametrize(("precision", "scale", "part"), [
    ("float32", 1.0, 0.0), ("float32", 1.0, 1e-6), ("float32", 1e-30, 1e-6), ("float32", 3e-34, 1e-6), ("bfloat16", 8.0, 1e-3),
    ("float32", 3e-34, 0.0), ("bfloat16", 8.0, 0.0),
    ("float16", 1.0, 0.0), ("float16", 1.0, 1e-3),
])
every_kind = pytest.mark.parametrize("centred", [True, False], ids=["standardised", "root mean square"])


def both(arithmetic: Arithmetic, scale: float, part: float, *, centred: bool) -> tuple[Standardised, Group]:
    x = drawn(arithmetic, 1, scale, part)
    return (standardised if centred else root_mean_square)(x, (1,), EPS), Group(arithmetic, x, centred=centred)


@every_kind
@every_setting
def test_statistics_have_the_bounds_derived(precision: str, scale: float, part: float, *, centred: bool) -> None:
    """Mean, 1 / sqrt(variance + eps), the standardised entries and their bound in sums are the module's derivation."""
    found, group = both(Arithmetic(PRECISIONS[precision]), scale, part, centred=centred)
    assert (found.count, found.axes, found.constant) == (N, (1,), False)
    if found.mean is None:
        assert not centred
    else:
        assert equal(found.mean, group.mean)
    assert equal(found.rstd, group.rstd)
    assert equal(found.unit, group.unit)
    assert equal(found.summed, (group.unit[0], group.summed))
    assert (np.abs(found.reach - group.reach) <= 2.0**-44 * group.reach).all()


@every_kind
@every_setting
def test_results_have_the_bounds_derived(precision: str, scale: float, part: float, *, centred: bool) -> None:
    """y with and without weight and bias, the terms of the weight's gradient, and dx are the module's derivation."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    found, group = both(arithmetic, scale, part, centred=centred)
    weight, bias, dy = (drawn(arithmetic, seed, size, part) for seed, size in ((2, 2.0), (3, scale), (4, scale)))
    for w in (weight, None, weight[:, :1]):
        for b in (bias, None, bias[:, :1]):
            assert equal(found.affine(w, b), group.mapped(w, b))
        assert equal(found.pullback(dy, w), group.pulled(dy, w))
    assert equal(found.weighted(dy), group.weighted(dy))


@pytest.mark.parametrize("entries", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_small_groups_have_the_bounds_derived(precision: str, entries: int) -> None:
    """A group of one entry, whose mean is not rounded, and one of two have the variance's bound of the derivation too."""
    x = drawn(Arithmetic(PRECISIONS[precision]), 1, 1.0, 1e-3)[:, :entries]
    assert equal(standardised(x, (1,), EPS).rstd, Group(x.arithmetic, x).rstd)


@pytest.mark.parametrize("shared", [True, False], ids=["of the group", "of each entry"])
@every_setting
def test_given_statistics_allow_every_order_of_the_factors(precision: str, scale: float, part: float, *, shared: bool) -> None:
    """dy weight rstd may be multiplied in any order, each product of which may underflow."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    x, mean, variance, weight, dy = (drawn(arithmetic, seed, size, part) for seed, size in enumerate((scale, scale, 4.0, 2.0, scale)))
    if shared:
        mean, variance = mean[:, :1], variance[:, :1]
    found = given(x, (1,), mean, np.abs(variance), EPS)
    u, tiny, rstd = arithmetic.roundoff, PRECISIONS[precision].underflow, found.rstd
    assert found.constant
    root = 1 / np.sqrt(np.abs(variance) + EPS)
    assert equal(rstd, (root.value, root.bounds()))
    r = np.abs(rstd.value) + rstd.bounds()
    for w in (weight, None):
        g = dy if w is None else dy * w
        small = tiny * (1 + (0 if w is None else np.abs(w.value) + w.bounds()) * (1 + r))
        plain = g * rstd
        twice = 2 * u / (1 - 2 * u) * r * (np.abs(g.value) + g.bounds())
        off = plain.bounds() + twice + (np.abs(dy.value) + dy.bounds()) * tiny + small
        assert equal(found.pullback(dy, w), (plain.value, off))


def test_a_part_of_the_weight_may_be_shared() -> None:
    """With given statistics a weight of the group has the bound of one of each entry."""
    arithmetic = Arithmetic(PRECISIONS["float16"])
    x, dy, weight = (drawn(arithmetic, seed, 1.0, 0.0) for seed in range(3))
    one = arithmetic.exact(np.ones((1, 1)))
    found = given(x, (1,), one, one, EPS)
    assert near(found.pullback(dy, weight[:, :1]), found.pullback(dy, np.broadcast_to(weight[:, :1], (1, N))))


@pytest.mark.parametrize("part", [0.0, 1e-6])
def test_factors_of_which_two_may_overflow_leave_dx_unknown(part: float) -> None:
    """With given statistics dy weight rstd is unknown where any two of them pass the largest number, though all three do not."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, mean, reach = arithmetic.exact(np.zeros((1, 2))), arithmetic.exact(np.zeros((1, 1))), np.zeros((1, 2))

    def one(size: float, entries: int) -> Rounded:
        return Rounded(np.full((1, entries), size), np.full((1, entries), size * part) if part else np.zeros(()), arithmetic)

    for small in range(3):  # of dy, weight and rstd
        for factor, known in ((0.5, True), (3.3, True), (3.5, False)):
            sizes = [1e-15 if place == small else 1e19 * math.sqrt(factor) for place in range(3)]
            dy, weight, rstd = (one(size, entries) for size, entries in zip(sizes, (2, 2, 1), strict=True))
            unit = moments_bounds.standardised_entries(x, mean, rstd, reach, x.value - mean.value, (1,))
            groups = Standardised(2, (1,), mean, rstd, unit, unit, reach, constant=True)
            assert (groups.pullback(dy, weight).bounds() < np.inf).tolist() == [[known, known]]


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_exact_entries_with_other_gradients_have_the_bounds_of_their_steps(entries: int) -> None:
    """Where x is exact and dy or the weight is not, or a group has one entry, dx is bounded by the bounds of all of them."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = drawn(arithmetic, 0, 1.0, 0.0)[:, :entries]
    for make in (standardised, root_mean_square):
        fast = make(x, (1,), EPS)
        slow = Standardised(fast.count, (1,), fast.mean, fast.rstd, Rounded(fast.unit.value, fast.unit.bound, arithmetic),
                            Rounded(fast.summed.value, fast.summed.bound, arithmetic), fast.reach)
        for dy_part, weight_part in ((0.0, 0.0), (1e-3, 0.0), (0.0, 1e-3), (1e-3, 1e-3)):
            dy, weight = (drawn(arithmetic, seed, 1.0, part)[:, :entries] for seed, part in ((1, dy_part), (2, weight_part)))
            for w in (None, weight):
                assert near(fast.pullback(dy, w), slow.pullback(dy, w))
            for along in ((0,), (0, 1)):
                assert near(fast.gradient(dy, along), slow.gradient(dy, along))


def test_derivatives_of_standardised_entries_allow_the_fused_form() -> None:
    """Along a direction (x - mean) rstd is also x rstd - mean rstd; without a mean there is no such form."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, direction = np.array([[1.0, 2.0, 4.0], [8.0, 9.0, 7.0]]), np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 1.0]])
    moving = Directed.of(x, arithmetic, direction)
    centred, scaled = standardised(moving, (1,), EPS), root_mean_square(moving, (1,), EPS)
    fused = either((moving - centred.mean) * centred.rstd, moving * centred.rstd - centred.mean * centred.rstd)
    for found, wanted in ((centred.unit, fused), (scaled.unit, moving * scaled.rstd)):
        assert isinstance(found, Directed)
        for a, b in ((found.value, wanted.value), (found.derivative(), wanted.derivative())):
            assert equal(a, (b.value, b.bounds()))
    assert (fused.derivative().bounds() > ((moving - centred.mean) * centred.rstd).derivative().bounds()).all()


# Numbers that may not fit.


@pytest.mark.parametrize(("precision", "largest"), [("float32", FLOAT32_LARGEST), ("float16", FLOAT32_LARGEST),
                                                    ("float64", float(np.finfo(np.float64).max))])
@pytest.mark.parametrize(("part", "known"), [(0.99, True), (0.9999999, False), (1.01, False)])
def test_sums_are_known_up_to_the_largest_number(precision: str, largest: float, part: float, known: bool) -> None:
    """A mean is unknown once the sum, or what it is off by, may pass the largest number: of float32 where sums are wide."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    x = Rounded(np.array([[-0.25, 0.5, -0.25]]) * largest * part, np.zeros(()), arithmetic)
    assert bool((moments_bounds.average(x, (1,)).bounds() < np.inf).all()) == known
    wide = Rounded(np.array([[-0.15, 0.3, -0.15]]) * largest, np.array([[0.09, 0.18, 0.09]]) * largest, arithmetic)
    assert np.isinf(moments_bounds.average(wide, (1,)).bounds()).all()  # 0.96 of the largest number, and 0.12 for what it is off by
    assert moments_bounds.average(x, (1,)).arithmetic is arithmetic
    square = Rounded(np.array([[-0.25, 0.5, -0.25]]) * math.sqrt(part / 0.375) * math.sqrt(largest), np.zeros(()), arithmetic)
    assert bool((moments_bounds.variance_bounds(square, None, (1,))[1] < np.inf).all()) == known


@pytest.mark.parametrize(("precision", "largest", "part", "known"), [
    ("float32", FLOAT32_LARGEST, 0.4999, True), ("float32", FLOAT32_LARGEST, 0.50001, False), ("float16", 65504.0, 0.499, True),
    ("float16", 65504.0, 0.4999, False),
])
def test_a_difference_is_known_up_to_half_the_largest_number(precision: str, largest: float, part: float, known: bool) -> None:
    """x - mean may be stored, and so must fit the format."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    x = arithmetic.exact(np.array([[1.0, 2.0, part * largest]]))
    found = given(x, (1,), arithmetic.exact(np.zeros((1, 1))), arithmetic.exact(np.ones((1, 1))), EPS)
    assert list(found.unit.bounds()[0] < np.inf) == [True, True, known]


@pytest.mark.parametrize(("precision", "largest", "margin"), [("float32", FLOAT32_LARGEST, 1e-4), ("bfloat16", FLOAT32_LARGEST, 0.05),
                                                              ("float64", float(np.finfo(np.float64).max), 1e-4)])
@pytest.mark.parametrize(("centred", "part", "reach", "times"), [(True, 0.0, 0.0, 2.0), (True, 0.25, 0.0, 2.75), (True, 0.0, 1.0, 2.5),
                                                                 (False, 0.0, 1.0, 1.5), (False, 0.25, 0.0, 2.0)])
def test_terms_of_dx_that_may_overflow_leave_it_unknown(precision: str, largest: float, margin: float, centred: bool, part: float,
                                                        reach: float, times: float) -> None:
    """rstd times |dy|, the mean, unit and x times the projection, all times n, add up to the largest number at most, though they cancel."""
    arithmetic, rstd = Arithmetic(PRECISIONS[precision]), 4.0
    unit, mean = arithmetic.exact(np.array([[1.0, -1.0]])), arithmetic.exact(np.zeros((1, 1))) if centred else None
    groups = Standardised(2, (1,), mean, arithmetic.exact(np.full((1, 1), rstd)), unit, unit, np.full((1, 2), reach / rstd))
    for sign, known in ((1 - margin, True), (1 + margin, False)):
        size = largest / (2 * rstd * times) * sign
        dy = Rounded(np.array([[size, 0.0]]), np.array([[size, size]]) * part if part else np.zeros(()), arithmetic)
        assert (groups.pullback(dy, None).bounds() < np.inf).tolist() == [[known, True]]


def test_terms_of_dx_in_half_precision_live_in_float32() -> None:
    """A term that float16 cannot hold says nothing about a gradient that it can."""
    x, dy = (Arithmetic(PRECISIONS["float16"]).exact(np.array([numbers])) for numbers in ([2.0, 2.0, 2.0, 3.0], [50.0, 50.0, 50.0, 60.0]))
    for weight in (None, x):
        dx = standardised(x, (1,), EPS).pullback(dy * 128.0, weight)
        assert (dx.bounds() < np.inf).all()


def test_a_gradient_that_kernels_cannot_reach_is_unknown() -> None:
    """Of a constant group with a large gradient kernels return NaN, since rstd times it overflows, where dx is a number."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, ones = arithmetic.exact(np.full((2, 8), 3.0)), arithmetic.exact(np.ones((1, 8)))
    dy = arithmetic.exact(np.array([[1.2e36], [1.2e34]]) * np.ones((2, 8)))
    for weight in (None, ones):
        assert (standardised(x, (1,), EPS).pullback(dy, weight).bounds() < np.inf).tolist() == [[False] * 8, [True] * 8]


def test_results_that_may_overflow_are_unknown() -> None:
    """unit times a weight, with a bias added, is unknown where it passes the largest number, bound and all."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    groups = standardised(arithmetic.exact(np.array([[0.0, 0.0, 0.0, 1.0]])), (1,), EPS)  # the last of which is 1.7

    def known(weight: Rounded | None, bias: Rounded | None) -> list[bool]:
        return list(groups.affine(weight, bias).bounds()[0] < np.inf)

    large, one = (arithmetic.exact(np.full((1, 4), size)) for size in (2.5e38, 1.0))
    assert known(one, one) == known(None, None) == known(one, None) == [True] * 4
    assert known(large, None) == known(large, one) == [True] * 3 + [False]
    assert known(arithmetic.exact(np.full((1, 4), 1.5e38)), arithmetic.exact(np.full((1, 4), 2.5e38))) == [True] * 3 + [False]
    for reach, fits in ((3e38, True), (3.5e38, False)):
        assert known(one, Rounded(np.zeros((1, 4)), np.full((1, 4), reach), arithmetic)) == [fits] * 4


def test_results_without_a_mean_that_may_overflow_are_unknown() -> None:
    """The same where only a root mean square is divided by: there x a is the result itself."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    groups = root_mean_square(arithmetic.exact(np.array([[0.5, 0.5, 0.5, 1.75]])), (1,), EPS)  # the last of which is 1.79
    for size, fits in ((1.5e38, True), (2.5e38, False)):
        assert (groups.affine(arithmetic.exact(np.full((1, 4), size)), None).bounds()[0] < np.inf).tolist() == [True] * 3 + [fits]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16", "tf32"])
def test_the_fused_form_is_known_up_to_the_largest_number(precision: str) -> None:
    """x a may pass the largest number inside a kernel where |x| + |mean|, 1 / deviation and weight, twice rounded, do; y is far from it."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    groups = given(arithmetic.exact([[8.0], [8.25]]), (0,), arithmetic.exact([[8.0]]), arithmetic.exact([[1.0]]), EPS)
    largest = FLOAT32_LARGEST if PRECISIONS[precision].wide else PRECISIONS[precision].largest
    product = groups.reach * (np.abs(groups.rstd.value) + groups.rstd.bound) * (1 + arithmetic.gamma(2, arithmetic.roundoff))
    weights = [largest / product[0, 0] * (1 + part * 2.0**-20) for part in (-1, 1)]
    bounds = [groups.affine(Rounded(np.array([[weight]]), np.zeros(()), arithmetic), None).bounds()[0, 0] for weight in weights]
    assert np.isfinite(bounds).tolist() == [True, False]


def test_groups_of_numbers_whose_squares_may_overflow_are_unknown() -> None:
    """Sums of squares, of deviations with their bounds and of x itself, are known up to the largest number; other groups stay."""
    arithmetic = Arithmetic(PRECISIONS["float32"])

    def known_variance(x: Rounded) -> bool:
        mean, size = moments_bounds.average(x, (1,)), np.abs(x.value) + x.bounds()
        _, bound = moments_bounds.variance_bounds(x, mean, (1,), x.value - mean.value, size.mean(axis=1, keepdims=True))
        return bool((bound < np.inf).all())

    for part in (0.2, 0.3):  # of the largest number, what the square of two equal numbers is; that of their sum is four times as large
        assert known_variance(arithmetic.exact(np.full((1, 2), math.sqrt(part * FLOAT32_LARGEST)))) == (part < 0.25)
    for part in (0.25, 0.66):  # of a ball around 0, whose square counts as what may be there and as what that is off by
        reach = np.array([[math.sqrt(part * FLOAT32_LARGEST), 0.0]])
        assert known_variance(Rounded(np.zeros((1, 2)), reach, arithmetic)) == (part < 0.5)
    for part, known in ((0.9, True), (1.1, False)):
        x = arithmetic.exact(np.full((1, 1), math.sqrt(part * FLOAT32_LARGEST)))
        assert bool((standardised(x, (1,), EPS).rstd.bounds() < np.inf).all()) == known


def test_an_unknown_group_leaves_the_others_as_they_are() -> None:
    """A group whose statistics may overflow is unknown, numbers that cancel included, and no other."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    rows = arithmetic.exact(np.array([[1.0, 2.0], [1e30, 1e30]]))
    for found in (standardised(rows, (1,), EPS), root_mean_square(rows, (1,), EPS)):
        mean = 0 if found.mean is None else found.mean.value
        assert np.array_equal(found.unit.value, (rows.value - mean) * found.rstd.value)
        assert found.unit.bounds()[1].tolist() == found.summed.bounds()[1].tolist() == [math.inf] * 2
        assert (found.unit.bounds()[0] < 1e-5).all()


def test_a_difference_beside_one_that_may_overflow_is_known() -> None:
    """Each x - mean is known up to half the largest number, whatever the others are."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = arithmetic.exact(np.array([[1.0, 0.4999, 0.6]]) * FLOAT32_LARGEST)
    x.value[0, 0] = 1
    found = given(x, (1,), arithmetic.exact(np.zeros((1, 1))), arithmetic.exact(np.ones((1, 1))), EPS)
    assert (found.unit.bounds() < np.inf).tolist() == [[True, True, False]]


def test_a_weighted_gradient_that_overflows_leaves_dx_unknown() -> None:
    """dy weight may overflow where dx, multiplied by a small rstd, does not."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    groups = standardised(arithmetic.exact(np.array([[-1e5, 1e5]])), (1,), EPS)
    for size, known in ((1e15, True), (1e20, False)):
        dy, weight = arithmetic.exact(np.array([[size, 2 * size]])), arithmetic.exact(np.full((1, 2), size))
        assert (groups.pullback(dy, weight).bounds() < np.inf).tolist() == [[known, known]]


def test_a_weighted_gradient_that_overflows_beside_zero_leaves_its_entry_unknown() -> None:
    """The entry 0 of a group without a mean takes no part in the sums, but dy weight may overflow there as elsewhere."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    groups = root_mean_square(arithmetic.exact(np.array([[0.0, 1e5]])), (1,), EPS)
    for size, known in ((1e15, True), (1e20, False)):
        factor = arithmetic.exact(np.array([[size, 1.0]]))
        assert (groups.pullback(factor, factor).bounds()[0, 0] < np.inf) == known


def test_factors_of_dx_are_known_up_to_the_slack_of_bounds() -> None:
    """dy rstd may be what is left of the largest number once a bound may be off by its slack."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, mean, rstd = (arithmetic.exact(np.full(shape, size)) for shape, size in (((1, 2), 0.0), ((1, 1), 0.0), ((1, 1), 4.0)))
    groups = Standardised(2, (1,), mean, rstd, x, x, np.zeros((1, 2)), constant=True)
    weight = arithmetic.exact(np.full((1, 2), 2.0**-10))
    dy = arithmetic.exact(np.array([[1 - 2.0**-19, 1 - 2.0**-22]]) * FLOAT32_LARGEST / 4)
    assert (groups.pullback(dy, weight).bounds() < np.inf).tolist() == [[True, False]]


def test_what_may_be_anything_stays_unknown() -> None:
    """A bound that is not a number is infinite in all that follows, where the others stay finite."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = Rounded(np.array([[1.0, 2.0], [np.inf, 1.0]]), np.array([[0.0, 0.0], [np.nan, 0.0]]), arithmetic)
    found = standardised(x, (1,), EPS)
    for ball in (found.unit, found.summed, found.affine(None, None), found.pullback(arithmetic.exact(np.ones((2, 2))), None)):
        assert (ball.bounds() < np.inf).tolist() == [[True, True], [False, False]]
        assert not np.isnan(ball.bounds()).any()


def test_one_entry_is_its_own_mean_and_nothing_has_the_mean_zero() -> None:
    """Of a group of one entry the mean is that entry, bound and all; of an empty one it is 0."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    one = Rounded(np.array([[3.0]]), np.array([[0.25]]), arithmetic)
    found = standardised(one, (1,), EPS)
    assert found.mean is not None
    assert (found.mean.value.item(), found.mean.bounds().item()) == (3, 0.25)
    for empty in (np.zeros((2, 0)), arithmetic.exact(np.zeros((2, 0)))):
        mean = standardised(empty, (1,), EPS).mean
        assert mean is not None
        assert mean.shape == (2, 1)
        assert not np.any(getattr(mean, "value", mean))


def test_plain_numbers_have_no_bounds() -> None:
    """On plain arrays the entries are (x - mean) rstd, or x rstd, and as such go into sums."""
    x = np.random.default_rng(0).standard_normal((3, 4))
    for found, mean in ((standardised(x, (1,), EPS), x.mean(axis=1, keepdims=True)), (root_mean_square(x, (1,), EPS), None)):
        deviation = x if mean is None else x - mean
        rstd = 1 / np.sqrt((deviation**2).mean(axis=1, keepdims=True) + EPS)
        assert np.abs(found.rstd - rstd).max() < 2.0**-44
        assert np.abs(found.unit - deviation * rstd).max() < 2.0**-44
        assert found.summed is found.unit
        assert (found.count, found.axes, found.reach, found.constant) == (4, (1,), None, False)


@pytest.mark.parametrize(("precision", "scale"), [("float32", 8.0), ("float32", 2.0**-110), ("float64", 8.0), ("float16", 8.0)])
@pytest.mark.parametrize("shape", [(1, 1, N), (2, 1, 1), (1, 1, 1), (1, 3, 1), (2, 3, 1), (1, 3, N)])
@pytest.mark.parametrize("batch", [1, 2])
def test_sums_of_exact_numbers_have_the_bounds_of_their_terms(precision: str, scale: float, shape: tuple[int, ...], batch: int) -> None:
    """dx and the gradients of weight and bias are bounded by sums over a group as they are by the bounds of the entries, one by one."""
    arithmetic, axes = Arithmetic(PRECISIONS[precision]), (1, 2)
    rng = np.random.default_rng(0)
    x, dy, other = (arithmetic.exact(arithmetic.precision.held(rng.standard_normal((batch, 3, N)) * size)) for size in (8, scale, scale))
    weight = arithmetic.exact(arithmetic.precision.held(rng.standard_normal((min(shape[0], batch), *shape[1:]))))
    for make in (standardised, root_mean_square):
        fast = make(x, axes, EPS)
        slow = Standardised(fast.count, axes, fast.mean, fast.rstd, Rounded(fast.unit.value, fast.unit.bound, arithmetic),
                            Rounded(fast.summed.value, fast.summed.bound, arithmetic), fast.reach)
        for along in ((0,), (0, 2), (1, 2), (0, 1, 2)):
            for name in ("gradient", "total"):
                found, wanted = (getattr(groups, name)(dy, along) for groups in (fast, slow))
                assert near(found, wanted)
            assert near(fast.total(other, along), np.sum(other, axis=along))
        for w in (weight, None):
            assert near(fast.pullback(dy, w), slow.pullback(dy, w))
            assert near(fast.affine(w, None), slow.affine(w, None))


def near(found: Rounded, wanted: Rounded) -> bool:
    """Say whether two balls are the same but for our own rounding, which sums that cancel magnify."""
    assert found.shape == wanted.shape
    size = np.max(np.abs(wanted.value))
    values, bounds = np.abs(found.value - wanted.value), np.abs(found.bounds() - wanted.bounds())
    return bool((values <= 2.0**-44 * size).all() and (bounds <= 2.0**-40 * wanted.bounds()).all())


def test_large_numbers_are_bounded_one_by_one() -> None:
    """Where a sum over a group may overflow the gradients are unknown, as the terms are."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x, dy = (arithmetic.exact(np.array([[1.0, 2.0, 4.0]]) * scale) for scale in (1e15, 1e25))
    groups = standardised(x, (1,), EPS)
    assert np.isinf(groups.gradient(dy, (1,)).bounds()).all()
    assert np.isinf(groups.pullback(dy, None).bounds()).all()
