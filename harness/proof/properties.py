"""Properties that the backward of every layer has: <dy, J v> = <J^T dy, v>, linearity in dy, and one-sided slopes at zeros and ties."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from backproof.proof.directions import Index, by_place, index_of, mixing, some_indices, unit_at
from backproof.proof.kinds import BALLS, RATIONALS, WIDTH, Kind, NotApplicableError, as_floats, inner_product, shown
from backproof.proof.methods import ENTRIES, Outcome, bounds_of, comparable, complex_slope
from backproof.proof.setting import Point, Setting
from backproof.truth.complex_step import stepped
from backproof.truth.exact import Ball, balls

__all__ = ["dot_product", "linearity", "special_values", "sprinkled"]


def dot_product(setting: Setting, seed: int) -> Outcome:
    """Compare <dy, J v> with <J^T dy, v> for one direction v that moves every input and parameter at once."""
    kind, drawn, point, actual = _best(setting, seed)
    tensors = list(comparable(setting, actual))
    directions = {tensor: mixing(np.shape(actual[tensor]), seed + 1) for tensor, _ in tensors}
    places = by_place(setting, tensors, directions)
    if kind is None:
        expected: Any = complex_slope(setting, point.lifted(stepped), places)
        got = sum(float(np.sum(actual[tensor] * as_floats(direction))) for tensor, direction in directions.items())
        apart = True
    else:
        expected, error = kind.slope(setting, point, places)
        got = sum((inner_product(kind, np.asarray(actual[tensor]), v) for tensor, v in directions.items()), start=expected * 0)
        apart = kind.apart(got - expected, error)
    if not apart or abs(float(got - expected)) <= _rounding(setting, drawn, actual, directions):
        return Outcome()
    name = "the complex step" if kind is None else kind.name
    sides = f"got <J^T dy, v> = {shown(got)}, expected <dy, J v> = {shown(expected)} for a random v"
    return Outcome([f"the dot-product test is off: {sides}, says {name}"])


def _rounding(setting: Setting, point: Point, actual: Mapping[str, Any], directions: Mapping[str, Any]) -> float:
    """Return what rounding may do to the sum of gradient times direction in float64: twice each bound, and n u in a sum of n terms."""
    total, radii = 0.0, bounds_of(setting, point)
    for tensor, direction in directions.items():
        terms = np.abs(as_floats(actual[tensor]) * as_floats(direction))
        total += float(np.sum(2 * radii[tensor] * as_floats(direction)) + np.sum(terms) * terms.size * 2.0**-53)
    return total


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
        for tensor, _ in comparable(setting, both):
            got, expected = arithmetic.lift(both[tensor]), arithmetic.lift(3 * first[tensor] - second[tensor])
            excess = np.abs(got.value - expected.value) - (got.radius() + expected.radius())
            index = index_of(np.argmax(excess), excess.shape) if excess.size else ()
            if excess.size and excess[index] > 0:
                outcome.sentences.append(_nonlinear(tensor, index, got.value[index], expected.value[index], "rounded arithmetic"))
        return outcome
    dys, dzs = point.dys, other.lifted(kind.lift).dys
    _, gradients = setting.run(point)
    both = gradients(*(3 * dy - dz for dy, dz in zip(dys, dzs, strict=True)))
    first, second = gradients(*dys), gradients(*dzs)
    for tensor, _ in comparable(setting, both):
        for index in np.ndindex(np.shape(both[tensor])):
            got, dy, dz = (kind.value(np.asarray(g[tensor])[index]) for g in (both, first, second))
            if kind.apart(got - (3 * dy - dz), got * 0):
                outcome.sentences.append(_nonlinear(tensor, index, got, 3 * dy - dz, kind.name))
                break
    return outcome


def _nonlinear(tensor: str, index: Index, got: Any, expected: Any, name: str) -> str:
    return (f"{tensor}{list(index)} is not linear in dy: got backward(3 dy - dz) = {shown(got)}, expected 3 backward(dy) - backward(dz) = "
            f"{shown(expected)}, says {name}")


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


def special_values(setting: Setting, seed: int) -> Outcome:
    """Compare each gradient with the slopes of both sides at zeros, whole numbers and ties.

    Where the two slopes agree, the gradient is that slope; at a kink it lies between them. Where an output jumps or has an infinite slope,
    nothing is asked of it.
    """
    drawn = sprinkled(setting.draw(seed=seed), seed)
    point = drawn.lifted(balls)
    gradients = {tensor: np.asarray(value) for tensor, value in setting.evaluate(point).items()}
    tensors = list(comparable(setting, gradients))
    directions = {tensor: mixing(gradients[tensor].shape, seed) for tensor, _ in tensors}
    got = sum((inner_product(BALLS, gradients[tensor], v) for tensor, v in directions.items()), start=Ball(0).number)
    slopes = _one_sided(setting, point, by_place(setting, tensors, directions))
    if slopes is not None and abs(slopes[1] - slopes[0]).abs_lower() <= slopes[2] and _outside(got, slopes) is False:
        return Outcome()
    outcome = Outcome()
    for tensor, place in tensors:
        shape = gradients[tensor].shape
        for index in some_indices(shape, seed, max(2, ENTRIES // (2 * len(tensors)))):
            slopes = _one_sided(setting, point, {place: unit_at(shape, index) * setting.free(tensor, shape)})
            value = BALLS.value(gradients[tensor][index])
            if slopes is not None and _outside(value, slopes) and not _within(setting, drawn, tensor, index, value, slopes):
                low, high, _ = slopes
                side = shown(low) if abs(high - low).abs_lower() <= slopes[2] else f"a slope from {shown(low)} to {shown(high)}"
                outcome.sentences.append(f"{tensor}{list(index)} is wrong at special values: got {shown(value)}, expected {side}, says "
                                         f"arbitrary precision")
                break
    return outcome


def sprinkled(point: Point, seed: int) -> Point:
    """Return the point with some of its inputs made 0, 1 or -1, and so equal to one another."""
    rng = np.random.default_rng(seed)

    def sprinkle(array: Any) -> Any:
        if array.dtype.kind in "biu":
            return array
        return np.where(rng.random(array.shape) < 0.4, rng.choice([0.0, 0.0, 1.0, -1.0], array.shape), array)

    return Point(point.params, tuple(map(sprinkle, point.inputs)), point.dys)


def _one_sided(setting: Setting, point: Point, direction: Mapping[int | str, Any]) -> tuple[Any, Any, Any] | None:
    """Return the smaller and the larger one-sided slope and what each may be off by; None where there is none."""
    here = Ball.of(setting.pairing(point))
    slopes = []
    for side in (1, -1):
        wide, narrow = (_quotient(setting, point, direction, side * width, here) for width in (WIDTH, WIDTH / 2))
        error = (2 * abs(wide - narrow)).abs_upper()
        if not error <= (1 + abs(narrow)).abs_lower() * 2.0**-50:  # a jump, or a slope without bound; also NaN
            return None
        slopes.append((narrow, error))
    (a, a_error), (b, b_error) = slopes
    return (a, b, a_error + b_error) if float(a) <= float(b) else (b, a, a_error + b_error)


def _quotient(setting: Setting, point: Point, direction: Mapping[int | str, Any], step: Fraction, here: Ball) -> Any:
    for place, by in direction.items():
        point = setting.moved(point, place, balls(by) * Ball(step))
    return ((Ball.of(setting.pairing(point)) - here) / step).number


def _within(setting: Setting, point: Point, tensor: str, index: Index, value: Any, slopes: tuple[Any, Any, Any]) -> bool:
    """Say whether rounding in float64 explains a gradient beyond both slopes."""
    try:
        radius = float(bounds_of(setting, point)[tensor][index])
    except NotApplicableError:
        return False
    off = min(abs(float(slope - value)) for slope in slopes[:2])
    return np.isfinite(radius) and off <= 2 * radius


def _outside(value: Any, slopes: tuple[Any, Any, Any]) -> bool:
    low, high, error = slopes
    at_one = abs(low - value).abs_lower() <= error or abs(high - value).abs_lower() <= error
    return not value.is_finite() or not (at_one or low < value < high)
