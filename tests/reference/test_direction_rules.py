"""Each rule of derivatives along a direction: its slope is the chain rule's, its reach the sum of the magnitudes, its bound no less."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from backproof.reference import direction, rounding
from backproof.reference.direction import Directed, steady
from backproof.reference.functions import affine, sum_of_products
from backproof.reference.rounding import Arithmetic, Rounded, precision_named
from scipy import special

U = 2.0**-24
HULL, OWN = (Arithmetic(precision_named("float32"), kinks=kinks) for kinks in ("hull", "own"))
X, V = np.array([[0.5], [2.0], [3.0]]), np.array([[3.0], [-2.0], [0.75]])
Y, W = np.array([1.0, 4.0]), np.array([-1.5, 5.0])
SIGNED = np.array([[-1.5], [-0.25], [2.0]])


def moving(numbers: Any, along: Any = None, arithmetic: Arithmetic = HULL) -> Directed:
    return Directed.of(np.asarray(numbers, float), arithmetic, None if along is None else np.asarray(along, float))


def made(slope: Any, reach: Any, bound: Any, value: Any = 0.0) -> Directed:
    """Return an array with a slope whose magnitudes are off by a bound."""
    full = np.broadcast_to(np.asarray(value, float), np.shape(slope))
    return Directed(HULL.exact(full), np.asarray(slope, float), Rounded(np.asarray(reach, float), np.asarray(bound, float), HULL))


def check(found: Directed, slope: Any, magnitude: Any, most: float = 40) -> None:
    """Compare the slope and the sum of magnitudes with their formulas, each within the bound, which is `most` roundings at most."""
    assert found.shape == np.shape(found.slope) == found.reach.shape
    ball = found.derivative()
    assert np.all(np.abs(ball.value - slope) <= ball.radius())
    assert np.all(np.abs(found.reach.value - magnitude) <= ball.radius())
    assert np.all(ball.radius() <= most * U * np.abs(magnitude) + 2.0**-120)


def same(found: Directed, slope: Any, magnitude: Any) -> None:
    """Compare the slope and the sum of magnitudes with numbers that no operation rounds."""
    assert found.shape == np.shape(found.slope) == found.reach.shape == np.shape(slope)
    assert np.array_equal(found.slope, slope)
    assert np.array_equal(found.reach.value, magnitude)


BOTH: dict[str, tuple[Callable[..., Any], Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "add": (operator.add, lambda x, y: 1, lambda x, y: 1),
    "subtract": (operator.sub, lambda x, y: 1, lambda x, y: -1),
    "multiply": (operator.mul, lambda x, y: y, lambda x, y: x),
    "divide": (operator.truediv, lambda x, y: 1 / y, lambda x, y: -x / y**2),
    "logaddexp": (np.logaddexp, lambda x, y: special.expit(x - y), lambda x, y: special.expit(y - x)),
    "maximum": (np.maximum, lambda x, y: x > y, lambda x, y: y > x),
    "minimum": (np.minimum, lambda x, y: x < y, lambda x, y: y < x),
}


@pytest.mark.parametrize("name", BOTH)
def test_functions_of_two_arrays(name: str) -> None:
    """Both partial derivatives count, each times its own slope, over axes that are laid out along each other; either array may rest."""
    function, by_x, by_y = BOTH[name]
    value = function(X, Y)
    one, two = np.broadcast_to(by_x(X, Y) * V, value.shape), np.broadcast_to(by_y(X, Y) * W, value.shape)
    for found, slope, magnitude in (
        (function(moving(X, V), moving(Y, W)), one + two, np.abs(one) + np.abs(two)),
        (function(moving(X, V), moving(Y)), one, np.abs(one)), (function(moving(X, V), Y), one, np.abs(one)),
        (function(moving(X), moving(Y, W)), two, np.abs(two)), (function(X, moving(Y, W)), two, np.abs(two)),
    ):
        check(found, slope, magnitude, most=150 if name == "logaddexp" else 40)  # of e^(x - value), which magnifies the value's rounding
        assert np.all(np.abs(found.value.value - value) <= found.value.radius())
    resting = function(moving(X), moving(Y))
    assert resting.slope is None
    assert np.all(np.abs(resting.value.value - value) <= resting.value.radius())


ONE: dict[str, tuple[Callable[..., Any], Callable[[Any], Any], np.ndarray]] = {
    "negative": (operator.neg, lambda x: -np.ones_like(x), SIGNED),
    "absolute": (np.abs, np.sign, SIGNED),
    "square": (np.square, lambda x: 2 * x, SIGNED),
    "reciprocal": (np.reciprocal, lambda x: -1 / x**2, SIGNED),
    "first power": (lambda x: x**1, np.ones_like, SIGNED),
    "second power": (lambda x: x**2, lambda x: 2 * x, SIGNED),
    "third power": (lambda x: x**3, lambda x: 3 * x**2, SIGNED),
    "exp": (np.exp, np.exp, SIGNED),
    "expm1": (np.expm1, np.exp, SIGNED),
    "log": (np.log, lambda x: 1 / x, X),
    "log1p": (np.log1p, lambda x: 1 / (1 + x), X),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x), X),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, SIGNED),
    "expit": (special.expit, lambda x: special.expit(x) * special.expit(-x), SIGNED),
    "erf": (special.erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-(x**2)), SIGNED),
    "erfc": (special.erfc, lambda x: -2 / math.sqrt(math.pi) * np.exp(-(x**2)), SIGNED),
    "ndtr": (special.ndtr, lambda x: np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), SIGNED),
}


@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_array(name: str) -> None:
    """The slope is the derivative's value times the slope of the argument; where that rests, so does the result."""
    function, partial, x = ONE[name]
    found, resting = function(moving(x, V)), function(moving(x))
    check(found, partial(x) * V, np.abs(partial(x) * V), most=500)  # of 1 - y^2, which cancels
    assert resting.slope is None
    for ball in (found.value, resting.value):
        assert np.all(np.abs(ball.value - function(x)) <= ball.radius())


