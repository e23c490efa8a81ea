"""Rounded arithmetic holds the true value and every real evaluation, in each precision; planted mistakes in it are caught."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from backproof.reference import rounding
from backproof.reference.rounding import PRECISIONS, Arithmetic, Precision, either
from backproof.reference.rounding.dispatch import UFUNCS
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

SIZE = 3
each_precision = pytest.mark.parametrize("precision", PRECISIONS.values(), ids=list(PRECISIONS))


@pytest.fixture(autouse=True, scope="module")
def _digits() -> Iterator[None]:
    with ctx.workprec(1280):  # the whole range of float64, so that even x + 1e150 - x keeps its digits
        yield


def all_inside(ball: Any, numbers: np.ndarray) -> bool:
    """Say whether every number (float or arb) certainly lies in its ball; where the ball gives up, anything does."""
    radius, flat = np.ravel(ball.radius()), np.ravel(numbers)
    return len(flat) == len(radius) and all(
        math.isinf(r) or abs((n if isinstance(n, arb) else arb(float(n))) - arb(float(v))) <= arb(float(r))
        for n, v, r in zip(flat, np.ravel(ball.value), radius, strict=True))


def _each(function: Callable[..., arb]) -> Any:
    return np.frompyfunc(function, function.__code__.co_argcount, 1)


def _row(function: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda x: np.broadcast_to(function(x, axis=-1, keepdims=True), x.shape)


def _log_sum(x: arb, y: arb) -> arb:
    tail = (-abs(x - y)).exp().log1p()
    return x.max(y) + (tail if tail.is_finite() else arb(0.35, 0.35))  # all that can be said of huge numbers: [0, log 2]


# One name, three meanings: the function below on rounded arrays; the same on object arrays of arb, save where EXACT says
# otherwise; `Machine.apply` in a real number format.
OPERATIONS: dict[str, Callable[..., Any]] = {
    **{f.__name__: f for f in (np.add, np.subtract, np.multiply, np.divide, np.matmul, np.maximum, np.minimum, np.logaddexp,
                               np.negative, np.absolute, np.square, np.reciprocal, np.exp, np.expm1, np.log, np.log1p, np.sqrt,
                               np.tanh, special.erf, special.erfc, special.expit, special.ndtr)},
    "power": lambda x: x**3,
    "affine": lambda x: 0.1 * x - 3,
    "halve": lambda x: x / 4 + 0.5 * x,
    **{f.__name__: _row(f) for f in (np.sum, np.mean, np.max, np.min)},
    "where": lambda x, y: np.where((x > y) | ~(x <= 1), x, 2 * y),
    "relu": lambda x: np.where((x > 0) & np.full((SIZE, SIZE), fill_value=True), x, 0.01 * x),
    "either": lambda x, y: either(x * x - y * y, (x - y) * (x + y)),
    "join": lambda x, y: np.stack([np.concatenate([x, y])[1 : SIZE + 1], y.T])[0],
    "split": lambda x: np.concatenate([*np.split(x, [1])[::-1]]),
}
BINARY = {"add", "subtract", "multiply", "divide", "matmul", "maximum", "minimum", "logaddexp", "where", "either", "join"}

EXACT: dict[str, Callable[..., Any]] = {
    "erf": _each(lambda x: x.erf()), "erfc": _each(lambda x: x.erfc()), "reciprocal": lambda x: arb(1) / x,
    "expit": _each(lambda x: (x.exp() if x < 0 else 1) / (1 + (-abs(x)).exp())), "power": lambda x: x * x * x,
    "ndtr": _each(lambda x: (-x / arb(2).sqrt()).erfc() / 2), "mean": lambda x: EXACT["sum"](x) / SIZE,
    "logaddexp": _each(_log_sum), "affine": lambda x: arb(0.1) * x - 3,
    "sum": _row(np.sum), "maximum": _each(lambda x, y: x.max(y)), "minimum": _each(lambda x, y: x.min(y)),
    "max": lambda x: np.broadcast_to(np.frompyfunc(arb.max, 2, 1).reduce(x, axis=-1, keepdims=True), x.shape),
    "min": lambda x: np.broadcast_to(np.frompyfunc(arb.min, 2, 1).reduce(x, axis=-1, keepdims=True), x.shape),
    "relu": lambda x: np.where(x > 0, x, arb(0.01) * x), "either": lambda x, y: x * x - y * y,
}


def _truncated(x: np.ndarray, bits: int) -> Any:
    """Cut float32 numbers to fewer bits, as tensor cores do."""
    return (x.view(np.uint32) & np.uint32(0xFFFFFFFF << (24 - bits) & 0xFFFFFFFF)).view(np.float32)


@dataclass(frozen=True)
class Machine:
    """A real evaluation in a precision: one order of sums, one way to divide, one habit about subnormal numbers."""

    precision: Precision
    order: str = "forward"
    reciprocal: bool = False
    flush: bool = False
    fused: bool = False  # no rounding between operations: excess precision
    chop: bool = False  # sums truncated where the precision allows it
    rewrite: bool = False  # elementary functions from others

    @property
    def inner(self) -> type:
        if self.precision.wide:
            return np.float32
        return np.float64 if self.fused or self.precision.name == "float64" else np.float32

    def flushed(self, x: np.ndarray, normal: float) -> np.ndarray:
        return np.where(np.abs(x) < normal, 0, x).astype(x.dtype) if self.flush and self.precision.name != "float16" else x

    def store(self, x: np.ndarray) -> np.ndarray:
        held = x if self.fused else x.astype(self.precision.dtype).astype(self.inner)
        return self.flushed(held, self.precision.normal)

    def sum(self, terms: Sequence[np.ndarray]) -> np.ndarray:
        if len(terms) == 1:
            return terms[0]
        cut = {"forward": len(terms) - 1, "backward": 1, "pairwise": len(terms) // 2}[self.order]
        a, b = self.sum(terms[:cut]), self.sum(terms[cut:])
        if self.chop and self.precision.accumulate == rounding.TRUNCATED and a.dtype == np.float32:
            exact = a.astype(np.float64) + b
            near = exact.astype(np.float32)
            return np.where(np.abs(near) > np.abs(exact), np.nextafter(near, np.float32(0)), near)
        return self.flushed(a + b, float(np.finfo(a.dtype).smallest_normal))

    def total(self, x: np.ndarray) -> np.ndarray:
        return self.sum(list(np.moveaxis(x, -1, 0)))[..., None]

    def matmul(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if self.precision.name == "tf32" and not self.fused:
            x, y = _truncated(x, 11), _truncated(y, 11)
        terms = x[:, :, None] * y[None, :, :]
        return self.sum([self.flushed(terms[:, k], float(np.finfo(terms.dtype).smallest_normal)) for k in range(terms.shape[1])])

    def apply(self, name: str, *operands: np.ndarray) -> np.ndarray:
        x, y, s, number = operands[0], operands[-1], self.store, self.inner
        ways: dict[str, Callable[[], np.ndarray]] = {
            "divide": lambda: s(x * s(1 / y)) if self.reciprocal else s(x / y),
            "matmul": lambda: s(self.matmul(x, y)),
            "sum": lambda: np.broadcast_to(s(self.total(x)), x.shape),
            "mean": lambda: np.broadcast_to(s(self.total(x) / number(SIZE)), x.shape),
            "power": lambda: s(x * s(x * x)),
            "affine": lambda: s(s(x * s(np.asarray(0.1, number))) - number(3)),
            "halve": lambda: s(s(x / 4) + s(x * number(0.5))),
            "where": lambda: np.where((x > y) | ~(x <= 1), x, s(2 * y)),
            "relu": lambda: np.where(x > 0, x, s(s(np.asarray(0.01, number)) * x)),
            "either": lambda: s(s(x - y) * s(x + y)) if self.rewrite else s(s(x * x) - s(y * y)),
        }
        if self.rewrite:
            ways |= {
                "expit": lambda: s(1 / (1 + np.exp(-x))),
                "logaddexp": lambda: s(np.maximum(x, y) + np.log1p(np.exp(-np.abs(x - y)))),
                "erfc": lambda: s(np.where(x > 0, np.exp(-(x * x)) * special.erfcx(np.maximum(x, 0)), special.erfc(x))),
            }
        if name in ways:
            return ways[name]()
        result = OPERATIONS[name](*operands)
        return result if name in {"join", "split", "negative", "absolute", "max", "min", "maximum", "minimum"} else s(result)


def machines(p: Precision) -> list[Machine]:
    return [Machine(p), Machine(p, "backward", reciprocal=True, chop=True), Machine(p, "pairwise", flush=True, rewrite=True),
            Machine(p, reciprocal=True, flush=True, chop=True), Machine(p, "pairwise", fused=True, rewrite=True)]


Step = tuple[str, int, int]
Leaf = tuple[str, float]
LEAVES = st.tuples(st.sampled_from(["one", "one", "one", "near", "tiny", "huge", "exact"]), st.floats(-2, 2))
STEPS = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=7)


def leaf(p: Precision, kind: str, m: float) -> float:
    """Return a number that the precision holds: around one, near one, subnormal or just above, huge, or a small integer."""
    raw = {"one": m, "near": 1 + 8 * p.store * round(m), "tiny": m * p.normal, "huge": m * math.sqrt(p.largest) / 64,
           "exact": round(m)}
    return float(p.held(np.float64(raw[kind])))


def run(leaves: Iterable[Any], steps: Iterable[Step], apply: Callable[..., Any]) -> list[Any]:
    """Evaluate a program: each step takes earlier results, by index from the last."""
    stack = list(leaves)
    for name, i, j in steps:
        operands = [stack[-1 - i % len(stack)]] + ([stack[-1 - j % len(stack)]] if name in BINARY else [])
        stack.append(apply(name, *operands))
    return stack


def exactly(name: str, *operands: np.ndarray) -> Any:
    return EXACT.get(name, OPERATIONS[name])(*operands)


def lifted(numbers: np.ndarray) -> Any:
    return np.frompyfunc(lambda n: arb(float(n)), 1, 1)(numbers)


@each_precision
@settings(deadline=None, max_examples=200)
@given(grids=st.lists(st.lists(LEAVES, min_size=SIZE**2, max_size=SIZE**2), min_size=2, max_size=2), steps=STEPS)
def test_truth_and_every_evaluation_lie_inside(precision: Precision, grids: list[list[Leaf]], steps: list[Step]) -> None:
    """A random program's true value, and what each machine makes of it, are inside the balls of all its intermediate results."""
    numbers = [np.array([leaf(precision, *drawn) for drawn in grid]).reshape(SIZE, SIZE) for grid in grids]
    arithmetic = Arithmetic(precision)
    balls = run([arithmetic.exact(a) for a in numbers], steps, lambda name, *xs: OPERATIONS[name](*xs))
    with rounding.quiet():
        answers = {"truth": run([lifted(a) for a in numbers], steps, exactly)}
        for machine in machines(precision):
            read = [machine.flushed(a.astype(machine.inner), precision.normal) for a in numbers]
            answers[str(machine)] = run(read, steps, machine.apply)
    for who, results in answers.items():
        for index, (ball, result) in enumerate(zip(balls, results, strict=True)):
            assert all_inside(ball, result), f"{who}: step {index}, {steps[index - 2]}: got {result}, expected {ball}"


