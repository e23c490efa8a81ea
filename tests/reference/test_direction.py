"""Derivatives along a direction agree with the hand-derived backward, their bounds hold, and at a kink there is none."""

from __future__ import annotations

from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.reference import directed, library, rounding
from backproof.reference.direction import Directed, numbers_of, steady
from backproof.reference.heads import Head
from backproof.reference.layer import REGISTRY, Layer, each, each_shape
from backproof.reference.rounding import Arithmetic, Rounded, dispatch, precision_named
from scipy import special

library.load_all()  # else the layers are those that other tests happen to import

FLOAT64 = precision_named("float64")
OWN = [cls for _, cls in sorted(REGISTRY.items()) if issubclass(cls, Layer) and cls.__module__.startswith("backproof.")]
SETTINGS = [(cls, number, setting) for cls in OWN for number, setting in enumerate(cls.examples())]
HEADS = (bp.MSELoss(), bp.BCEWithLogitsLoss(), bp.CrossEntropyLoss(label_smoothing=0.1), bp.Head("tanh", "huber"), bp.Head("softmax", "kl"))


class Run:
    """A layer along a direction, with numbers that meet no kink."""

    def __init__(self, layer: Any, shapes: tuple[Any, ...], seed: int = 0) -> None:
        self.layer, self.rng = layer, np.random.default_rng(seed)
        below = layer.index_below()
        self.inputs = [self.rng.standard_normal((3, *shape)) if n is None else self.rng.integers(n, size=(3, *shape))
                       for shape, n in zip(shapes, below, strict=True)]
        self.params = {name: self.rng.standard_normal(shape) for name, shape in layer.parameters(*shapes).items()}
        self.constants = {name: self._constant(c) for name, c in layer.constants(*shapes).items()}
        self.dys = [self.rng.standard_normal((3, *shape)) for shape in each_shape(layer.output_shape(*shapes))]
        self.fixed = layer.fixed(*shapes)
        self.moving: list[int | str] = [*(i for i, n in enumerate(below) if n is None), *self.params]

    def _constant(self, constant: Any) -> np.ndarray:
        shape = (*(3,) * constant.batched, *constant.shape)
        if constant.kind == "index":
            return self.rng.integers(constant.below, size=shape)
        if constant.kind in {"keep", "boolean"}:
            chosen = self.rng.random(shape) < constant.p
            return chosen if constant.kind == "boolean" else chosen.astype(float)
        return np.abs(self.rng.standard_normal(shape)) + 0.25

    def array(self, key: int | str) -> np.ndarray:
        return self.inputs[key] if isinstance(key, int) else self.params[key]

    def direction(self) -> dict[int | str, np.ndarray]:
        found = {key: self.rng.standard_normal(self.array(key).shape) for key in self.moving}
        for name, place in self.fixed.items():
            found[name][place] = 0
        return found

    def along(self, by: dict[int | str, np.ndarray]) -> tuple[list[Rounded], dict[int | str, Rounded]]:
        """Return the derivatives of the outputs and of the gradients."""
        arithmetic = Arithmetic(FLOAT64, kinks="hull")

        def moved(key: int | str, a: np.ndarray) -> Any:
            return a if a.dtype.kind in "iub" else Directed.of(a, arithmetic, by.get(key))

        params = {name: moved(name, a) for name, a in {**self.params, **self.constants}.items()}
        y, backward = self.layer.forward(params, *(moved(i, x) for i, x in enumerate(self.inputs)))
        dx, d_params = backward(*(Directed.of(dy, arithmetic) for dy in self.dys))
        gradients = {**dict(enumerate(each(dx))), **d_params}
        return [arithmetic.lift(a) if not isinstance(a, Directed) else a.derivative() for a in each(y)], {
            key: gradients[key].derivative() for key in self.moving}

    def gradients(self) -> dict[int | str, Any]:
        """Return the gradients of the plain rule."""
        _, backward = self.layer.forward({**self.params, **self.constants}, *self.inputs)
        dx, d_params = backward(*self.dys)
        found = {**dict(enumerate(each(dx))), **d_params}
        return {key: found[key] for key in self.moving}


