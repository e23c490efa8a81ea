"""The methods that know a rule's derivative without its derivation: complex step, dual rationals, difference quotients of balls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .contract import said
from .exact import Ball, Dual, balls, duals, stepped
from .reference.rounding import Rounded
from .setting import Point, Setting

__all__ = ["BITS", "NotApplicableError", "Outcome", "by_balls", "by_complex_step", "by_rationals", "dot_product", "linearity"]

WIDTH = Fraction(1, 2**200)  # of the difference quotients
BITS = 700  # of the balls: the square of that width, which is a quotient's error, and 300 bits for what cancels
STEP = 2.0**-100  # of the complex step: its error is of the order of its square
SCALES = (1, 12)  # of the inputs: the middle of an activation, and its tails
ENTRIES = 48  # of a tensor that are looked at one by one; the directions that mix all entries leave out none

Index = tuple[int, ...]


class NotApplicableError(Exception):
    """A method has no say about a rule, for the reason given."""


@dataclass
class Outcome:
    """What a method found."""

    sentences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ulps: dict[str, float] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        self.sentences += other.sentences
        self.notes += other.notes
        self.ulps |= other.ulps


def by_complex_step(setting: Setting, seed: int) -> Outcome:
    """Compare each gradient with Im f(x + ih) / h (Squire, Trapp 1998), within twice the gradient's rounding bound."""
    outcome = Outcome()
    for scale in SCALES:
        point = setting.draw(scale=scale, seed=seed)
        actual, radii = setting.evaluate(point), _radii(setting, point)
        lifted = point.lifted(stepped)
        for tensor, place in _comparable(setting, actual):
            worst: tuple[float, Index, float] = (1.0, (), 0.0)
            for index in _chosen(actual[tensor].shape, seed):
                expected = _complex_slope(setting, lifted, {place: _unit(actual[tensor].shape, index)})
                excess = _excess(expected - actual[tensor][index], 2 * radii[tensor][index])
                if not excess <= worst[0]:
                    worst = (excess, index, expected)
            if worst[0] != 1.0:
                outcome.sentences.append(_wrong(tensor, worst[1], actual[tensor][worst[1]], worst[2], "the complex step"))
        if outcome.sentences:
            break
    return outcome


def by_rationals(setting: Setting, seed: int) -> Outcome:
    """Compare each gradient with forward differentiation by dual numbers, exactly, where the rule is rational."""
    return _exactly(setting, seed, RATIONALS)


def by_balls(setting: Setting, seed: int) -> Outcome:
    """Compare each gradient with a difference quotient of the forward rule, both to hundreds of bits, and float64 with these."""
    outcome = _exactly(setting, seed, BALLS)
    for scale in SCALES if not outcome.sentences else ():
        point = setting.draw(scale=scale, seed=seed)
        exact = setting.evaluate(point.lifted(balls))
        try:
            radii = _radii(setting, point)
        except NotApplicableError as error:
            outcome.notes.append(f"the digits of float64 are not judged: {error}")
            break
        _digits(setting.evaluate(point), exact, radii, outcome)
    return outcome


def _digits(actual: Mapping[str, Any], exact: Mapping[str, Any], radii: Mapping[str, np.ndarray], outcome: Outcome) -> None:
    """Compare float64 with the exact numbers, within twice the rounding bound."""
    for tensor in actual:
        value, radius = np.asarray(actual[tensor], dtype=float), radii[tensor]
        if value.shape != np.shape(exact[tensor]) or not value.size:
            continue
        off = np.vectorize(lambda e, v: abs(float((Ball.of(e) - v).number.mid())), otypes=[float])(exact[tensor], value)
        largest = max(abs(float(Ball.of(e).number.mid())) for e in np.ravel(exact[tensor]))
        outcome.ulps[tensor] = max(outcome.ulps.get(tensor, 0.0), float(np.max(off)) / float(np.spacing(max(largest, 2.0**-1022))))
        excess = np.where(off == 0, 0.0, off / np.where(off == 0, 1.0, 2 * radius))
        index = _place(np.argmax(np.where(np.isnan(excess), np.inf, excess)), value.shape)
        if not excess[index] <= 1:
            truth = float(Ball.of(np.asarray(exact[tensor])[index]).number.mid())
            outcome.sentences.append(f"{tensor}{list(index)} loses digits in float64: got {value[index]!r}, expected {truth!r} within "
                                     f"{2 * radius[index]:.3g}, says arbitrary precision")  # fmt: skip
        if not np.all(np.isfinite(radius)):
            outcome.notes.append(f"the rounding bound of {tensor} is infinite in {np.count_nonzero(~np.isfinite(radius))} entries")


