"""Sums, products and norms along an axis against loops, with zeros, ties and ranges, and with the mistakes people make."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.reductions import MISTAKES
from backproof.judge.rules import expected, expected_plain
from backproof.reference import rounding
from backproof.reference.layer import Layer, Shape, ShapeError
from backproof.reference.reductions import CumProd, CumSum, LogSumExp, Normalize, Prod, _over
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded, either, running_product, running_sum
from backproof.reference.trace import LayerTrace

LAYERS = (CumSum, CumProd, Prod, LogSumExp, Normalize)
EXAMPLES = tuple(example for cls in LAYERS for example in cls.examples())
every_layer = pytest.mark.parametrize("cls", LAYERS)
every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def step_of(layer: Layer, x: Any, dy: Any = None, seed: int = 3) -> LayerTrace:
    """Return a step on this x; its upstream gradient is drawn where none is given."""
    x = np.asarray(x, dtype=float)
    shape = (len(x), *layer.output_shape(x.shape[1:]))
    dy = np.random.default_rng(seed).standard_normal(shape) if dy is None else np.asarray(dy, dtype=float)
    return LayerTrace("layers.0", layer, (x,), np.zeros(shape), (np.zeros_like(x),), dy, {}, {})


def drawn(layer: Layer, shape: Shape, batch: int = 3, seed: int = 0) -> LayerTrace:
    return step_of(layer, np.random.default_rng(seed).standard_normal((batch, *shape)))


def outside(value: Any, ball: Rounded) -> np.ndarray:
    return ~(np.abs(value - ball.value) <= ball.radius())


def by_loops(layer: Any, row: np.ndarray, dy: Any) -> tuple[Any, list[float]]:
    """Return output and gradient of one row from the definitions, one product or sum at a time, in exact rationals where they are."""
    n = len(row)
    exact = [Fraction(float(v)) for v in row]
    up = [Fraction(float(v)) for v in np.atleast_1d(dy)]
    if isinstance(layer, CumSum):
        return [float(sum(exact[: i + 1])) for i in range(n)], [float(sum(up[j:])) for j in range(n)]
    if isinstance(layer, CumProd):
        def without(j: int, i: int) -> Fraction:
            return math.prod((exact[k] for k in range(i + 1) if k != j), start=Fraction(1))
        return ([float(math.prod(exact[: i + 1], start=Fraction(1))) for i in range(n)],
                [float(sum((up[i] * without(j, i) for i in range(j, n)), start=Fraction(0))) for j in range(n)])
    if isinstance(layer, Prod):
        return (float(math.prod(exact, start=Fraction(1))),
                [float(up[0] * math.prod((exact[k] for k in range(n) if k != j), start=Fraction(1))) for j in range(n)])
    if isinstance(layer, LogSumExp):
        total = math.fsum(math.exp(v) for v in row)
        return math.log(total), [float(dy) * math.exp(v) / total for v in row]
    r = math.sqrt(math.fsum(v * v for v in row))
    if r <= layer.eps:
        return [v / layer.eps for v in row], [g / layer.eps for g in dy]
    dot = math.fsum(g * v for g, v in zip(dy, row, strict=True))
    return [v / r for v in row], [g / r - v * dot / r**3 for g, v in zip(dy, row, strict=True)]


def all_rows(layer: Any, x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run `by_loops` over every row along the layer's axis."""
    along = np.moveaxis(x, layer.dim, -1)
    reduces = isinstance(layer, Prod | LogSumExp)
    up = dy if reduces else np.moveaxis(dy, layer.dim, -1)
    y, dx = np.zeros(up.shape), np.zeros(along.shape)
    for place in np.ndindex(*along.shape[:-1]):
        y[place], dx[place] = by_loops(layer, along[place], up[place])
    return (y if reduces else np.moveaxis(y, -1, layer.dim)), np.moveaxis(dx, -1, layer.dim)


@every_example
@every_precision
def test_the_ball_holds_the_definition(layer: Layer, shape: Shape, precision: str) -> None:
    """Output and gradient from loops in exact arithmetic lie in the ball of every precision."""
    step = drawn(layer, shape)
    y, dx = all_rows(layer, step.inputs[0], step.d_output)
    balls = expected(step, Arithmetic(PRECISIONS[precision]))
    assert not outside(y, balls["output"]).any()
    assert not outside(dx, balls["dx"]).any()


