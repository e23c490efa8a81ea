"""The elementary functions on arrays of arbitrary-precision numbers and of fractions: the same values, to all their digits."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from backproof.reference import functions as f
from backproof.reference.direction import Directed
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded, added, either, one_sum
from backproof.truth.exact import balls, precise
from flint import arb
from scipy import special

POINTS = (-30.0, -1.5, -0.25, 0.125, 0.75, 2.0, 30.0)
BITS = 300


def _normal_density(x: Any) -> Any:
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


TRUTH: tuple[tuple[Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    (f.sigmoid, lambda x: 1 / (1 + (-x).exp())),
    (f.softplus, lambda x: (1 + x.exp()).log()),
    (f.log_sigmoid, lambda x: -(1 + (-x).exp()).log()),
    (f.normal_cdf, lambda x: (1 + (x / arb(2).sqrt()).erf()) / 2),
    (f.normal_pdf, _normal_density),
    (f.log1p, lambda x: (1 + x).log()),
    (f.absolute, abs),
    (lambda x: f.sigmoid_complement(x, f.sigmoid(x)), lambda x: 1 / (1 + x.exp())),
)


NAMES = [getattr(function, "__name__", "?") for function, _ in TRUTH]
FLOAT64 = PRECISIONS["float64"]


@pytest.mark.parametrize(("function", "truth"), TRUTH, ids=NAMES)
@pytest.mark.parametrize("lift", [lambda x: np.array([arb(v) for v in x], dtype=object), balls], ids=["arb", "balls"])
def test_functions_keep_all_digits_of_arbitrary_precision(function: Any, truth: Any, lift: Any) -> None:
    """On arrays of `arb`, plain or lifted, a function is its definition to 250 bits, tails included."""
    points = [x for x in POINTS if function is not f.log1p or x > -1]
    with precise(10 * BITS):
        wanted = [truth(arb(x)) for x in points]
    with precise(BITS):
        for x, want, got in zip(points, wanted, function(lift(points)), strict=True):
            value = getattr(got, "number", got)
            assert isinstance(value, arb)
            assert abs(value - want) <= abs(want) * arb(2) ** -200, f"at {x}: got {value}, expected {want}"


@pytest.mark.parametrize("function", [f.absolute, f.sign])
def test_rational_functions_stay_rational(function: Any) -> None:
    """|x| and its derivative on fractions are fractions."""
    x = np.array([Fraction(-1, 3), Fraction(2, 7)], dtype=object)
    assert list(function(x)) == [abs(v) if function is f.absolute else (v > 0) - (v < 0) for v in x]
    assert all(isinstance(v, Fraction) for v in function(x))


def test_softmax_of_arbitrary_precision_sums_to_one() -> None:
    """Softmax and its pullback run on balls: the sums are 1 and 0 to all digits."""
    with precise(BITS):
        x, dy = balls([[0.5, -30.0, 2.0]]), balls([[1.0, 0.25, -3.0]])
        y = f.softmax(x, -1)
        assert abs(np.sum(y).item().number - 1) <= arb(2) ** -280
        assert abs(np.sum(f.softmax_pullback(y, dy, -1)).item().number) <= arb(2) ** -280


def test_arithmetic_precision_is_put_back() -> None:
    """`precise` leaves the bits of Arb as they were, also after an error."""
    before = flint.ctx.prec

    def fails() -> None:
        with precise(BITS):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert flint.ctx.prec == before


def _stored_softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-abs(x)))


def _stored_expm1(x: Any) -> Any:
    return np.where(abs(x) > 0.5, np.exp(x) - 1, np.tanh(x / 2) * (np.exp(x) + 1)).astype(x.dtype)


def _stored_sigmoid(x: Any) -> Any:
    e = np.exp(-abs(x))
    return np.where(x < 0, e, x.dtype.type(1)) / (1 + e)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("function", "stored"), [(f.softplus, _stored_softplus), (f.expm1, _stored_expm1), (f.sigmoid, _stored_sigmoid)],
                         ids=["softplus", "expm1", "sigmoid"])
def test_steps_stored_in_half_precision_stay_within_the_bound(function: Any, stored: Any, precision: str) -> None:
    """Formed step by step in the format, a function lies in the ball, which is a few roundings wide; so does what it is rounded to."""
    known = PRECISIONS[precision]
    x = np.random.default_rng(3).uniform(-6, 6, 2000).astype(known.dtype)
    ball = function(Arithmetic(known).exact(x))
    exact = function(x.astype(np.float64))
    for answer in (stored(x), exact.astype(known.dtype)):
        assert (np.abs(answer.astype(np.float64) - ball.value) <= ball.radius()).all()
    assert (np.abs(stored(x).astype(np.float64) - exact) > known.store * np.abs(exact)).any()
    assert (ball.radius() < 6 * known.store * np.abs(exact) + 4 * known.underflow).all()


@pytest.mark.parametrize(("function", "own"), [(f.softplus, lambda x: np.logaddexp(x, 0.0)), (f.expm1, np.expm1),
                                               (f.sigmoid, special.expit)], ids=["softplus", "expm1", "sigmoid"])
def test_steps_are_not_stored_where_they_are_as_wide(function: Any, own: Any) -> None:
    """In float32 the bound is that of the function itself."""
    x = Arithmetic(PRECISIONS["float32"]).exact(np.linspace(-6, 6, 99))
    assert (function(x).bounds() == own(x).bounds()).all()


DENSE = np.concatenate([np.linspace(-37, 37, 401), np.linspace(-2.25, 2.25, 401)])


@pytest.mark.parametrize(("function", "truth"), TRUTH, ids=NAMES)
def test_functions_keep_their_digits_in_float64(function: Any, truth: Any) -> None:
    """On plain arrays a function is its definition within the ulps granted to an elementary function, tails included."""
    x = DENSE[DENSE > -1] if function is f.log1p else DENSE
    with precise(10 * BITS):
        for point, got in zip(x, function(x), strict=True):
            want = truth(arb(float(point)))
            assert abs(arb(float(got)) - want) <= FLOAT64.ulps * np.spacing(abs(float(want.mid()))), f"at {point}"


SLOPES: tuple[tuple[Any, Any], ...] = (
    (f.sigmoid, lambda x: f.sigmoid(x) * f.sigmoid(-x)), (f.softplus, f.sigmoid), (f.log_sigmoid, lambda x: f.sigmoid(-x)),
    (f.normal_cdf, f.normal_pdf), (f.normal_pdf, lambda x: -x * f.normal_pdf(x)), (f.expm1, np.exp), (f.absolute, f.sign),
    (f.log1p, lambda x: 1 / (1 + x)),
)


@pytest.mark.parametrize(("function", "slope"), SLOPES, ids=[function.__name__ for function, _ in SLOPES])
def test_functions_let_complex_step_pass(function: Any, slope: Any) -> None:
    """A function of x + i h is f(x) + i h f'(x) for a small h, far out as well."""
    x = np.linspace(-0.9 if function is f.log1p else -12, 12, 64)
    y = function(x + 1e-100j)
    assert (np.abs(y.real - function(x)) <= 2.0**-45 * np.abs(function(x))).all()
    assert (np.abs(y.imag / 1e-100 - slope(x)) <= 2.0**-45 * np.abs(slope(x))).all()