# Exact kinds of numbers, and how each gives a slope.


@dataclass(frozen=True)
class Kind:
    """A kind of exact numbers: `slope` returns the derivative of the pairing along a direction, and what it may be off by."""

    name: str
    numbers: str
    lift: Callable[[Any], Any]
    value: Callable[[Any], Any]
    slope: Callable[[Setting, Point, Mapping[int | str, Any]], tuple[Any, Any]]
    apart: Callable[[Any, Any], bool]


def _dual_slope(setting: Setting, point: Point, direction: Mapping[int | str, Any]) -> tuple[Any, Any]:
    for place, by in direction.items():
        point = setting.moved(point, place, _SLOPED(by))
    return Dual.of(setting.pairing(point)).slope, Fraction(0)


def _ball_slope(setting: Setting, point: Point, direction: Mapping[int | str, Any]) -> tuple[Any, Any]:
    """Central quotients of two widths: the error, which is of their square, is a third of what the two differ by."""

    def quotient(width: Fraction) -> Any:
        sides = []
        for side in (width, -width):
            moved = point
            for place, by in direction.items():
                moved = setting.moved(moved, place, balls(by) * Ball(side))
            sides.append(Ball.of(setting.pairing(moved)))
        return ((sides[0] - sides[1]) / (2 * width)).number

    wide, narrow = quotient(WIDTH), quotient(WIDTH / 2)
    return narrow, abs(wide - narrow)


_SLOPED = np.frompyfunc(lambda by: Dual(Fraction(0), Fraction(by)), 1, 1)

RATIONALS = Kind("exact rational arithmetic", "fraction", duals, lambda x: Dual.of(x).value, _dual_slope, lambda off, error: abs(off) > error)
BALLS = Kind("arbitrary precision", "float", balls, lambda x: Ball.of(x).number, _ball_slope,
             lambda off, error: not abs(off).abs_lower() <= error.abs_upper())


def _exactly(setting: Setting, seed: int, kind: Kind) -> Outcome:
    """Compare each gradient along a random direction, which a wrong entry cannot hide in; where it is wrong, find the entry."""
    outcome = Outcome()
    drawn = setting.draw(kind.numbers, seed=seed)
    point = drawn.lifted(kind.lift)
    actual = setting.evaluate(point)
    for tensor, place in _comparable(setting, actual):
        gradient = np.asarray(actual[tensor])
        direction = _direction(gradient.shape, seed)
        expected, error = kind.slope(setting, point, {place: direction})
        if not kind.apart(_paired(kind, gradient, direction) - expected, error):
            continue
        radii = _radii_or_none(setting, drawn)
        radius = np.zeros(gradient.shape) if radii is None else radii[tensor]
        _blame(setting, point, (tensor, place), gradient, radius, kind, outcome, seed)
    return outcome


def _blame(setting: Setting, point: Point, where: tuple[str, int | str], gradient: np.ndarray, radius: np.ndarray, kind: Kind,
           outcome: Outcome, seed: int) -> None:
    """Say which entry of a wrong gradient is off most; differences that rounding explains make a note."""
    tensor, place = where
    worst: tuple[float, Index, Any, Any] = (-1.0, (), None, None)
    for index in _chosen(gradient.shape, seed, 8 * ENTRIES):
        expected, error = kind.slope(setting, point, {place: _unit(gradient.shape, index)})
        got = kind.value(gradient[index])
        excess = _excess(float(got - expected), 2 * radius[index]) if kind.apart(got - expected, error) else -1.0
        if not excess <= worst[0]:
            worst = (excess, index, got, expected)
    if worst[0] < 0:
        outcome.sentences.append(f"{tensor} is wrong in its sum over all entries, in none of those looked at, says {kind.name}")
    elif worst[0] <= 1:
        digits = f"got {float(worst[2])!r}, expected {float(worst[3])!r}, which differ by {abs(float(worst[2] - worst[3])):.2g}"
        outcome.notes.append(f"{tensor}{list(worst[1])} is right within rounding, not exactly, as if a constant were rounded: {digits}, "
                             f"says {kind.name}")  # fmt: skip
    else:
        outcome.sentences.append(_wrong(tensor, worst[1], worst[2], worst[3], kind.name))


