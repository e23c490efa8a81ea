"""Each bound is what its formula says, worked out a second time by hand: neither smaller nor larger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from backproof.reference import rounding
from backproof.reference.direction import Directed
from backproof.reference.rounding import (
    PRECISIONS,
    Arithmetic,
    Rounded,
    added,
    difference,
    either,
    inner,
    one_sum,
    running_product,
    running_sum,
    scatter_add,
)
from backproof.reference.rounding.contractions import _product_bound, _sizes
from scipy import special

SLACK = 1 + 2.0**-20
OWN = 2.0**-53
NORMAL32, LARGEST32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127
MARGIN = 2.0**-30  # of a limit, on either side
ROUNDINGS = 2.0**-44  # what a bound may itself have lost in float64: far less than the slack


class Format(NamedTuple):
    """What a precision rounds by, as its standard says."""

    store: float
    multiply: float
    accumulate: float
    underflow: float
    normal: float
    largest: float
    wide: bool

    @property
    def inside(self) -> float:
        """What an operation rounds by before its result is stored."""
        return self.accumulate if self.wide else self.store

    @property
    def stored(self) -> float:
        """What an operation and its storing round by together."""
        return (1 + self.store) * (1 + self.inside) - 1 if self.wide else self.store

    @property
    def roundoff(self) -> float:
        return self.stored + OWN

    @property
    def quotient(self) -> float:
        """x * (1 / y) rounds twice, and what it is compared with once."""
        return (1 + self.stored) ** 2 - 1 + OWN if self.stored > 2.0**-30 else 3 * OWN

    @property
    def elementary(self) -> float:
        """Four ulps of float64 are ours, eight are the candidate's, and a wide result is stored besides."""
        eight = 8 * 2 * self.inside
        return 4 * 2 * OWN + ((1 + self.store) * (1 + eight) - 1 if self.wide else eight)

    @property
    def running(self) -> float:
        return (LARGEST32 if self.wide else self.largest) / SLACK

    def gamma(self, length: int, roundoff: float) -> float:
        exact = Fraction(length) * Fraction(roundoff)
        return float(exact / (1 - exact)) if exact < 1 else math.inf

    def summation(self, length: int, *, products: bool = False) -> tuple[float, float]:
        """Return the relative error of a sum, and what underflows may cost."""
        roundings = length if products else length - 1
        growth = self.gamma(roundings, self.accumulate)
        factors = 1 + Fraction(self.multiply) if products and self.multiply > self.store else Fraction(1)
        relative = float(factors**2 * (1 + Fraction(growth)) - 1) + self.gamma(roundings, OWN)
        operations = 2 * length - 1 if products else 2 * length - 2
        return relative, operations * (1 + growth) * (NORMAL32 if self.wide else self.underflow)

    def rounded(self, value: Any, spread: Any, roundoff: float | None = None) -> Any:
        """Return the bound of a result that varies by `spread` before it is rounded."""
        return spread + (np.abs(value) + spread) * (self.roundoff if roundoff is None else roundoff) + self.underflow

    def after_sum(self, value: Any, bound: Any) -> Any:
        """Return the bound of a running sum once it is stored."""
        return bound * (1 + self.store) + self.store * np.abs(value) + self.underflow if self.wide else bound


FORMATS = {
    "float64": Format(2.0**-53, 2.0**-53, 2.0**-53, 2.0**-1022, 2.0**-1022, (2 - 2.0**-52) * 2.0**1023, wide=False),
    "float32": Format(2.0**-24, 2.0**-24, 2.0**-24, 2.0**-126, 2.0**-126, (2 - 2.0**-23) * 2.0**127, wide=False),
    "bfloat16": Format(2.0**-8, 2.0**-8, 2.0**-23, 2.0**-126, 2.0**-126, (2 - 2.0**-7) * 2.0**127, wide=True),
    "float16": Format(2.0**-11, 2.0**-11, 2.0**-23, 2.0**-24, 2.0**-14, 65504.0, wide=True),
    "tf32": Format(2.0**-24, 2.0**-10, 2.0**-23, 2.0**-126, 2.0**-126, (2 - 2.0**-23) * 2.0**127, wide=False),
}
each_format = pytest.mark.parametrize("name", FORMATS)


def made(name: str, kinks: str = "own") -> tuple[Format, Arithmetic]:
    return FORMATS[name], Arithmetic(PRECISIONS[name], kinks)


def ball(arithmetic: Arithmetic, value: Any, bound: Any) -> Rounded:
    return Rounded(np.array(value, dtype=np.float64), np.array(bound, dtype=np.float64), arithmetic)


def check(found: Any, value: Any, bound: Any) -> None:
    """Assert that a ball has a value, bit for bit, and a bound but for that one's own roundings."""
    assert isinstance(found, Rounded)
    assert isinstance(found.arithmetic, Arithmetic)
    assert found.shape == np.shape(value), f"got shape {found.shape}, expected {np.shape(value)}"
    assert np.array_equal(found.value, value, equal_nan=True), f"got {found.value}, expected {value}"
    close(found.bounds(), np.broadcast_to(bound, found.shape))


def close(found: Any, expected: Any) -> None:
    """Assert that bounds are as expected but for their own roundings."""
    assert np.shape(found) == np.shape(expected)
    for a, b in zip(np.ravel(found), np.ravel(expected), strict=True):
        assert a == b or abs(a - b) <= ROUNDINGS * b < math.inf, f"got {a}, expected {b}: {a / b if b else a} of it"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with rounding.quiet():
        yield


@each_format
def test_formats(name: str) -> None:
    """A precision has the roundoffs, smallest and largest numbers of its standard, and what follows from them."""
    f, arithmetic = made(name)
    p = arithmetic.precision
    assert (p.name, p.store, p.multiply, p.accumulate) == (name, f.store, f.multiply, f.accumulate)
    assert (p.underflow, p.normal, p.largest, p.wide, p.ulps) == (f.underflow, f.normal, f.largest, f.wide, 8.0)
    close([arithmetic.roundoff, arithmetic.quotient, arithmetic.elementary, arithmetic.argument],
          [f.roundoff, f.quotient, f.elementary, f.inside + OWN])
    close([arithmetic.safe, arithmetic.running], [f.largest / 4, f.running])
    default = Arithmetic(p)
    assert (default.kinks, default.ties, default.constants) == ("own", 0, {})
    with np.errstate(over="raise"):
        assert p.held(np.array([1 + f.store, 1 + 3 * f.store, 2 * f.largest])).tolist() == [1, 1 + 4 * f.store, math.inf]


@each_format
def test_what_is_read(name: str) -> None:
    """A normal number and zero are exact, a subnormal one may be read as zero, and NaN as anything."""
    f, arithmetic = made(name)
    t = f.underflow
    assert arithmetic.exact([t, -t, 1.0]).exact
    assert arithmetic.exact([0.0, 1.0]).exact
    assert arithmetic.exact(np.zeros((0, 2))).exact
    check(arithmetic.exact([t / 2, -t / 4, t, 0.0, 2.0]), [t / 2, -t / 4, t, 0, 2], [t / 2, t / 4, 0, 0, 0])
    check(arithmetic.exact([math.nan, t / 2, 0.0, 1.0]), [math.nan, t / 2, 0, 1], [math.inf, t / 2, 0, 0])
    check(arithmetic.exact([math.nan, 1.0]), [math.nan, 1], [math.inf, 0])
    single = arithmetic.exact(np.array([2.0**-130, 1.0], np.float32))
    assert single.value.dtype == np.float64
    check(single, [2.0**-130, 1], [2.0**-130 if t > 2.0**-130 else 0, 0])
    assert arithmetic.exact([1, 2]).value.dtype == np.float64


@each_format
def test_constants(name: str) -> None:
    """A number that the format cannot hold is rounded or overflows; one it holds is exact; each is made once."""
    f, arithmetic = made(name)
    third, unheld, tiny = 1 / 3, 1 + f.store / 2, f.normal / 4
    rounds = name != "float64"
    check(arithmetic.lift([1.0, -unheld, 2.5]), [1, -unheld, 2.5], [0, f.store * unheld + f.underflow if rounds else 0, 0])
    check(arithmetic.lift([tiny, third, math.nan, math.inf]), [tiny, third, math.nan, math.inf],
          [tiny if tiny < f.underflow else 0, f.store * third + f.underflow if rounds else 0, math.inf, 0])
    if rounds:
        check(arithmetic.lift([1.0, -1e300]), [1, -1e300], [0, math.inf])
        check(arithmetic.lift(third), third, f.store * third + f.underflow)
    assert arithmetic.lift(third) is arithmetic.lift(third)
    assert arithmetic.lift(2) is arithmetic.lift(2.0)
    assert arithmetic.lift([1, 2]).value.dtype == np.float64
    assert arithmetic.lift([int(1 / f.store) + 1]).value.dtype == np.float64
    one = arithmetic.lift(1.0)
    assert arithmetic.lift(one) is one
    assert set(arithmetic.constants) == {third, 2, 1} | ({third} if rounds else set())


@each_format
def test_rounding_of_results(name: str) -> None:
    """A result is off by its spread and one rounding of all that it may be; near the format's end by anything."""
    f, arithmetic = made(name)
    value, spread = np.array([1.5, -2.0, 0.0]), np.array([0.25, 0.5, 0.0])
    check(arithmetic.rounded(value), value, f.rounded(value, 0))
    check(arithmetic.rounded(value, spread), value, f.rounded(value, spread))
    check(arithmetic.rounded(value, spread, 0.125), value, f.rounded(value, spread, 0.125))
    for spread in (np.array(0.25), np.array([0.5])):
        check(arithmetic.rounded(value, spread, 0.125), value, f.rounded(value, spread, 0.125))
    check(arithmetic.rounded(np.zeros(2), np.zeros(1)), np.zeros(2), f.underflow)
    last = f.largest / SLACK
    edge = last / (1 + f.roundoff) * (1 - MARGIN)
    beyond = last / (1 + f.roundoff) * (1 + MARGIN)
    for sign in (1, -1):
        value = sign * np.array([1.0, edge, beyond])
        check(arithmetic.rounded(value), value, [*f.rounded(value[:2], 0), math.inf])
        value = sign * np.array([1.0, edge / 2, beyond / 2])
        spread = np.array([0.0, edge / 2, beyond / 2])
        want = np.where(np.abs(value) + f.rounded(value, spread) <= last, f.rounded(value, spread), math.inf)
        check(arithmetic.rounded(value, spread), value, want)
    check(arithmetic.rounded(np.array([math.nan, 1.0])), [math.nan, 1], [math.inf, f.rounded(1, 0)])
    check(arithmetic.rounded(np.array([1.0, 2.0]), np.array([math.inf, 0])), [1, 2], [math.inf, f.rounded(2, 0)])