def test_absolute_value_has_a_kink_of_slope_zero() -> None:
    """At 0 the slope is 0, of a number and of a ball; as a hull it is anything from -1 to 1, and so where the sign is open."""
    assert list(f.sign(np.array([-0.5, 0.0, 0.5]))) == [-1, 0, 1]
    assert list(f.absolute(np.array([-0.5, 0.0, 0.5]))) == [0.5, 0, 0.5]
    assert list(f.sign(Arithmetic(FLOAT64).exact([-0.5, 0.0, 0.5])).value) == [-1, 0, 1]
    hull = f.sign(Arithmetic(FLOAT64, kinks="hull").exact([-0.5, 0.0, 0.5]))
    assert list(hull.value) == [-1, 0, 1]
    assert list(np.round(hull.bounds(), 9)) == [0, 1, 0]


def test_large_numbers_overflow_nowhere() -> None:
    """What ends in 0, 1 or x itself does so without a warning on the way, as far as float64 reaches."""
    x = np.array([-1e308, -800.0, 800.0, 1e308])
    assert list(f.sigmoid(x)) == list(f.sigmoid_complement(-x, f.sigmoid(-x))) == list(f.normal_cdf(x)) == [0, 0, 1, 1]
    assert list(f.softplus(x)) == [0, 0, 800, 1e308]
    assert list(f.log_sigmoid(x)) == [-1e308, -800, 0, 0]
    assert list(f.normal_pdf(x)) == [0, 0, 0, 0]
    assert list(f.softmax(np.array([[8e307, 0.0, -8e307]]), 1)[0]) == [1, 0, 0]


