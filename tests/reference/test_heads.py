"""Every head against complex steps, exact rationals and 900-digit arithmetic; heads enrol themselves from the registry."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from backproof.reference import heads as H  # noqa: N812
from backproof.reference.ctc import CTCLoss
from backproof.reference.heads import (
    FUSED,
    LOSSES,
    OUTPUTS,
    PER_EXAMPLE,
    ROUTES,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    Head,
    KLDivLoss,
    MSELoss,
    NLLLoss,
    pairs,
)
from backproof.reference.layer import REGISTRY, ShapeError
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded

FLOAT64 = PRECISIONS["float64"]
REDUCTIONS = ("mean", "sum", "none")
SHAPES = ((3, 4), (1, 1), (2, 3, 5))
STEP = 2.0**-500
PAIRED = ((3, 2, 4), (1, 2, 1), (2, 2, 3))
FRAMES = ((3, 4, 3), (1, 1, 2), (2, 5, 4))
WEIGHT = (0.5, 2.0, 0.3, 1.25)
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "CrossEntropyLoss": [{}, {"label_smoothing": 0.1}, {"label_smoothing": 1.0}, {"weight": WEIGHT}, {"ignore_index": 0},
                         {"label_smoothing": 0.25, "weight": WEIGHT, "ignore_index": -1}],
    "NLLLoss": [{}, {"weight": WEIGHT, "ignore_index": 2}], "BCEWithLogitsLoss": [{}, {"pos_weight": (0.01, 3.0, 1.0, 0.0)}],
    "HuberLoss": [{}, {"delta": 0.3}], "SmoothL1Loss": [{}, {"beta": 0.3}, {"beta": 0.0}], "HingeLoss": [{}, {"margin": 0.5}],
    "KLDivLoss": [{}, {"log_target": True}, {"reduction": "batchmean"}], "CosineEmbeddingLoss": [{}, {"margin": 0.25}],
    "CTCLoss": [{}, {"blank": 1}],
}
"""Options to try beyond the defaults, by class."""


def named_heads() -> Iterator[tuple[type[Head], dict[str, Any]]]:
    """Yield every registered head other than the general one, with each set of options."""
    for name, cls in REGISTRY.items():
        if issubclass(cls, Head) and cls is not Head:
            for options in OPTIONS.get(name, [{}]):
                yield cls, options


def combinations() -> Iterator[tuple[str, str, bool]]:
    """Yield every output with every loss, and whether `Head` takes the two."""
    for output, loss in itertools.product(OUTPUTS, LOSSES):
        try:
            Head(output, loss)
        except ValueError:
            yield output, loss, False
        else:
            yield output, loss, True


HEADS: list[Head] = [
    *(Head(output, loss, r) for output, loss, valid in combinations() if valid for r in REDUCTIONS),
    *(cls(**{"reduction": r, **options}) for cls, options in named_heads() for r in REDUCTIONS),
]
HEADS = list(dict.fromkeys(HEADS))


def named(head: Head) -> str:
    """Return what tells a head from the others."""
    return f"{head}-{head.output}-{head.loss}"


FUSED_HEADS = [head for head in HEADS if (head.output, head.loss) in FUSED]


def shapes_of(head: Head) -> tuple[tuple[int, ...], ...]:
    """Return shapes of z that a head takes."""
    if isinstance(head, CosineEmbeddingLoss):
        return PAIRED
    if isinstance(head, CTCLoss):
        return FRAMES
    fixed = getattr(head, "weight", None) or getattr(head, "pos_weight", None) or getattr(head, "ignore_index", -100) >= -1
    return ((3, 4), (1, 4), (2, 3, 4)) if fixed else SHAPES


def draw(head: Head, shape: tuple[int, ...], seed: int, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw z and a target of the kind that the head wants."""
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal(shape), draw_target(head, shape, rng)