@every_example
def test_a_small_mistake_leaves_the_ball(layer: Layer, shape: Shape) -> None:
    """In float32 a relative error of 2^-10 in the largest entry of each tensor shows."""
    step = drawn(layer, shape)
    plain = expected_plain(step)
    for name, ball in expected(step, Arithmetic(PRECISIONS["float32"])).items():
        worst = np.unravel_index(np.argmax(np.abs(plain[name])), ball.shape)
        if plain[name][worst]:
            assert outside(plain[name] * (1 + 2.0**-10), ball)[worst], f"{layer}: {name} is too wide"


@pytest.mark.parametrize("zeros", [(1,), (0,), (4,), (1, 3), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("layer", [Prod(), CumProd()])
def test_zeros_among_the_factors(layer: Layer, zeros: tuple[int, ...]) -> None:
    """Beside one zero, beside several and among nothing else the gradient is the product of the others, to the last digit."""
    row = np.array([2.0, -3.0, 0.5, 4.0, -1.0])
    row[list(zeros)] = 0.0
    step = step_of(layer, row[None], [1.5] if isinstance(layer, Prod) else [[1.0, -2.0, 0.5, 4.0, 8.0]])
    y, dx = all_rows(layer, step.inputs[0], step.d_output)
    plain = expected_plain(step)
    assert (plain["output"] == y).all()
    assert (plain["dx"] == dx).all()
    ball = expected(step, Arithmetic(PRECISIONS["float32"]))["dx"]
    assert not outside(dx, ball).any()
    assert np.all(ball.radius() <= 2.0**-18 * np.maximum(np.abs(dx), 2.0**-60))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_products_in_any_order(precision: str) -> None:
    """Whatever is multiplied first and overflows or underflows on the way, the result is in the ball, or the ball gives up."""
    dtype = PRECISIONS[precision].dtype.type
    rng = np.random.default_rng(5)
    gave_up = 0
    for trial in range(60):
        spread = (1.0, 12.0, 30.0)[trial % 3]
        row = (rng.choice([-1.0, 1.0], 4) * 10.0 ** rng.uniform(-spread, spread, 4)).astype(dtype)
        dy = dtype(rng.standard_normal())
        step = step_of(Prod(), row[None], [dy])
        balls = expected(step, Arithmetic(PRECISIONS[precision]))
        gave_up += int(np.isinf(balls["dx"].radius()).any())
        for order in itertools.permutations(range(4)):
            with np.errstate(all="ignore"):
                result = dtype(1)
                for k in order:
                    result = result * (dy if k == 0 else row[k])
            ball = balls["dx"]
            assert not outside(float(result), Rounded(ball.value[0, 0], ball.bound[0, 0], ball.arithmetic)).any() or not np.isfinite(
                ball.bound[0, 0])
    assert gave_up < 45, "a bound that always gives up says nothing"


def in_tree(x: np.ndarray, function: Callable[..., Any]) -> np.ndarray:
    """Return a scan as compilers form it: pairs first, then the scan of the pairs."""
    if len(x) < 2:
        return x
    odd = in_tree(function(x[:-1:2], x[1::2]), function)
    y = np.empty_like(x)
    y[1::2], y[0] = odd, x[0]
    y[2::2] = function(odd[: len(y[2::2])], x[2::2])
    return y


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("length", [2, 7, 40])
def test_scans_in_either_order_are_in_the_ball(precision: str, length: int) -> None:
    """A scan one by one and one by pairs, each step stored, stay within the bound; one by one it takes up a good part of it."""
    kind = PRECISIONS[precision]
    x = (1 + np.random.default_rng(1).random((40, length)) * (0.25 if precision == "float16" else 1)).astype(kind.dtype).T
    ball = running_sum(Arithmetic(kind).exact(x), 0)
    worst = 0.0
    for result in (np.array(list(itertools.accumulate(x, np.add))), in_tree(x, np.add)):
        error = np.abs(result.astype(float) - ball.value)
        assert np.all((error <= ball.radius()) | np.isinf(ball.radius()))
        worst = max(worst, float(np.max(error / np.maximum(ball.radius(), 1e-300))))
    assert worst > 0.05, f"the bound is {1 / worst:.0f} times what occurs"
    ball = running_product(Arithmetic(kind).exact(x), 0)
    with np.errstate(over="ignore"):
        scans = (np.array(list(itertools.accumulate(x, np.multiply))), in_tree(x, np.multiply))
    for result in scans:
        assert np.all((np.abs(result.astype(float) - ball.value) <= ball.radius()) | np.isinf(ball.radius()))


def test_running_sums_and_products_of_balls_hold_their_corners() -> None:
    """Where the operands have bounds, the results at the ends of their balls are held."""
    arithmetic = Arithmetic(PRECISIONS["float64"])
    rng = np.random.default_rng(4)
    value, bound = rng.standard_normal(4), np.array([0.1, 0.0, 2.0, 0.3])
    x = Rounded(value, bound, arithmetic)
    sums, products = running_sum(x, 0), running_product(x, 0, Rounded(np.array(2.0), np.array(0.5), arithmetic))
    for signs in itertools.product((-1, 1), repeat=4):
        corner = value + bound * signs
        assert not outside(np.cumsum(corner), sums).any()
        assert not outside(np.cumprod(corner) * 2.5, products).any()
        assert not outside(np.cumprod(corner) * 1.5, products).any()


def _long_product(module: Any) -> tuple[Any, float]:
    x = np.full(200, 1 + 2.0**-23)
    scan = np.float32(1)
    for factor in x.astype(np.float32):
        scan = np.float32(scan * factor)
    return module.running_product(module.Arithmetic(PRECISIONS["float32"]).exact(x), 0), float(scan)


def _ball(module: Any, values: list[float], bounds: list[float]) -> Any:
    return module.Rounded(np.array(values), np.array(bounds), module.Arithmetic(PRECISIONS["float32"]))


MUTANTS: dict[str, tuple[str, str, Callable[[Any], tuple[Any, float]]]] = {
    "no rounding of products": ("np.asarray(magnitude * relative)", "np.asarray(0 * magnitude)", _long_product),
    "no underflow of products": ("(4 * products * precision.underflow)", "(0 * products)",
                                 lambda m: (m.running_product(_ball(m, [2.0**-70] * 2, [0, 0]), 0), 0.0)),
    "an underflow magnified by no later factor": (
        "multiplied(np.maximum(most_of(over), 1), axis=axis)", "1.0",
        lambda m: (m.running_product(_ball(m, [2.0**-70, 2.0**-70, 2.0**100], [0, 0, 0]), 0), 0.0)),
    "partial products never overflow": (
        "np.where(reach * growth <= limit, bound, np.inf)", "bound",
        lambda m: (m.running_product(_ball(m, [2.0**100, 2.0**100, 2.0**-100], [0, 0, 0]), 0), math.inf)),
    "factors known exactly": ("moved = magnitude - inner +", "moved =",
                              lambda m: (m.running_product(_ball(m, [1.0, 2.0], [0.5, 0.5]), 0), 3.75)),
    "no rounding of running sums": (
        "bound = magnitude + self.precision.underflow / roundoff", "bound = 0 * magnitude",
        lambda m: (m.running_sum(_ball(m, [1.0] + [2.0**-24] * 200, [0] * 201), 0), 1.0)),
    "partial running sums never overflow": (
        "limited(magnitude, bound, self.precision.largest / BOUND_SLACK)", "limited(value, bound, self.precision.largest / BOUND_SLACK)",
        lambda m: (m.running_sum(_ball(m, [3e38, 3e38, -3e38, -3e38], [0] * 4), 0, last=True), math.inf)),
    "terms known exactly": ("            bound += spread\n        return Rounded(value, limited(magnitude",
                            "            bound += 0\n        return Rounded(value, limited(magnitude",
                            lambda m: (m.running_sum(_ball(m, [1.0, 1.0], [0.5, 0.5]), 0), 3.0)),
}
"""A snippet of the bounds, a wrong one, and a number that the last ball must hold."""


@pytest.mark.parametrize(("right", "wrong", "scenario"), MUTANTS.values(), ids=list(MUTANTS))
def test_wrong_bounds_are_caught(right: str, wrong: str, scenario: Callable[[Any], tuple[Any, float]],
                                 rounding_anew: Callable[..., ModuleType]) -> None:
    """Each part of the bounds of running sums and products is needed: without it a number that may occur is outside."""
    for caught, version in ((False, rounding), (True, rounding_anew(right, wrong))):
        ball, number = scenario(version)
        last = (ball.value - number, ball.radius()) if not ball.ndim else (ball.value[-1] - number, ball.radius()[-1])
        assert (not abs(last[0]) <= last[1]) == caught


def test_overflow_and_not_a_number_give_up() -> None:
    """A partial product or sum that may overflow, or a NaN, leaves what depends on it unknown and nothing else."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    product = running_product(arithmetic.exact(np.array([2.0, 1e30, 1e30, 1e-30, 0.0])), 0)
    assert np.isinf(product.radius()).tolist() == [False, False, True, True, True]
    total = running_sum(arithmetic.exact(np.array([1.0, 3e38, 3e38, -3e38])), 0)
    assert np.isinf(total.radius()).tolist() == [False, False, True, True]
    for function in (running_sum, running_product):
        assert np.isinf(function(arithmetic.exact(np.array([1.0, np.nan, 1.0])), 0).radius()).tolist() == [False, True, True]


def test_a_lost_gradient_of_a_product_shows() -> None:
    """dy y / x is 0 where y underflows although the product of the others does not; where nothing underflows the quotient is held."""
    step = step_of(Prod(), [[1e-30, 1e-20]], [1.0])
    assert outside(np.zeros((1, 2)), expected(step, Arithmetic(PRECISIONS["float32"]))["dx"])[0, 0]
    overflowing = expected(step_of(Prod(), [[1e20, 1e20]], [1.0]), Arithmetic(PRECISIONS["float32"]))["dx"]
    assert np.isinf(overflowing.radius()).all(), "where y overflows so does dy y / x, as it is formed from the saved y"
    for layer, size in itertools.product((Prod(), CumProd()), (2, 6)):
        step = drawn(layer, (size,), batch=50)
        x, dy = (a.astype(np.float32) for a in (step.inputs[0], step.d_output))
        step = step_of(layer, x, dy)
        if isinstance(layer, Prod):
            quotient = (np.prod(x, axis=-1) * dy)[:, None] * (1 / x)
        else:
            quotient = np.cumsum((np.cumprod(x, axis=-1) * dy)[:, ::-1], axis=-1)[:, ::-1] / x
        assert not outside(quotient.astype(float), expected(step, Arithmetic(PRECISIONS["float32"]))["dx"]).any()
        below = np.full_like(x, 1e-30)  # a neighbour that underflows makes no difference
        beside = step_of(layer, np.stack([below, x], axis=1), np.stack([dy, dy], axis=1))
        assert not outside(quotient.astype(float), expected(beside, Arithmetic(PRECISIONS["float32"]))["dx"][:, 1]).any()


def test_log_sum_exp_does_not_overflow_and_ties_share() -> None:
    """Entries of 1000 are no problem, and equal ones get equal weights."""
    plain = expected_plain(step_of(LogSumExp(), [[1000.0, 1000.0], [-1000.0, -1000.0]], [1.0, 2.0]))
    assert (plain["output"] == np.array([1000, -1000]) + math.log(2)).all()
    assert (plain["dx"] == [[0.5, 0.5], [1.0, 1.0]]).all()


def test_normalize_at_and_around_eps() -> None:
    """The zero vector and shorter ones than eps are divided by eps; at eps itself every share of the norm's term is valid."""
    layer = Normalize(eps=0.5)
    plain = expected_plain(step_of(layer, [[0.0, 0.0], [0.3, 0.0], [0.0, 0.5]], [[1.0, 2.0]] * 3))
    assert (plain["output"] == [[0, 0], [0.6, 0], [0, 1]]).all()
    assert (plain["dx"] == [[2, 4], [2, 4], [2, 4]]).all()
    step = step_of(layer, [[0.0, 0.5]], [[1.0, 2.0]])
    ball = expected(step, Arithmetic(PRECISIONS["float32"]))["dx"]  # rounding leaves open which side of eps the norm is on
    for valid in ([2.0, 4.0], [2.0, 2.0], [2.0, 0.0]):
        assert not outside(np.array([valid]), ball).any()
    for invalid in ([2.0, 4.1], [2.0, -0.1], [2.1, 2.0]):
        assert outside(np.array([invalid]), ball).any()


def test_normalize_gives_up_where_squares_leave_the_range() -> None:
    """Numbers whose squares overflow say nothing; zero vectors and those whose squares vanish below eps do."""
    layer = Normalize()
    balls = expected(step_of(layer, [[1e25, 1.0], [0.0, 0.0], [1e-30, 0.0]]), Arithmetic(PRECISIONS["float32"]))
    for name in ("output", "dx"):
        assert np.isinf(balls[name].radius())[0].all()
        assert np.isfinite(balls[name].radius())[1:].all()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("scale", [1.0, 2.0**-4, 2.0**4])
def test_normalize_in_every_order(precision: str, scale: float) -> None:
    """However (dy - y (dy . y)) / s is distributed, and with products by 1 / s, the stored steps lie in the ball."""
    kind, worst = PRECISIONS[precision], 0.0
    rng = np.random.default_rng(5)
    x, dy = ((rng.standard_normal((200, 5)) * size).astype(kind.dtype) for size in (scale, 1.0))
    ball = expected(step_of(Normalize(), x, dy), Arithmetic(kind))["dx"]
    s = np.sqrt(np.sum(x * x, axis=-1, keepdims=True))
    y, r = x / s, 1 / s
    along = np.sum(dy * y, axis=-1, keepdims=True)
    for dx in ((dy - y * along) / s, dy / s - y * (along / s), (dy - y * along) * r, dy * r - y * (along * r), dy / s - (y * along) / s):
        assert dx.dtype == kind.dtype
        assert not outside(dx.astype(float), ball).any()
        worst = max(worst, float(np.max(np.abs(dx.astype(float) - ball.value) / ball.radius())))
    assert worst > 0.05, f"the bound is {1 / worst:.0f} times what occurs"


def test_normalize_underflows_before_it_is_divided() -> None:
    """y (dy . y) may underflow, and 1 / s then makes much of what is lost; dy - y (dy . y) may overflow where its quotient does not."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    x = np.float32([[2.0**-60, 2.0**-40]])
    dy = np.float32([[0.0, 2.0**-115]])
    ball = expected(step_of(Normalize(eps=2.0**-50), x, dy), arithmetic)["dx"]
    assert ball.value[0, 0] == pytest.approx(-(2.0**-95))  # y0 (dy . y) = 2^-20 2^-115, and s = 2^-40
    assert not outside(np.array([[0.0, ball.value[0, 1]]]), ball).any()
    ball = expected(step_of(Normalize(), np.full((1, 3), np.float32(1e10)), np.float32([[3.3e38, -3.3e38, -3.3e38]])), arithmetic)["dx"]
    assert np.isinf(ball.bounds())[0, 0]  # 4.4e38 over 1.7e10


@pytest.mark.parametrize("which", [0, 1, 2])
def test_where_the_difference_may_overflow_its_forms_are_taken_apart(which: int) -> None:
    """From a quarter of the largest number on, which values and bounds may reach together, each form has a bound of its own."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    for sign in (1 - 2.0**-20, 1 + 2.0**-20):
        for value, bound in ((0.75, 0.25), (0.25, 0.75)):
            sizes = [(0.0, 0.0), (2.0**20, 0.0), (2.0**20, 0.0)]
            part = arithmetic.safe * sign if which == 0 else arithmetic.safe * sign / 2.0**20
            sizes[which] = (part * value, part * bound)
            dy, y, along = (Rounded(np.array([[size, 0.0]]), np.array([[off, 0.0]]), arithmetic) for size, off in sizes)
            s = Rounded(np.array([[4.0]]), np.array([[0.5]]), arithmetic)
            found, apart = _over(dy, y, along, s), either((dy - y * along) / s, dy / s - y * (along / s))
            assert np.array_equal(found.bound, apart.bound) == (sign > 1)
    both = Rounded(np.array([[2.0**64, 1.0]]), np.zeros(()), arithmetic)
    dy, s = Rounded(np.array([[3.0, 5.0]]), np.zeros(()), arithmetic), Rounded(np.array([[4.0]]), np.zeros(()), arithmetic)
    found = _over(dy, both, both, s)
    assert np.isinf(found.bound)[0, 0]
    assert abs(found.value[0, 1] - 1.0) <= found.bound[0, 1] < 2.0**-20


def test_what_underflows_before_a_division() -> None:
    """Beside three underflows of its own, the one of y along is divided by s, which may be as small as its bound says."""
    arithmetic, tiny = Arithmetic(PRECISIONS["float32"]), 2.0**-126
    zero, s = (Rounded(np.array([[v]]), np.array([[b]]), arithmetic) for v, b in ((0.0, 0.0), (2.0**-10, 2.0**-11)))
    found, reciprocal = _over(zero, zero, zero, s), 1 / s
    most = reciprocal.value + reciprocal.bound
    # of dy / s, along / s and their products three, of y along divided one, and as much as along / s has of y, which is 0 here
    assert abs(found.bound / ((3 + most) * tiny) - 1) < 2.0**-20


def test_normalize_by_quotients_that_underflow() -> None:
    """In float16 y / s may be stored before dy meets it, in the quotient rule; in float32 it has more digits."""
    half = PRECISIONS["float16"]
    x, dy = np.array([[200.0, 0.02]]).astype(half.dtype), np.array([[0.0, 6e4]]).astype(half.dtype)
    step = step_of(Normalize(), x, dy)
    right = expected_plain(step)["dx"]
    stored = right.copy()
    stored[0, 0] = -half.held(np.float64(x[0, 1]) / 200 / 200) * np.float64(dy[0, 1])
    assert abs(stored - right)[0, 0] > 0.02 * abs(right[0, 0])
    balls = {name: expected(step, Arithmetic(PRECISIONS[name]))["dx"] for name in ("float16", "float32")}
    assert not outside(stored, balls["float16"]).any()
    assert outside(stored, balls["float32"])[0, 0]
    for wrong in (-stored, 0 * stored):
        assert outside(wrong, balls["float16"])[0, 0]


def test_what_is_shorter_than_eps_has_no_projection_in_half_precision_either() -> None:
    """There y is not 0, but dx is dy / eps in every form: nothing of y comes in."""
    step = step_of(Normalize(eps=0.5), np.array([[0.125, 0.25]]), np.array([[1.0, -3.0]]))
    ball = expected(step, Arithmetic(PRECISIONS["float16"]))["dx"]
    assert (ball.value == [[2.0, -6.0]]).all()
    assert (ball.bound <= np.abs(ball.value) * 2.0**-8).all()


def test_log_sum_exp_in_every_order() -> None:
    """The gradient from the quotient, with the underflow of it before a large dy meets it, and from the saved output."""
    kind = PRECISIONS["float32"]
    rng = np.random.default_rng(6)
    x, dy = (rng.standard_normal((200, 6)) * 20).astype(np.float32), rng.standard_normal(200).astype(np.float32)
    step = step_of(LogSumExp(), x, dy)
    ball, plain = expected(step, Arithmetic(kind))["dx"], expected_plain(step)["dx"]
    top = x.max(axis=-1, keepdims=True)
    e = np.exp(x - top)
    total = np.sum(e, axis=-1, keepdims=True)
    worst = 0.0
    for dx in (dy[:, None] * (e / total), (dy[:, None] / total) * e, dy[:, None] * np.exp(x - (top + np.log(total)))):
        assert dx.dtype == np.float32
        assert not outside(dx.astype(float), ball).any()
        worst = max(worst, float(np.max(np.abs(dx.astype(float) - ball.value) / ball.radius())))
    assert worst > 0.05, f"the bound is {1 / worst:.0f} times what occurs"
    usual = np.abs(plain) > 1e-30
    assert (ball.radius() < np.abs(plain) * 2.0**-14)[usual].all()
    ball = expected(step_of(LogSumExp(), np.float32([[0.0, -88.5]]), np.float32([2.0**100])), Arithmetic(kind))["dx"]
    assert not outside(np.array([[2.0**100, 0.0]]), ball).any()  # e^-88.5 is below 2^-126


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("bound", [0.0, 0.25])
def test_running_sums_backwards(axis: int, bound: float) -> None:
    """From the other end it is the running sum of the array turned about, value and bound, in memory as it is read."""
    x = Rounded(np.random.default_rng(7).standard_normal((3, 5)), np.full((3, 5), bound) if bound else np.zeros(()),
                Arithmetic(PRECISIONS["float32"]))
    found, turned = running_sum(x, axis, backwards=True), np.flip(running_sum(np.flip(x, axis), axis), axis)
    assert np.array_equal(found.value, turned.value)
    assert np.array_equal(found.bound, turned.bounds())
    assert found.value.flags.c_contiguous
    assert np.array_equal(running_sum(x.value, axis, backwards=True), turned.value)


@every_layer
def test_batch_zero(cls: type[Layer]) -> None:
    """No example gives no output and no gradient, of the right shapes, in plain and in rounded arithmetic."""
    step = step_of(cls(), np.zeros((0, 3)))
    for tensors in (expected_plain(step), expected(step, Arithmetic(PRECISIONS["float32"]))):
        assert tensors["output"].shape == step.d_output.shape
        assert tensors["dx"].shape == (0, 3)


@pytest.mark.parametrize("cls", [Prod, LogSumExp])
def test_the_axis_is_dropped(cls: type[Layer]) -> None:
    """Prod and LogSumExp lack the axis; of an input of one axis one number per example is left."""
    assert cls(1).output_shape((4, 3)) == (3,)
    assert cls(-2).output_shape((2, 4, 3)) == (2, 3)
    assert cls().output_shape((4,)) == ()
    assert expected_plain(drawn(cls(), (4,)))["output"].shape == (3,)


@every_layer
def test_wrong_configuration(cls: type[Any]) -> None:
    """The batch axis, a dim that is none and an axis that does not exist or is empty are errors that say so."""
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: wrong dim: got 0, expected an axis other than the batch axis$"):
        cls(0)
    for strange in (1.5, "x", None, True):
        with pytest.raises(ValueError, match=rf"^{cls.__name__}: wrong dim: got .*, expected a whole number$"):
            cls(strange)
    for dim, shape in ((2, (4,)), (3, (4, 2)), (-3, (4, 2))):
        with pytest.raises(ShapeError, match=rf"got {re.escape(str(shape))}, expected an axis {dim} behind the batch axis"):
            cls(dim).output_shape(shape)
    with pytest.raises(ShapeError, match=r"got \(0,\), expected something along the axis -1"):
        cls().output_shape((0,))
    with pytest.raises(ShapeError, match=r"got \(0, 3\), expected something along the axis 1"):
        cls(1).output_shape((0, 3))
    assert 0 in cls(2).output_shape((0, 3)), "an empty axis that is not the one is no error"


@pytest.mark.parametrize("eps", [0, -1.0, math.inf, math.nan])
def test_wrong_eps(eps: float) -> None:
    """An eps that is not a finite number above 0 is an error."""
    with pytest.raises(ValueError, match=r"^Normalize: wrong eps: got .*, expected a finite number > 0$"):
        Normalize(eps=eps)


SHOWS: dict[str, tuple[Layer, Any]] = {
    "prod-divided": (Prod(), [[0.0, 2.0, 3.0]]),
    "cumprod-divided": (CumProd(), [[0.0, 2.0, 3.0]]),
    "normalize-eps-projected": (Normalize(eps=0.5), [[0.1, 0.2]]),
    "normalize-eps-stopped": (Normalize(eps=0.5), [[0.1, 0.2]]),
}
"""Where a mistake shows that random numbers do not bring out."""


@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.code for m in MISTAKES])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_each_mistake_is_outside_in_its_tensors_alone(mistake: Any, precision: str) -> None:
    """A planted mistake leaves the ball in the tensors it names, has no meaning elsewhere, and is the right rule's equal in nothing."""
    arithmetic = Arithmetic(PRECISIONS[precision])
    met = 0
    for cls in LAYERS:
        step = step_of(*SHOWS[mistake.code]) if mistake.code in SHOWS else drawn(cls(), (4,))
        if not isinstance(step.layer, cls):
            continue
        balls = expected(step, arithmetic)
        for tensor, ball in balls.items():
            wrong = mistake.wrong(step, tensor, expected_plain)
            if wrong is not None:
                met += 1
                assert outside(wrong, ball).any(), f"{mistake.code} is not seen in {tensor} of {step.layer}"
                rounded = mistake.wrong(step, tensor, lambda s: expected(s, Arithmetic(PRECISIONS["float32"])))
                assert not outside(wrong, rounded).any() or precision == "float64"
    assert met


def test_a_division_that_avoids_zero_is_right_without_zeros() -> None:
    """The mistake of dividing by x shows at zeros alone, which is why they are drawn."""
    (mistake,) = (m for m in MISTAKES if m.code == "prod-divided")
    step = drawn(Prod(), (4,))
    assert not outside(mistake.wrong(step, "dx", expected_plain), expected(step, Arithmetic(PRECISIONS["float64"]))["dx"]).any()


@pytest.mark.parametrize(("layer", "numbers"), [(CumProd(), 5 * 7 * 7), (CumProd(1), 5 * 7 * 5), (Prod(-2), 5 * 7 * 5), (CumSum(), 0)])
def test_what_a_rule_holds_beside_inputs_and_outputs(layer: Layer, numbers: int) -> None:
    """The products of all entries but one, for every entry."""
    assert layer.extent((5, 7)) == numbers
