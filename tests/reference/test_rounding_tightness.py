"""The balls are hardly larger than the worst evaluation there is, kinks are exact sets, and what has no rule says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from backproof.reference.rounding import (
    BOUND_SLACK,
    PRECISIONS,
    REFERENCE_ROUNDOFF,
    REFERENCE_ULPS,
    TRUNCATED,
    Arithmetic,
    Precision,
    Rounded,
    Ternary,
    either,
    precision_named,
)
from flint import arb, ctx

TERMS = 100
each_precision = pytest.mark.parametrize("precision", PRECISIONS.values(), ids=list(PRECISIONS))


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with ctx.workprec(200):
        yield


def own_share(p: Precision, roundoff: float) -> float:
    """Return by what our own rounding in float64 widens a bound: by 1, doubling it, in float64, and hardly in the others."""
    return 1 + REFERENCE_ROUNDOFF / max(roundoff, p.store)


def slack(ball: Any, number: float, truth: Fraction) -> float:
    """Return the bound over the error of an evaluation, having seen that number and truth are inside."""
    value, radius = Fraction(float(ball.value.item())), Fraction(float(ball.radius().item()))
    assert abs(Fraction(number) - value) <= radius
    assert abs(truth - value) <= radius
    return float(radius / abs(Fraction(number) - truth))


def held(p: Precision, number: float) -> float:
    return float(p.held(np.float64(number)))


def add(p: Precision, a: float, b: float) -> float:
    """Add as the precision's accumulator does: to nearest, or towards zero where tensor cores may."""
    kind = np.float64 if p.name == "float64" else np.float32
    total = kind(a) + kind(b)
    truncates = p.accumulate == TRUNCATED and abs(float(total)) > abs(a + b)
    return float(np.nextafter(total, kind(0)) if truncates else total)


def worst_terms(p: Precision) -> list[float]:
    """Return terms of which every addition loses all it can in the same direction, and so does storing the sum.

    In order, 1 + t is 1: to nearest up to t = u (a tie, to even), truncated up to just below t = 2^-23. A wide sum starts with
    half a spacing more, less a little, that storing it takes away.
    """
    scale = 2.0**10  # so that the small terms are normal numbers of float16
    t = held(p, scale * p.accumulate * (1 - 2 * p.store if p.accumulate == TRUNCATED else 1))
    half = [held(p, scale * p.store * (1 - 4 * p.store))] if p.wide else []
    return [scale, *half, *[t] * (TERMS - 1 - len(half))]


# gamma_{n-1} over n - 1 lost terms of u: 1 / (1 - n u). A wide sum is mostly what storing takes, u of the half spacing less a
# little: 1 / (1 - 4 u), which is 1.016 in bfloat16.
SUM_FACTOR = {"float64": 1.001, "float32": 1.001, "bfloat16": 1.02, "float16": 1.01, "tf32": 1.001}


@each_precision
def test_sums_are_tight(precision: Precision) -> None:
    """The bound of a sum of n terms is within a stated factor of n - 1 roundings that all go the same way."""
    terms = worst_terms(precision)
    total = terms[0]
    for term in terms[1:]:
        total = add(precision, total, term)
    ball = np.sum(Arithmetic(precision).exact(terms))
    found = slack(ball, held(precision, total), sum(map(Fraction, terms), Fraction(0)))
    assert found <= SUM_FACTOR[precision.name] * own_share(precision, precision.accumulate)


# as for sums; gamma_n counts the rounding of each product too, which is exact here: n / (n - 1)
MATMUL_FACTOR = {name: factor * TERMS / (TERMS - 1) for name, factor in SUM_FACTOR.items()} | {"tf32": 1.01}