def test_small_numbers_are_stored_step_by_step() -> None:
    """In half precision e^x - 1 is the difference past |x| = 1/2, and tanh(x / 2) (e^x + 1) from there on to 0."""
    for sign in (-1, 1):
        for size, composed in ((0.25, False), (0.5, False), (0.75, True), (1.25, True)):
            x = Arithmetic(PRECISIONS["bfloat16"]).exact(np.array([sign * size]))
            e = np.exp(x)
            stored = e - 1 if composed else np.tanh(x / 2) * (e + 1)
            assert f.expm1(x).bounds() == either(np.expm1(x), stored).bounds()


def _drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-8, 9, size=shape) / 4.0


PRODUCTS = tuple((_drawn(3, n), _drawn(n, 2)) for n in (2, 4, 1))
TERMS = (_drawn(2), _drawn(3, 2))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("terms", [0, 1, 2])
def test_products_and_terms_are_one_sum(count: int, terms: int) -> None:
    """Matrix products and further terms add up; as balls in any order without being stored, in half precision also stored one by one."""
    products, more = PRODUCTS[:count], TERMS[len(TERMS) - terms :]
    if not count and not terms:
        return
    value = sum(a @ b for a, b in products) + sum(more)
    assert np.array_equal(f.sum_of_products(products, more), value)
    for name, exact in (("float32", None), ("bfloat16", added)):
        arithmetic = Arithmetic(PRECISIONS[name])
        balls = [(arithmetic.exact(a), arithmetic.exact(b)) for a, b in products]
        rest = [arithmetic.exact(term) for term in more]
        ball = f.sum_of_products(balls, rest)
        assert np.array_equal(ball.value, value)
        if count or terms > 1:
            bound = one_sum(balls, rest, arithmetic).bounds()
            stored = added([*(a @ b for a, b in balls), *rest]).bounds() if exact else bound
            assert (np.abs(ball.bounds() - np.maximum(bound, stored)) <= 2.0**-45 * bound).all()
            assert exact is None or count + terms < 3 or (stored > bound).any()
        else:
            assert ball is rest[0]


