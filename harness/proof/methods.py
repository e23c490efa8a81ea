"""The methods that know a rule's derivative without its derivation: complex step, dual rationals, difference quotients of balls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from backproof.proof.setting import Point, Setting
from backproof.reference.rounding import Rounded
from backproof.truth.complex_step import STEP, stepped
from backproof.truth.exact import Ball, Dual, balls, duals
from backproof.wording import said

__all__ = ["BALLS", "BITS", "ENTRIES", "RATIONALS", "WIDTH", "Index", "Kind", "NotApplicableError", "Outcome", "as_floats", "bounds_of",
           "by_balls", "by_complex_step", "by_place", "by_rationals", "comparable", "complex_slope", "mixing", "paired", "place_of",
           "shown", "some_of", "unit_at"]

WIDTH = Fraction(1, 2**200)  # of the difference quotients
BITS = 700  # of the balls: the square of that width, which is a quotient's error, and 300 bits for what cancels
SCALES = (1, 12)  # of the inputs: the middle of an activation, and its tails
ENTRIES, FEWEST = 96, 6  # of a layer, and of each tensor, that are looked at one by one; a direction that mixes all leaves out none

Index = tuple[int, ...]


class NotApplicableError(Exception):
    """A method has no say about a rule, for the reason given."""


@dataclass
class Outcome:
    """What a method found."""

    sentences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ulps: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        self.sentences += other.sentences
        self.notes += other.notes
        self.ulps |= other.ulps
        self.shares |= other.shares


def by_complex_step(setting: Setting, seed: int) -> Outcome:
    """Compare each gradient with Im f(x + ih) / h (Squire, Trapp 1998), within twice the gradient's rounding bound."""
    sentences: list[str] = []
    for scale in SCALES:
        point = setting.draw(scale=scale, seed=seed)
        actual, radii = setting.evaluate(point), bounds_of(setting, point)
        lifted = point.lifted(stepped)
        tensors = list(comparable(setting, actual))
        for tensor, place in tensors:
            worst: tuple[float, Index, float] = (1.0, (), 0.0)
            for index in some_of(actual[tensor].shape, seed, max(FEWEST, ENTRIES // len(tensors))):
                unit = unit_at(actual[tensor].shape, index) * setting.free(tensor, actual[tensor].shape)
                expected = complex_slope(setting, lifted, {place: unit})
                excess = _excess(expected - actual[tensor][index], 2 * radii[tensor][index])
                if not excess <= worst[0]:
                    worst = (excess, index, expected)
            if worst[0] != 1.0:
                sentences.append(_wrong(tensor, worst[1], actual[tensor][worst[1]], worst[2], "the complex step"))
        if sentences:
            break
    return Outcome(sentences)


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
            radii = bounds_of(setting, point)
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
        index = place_of(np.argmax(np.where(np.isnan(excess), np.inf, excess)), value.shape)
        outcome.shares[tensor] = max(outcome.shares.get(tensor, 0.0), float(excess[index]))
        if not excess[index] <= 1:
            truth = float(Ball.of(np.asarray(exact[tensor])[index]).number.mid())
            outcome.sentences.append(f"{tensor}{list(index)} loses digits in float64: got {value[index]!r}, expected {truth!r} within "
                                     f"{2 * radius[index]:.3g}, says arbitrary precision")
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


def _balls_apart(off: Any, error: Any) -> bool:
    if not off.is_finite() or not error.is_finite():
        return True
    if max(float(off.rad()), float(error.abs_upper())) > float(WIDTH) ** 0.5:
        raise NotApplicableError(f"what cancels leaves too few of {BITS} bits")
    return bool(abs(off).abs_lower() > error.abs_upper())


_SLOPED = np.frompyfunc(lambda by: Dual(Fraction(0), Fraction(by)), 1, 1)

RATIONALS = Kind("exact rational arithmetic", "fraction", duals, lambda x: Dual.of(x).value, _dual_slope,
                 lambda off, error: abs(off) > error)
BALLS = Kind("arbitrary precision", "float", balls, lambda x: Ball.of(x).number, _ball_slope,
             _balls_apart)


def _exactly(setting: Setting, seed: int, kind: Kind) -> Outcome:
    """Compare the gradients along a random direction, which a wrong entry cannot hide in; where it is wrong, find the entries."""
    drawn = setting.draw(kind.numbers, seed=seed)
    point = drawn.lifted(kind.lift)
    gradients = {tensor: np.asarray(value) for tensor, value in setting.evaluate(point).items()}
    tensors = list(comparable(setting, gradients))

    def apart(*some: tuple[str, int | str]) -> bool:
        directions = {tensor: mixing(gradients[tensor].shape, seed) for tensor, _ in some}
        expected, error = kind.slope(setting, point, by_place(setting, some, directions))
        got = sum((paired(kind, gradients[tensor], direction) for tensor, direction in directions.items()), start=expected * 0)
        return kind.apart(got - expected, error)

    outcome = Outcome()
    if not apart(*tensors):
        return outcome
    radii = _radii_or_none(setting, drawn)
    for where in tensors:
        if apart(where):
            gradient = gradients[where[0]]
            _blame(setting, point, where, gradient, np.zeros(gradient.shape) if radii is None else radii[where[0]], kind, outcome, seed)
    return outcome


def by_place(setting: Setting, tensors: Iterable[tuple[str, int | str]], directions: Mapping[str, Any]) -> dict[int | str, Any]:
    """Return the directions by place, without the entries that the layer holds fixed."""
    return {place: directions[tensor] * setting.free(tensor, directions[tensor].shape) for tensor, place in tensors}


def _blame(setting: Setting, point: Point, where: tuple[str, int | str], gradient: np.ndarray, radius: np.ndarray, kind: Kind,
           outcome: Outcome, seed: int) -> None:
    """Name an entry of a wrong gradient, found by halving; a difference that rounding explains makes a note."""
    tensor, place = where
    free, direction = setting.free(tensor, gradient.shape), mixing(gradient.shape, seed)

    def gap(indices: list[Index], weight: Any) -> Any:
        """Return the sum of gradient times weight over some entries, less what it should be."""
        chosen = np.zeros(gradient.shape, dtype=int).astype(object)
        for index in indices:
            chosen[index] = weight[index]
        expected, _ = kind.slope(setting, point, {place: chosen * free})
        return paired(kind, gradient, chosen) - expected

    def excess(off: Any, indices: list[Index]) -> float:
        return _excess(off, sum(2 * float(radius[index]) * float(direction[index]) for index in indices))

    entries = list(np.ndindex(gradient.shape))
    off = gap(entries, direction)
    if excess(off, entries) <= 1:
        outcome.notes.append(f"{tensor} is right within rounding, not exactly, as where a constant is rounded: "
                             f"a sum over its entries is off by {abs(float(off)):.2g}, says {kind.name}")
        return
    while len(entries) > 1:  # a sum beyond the sum of the bounds has a half beyond its own
        halves = entries[: len(entries) // 2], entries[len(entries) // 2 :]
        first = gap(halves[0], direction)
        entries, off = max(((halves[0], first), (halves[1], off - first)), key=lambda half: excess(half[1], half[0]))
    index, got = entries[0], kind.value(gradient[entries[0]])
    expected = got - gap([index], unit_at(gradient.shape, index))
    outcome.sentences.append(_wrong(tensor, index, got, expected, kind.name))


# What the methods share.


def comparable(setting: Setting, actual: Mapping[str, Any]) -> Iterator[tuple[str, int | str]]:
    """Yield the gradients that have the announced name and shape, each with its place; the contract says what is wrong with others."""
    batch = next((np.shape(actual[name])[0] for name in setting.outputs if np.ndim(actual.get(name, 0))), 3)
    expected = setting.expected(batch)
    for tensor, place in setting.places.items():
        if tensor in actual and np.shape(actual[tensor]) == expected[tensor] and np.size(actual[tensor]):
            yield tensor, place


def bounds_of(setting: Setting, point: Point) -> dict[str, np.ndarray]:
    """Return the rounding bound of every tensor of the rule in float64."""
    try:
        found: dict[str, Rounded] = setting.rounded(point.lifted(as_floats))
    except Exception as error:
        raise NotApplicableError(f"rounded arithmetic gives no bound: {said(error)}") from error
    return {name: ball.radius() for name, ball in found.items()}


def _radii_or_none(setting: Setting, point: Point) -> dict[str, np.ndarray] | None:
    try:
        return bounds_of(setting, point)
    except NotApplicableError:
        return None


def as_floats(array: Any) -> np.ndarray:
    """Return numbers of any kind as floats."""
    if np.asarray(array).dtype != object:
        return np.asarray(array, dtype=float)
    return np.array([_float(number) for number in np.ravel(array)]).reshape(np.shape(array))


def _float(number: Any) -> float:
    if isinstance(number, Ball):
        return float(number.number.mid())
    return float(number.value if isinstance(number, Dual) else number)


def complex_slope(setting: Setting, lifted: Point, direction: Mapping[int | str, Any]) -> float:
    """Return the derivative of the pairing along a direction, Im f(x + ih) / h."""
    for place, by in direction.items():
        lifted = setting.moved(lifted, place, 1j * STEP * np.asarray(by, dtype=float))
    return complex(setting.pairing(lifted)).imag / STEP


def some_of(shape: Index, seed: int, count: int) -> list[Index]:
    """Return every index of an array, or as many as `count` of them."""
    size = int(np.prod(shape))
    flat = range(size) if size <= count else np.random.default_rng(seed).choice(size, count, replace=False)
    return [place_of(k, shape) for k in flat]


def place_of(flat: Any, shape: Index) -> Index:
    """Return the index of the entry of that number."""
    return tuple(int(i) for i in np.unravel_index(int(flat), shape))


def unit_at(shape: Index, index: Index) -> np.ndarray:
    """Return the direction of one entry."""
    unit = np.zeros(shape, dtype=int).astype(object)
    unit[index] = 1
    return unit


def mixing(shape: Index, seed: int) -> np.ndarray:
    """Return random numbers of 20 bits, exact as floats and as fractions."""
    numbers = np.random.default_rng(seed).integers(1, 2**20, size=shape)
    return np.asarray(np.asarray(numbers, dtype=object) * Fraction(1, 2**19), dtype=object)


def paired(kind: Kind, gradient: np.ndarray, direction: np.ndarray) -> Any:
    """Return the sum of gradient times direction."""
    return sum(kind.value(g) * kind.value(v) for g, v in zip(gradient.ravel(), direction.ravel(), strict=True))


def _excess(difference: Any, bound: Any) -> float:
    size = abs(float(difference))
    return 0.0 if size == 0 else float(np.inf) if not bound else size / float(bound)


def _wrong(tensor: str, index: Index, got: Any, expected: Any, name: str) -> str:
    return f"{tensor}{list(index)} is wrong: got {shown(got)}, expected {shown(expected)}, says {name}"


def shown(number: Any) -> str:
    """Return a number as text: a short fraction as it is, others as floats."""
    if isinstance(number, Fraction) and len(str(number)) <= 24:
        return str(number)
    return repr(float(number))
