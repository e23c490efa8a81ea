"""The elementary functions on arrays of arbitrary-precision numbers and of fractions: the same values, to all their digits."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import pytest
from backproof.exact import balls, precise
from backproof.reference import functions as f
from backproof.reference.rounding import PRECISIONS, Arithmetic
from flint import arb

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
)  # fmt: skip


@pytest.mark.parametrize(("function", "truth"), TRUTH, ids=[getattr(function, "__name__", "?") for function, _ in TRUTH])
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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("function", "stored"), [(f.softplus, _stored_softplus), (f.expm1, _stored_expm1)], ids=["softplus", "expm1"])
def test_steps_stored_in_half_precision_stay_within_the_bound(function: Any, stored: Any, precision: str) -> None:
    """Formed step by step in the format, softplus and e^x - 1 lie in the ball, which is a few roundings wide; so does the function."""
    known = PRECISIONS[precision]
    x = np.random.default_rng(3).uniform(-6, 6, 2000).astype(known.dtype)
    ball = function(Arithmetic(known).exact(x))
    exact = function(x.astype(np.float64))
    for answer in (stored(x), exact.astype(known.dtype)):
        assert (np.abs(answer.astype(np.float64) - ball.value) <= ball.radius()).all()
    assert (np.abs(stored(x).astype(np.float64) - exact) > known.store * np.abs(exact)).any()
    assert (ball.radius() < 6 * known.store * np.abs(exact) + 4 * known.underflow).all()


@pytest.mark.parametrize(("function", "own"), [(f.softplus, lambda x: np.logaddexp(x, 0.0)), (f.expm1, np.expm1)],
                         ids=["softplus", "expm1"])  # fmt: skip
def test_steps_are_not_stored_where_they_are_as_wide(function: Any, own: Any) -> None:
    """In float32 the bound is that of the function itself."""
    x = Arithmetic(PRECISIONS["float32"]).exact(np.linspace(-6, 6, 99))
    assert (function(x).bounds() == own(x).bounds()).all()
