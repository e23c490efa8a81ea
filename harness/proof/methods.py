"""The methods that know a rule's derivative without its derivation: complex step, dual rationals, difference quotients of balls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from backproof.proof.directions import Index, by_place, index_of, mixing, some_indices, unit_at
from backproof.proof.kinds import BALLS, RATIONALS, Kind, NotApplicableError, as_floats, inner_product, shown
from backproof.proof.setting import Point, Setting
from backproof.reference.rounding import Rounded
from backproof.truth.complex_step import STEP, stepped
from backproof.truth.exact import Ball, balls
from backproof.wording import said

__all__ = ["ENTRIES", "Outcome", "bounds_of", "by_balls", "by_complex_step", "by_rationals", "comparable", "complex_slope"]

SCALES = (1, 12)  # of the inputs: the middle of an activation, and its tails
ENTRIES, FEWEST = 96, 6  # of a layer, and of each tensor, that are looked at one by one; a direction that mixes all leaves out none


@dataclass
class Outcome:
    """What a method says of a rule: disagreements, remarks that are none, and by tensor how far float64 is off (see `Proof`)."""

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
            for index in some_indices(actual[tensor].shape, seed, max(FEWEST, ENTRIES // len(tensors))):
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
        index = index_of(np.argmax(np.where(np.isnan(excess), np.inf, excess)), value.shape)
        outcome.shares[tensor] = max(outcome.shares.get(tensor, 0.0), float(excess[index]))
        if not excess[index] <= 1:
            truth = float(Ball.of(np.asarray(exact[tensor])[index]).number.mid())
            outcome.sentences.append(f"{tensor}{list(index)} loses digits in float64: got {value[index]!r}, expected {truth!r} within "
                                     f"{2 * radius[index]:.3g}, says arbitrary precision")
        if not np.all(np.isfinite(radius)):
            outcome.notes.append(f"the rounding bound of {tensor} is infinite in {np.count_nonzero(~np.isfinite(radius))} entries")


def _exactly(setting: Setting, seed: int, kind: Kind) -> Outcome:
    """Compare the gradients along a random direction, which a wrong entry cannot hide in; where it is wrong, find the entries."""
    drawn = setting.draw(kind.numbers, seed=seed)
    point = drawn.lifted(kind.lift)
    gradients = {tensor: np.asarray(value) for tensor, value in setting.evaluate(point).items()}
    tensors = list(comparable(setting, gradients))

    def apart(*some: tuple[str, int | str]) -> bool:
        directions = {tensor: mixing(gradients[tensor].shape, seed) for tensor, _ in some}
        expected, error = kind.slope(setting, point, by_place(setting, some, directions))
        got = sum((inner_product(kind, gradients[tensor], direction) for tensor, direction in directions.items()), start=expected * 0)
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
        return inner_product(kind, gradient, chosen) - expected

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
        rounded: dict[str, Rounded] = setting.rounded(point.lifted(as_floats))
    except Exception as error:
        raise NotApplicableError(f"rounded arithmetic gives no bound: {said(error)}") from error
    return {name: ball.radius() for name, ball in rounded.items()}


def _radii_or_none(setting: Setting, point: Point) -> dict[str, np.ndarray] | None:
    try:
        return bounds_of(setting, point)
    except NotApplicableError:
        return None


def complex_slope(setting: Setting, lifted: Point, direction: Mapping[int | str, Any]) -> float:
    """Return the derivative of the pairing along a direction, Im f(x + ih) / h."""
    for place, by in direction.items():
        lifted = setting.moved(lifted, place, 1j * STEP * np.asarray(by, dtype=float))
    return complex(setting.pairing(lifted)).imag / STEP


def _excess(difference: Any, bound: Any) -> float:
    size = abs(float(difference))
    return 0.0 if size == 0 else float(np.inf) if not bound else size / float(bound)


def _wrong(tensor: str, index: Index, got: Any, expected: Any, name: str) -> str:
    return f"{tensor}{list(index)} is wrong: got {shown(got)}, expected {shown(expected)}, says {name}"