def paired(derivatives: Any, others: Any) -> tuple[float, float, float]:
    """Return the sum of products with some arrays, its bound, and the sum of magnitudes."""
    pairs = list(zip(derivatives, others, strict=True))
    return (sum(float(np.sum(numbers_of(d) * o)) for d, o in pairs),
            sum(float(np.sum(d.radius() * np.abs(o))) for d, o in pairs if isinstance(d, Rounded)),
            sum(float(np.sum(np.abs(numbers_of(d) * o))) for d, o in pairs))


@pytest.mark.parametrize(("cls", "number", "setting"), SETTINGS, ids=[f"{cls.__name__}-{n}" for cls, n, _ in SETTINGS])
def test_the_rules_of_every_layer_run_along_a_direction(cls: type, number: int, setting: Any) -> None:
    """<dy, J v> is <J^T dy, v>, J^T being the hand-derived backward; the second derivative is symmetric; both are known."""
    run = Run(setting[0], setting[1:])
    if not run.moving:
        pytest.skip("nothing moves")
    v, w = run.direction(), run.direction()
    outputs, second = run.along(v)
    left, bound, size = paired(outputs, run.dys)
    right, _, magnitude = paired(run.gradients().values(), v.values())
    assert np.isfinite(bound)
    assert abs(left - right) <= bound + 2.0**-40 * (size + magnitude)
    one, spread, _ = paired(second.values(), w.values())
    other, more, _ = paired(run.along(w)[1].values(), v.values())
    assert np.isfinite(spread)
    assert abs(one - other) <= spread + more


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_the_rules_of_heads_run_along_a_direction(head: Head) -> None:
    """The derivative of the loss is <dz, v>, and that of dz is a difference quotient's."""
    rng, arithmetic = np.random.default_rng(0), Arithmetic(FLOAT64, kinks="hull")
    z, v = rng.standard_normal((3, 4)), rng.standard_normal((3, 4))
    kind = head.target_kind()
    target = rng.integers(4, size=3) if kind == "classes" else np.full((3, 4), 0.25)
    given = target if kind == "classes" else Directed.of(target, arithmetic)
    loss, backward = head.forward({}, Directed.of(z, arithmetic, v), given)
    dz = head.forward({}, z, target)[1](np.asarray(1.0))
    ball = loss.derivative()
    assert abs(float(ball.value) - float(np.sum(dz * v))) <= float(ball.radius()) + 2.0**-45 * float(np.sum(np.abs(dz * v)))
    ahead, behind = (head.forward({}, z + h * v, target)[1](np.asarray(1.0)) for h in (2.0**-17, -(2.0**-17)))
    slope = backward(Directed.of(np.asarray(1.0), arithmetic)).derivative()
    assert np.max(np.abs((ahead - behind) * 2.0**16 - slope.value)) < 1e-8
    assert np.max(slope.radius()) < 1e-13


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("function", [np.exp, np.tanh, np.log1p, np.sqrt, special.expit, special.erf, special.ndtr, np.expm1, np.log])
def test_a_bound_holds_what_the_format_makes_of_a_derivative(function: Any, precision: str) -> None:
    """The derivative in the format itself, by differences of a wider one, lies in the ball, and the ball is a few roundings wide."""
    own = precision_named(precision)
    x = np.random.default_rng(1).uniform(0.25, 1.5, 200).astype(own.dtype)
    ball = function(Directed.of(x, Arithmetic(own), np.ones_like(x))).derivative()
    wide = x.astype(np.longdouble)
    h = np.longdouble(2.0**-18)
    if function not in {special.expit, special.erf, special.ndtr}:  # of which there is none in long double
        assert np.max(np.abs((function(wide + h) - function(wide - h)) / (2 * h) - ball.value) / np.abs(ball.value)) < 1e-10
    assert np.all(np.abs(ball.value.astype(own.dtype).astype(float) - ball.value) <= ball.radius())
    assert np.max(ball.radius() / np.abs(ball.value)) < 400 * own.store  # of tanh' = 1 - y^2, which cancels