@each_format
def test_overflow(name: str) -> None:
    """A bound stays where value and bound together are within the format, and is infinite beyond and for NaN."""
    f, arithmetic = made(name)
    last = f.largest / SLACK
    above = np.nextafter(last, math.inf)
    exact = np.zeros(())
    check(arithmetic.overflowing(np.array([last, -last]), exact), [last, -last], 0)
    check(arithmetic.overflowing(np.array([last, -above, 0.0]), exact), [last, -above, 0], [0, math.inf, 0])
    check(arithmetic.overflowing(np.array([-last, above, 0.0]), exact), [-last, above, 0], [0, math.inf, 0])
    value, bound = np.array([-last / 2, -last / 2, 0.0]), np.array([last / 2, last / 2 * (1 + MARGIN), last])
    check(arithmetic.overflowing(value, bound), value, [last / 2, math.inf, last])
    assert arithmetic.overflowing(np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)
    check(arithmetic.overflowing(np.array([math.nan, 1.0]), np.array([0.0, 0.5])), [math.nan, 1], [math.inf, 0.5])
    check(arithmetic.overflowing(np.array([2.0, 1.0]), np.array([math.nan, 0.5])), [2, 1], [math.inf, 0.5])


def test_gamma() -> None:
    """gamma_n is n u / (1 - n u), and nothing is known from n u = 1 on."""
    f, arithmetic = made("float32")
    u = 2.0**-8
    lengths = [0, 1, 2, 100, 255, 256, 257]
    expected = [0, u / (1 - u), 2 * u / (1 - 2 * u), 100 / 156, 255, math.inf, math.inf]
    close([arithmetic.gamma(n, u) for n in lengths], expected)
    close(arithmetic.gammas(np.array(lengths), u), expected)
    assert f.gamma(255, u) == 255
    close(arithmetic.gammas(np.array([2**53 - 1, 2**53]), OWN), [2.0**53 - 1, math.inf])


@each_format
def test_summation(name: str) -> None:
    """Sums of 1, 2, 7 and 300 terms or products are off by gamma of their roundings, by TF32's factors, and by underflows."""
    f, arithmetic = made(name)
    for length in (1, 2, 7, 300):
        close(arithmetic.summation(length), f.summation(length))
        close(arithmetic.summation(length, products=True), f.summation(length, products=True))


@each_format
def test_accumulated_sums(name: str) -> None:
    """A sum is off by what its terms are, its own roundings, and its storing; a partial one may overflow."""
    f, arithmetic = made(name)
    value, magnitude, spread = np.array([1.0, -2.0]), np.array([3.0, 2.0]), np.array([0.5, 0.0])
    relative, lost = f.summation(5)
    check(arithmetic.accumulated(value, None, magnitude, 5), value, f.after_sum(value, magnitude * relative + lost))
    check(arithmetic.accumulated(value, spread, magnitude, 5), value, f.after_sum(value, magnitude * relative + lost + spread))
    check(arithmetic.accumulated(np.zeros(2), None, np.zeros(2), 0), [0, 0], 0)
    last = f.running / (1 + relative)
    magnitude = np.array([last * (1 - MARGIN), last * (1 + MARGIN)])
    before = f.after_sum(1.0, magnitude[0] * relative + lost)
    check(arithmetic.accumulated(value, None, magnitude, 5), value, [before if before < f.largest / 2 else math.inf, math.inf])


@each_format
def test_stored_sums(name: str) -> None:
    """A sum each of whose partial sums is stored rounds n - 1 times in the format, whichever of the two is coarser."""
    f, arithmetic = made(name)
    value, magnitude, spread = np.array([1.0, -2.0, 0.0, 4.0]), np.array([3.0, 2.0, 0.0, 4.0]), np.array([0.5, 0.0, 0.0, 0.25])
    terms = np.array([3, 5, 0, 1])
    unit = max(f.roundoff, f.accumulate + OWN)
    additions = np.array([2, 4, 0, 0])
    relative = np.array([f.gamma(int(n), unit) for n in additions])
    bound = magnitude * relative + additions * (1 + relative) * f.underflow
    check(arithmetic.stored_sum(value, None, magnitude, terms), value, bound)
    check(arithmetic.stored_sum(value, spread, magnitude, terms), value, bound + spread)
    last = f.largest / SLACK / (1 + relative[0])
    magnitude = np.array([last * (1 - MARGIN), last * (1 + MARGIN), 0, 1.0])
    check(arithmetic.stored_sum(value, None, magnitude, np.array([3, 3, 3, 1])), value,
          [magnitude[0] * relative[0] + 2 * (1 + relative[0]) * f.underflow, math.inf, 2 * (1 + relative[0]) * f.underflow, 0])


PAIRS = [(None, None), ([0.5, 0.25], None), (None, [0.125, 1.0]), ([0.5, 0.25], [0.125, 1.0])]


def operands(arithmetic: Arithmetic, bounds: tuple[Any, Any]) -> tuple[Rounded, Rounded, Any, Any]:
    x, y = (ball(arithmetic, v, 0.0 if b is None else b) for v, b in zip(([3.0, -5.0], [-7.0, 3.0]), bounds, strict=True))
    return x, y, x.bounds(), y.bounds()


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_sums_and_products_of_two(name: str, bounds: tuple[Any, Any]) -> None:
    """Sums, differences and products vary by the most that the corners of their balls allow, and round once."""
    f, arithmetic = made(name)
    x, y, bx, by = operands(arithmetic, bounds)
    check(x + y, [-4, -2], f.rounded([-4, -2], bx + by))
    check(x - y, [10, -8], f.rounded([10, -8], bx + by))
    corners = (np.abs(x.value) + bx) * (np.abs(y.value) + by) - np.abs(x.value * y.value)
    check(x * y, [-21, -15], f.rounded([-21, -15], corners))
    check(-x, [-3, 5], bx)
    check(abs(x), [3, 5], bx)
    square = (np.abs(x.value) + bx) ** 2 - x.value**2
    check(np.square(x), [9, 25], f.rounded([9, 25], square))


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_operands_of_two_sizes(name: str, bounds: tuple[Any, Any]) -> None:
    """Results of a large and a small array have the bound of arrays of one size, whichever is which."""
    f, arithmetic = made(name)
    x, y, *_ = operands(arithmetic, bounds)
    small = y[:, None]
    large, alike = (np.broadcast_to(a, (2, 2)) for a in (x, small))
    for a, b, c, d in ((x, small, large, alike), (x, y[1], x, np.broadcast_to(y[1], 2)), (x[:, None], y, large.T, alike.T)):
        bc, bd, value = c.bounds(), d.bounds(), c.value * d.value
        corners = (np.abs(c.value) + bc) * (np.abs(d.value) + bd) - np.abs(value)
        check(a * b, value, f.rounded(value, corners))
        check(b * a, value, f.rounded(value, corners))
        check(a + b, c.value + d.value, f.rounded(c.value + d.value, bc + bd))
        check(b - a, d.value - c.value, f.rounded(d.value - c.value, bc + bd))
        for p, q, bp, bq, found in ((c.value, d.value, bc, bd, a / b), (d.value, c.value, bd, bc, b / a)):
            check(found, p / q, f.rounded(p / q, (bp + np.abs(p / q) * bq) / (np.abs(q) - bq * SLACK), f.quotient))


@each_format
def test_numbers_on_the_left(name: str) -> None:
    """A number or an array before an operator is the left operand."""
    f, arithmetic = made(name)
    x = ball(arithmetic, [3.0, -5.0], [0.5, 0.25])
    for number in (7, 7.0, np.array([7.0, -0.5])):
        sizes = np.abs(number) * np.ones(2)
        check(number + x, number + x.value, f.rounded(number + x.value, x.bound))
        check(number - x, number - x.value, f.rounded(number - x.value, x.bound))
        check(number * x, number * x.value, f.rounded(number * x.value, sizes * x.bound))
        quotient = number / x.value
        check(number / x, quotient, f.rounded(quotient, np.abs(quotient) * x.bound / (np.abs(x.value) - x.bound * SLACK), f.quotient))


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_quotients(name: str, bounds: tuple[Any, Any]) -> None:
    """A quotient varies by what its corners allow and rounds twice, since x / y may be x * (1 / y)."""
    f, arithmetic = made(name)
    x, y, bx, by = operands(arithmetic, bounds)
    value = x.value / y.value
    check(x / y, value, f.rounded(value, (bx + np.abs(value) * by) / (np.abs(y.value) - by * SLACK), f.quotient))
    check(np.reciprocal(y), 1 / y.value, f.rounded(1 / y.value, by / np.abs(y.value) / (np.abs(y.value) - by * SLACK), f.quotient))