@each_precision
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_says_something(name: str, precision: Precision) -> None:
    """On ordinary numbers, exact or rounded, no operation gives up, so that the test above is about finite bounds."""
    arithmetic = Arithmetic(precision)
    x = arithmetic.exact(np.linspace(0.5, 2, SIZE**2).reshape(SIZE, SIZE))
    for a, b in ((x, x.T), (x + x * x, x.T * x)):
        ball = OPERATIONS[name](a, b) if name in BINARY else OPERATIONS[name](a)
        assert (ball.radius() <= 0.5 * np.max(np.abs(ball.value))).all()


def test_every_rule_is_exercised() -> None:
    """Each universal function with a rule takes part in the random programs; the comparisons do so in `where` and below."""
    comparisons = {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"}
    assert {f.__name__ for f in UFUNCS} <= comparisons | set(OPERATIONS)


@each_precision
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), length=st.integers(1, 300), spread=st.floats(0, 4))
def test_long_sums_in_every_order_lie_inside(precision: Precision, seed: int, length: int, spread: float) -> None:
    """Sums and contractions of up to 300 terms over several decades are inside in every order, and so is the truth."""
    rng = np.random.default_rng(seed)
    x, y = (precision.held(rng.standard_normal(shape) * 10.0 ** rng.uniform(-spread, 0, shape))
            for shape in ((1, length), (length, 1)))
    arithmetic = Arithmetic(precision)
    total, product = np.sum(arithmetic.exact(x)), arithmetic.exact(x) @ arithmetic.exact(y)
    assert all_inside(total, np.sum(lifted(x)))
    assert all_inside(product, lifted(x) @ lifted(y))
    for machine in machines(precision):
        a, b = x.astype(machine.inner), y.astype(machine.inner)
        assert all_inside(total, machine.store(machine.sum(list(a[0])))), machine
        assert all_inside(product, machine.apply("matmul", a, b)), machine