# Properties that the whole of a backward must have.


def dot_product(setting: Setting, seed: int) -> Outcome:
    """Compare <dy, J v> with <J^T dy, v> for one direction v that moves every input and parameter at once."""
    kind, drawn, point, actual = _best(setting, seed)
    direction = {place: _direction(np.shape(actual[tensor]), seed + 1) for tensor, place in _comparable(setting, actual)}
    if kind is not None:
        expected, error = kind.slope(setting, point, direction)
        got = sum(_paired(kind, np.asarray(actual[tensor]), direction[place]) for tensor, place in _comparable(setting, actual))
        apart = kind.apart(got - expected, error)
    else:
        expected, error, got = _complex_slope(setting, point.lifted(stepped), direction), 0.0, 0.0
    bound = 0.0
    if kind is None or apart:
        radii = _radii(setting, drawn)
        for tensor, place in _comparable(setting, actual):
            weights = np.asarray(direction[place], dtype=float)
            if kind is None:
                got = got + float(np.sum(actual[tensor] * weights))
            # the sum of n terms is rounded itself: n u of their magnitude
            magnitude = np.abs(np.asarray(_floats(actual[tensor])) * weights)
            bound += float(np.sum(2 * radii[tensor] * np.abs(weights)) + np.sum(magnitude) * magnitude.size * 2.0**-53)
        apart = not abs(float(got - expected)) <= bound
    name = "the complex step" if kind is None else kind.name
    if not apart:
        return Outcome()
    return Outcome([f"the dot-product test is off: got <J^T dy, v> = {_shown(got)}, expected <dy, J v> = {_shown(expected)} for a random v, "
                    f"says {name}"])  # fmt: skip


def linearity(setting: Setting, seed: int) -> Outcome:
    """Compare backward(3 dy - dz) with 3 backward(dy) - backward(dz), each from the one forward."""
    kind, drawn, point, _ = _best(setting, seed)
    other = setting.draw("float" if kind is None else kind.numbers, seed=seed + 1)
    outcome = Outcome()
    if kind is None:
        # multiples of 1/16, so that 3 dy - dz rounds nothing
        short = [tuple(np.round(dy * 16) / 16 for dy in p.dys) for p in (drawn, other)]
        rounded = Point(drawn.params, drawn.inputs, tuple(3 * dy - dz for dy, dz in zip(*short, strict=True))).rounded()
        arithmetic = rounded.dys[0].arithmetic
        _, gradients = setting.run(rounded)
        both = gradients(*rounded.dys)
        first, second = (gradients(*(arithmetic.exact(dy) for dy in dys)) for dys in short)
        for tensor, _place in _comparable(setting, both):
            got, expected = arithmetic.lift(both[tensor]), arithmetic.lift(3 * first[tensor] - second[tensor])
            excess = np.abs(got.value - expected.value) - (got.radius() + expected.radius())
            index = _place(np.argmax(excess), excess.shape) if excess.size else ()
            if excess.size and excess[index] > 0:
                outcome.sentences.append(_nonlinear(tensor, index, got.value[index], expected.value[index], "rounded arithmetic"))
        return outcome
    dys, dzs = point.dys, other.lifted(kind.lift).dys
    _, gradients = setting.run(point)
    both = gradients(*(3 * dy - dz for dy, dz in zip(dys, dzs, strict=True)))
    first, second = gradients(*dys), gradients(*dzs)
    for tensor, _place in _comparable(setting, both):
        for index in np.ndindex(np.shape(both[tensor])):
            got, dy, dz = (kind.value(np.asarray(g[tensor])[index]) for g in (both, first, second))
            if kind.apart(got - (3 * dy - dz), got * 0):
                outcome.sentences.append(_nonlinear(tensor, index, got, 3 * dy - dz, kind.name))
                break
    return outcome


def _nonlinear(tensor: str, index: Index, got: Any, expected: Any, name: str) -> str:
    return (f"{tensor}{list(index)} is not linear in dy: got backward(3 dy - dz) = {_shown(got)}, expected 3 backward(dy) - backward(dz) = "
            f"{_shown(expected)}, says {name}")