def test_roundings_are_relative_to_what_has_not_cancelled() -> None:
    """Of x - x nothing is left, but an order that rounds both terms apart is held."""
    x = Directed.of(np.array([1.0]), Arithmetic(FLOAT64), np.array([1 / 3]))
    ball = (3 * x - 3 * x).derivative()
    assert ball.value == 0
    assert ball.radius() >= 2.0**-53


def test_parts_added_up_apart_meet_more_roundings() -> None:
    """Each further addition widens the bound by a rounding of the magnitudes."""
    x = Directed.of(np.array([1.0]), Arithmetic(FLOAT64), np.array([1.0]))
    few, more = (x + x).derivative(), (x + x).derivative(3)
    assert 3 * 2 * 2.0**-53 < more.radius() - few.radius() < 4 * 2 * 2.0**-52


@pytest.mark.parametrize("function", [lambda x: np.where(x > 0, x, 0), np.abs, lambda x: np.maximum(x, 0.0),
                                      lambda x: np.max(np.stack([x, -x]), axis=0)])
def test_at_a_kink_there_is_no_derivative(function: Any) -> None:
    """There the bound is infinite, beside it as small as everywhere."""
    x = Directed.of(np.array([-1.0, 0.0, 1.0]), Arithmetic(FLOAT64, kinks="hull"), np.ones(3))
    radius = function(x).derivative().radius()
    assert np.isinf(radius[1])
    assert np.all(radius[[0, 2]] < 1e-14)


def test_a_tie_of_branches_that_move_alike_is_none() -> None:
    """Where both branches have one slope nothing is open."""
    x = Directed.of(np.array([0.0]), Arithmetic(FLOAT64, kinks="hull"), np.ones(1))
    assert np.isfinite(np.where(x > 0, x, 1 * x).derivative().radius()).all()


def test_rounded_and_directed_arrays_mix_either_way() -> None:
    """A rounded constant on the left leaves the operation to the directed array, as `where` and `either` do."""
    arithmetic = Arithmetic(FLOAT64)
    x, two = Directed.of(np.array([3.0]), arithmetic, np.array([1.0])), arithmetic.exact(np.array([2.0]))
    assert (two * x).derivative().value == (x * two).derivative().value == 2
    assert np.where(np.array([True]), two, x).derivative().value == 0
    assert rounding.either(two * x, x + x).derivative().value == 2
    assert np.concatenate([two, x]).derivative().value.tolist() == [0, 1]


def test_a_steady_array_has_no_slope() -> None:
    """What is taken out of a softmax does not count as moving; numbers are the same for all kinds of arrays."""
    x = Directed.of(np.array([3.0]), Arithmetic(FLOAT64), np.array([1.0]))
    assert steady(x).derivative().value == 0
    assert numbers_of(x) == numbers_of(x.value) == numbers_of(np.array([3.0])) == np.asarray(x) == 3


def test_every_function_of_rounded_arithmetic_has_its_derivative() -> None:
    """A rule that runs on rounded arrays finds all it needs here too."""
    assert set(dispatch.UFUNCS) == set(directed.UFUNCS)
    assert set(dispatch.FUNCTIONS) <= set(directed.FUNCTIONS)


@pytest.mark.parametrize("call", [np.cos, np.median, lambda x: rounding.running_product(x, 0)])
def test_what_has_no_rule_is_named(call: Any) -> None:
    """A rule that uses another function is told which."""
    x = Directed.of(np.ones((2, 2)), Arithmetic(FLOAT64), np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"no rule for cos|no rule for median|along the last axis: got axis 0"):
        call(x)