@each_precision
def test_contractions_are_tight(precision: Precision) -> None:
    """The bound of a product of matrices is within a stated factor of roundings that all go the same way."""
    x = worst_terms(precision)
    y = [1.0] * TERMS
    if precision.name == "tf32":  # the factors lose 2^-10 each and the sum is a trifle beside that
        x[0], y[0] = (s * (1 + 2.0**-10 * (1 - 2.0**-13)) for s in (x[0], 1.0))
    kept = [2.0**10 if a > 1 else a for a in x] if precision.name == "tf32" else x
    total = kept[0]
    for term in kept[1:]:
        total = add(precision, total, term)
    arithmetic = Arithmetic(precision)
    ball = arithmetic.exact([x]) @ arithmetic.exact([[b] for b in y])
    truth = sum((Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)), Fraction(0))
    found = slack(ball, held(precision, total), truth)
    assert found <= MATMUL_FACTOR[precision.name] * own_share(precision, precision.accumulate)


@each_precision
def test_contractions_of_balls_are_tight(precision: Precision) -> None:
    """Operands pushed to the ends of their balls reach the bound of their product but for its own rounding."""
    arithmetic = Arithmetic(precision)
    x = Rounded(np.full((1, 4), 1.5), np.full((1, 4), 0.25), arithmetic)
    furthest = 4 * 1.75 * 1.75
    rounding = 8 * max(precision.store, precision.multiply, 4 * precision.accumulate)
    assert furthest - 9 <= (x @ x.T).radius().item() <= (furthest - 9) * (BOUND_SLACK + rounding)


# (1 + 2 u a)(1 + 2 u b) with 4 a b u = 1 lies half way between two numbers: it errs by u in 1 + 2 u (a + b), where the bound is u
# relative; the worst is bfloat16's with a = b = 8
PRODUCT_FACTOR = 1.14