def _best(setting: Setting, seed: int) -> tuple[Kind | None, Point, Point, dict[str, Any]]:
    """Return the most exact kind of numbers that the rule runs on, or None for floats, a point, the same lifted, and its gradients."""
    for kind in (RATIONALS, BALLS):
        drawn = setting.draw(kind.numbers, seed=seed)
        point = drawn.lifted(kind.lift)
        try:
            return kind, drawn, point, setting.evaluate(point)
        except Exception:  # noqa: BLE001, S112  (the method of that kind says why)
            continue
    drawn = setting.draw(seed=seed)
    return None, drawn, drawn, setting.evaluate(drawn)


# What the methods share.


def _comparable(setting: Setting, actual: Mapping[str, Any]) -> Iterator[tuple[str, int | str]]:
    """Yield the gradients that have the announced name and shape, each with its place; the contract says what is wrong with others."""
    batch = next((np.shape(actual[name])[0] for name in setting.outputs if np.ndim(actual.get(name))), 3)
    expected = setting.expected(batch)
    for tensor, place in setting.places.items():
        if tensor in actual and np.shape(actual[tensor]) == expected[tensor] and np.size(actual[tensor]):
            yield tensor, place


def _radii(setting: Setting, point: Point) -> dict[str, np.ndarray]:
    """Return the rounding bound of every tensor of the rule in float64."""
    try:
        found: dict[str, Rounded] = setting.rounded(point.lifted(_floats))
    except Exception as error:
        raise NotApplicableError(f"rounded arithmetic gives no bound: {said(error)}") from error
    return {name: ball.radius() for name, ball in found.items()}


def _radii_or_none(setting: Setting, point: Point) -> dict[str, np.ndarray] | None:
    try:
        return _radii(setting, point)
    except NotApplicableError:
        return None


def _floats(array: Any) -> np.ndarray:
    return np.vectorize(_float, otypes=[float])(array) if np.asarray(array).dtype == object and np.size(array) else np.asarray(array, dtype=float)


def _float(number: Any) -> float:
    return float(number.value) if isinstance(number, Dual) else float(number.number.mid()) if isinstance(number, Ball) else float(number)


def _complex_slope(setting: Setting, lifted: Point, direction: Mapping[int | str, Any]) -> float:
    for place, by in direction.items():
        lifted = setting.moved(lifted, place, 1j * STEP * np.asarray(by, dtype=float))
    return complex(setting.pairing(lifted)).imag / STEP


def _chosen(shape: Index, seed: int, count: int = ENTRIES) -> list[Index]:
    """Return every index of an array, or as many as `count` of them."""
    size = int(np.prod(shape))
    flat = range(size) if size <= count else np.random.default_rng(seed).choice(size, count, replace=False)
    return [_place(k, shape) for k in flat]


def _place(flat: Any, shape: Index) -> Index:
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def _unit(shape: Index, index: Index) -> np.ndarray:
    unit = np.zeros(shape, dtype=int).astype(object)
    unit[index] = 1
    return unit


def _direction(shape: Index, seed: int) -> np.ndarray:
    """Return random numbers of 20 bits, exact as floats and as fractions."""
    numbers = np.random.default_rng(seed).integers(1, 2**20, size=shape)
    return np.asarray(np.asarray(numbers, dtype=object) * Fraction(1, 2**19), dtype=object)


def _paired(kind: Kind, gradient: np.ndarray, direction: np.ndarray) -> Any:
    return sum(kind.value(g) * kind.value(v) for g, v in zip(gradient.ravel(), direction.ravel(), strict=True))


def _excess(difference: Any, bound: Any) -> float:
    size = abs(float(difference))
    return 0.0 if size == 0 else float(np.inf) if not bound else size / float(bound)


def _wrong(tensor: str, index: Index, got: Any, expected: Any, name: str) -> str:
    return f"{tensor}{list(index)} is wrong: got {_shown(got)}, expected {_shown(expected)}, says {name}"


def _shown(number: Any) -> str:
    """Return a number as text: a short fraction as it is, others as floats."""
    if isinstance(number, Fraction) and len(str(number)) <= 24:
        return str(number)
    return repr(float(number))
