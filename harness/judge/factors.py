"""Which factors, of all entries or of some, and which coarser format explain the numbers of a wrong tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from backproof.judge.rules import expected
from backproof.reference.rounding import PRECISIONS, Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["about_factors", "about_parameter", "axes_in_words", "beside", "coarser_format", "explains", "holds_all", "pattern"]

DIGIT = 10  # what is known to a tenth of itself has a decimal digit that can speak for a mistake
SINGLE = 2.0**-24
COARSER = {"float64": ("float32", "float16", "bfloat16"), "float32": ("float16", "bfloat16")}
"""The precisions in which a tensor may have been computed that should be in a finer one, finest first."""


def holds_all(ball: Rounded, actual: np.ndarray) -> bool:
    """Say whether every number lies in its ball."""
    with quiet():
        return bool((np.abs(actual - ball.value) <= ball.radius()).all())


def explains(wrong: Rounded, actual: np.ndarray) -> bool:
    """Say whether the wrong tensor, with its bound, holds every observed number and is tight enough to mean something."""
    if wrong.shape != actual.shape or not holds_all(wrong, actual):
        return False
    largest = np.max(np.abs(actual))
    return bool(DIGIT * np.max(wrong.radius()) <= largest)


def _known_to_a_digit(ball: Rounded) -> int:
    """Return how many entries are known to a decimal digit."""
    return int(np.count_nonzero((np.abs(ball.value) >= DIGIT * ball.radius()) & (ball.value != 0)))


def beside(here: float, there: float) -> str:
    """Set an entry against its true value."""
    if here == 0 or there == 0:
        return "zero" if here == 0 else f"{here:.6g} in place of 0"
    with quiet():
        ratio = here / there
    return f"{ratio:.6g} times the true value" if abs(ratio - 1) > 1e-3 else f"off by {ratio - 1:+.3g} of the true value"


def axes_in_words(axes: Sequence[int]) -> str:
    """Return `axis 1` or `axes 0 and 2`."""
    return f"{'axis' if len(axes) == 1 else 'axes'} {' and '.join(map(str, axes))}"


def _common_factor(actual: np.ndarray, ball: Rounded) -> float | None:
    """Return the one factor between the observed and the true tensor, read off where the true value is best known, and no better known.

    It is 1 where that explains the numbers, 0 where they are what rounding leaves of it, and otherwise told from 1.
    """
    if _known_to_a_digit(ball) < 2:
        return None
    with quiet():
        size, radius = np.abs(ball.value), ball.radius()
        sure = np.isfinite(radius)
        best = np.unravel_index(int(np.argmin(np.where(sure & (size > 0), radius / size, np.inf))), actual.shape)
        for exact in (1.0, 0.0):
            if (np.abs(actual - exact * ball.value) <= radius)[sure].all():
                return exact
    factor = ball.arithmetic.exact(actual[best]) / ball[best]
    told = not holds_all(factor, np.ones(())) and holds_all(ball[sure] * factor, actual[sure])
    return float(factor.value) if told else None


def _line_factors(actual: np.ndarray, ball: Rounded) -> tuple[int, list[float]] | None:
    """Return an axis, and for each of its places the one factor of all entries there, or None where there is no such axis."""
    for axis in range(actual.ndim):
        places: list[Any] = [(*[slice(None)] * axis, at) for at in range(actual.shape[axis])]
        factors = [_common_factor(actual[place], ball[place]) for place in places]
        if None not in factors:
            return axis, factors  # type: ignore[return-value]
    return None


def coarser_format(step: LayerTrace, tensor: str, actual: np.ndarray, precision: Precision) -> str | None:
    """Return the format that explains a tensor and knows most entries to a digit: the coarsest that can hold it, else the finest."""
    balls = {name: expected(step, Arithmetic(PRECISIONS[name]))[tensor] for name in COARSER.get(precision.name, ())}
    fitting = [name for name, ball in balls.items() if explains(ball, actual)
               and 2 * _known_to_a_digit(ball) > np.count_nonzero(ball.value)]
    holding = [name for name in fitting if (PRECISIONS[name].held(actual) == actual).all()]
    return next(iter([*holding[-1:], *fitting]), None)


def about_parameter(step: LayerTrace, tensor: str, actual: np.ndarray, ball: Rounded) -> tuple[str, str] | None:
    """Return code and sentence where the true tensor times or over a parameter, laid along some of its axes, gives the observed one."""
    for name, given in step.params.items():
        p = given.reshape(()) if given.size == 1 else given
        for start in range(actual.ndim) if p.dtype.kind not in "iub" else ():
            axes = range(start, start + p.ndim)
            if actual.shape[start : axes.stop] != p.shape:
                continue
            number = ball.arithmetic.exact(p.reshape((*p.shape, *[1] * (actual.ndim - axes.stop))))
            for wrong, words in ((ball * number, f"multiplied by {name} once too often"),
                                 (ball / number, f"not multiplied by {name}, or divided by it")):
                if explains(wrong, actual):
                    which = f", along {axes_in_words(axes)}" if axes else f": {name} is {float(p):.6g}"
                    return "parameter-factor", f"{tensor} is {words}{which}"
    return None


def about_factors(tensor: str, actual: np.ndarray, ball: Rounded, precision: Precision) -> tuple[str, str] | None:
    """Return code and sentence for one factor of all entries, or one for each place along an axis."""
    factor = _common_factor(actual, ball)
    if factor not in (None, 1):
        return _about_factor(factor, tensor, precision)
    found = _line_factors(actual, ball)
    if found is None:
        return None
    axis, factors = found
    off = [at for at, f in enumerate(factors) if f != 1]
    if len(off) == 1:
        return "line-factor", f"the entries of {tensor} at {off[0]} of axis {axis} are {factors[off[0]]:.6g} times what they should be"
    each = ", ".join(f"{f:.6g}" for f in factors[:5]) + (", ..." if len(factors) > 5 else "")
    return "line-factors", f"{tensor} has a wrong factor of its own at each place of axis {axis}: {each}"


def _about_factor(factor: float, tensor: str, precision: Precision) -> tuple[str, str]:
    """Return code and sentence for a common factor; one that is 1 to single precision betrays a constant kept in it."""
    if factor == 0:
        return "zero", f"{tensor} is zero everywhere but for rounding"
    if SINGLE / 64 <= abs(factor - 1) <= SINGLE and precision.store < SINGLE:
        return "single-precision-constant", (f"{tensor} is off by {factor - 1:+.3g} of its value everywhere: a constant of "
                                             f"the formula is held in single precision (unit roundoff {SINGLE:.3g})")
    return "factor", f"{tensor} is {factor:.6g} times what it should be, everywhere"


def pattern(actual: np.ndarray, ball: Rounded) -> str:
    """Say along which axis the entries outside gather; of a single one how large it is."""
    if actual.size == 1:
        return f"its one entry is {beside(float(actual.reshape(())), float(ball.value.reshape(())))}"
    with quiet():
        outside = ~(np.abs(actual - ball.value) <= ball.radius())
    total = int(outside.sum())
    for axis in range(outside.ndim):
        lines = outside.any(axis=tuple(a for a in range(outside.ndim) if a != axis))
        touched = np.flatnonzero(lines)
        if 4 * touched.size <= max(4, lines.size) and lines.size > 1:
            return f"the {total} entries outside lie at {', '.join(map(str, touched[:5]))} of axis {axis} (size {lines.size})"
    return f"{total} of {outside.size} entries are outside, spread over the whole tensor"
