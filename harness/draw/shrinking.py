"""Shrinking: the smallest case on which a finding still shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from itertools import islice
from typing import Any

from backproof.reference.case import Case
from backproof.reference.containers import Parallel, Residual, Sequential, Shared
from backproof.reference.heads import MSELoss
from backproof.reference.layer import Layer, Shape
from backproof.reference.network import Network

__all__ = ["shrink"]

SMALL_SEEDS = range(4)


def shrink(case: Any, shows: Callable[[Any], bool], smaller: Callable[[Any], Iterator[Any]] | None = None, *, attempts: int = 80,
           seconds: float = 20.0) -> Any:
    """Return the smallest case found for which `shows` still holds, taking one step at a time while steps succeed.

    `smaller` yields simpler cases, boldest first; left out, it drops layers, cuts batch and sizes and simplifies seed and regime.
    `attempts` and `seconds` bound the work.
    """
    stop = time.monotonic() + seconds
    left = attempts
    progress = True
    while progress and left > 0:
        progress = False
        for candidate in islice((smaller or _smaller)(case), left):
            left -= 1
            if time.monotonic() > stop:
                return case
            if shows(candidate):
                case, progress = candidate, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Yield simpler cases, boldest first."""
    for network in _smaller_networks(case.network):
        yield replace(case, network=network)
    for batch in sorted({1, 2, case.batch // 2, case.batch - 1}):
        if 0 < batch < case.batch:
            yield replace(case, batch=batch)
    if case.regime != "normal":
        yield replace(case, regime="normal")
    if case.seed not in SMALL_SEEDS:
        yield from (replace(case, seed=seed) for seed in SMALL_SEEDS)


def _smaller_networks(network: Network) -> Iterator[Network]:
    layers, count = network.layers, len(network.layers)
    for size in sorted({count, count // 2, 2, 1}, reverse=True):
        for start in range(0, count, size) if 0 < size <= count else ():
            kept = layers[:start] + layers[start + size :]
            if start == 0 and kept and len(network.shapes[size]) == 1:
                # without its first layers a network may start from the shape that flowed into the rest
                yield from _built(network.shapes[size][0], kept, network.head)
            yield from _built(network.input_shape, kept, network.head)
    for index, layer in enumerate(layers):
        before, after = layers[:index], layers[index + 1 :]
        for parts in _opened(layer):
            yield from _built(network.input_shape, (*before, *parts, *after), network.head)
            if isinstance(layer, Parallel):  # together with the layer that takes its outputs
                yield from _built(network.input_shape, (*before, *parts, *after[1:]), network.head)
        for simpler in _simpler(layer):
            yield from _built(network.input_shape, (*before, simpler, *after), network.head)
    for shape in _smaller_shapes(network.input_shape):
        yield from _built(shape, layers, network.head)
    if network.head != MSELoss():
        yield from _built(network.input_shape, layers, MSELoss())


def _smaller_shapes(shape: Shape) -> Iterator[Shape]:
    """Yield the shape without one of its axes, or with a smaller one."""
    for axis, value in enumerate(shape):
        before, after = shape[:axis], shape[axis + 1 :]
        yield (*before, *after)
        yield from ((*before, less, *after) for less in _less(value))


def _opened(layer: Layer) -> Iterator[tuple[Layer, ...]]:
    """Yield what may stand in place of a container: its parts."""
    if isinstance(layer, Sequential):
        yield layer.layers
    elif isinstance(layer, Parallel):
        yield from ((branch,) for branch in layer.branches)
    elif isinstance(layer, (Residual, Shared)):
        yield (layer.layer,)


def _simpler(layer: Layer) -> Iterator[Layer]:
    """Yield the layer with smaller sizes, without its bias, or with simpler parts."""
    for field in fields(layer):
        value: Any = getattr(layer, field.name)
        changes: list[Any] = []
        if isinstance(value, bool):
            changes = [False] if value and field.name == "bias" else []
        elif isinstance(value, int) and not field.name.startswith("dim"):
            changes = _less(value)
        elif isinstance(value, Layer):
            changes = [*_simpler(value), *(parts[0] for parts in _opened(value) if len(parts) == 1)]
        elif isinstance(value, tuple) and any(isinstance(part, Layer) for part in value):
            changes = [value[:i] + value[i + 1 :] for i in range(len(value)) if len(value) > 1]
            changes += [(*value[:i], simpler, *value[i + 1 :]) for i, part in enumerate(value) for simpler in _simpler(part)]
        for change in changes:
            with suppress(ValueError):  # one option may bound another
                yield replace(layer, **{field.name: change})


def _less(value: int) -> list[int]:
    return [less for less in sorted({1, 2, value // 2}) if 0 < less < value]


def _built(shape: tuple[int, ...], layers: tuple[Any, ...], head: Any) -> Iterator[Network]:
    """Yield the network if its shapes fit."""
    try:
        yield Network(shape, layers, head)
    except (ValueError, IndexError):
        return