@each_format
def test_exact_factors(name: str) -> None:
    """0 and powers of two as numbers round nothing, but for an underflow where they shrink; anything else, and any array, rounds."""
    f, arithmetic = made(name)
    x = ball(arithmetic, [3.0, -5.0], [0.5, 0.0])
    for factor in (1.0, -1.0, 2.0, -8.0, 0.0):
        check(x * factor, x.value * factor, x.bound * abs(factor))
        check(factor * x, x.value * factor, x.bound * abs(factor))
    for factor in (0.5, -0.25):
        check(x * factor, x.value * factor, x.bound * abs(factor) + f.underflow)
        check(factor * x, x.value * factor, x.bound * abs(factor) + f.underflow)
    for factor in (3.0, -0.75):
        check(x * factor, x.value * factor, f.rounded(x.value * factor, x.bound * abs(factor)))
    check(x * np.full(2, 2.0), x.value * 2, f.rounded(x.value * 2, x.bound * 2))
    check(x * ball(arithmetic, 2.0, 0.25), x.value * 2, f.rounded(x.value * 2, np.abs(x.value) * 0.25 + x.bound * 2.25))
    check(ball(arithmetic, [1.0, 2.0], [math.inf, 0]) * 0, [0, 0], [math.inf, 0])
    big = ball(arithmetic, [f.largest / 2, -f.largest / 4], 0.0)
    check(big * 2, [f.largest, -f.largest / 2], [math.inf, 0])


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_exact_divisors(name: str, bounds: tuple[Any, Any]) -> None:
    """A quotient by a power of two rounds nothing as long as its reciprocal neither overflows nor underflows."""
    f, arithmetic = made(name)
    x, _, bx, _ = operands(arithmetic, bounds)
    check(x / 4, x.value / 4, bx / 4 + f.underflow)
    check(x / -0.5, x.value / -0.5, bx * 2)
    check(x / 1, x.value, bx)
    scale = 2.0**-4 * f.normal
    small = ball(arithmetic, x.value * scale, bx * scale if bx.any() else 0.0)
    check(small / f.normal, x.value / 16, bx / 16)  # 1 / normal is in the format
    check(x / (1 / f.normal), x.value * f.normal, bx * f.normal + f.underflow)
    twice = 2 / f.normal  # whose reciprocal is subnormal: its loss is multiplied by x
    spread = bx / twice + (np.abs(x.value) + bx) * f.underflow * (1 + f.quotient)
    check(x / twice, x.value / twice, f.rounded(x.value / twice, spread, f.quotient))
    if name == "float16":
        check(small / 2.0**-15, small.value * 2.0**15, small.bounds() * 2.0**15)
        check(small / 2.0**-16, small.value * 2.0**16, [math.inf, math.inf])  # the reciprocal is larger than the largest number


@each_format
def test_quotients_at_the_ends_of_the_format(name: str) -> None:
    """A reciprocal that may overflow says nothing; where one may underflow, that costs its product with the numerator."""
    f, arithmetic = made(name)
    x = arithmetic.exact([1.0, 3.0])
    least = 1 / f.largest
    check(x / ball(arithmetic, [least, 3.0], 0.0), x.value / [least, 3], [math.inf, f.rounded(1.0, 0, f.quotient)])
    above = np.nextafter(least, 1)
    one = ball(arithmetic, [2.0**-3, 3.0], 0.0)
    denominator = ball(arithmetic, [above, 3.0], 0.0)
    check(one / ball(arithmetic, [least, 3.0], 0.0), one.value / [least, 3.0], [math.inf, f.rounded(1.0, 0, f.quotient)])
    check(one / denominator, one.value / denominator.value, f.rounded(one.value / denominator.value, 0, f.quotient))
    touching = ball(arithmetic, [1.0, 3.0], [1.0, 0.5])
    want = [math.inf, f.rounded(1.0, 0.5 / (3 - 0.5 * SLACK), f.quotient)]
    check(x / touching, [1, 1], want)
    wide = ball(arithmetic, [1.0, 3.0], [1 / SLACK, 0.5])  # |y| - b times the slack is 0
    check(x / wide, [1, 1], want)
    blurred = ball(arithmetic, [2.0, 3.0], [0.5, 0.25])
    most = 1 / f.normal
    for divisor in (ball(arithmetic, [most * 1.5, 3.0], 0.0), ball(arithmetic, [most * 0.75, 3.0], [most / 2, 0])):
        d, by = divisor.value, divisor.bounds()
        for numerator in (x, blurred):
            n, bx = numerator.value, numerator.bounds()
            spread = (bx + np.abs(n / d) * by) / (d - by * SLACK) + (n + bx) * f.underflow * (1 + f.quotient)
            check(numerator / divisor, n / d, f.rounded(n / d, spread, f.quotient))
    inside = ball(arithmetic, [most * 0.75, 3.0], [most / 4, 0])  # at most 1 / normal, whose reciprocal is normal
    spread = np.abs(blurred.value / inside.value) * inside.bound + blurred.bound
    check(blurred / inside, blurred.value / inside.value,
          f.rounded(blurred.value / inside.value, spread / (inside.value - inside.bound * SLACK), f.quotient))


@each_format
def test_powers(name: str) -> None:
    """A power is its product from the left, the first is the number itself, and there is none of an infinite or broken exponent."""
    f, arithmetic = made(name)
    x = ball(arithmetic, [3.0, -5.0], [0.5, 0.0])
    check(x**1, x.value, x.bound)
    square = (np.abs(x.value) + x.bound) ** 2 - x.value**2
    check(x**2, x.value**2, f.rounded(x.value**2, square))
    inner = f.rounded(x.value**2, square)
    cube = x.value**2 * x.bound + inner * (np.abs(x.value) + x.bound)
    check(x**3, x.value**3, f.rounded(x.value**3, cube))
    for exponent in (0, 1.5, math.inf, math.nan):
        with pytest.raises(TypeError, match="positive whole powers only"):
            x**exponent


def in_one_sum(f: Format, pairs: list[tuple[Rounded, Rounded]], terms: list[Rounded]) -> tuple[Any, Any]:
    """Return value and bound of products and terms added in one sum, entry by entry."""
    length = sum(a.shape[-1] for a, _ in pairs) + len(terms)
    relative, lost = f.summation(length, products=True)
    value = sum([a.value @ b.value for a, b in pairs] + [t.value for t in terms])
    magnitude = sum([(np.abs(a.value) + a.bounds()) @ (np.abs(b.value) + b.bounds()) for a, b in pairs]
                    + [np.abs(t.value) + t.bounds() for t in terms])
    centre = sum([np.abs(a.value) @ np.abs(b.value) for a, b in pairs] + [np.abs(t.value) for t in terms])
    return value, f.after_sum(value, magnitude - centre + relative * magnitude + lost)


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_contractions(name: str, bounds: tuple[Any, Any]) -> None:
    """Products of matrices and terms vary by what their corners allow, and by the roundings of one sum."""
    f, arithmetic = made(name)
    x, y = (ball(arithmetic, v, 0.0 if b is None else np.broadcast_to(b, np.shape(v)))
            for v, b in zip(([[1.0, -2.0], [3.0, 0.5], [0.0, 4.0]], [[2.0, -1.0], [0.25, 8.0]]), bounds, strict=True))
    check(x @ y, *in_one_sum(f, [(x, y)], []))
    kept = [b.copy() for b in (x.value, x.bound, y.value, y.bound)]
    u, term = ball(arithmetic, np.full((3, 1), 2.0), 0.5), ball(arithmetic, [[1.0, -1.0]] * 3, 0.25)
    w, plain = ball(arithmetic, [[1.0, 3.0]], 0.0), ball(arithmetic, [[7.0, -2.0]] * 3, 0.0)
    for pairs, terms in (([(x, y)], [term]), ([(x, y), (u, w)], []), ([(x, y), (u, w)], [term, plain]), ([], [term, plain, plain]),
                         ([(u, w)], [plain])):
        value, bound = in_one_sum(f, pairs, terms)
        check(one_sum(pairs, terms, arithmetic), value, bound)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (x.value, x.bound, y.value, y.bound), strict=True))
    check(one_sum([(x, y)], [np.full((3, 2), 0.5)], arithmetic), *in_one_sum(f, [(x, y)], [ball(arithmetic, np.full((3, 2), 0.5), 0.0)]))
    check(x[0] @ y, *in_one_sum(f, [(x[0], y)], []))
    check(x[0] @ y[:, 1], *in_one_sum(f, [(x[0], y[:, 1])], []))
    check(one_sum([(x[0], y), (x[1], y)], [], arithmetic), *in_one_sum(f, [(x[0], y), (x[1], y)], []))
    zeros = ball(arithmetic, np.zeros(2), 0.0)
    check(zeros @ zeros, *in_one_sum(f, [(zeros, zeros)], []))
    batch = np.stack([x, -x])  # its middle axis is longer than the one that is summed
    check(batch @ y, *in_one_sum(f, [(batch, y)], []))
    empty = one_sum([(np.zeros((3, 0)), np.zeros((0, 2)))], [], arithmetic)
    assert empty.exact
    check(empty, np.zeros((3, 2)), 0)


@pytest.mark.parametrize("name", ["float64", "float32", "tf32", "bfloat16"])
def test_contractions_that_may_overflow(name: str) -> None:
    """Nothing is known of a sum whose terms may together leave the accumulator's range, and something just before."""
    f, arithmetic = made(name)
    relative, lost = f.summation(1, products=True)
    one = ball(arithmetic, [[1.0]], 0.0)
    for sign in (1 - MARGIN, 1 + MARGIN):
        bound = f.running / (2 + relative) * sign
        number = f.running / (1 + relative) * sign
        stays = sign < 1
        for found in (ball(arithmetic, [[0.0]], [[bound]]) @ one, one @ ball(arithmetic, [[0.0]], [[bound]]),
                      one_sum([], [ball(arithmetic, [[0.0]], [[bound]])], arithmetic)):
            assert np.isfinite(found.bound).all() == stays
        for x, y, bx, by in ((0.0, 2.0, bound / 2, 0.0), (2.0, 0.0, 0.0, bound / 2), (bound, 0.0, 0.0, 1.0)):
            found = ball(arithmetic, [[x]], [[bx]] if bx else 0.0) @ ball(arithmetic, [[y]], [[by]] if by else 0.0)
            assert np.isfinite(found.bound).all() == stays
        exact = ball(arithmetic, [[number / 2]], 0.0) @ ball(arithmetic, [[2.0]], 0.0)
        assert np.isfinite(exact.bound).all() == (stays and not f.wide)
        exact = ball(arithmetic, [[number]], 0.0) @ one
        assert np.isfinite(exact.bound).all() == (stays and not f.wide)
        halves = ball(arithmetic, [[number / 2, -number / 2]], 0.0)
        two, _ = f.summation(2, products=True)
        both = halves @ ball(arithmetic, [[1.0], [1.0]], 0.0)
        assert np.isfinite(both.bound).all() == (number * (1 + two) + lost <= f.running)
        split = one_sum([(halves[:, :1], one)], [halves[:, 1:]], arithmetic)
        assert np.isfinite(split.bound).all() == (number * (1 + two) + lost <= f.running)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_large_contractions(bounds: tuple[float, float]) -> None:
    """The bound of a large product of matrices is hardly larger than that of a small one."""
    f, arithmetic = made("float32")
    rng = np.random.default_rng(0)
    x, y = (ball(arithmetic, rng.standard_normal((32, 32)), np.full((32, 32), b) if b else 0.0) for b in bounds)
    value, bound = in_one_sum(f, [(x, y)], [])
    found = x @ y
    assert np.array_equal(found.value, value)
    assert (found.bound >= bound).all()
    assert (found.bound <= bound * (1 + 2.0**-17)).all()