def test_a_power_is_held_in_every_form() -> None:
    """By the product rule two terms meet two products and two sums, the third two products and a sum."""
    x = moving([1.5], [1.0])
    assert (x**3).derivative().radius() >= (4 + 4 + 3) * U * 1.5**2
    assert (x**1).derivative().radius() == 0


@pytest.mark.parametrize("call", [lambda x: x ** moving(2.0, 1.0), lambda x: x**0, lambda x: x**0.5])
def test_powers_without_a_rule(call: Any) -> None:
    """An exponent that moves, and one that is no positive whole number, are refused."""
    with pytest.raises(TypeError, match=r"no rule for an exponent that moves|positive whole powers only"):
        call(moving(X, V))


def test_the_slope_of_logaddexp_may_be_formed_from_its_value() -> None:
    """Far from 0 the rounding of the value is magnified, either way round; past a difference of 40 both forms are 1."""
    x, y = np.float32(1000) + np.linspace(-3, 3, 101, dtype=np.float32), np.full(101, 1000, np.float32)
    formed = np.exp(x - np.logaddexp(x, y)).astype(float)
    assert formed.max() != special.expit(3.0)
    for found in (np.logaddexp(moving(x, np.ones(101)), moving(y)), np.logaddexp(moving(y), moving(x, np.ones(101)))):
        ball = found.derivative()
        assert np.all(np.abs(formed - ball.value) <= ball.radius())
        assert np.any(np.abs(formed - ball.value) > 100 * U * formed)
        assert np.all(ball.radius() <= 32 * U * 1001 * ball.value)
    assert np.all(np.logaddexp(moving([45.0, 41.0], [1.0, 1.0]), 0.0).derivative().radius() <= 40 * U)


@pytest.mark.parametrize(("function", "x", "formed"), [
    (np.tanh, np.linspace(-4, 4, 4001), lambda x: (1 + np.tanh(x)) * (1 - np.tanh(x))),
    (np.tanh, np.linspace(-4, 4, 4001), lambda x: 4 * special.expit(2 * x) * special.expit(-2 * x)),
    (special.ndtr, np.linspace(-12, 4, 4001), lambda x: np.exp(-((x * np.float32(0.5**0.5)) ** 2)) / np.float32(math.sqrt(2 * math.pi))),
    (special.ndtr, np.linspace(-12, 4, 4001), lambda x: np.exp(-(x * x) / 2) / np.float32(math.sqrt(2 * math.pi))),
], ids=["tanh by y", "tanh by s", "ndtr by erfc", "ndtr"])
def test_slopes_as_frameworks_form_them(function: Any, x: Any, formed: Any) -> None:
    """In single precision each form lies in the ball, which is not much wider than they differ."""
    single, v = x.astype(np.float32), np.full(x.shape, np.float32(1 / 3))
    ball = function(moving(single, v)).derivative()
    excess = np.abs((formed(single) * v).astype(float) - ball.value) / ball.radius()
    assert 0.01 < np.max(excess) <= 1


