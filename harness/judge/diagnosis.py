"""Diagnosis: which known mistake reproduces the observed numbers within the bound."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
from backproof.judge.certify import Certificate, expected
from backproof.judge.mistakes import MISTAKES
from backproof.reference.heads import Head
from backproof.reference.rounding import PRECISIONS, Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["Diagnosis", "about_factors", "derivation", "diagnose", "digits_lost", "holds_all", "pattern", "source_of"]


@dataclass(frozen=True)
class Diagnosis:
    """`code` names the mistake (`unknown` when none fits), `sentence` says it, `equation` is the line of the derivation it violates.

    `condition` says when it shows: `only for a batch of more than one example`; empty where it shows on any input, or nobody looked.
    """

    code: str
    sentence: str
    equation: str = ""
    condition: str = ""


def diagnose(step: LayerTrace, certificate: Certificate, precision: Precision) -> Diagnosis:  # noqa: C901, PLR0911  (one per explanation)
    """Return the first mistake that explains every entry of a failed certificate; say plainly when none does."""
    tensor, actual, ball = certificate.tensor, certificate.actual, certificate.ball
    equation = derivation(step.layer, tensor)
    if certificate.verdict == "error":
        axes = _unsummed(actual, ball) if actual is not None and ball is not None else ""
        return Diagnosis("not-summed" if axes else "error", certificate.message + axes, equation)
    if actual is None or ball is None:
        return Diagnosis("unknown", "the numbers of this finding were not kept", equation)
    batch = step.inputs[0].shape[0]
    if not batch:
        return Diagnosis("empty-batch", f"of no examples {tensor} is a sum of nothing, 0: something else came back", equation)
    if tensor.startswith("end-to-end"):
        sentence = f"every layer is right by itself and yet {tensor} of the network is not: a wrong connection between layers"
        return Diagnosis("wiring", sentence, equation)

    right = expected(step, Arithmetic(precision))

    def rule(altered: LayerTrace) -> dict[str, Rounded]:
        return right if altered is step else expected(altered, Arithmetic(precision))

    numbers = actual.astype(np.float64)
    if certificate.verdict == "nonfinite":
        count = int(np.count_nonzero(~np.isfinite(numbers)))
        return Diagnosis("nonfinite", f"{count} of {actual.size} entries of {tensor} are not finite where the true value is", equation)
    for mistake in MISTAKES:
        wrong = mistake.wrong(step, tensor, rule)
        if wrong is not None and _explains(wrong, numbers):
            return Diagnosis(mistake.code, mistake.sentence.format(tensor=tensor, m=batch), equation)
    most = 2 * certificate.outside > np.count_nonzero(ball.value)
    found = (_about_parameter(step, tensor, numbers, ball) if most else None) or about_factors(tensor, numbers, ball, precision)
    if found is not None:
        return Diagnosis(*found, equation)
    coarse = _coarser(step, tensor, numbers, precision) if most else None
    if coarse is not None:
        return Diagnosis("coarse-precision", f"{tensor} is right to the digits of {coarse} only: it was computed in that", equation)
    if certificate.outside == 1 < actual.size:
        at = certificate.index
        sentence = f"one entry of {tensor} is wrong, at {list(at)}: it is {_beside(numbers[at], ball.value[at])}"
        return Diagnosis("single-entry", sentence, equation)
    return Diagnosis("unknown", f"no known mistake reproduces these numbers; {pattern(numbers, ball)}", equation)


def digits_lost(step: LayerTrace, certificate: Certificate, digits: float) -> Diagnosis:
    """Return the diagnosis of an imprecise tensor: how many digits are gone, and at which input."""
    x, actual = source_of(step, certificate.tensor), certificate.actual
    where = f", worst at input {float(x[certificate.index]):.4g}" if actual is not None and x.shape == actual.shape else ""
    lost = f"about {digits:.1f} decimal digits in {certificate.outside} entries of {certificate.tensor}{where}"
    return Diagnosis("digits-lost", f"the formula is right but loses {lost}", derivation(step.layer, certificate.tensor))


def source_of(step: LayerTrace, tensor: str) -> np.ndarray:
    """Return the input that a gradient is of, or else the first."""
    names = step.layer.input_names
    return step.inputs[names.index(tensor[1:]) if tensor[1:] in names else 0]


def _beside(here: float, there: float) -> str:
    """Set an entry against its true value."""
    if here == 0 or there == 0:
        return "zero" if here == 0 else f"{here:.6g} in place of 0"
    with quiet():
        ratio = here / there
    return f"{ratio:.6g} times the true value" if abs(ratio - 1) > 1e-3 else f"off by {ratio - 1:+.3g} of the true value"


DIGIT = 10  # what is known to a tenth of itself has a decimal digit that can speak for a mistake


def _known(ball: Rounded) -> int:
    """Return how many entries are known to a decimal digit."""
    return int(np.count_nonzero((np.abs(ball.value) >= DIGIT * ball.radius()) & (ball.value != 0)))


def _unsummed(actual: np.ndarray, ball: Rounded) -> str:
    """Say over which axes a tensor with too many of them must be summed to be right; nothing where that does not help."""
    if actual.dtype == ball.arithmetic.precision.dtype:
        for axes in combinations(range(actual.ndim), max(1, actual.ndim - ball.ndim)):
            if _explains(ball, actual.astype(np.float64).sum(axis=axes)):
                return f". Summed over {_axes(axes)} it is right"
    return ""


def _axes(axes: Sequence[int]) -> str:
    return f"{'axis' if len(axes) == 1 else 'axes'} {' and '.join(map(str, axes))}"


def holds_all(ball: Rounded, actual: np.ndarray) -> bool:
    """Say whether every number lies in its ball."""
    with quiet():
        return bool((np.abs(actual - ball.value) <= ball.radius()).all())


def _explains(wrong: Rounded, actual: np.ndarray) -> bool:
    """Say whether the wrong tensor, with its bound, holds every observed number and is tight enough to mean something."""
    if wrong.shape != actual.shape or not holds_all(wrong, actual):
        return False
    largest = np.max(np.abs(actual))
    return bool(DIGIT * np.max(wrong.radius()) <= largest)


def _common_factor(actual: np.ndarray, ball: Rounded) -> float | None:
    """Return the one factor between the observed and the true tensor, read off where the true value is best known, and no better known.

    It is 1 where that explains the numbers, 0 where they are what rounding leaves of it, and otherwise told from 1.
    """
    if _known(ball) < 2:
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


SINGLE = 2.0**-24
COARSER = {"float64": ("float32", "float16", "bfloat16"), "float32": ("float16", "bfloat16")}
"""The precisions in which a tensor may have been computed that should be in a finer one, finest first."""


def _coarser(step: LayerTrace, tensor: str, actual: np.ndarray, precision: Precision) -> str | None:
    """Return the format that explains a tensor and knows most entries to a digit: the coarsest that can hold it, else the finest."""
    balls = {name: expected(step, Arithmetic(PRECISIONS[name]))[tensor] for name in COARSER.get(precision.name, ())}
    fitting = [name for name, ball in balls.items() if _explains(ball, actual) and 2 * _known(ball) > np.count_nonzero(ball.value)]
    holding = [name for name in fitting if (PRECISIONS[name].held(actual) == actual).all()]
    return next(iter([*holding[-1:], *fitting]), None)


def _about_parameter(step: LayerTrace, tensor: str, actual: np.ndarray, ball: Rounded) -> tuple[str, str] | None:
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
                if _explains(wrong, actual):
                    which = f", along {_axes(axes)}" if axes else f": {name} is {float(p):.6g}"
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
        return f"its one entry is {_beside(float(actual.reshape(())), float(ball.value.reshape(())))}"
    with quiet():
        outside = ~(np.abs(actual - ball.value) <= ball.radius())
    total = int(outside.sum())
    for axis in range(outside.ndim):
        lines = outside.any(axis=tuple(a for a in range(outside.ndim) if a != axis))
        touched = np.flatnonzero(lines)
        if 4 * touched.size <= max(4, lines.size) and lines.size > 1:
            return f"the {total} entries outside lie at {', '.join(map(str, touched[:5]))} of axis {axis} (size {lines.size})"
    return f"{total} of {outside.size} entries are outside, spread over the whole tensor"


ALIASES = {"output": ("y", "output"), "dz": ("dJ/dz", "dJ/da"), "dweight": ("dweight", "dW", "dw"), "dbias": ("dbias", "db")}
"""What derivations call a tensor, where that is not the name of its input or parameter."""

INDEX = r"(?:[\w.']|\([^()=]*\))*"  # y_nk, x_n(i,j,...), dx_..j..i..


def derivation(layer: Any, tensor: str) -> str:
    """Return the line of the layer's derivation that gives a tensor, from the rule's own docstring."""
    rules = layer.rules() if isinstance(layer, Head) else _sections(inspect.getdoc(type(layer)) or "", "Formula", "Chain rule")
    lines = [line for line in rules.splitlines() if _holds(line, layer)]
    tensor = tensor.removeprefix("end-to-end ")
    for name in ("J",) if isinstance(layer, Head) and tensor == "output" else _names(tensor):
        for line in lines:
            found = re.search(rf"(?<![\w/])({re.escape(name)}{INDEX}\s+= .*)", line)
            if found:
                equation = re.sub(r"\s+=", " =", found.group(1))
                equation = re.split(r"\s{3,}|; (?![^(]*\))|, (?=dJ/d|of which|which)|: see ", equation)[0].rstrip(" ;")
                return equation if equation.endswith("..") else equation.rstrip(".")
    return ""


def _names(tensor: str) -> Iterator[str]:
    """Yield what the derivation may call a tensor: the names of numbered ones, and those of further layers and directions, stand for all.

    `dx_1` is a `dx_i`, `dweight_ih_l1_reverse` is given by `dweight_ih_l0`, and the last state `h_n` is an `h_t`.
    """
    yield from ALIASES.get(tensor, (tensor,))
    yield re.sub(r"_\d+$", "_i", tensor)
    yield re.sub(r"_l\d+(_reverse)?$", "_l0", tensor)
    yield re.sub(r"^(\w)_n$", r"\1_t", tensor)


def _holds(line: str, layer: Any) -> bool:
    """Say whether a line is about a layer's options: one that begins with `tanh:` is not where none of them has that value."""
    label = re.match(r"\s*(\w+):\s", line)
    options = {field.name: getattr(layer, field.name) for field in fields(layer)}
    if label is None or not options:
        return True
    word = label.group(1)
    return options["training"] == (word == "training") if "training" in options else word in options.values()


def _sections(text: str, *titles: str) -> str:
    """Return the lines of a rule's docstring that stand under some of its titles."""
    kept, keep = [], False
    for line in text.splitlines():
        title = re.match(r"([A-Z][a-z]+(?: [a-z]+)?)\s{2,}", line)
        if title or not line.strip():
            keep = title is not None and title.group(1) in titles
        if keep:
            kept.append(line[title.end() :] if title else line)
    return "\n".join(kept)