def product_off(x: Rounded, y: Rounded, relative: float) -> Any:
    """Return what a product of matrices is off by where its terms are off by `relative`, in float64."""
    most, other = np.abs(x.value) + x.bounds(), np.abs(y.value) + y.bounds()
    return np.abs(x.value) @ y.bounds() + x.bounds() @ other + relative * (most @ other)


def in_single(x: Rounded, y: Rounded, lost: float = 1.0, relative: float = 2.0**-4) -> bool:
    """Say whether a bound was found in float32; it holds the one of float64, and is no larger than allowed for either way."""
    truth, n = product_off(x, y, relative), x.shape[-1]
    tops = [float(np.max(np.abs(a.value), initial=0.0)) + float(np.max(a.bounds(), initial=0.0)) for a in (x, y)]
    for _ in range(2):  # what an exact factor keeps is what it was
        bound, most, more = _product_bound(x, y, relative, lost)
        bound = bound + more
        assert abs(most / (n * tops[0] * tops[1] or 1) - bool(most)) <= 2.0**-22  # rounded to float32
        assert bound.dtype == np.float64
        single = not close_to(bound, truth)
        assert (bound >= truth * (1 - ROUNDINGS)).all()
        assert (bound <= truth * (1 + (n + 16) * 2.0**-22) + 64 * lost * single + truth * ROUNDINGS).all()
        if single:
            assert (bound >= truth * (1 + n * 2.0**-24)).all()
    return single


