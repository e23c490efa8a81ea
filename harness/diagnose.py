"""Diagnosis: which known mistake reproduces the observed numbers within the bound."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

import numpy as np

from .certify import Certificate, expected
from .mistakes import MISTAKES
from .reference.heads import Head
from .reference.rounding import PRECISIONS, Arithmetic, Precision, Rounded, quiet
from .reference.trace import LayerTrace

__all__ = ["Diagnosis", "derivation", "diagnose", "digits_lost", "source_of"]


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
        return Diagnosis("error", certificate.message, equation)
    if actual is None or ball is None:
        return Diagnosis("unknown", "the numbers of this finding were not kept", equation)
    batch = step.inputs[0].shape[0]
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
    factor = _common_factor(numbers, ball)
    if factor is not None:
        return Diagnosis(*_about_factor(factor, step, tensor, precision), equation)
    for coarse in COARSER.get(precision.name, ()):
        if certificate.outside > actual.size / 2 and _explains(expected(step, Arithmetic(PRECISIONS[coarse]))[tensor], numbers,
                                                                TIGHT):
            return Diagnosis("coarse-precision", f"{tensor} is right to the digits of {coarse} only: it was computed in that", equation)
    if certificate.outside == 1:
        here, there = numbers[certificate.index], ball.value[certificate.index]
        what = "zero" if here == 0 else _ratio(here / there) if there else f"{here:.6g} in place of 0"
        return Diagnosis("single-entry", f"one entry of {tensor} is wrong, at {list(certificate.index)}: it is {what}", equation)
    return Diagnosis("unknown", f"no known mistake reproduces these numbers; {_pattern(numbers, ball)}", equation)


def digits_lost(step: LayerTrace, certificate: Certificate, digits: float) -> Diagnosis:
    """Return the diagnosis of an imprecise tensor: how many digits are gone, and at which input."""
    x, actual = source_of(step, certificate.tensor), certificate.actual
    where = f", worst at input {float(x[certificate.index]):.4g}" if actual is not None and x.shape == actual.shape else ""
    lost = f"about {digits:.1f} decimal digits in {certificate.outside} entries of {certificate.tensor}{where}"
    return Diagnosis("digits-lost", f"the formula is right but loses {lost}", derivation(step.layer, certificate.tensor))


def source_of(step: LayerTrace, tensor: str) -> np.ndarray:
    """Return the input that a gradient is of, or else the first."""
    names = () if isinstance(step.layer, Head) else step.layer.input_names
    return step.inputs[names.index(tensor[1:])] if tensor[1:] in names else step.inputs[0]


def _ratio(ratio: float) -> str:
    return f"{ratio:.6g} times the true value" if abs(ratio - 1) > 1e-3 else f"off by {ratio - 1:+.3g} of the true value"


def _explains(wrong: Rounded, actual: np.ndarray, tight: float = 1.0) -> bool:
    """Say whether the wrong tensor, with its bound, holds every observed number and is tight enough to mean something.

    That is a bound below a part `tight` of the largest number.
    """
    if wrong.shape != actual.shape:
        return False
    with quiet():
        radius = wrong.radius()
        inside = np.abs(actual - wrong.value) <= radius
        return bool(inside.all() and np.max(radius, initial=0.0) < tight * np.max(np.abs(actual), initial=0.0)) or (
            bool(inside.all()) and not actual.any() and not wrong.value.any())


def _common_factor(actual: np.ndarray, ball: Rounded) -> float | None:
    """Return the one factor between the observed and the true tensor, read off where the true value is best known.

    The factor is uncertain by that entry's relative bound, which every entry then tolerates; 1 within it is no factor.
    """
    with quiet():
        size, radius = np.abs(ball.value), ball.radius()
        relative = np.where(np.isfinite(radius) & (size > 0), radius / size, np.inf)
        best = np.unravel_index(int(np.argmin(relative)), actual.shape)
        factor = float(actual[best] / ball.value[best])
        doubt = 2 * float(relative[best])
        known = np.count_nonzero(size > radius)
        if not np.isfinite(factor) or factor == 0 or known < 2 or abs(factor - 1) <= doubt:
            return None
        slack = radius * (1 + abs(factor)) + size * doubt * abs(factor)
        return factor if bool((np.abs(actual - factor * ball.value) <= slack).all()) else None


SINGLE = 2.0**-24
TIGHT = 2.0**-5  # of a coarse precision: a wider bound holds many a wrong number
SEVERAL_ROUNDINGS = 64  # of a quotient of two gradients, each of a few operations
COARSER = {"float64": ("float32", "bfloat16"), "float32": ("bfloat16", "float16")}
"""The precisions in which a tensor may have been computed that should be in a finer one."""


def _about_factor(factor: float, step: LayerTrace, tensor: str, precision: Precision) -> tuple[str, str]:
    """Return code and sentence for a common factor; one that is 1 to single precision betrays a constant kept in it."""
    for name, p in step.params.items():
        if p.size == 1 and p.dtype.kind not in "iub" and (value := float(p.reshape(()))):
            for power, words in ((1, "multiplied by it once too often"), (-1, "not multiplied by it, or divided by it")):
                if abs(factor - value**power) <= precision.store * SEVERAL_ROUNDINGS * abs(factor):
                    said = f"{tensor} is {factor:.6g} times what it should be: {name} is {value:.6g}, and {tensor} is {words}"
                    return "parameter-factor", said
    if SINGLE / 64 <= abs(factor - 1) <= SINGLE and precision.store < SINGLE:
        return "single-precision-constant", (f"{tensor} is off by {factor - 1:+.3g} of its value everywhere: a constant of "
                                             f"the formula is held in single precision (unit roundoff {SINGLE:.3g})")
    return "factor", f"{tensor} is {factor:.6g} times what it should be, everywhere"


def _pattern(actual: np.ndarray, ball: Rounded) -> str:
    """Say along which axis the entries outside gather."""
    with quiet():
        outside = ~(np.abs(actual - ball.value) <= ball.radius())
    total = int(outside.sum())
    for axis in range(outside.ndim):
        lines = outside.any(axis=tuple(a for a in range(outside.ndim) if a != axis))
        touched = np.flatnonzero(lines)
        if touched.size <= max(1, lines.size // 4) and lines.size > 1:
            return f"the {total} entries outside lie at {', '.join(map(str, touched[:5]))} of axis {axis} (size {lines.size})"
    return f"{total} of {outside.size} entries are outside, spread over the whole tensor"


ALIASES = {"output": ("y", "output"), "dz": ("dJ/dz", "dJ/da"), "dweight": ("dweight", "dW", "dw"), "dbias": ("dbias", "db")}
"""What derivations call a tensor, where that is not the name of its input or parameter."""

INDEX = r"(?:[\w.']|\([^()=]*\))*"  # y_nk, x_n(i,j,...), dx_..j..i..


def derivation(layer: object, tensor: str) -> str:
    """Return the line of the layer's derivation that gives a tensor, from the rule's own docstring."""
    rules = layer.rules() if isinstance(layer, Head) else _sections(inspect.getdoc(type(layer)) or "", "Formula", "Chain rule")
    lines = [line for line in rules.splitlines() if _holds(line, layer)]
    tensor = tensor.removeprefix("end-to-end ")
    for name in ("J",) if isinstance(layer, Head) and tensor == "output" else _names(tensor):
        for line in lines:
            found = re.search(rf"(?<![\w/])({re.escape(name)}{INDEX}\s+= .*)", line)
            if found:
                equation = re.sub(r"\s+=", " =", found.group(1), count=1)
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


def _holds(line: str, layer: object) -> bool:
    """Say whether a line is about a layer's options: one that begins with `tanh:` is not where none of them has that value."""
    label = re.match(r"\s*(\w+):\s", line)
    options = {field.name: getattr(layer, field.name) for field in fields(layer)} if is_dataclass(layer) else {}
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
