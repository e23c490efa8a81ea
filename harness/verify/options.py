"""With which options a layer is off: settings are tried, and the simplest rule is said that tells those that are off from the rest."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from itertools import combinations, pairwise
from typing import Any

from backproof.proof.setting import Setting
from backproof.reference.layer import Layer

__all__ = ["options_that_decide", "variants"]

MOST = 40  # settings of one layer that are tried
ENOUGH = 3  # of those that are off, and of those that are not, before a rule is said
WINDOW = ("kernel_size", "stride", "padding", "dilation", "output_padding")  # options with a size for each axis, which may be compared

Rule = tuple[str, Callable[[Layer], bool]]


def variants(setting: Setting) -> list[Setting]:
    """Return settings of the same layer with one input: itself, the examples of its class, and each with options of the others.

    Where it has several inputs, it is among them only as far as its options are taken into an example.
    """
    known = [setting, *(Setting(other, tuple(shapes)) for other, *shapes in type(setting.layer).examples())]
    plain = [one for one in known if len(one.shapes) == 1]
    mixed = [Setting(one, base.shapes) for base in plain for other in known for one in _between(base.layer, other.layer)]
    return [*dict.fromkeys(one for one in (*plain, *mixed) if _fits(one))][:MOST]


def _between(layer: Layer, other: Layer) -> Iterator[Layer]:
    """Yield a layer with one option of another in turn."""
    for field in fields(layer):
        if field.repr and getattr(layer, field.name) != getattr(other, field.name):
            with suppress(ValueError):  # one option may bound another
                yield replace(layer, **{field.name: getattr(other, field.name)})


def _fits(setting: Setting) -> bool:
    try:
        return len(setting.layer.input_names) == 1 and bool(setting.outputs)
    except (ValueError, IndexError):
        return False


def options_that_decide(shown: Mapping[Setting, bool]) -> str:
    """Say which options a layer has in every setting in which it is off and in no other; nothing where no simple rule tells them apart."""
    off, right = ([setting.layer for setting, shows in shown.items() if shows is which] for which in (True, False))
    if len(off) < ENOUGH or len(right) < ENOUGH:
        return ""
    needed = [(words, holds) for words, holds in _rules([*off, *right]) if all(map(holds, off))]
    both = [(f"{one} and {other}", partial(_all, first, second)) for (one, first), (other, second) in combinations(needed, 2)]
    rules: list[Rule] = [*needed, *both]
    for words, holds in rules:
        if not any(map(holds, right)):
            return f"only with {words} (of {len(shown)} settings of {type(off[0]).__name__} tried)"
    return ""


def _rules(layers: Sequence[Layer]) -> Iterator[Rule]:
    """Yield what may be said of options: a choice, a size beyond a number, and how two sizes of a window compare."""
    names = [field.name for field in fields(layers[0]) if field.repr]
    for name in names:
        sizes = sorted({size for layer in layers for size in _sizes(layer, name)})
        for below, above in pairwise(sizes):
            yield f"{name} > {below:g}", partial(_any, operator.gt, name, (below,))
            yield f"{name} < {above:g}", partial(_any, operator.lt, name, (above,))
        choices = dict.fromkeys(getattr(layer, name) for layer in layers if not _sizes(layer, name))
        yield from ((f"{name}={choice!r}", partial(_is, name, choice)) for choice in choices)
    for one, other in combinations([name for name in names if name in WINDOW], 2):
        yield f"{other} < {one}", partial(_any, operator.lt, other, one)
        yield f"{other} > {one}", partial(_any, operator.gt, other, one)
        yield f"{other} = {one}", partial(_any, operator.eq, other, one)


def _is(name: str, choice: Any, layer: Layer) -> bool:
    return bool(getattr(layer, name) == choice)


def _all(first: Callable[[Layer], bool], second: Callable[[Layer], bool], layer: Layer) -> bool:
    return first(layer) and second(layer)


def _any(compare: Callable[[Any, Any], bool], name: str, other: str | tuple[float, ...], layer: Layer) -> bool:
    """Compare the sizes of an option with a number or with those of another option, and say whether it holds along some axis."""
    sizes, others = _sizes(layer, name), _sizes(layer, other) if isinstance(other, str) else other
    axes = max(len(sizes), len(others))  # one may be a single number, or no size at all
    return any(compare(a, b) for a, b in zip(sizes * axes, others * axes, strict=False))


def _sizes(layer: Layer, name: str) -> tuple[float, ...]:
    """Return the numbers of an option, one for all axes or one for each; a stride that is left out is the window's own size."""
    value = getattr(layer, name)
    if value is None and name == "stride":
        value = getattr(layer, "kernel_size", None)
    numbers = value if isinstance(value, tuple) else (value,)
    return numbers if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) else ()
