"""Shrinking: the smallest case on which a finding still shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import islice
from typing import Any

from .reference.case import Case
from .reference.layer import Layer, ShapeError
from .reference.network import Network

__all__ = ["shrink"]

SMALL_SEEDS = range(4)


def shrink(case: Case, shows: Callable[[Case], bool], *, attempts: int = 80, seconds: float = 20.0) -> Case:
    """Return the smallest case found for which `shows` still holds, taking one step at a time while steps succeed.

    The steps drop layers, cut batch and sizes and simplify seed and regime; `attempts` and `seconds` bound the work.
    """
    stop = time.monotonic() + seconds
    left = attempts
    progress = True
    while progress and left > 0:
        progress = False
        for candidate in islice(_smaller(case), left):
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
    count = len(network.layers)
    for size in sorted({count, count // 2, 1}, reverse=True):
        for start in range(0, count, size) if size else ():
            kept = network.layers[:start] + network.layers[start + size :]
            yield from _built(network.shapes[start] if start == 0 and kept and size < count else network.input_shape, kept, network.head)
            if start == 0 and kept:  # without its first layers a network may start from the shape that flowed into the rest
                yield from _built(network.shapes[size], kept, network.head)
    for index, layer in enumerate(network.layers):
        for simpler in _simpler(layer):
            yield from _built(network.input_shape, (*network.layers[:index], simpler, *network.layers[index + 1 :]), network.head)
    for less in sorted({1, 2, network.input_shape[0] // 2}):
        if 0 < less < network.input_shape[0]:
            yield from _built((less, *network.input_shape[1:]), network.layers, network.head)


def _simpler(layer: Layer) -> Iterator[Layer]:
    """Yield the layer with fewer features, or without its bias."""
    for field in fields(layer):
        value: Any = getattr(layer, field.name)
        changes: list[Any] = []
        if field.name in {"out_features", "num_parameters"}:
            changes = [less for less in sorted({1, 2, value // 2}) if 0 < less < value]
        elif field.name == "bias" and value:
            changes = [False]
        yield from (replace(layer, **{field.name: change}) for change in changes)


def _built(shape: tuple[int, ...], layers: tuple[Any, ...], head: Any) -> Iterator[Network]:
    """Yield the network if its shapes fit."""
    try:
        yield Network(shape, layers, head)
    except (ShapeError, ValueError):
        return