def close_to(a: Any, b: Any) -> bool:
    return bool((np.abs(a - b) <= np.abs(b) * ROUNDINGS).all())


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_large_contractions_are_bounded_in_single_precision(bounds: tuple[float, float]) -> None:
    """From 2^15 products on the bound is found in float32: never below, hardly above; in float64 where that would lose something."""
    _, arithmetic = made("float32")
    rng, n = np.random.default_rng(0), 32

    def two(shape: tuple[int, ...], other: tuple[int, ...], scale: float = 1.0, b_scale: float = 1.0) -> tuple[Rounded, Rounded]:
        """Balls whose magnitudes and bounds reach 1 and the given numbers, times a scale."""
        drawn = rng.random(shape) * scale, rng.random(other) * b_scale
        for a, top in zip(drawn, (scale, b_scale), strict=True):
            a.flat[0] = top
        x, y = (ball(arithmetic, a, np.full(a.shape, b * np.max(a)) if b else 0.0) for a, b in zip(drawn, bounds, strict=True))
        return x, y

    assert in_single(*two((n, n), (n, n)))
    assert in_single(*two((2, n // 2, n), (2, n, n)))
    assert not in_single(*two((n - 1, n), (n, n)))  # not worth the while
    assert not in_single(*two((1, 2**15), (2**15, 1), 2.0**-20, 2.0**-20))  # gamma of so long a sum is no longer what is said
    assert in_single(*two((1, 2**15 - 1), (2**15 - 1, 2), 2.0**-20, 2.0**-20))
    tops = 1 + bounds[0], 1 + bounds[1]
    threshold = 4 * n * NORMAL32 * (1 + tops[0] + tops[1]) / 64
    for lost, single in ((threshold * (1 + MARGIN), True), (threshold * (1 - MARGIN), False), (0.0, False)):
        assert in_single(*two((n, n), (n, n)), lost=lost) == single
    limit = LARGEST32 / 4
    for sign in (1 - 2.0**-20, 1 + 2.0**-20):
        one = math.sqrt(limit * sign / n / tops[0] / tops[1])
        assert in_single(*two((n, n), (n, n), one, one), lost=2.0**14) == (sign < 1)
        for scales in ((limit * sign / tops[0], 2.0**-20), (2.0**-20, limit * sign / tops[1])):
            assert in_single(*two((n, n), (n, n), *scales), lost=2.0**14) == (sign < 1)
    for scales in ((2.0**-150, 8.0), (8.0, 2.0**-150), (2.0**-70, 2.0**-70)):  # nothing of these is left in float32
        x, y = two((n, n), (n, n), *scales)
        bound, _, more = _product_bound(x, y, 1.0, 1.0)
        assert (bound + more >= product_off(x, y, 1.0)).all()
    empty = [ball(arithmetic, np.zeros(shape), 0.0) for shape in ((0, 0), (0, 4))]
    assert _product_bound(*empty, 1.0, 1.0)[0].shape == (0, 4)


@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_a_bound_in_single_precision_is_widened_by_its_own_roundings(bounds: tuple[float, float]) -> None:
    """Of numbers whose sums float32 holds as they are, it is the bound itself times 1 + (n + 16) 2^-23, and underflows."""
    _, arithmetic = made("float32")
    rng, n, relative = np.random.default_rng(0), 32, 2.0**-4
    for scale in (1.0, 2.0**-58):
        x, y = (ball(arithmetic, rng.integers(-4, 5, (n, n)) * scale, np.full((n, n), b * scale) if b else 0.0) for b in bounds)
        bound, most, more = _product_bound(x, y, relative, 1.0)
        tops = [float(np.max(np.abs(a.value) + a.bounds())) for a in (x, y)]
        assert most == n * tops[0] * tops[1]
        assert (np.abs(bound / product_off(x, y, relative) - (1 + 48 * 2.0**-23)) <= 2.0**-23).all()  # itself rounded to float32
        assert more == 4 * n * NORMAL32 * (1 + tops[0] + tops[1])


def test_what_contractions_keep_of_a_factor() -> None:
    """A ball keeps its magnitudes and bounds for each arithmetic that a bound was found in, and moves them with its entries."""
    _, arithmetic = made("float32")
    numbers = np.arange(-512.0, 512.0).reshape(32, 32)
    for bound in (0.0, numbers + 512.5):
        x, y = (ball(arithmetic, numbers, bound) for _ in range(2))
        for lost, kinds in ((1.0, {np.float32}), (0.0, {np.float32, np.float64})):
            _product_bound(x, y, 1.0, lost)
            assert set(x.sizes) == set(y.sizes) == kinds
        for kind in (np.float32, np.float64):
            kept = _sizes(x, kind)
            assert (kept[0].dtype, kept[2]) == (kind, 512 + np.max(bound))
            assert np.array_equal(kept[0], abs(numbers))
            assert np.array_equal(np.broadcast_to(kept[1], x.shape), np.broadcast_to(bound, x.shape))
            assert x.exact or kept[1].dtype == kind
            assert _sizes(x, kind) is kept
            turned = np.swapaxes(x, 0, 1).sizes[kind]
            assert np.shares_memory(turned[0], kept[0])
            assert np.array_equal(turned[0], abs(numbers).T)
            assert turned[2] == kept[2]
            assert np.array_equal(np.broadcast_to(turned[1], x.shape), np.broadcast_to(bound, x.shape).T)
        assert (x.value == numbers).all()


def test_what_underflows_in_single_precision_is_in_the_bound_of_a_product() -> None:
    """The bound of a product is that of its terms, with what underflowed in finding it and in the sum itself."""
    _, arithmetic = made("float32")
    rng = np.random.default_rng(2)
    x, y = (ball(arithmetic, rng.random((32, 32)) * 2.0**-64, np.full((32, 32), 2.0**-126)) for _ in range(2))
    relative, lost = arithmetic.summation(32, products=True)
    bound, _, more = _product_bound(x, y, relative, lost)
    assert more > lost > 2 * np.max(bound)
    assert np.array_equal((x @ y).bound, bound + (lost + more))


def test_the_same_numbers_with_another_bound() -> None:
    """What is known of the magnitudes stays known; they are not found where nobody asked for them."""
    _, arithmetic = made("float32")
    x = ball(arithmetic, [-1.0, 2.0], 0.0)
    first = x.widened(np.array([0.5, 0.25]))
    assert "magnitude" not in first.__dict__
    assert x.magnitude.tolist() == [1, 2]
    second = x.widened(np.array([0.5, 0.25]))
    assert second.magnitude is x.magnitude
    for found in (first, second):
        assert found.value is x.value
        assert found.bound.tolist() == [0.5, 0.25]
        assert found.arithmetic is arithmetic


SLOPES: dict[Any, tuple[Callable[[float], float], Callable[[float, float], float]]] = {
    # the slope at x, and what a ball's half width is compared with 2^-7 by: the slope's relative growth over the ball, up to a factor
    np.exp: (math.exp, lambda x, r: 1 + 2 * r),
    np.expm1: (math.exp, lambda x, r: 1 + 2 * r),
    np.log: (lambda x: 1 / x, lambda x, r: 1 + r / x),
    np.log1p: (lambda x: 1 / (1 + x), lambda x, r: 1 + r / (1 + x)),
    np.sqrt: (lambda x: 0.5 / math.sqrt(x), lambda x, r: 1 + r / x),
    np.tanh: (lambda x: 1 - math.tanh(x) ** 2, lambda x, r: 1 + 4 * r),
    special.expit: (lambda x: float(special.expit(x) * special.expit(-x)), lambda x, r: 1 + 2 * r),
    special.erf: (lambda x: 2 / math.sqrt(math.pi) * math.exp(-x * x), lambda x, r: 1 + 4 * abs(x) * r),
    special.erfc: (lambda x: 2 / math.sqrt(math.pi) * math.exp(-x * x), lambda x, r: 1 + 4 * abs(x) * r),
    special.ndtr: (lambda x: math.exp(-x * x / 2) / math.sqrt(2 * math.pi), lambda x, r: 1 + 2 * abs(x) * r),
}
REACH = {np.log: lambda x, r: r / x, np.log1p: lambda x, r: r / (1 + x), np.sqrt: lambda x, r: r / x,
         special.erf: lambda x, r: abs(x) * r, special.erfc: lambda x, r: abs(x) * r, special.ndtr: lambda x, r: abs(x) * r}
ARGUMENT = {special.erfc: 1, special.ndtr: 3}
each_function = pytest.mark.parametrize("function", SLOPES, ids=[f.__name__ for f in SLOPES])


def off(found: Any, expected: Any) -> None:
    """Assert that bounds are as expected to 2^-40: slopes are written in another way, and lose a few ulps of 1."""
    for a, b in zip(np.ravel(found), np.ravel(expected), strict=True):
        assert a == b or abs(a - b) <= 2.0**-36 * b < math.inf, f"got {a}, expected {b}: {a / b} of it"


@each_format
@each_function
def test_functions_of_balls(function: Any, name: str) -> None:
    """A narrow ball is moved by its slope, which grows over it; from a 128th on, by the further of its ends; then come the ulps."""
    f, arithmetic = made(name)
    slope, growth = SLOPES[function]
    for x in (1.0, 1.5):
        for r in (0.0, 2.0**-9, 2.0**-7, 2.0**-6, 0.25):
            reach = r + (x + r) * ARGUMENT.get(function, 0) * (f.inside + OWN)
            narrow = REACH.get(function, lambda x, r: r)(x, reach) <= 2.0**-7
            end = (reach + x * OWN) * SLACK
            y = function(x)
            spread = slope(x) * reach * growth(x, reach) if narrow else max(abs(function(x + end) - y), abs(function(x - end) - y))
            found = function(ball(arithmetic, x, r))
            assert found.value == y
            off(found.bound, f.rounded(y, spread, f.elementary))
            more = function(ball(arithmetic, [x, 1.25, 2.0], [r, 0.0, 2.0**-12]))
            assert (more.bound >= [found.bound * (1 - ROUNDINGS), 0, 0]).all()


@each_function
def test_functions_of_unknown_numbers(function: Any) -> None:
    """Nothing is known of a function of anything, also where it is bounded; an infinite number itself has its limit."""
    f, arithmetic = made("float32")
    found = function(ball(arithmetic, [1.0, 1.0, 1.0], [math.inf, 0.0, 0.25]))
    assert np.isfinite(found.bound).tolist() == [False, True, True]
    check(found[2], function(1.0), function(ball(arithmetic, 1.0, 0.25)).bound)
    assert function(ball(arithmetic, 1.0, 0.0)).bound <= found.bound[1]
    if function in (np.tanh, special.expit):
        limit = function(ball(arithmetic, [math.inf, 1.0], [0.0, 0.5]))
        close(limit.bound[:1], [f.rounded(1.0, 0.0, f.elementary)])
    if function in (np.exp, np.tanh, special.expit):
        limit = function(ball(arithmetic, [-math.inf, 1.0], [0.0, 0.5]))
        close(limit.bound[:1], [f.rounded(limit.value[0], 0.0, f.elementary)])


@each_format
def test_log_sums(name: str) -> None:
    """logaddexp moves by the larger of its operands' bounds, and rounds its larger operand, the logarithm and their difference."""
    f, arithmetic = made(name)
    u, v = np.array([1.0, -2.0, 0.5]), np.array([-1.0, -1.5, 0.5])
    bu, bv = np.array([0.25, 0.0, 0.125]), np.array([0.125, 0.5, 0.0])

    def expected(u: Any, v: Any, spread: Any, difference: float) -> Any:
        top, y = np.maximum(u, v), np.logaddexp(u, v)
        ulps = (np.abs(top) + (y - top) + 2 * spread) * f.elementary
        return spread + ulps + difference + f.underflow

    rounds = (f.inside + OWN) / 2
    x, y = ball(arithmetic, u, bu), ball(arithmetic, v, bv)
    value = np.logaddexp(u, v)
    check(np.logaddexp(x, y), value, expected(u, v, np.maximum(bu, bv), rounds))
    check(np.logaddexp(arithmetic.exact(u), arithmetic.exact(v)), value, expected(u, v, 0, rounds))
    for scalar, cost in ((0.0, 0), (1.0, rounds), (3.0, rounds), (-0.0, 0)):
        value = np.logaddexp(u, scalar)
        check(np.logaddexp(x, scalar), value, expected(u, scalar, bu, cost))
        check(np.logaddexp(scalar, x), value, expected(u, scalar, bu, cost))
    check(np.logaddexp(x, np.zeros(3)), np.logaddexp(u, 0), expected(u, 0, bu, rounds))
    check(np.logaddexp(ball(arithmetic, [1.0, 2.0], [math.inf, 0]), 0.0), np.logaddexp([1, 2], 0),
          [math.inf, expected(2.0, 0.0, 0.0, 0)])


@pytest.mark.parametrize(("function", "sign"), [(np.maximum, 1), (np.minimum, -1)])
def test_extrema_of_two(function: Any, sign: int) -> None:
    """A maximum moves by the bound of its winner, or by what is left of the loser's beyond the distance; unknown stays unknown."""
    _, arithmetic = made("float32")
    x = ball(arithmetic, np.array([3.0, 1, 1, 1, 2]) * sign, [0.5, 0.25, 2, 0, 0])
    y = ball(arithmetic, np.array([1.0, 2, 2, 4, 2]) * sign, 0.125)
    for found in (function(x, y), function(y, x)):
        check(found, np.array([3.0, 2, 2, 4, 2]) * sign, [0.5 * SLACK, 0.125 * SLACK, 2 * SLACK - 1, 0.125 * SLACK, 0.125 * SLACK])
    assert function(ball(arithmetic, [1.0, 2.0], 0.0), ball(arithmetic, [2.0, 1.0], 0.0)).exact
    for found in (function(x, ball(arithmetic, np.full(5, 3.0), 0.0)), function(ball(arithmetic, np.full(5, 3.0), 0.0), x)):
        assert not found.exact
    lost = ball(arithmetic, [-math.inf * sign, 1.0], [math.inf, 0.5])
    check(function(lost, ball(arithmetic, [1.0, 1.0], 0.0)), [1, 1], [math.inf, 0.5 * SLACK])
    assert function(ball(arithmetic, np.zeros(0), np.zeros(0)), 1.0).shape == (0,)


@pytest.mark.parametrize("function", [np.less, np.greater_equal, np.equal])
def test_comparisons_at_the_edge(function: Any) -> None:
    """A comparison is open where two balls, slack included, touch; exact ties among balls count as ties, open ones do not."""
    for kinks in ("own", "hull"):
        _, arithmetic = made("float32", kinks)
        distance = SLACK * 0.75
        x = ball(arithmetic, [distance, np.nextafter(distance, 1), -distance, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.0, 0.5, 0.0])
        y = ball(arithmetic, np.zeros(6), [0.25, 0.25, 0.25, 0.0, 0.0, 0.0])
        found = function(x, y)
        assert found.value.tolist() == function(x.value, y.value).tolist()
        assert found.open.tolist() == [True, False, True, kinks == "hull", True, False]
        assert arithmetic.ties == 1
        assert found.arithmetic is arithmetic
        apart = function(ball(arithmetic, [2.0, 3.0], [0.5, 0.5]), 1.0)
        assert apart.decided
        assert apart.value.tolist() == function(np.array([2.0, 3.0]), 1.0).tolist()
        assert function(ball(arithmetic, [1.0, -1.0], 0.25), 1.0).open.tolist() == [True, False]
        assert apart.arithmetic is arithmetic
        assert arithmetic.ties == 1
        exact = function(arithmetic.exact([1.0, 2.0, 2.0]), 2.0)
        assert exact.open.tolist() == [False, kinks == "hull", kinks == "hull"]
        assert arithmetic.ties == 3


GRID = [[1.0, -2.0, 4.0], [0.5, 8.0, -3.0]]
GRID_BOUNDS = [[0.5, 0.25, 0.0], [0.125, 0.0, 1.0]]
AXES: list[tuple[Any, bool]] = [(0, False), (1, False), (-1, True), (None, False), (None, True), (0, True), ((0, 1), False)]


@each_format
@pytest.mark.parametrize(("axis", "keepdims"), AXES)
def test_sums_and_means(name: str, axis: Any, keepdims: bool) -> None:
    """A sum along any axes is one of as many terms as there are, a mean its quotient by their number, and a maximum its winner."""
    f, arithmetic = made(name)
    for bounds in (0.0, GRID_BOUNDS):
        x = ball(arithmetic, GRID, bounds)
        options = {"axis": axis, "keepdims": keepdims}
        value, spread = np.sum(x.value, **options), np.sum(x.bounds(), **options)
        n = x.size // np.size(value)
        relative, lost = f.summation(n)
        bound = f.after_sum(value, (np.sum(np.abs(x.value), **options) + spread) * relative + lost + spread)
        check(np.sum(x, **options), value, bound)
        check(x.sum(**options), value, bound)
        mean = f.rounded(value / n, bound / n, f.quotient) if n != 2 else bound / 2 + f.underflow
        check(np.mean(x, **options), value / n, mean)
        for function, result in ((np.max, np.max(x.value, axis=axis, keepdims=True)), (np.min, np.min(x.value, axis=axis, keepdims=True))):
            reach = np.max(x.bounds() * SLACK - np.abs(x.value - result), **options)
            check(function(x, **options), function(x.value, **options), np.where(np.any(bounds), reach, 0))
            assert np.any(bounds) or function(x, **options).exact
        check(x.max(**options), np.max(x.value, **options), np.max(x, **options).bound)


def test_reductions_of_everything_by_default() -> None:
    """Without an axis a reduction takes all entries and leaves a number; of one term each it leaves the bounds."""
    f, arithmetic = made("float32")
    x = ball(arithmetic, GRID, GRID_BOUNDS)
    for found in (np.sum(x), x.sum(), np.mean(x), np.max(x), x.max(), np.min(x)):
        assert found.shape == ()
    thin = ball(arithmetic, [[1.0], [2.0]], [[0.5], [0.25]])
    check(np.sum(thin, axis=1), [1, 2], [0.5, 0.25])
    check(np.sum(arithmetic.exact([[1.0], [2.0]]), axis=1), [1, 2], 0)
    check(np.mean(thin, axis=1), [1, 2], [0.5, 0.25])
    check(np.max(thin, axis=1), [1, 2], [0.5 * SLACK, 0.25 * SLACK])
    check(np.max(ball(arithmetic, [[1.0, math.inf]], [[0.0, math.inf]]), axis=1), [math.inf], [math.inf])
    check(np.sum(ball(arithmetic, np.zeros((0, 2)), np.zeros((0, 2))), axis=0), [0, 0], [0, 0])
    relative, lost = f.summation(3)
    check(np.mean(arithmetic.exact([3.0, 5.0, 7.0])), 5.0, f.rounded(5, (relative * 15 + lost) / 3, f.quotient))


def test_choices() -> None:
    """A decided choice has the bound of what it took, an open one holds both balls, and one of an unknown ball is unknown."""
    _, arithmetic = made("float32")
    x, y = ball(arithmetic, [1.0, 2.0, 3.0], [0.5, 0.25, 0.125]), ball(arithmetic, [-1.0, 5.0, 3.5], [0.0625, 2.0, math.inf])
    exact = ball(arithmetic, [7.0, 8.0, 9.0], 0.0)
    mask = np.array([True, False, True])
    check(np.where(mask, x, y), [1, 5, 3], [0.5, 2, 0.125])
    check(np.where(~mask, x, y), [-1, 2, 3.5], [0.0625, 0.25, math.inf])
    check(np.where(mask, x, exact), [1, 8, 3], [0.5, 0, 0.125])
    check(np.where(mask, exact, x), [7, 2, 9], [0, 0.25, 0])
    check(np.where(mask, exact, y), [7, 5, 9], [0, 2, 0])
    check(np.where(mask, x, 0.1), [1, 0.1, 3], [0.5, 2.0**-24 * 0.1 + 2.0**-126, 0.125])
    assert np.where(mask, exact, 2.0 * exact).exact
    assert np.where(exact > 8, exact, 1.0).exact
    decided = ball(arithmetic, [1.0, -1.0, 1.0], 0.5) > 0
    check(np.where(decided, x, y), [1, 5, 3], [0.5, 2, 0.125])
    tied = ball(arithmetic, [1.0, -1.0, 0.0], [0.5, 0.5, 0.0]) > 0  # a tie among balls, which is not open
    assert np.where(tied, exact, 2.0 * exact).exact
    unsure = ball(arithmetic, [1.0, -1.0, -0.25], [0.5, 0.5, 0.5]) > 0
    check(np.where(unsure, x, exact), [1, 8, (2.875 + 9) / 2], [0.5, 0, 9 - (2.875 + 9) / 2])
    check(np.where(unsure, exact, x), [7, 2, (2.875 + 9) / 2], [0, 0.25, 9 - (2.875 + 9) / 2])
    check(np.where(unsure, x, y), [1, 5, 3.5], [0.5, 2, math.inf])
    either_way = ball(arithmetic, 0.0, 1.0) > 0
    nested = ball(arithmetic, [0.0, 1.0, 1.0], [0.5, 2.0, 0.5]), ball(arithmetic, [1.0, 1.0, 1.0], [0.25, 1.0, 2.0])
    check(np.where(either_way, *nested), [0.375, 1, 1], [0.875, 2, 2])
    check(np.where(either_way, *nested[::-1]), [0.375, 1, 1], [0.875, 2, 2])
    same = ball(arithmetic, [1.0, 2.0, 3.0], 0.5)
    check(np.where(mask, same, x), [1, 2, 3], [0.5, 0.25, 0.5])
    check(np.where(mask, x, same), [1, 2, 3], [0.5, 0.5, 0.125])
    check(np.where(np.array([2, 0, 1]), x, y), [1, 5, 3], [0.5, 2, 0.125])


def test_masks_know_their_arithmetic() -> None:
    """Masks joined by `and`, `or` and `not`, with plain ones on either side, keep answers and arithmetic, open or not."""
    _, arithmetic = made("float32")
    plain = np.array([True, True, False])
    for bound in (0.0, [2.0, 0.5, 2.0]):
        mask = ball(arithmetic, [1.0, -1.0, 1.0], bound) > 0
        for joined, answer in ((mask & plain, [1, 0, 0]), (plain & mask, [1, 0, 0]), (mask | ~plain, [1, 0, 1]), (~mask, [0, 1, 0]),
                               (mask & mask, [1, 0, 1]), (~plain | mask, [1, 0, 1])):
            assert joined.arithmetic is arithmetic
            assert joined.value.tolist() == [bool(a) for a in answer]
            assert isinstance(np.where(joined, 1.0, 2.0), Rounded)
    counted = rounding.Ternary([2, 0], [0, 3])
    assert (counted.value.tolist(), counted.undecided.tolist()) == ([True, False], [False, True])


def test_joints_and_parts() -> None:
    """Arrays are joined and cut along the axis that is named, the first by default, bounds and all."""
    _, arithmetic = made("float32")
    x, plain = ball(arithmetic, GRID, GRID_BOUNDS), np.array([[7.0, 8.0, 9.0], [1.0, 2.0, 3.0]])
    zero = np.zeros((2, 3))
    for function in (np.concatenate, np.stack):
        for axis in (0, 1):
            check(function([x, plain], axis=axis), function([GRID, plain], axis=axis), function([GRID_BOUNDS, zero], axis=axis))
            check(function([plain, x], axis=axis), function([plain, GRID], axis=axis), function([zero, GRID_BOUNDS], axis=axis))
        check(function([x, plain]), function([GRID, plain]), function([GRID_BOUNDS, zero]))
        assert function([arithmetic.exact(plain), plain]).exact
    for options in ({}, {"axis": 0}, {"axis": 1}):
        for part, value, bound in zip(np.split(x, [1], **options), np.split(x.value, [1], **options),
                                      np.split(x.bound, [1], **options), strict=True):
            check(part, value, bound)
        assert all(part.exact for part in np.split(arithmetic.exact(plain), [1], **options))
    numbered = ball(arithmetic, [[0.0, 2.0]], 0.25)
    check(np.split(numbered, 2, 1)[1], [[2]], [[0.25]])


def test_equal_expressions() -> None:
    """Either of two equal expressions reaches as far as the further one, in their common shape; what is unknown stays so."""
    _, arithmetic = made("float32")
    x, y = ball(arithmetic, [1.0, 2.0], [0.5, 0.25]), ball(arithmetic, [1.5, 1.0], [0.25, 4.0])
    check(either(x, y), [1, 2], [0.75, 5])
    check(either(y, x), [1.5, 1], [1, 4])
    check(either(x, np.array([4.0, 2.0])), [1, 2], [3, 0.25])
    check(either(np.array([4.0, 2.0]), x), [4, 2], [3.5, 0.25])
    check(either(x[0], y), [1, 1], [0.75, 4])
    check(either(ball(arithmetic, [1.0, 2.0, 1.0], 0.0), ball(arithmetic, [math.nan, 2.5, 3.0], 0.0)), [1, 2, 1], [math.inf, 0.5, 2])
    check(either(ball(arithmetic, 1.0, 0.125), ball(arithmetic, 2.0, 0.0)), 1, 1)
    plain = np.zeros(2)
    assert either(plain, np.ones(2)) is plain


@each_format
def test_sums_of_few_arrays(name: str) -> None:
    """Three arrays and more may be added in any order, each sum stored; two have one order, and plain arrays no bounds."""
    f, arithmetic = made(name)
    x, y, z = ball(arithmetic, [1.0, -2.0], [0.5, 0.25]), ball(arithmetic, [4.0, 8.0], 0.0), ball(arithmetic, [-3.0, 3.0], 0.125)
    for terms in ([x, y, z], [z, x, y, x], [x, np.array([0.5, 1.0]), z]):
        balls = [arithmetic.lift(t) for t in terms]
        spread = sum(b.bounds() for b in balls)
        magnitude = sum(np.abs(b.value) for b in balls) + spread
        n = len(terms) - 1
        check(added(terms), sum(b.value for b in balls), spread + magnitude * f.gamma(n, f.roundoff) + n * f.underflow)
    check(added([x, z]), [-2, 1], f.rounded([-2, 1], [0.625, 0.375]))
    assert added([x]) is x
    assert added([np.ones(2), np.ones(2), np.ones(2)]).tolist() == [3, 3]
    for size, known in ((f.largest / 4 * (1 - MARGIN), True), (f.largest / 4, False)):
        edge = ball(arithmetic, [size, 0.0], [0.0, size])
        zero = ball(arithmetic, [0.0, 0.0], 0.0)
        assert np.isfinite(added([edge, zero, zero]).bound).tolist() == [known, known]
    assert np.isinf(added([ball(arithmetic, [math.nan], 0.0), x[:1], x[:1]]).bound).all()


def prefix(x: Rounded, axis: int) -> tuple[Any, Any, Any]:
    """Return the sums of values, magnitudes and bounds up to each place along an axis."""
    return np.cumsum(x.value, axis), np.cumsum(np.abs(x.value), axis), np.cumsum(x.bounds(), axis)


@each_format
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_sums(name: str, axis: int) -> None:
    """The k-th running sum has k - 1 stored additions, and the last alone is that of them all."""
    f, arithmetic = made(name)
    unit = max(f.roundoff, f.accumulate + OWN)
    for bounds in (0.0, GRID_BOUNDS):
        x = ball(arithmetic, GRID, bounds)
        value, magnitude, spread = prefix(x, axis)
        additions = np.broadcast_to(np.arange(3) if axis else np.arange(2)[:, None], (2, 3))
        relative = np.array([f.gamma(int(n), unit) for n in additions.ravel()]).reshape(2, 3)
        bound = (magnitude + spread) * relative + additions * (1 + relative) * f.underflow + spread
        check(running_sum(x, axis), value, bound)
        check(running_sum(x, axis, last=True), np.take(value, -1, axis), np.take(bound, -1, axis))
        ends = running_sum(x, axis, backwards=True)
        mirrored = running_sum(np.flip(x, axis), axis)
        check(ends, np.flip(mirrored.value, axis), np.flip(mirrored.bounds(), axis))
        assert ends.value.flags.c_contiguous
        check(running_sum(x, axis, last=True, backwards=True), np.take(value, -1, axis), np.take(bound, -1, axis))
    assert running_sum(np.array(GRID), axis).tolist() == np.cumsum(GRID, axis).tolist()
    for kind in (np.float64, np.complex128, object):
        found = running_sum(np.array(GRID, dtype=kind), axis, backwards=True)
        assert found.dtype == kind
        assert found.tolist() == np.flip(np.cumsum(np.flip(GRID, axis), axis), axis).tolist()
    assert running_sum(np.array(GRID), axis, last=True).tolist() == np.sum(GRID, axis).tolist()


@each_format
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_products(name: str, axis: int) -> None:
    """The k-th running product, factor and all, has k multiplications, of which an underflow may be multiplied by what comes later."""
    f, arithmetic = made(name)
    positions = np.broadcast_to(np.arange(1, 4) if axis else np.arange(1, 3)[:, None], (2, 3))
    for bounds in (0.0, GRID_BOUNDS):
        for factor in (1.0, 3.0, 2.0, ball(arithmetic, 1.0, 0.25), ball(arithmetic, [[0.5, 4.0, 1.0]], [[0.125, 0.0, 0.5]]),
                       ball(arithmetic, [[1.0, 1.0, 1.0]], 0.0)):
            x, by = ball(arithmetic, GRID, bounds), arithmetic.lift(factor)
            products = positions - (isinstance(factor, float) and factor == 1)
            relative = np.array([f.gamma(int(n), f.roundoff) for n in products.ravel()]).reshape(2, 3)
            value = np.cumprod(x.value, axis) * by.value
            top, top_by = np.abs(x.value) + x.bound, np.abs(by.value) + by.bound
            reach = np.cumprod(np.maximum(top, 1), axis) * np.maximum(top_by, 1) * (1 + relative)
            most = np.cumprod(top, axis) * top_by
            own = 0 if x.exact and by.exact else most - np.abs(value) + 4 * (products + 1) * OWN * most
            bound = 4 * products * f.underflow * reach + own + most * relative
            check(running_product(x, axis, factor), value, bound)
            if not by.ndim:
                check(running_product(x, axis, factor, last=True), np.take(value, -1, axis), np.take(bound, -1, axis))
        check(running_product(x, axis), np.cumprod(GRID, axis), running_product(x, axis, 1.0).bound)
    assert running_product(np.array(GRID), axis, 2.0).tolist() == (np.cumprod(GRID, axis) * 2).tolist()
    assert running_product(np.array(GRID), axis).tolist() == np.cumprod(GRID, axis).tolist()
    assert running_product(np.array(GRID), axis, 2.0, last=True).tolist() == (np.prod(GRID, axis) * 2).tolist()


@each_format
def test_running_products_that_may_overflow(name: str) -> None:
    """A product is known while it, without the factors below 1, is within the format by as many terms as there are."""
    f, arithmetic = made(name)
    limit = f.largest / SLACK / 2 / (1 + f.gamma(1, f.roundoff))
    for size, known in ((limit * (1 - MARGIN), True), (limit * (1 + MARGIN), False)):
        found = running_product(ball(arithmetic, [[1.0, size], [0.5, 1.0], [2.0, 0.5]], 0.0), 1)
        assert np.isfinite(found.bound).tolist() == [[True, known], [True, True], [True, True]]
        assert np.isfinite(running_product(ball(arithmetic, [[size, 2.0**-3]], 0.0), 1).bound).tolist() == [[
            size <= f.largest / SLACK / 2, known]]
    edge = running_product(ball(arithmetic, [[f.largest / SLACK / 2, 1.0]], 0.0), 1)
    assert np.isfinite(edge.bound).tolist() == [[True, False]]
    single = f.largest / SLACK / (1 + f.gamma(1, f.roundoff))
    for size, known in ((single * (1 - MARGIN), True), (single * (1 + MARGIN), False)):
        assert np.isfinite(running_product(ball(arithmetic, [0.5], 0.0), 0, ball(arithmetic, [size], 0.0)).bound).tolist() == [known]


@each_format
@pytest.mark.parametrize("bounds", [0.0, 0.125])
def test_running_products_of_some_among_many(name: str, bounds: float) -> None:
    """Told what its factors are among, a product has the bound it has without, but that an underflow may meet all of them."""
    f, arithmetic = made(name)
    many = ball(arithmetic, [3.0, 0.0, -4.0, 0.5], bounds)
    some = np.where(np.eye(4, dtype=bool), 1, many)
    n, top = np.arange(1, 5), np.maximum(np.abs(many.value) + bounds, 1)
    assert top.tolist() == [3 + bounds, 1, 4 + bounds, 1]
    over = np.cumprod(np.where(np.eye(4, dtype=bool), 1, top), axis=-1)
    more = 4 * n * f.underflow * 2 * (1 + np.array([f.gamma(int(k), f.roundoff) for k in n])) * (np.cumprod(top) - over)
    assert (more >= 0).all()
    assert more[0, 3] > 0
    own = running_product(some, -1, 2.5)
    assert (own.bound[0] > 0).all()
    more *= 1.25  # of the factor, over the 2 above
    check(running_product(some, -1, 2.5, among=many), own.value, own.bound + more)
    check(running_product(some, -1, 2.5, last=True, among=many), own.value[:, -1], own.bound[:, -1] + more[:, -1])


@each_format
def test_running_products_among_too_many_are_judged_by_themselves(name: str) -> None:
    """Where the product of all may overflow, that of some is known all the same."""
    f, arithmetic = made(name)
    many = ball(arithmetic, [f.largest / 16, 64.0, 2.0], 0.0)
    some = np.where(np.eye(3, dtype=bool), 1, many)
    for last in (False, True):
        own, told = (running_product(some, -1, last=last, **among) for among in ({}, {"among": many}))
        check(told, own.value, own.bound)
    assert np.isfinite(told.bound).tolist() == [True, True, False]


@each_format
def test_scattered_sums(name: str) -> None:
    """What meets in one place is summed, in the accumulator or stored each time; what meets nothing keeps its bound."""
    f, arithmetic = made(name)
    index = np.array([[2, 0, 2], [2, 3, 0]])
    for bounds in (0.0, GRID_BOUNDS):
        x = ball(arithmetic, GRID, bounds)
        gathered = [[(v, b) for v, b, i in zip(x.value.ravel(), x.bounds().ravel(), index.ravel(), strict=True) if i == place]
                    for place in range(5)]
        value = np.array([sum(v for v, _ in terms) for terms in gathered])
        magnitude, spread = (np.array([sum(t) for t in ts]) for ts in
                             ([[abs(v) for v, _ in terms] for terms in gathered], [[b for _, b in terms] for terms in gathered]))
        relative, lost = f.summation(3)
        check(scatter_add(x, index, (5,)), value, f.after_sum(value, (magnitude + spread) * relative + lost + spread))
        additions = np.array([1, 0, 2, 0, 0])
        unit = max(f.roundoff, f.accumulate + OWN)
        each = np.array([f.gamma(int(n), unit) for n in additions])
        check(scatter_add(x, index, (5,), stored=True), value, (magnitude + spread) * each + additions * (1 + each) * f.underflow + spread)
        places = (np.array([[2, 0, 2], [3, 3, 0]]), np.array([0, 1, 0]))  # two terms at most
        sparse = np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
        for total, terms in zip(sparse, (x.value, np.abs(x.value), x.bounds()), strict=True):
            np.add.at(total, places, terms)
        met = np.array([[0, 0], [0, 0], [1, 0], [0, 0]])
        relative, lost = f.summation(2)
        value2, most = sparse[0], sparse[1] + sparse[2]
        check(scatter_add(x, places, (4, 2)), value2, f.after_sum(value2, most * relative + lost + sparse[2]))
        each = f.gamma(1, unit)
        check(scatter_add(x, places, (4, 2), stored=True), value2, (most * each + (1 + each) * f.underflow) * met + sparse[2])
        apart = scatter_add(x[0], (np.array([2, 0, 3]), 1), (4, 2))
        check(apart, [[0, -2], [0, 0], [0, 1], [0, 4]], [[0, x.bounds()[0, 1]], [0, 0], [0, x.bounds()[0, 0]], [0, x.bounds()[0, 2]]])
        assert apart.exact == x.exact
    assert scatter_add(np.array(GRID), index, (5,)).tolist() == value.tolist()


def test_scattered_plain_arrays() -> None:
    """Plain arrays of any kind of number are scattered in their own type, also where there is nothing to scatter."""
    index = (np.array([1, 0, 1]), slice(None))
    kinds: list[Any] = [np.float64, np.complex128, object]
    for kind in kinds:
        x = np.array([[1, 2], [3, 4], [5, 6]], dtype=kind)
        found = scatter_add(x, index, (3, 2))
        assert found.dtype == kind
        assert found.tolist() == [[3, 4], [6, 8], [0, 0]]
        empty = scatter_add(x[:0], (np.zeros(0, int),), (3, 2))
        assert (empty.dtype, empty.shape) == (np.dtype(kind), (3, 2))
        assert not empty.any()


def test_moves() -> None:
    """What only moves entries takes arguments by place and by name, and moves the bounds alike."""
    _, arithmetic = made("float32")
    x = ball(arithmetic, GRID, GRID_BOUNDS)
    for move in (lambda a: np.reshape(a, (3, 2)), lambda a: np.swapaxes(a, 0, 1), lambda a: np.expand_dims(a, axis=1),
                 lambda a: np.flip(a, axis=0), lambda a: np.moveaxis(a, 0, -1)):
        check(move(x), move(x.value), move(x.bound))


def test_reshaped_arrays() -> None:
    """The method moves the bounds as the function does, and keeps the arithmetic."""
    _, arithmetic = made("float32")
    for bounds in (0.0, GRID_BOUNDS):
        x = ball(arithmetic, GRID, bounds)
        for moved in (x.reshape((3, 2)), x.reshape(3, 2), np.reshape(x, (3, 2))):
            check(moved, np.reshape(GRID, (3, 2)), np.reshape(x.bounds(), (3, 2)))
            assert moved.arithmetic is arithmetic


def test_what_is_made_when_imported(monkeypatch: pytest.MonkeyPatch, rounding_anew: Callable[..., ModuleType]) -> None:
    """The tables of formats and rules hold when the module's text is run anew (a mutant comes to life after the first import)."""
    anew = rounding_anew()
    for name in ("rounding", "PRECISIONS", "Arithmetic", "Rounded"):
        monkeypatch.setitem(globals(), name, anew if name == "rounding" else getattr(anew, name))
    for name in FORMATS:
        test_formats(name)
        for function in SLOPES:
            test_functions_of_balls(function, name)
    for function in SLOPES:
        test_functions_of_unknown_numbers(function)
    test_extrema_of_two(np.maximum, 1)
    test_extrema_of_two(np.minimum, -1)
    for function in (np.less, np.greater_equal, np.equal):
        test_comparisons_at_the_edge(function)
    test_joints_and_parts()
    test_moves()


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16", "float16", "tf32"])
@pytest.mark.parametrize("bounds", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_inner_products_have_the_bound_of_their_steps(precision: str, bounds: tuple[float, float]) -> None:
    """A sum of products along an axis is bounded as the products and their sum are, one after the other."""
    _, arithmetic = made(precision)
    rng = np.random.default_rng(0)
    x, y = (ball(arithmetic, rng.standard_normal((3, 4, 5)), np.full((3, 4, 5), b) if b else 0.0) for b in bounds)
    for axis in (-1, 1):
        found, steps = inner(x, y, axis), np.sum(x * y, axis=axis, keepdims=True)
        assert found.shape == steps.shape
        assert (np.abs(found.value - steps.value) <= 2.0**-45).all()
        assert (np.abs(found.bounds() - steps.bounds()) <= 2.0**-40 * steps.bounds()).all()
    assert np.array_equal(inner(x.value, y.value, 1), np.sum(x.value * y.value, axis=1, keepdims=True))


@each_format
@pytest.mark.parametrize("bounds", PAIRS)
def test_differences_of_multiples(name: str, bounds: tuple[Any, Any]) -> None:
    """x a - y b varies by what its corners allow, by two roundings of what either product may be, and by the underflows it is told of."""
    f, arithmetic = made(name)
    x, y = (np.stack([one, one]) for one in operands(arithmetic, bounds)[:2])
    bx, by = x.bounds(), y.bounds()
    a, b = ball(arithmetic, [[2.0], [0.25]], [[0.5], [0.0]]), ball(arithmetic, 3.0, 0.125)
    value = x.value * a.value - y.value * b.value
    growth = 2 * f.roundoff / (1 - 2 * f.roundoff)
    spread = np.abs(x.value) * a.bound + bx * (np.abs(a.value) + a.bound) + np.abs(y.value) * b.bound + by * (np.abs(b.value) + b.bound)
    most = (np.abs(x.value) + bx) * (np.abs(a.value) + a.bound) + (np.abs(y.value) + by) * (np.abs(b.value) + b.bound)
    check(difference(x, a, y, b, 0), value, spread + growth * most)
    for underflows in (3, np.array([[2.0], [5.0]])):
        zero = ball(arithmetic, np.zeros((2, 2)), 0.0)
        check(difference(zero, a, zero, b, underflows), np.zeros((2, 2)),
              np.broadcast_to(underflows * f.underflow * (1 + growth), (2, 2)))
    for sign in (1 - MARGIN, 1 + MARGIN):
        large = ball(arithmetic, f.largest / 4 * sign / 2, 0.0)
        one = ball(arithmetic, 1.0, 0.0)
        assert np.isfinite(difference(large, one, ball(arithmetic, 0.0, 0.0), one, 0).bounds()).all()
    twice = ball(arithmetic, f.largest, 0.0)
    assert np.isinf(difference(twice, one, twice, ball(arithmetic, -1.0, 0.0), 0).bounds()).all()


@each_format
def test_differences_whose_products_may_overflow_are_unknown(name: str) -> None:
    """Where either product may leave the format's range nothing is known of their difference, and something just before."""
    f, arithmetic = made(name)
    last = f.largest / SLACK / (1 + 2 * f.roundoff / (1 - 2 * f.roundoff))
    three, few = ball(arithmetic, 3.0, 0.0), ball(arithmetic, [1.0, 1.0], 0.0)
    for sign, known in ((1 - MARGIN, True), (1 + MARGIN, False)):
        large, half = ball(arithmetic, [last * sign / 3, 1.0], 0.0), ball(arithmetic, [last / 6, 1.0], 0.0)
        most = ball(arithmetic, [last * sign / 6, 1.0], [last * sign / 6, 0.0])
        cases = [(large, large), (large, half), (half, large)]
        if f.roundoff < 2.0**-20:  # elsewhere the difference itself may overflow
            cases += [(most, few), (few, most)]
        for x, y in cases:
            assert np.isfinite(difference(x, three, y, three, 3).bounds()).tolist() == [known, True]
    unknown = ball(arithmetic, [math.nan, 1.0], 0.0)
    assert np.isfinite(difference(unknown, three, few, three, 3).bounds()).tolist() == [False, True]
    assert np.isfinite(difference(few, three, unknown, three, 3).bounds()).tolist() == [False, True]


def test_inner_products_whose_terms_may_overflow_before_they_cancel() -> None:
    """A product is stored, and so must fit the format, though the sum may be held by a wider one."""
    _, arithmetic = made("float16")
    for size, known in ((100.0, True), (300.0, False)):
        x, y = arithmetic.exact(np.array([[size, size]])), arithmetic.exact(np.array([[size, -size]]))
        assert np.isfinite(inner(x, y, 1).bounds()).tolist() == [[known]]
    for reach, known in ((0.25, True), (1.6, False)):  # 33000 (1 + reach) is the largest product
        x, y = ball(arithmetic, [[1.0, 1.0]], [[reach, 0.0]]), arithmetic.exact(np.array([[33000.0, -33000.0]]))
        for found in (inner(x, y, 1), inner(y, x, 1)):
            assert np.isfinite(found.bounds()).tolist() == [[known]]


def test_inner_products_of_arrays_of_two_shapes_or_with_slopes() -> None:
    """Arrays that broadcast, plain ones, and those with a rule of their own are multiplied and summed one after the other."""
    _, arithmetic = made("float32")
    x, y = ball(arithmetic, GRID, GRID_BOUNDS), ball(arithmetic, [[2.0, 3.0, -1.0]], 0.25)
    for a, b in ((x, y), (y, x), (x, y[:, :1]), (y[:, 1:2], x)):
        check(inner(a, b, 1), np.sum(a.value * b.value, axis=1, keepdims=True), np.sum(a * b, axis=1, keepdims=True).bounds())
    slope = Directed.of(np.array(GRID), arithmetic, np.ones((2, 3)))
    for a, b in ((slope, x), (x, slope), (slope, slope)):
        found = inner(a, b, 1)
        assert isinstance(found, Directed)
        assert np.array_equal(found.slope, np.sum(a * b, axis=1, keepdims=True).slope)


def test_functions_of_what_has_slopes() -> None:
    """A mask of rounded arrays, and a rounded array, leave functions of arrays with a rule of their own to that rule."""
    _, arithmetic = made("float32")
    mask = ball(arithmetic, [1.0, -1.0], 0.5) > 0
    slope = Directed.of(np.array([3.0, 4.0]), arithmetic, np.array([0.5, 0.25]))
    chosen: Any = np.where(mask, slope, 1.0)
    assert isinstance(chosen, Directed)
    assert chosen.slope.tolist() == [0.5, 0]
    joined: Any = np.concatenate([ball(arithmetic, [1.0, -1.0], 0.5), slope])
    assert isinstance(joined, Directed)
    assert joined.slope.tolist() == [0, 0, 0.5, 0.25]


def test_inner_products_that_may_overflow_are_unknown() -> None:
    """A product past the largest number leaves its sum unknown, and a sum of one product is that product."""
    _, arithmetic = made("float32")
    x = arithmetic.exact(np.array([[1e30, 1.0], [1.0, 1.0]]))
    assert np.isinf(inner(x, x, 1).bounds()).tolist() == [[True], [False]]
    one = arithmetic.exact(np.array([[3.0]]))
    assert inner(one, one, 1).bounds() == (one * one).bounds()


def test_float32_numbers_are_kept_as_they_came() -> None:
    """An exact float32 array is moved about as it is, and is a float64 array wherever it is computed with."""
    _, arithmetic = made("float32")
    given = np.float32([[1.5, -2.0], [0.25, 3.0]])
    moved = np.concatenate([arithmetic.exact(given), arithmetic.exact(given[:1])]).T
    assert moved.held.dtype == np.float32
    assert moved.dtype == moved.value.dtype == np.float64
    assert (moved + 1.0).value.dtype == np.float64
    assert np.array_equal(moved.value, np.concatenate([given, given[:1]]).T)
    assert moved.magnitude.dtype == np.float64