def test_products_of_matrices() -> None:
    """Either factor's slope is multiplied by the other factor, and both are one sum of magnitudes."""
    x, v, y, w = np.array([[2.0, -3.0]]), np.array([[-1.0, 4.0]]), np.array([[5.0], [-7.0]]), np.array([[6.0], [2.0]])
    same(moving(x, v) @ moving(y, w), v @ y + x @ w, abs(v) @ abs(y) + abs(x) @ abs(w))
    same(moving(x, v) @ moving(y), v @ y, abs(v) @ abs(y))
    same(moving(x) @ moving(y, w), x @ w, abs(x) @ abs(w))
    assert (moving(x) @ moving(y)).slope is None
    assert (moving(x, v) @ moving(y, w)).derivative().radius() >= 4 * U * (abs(v) @ abs(y) + abs(x) @ abs(w))


def test_a_sum_of_products_and_terms_holds_every_order() -> None:
    """A bias may meet the addition of every product, as may its slope; what rests adds nothing to the slope."""
    n = 32
    x, weight = moving(np.full((1, n), 2.0), np.full((1, n), 2.0**-10)), moving(np.full((1, n), 0.5), np.full((1, n), -(2.0**-10)))
    bias, still, flat = moving([4.0], [1.0]), moving([4.0]), moving(np.ones((1, n)))
    for found, slope, magnitude, number in (
        (affine(x, weight, bias), 1 + n * (0.5 - 2) / 2**10, 1 + n * 2.5 / 2**10, n + 4),
        (affine(x, weight, still), n * (0.5 - 2) / 2**10, n * 2.5 / 2**10, n + 4),
        (affine(x, moving(np.full((1, n), 0.5)), np.array([4.0])), n * 0.5 / 2**10, n * 0.5 / 2**10, n + 4),
        (sum_of_products([(flat, flat.T), (x, weight.T)], [bias]), 1 + n * (0.5 - 2) / 2**10, 1 + n * 2.5 / 2**10, 2 * n + 4),
        (affine(np.ones((1, n)), np.ones((1, n)), bias), 1, 1, n + 4),
    ):
        same(found, [[slope]], [[magnitude]])
        assert found.value.value == number
        assert found.value.radius() >= n * U * number
    for found in (affine(x, weight, bias), affine(x, weight, still)):
        assert found.derivative().radius() >= n * U * found.reach.value
    resting = affine(flat, flat, still)
    assert resting.slope is None
    assert resting.value.value == n + 4
    assert np.array_equal(sum_of_products([], [bias, bias]).slope, [2.0])


