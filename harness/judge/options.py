"""Which option of the layer, set to another value, reproduces the numbers of a wrong tensor: eps is 1e-6, not 1e-5."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import numpy as np
from backproof.judge.factors import explains, holds_all
from backproof.judge.rules import expected
from backproof.reference.rounding import Arithmetic, Precision, Rounded
from backproof.reference.trace import LayerTrace

__all__ = ["other_option"]

NUMBERS: dict[str, tuple[float, ...]] = {
    "eps": (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 0.0), "momentum": (0.1, 0.9, 0.01, 0.99, 0.001, 0.999, 0.0),
}
"""The values that frameworks and papers give an option."""
USUAL = (0.01, 0.02, 0.05, 0.1, 0.125, 0.2, 0.25, 0.3, 1 / 3, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 0.0)
"""The values of a slope, a temperature, a scale, a threshold or a smoothing of another name."""


def other_option(step: LayerTrace, tensor: str, numbers: np.ndarray, ball: Rounded, precision: Precision) -> tuple[str, str] | None:
    """Return code and sentence where the layer with one option changed gives the observed numbers, and others than it gives as it is."""
    held: dict[str, list[Any]] = {}
    for name, value in _others(step.layer):
        try:
            changed = replace(step, layer=replace(step.layer, **{name: value}))
            wrong = expected(changed, Arithmetic(precision)).get(tensor)
            if wrong is not None and explains(wrong, numbers) and not holds_all(ball, wrong.value):
                held.setdefault(name, []).append(value)
        except Exception:  # noqa: BLE001, S112  (a value that the layer or its rule refuses is not the one)
            continue
    if len(held) != 1 or len(next(iter(held.values()))) != 1:  # none, or several that cannot be told apart here
        return None
    (name, (value,)), = held.items()
    return "other-option", f"{tensor} is that of {name}={_shown(value)}, where {name} is {_shown(getattr(step.layer, name))}"


def _others(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield each option of a layer that is a real number, a yes or no, or one of a few words, with each other value."""
    for field in fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, bool):
            yield field.name, not value
        elif isinstance(value, float):
            yield from ((field.name, other) for other in _numbers(field.name, value) if other != value)
        elif isinstance(value, str):
            yield from ((field.name, word) for word in _words(layer, field.name) if word != value)


def _numbers(name: str, value: float) -> tuple[float, ...]:
    near = (1 - value, 1 / value, -value, 2 * value, value / 2) if value else ()
    return tuple(dict.fromkeys((*NUMBERS.get(name, USUAL), *near)))


def _words(layer: Any, name: str) -> tuple[str, ...]:
    """Return the words that an option may be, where its type or its name says so."""
    literal = tuple(word for word in get_args(get_type_hints(type(layer)).get(name)) if isinstance(word, str))
    return literal or {"approximate": ("none", "tanh")}.get(name, ())


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