def draw_target(head: Head, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a target; some of the classes are the one that is ignored, and the labels of CTC have several lengths."""
    kind, wanted = head.target_kind(), head.target_shape(shape)
    if kind == "ctc":
        labels = np.delete(np.arange(shape[-1]), head.blank)
        lengths = rng.integers(wanted[1] + 1, size=wanted[0])
        return np.where(np.arange(wanted[1]) < lengths[:, None], rng.choice(labels, size=wanted), -1)
    if kind == "classes":
        ignored = getattr(head, "ignore_index", -100)
        classes = rng.choice(np.setdiff1d(np.arange(shape[-1]), [ignored]), size=wanted)
        if ignored >= -1 and classes.size > 1:
            classes.flat[-1] = ignored
        return classes
    if kind == "distribution":
        return rng.multinomial(4, np.full(shape[-1], 1 / shape[-1]), size=shape[:-1]) / 4  # with zeros
    if kind == "log_distribution":
        numbers = rng.standard_normal(wanted)
        return numbers - np.log(np.sum(np.exp(numbers), axis=-1, keepdims=True))
    if kind == "sign":
        return rng.choice([-1.0, 1.0], size=wanted)
    return rng.random(wanted) if kind == "binary" else 2 * rng.standard_normal(wanted)


def ball_of(head: Head, z: np.ndarray, target: np.ndarray, upstream: Any = 1.0, route: str = "fused",
            kinks: str = "own") -> tuple[Rounded, Rounded]:
    """Return loss and dz in rounded float64 arithmetic."""
    arithmetic = Arithmetic(FLOAT64, kinks=kinks)
    wrapped = target if target.dtype.kind == "i" else arithmetic.exact(target)
    loss, backward = head.forward({}, arithmetic.exact(z), wrapped, route=route)
    return loss, backward(arithmetic.exact(upstream))


def complex_step(head: Head, z: np.ndarray, target: np.ndarray, route: str = "fused", upstream: Any = 1.0) -> np.ndarray:
    """Return dJ/dz by one complex evaluation of the loss per entry: no difference is taken, so no digit is lost."""
    gradient = np.empty(z.shape)
    for index in np.ndindex(z.shape):
        moved = z.astype(complex)
        moved[index] += 1j * STEP
        gradient[index] = np.sum(upstream * np.imag(head.forward({}, moved, target, route=route)[0])) / STEP
    return gradient


def outside(ball: Rounded, truth: Any, radii: int = 1) -> int:
    """Count the entries of the truth that are further than so many radii from the ball's centre: 2 if it is rounded itself."""
    assert np.isfinite(ball.radius()).all()
    return int(np.count_nonzero(~(np.abs(truth - ball.value) <= radii * ball.radius())))


def test_every_registered_head_is_tried() -> None:
    """Every head class, output, loss, fused pair and reduction is among the heads of these tests."""
    assert {type(head) for head in HEADS} == {cls for cls in REGISTRY.values() if issubclass(cls, Head)}
    assert {MSELoss, BCEWithLogitsLoss, CrossEntropyLoss, Head} <= {type(head) for head in HEADS}
    assert {head.output for head in HEADS} == set(OUTPUTS)
    assert {head.loss for head in HEADS} == {*LOSSES, "ctc", "cosine_embedding"}
    assert {(head.output, head.loss) for head in FUSED_HEADS} == set(FUSED)
    assert {head.reduction for head in HEADS} == {*REDUCTIONS, "batchmean"}
    assert set(OPTIONS) <= set(REGISTRY)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("head", HEADS, ids=named)
def test_gradient_is_the_complex_step_of_the_loss(head: Head, route: str) -> None:
    """dz, by either route and with an upstream gradient of the loss's shape, has the complex step of the loss in its ball."""
    for shape in shapes_of(head):
        for seed in range(2):
            z, target = draw(head, shape, seed)
            upstream = np.random.default_rng(seed).standard_normal(head.loss_shape(shape))
            loss, dz = ball_of(head, z, target, upstream, route)
            assert dz.shape == z.shape
            assert loss.shape == head.loss_shape(shape)
            assert outside(dz, complex_step(head, z, target, route, upstream), radii=2) == 0
            plain, backward = head.forward({}, z, target, route=route)
            assert outside(loss, plain) == 0
            assert outside(dz, backward(upstream)) == 0


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("head", HEADS, ids=named)
def test_gradient_and_bounds_keep_their_digits(head: Head, route: str) -> None:
    """The plain dz is the complex step within 2^6 roundoffs of its largest entry, and no bound is wider than 2^14."""
    for shape, seed in itertools.product((shape for shape in shapes_of(head) if shape[-1] > 1), range(2)):
        z, target = draw(head, shape, seed)
        upstream = np.random.default_rng(seed).standard_normal(head.loss_shape(shape))
        truth = complex_step(head, z, target, route, upstream)
        loss, backward = head.forward({}, z, target, route=route)
        balls = ball_of(head, z, target, upstream, route)
        assert np.max(np.abs(backward(upstream) - truth)) <= 2**6 * FLOAT64.store * np.max(np.abs(truth))
        for ball, numbers in zip(balls, (loss, truth), strict=True):
            assert np.max(ball.radius()) <= 2**14 * FLOAT64.store * np.max(np.abs(numbers))


def test_the_general_route_of_log_probabilities_keeps_its_digits() -> None:
    """Where one class is all but certain, its dz is minus the sum of the others' probabilities, not a difference from 1."""
    z = np.array([[40.0, 1.0, 0.0]])
    dz = Head("log_softmax", "nll").forward({}, z, np.array([0]), route="general")[1]()
    others = np.exp(z[0, 1:] - 40)
    assert np.abs(dz[0] / [-others.sum(), *others] - 1).max() < 2.0**-48


@pytest.mark.parametrize(("head", "kind"), [
    (Head(), "real"), (Head("sigmoid", "bce"), "binary"), (Head("softmax", "kl"), "distribution"), (Head("linear", "hinge"), "sign"),
    (Head("log_softmax", "nll"), "classes"), (KLDivLoss(log_target=True), "log_distribution"), (KLDivLoss(), "distribution"),
    (CTCLoss(), "ctc"), (CrossEntropyLoss(), "classes"), (BCEWithLogitsLoss(), "binary"), (CosineEmbeddingLoss(), "sign"),
], ids=lambda of: named(of) if isinstance(of, Head) else of)
def test_targets_are_of_the_kind_that_a_head_says(head: Head, kind: str) -> None:
    """The kind is one of those that targets are drawn by."""
    assert head.target_kind() == kind


def test_the_rules_of_a_head_are_told() -> None:
    """The derivation of the fused form where there is one, else of the loss and of the output."""
    assert Head("sigmoid", "bce").derivation().startswith("J = p y softplus(-z) + (1 - y) softplus(z)")
    loss, output = Head("tanh", "mse").derivation().split("\n")
    assert loss == "J = (a - y)^2, dJ/da = 2 (a - y)."
    assert output.startswith("a = tanh z, da/dz = 1 - tanh^2 z")
    assert CosineEmbeddingLoss().derivation().startswith("J = 1 - c for y = 1, max(0, c - margin) for y = -1")
    assert CTCLoss().derivation().startswith("J = -log sum over alignments of prod_t a_t,pi_t")


@pytest.mark.parametrize("head", FUSED_HEADS, ids=named)
def test_complex_step_passes_through_ties(head: Head) -> None:
    """Where several entries of z share the largest value the loss is smooth, and its complex step says so."""
    for seed in range(20):
        z, target = draw(head, shapes_of(head)[-1], seed)
        z = np.round(z / 2)
        assert outside(ball_of(head, z, target)[1], complex_step(head, z, target), radii=2) == 0


def test_upstream_defaults_to_one() -> None:
    """`backward()` is `backward(1)`."""
    for head in HEADS:
        z, target = draw(head, shapes_of(head)[0], 0)
        _, backward = head.forward({}, z, target)
        assert np.array_equal(backward(), backward(1.0))


@pytest.mark.parametrize("head", FUSED_HEADS, ids=named)
def test_fused_and_general_routes_agree(head: Head) -> None:
    """Both routes give one loss and one gradient, up to the sum of their bounds."""
    z, target = draw(head, shapes_of(head)[0], 1)
    for fused, general in zip(ball_of(head, z, target), ball_of(head, z, target, route="general"), strict=True):
        assert (np.abs(fused.value - general.value) <= fused.radius() + general.radius()).all()


@pytest.mark.parametrize("loss", ["mse", "half_squared_error", "l1", "huber", "smooth_l1", "hinge"])
def test_gradient_is_exact_in_rationals(loss: str) -> None:
    """Of a linear output with a piecewise quadratic loss, central differences in fractions give dz exactly."""
    e = [Fraction(n, 8) for n in (-29, -13, -5, -3, 1, 7, 11, 40)]
    y = np.array([Fraction(n, 3) for n in range(len(e))], dtype=object).reshape(2, 4)
    if loss == "hinge":
        y = np.array([Fraction((-1) ** n) for n in range(len(e))], dtype=object).reshape(2, 4)
    z = (0 if loss == "hinge" else y) + np.array(e, dtype=object).reshape(2, 4)
    step = Fraction(1, 16)
    for reduction in REDUCTIONS:
        head = Head("linear", loss, reduction)
        dz = head.forward({}, z, y)[1](Fraction(3, 2))
        for index in np.ndindex(z.shape):
            up, down = z.copy(), z.copy()
            up[index] += step
            down[index] -= step
            rise = np.sum(head.forward({}, up, y)[0] - head.forward({}, down, y)[0])
            assert isinstance(dz[index], Fraction)
            assert dz[index] == Fraction(3, 2) * rise / (2 * step)


# What follows the formulas of the definitions, in as many digits as it takes, and shares no line with the reference.


Row = list[Any]


def mp_sigmoid(z: Row) -> Row:
    return [1 / (1 + mpmath.exp(-x)) for x in z]


def mp_softmax(z: Row) -> Row:
    total = mpmath.fsum(mpmath.exp(x) for x in z)
    return [mpmath.exp(x) / total for x in z]


def mp_tanh(z: Row) -> Row:
    return [mpmath.tanh(x) for x in z]


def mp_log_softmax(z: Row) -> Row:
    total = mpmath.fsum(mpmath.exp(x) for x in z)
    return [x - mpmath.log(total) for x in z]


def mp_bce(a: Any, y: Any) -> Any:
    return -(y * mpmath.log(a) + (1 - y) * mpmath.log(1 - a))


def mp_l1(a: Any, y: Any) -> Any:
    return a - y if mpmath.re(a) > y else y - a


def mp_huber(a: Any, y: Any) -> Any:
    return (a - y) ** 2 / 2 if abs(mpmath.re(a) - y) <= 1 else mp_l1(a, y) - mpmath.mpf(1) / 2


def mp_kl(a: Any, y: Any) -> Any:
    return y * (mpmath.log(y) - mpmath.log(a)) if y else 0 * a


def mp_cosine(a: Row, y: Row) -> Any:
    norms = [mpmath.sqrt(mpmath.fsum(x * x for x in v)) for v in (a, y)]
    return 1 - mpmath.fsum(p * q for p, q in zip(a, y, strict=True)) / (norms[0] * norms[1])


def each(rule: Callable[[Any, Any], Any]) -> Callable[[Row, Row], Any]:
    """Return the sum of a loss over the entries of a row."""
    return lambda a, y: mpmath.fsum(rule(p, q) for p, q in zip(a, y, strict=True))


MP_OUTPUTS: dict[str, Callable[[Row], Row]] = {
    "linear": list, "sigmoid": mp_sigmoid, "softmax": mp_softmax, "tanh": mp_tanh, "log_softmax": mp_log_softmax,
}
MP_LOSSES: dict[str, Callable[[Row, Any], Any]] = {
    "mse": each(lambda a, y: (a - y) ** 2), "half_squared_error": each(lambda a, y: (a - y) ** 2 / 2), "l1": each(mp_l1),
    "huber": each(mp_huber), "smooth_l1": each(mp_huber), "bce": each(mp_bce), "cosine": mp_cosine, "kl": each(mp_kl),
    "cross_entropy": each(lambda a, y: -y * mpmath.log(a)), "nll": lambda a, y: -a[y],
    "kl_div": each(lambda a, y: y * (mpmath.log(y) - a) if y else 0 * a), "hinge": each(lambda a, y: max(0 * a, 1 - y * a, key=mpmath.re)),
    "soft_margin": each(lambda a, y: mpmath.log(1 + mpmath.exp(-y * a))),
}
DIGITS = 900  # 1 - s(1000) is 1e-435


def high_precision(head: Head, z: np.ndarray, y: np.ndarray, digits: int = DIGITS) -> tuple[Any, Row]:
    """Return the loss of one example, summed over its outputs, and its gradient: a complex step in so many digits."""
    with mpmath.workdps(digits):
        row, target = [mpmath.mpf(float(x)) for x in z], [mpmath.mpf(float(t)) for t in y] if y.ndim else int(y)
        step = mpmath.mpf(10) ** (-3 * digits)

        def loss(k: int | None) -> Any:
            moved = [x + mpmath.mpc(0, step) if j == k else x for j, x in enumerate(row)]
            return MP_LOSSES[head.loss](MP_OUTPUTS[head.output](moved), target)

        return mpmath.re(loss(None)), [mpmath.im(loss(k)) / step for k in range(len(row))]


def ulps(value: float, truth: Any) -> float:
    """Return the distance in units in the last place of the truth."""
    with mpmath.workdps(DIGITS):
        return float(abs(mpmath.mpf(float(value)) - truth) / float(np.spacing(abs(float(truth)))))


def extreme_rows(pair: tuple[str, str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield examples with |z| up to 1e3 whose differences are exact in float64, with hard targets."""
    if pair[0] == "sigmoid":
        z = np.array([sign * x for x in (1000, 746.25, 744.5, 709.5, 100.125, 37.5, 1.5, 0.0) for sign in (1, -1)])
        yield from ((z, np.full(z.size, y)) for y in (0.0, 1.0))
        return
    rng = np.random.default_rng(5)
    for size in (0.5, 40, 710, 1000):
        z = np.round(64 * size * rng.uniform(-1, 1, 5)) / 64
        yield from ((row, target) for row in (z, np.sort(z)) for target in np.eye(5))
    yield from ((np.array([1000.0, 1000.0, -1000.0]), target) for target in np.eye(3))  # a tie at the top
    yield from ((np.array([60.0, 20.0]), target) for target in np.eye(2))


@pytest.mark.parametrize("pair", FUSED, ids="-".join)
def test_fused_route_keeps_its_digits(pair: tuple[str, str]) -> None:
    """For |z| up to 1e3, tails included, loss and gradient are within a few ulps and raise no floating-point warning."""
    head = Head(*pair, "sum")
    worst_loss = worst_gradient = 0.0
    compared = 0
    every = 1 if pair[1] in {"bce", "cross_entropy"} else 4  # the others come to the same rule
    for z, hot in itertools.islice(extreme_rows(pair), 0, None, every):
        y = np.argmax(hot) if pair[1] == "nll" else hot
        split = [(z[k : k + 1], y[k : k + 1]) for k in range(z.size)] if pair[0] == "sigmoid" else [(z, y)]
        for row, target in split:  # independent outputs one by one, so that no sum hides a lost digit
            with np.errstate(all="raise", under="ignore"):
                loss, backward = head.forward({}, row[None], target[None])
                dz = backward()[0]
            loss_truth, truth = high_precision(head, row, target)
            worst_loss = max(worst_loss, ulps(float(loss), loss_truth))
            worst_gradient = max(worst_gradient, *(ulps(d, t) for d, t in zip(dz, truth, strict=True)))
            compared += dz.size
    assert compared > 30
    assert worst_loss <= FLOAT64.ulps
    assert worst_gradient <= FLOAT64.ulps


@pytest.mark.parametrize("pair", FUSED, ids="-".join)
def test_balls_of_the_fused_route_hold_the_truth_at_extremes(pair: tuple[str, str]) -> None:
    """For any z up to 1e3 and soft targets, the high-precision loss and gradient lie in finite balls."""
    rng = np.random.default_rng(11)
    head = Head(*pair, "sum")
    for size in (1, 30, 300, 1000):
        z = size * rng.uniform(-1, 1, (1, 4))
        y = draw_target(head, (1, 4), rng) if pair[1] == "nll" else rng.multinomial(64, np.full(4, 1 / 4), size=1) / 64
        loss, dz = ball_of(head, z, y)
        loss_truth, truth = high_precision(head, z[0], y[0])
        assert outside(loss, float(loss_truth)) == 0
        assert outside(dz, np.array([float(t) for t in truth])[None]) == 0


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("head", [head for head in HEADS if type(head) is Head and head.reduction == "sum"], ids=named)
def test_balls_hold_the_definition(head: Head, route: str) -> None:
    """The loss and gradient of the definition, in 50 digits and row by row, lie in the balls of either route."""
    for shape in ((1, 5), (3, 5), (2, 2, 5)):
        z, target = draw(head, shape, 6)
        loss, dz = ball_of(head, z, target, route=route)
        rows = zip(z.reshape((-1, 5)), target.reshape((-1, *target.shape[len(shape) - 1 :])), strict=True)
        losses, truth = zip(*(high_precision(head, row, wanted, digits=50) for row, wanted in rows), strict=True)
        assert outside(loss, float(sum(losses))) == 0
        assert outside(dz, np.array([[float(t) for t in row] for row in truth]).reshape(shape)) == 0


def test_everything_has_a_high_precision_definition() -> None:
    """An output or a loss cannot enrol without the definition it is checked against."""
    assert set(MP_OUTPUTS) == set(OUTPUTS)
    assert set(MP_LOSSES) == set(LOSSES)


def test_label_smoothing_is_a_distribution() -> None:
    """Class indices with smoothing s are the distribution (1 - s) onehot + s / classes."""
    z, target = draw(CrossEntropyLoss(), (6, 4), 2)
    for s in (0.0, 0.25, 1.0):
        smooth = CrossEntropyLoss(label_smoothing=s).forward({}, z, target)
        plain = Head("softmax", "cross_entropy").forward({}, z, (1 - s) * np.eye(4)[target] + s / 4)
        assert smooth[0] == plain[0]
        assert np.array_equal(smooth[1](), plain[1]())


def test_l1_at_its_kink() -> None:
    """At a = y the gradient is exactly 0 by the reference's own choice, and the hull holds all of [-1, 1]."""
    z, y = np.array([[0.5, -3.0, 1.0]]), np.array([[0.5, -3.0, 0.0]])
    head = Head("linear", "l1", "sum")
    assert head.forward({}, z, y)[1]().tolist() == [[0.0, 0.0, 1.0]]
    _, own = ball_of(head, z, y)
    assert outside(own, np.array([[0.0, 0.0, 1.0]])) == 0
    assert outside(own, np.array([[1.0, -1.0, 1.0]])) == 2, "a subgradient other than ours must show, as a convention"
    _, hull = ball_of(head, z, y, kinks="hull")
    assert all(outside(hull, np.array([[s, -s, 1.0]])) == 0 for s in (-1.0, -0.5, 0.0, 1.0))
    assert outside(hull, np.array([[1.0, 1.0, -1.0]])) == 1, "where there is no kink the hull is no wider"


def test_l1_counts_its_ties() -> None:
    """A tie is counted, so that the harness knows to try the hull; without one nothing is counted."""
    arithmetic = Arithmetic(FLOAT64)
    z = np.array([[0.5, 1.0]])
    Head("linear", "l1").forward({}, arithmetic.exact(z), arithmetic.exact(z + 1))
    assert arithmetic.ties == 0
    Head("linear", "l1").forward({}, arithmetic.exact(z), arithmetic.exact(z))
    assert arithmetic.ties > 0


def test_huber_has_no_kink() -> None:
    """At e = 0 the gradient is 0 and at |e| = 1 it is +-1; the hull adds nothing."""
    z, y = np.array([[2.0, 3.0, 1.0]]), np.array([[2.0, 2.0, 2.0]])
    assert Head("linear", "huber", "sum").forward({}, z, y)[1]().tolist() == [[0.0, 1.0, -1.0]]
    for kinks in ("own", "hull"):
        _, dz = ball_of(Head("linear", "huber", "sum"), z, y, kinks=kinks)
        assert outside(dz, np.array([[0.0, 1.0, -1.0]])) == 0
        assert outside(dz, np.array([[2.0**-40, 1 + 2.0**-40, -1 + 2.0**-40]])) == 3


Rule = Callable[[np.ndarray, np.ndarray], tuple[Any, Any]]
MISTAKES: dict[str, Callable[[Any], Any]] = {
    "off by a millionth": lambda d: d * (1 + 2.0**-20), "negated": lambda d: -d, "halved": lambda d: d / 2,
    "dropped": lambda d: 0 * d, "rows swapped": lambda d: d[::-1],
}


def planted(rule: Any, mistake: Callable[[Any], Any], table: str) -> Any:
    """Return an output's or a loss's rule with the mistake in its derivative."""

    def wrong_output(z: Any) -> tuple[Any, Any]:
        a, pullback = rule(z)
        return a, lambda da: mistake(pullback(da))

    def wrong_loss(a: Any, y: Any, **options: Any) -> tuple[Any, Any]:
        value, derivative = rule(a, y, **options)
        return value, mistake(derivative)

    return wrong_output if table == "OUTPUTS" else wrong_loss


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize(("table", "name"), [(t, n) for t in ("OUTPUTS", "LOSSES", "FUSED") for n in getattr(H, t)], ids=str)
def test_planted_mistakes_are_caught(table: str, name: Any, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong derivative of any output, loss or fused form puts the complex step outside of the ball."""
    route = "fused" if table == "FUSED" else "general"
    users = [h for h in HEADS if name in (h.output, h.loss, (h.output, h.loss)) and h.loss in LOSSES]
    assert users
    for head in users:
        z, target = draw(head, shapes_of(head)[0], 3)
        truth = complex_step(head, z, target, route)
        with monkeypatch.context() as patch:
            patch.setitem(getattr(H, table), name, planted(getattr(H, table)[name], MISTAKES[mistake], table))
            _, dz = ball_of(head, z, target, route=route)
        assert outside(dz, truth, radii=2) > 0


def test_a_wrong_reduction_is_caught() -> None:
    """The sum's gradient is not taken for the mean's."""
    for head in HEADS:
        if head.reduction == "mean":
            z, target = draw(head, shapes_of(head)[0], 4)
            summed = replace(head, reduction="sum")
            assert outside(ball_of(head, z, target)[1], complex_step(summed, z, target), radii=2) > 0


def test_the_mean_is_over_examples_or_over_entries() -> None:
    """Losses of whole examples are divided by the number of examples, the others by the number of entries."""
    for head in HEADS:
        if head.reduction == "mean" and head.loss in LOSSES and not isinstance(head, CrossEntropyLoss | NLLLoss | BCEWithLogitsLoss):
            count, summed = 8 if head.loss in PER_EXAMPLE else 16, replace(head, reduction="sum")
            for shape in ((8, 2), (4, 2, 2)):
                z, target = draw(head, shape, 5)
                assert head.forward({}, z, target)[0] * count == summed.forward({}, z, target)[0]
    assert PER_EXAMPLE == ("cross_entropy", "half_squared_error", "nll", "kl", "cosine")


def test_none_keeps_what_the_sum_adds_up() -> None:
    """Unreduced losses add up to the sum, and one upstream gradient for all of them gives the sum's gradient."""
    for head in HEADS:
        if head.reduction == "none":
            z, target = draw(head, shapes_of(head)[0], 7)
            summed = replace(head, reduction="sum")
            (loss, dz), (total, summed_dz) = (ball_of(h, z, target, 2.0) for h in (head, summed))
            assert outside(total, np.sum(loss.value)) == 0
            assert outside(summed_dz, dz.value) == 0


@pytest.mark.parametrize(("output", "loss", "valid"), list(combinations()))
def test_losses_of_probabilities_take_their_own_output_only(output: str, loss: str, valid: bool) -> None:
    """bce wants sigmoid; cross_entropy and kl softmax; nll and kl_div log-probabilities; every other pair is a head."""
    own = {"bce": ("sigmoid",), "cross_entropy": ("softmax",), "kl": ("softmax",)}
    wanted = own | dict.fromkeys(("nll", "kl_div"), ("log_softmax", "linear"))
    needed = wanted.get(loss, (output,))
    assert valid == (output in needed) == ((output, loss) in pairs())
    if not valid:
        what = "log-probabilities" if len(needed) > 1 else "probabilities"
        expected = " or ".join(repr(name) for name in needed)
        with pytest.raises(ValueError, match=f"^Head: the loss {loss} needs {what}: got output '{output}', expected {expected}$"):
            Head(output, loss)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Head("relu"), r"Head: unknown output: got 'relu', expected one of linear, sigmoid, softmax, tanh, log"),
        (lambda: Head("linear", "mae"), r"Head: unknown loss: got 'mae', expected one of mse, half_squared_error, l1, huber"),
        (lambda: Head(reduction="batchmean"), r"Head: unknown reduction: got 'batchmean', expected one of mean, sum, none"),
        (lambda: Head(reduction="mse"), r"Head: unknown reduction: got 'mse', expected one of mean, sum, none"),
        (lambda: MSELoss(reduction="linear"), r"MSELoss: unknown reduction: got 'linear', expected one of mean, sum, none"),
        (lambda: Head("mse"), r"Head: unknown output: got 'mse', expected one of linear"),
        (lambda: Head("linear", "ctc"), r"Head: unknown loss: got 'ctc', expected one of mse"),
        (lambda: KLDivLoss(reduction="average"), r"KLDivLoss: unknown reduction: got 'average', expected .* none, batchmean"),
        (lambda: H.HuberLoss(delta=0.0), r"HuberLoss: wrong delta: got 0.0, expected a finite number > 0"),
        (lambda: H.HuberLoss(delta=float("inf")), r"HuberLoss: wrong delta: got inf, expected a finite number > 0"),
        (lambda: H.SmoothL1Loss(beta=float("inf")), r"SmoothL1Loss: wrong beta: got inf, expected a finite number >= 0"),
        (lambda: H.SmoothL1Loss(beta=-1.0), r"SmoothL1Loss: wrong beta: got -1.0, expected a finite number >= 0"),
        (lambda: H.HingeLoss(margin=float("inf")), r"HingeLoss: wrong margin: got inf, expected a finite number"),
        (lambda: CosineEmbeddingLoss(margin=2.0), r"CosineEmbeddingLoss: wrong margin: got 2.0, expected a number from -1 to 1"),
        (lambda: CosineEmbeddingLoss(margin=-2.0), r"CosineEmbeddingLoss: wrong margin: got -2.0, expected a number from -1 to 1"),
        (lambda: CrossEntropyLoss(weight=(-1.0,)), r"CrossEntropyLoss: wrong weight: got \(-1.0,\), expected None or a tuple"),
        (lambda: CrossEntropyLoss(label_smoothing=-0.5), r"CrossEntropyLoss: label_smoothing must lie in \[0, 1\]: got -0.5"),
        (lambda: NLLLoss(weight=(1.0, -1.0)), r"NLLLoss: wrong weight: got \(1.0, -1.0\), expected None or a tuple of finite numb"),
        (lambda: NLLLoss(weight=(1.0, float("inf"))), r"NLLLoss: wrong weight: got \(1.0, inf\), expected None or a tuple of finite numb"),
        (lambda: BCEWithLogitsLoss(pos_weight=()), r"BCEWithLogitsLoss: wrong pos_weight: got \(\), expected None or a tuple"),
        (lambda: CTCLoss(blank=-1), r"CTCLoss: wrong blank: got -1, expected a class"),
        (lambda: MSELoss("tanh"), r"MSELoss: the output is fixed: got 'tanh', expected 'linear'. Do: Head\('tanh', 'mse'\)"),
        (lambda: BCEWithLogitsLoss(loss="mse"), r"BCEWithLogitsLoss: the loss is fixed: got 'mse', expected 'bce'. Do: Head"),
        (lambda: CrossEntropyLoss("linear"), r"CrossEntropyLoss: the loss cross_entropy needs probabilities: got output 'li"),
        (lambda: CrossEntropyLoss(label_smoothing=1.5), r"CrossEntropyLoss: label_smoothing must lie in \[0, 1\]: got 1.5"),
        (lambda: CrossEntropyLoss(label_smoothing=float("nan")), r"label_smoothing must lie in \[0, 1\]: got nan"),
    ],
)
def test_configuration_mistakes_are_named(make: Callable[[], Head], message: str) -> None:
    """A head that makes no sense says what was got and what is expected."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("cls", "option", "numbers"), [
    (CosineEmbeddingLoss, "margin", (-1.0, 1.0)), (CrossEntropyLoss, "label_smoothing", (0.0, 1.0)), (H.SmoothL1Loss, "beta", (0.0,)),
    (CTCLoss, "blank", (0, 1)),
])
def test_the_ends_of_a_range_are_allowed(cls: Any, option: str, numbers: tuple[float, ...]) -> None:
    """A number at the edge of what an option may be is taken as it is."""
    assert tuple(getattr(cls(**{option: number}), option) for number in numbers) == numbers


@pytest.mark.parametrize(("head", "shape", "message"), [
    (CosineEmbeddingLoss(), (3, 4), r"got \(3, 4\), expected \(2, features\)"),
    (CosineEmbeddingLoss(), (2, 3, 4), r"got \(2, 3, 4\), expected \(2, features\)"),
    (CTCLoss(), (0, 3), r"got \(0, 3\), expected \(time, classes\), with more than 0 classes"),
    (CTCLoss(), (2, 3, 4), r"got \(2, 3, 4\), expected \(time, classes\)"),
    (CTCLoss(blank=2), (4, 2), r"got \(4, 2\), expected \(time, classes\), with more than 2 classes"),
    (NLLLoss(weight=(1.0, 2.0)), (2, 3), r"got \(2, 3\), expected 2 classes, one for each weight"),
    (BCEWithLogitsLoss(pos_weight=(1.0, 2.0)), (2, 3), r"got \(2, 3\), expected 2 outputs, one for each pos_weight"),
    *((head, (), r"got \(\), expected at least one axis of outputs") for head in (CrossEntropyLoss(), BCEWithLogitsLoss())),
])
def test_shapes_that_a_head_cannot_take(head: Head, shape: tuple[int, ...], message: str) -> None:
    """A network output of a wrong shape is refused before anything is computed."""
    with pytest.raises(ShapeError, match=message):
        head.check_shape(shape)


def test_shapes_that_a_head_can_take() -> None:
    """The smallest of each kind."""
    CosineEmbeddingLoss().check_shape((2, 1))
    CTCLoss(blank=2).check_shape((1, 3))
    NLLLoss(weight=(1.0, 2.0)).check_shape((3, 2))
    BCEWithLogitsLoss(pos_weight=(1.0, 2.0)).check_shape((3, 2))


def test_a_single_class_may_have_a_weight() -> None:
    """Weighted or not, the mean is over the targets that are not ignored."""
    z = np.array([[-1.0], [-3.0], [-7.0]])
    for weight in (None, (0.5,)):
        assert NLLLoss(weight=weight).forward({}, z, np.array([0, 0, -100]))[0] == 2


def test_the_number_of_targets_is_exact() -> None:
    """Without weights the mean is over a whole number, also one that bfloat16 does not hold."""
    z = Arithmetic(PRECISIONS["bfloat16"]).exact(np.zeros((258, 2)))
    assert CrossEntropyLoss().divisor(z, np.append(np.zeros(257, int), -100)) == 257


def test_means_over_the_batch() -> None:
    """The cosine embedding loss and `batchmean` divide by the number of examples, whatever else z has."""
    rng = np.random.default_rng(0)
    pairs, log_p, y = rng.standard_normal((4, 2, 3)), -rng.random((4, 3)), np.full((4, 3), 0.25)
    for head, z, target in ((CosineEmbeddingLoss(), pairs, np.array([1.0, -1.0, 1.0, 1.0])), (KLDivLoss(reduction="batchmean"), log_p, y)):
        assert head.forward({}, z, target)[0] * 4 == replace(head, reduction="sum").forward({}, z, target)[0]


def test_smoothing_counts_the_classes() -> None:
    """Axes between the batch and the classes are examples like any other."""
    z, target = np.random.default_rng(0).standard_normal((2, 3, 4)), np.array([[0, 1, 2], [3, 0, 0]])
    head = CrossEntropyLoss(reduction="none", label_smoothing=0.25)
    assert head.forward({}, z, target)[0].ravel().tolist() == head.forward({}, z.reshape((6, 4)), target.ravel())[0].tolist()


@pytest.mark.parametrize(
    ("head", "target", "message"),
    [
        (MSELoss(), np.zeros(3), r"MSELoss: wrong target shape: got \(3,\), expected \(3, 2\)"),
        (Head("sigmoid", "bce"), np.zeros((3, 1)), r"Head: wrong target shape: got \(3, 1\), expected \(3, 2\)"),
        (CrossEntropyLoss(), np.zeros((3, 2), int), r"CrossEntropyLoss: wrong target shape: got \(3, 2\), expected \(3,\)"),
        (CrossEntropyLoss(), np.zeros(3), r"CrossEntropyLoss: targets are class indices: got dtype float64, expected int"),
        (CrossEntropyLoss(), np.zeros(3, bool), r"CrossEntropyLoss: targets are class indices: got dtype bool, expected int"),
        (CrossEntropyLoss(), np.array([0, -1, 1]), r"CrossEntropyLoss: no such class: got -1, expected 0 to 1"),
        (CrossEntropyLoss(), np.array([0, 2, 1]), r"CrossEntropyLoss: no such class: got 2, expected 0 to 1"),
        (CrossEntropyLoss(), np.full(3, -100), r"CrossEntropyLoss: every target is ignored or of weight 0: .* reduction='sum'"),
        (NLLLoss(weight=(0.0, 1.0)), np.zeros(3, int), r"NLLLoss: every target is ignored or of weight 0"),
        (NLLLoss(weight=(1.0,)), np.zeros(3, int), r"wrong input shape: got \(2,\), expected 1 classes, one for each weight"),
        (BCEWithLogitsLoss(pos_weight=(1.0,)), np.zeros((3, 2)), r"wrong input shape: got \(2,\), expected 1 outputs, one for each"),
        (H.HingeLoss(), np.zeros((3, 2)), r"HingeLoss: targets are signs: got 0.0, expected -1 or 1"),
        (CosineEmbeddingLoss(), np.ones(3), r"wrong input shape: got \(2,\), expected \(2, features\)"),
        (CTCLoss(), np.ones((3, 1), int), r"wrong input shape: got \(2,\), expected \(time, classes\), with more than 0 classes"),
    ],
)
def test_target_mistakes_are_named(head: Head, target: np.ndarray, message: str) -> None:
    """A target that does not fit is refused, not broadcast or wrapped around."""
    with pytest.raises(ValueError, match=message):
        head.forward({}, np.zeros((3, 2)), target)


def test_unknown_route_is_named() -> None:
    """A misspelt route is an error, never the general one in silence."""
    with pytest.raises(ValueError, match=r"Head: unknown route: got 'fast', expected one of fused, general"):
        Head().forward({}, np.zeros((3, 2)), np.zeros((3, 2)), route="fast")


def test_a_head_needs_an_axis_of_outputs() -> None:
    """A network output of shape () is refused before anything is computed."""
    with pytest.raises(ShapeError, match=r"wrong input shape: got \(\), expected at least one axis of outputs"):
        Head().check_shape(())
    Head().check_shape((1,))
    assert Head().kinks({}) == ()