TABLE = np.array([[1.0, -2.0, 4.0], [3.0, 0.0, -6.0]])
ALONG = np.array([[2.0, 5.0, -1.0], [-3.0, 7.0, 4.0]])
ROWS = (np.array([1, 0, 1]), slice(None))
INDEX = np.array([[2, 0], [1, 1]])
MOVES: dict[str, Callable[[Any], Any]] = {
    "item": lambda a: a[1, ::2], "reshape method": lambda a: a.reshape((3, 2)), "T": lambda a: a.T,
    "transpose method": lambda a: a.transpose(1, 0), "sum method": lambda a: a.sum(), "sum method of rows": lambda a: a.sum(axis=1),
    "sum method kept": lambda a: a.sum(axis=0, keepdims=True), "sum": lambda a: np.sum(a, axis=1),
    "mean": lambda a: np.mean(a[:, :2], axis=1, keepdims=True), "reshape": lambda a: np.reshape(a, (6,)), "transpose": np.transpose,
    "swapaxes": lambda a: np.swapaxes(a, 0, 1), "moveaxis": lambda a: np.moveaxis(a, 0, -1),
    "expand_dims": lambda a: np.expand_dims(a, axis=1), "squeeze": lambda a: np.squeeze(a[:1], axis=0),
    "broadcast_to": lambda a: np.broadcast_to(a, (2, 2, 3)), "take_along_axis": lambda a: np.take_along_axis(a, INDEX, axis=1),
    "flip": lambda a: np.flip(a, axis=1), "ravel": np.ravel, "running_sum": lambda a: rounding.running_sum(a, 1),
    "last": lambda a: rounding.running_sum(a, 0, last=True), "scatter_add": lambda a: rounding.scatter_add(a.T, ROWS, (2, 2)),
    "concatenate": lambda a: np.concatenate([a, a[:1]]), "concatenate columns": lambda a: np.concatenate([a, a[:, :1]], axis=1),
    "stack": lambda a: np.stack([a, a]), "stack last": lambda a: np.stack([a[0], a[1]], axis=-1),
    "split": lambda a: np.split(a, [1])[1], "split columns": lambda a: np.split(a, [1], axis=1)[1],
    "split in turn": lambda a: np.split(a, [1, 2], 1)[1],
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_entries_moves_their_slopes(name: str) -> None:
    """A linear function with coefficients >= 0 does to slopes and magnitudes what it does to numbers, of arrays that rest also."""
    move = MOVES[name]
    found, resting = move(moving(TABLE, ALONG)), move(moving(TABLE))
    same(found, move(ALONG), move(np.abs(ALONG)))
    for one in (found, resting):
        assert np.array_equal(one.value.value, move(TABLE))
    assert resting.slope is None
    assert not resting.derivative().value.any()


def test_arrays_that_rest_are_joined_with_those_that_move() -> None:
    """A constant has the slope 0, wherever it stands."""
    for arrays in ([moving(TABLE), moving(TABLE, ALONG)], [TABLE, moving(TABLE, ALONG)]):
        same(np.concatenate(arrays), np.concatenate([0 * ALONG, ALONG]), np.concatenate([0 * ALONG, np.abs(ALONG)]))  # type: ignore[arg-type]


def test_shapes() -> None:
    """What is asked about an array is answered of its numbers."""
    x = moving(TABLE, ALONG)
    assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((2, 3), 2, 6, 2, np.float64)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)
    assert np.array_equal(np.zeros_like(x), np.zeros((2, 3)))
    assert np.array_equal(np.ones_like(x), np.ones((2, 3)))
    assert np.asarray(x).dtype == np.float64
    assert np.asarray(x, dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("function", [np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal])
def test_comparisons_are_those_of_the_numbers(function: Any) -> None:
    """Slopes do not count."""
    for found in (function(moving(Y, W), moving([4.0, 4.0])), function(moving(Y, W), 4.0)):
        assert found.value.tolist() == function(Y, 4.0).tolist()
        assert found.open.tolist() == [False, True]


@pytest.mark.parametrize(("call", "slope", "shape"), [
    (lambda x: x.max(), -1.0, ()), (np.max, -1.0, ()), (lambda x: x.max(axis=1), [-1.0, -3.0], (2,)),
    (lambda x: x.max(axis=1, keepdims=True), [[-1.0], [-3.0]], (2, 1)),
    (lambda x: np.max(x, axis=0, keepdims=True), [[-3.0, 7.0, -1.0]], (1, 3)),
    (np.min, 4.0, ()), (lambda x: np.min(x, axis=1), [5.0, 4.0], (2,)),
    (lambda x: np.min(x, axis=0, keepdims=True), [[2.0, 5.0, 4.0]], (1, 3)),
])
def test_extrema_have_the_slope_of_the_winner(call: Any, slope: Any, shape: tuple[int, ...]) -> None:
    """The largest or smallest entry along an axis or of all, whose slope and magnitude are one entry's."""
    found = call(moving(TABLE, ALONG))
    assert found.shape == shape
    same(found, slope, np.abs(slope))
    assert np.all(found.derivative().radius() == 0)
    assert call(moving(TABLE)).slope is None
    assert np.array_equal(call(moving(TABLE)).value.value, call(TABLE))


def test_entries_that_rounding_may_let_win_are_a_tie() -> None:
    """A ball that reaches over the lower end of the largest leaves no derivative, one that does not is out."""
    along = np.array([3.0, 5.0])
    for low, tied in ((0.5, False), (0.85, True)):
        ball = Rounded(np.array([1.0, low]), np.array([0.125, 0.125]), HULL)
        found = np.max(Directed(ball, along, HULL.exact(along))).derivative()  # type: ignore[call-overload]
        assert np.isinf(found.radius()) == tied
        assert tied or found.value == 3.0


@pytest.mark.parametrize("x", [[2.0, -3.0, 5.0], [[2.0, 0.0, 5.0], [-1.0, 4.0, 3.0]]])
@pytest.mark.parametrize("factor", [None, 7.0, [2.0, -1.0, 3.0]])
def test_running_products(x: Any, factor: Any) -> None:
    """Each factor in turn is replaced by its slope, and so is the factor in front."""
    a, f = np.asarray(x), np.asarray(1.0 if factor is None else factor)
    v, w = ALONG[: a.ndim] if a.ndim == 2 else ALONG[0], np.array([4.0, -2.0, 6.0])

    def expected(a: np.ndarray, v: np.ndarray, f: Any) -> np.ndarray:
        rows = [np.cumprod(np.where(np.arange(3) == j, v, a), axis=-1) * (np.arange(3) >= j) for j in range(3)]
        return np.asarray(sum(rows) * f)

    given = () if factor is None else (moving(f),)
    found = rounding.running_product(moving(a, v), -1, *given)
    same(found, expected(a, v, f), expected(abs(a), abs(v), abs(f)))
    assert np.array_equal(found.value.value, np.cumprod(a, axis=-1) * f)
    if not f.ndim:
        last = rounding.running_product(moving(a, v), -1, *given, last=True)
        assert np.array_equal(last.slope, found.slope[..., -1])
        assert np.array_equal(last.derivative().radius(), found[..., -1].derivative().radius())
    assert np.all(found.derivative().radius()[..., 2] >= 2 * U * np.abs(found.reach.value[..., 2]))
    if np.ndim(factor) == 1:
        products = np.cumprod(a, axis=-1)
        same(rounding.running_product(moving(a), -1, moving(f, w)), products * w, abs(products * w))
        same(rounding.running_product(moving(a, v), -1, moving(f, w)), expected(a, v, f) + products * w,
             expected(abs(a), abs(v), abs(f)) + abs(products * w))
    resting = rounding.running_product(moving(a), -1, *given)
    assert resting.slope is None
    assert np.array_equal(resting.value.value, np.cumprod(a, axis=-1) * f)


def test_sums_of_several_terms_hold_every_order() -> None:
    """The largest term may meet every addition, whichever it is; a term that rests adds nothing."""
    terms = [moving([1.0], [2.0**-12]), moving([1.0], [-(2.0**-12)]), moving([1.0], [2.0**-12]), moving([1.0], [-1.0])]
    for order in (terms, terms[::-1]):
        found = rounding.added(order)
        same(found, [2.0**-12 - 1], [3 * 2.0**-12 + 1])
        assert found.derivative().radius() >= 3 * U
        assert found.value.radius() >= 3 * U * 4
    same(rounding.added([moving([1.0]), *terms[:2], np.array([1.0])]), [0.0], [2.0**-11])
    assert rounding.added([moving([1.0]), np.array([2.0]), moving([3.0])]).slope is None


def test_choices() -> None:
    """Each entry has the slope, the magnitude and the bound of the branch that it comes of; a constant has none."""
    mask = np.array([True, False])
    one, two = made([2.0, 3.0], [4.0, 5.0], [0.5, 0.25]), made([-6.0, -7.0], [8.0, 9.0], [0.125, 0.0625])
    found = np.where(mask, one, two)  # type: ignore[call-overload]
    same(found, [2.0, -7.0], [4.0, 9.0])
    assert found.reach.bounds().tolist() == [0.5, 0.0625]
    same(np.where(mask, one, np.array([1.0, 1.0])), [2.0, 0.0], [4.0, 0.0])  # type: ignore[call-overload]
    same(np.where(mask, 1.0, two), [0.0, -7.0], [0.0, 9.0])  # type: ignore[call-overload]
    same(np.where(mask[:, None], one, two), [[2.0, 3.0], [-6.0, -7.0]], [[4.0, 5.0], [8.0, 9.0]])  # type: ignore[call-overload]
    resting = np.where(mask, moving([1.0, 2.0]), 3.0)  # type: ignore[call-overload]
    assert resting.slope is None
    assert resting.value.value.tolist() == [1.0, 3.0]


def test_a_tie_holds_the_rounding_of_both_branches() -> None:
    """Where both branches have one slope, an implementation may have computed it by either."""
    zero = moving([0.0, 1.0], [1.0, 1.0])
    above = zero.value > 0
    one, two = made([1.0, 1.0], [1.0, 1.0], [0.0, 0.0]), made([1.0, 1.0], [5.0, 5.0], [0.25, 0.25])
    for branches in ((one, two), (two, one)):
        found = np.where(above, *branches)
        assert found.reach.value.tolist() == [5.0, branches[0].reach.value[1]]
        assert found.reach.bounds().tolist() == [0.25, branches[0].reach.bound[1]]
    assert np.isinf(np.where(above, one, -two).derivative().radius()).tolist() == [True, False]


def test_an_exact_tie_of_the_own_kind_takes_the_rules_branch() -> None:
    """There |x| moves as x does at 0, and an extremum as its first argument."""
    x, y = moving([0.0], [3.0], OWN), moving([0.0], [5.0], OWN)
    for found in (np.abs(x), np.maximum(x, y), np.minimum(x, y)):
        same(found, [3.0], [3.0])
        assert found.derivative().radius() == 0


def test_either_form_is_held() -> None:
    """The slope is the first form's, and the bound holds the other's as well."""
    one, two = made([2.0, 2.0], [4.0, 4.0], [0.0, 8.0]), made([3.0, 3.0], [5.0, 3.0], [0.5, 0.5])
    found = rounding.either(one, two)
    same(found, [2.0, 2.0], [5.0, 4.0])
    assert found.reach.bounds().tolist() == [1.5, 8.0]
    same(rounding.either(one, moving([0.0, 0.0])), [2.0, 2.0], [4.0, 4.0])
    assert rounding.either(one, moving([0.0, 0.0])).reach.bounds().tolist() == [2.0, 8.0]
    same(rounding.either(moving([0.0, 0.0]), two), [0.0, 0.0], [5.0, 3.0])
    assert rounding.either(moving([0.0, 0.0]), two).reach.bounds().tolist() == [3.5, 3.5]
    resting = rounding.either(moving([0.0]), moving([1.0]))
    assert resting.slope is None
    assert resting.value.radius() >= 1


def test_a_slope_that_is_no_number_is_unknown() -> None:
    """Where magnitudes leave the range the bound is infinite, and never NaN."""
    endless = made([np.inf], [np.inf], [np.nan])
    for found in (endless, rounding.either(endless, endless)):
        assert np.isinf(found.derivative().bound).all()


def test_the_ball_of_a_derivative() -> None:
    """It has the bound of the magnitudes, more for additions elsewhere, which round the bound's share too, and computes on."""
    x = made([1.0], [2.0], [0.5])
    assert x.derivative().bound == 0.5
    assert x.derivative(3).bound - 0.5 >= 3 * 2.5 * U
    assert x.derivative(3).bound - 0.5 < 3 * 2.5 * U * 1.001
    for one in (x, steady(x)):
        assert one.derivative().arithmetic is HULL
        assert one.derivative().shape == (1,)
    assert steady(x).derivative().exact


@pytest.mark.parametrize("call", [np.add.accumulate, lambda x: np.exp(x, where=np.array([True])), lambda x: np.add(x, x, out=(x,))])
def test_only_plain_calls_have_a_rule(call: Any) -> None:
    """Another method of a function, or an option of it, is refused."""
    with pytest.raises(TypeError, match=r"no rule for (add\.accumulate|exp\.__call__|add\.__call__)"):
        call(moving([1.0], [1.0]))


def test_what_is_made_when_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of rules hold when the module's text is run anew (a mutant comes to life after the first import)."""
    spec = importlib.util.find_spec(direction.__name__)
    assert spec is not None
    assert spec.loader is not None
    anew = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(anew)
    monkeypatch.setitem(globals(), "Directed", anew.Directed)
    monkeypatch.setitem(globals(), "steady", anew.steady)
    for name in BOTH:
        test_functions_of_two_arrays(name)
    for name in ONE:
        test_functions_of_one_array(name)
    for name in MOVES:
        test_what_moves_entries_moves_their_slopes(name)
    for function in (np.less, np.equal):
        test_comparisons_are_those_of_the_numbers(function)
    test_arrays_that_rest_are_joined_with_those_that_move()
    test_an_exact_tie_of_the_own_kind_takes_the_rules_branch()