Scenario = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Mistake:
    """A wrong line of the arithmetic, and a ball with numbers that then lie outside."""

    right: str
    wrong: str
    precision: str
    scenario: Scenario


def _ball(module: Any, arithmetic: Any, value: Any, bound: Any) -> Any:
    return module.Rounded(np.atleast_1d(np.float64(value)), np.atleast_1d(np.float64(bound)), arithmetic)


def _long_sum(module: Any, arithmetic: Any) -> tuple[Any, Any]:
    terms = np.array([1.0] + [arithmetic.precision.store] * 200)  # in order, each addition to 1 is lost
    return np.sum(arithmetic.exact(terms)), 1.0


def _of(function: Callable[..., Any], centres: Sequence[float], radii: Sequence[float], number: Any) -> Scenario:
    """Return a function of balls, and a number that can come of some point in them."""
    return lambda m, a: (function(*(_ball(m, a, v, r) for v, r in zip(centres, radii, strict=True))), number)


EPS32 = 2.0**-24
FAR = 1.49 / 2**43  # 700 + FAR is rounded down by nearly half an ulp; beside a wide ball, it is what is computed
MISTAKES: dict[str, Mistake] = {
    "gamma halved": Mistake("return length * roundoff /", "return 0.5 * length * roundoff /", "float32", _long_sum),
    "no underflow": Mistake("        bound += self.precision.underflow\n", "        bound += 0.0\n", "float32",
                            _of(np.multiply, [2**-70] * 2, [0, 0], 0.0)),
    "no underflow in sums": Mistake("bound = bound + least if bound.ndim == 0 else np.add(bound, least, out=bound)", "pass", "float32",
                                    lambda m, a: (a.exact([[2**-70]]) @ a.exact([[2**-70]]), 0.0)),
    "half a rounding": Mistake("bound += spread\n        bound *= roundoff", "bound += spread\n        bound *= 0.5 * roundoff", "float32",
                               _of(np.add, [1.0, EPS32], [0, 0], 1.0)),
    "no cross term": Mistake("spread = y.magnitude + y.bound\n", "spread = y.magnitude * 1\n", "float32",
                             _of(np.multiply, [1, 1], [1, 1], 4.0)),
    "no cross term with a number": Mistake("(size if y.exact else size + y.bound) * growth", "size * growth", "float32",
                                           lambda m, a: (_ball(m, a, [1, 1], [1, 1]) * _ball(m, a, 1, 1), [4.0] * 2)),
    "half a rounding with a number": Mistake("y.bound * growth + size *", "y.bound * growth + 0.5 * size *", "float32",
                                             lambda m, a: (_ball(m, a, [1 + 2**-12] * 2, [0, 0]) * _ball(m, a, 1 + 2**-12, 0),
                                                           [1 + 2**-11] * 2)),
    "no underflow with a number": Mistake("bound += arithmetic.precision.underflow  # of the product", "bound += 0.0", "float32",
                                          lambda m, a: (_ball(m, a, [2**-70] * 2, [0, 0]) * _ball(m, a, 2**-70, 0), [0.0] * 2)),
    "spread with no rounding": Mistake("bound += spread * (1 + roundoff)", "bound += 0 * spread", "float32",
                                       lambda m, a: (a.exact([1.0, 1.0]) + _ball(m, a, 1, 0.5), [2.5] * 2)),
    "no cross term in contractions": Mistake("    right = right + moved\n", "    right = right * 1\n", "float32",
                                             lambda m, a: (_ball(m, a, 1, 1)[None] @ _ball(m, a, 1, 1)[:, None], 4.0)),
    "quotient from the centre": Mistake("magnitude - y.bound * BOUND_SLACK", "magnitude", "float32",
                                        _of(np.divide, [1, 1], [0, 0.5], 2.0)),
    "reciprocal never underflows": Mistake("(np.abs(x.value) + x.bound) * (precision", "0 * (precision", "float32",
                                           _of(np.divide, [2.0**100, 1.5 * 2.0**126], [0, 0], 0.0)),
    "reciprocal never overflows": Mistake("known = smallest > 1 / precision.largest", "known = smallest > 0", "float16",
                                          _of(np.divide, [2.0**-20, 1.5 * 2.0**-20], [0, 0], math.inf)),
    "one rounding of a quotient": Mistake("rounded(value, spread, arithmetic.quotient)", "rounded(value, spread)", "float32",
                                          _of(np.divide, [1, 49], [0, 0], 1 / 49 * (1 + 1.9 * EPS32))),
    "one rounding of a quotient by a number": Mistake("growth + arithmetic.quotient", "growth + arithmetic.roundoff", "float32",
                                                      lambda m, a: (_ball(m, a, [1, 1], [0, 0]) / _ball(m, a, 49, 0),
                                                                    [1 / 49 * (1 + 1.9 * EPS32)] * 2)),
    "divisor known exactly": Mistake("y.bound / smallest * growth + ", "0 * y.bound + ", "float32",
                                     lambda m, a: (_ball(m, a, [1, 1], [0, 0]) / _ball(m, a, 1, 0.5), [2.0] * 2)),
    "numerator known exactly": Mistake("bound += x.bound * (growth / smallest)", "bound += 0 * x.bound", "float32",
                                       lambda m, a: (_ball(m, a, [1, 1], [0.5, 0.5]) / _ball(m, a, 3, 0), [0.5] * 2)),
    "e^x as straight as its tangent": Mistake("((1 + 2 * top) * (1 + arithmetic.elementary))", "1", "float32",
                                              lambda m, a: (np.exp(_ball(m, a, 1, 2.0**-7)), (arb(1) + 2.0**-7).exp())),
    "hull of the centres": Mistake("np.abs(x.value - middle) + x.bound, np.abs(y.value - middle) + y.bound",
                                   "np.abs(x.value - middle), np.abs(y.value - middle)", "float64",
                                   _of(lambda t, x: np.where(t > 0, x, 1), [0, 1], [1, 0.25], 1.25)),
    "ends of the ball rounded": Mistake("np.abs(x) * REFERENCE_ROUNDOFF", "0 * np.abs(x)", "float64",
                                        lambda m, a: (np.exp(_ball(m, a, [700, 0], [FAR, 1])), [(arb(FAR) + 700).exp(), 1.0])),
    "one end of the ball": Mistake("np.abs(y - function(x - reach))", "0", "float32",
                                   _of(np.log, [1], [0.5], math.log(0.5))),
    "bounded function of anything": Mistake("np.where(known, spread,", "np.where(True, spread,", "float32",
                                            _of(np.tanh, [0], [np.inf], math.nan)),
    "cancelling logaddexp": Mistake("np.abs(top) + (value - top)", "np.abs(value)", "float64",
                                    _of(np.logaddexp, [-math.log(2)] * 2, [0, 0], 2.0**-50)),
    "erfc in 8 ulps": Mistake("_gaussian(2 / math.sqrt(math.pi), 1), 1.0)", "_gaussian(2 / math.sqrt(math.pi), 1))", "float64",
                              lambda m, a: (special.erfc(a.exact([24.20110430459901])), arb(24.20110430459901).erfc())),
    "sum stored for free": Mistake("precision.store * (np.abs(value) + bound)", "0", "bfloat16",
                                   lambda m, a: (np.sum(a.exact([256.0, 0.984375])), 256.0)),
    "TF32 factors kept": Mistake("precision.multiply > precision.store", "False", "tf32",
                                 lambda m, a: (a.exact([[1 + 2**-10 - 2**-23]]) @ a.exact([[1.0]]), 1.0)),
    "truncation forgotten": Mistake("TRUNCATED = 2.0**-23", "TRUNCATED = 2.0**-24", "tf32",
                                    lambda m, a: (np.sum(a.exact([1.0] + [2.0**-23 * (1 - EPS32)] * 200)), 1.0)),
    "partial sums never overflow": Mistake("limited(magnitude, bound, self.running)", "limited(value, bound, self.running)", "float32",
                                           lambda m, a: (np.sum(a.exact([3e38, 3e38, -3e38, -3e38])), math.inf)),
    "largest number ignored": Mistake("limited(np.abs(value), bound, limit)", "bound", "float32",
                                      _of(np.multiply, [3e38, 1.5], [0, 0], math.inf)),
    "loser of a maximum ignored": Mistake("np.maximum(_beyond(x, value), _beyond(y, value))", "_beyond(x, value)", "float32",
                                          _of(np.maximum, [1, 0.5], [0, 2], 2.5)),
    "constants held exactly": Mistake("error = self.precision.store * np.abs(value)", "error = 0 * np.abs(value)", "bfloat16",
                                      lambda m, a: (a.lift(0.1), float(PRECISIONS["bfloat16"].held(np.float64(0.1))))),
    "subnormals always read": Mistake("if small.any()", "if False", "float32", lambda m, a: (a.exact([1e-40]) * 2, 0.0)),
    "either is one": Mistake("np.maximum(np.abs(other.value - ball.value) + other.bound, ball.bound)", "ball.bound + 0 * other.value",
                             "float32",
                             lambda m, a: (m.either(a.exact([1.0]), a.exact([2.0])), 2.0)),
    "not a number decided": Mistake("~(np.abs(x.value - y.value) > reach)", "(np.abs(x.value - y.value) <= reach)", "float32",
                                    _of(lambda x: np.where(x > 0, 1.0, 0.0), [np.nan], [np.inf], 1.0)),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=list(MISTAKES))
def test_planted_mistakes_are_caught(mistake: Mistake, rounding_anew: Callable[..., ModuleType]) -> None:
    """Each wrong line of the arithmetic puts a number that can occur outside of its ball, and the checker objects."""
    verdicts = []
    for module in (rounding, rounding_anew(mistake.right, mistake.wrong)):
        with rounding.quiet():
            ball, number = mistake.scenario(module, module.Arithmetic(module.PRECISIONS[mistake.precision]))
        verdicts.append(all_inside(ball, np.array(number, dtype=object)))
    assert verdicts == [True, False]
