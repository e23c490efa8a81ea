"""What the cases of a run reach, and what later draws should turn to: layers, their options, and value regimes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from backproof.reference.case import Case
from backproof.reference.layer import Layer
from backproof.reference.network import Network
from backproof.reference.values import REGIMES

__all__ = ["Coverage", "reached"]

ANY = "any layer"


class Coverage:
    """Counts of the structures drawn by layer, by layer and option, and by layer and regime. It depends on what was drawn alone."""

    def __init__(self) -> None:
        self.layers: Counter[str] = Counter()
        self.options: Counter[str] = Counter()
        self.regimes: Counter[str] = Counter()

    def count(self, network: Network) -> None:
        """Count a structure that was drawn."""
        layers = layers_of(network)
        self.layers.update({type(layer).__name__ for layer in layers})
        self.options.update({option for layer in layers for option in options_of(layer)})

    def rarest(self, names: Sequence[str], count: int) -> list[str]:
        """Return the layers or heads of these names whose next draw is likeliest to show what no draw has shown.

        Of n draws of a layer, the chance that the next one is new is about (options seen once) / n (I. J. Good, "The population
        frequencies of species and the estimation of population parameters", Biometrika 40, 1953). One is added to both, so that a
        layer never drawn comes first and one without options comes less and less often.
        """
        once = Counter(option.partition("(")[0] for option, seen in self.options.items() if seen == 1)
        chances = {name: (once[name] + 1) / (self.layers[name] + 1) for name in names}
        return sorted(names, key=lambda name: (-chances[name], self.layers[name]))[:count]

    def turn(self, network: Network, draws: int) -> list[str]:
        """Return the regimes that a network's layers have met least, in the order of their table, and count them as met."""
        names = sorted({ANY, *(type(layer).__name__ for layer in layers_of(network))})
        met = {regime: sum(1 / (1 + self.regimes[f"{name} {regime}"]) for name in names) for regime in REGIMES}
        chosen = sorted(REGIMES, key=lambda regime: -met[regime])[:draws]
        self.regimes.update(f"{name} {regime}" for name in names for regime in chosen)
        return [regime for regime in REGIMES if regime in chosen]

    def describe(self) -> dict[str, Any]:
        """Return the counts as JSON-ready data."""
        return {"layers": dict(self.layers), "options": dict(self.options), "regimes": dict(self.regimes)}

    def restore(self, data: Mapping[str, Mapping[str, int]]) -> None:
        """Take over counts that `describe` described."""
        self.layers, self.options, self.regimes = (Counter(data[name]) for name in ("layers", "options", "regimes"))


def reached(case: Case) -> dict[str, set[str]]:
    """Return what a case that was compared has reached, by what a report calls it."""
    layers = layers_of(case.network)
    names = {type(layer).__name__ for layer in (*layers, *(step.layer for step in case.network.steps))}
    return {"layers": names, "options": {option for layer in layers for option in options_of(layer)},
            "layers in regimes": {f"{name} {case.regime}" for name in names},
            "layers in precisions": {f"{name} {case.precision}" for name in names}}


def layers_of(network: Network) -> list[Any]:
    """Return every layer of a network, containers and what is in them included, and its head."""
    return [*_walk(network.layers), network.head]


def _walk(value: Any) -> Iterator[Layer]:
    if isinstance(value, tuple):
        for part in value:
            yield from _walk(part)
    elif isinstance(value, Layer):
        yield value
        for field in fields(value):  # every layer is a dataclass
            yield from _walk(getattr(value, field.name))


def options_of(layer: Any) -> Iterator[str]:
    """Yield each option of a layer or head with its value, as a layer writes it: Conv2d(stride=2). Weights are given or not."""
    for field in fields(layer):
        value = getattr(layer, field.name)
        if not any(True for _ in _walk(value)):
            weights = isinstance(value, tuple) and any(isinstance(part, float) for part in value)
            yield f"{type(layer).__name__}({field.name}={'(...)' if weights else repr(value)})"