@each_precision
def test_products_are_tight(precision: Precision) -> None:
    """The bound of a product is within a stated factor of a product that lies half way between two numbers."""
    u, bits = precision.store, round(-np.log2(4 * precision.store))
    x, y = (1 + 2 * u * 2.0 ** (bits // 2), 1 + 2 * u * 2.0 ** (bits - bits // 2))
    dtype = precision.dtype.type
    arithmetic = Arithmetic(precision)
    found = slack(arithmetic.exact(x) * arithmetic.exact(y), float(dtype(x) * dtype(y)), Fraction(x) * Fraction(y))
    assert found <= PRODUCT_FACTOR * own_share(precision, u)


# The budget is 8 ulps of 2 u each where the function runs, and ours 4 of 2^-53. A wide result is stored besides: its half spacing
# dwarfs the ulps and is met to 1 in 25 by some number between 0 and 1/8.
EXP_FACTOR = {"float64": (8 + REFERENCE_ULPS) / 8, "float32": 1.0, "bfloat16": 1.04, "float16": 1.04, "tf32": 1.0}


@each_precision
def test_exponentials_are_tight(precision: Precision) -> None:
    """The bound of exp is within a stated factor of an evaluation that spends its whole budget of ulps."""
    arithmetic = Arithmetic(precision)
    spent = Fraction(1 + 2 * precision.ulps * min(precision.accumulate, precision.store))
    found = []
    for x in np.unique(precision.held(np.linspace(2.0**-6, 0.125, 300))) if precision.wide else [0.0]:
        middle = arb(float(x)).exp().mid().fmpq()
        truth = Fraction(int(middle.p), int(middle.q))
        ball = np.exp(arithmetic.exact(x))
        found += [slack(ball, held(precision, float(number)), truth) for number in (truth * spent, truth / spent)]
    assert min(found) <= EXP_FACTOR[precision.name] * BOUND_SLACK**2


@each_precision
def test_exponentials_of_balls_are_tight(precision: Precision) -> None:
    """The end of the argument's ball reaches the bound of exp but for its own rounding."""
    arithmetic = Arithmetic(precision)
    ball = np.exp(Rounded(np.ones(1), np.full(1, 0.25), arithmetic))
    furthest = float(arb(1.25).exp() - arb(1).exp())
    assert furthest <= ball.radius().item() <= furthest * (BOUND_SLACK**3 + 5 * arithmetic.elementary)


@each_precision
def test_softplus_keeps_its_left_tail(precision: Precision) -> None:
    """log(1 + e^x) as logaddexp(x, 0) is known to a few roundoffs of itself however small it is: no difference is rounded."""
    arithmetic = Arithmetic(precision)
    ball = np.logaddexp(arithmetic.exact(np.array([-8.0, 0.0, 8.0])), 0.0)
    assert (ball.radius() <= BOUND_SLACK**2 * (arithmetic.elementary * ball.value + precision.underflow)).all()


def test_small_terms_in_half_precision_do_not_count_as_underflow() -> None:
    """A sum of a thousand tiny float16 numbers is known to within its storing: the running sum is a float32."""
    ball = np.sum(Arithmetic(PRECISIONS["float16"]).exact(np.full(1000, 2.0**-20)))
    assert ball.radius().item() <= 1.4 * 2.0**-11 * ball.value.item()


@each_precision
def test_exact_operations_add_nothing(precision: Precision) -> None:
    """Scaling by 0 and powers of two, minima and maxima, signs and sums of one term round nothing."""
    arithmetic = Arithmetic(precision)
    x = arithmetic.exact(np.array([[-1.25, 0.0, 3.0]]))
    scaled = (2 * x, x * -1, x / 0.5, 0 * x, x[0] * 1)
    for ball in (*scaled, -x, abs(x), np.maximum(x, 0), np.max(x, axis=1), np.min(x), np.sum(x, axis=0)):
        assert ball.exact
    y = Rounded(np.array([-5.0, 5.0]), np.array([0.5, 0.25]), arithmetic)
    assert np.array_equal(np.maximum(y, 0).bound <= [0, 0.25 * (1 + 2.0**-20)], [True, True])
    assert np.max(y).bound <= 0.25 * (1 + 2.0**-20)
    assert np.min(y).bound <= 0.5 * (1 + 2.0**-20)


KINKS = [("own", (0.0, 0.0), (0.0, 0.0)), ("hull", (0.5, 0.5), (0.0, 1.0))]


@pytest.mark.parametrize(("kinks", "relu", "magnitude"), KINKS)
def test_kinks_are_exact_sets(kinks: str, relu: tuple[float, float], magnitude: tuple[float, float]) -> None:
    """At 0 relu' is 0 in own mode and exactly [0, 1] in hull mode, |x|' is 0 and exactly [-1, 1]; elsewhere both are numbers."""
    arithmetic = Arithmetic(PRECISIONS["float32"], kinks=kinks)
    x = arithmetic.exact(np.array([-2.0, 0.0, 2.0]))
    slope: Any = np.where(x > 0, 1.0, 0.0)
    sign: Any = np.where(x > 0, 1.0, np.where(x < 0, -1.0, 0.0))
    assert list(zip(slope.value, slope.bounds(), strict=True)) == [(0, 0), relu, (1, 0)]
    assert list(zip(sign.value, sign.bounds(), strict=True)) == [(-1, 0), magnitude, (1, 0)]
    assert arithmetic.ties == 3


@pytest.mark.parametrize("kinks", ["own", "hull"])
def test_open_comparisons_take_the_hull(kinks: str) -> None:
    """Where rounding leaves a comparison open, both modes take the hull, and no tie is counted."""
    arithmetic = Arithmetic(PRECISIONS["float32"], kinks=kinks)
    x = 3 * arithmetic.exact(np.array([0.1, 1.0, 5.0])) - 3
    slope: Any = np.where(x > 0, 1.0, 0.0)
    assert list(zip(slope.value, slope.bounds(), strict=True)) == [(0, 0), (0.5, 0.5), (1, 0)]
    assert arithmetic.ties == 0
    subnormal: Any = np.where(arithmetic.exact(1e-40) > 0, 1.0, 0.0)  # may be read as 0
    assert subnormal.bound == 0.5


COMPARISONS: list[tuple[Callable[[Any, Any], Any], list[bool]]] = [
    (np.greater, [False, False, True]), (np.greater_equal, [False, True, True]), (np.less, [True, False, False]),
    (np.less_equal, [True, True, False]), (np.equal, [False, True, False]), (np.not_equal, [True, False, True]),
]


@pytest.mark.parametrize(("compare", "answers"), COMPARISONS, ids=[f.__name__ for f, _ in COMPARISONS])
def test_comparisons_are_three_valued(compare: Callable[[Any, Any], Any], answers: list[bool]) -> None:
    """Clear cases are decided; an exact tie is decided in own mode and open in hull mode; touching or unknown balls are open."""
    for kinks in ("own", "hull"):
        arithmetic = Arithmetic(PRECISIONS["float64"], kinks=kinks)
        exact = compare(arithmetic.exact([-1.0, 0.0, 1.0]), 0)
        assert exact.value.tolist() == answers
        assert exact.open.tolist() == [False, kinks == "hull", False]
        blurred = compare(Rounded(np.array([1.0, 0.5, np.nan, np.inf]), np.array([0.5, 0.5, np.inf, np.inf]), arithmetic), 0)
        assert blurred.open.tolist() == [False, True, True, True]
        assert arithmetic.ties == 1


def test_logic_of_three_values() -> None:
    """`and`, `or` and `not` are open exactly where an open operand decides, alone, with each other and with plain masks."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    x = Rounded(np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.5, 0.0]), arithmetic)
    values: dict[Any, Any] = {False: x[0] > 0, "open": x[1] > 0, True: x[2] > 0}
    opposite = {False: True, "open": "open", True: False}

    def name(ternary: Any) -> Any:
        return "open" if ternary.open else bool(ternary.value)

    for a, b in itertools.product(values, values):
        expected = False if False in (a, b) else "open" if "open" in (a, b) else True
        assert name(values[a] & values[b]) == expected
        assert name(~values[a] | ~values[b]) == opposite[expected]
        if b != "open":
            plain = np.array(b)
            assert name(values[a] & plain) == name(plain & values[a]) == expected
            assert name(~values[a] | ~plain) == name(~plain | ~values[a]) == opposite[expected]


def test_hulls_of_balls() -> None:
    """An open choice holds both balls and nothing more, and beside an unknown ball is unknown; a closed one sees one branch."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    unsure = Rounded(np.zeros(3), np.ones(3), arithmetic) > 0
    x = Rounded(np.array([1.0, 1.0, 1.0]), np.array([0.5, 2.0**-60, 0.5]), arithmetic)
    y = Rounded(np.array([-2.0, 1.0, 0.0]), np.array([1.0, 2.0**-60, np.inf]), arithmetic)
    hull = np.where(unsure, x, y)
    assert hull.value.tolist() == [-0.75, 1.0, 0.0]
    assert hull.bound.tolist() == [2.25, 2.0**-60, np.inf]
    closed = np.where(arithmetic.exact(np.array([1.0, 1.0, -1.0])) > 0, x, y)
    assert closed.bound.tolist() == [0.5, 2.0**-60, np.inf]
    far: Any = np.where(unsure, 1.7e308, -1.7e308)
    assert (far.value.tolist(), far.bound.tolist()) == ([0.0] * 3, [1.7e308] * 3)


def test_either_covers_both_expressions() -> None:
    """The value stays the sound expression's, the bound reaches the far side of the common one's; plain arrays pass through."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    sound = Rounded(np.array([1.0, 1.0, 1.0]), np.array([0.5, 2.0, 0.1]), arithmetic)
    common = Rounded(np.array([2.0, 1.0, np.nan]), np.array([0.25, 1.0, 0.0]), arithmetic)
    ball = either(sound, common)
    assert (ball.value.tolist(), ball.bound.tolist()) == ([1.0, 1.0, 1.0], [1.25, 2.0, np.inf])
    assert either(np.ones(2), np.zeros(2)).tolist() == [1.0, 1.0]
    assert either(np.ones(3), sound).bound.tolist() == [0.5, 2.0, 0.1]
    assert either(sound[0], common).shape == (3,)

def test_moves_carry_their_bounds() -> None:
    """Functions that only move entries move value and bound alike, whatever shape the bound is kept in."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    index = np.array([[1], [0]])
    x = Rounded(np.arange(6.0).reshape(2, 3), np.array([0.5, 0.25, 0.125]), arithmetic)
    moves: list[Callable[[Any], Any]] = [
        lambda a: np.reshape(a, (3, 2)), np.transpose, lambda a: np.swapaxes(a, 0, 1), lambda a: np.moveaxis(a, 0, 1), np.ravel,
        np.flip, lambda a: np.expand_dims(a, 0), lambda a: np.squeeze(a[:1], 0), lambda a: np.broadcast_to(a, (4, 2, 3)),
        lambda a: a[::-1, None, 1], lambda a: np.take_along_axis(a, index, 1), lambda a: a.reshape(3, 2), lambda a: a.T,
        lambda a: a.reshape((6,)), lambda a: a[0, 0], lambda a: a.transpose(1, 0), lambda a: np.stack([a, a]),
        lambda a: np.concatenate([a, a], axis=1), lambda a: np.split(a, 3, axis=1)[1],
    ]
    for move in moves:
        moved = move(x)
        assert np.array_equal(moved.value, move(x.value))
        assert np.array_equal(moved.bounds(), move(x.bounds()))
        assert move(arithmetic.exact(x.value)).exact
    assert repr(x[0, 0]) == "Rounded(array(0.), bound=array(0.5), float32)"
    assert (np.shape(x), np.ndim(x), np.size(x), len(x), x.dtype) == ((2, 3), 2, 6, 2, np.dtype(np.float64))
    assert np.array_equal(np.zeros_like(x) + 1, np.ones_like(x))


def test_empty_and_scalar_arrays() -> None:
    """Empty sums are exactly 0 and sums of one term round nothing; arrays without axes behave as numbers."""
    for precision in PRECISIONS.values():
        arithmetic = Arithmetic(precision)
        nothing, one = arithmetic.exact(np.zeros((0, 3))), arithmetic.exact(np.float64(0.5))
        assert nothing.sum().exact
        assert np.sum(nothing, axis=0).shape == (3,)
        assert np.array_equal((nothing.T @ nothing).radius(), np.zeros((3, 3)))
        assert (nothing * nothing + 1).shape == (nothing / 3).shape == np.exp(nothing).shape == (0, 3)
        assert np.sum(arithmetic.exact(np.full((4, 1), 0.3)), axis=1).exact
        assert (one * one).shape == (one + 1).max().shape == np.where(one > 0, one, 1).shape == ()


UNSUPPORTED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "universal function": (np.sin, r"no rule for sin\.__call__; it knows absolute, add, .*tanh"),
    "method": (np.add.reduce, r"no rule for add\.reduce; it knows"),
    "function": (np.cumsum, r"no rule for numpy\.cumsum; it knows broadcast_to, .*, zeros_like"),
    "in place": (lambda x: x.__iadd__(1), r"takes no options: got out for add\. Write `x = x \+ y`"),
    "fractional power": (lambda x: x**0.5, r"positive whole powers only: got array\(0\.5\)"),
    "negative power": (lambda x: x**-1, "positive whole powers only: got"),
    "array of powers": (lambda x: x ** np.ones(2), "positive whole powers only: got"),
    "if": (lambda x: bool(x > 0), "three-valued and cannot steer an `if`: use np.where"),
    "arithmetic with a comparison": (lambda x: x * (x > 0), r"unsupported operand type\(s\) for \*: 'Rounded' and 'Ternary'"),
    "nothing rounded": (lambda x: np.where(Ternary(x.value > 0, undecided=True), 1, 2), "no operand is rounded: got int, int, T"),
}


@pytest.mark.parametrize(("call", "message"), UNSUPPORTED.values(), ids=list(UNSUPPORTED))
def test_what_is_not_supported_says_so(call: Callable[[Any], Any], message: str) -> None:
    """An operation without a rule raises TypeError, names itself and lists the known ones."""
    with pytest.raises(TypeError, match=message):
        call(Arithmetic(PRECISIONS["float32"]).exact([1.0, 2.0]))


def test_precision_names() -> None:
    """A precision is found by its name; an unknown name lists the known ones."""
    assert [precision_named(name).name for name in PRECISIONS] == list(PRECISIONS)
    with pytest.raises(ValueError, match=r"unknown precision: got 'float8', expected one of float64, float32, .*, tf32"):
        precision_named("float8")