def test_many_vectors_are_one_sum_too() -> None:
    """A product may be of a matrix and a vector; three of them are the same sum as one of the three times as long."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    balls = [(arithmetic.exact(_drawn(3, n)), arithmetic.exact(_drawn(n))) for n in (2, 4, 1)]
    one = one_sum(balls, [], arithmetic)
    found = f.sum_of_products(balls)
    assert np.array_equal(found.value, one.value)
    assert (np.abs(found.bounds() - one.bounds()) <= 2.0**-45 * one.bounds()).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_forms_that_implementations_use_are_in_the_ball(precision: str) -> None:
    """The complement as 1 - s, a product with dy distributed, and a softmax gradient that leaves dy as it is: all lie in the ball."""
    known = PRECISIONS[precision]
    arithmetic, rng = Arithmetic(known), np.random.default_rng(4)

    def number(*shape: int) -> np.ndarray:
        return known.held(rng.standard_normal(shape) * 4)

    def within(ball: Any, answer: np.ndarray) -> bool:
        return bool((np.abs(answer - ball.value) <= ball.radius()).all())

    x, dy = number(400), number(400)
    s = known.held(f.sigmoid(x))
    ball = f.sigmoid_complement(arithmetic.exact(x), f.sigmoid(arithmetic.exact(x)))
    assert within(ball, known.held(1 - s))
    assert within(ball, f.sigmoid(-x))
    gate, slope = number(400), number(400)
    given = [arithmetic.exact(a) for a in (dy, x, gate, slope)]
    ball = f.distributed(given[0] * (given[2] + given[1] * given[3]), *given)
    assert within(ball, known.held(known.held(dy * gate) + known.held(known.held(dy * x) * slope)))
    y, dy = known.held(f.softmax(number(20, 8), 1)), number(20, 8) + known.held(np.float64(64))
    ball = f.softmax_pullback(arithmetic.exact(y), arithmetic.exact(dy), 1)
    assert within(ball, known.held(y * known.held(dy - known.held(np.sum(known.held(dy * y), axis=1, keepdims=True)))))
    assert within(ball, y * (dy - np.sum(dy * y, axis=1, keepdims=True)))


@pytest.mark.parametrize("top", [0.0, 3.0, -40.0])
def test_weights_from_a_kept_logarithm(top: float) -> None:
    """The ball of weights e^(s - top) / total also holds them with the roundings of log total and of top + log total, and little more."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    roundoff, elementary = arithmetic.roundoff, arithmetic.elementary
    total = Rounded(np.array([1.5, 600.0]), np.array([0.25, 0.0]), arithmetic)
    weights, largest = Rounded(np.array([0.5, -0.25]), np.array([0.125, 0.0]), arithmetic), arithmetic.exact(np.full(2, top))
    log = np.log(total.value)
    # log total, then top + log total, that less log total, and that less top, whose true value is 0; e^ of it is 1
    steps = log * elementary + np.abs(top + log) * roundoff + log * elementary + np.abs(top) * roundoff
    least, found = steps * 0.99, f.recomputed(weights, largest, total)
    assert np.array_equal(found.value, weights.value)
    assert (found.bound >= weights.bound + np.abs(weights.value) * least + weights.bound * least).all()
    most = (steps + elementary) * 1.01 + 2.0**-120
    assert (found.bound <= weights.bound + np.abs(weights.value) * most + weights.bound * most).all()
    plain = np.array([0.5, 0.25])
    assert f.recomputed(plain, np.zeros(2), np.ones(2)) is plain


def test_weights_of_a_direction_keep_their_derivative() -> None:
    """Along a direction the factor is 1 and its derivative 0; the bound grows by what its terms may round."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    scores, v = np.array([1.0, 2.0, -3.0]), np.array([0.5, -1.0, 2.0])
    s = Directed.of(scores, arithmetic, v)
    top = arithmetic.exact(np.array([2.0]))
    e = np.exp(s - top)
    total = np.sum(e, keepdims=True)
    weights = e / total
    found, before = (one.derivative() for one in (f.recomputed(weights, Directed(top), total), weights))
    assert (np.abs(found.value - before.value) <= 2.0**-50).all()
    assert (found.bound > before.bound).all()
    assert (found.bound < 2.0**-40).all()


def test_weights_beside_a_sum_that_overflows_are_unknown() -> None:
    """Nothing is known of a weight whose ball leaves the range."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    weights = Rounded(np.array([0.5, 3e38]), np.array([0.0, 2e38]), arithmetic)
    found = f.recomputed(weights, arithmetic.exact(np.zeros(2)), arithmetic.exact(np.ones(2)))
    assert np.isinf(found.bound).tolist() == [False, True]
