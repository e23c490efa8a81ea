"""The trials of the comparison: networks with one mistake in one gradient of one layer, and correct networks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from backproof.adapters import load
from backproof.judge.rules import tensors
from backproof.reference import activations as a
from backproof.reference.case import Case
from backproof.reference.heads import MSELoss
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from planted import MISTAKES, PART, Plant, PlantedLinear, PlantedReLU, PlantedSigmoid, PlantedTanh

__all__ = ["ALL_ACTIVATIONS", "BATCH", "LARGE", "REGIMES", "WIDTHS", "Trial", "correct", "large", "mistaken"]

WIDTHS = (1, 4, 16, 64, 256, 512)
BATCH = 4
REGIMES = ("normal", "kinks", "zeros", "saturated")
ACTIVATIONS: dict[type[Layer], type[Layer]] = {a.ReLU: PlantedReLU, a.Tanh: PlantedTanh, a.Sigmoid: PlantedSigmoid}
ALL_ACTIVATIONS: tuple[type[Layer], ...] = (*ACTIVATIONS, a.GELU, a.LeakyReLU)
LARGE = 500  # a Linear of 500 x 500 has 250,000 weights


@dataclass(frozen=True)
class Trial:
    """A case, with the mistake in it (none in a correct network) and where it stands.

    `fresh` marks the first values drawn for a network.
    """

    case: Case
    width: int
    fresh: bool
    mistake: str = ""
    path: str = ""
    tensor: str = ""
    index: tuple[int, ...] = ()
    activation: str = ""


def _network(rng: np.random.Generator, width: int, activation: type[Layer], depth: int) -> Network:
    layers: list[Layer] = []
    for index in range(depth):
        layers += [activation()] if index else []
        layers.append(Linear(width))
    return Network((width,), tuple(layers), MSELoss(reduction=("sum", "mean")[int(rng.integers(2))]))


def _with(network: Network, index: int, layer: Layer) -> Network:
    return replace(network, layers=(*network.layers[:index], layer, *network.layers[index + 1 :]))


def _planted(layer: Layer, plant: Plant | None) -> Layer:
    """Return the stand-in for a layer, whose backward is written by hand."""
    if isinstance(layer, Linear):
        return PlantedLinear(layer.out_features, layer.bias, plant)
    stand_in: Callable[..., Layer] = ACTIVATIONS[type(layer)]
    return stand_in(plant=plant)


def mistaken(widths: Sequence[int], structures: int, seeds: int, seed: int) -> Iterator[Trial]:
    """Yield networks of 2 or 3 Linear layers with every mistake, in a random layer and gradient of those it can be in."""
    for width in widths:
        for code, mistake in MISTAKES.items():
            for number in range(structures if width > 1 or not mistake.wide else 0):
                rng = np.random.default_rng((seed, width, list(MISTAKES).index(code), number))
                activation = list(ACTIVATIONS)[rng.integers(len(ACTIVATIONS))]
                masked = code == "stale-mask" and number % 2 == 0
                network = _network(rng, width, a.ReLU if masked else activation, int(rng.integers(2, 4)))
                places = [(i, t) for i, layer in enumerate(network.layers)
                          for t in (mistake.linear if isinstance(layer, Linear) else mistake.activation)]
                index, tensor = places[rng.integers(len(places))]
                layer = network.layers[index]
                wrong, right = (_with(network, index, _planted(layer, plant)) for plant in (Plant(code, tensor), None))
                cases = _telling(wrong, right, index, tensor, rng)
                for drawn in range(seeds):
                    case = next(cases, None)
                    if case is None:
                        print(f"left out: no values show {code} in {tensor} of {network}", file=sys.stderr)
                        break
                    yield Trial(case, width, drawn == 0, code, f"layers.{index}", tensor)


def _telling(wrong: Network, right: Network, index: int, tensor: str, rng: np.random.Generator) -> Iterator[Case]:
    """Yield cases in which the mistake changes the gradient: by half of 1 part in 10,000 of its largest entry or more."""
    for number in rng.integers(2**32, size=100):
        case = Case(wrong, int(number), "normal", BATCH)
        one, two = (tensors(load("torch").run(replace(case, network=n)).layers[index])[tensor] for n in (wrong, right))
        size = float(np.max(np.abs(two)))
        if size > 1e-30 and float(np.max(np.abs(one - two))) >= PART * size / 2:
            yield case


def correct(widths: Sequence[int], seeds: int, seed: int) -> Iterator[Trial]:
    """Yield correct networks in every regime, half of them (by width and activation) with a right hand-written backward."""
    for place, width in enumerate(widths):
        for turn, activation in enumerate(ALL_ACTIVATIONS):
            rng = np.random.default_rng((seed, width, turn))
            network = _network(rng, width, activation, 2 + turn % 2)
            if (place + turn) % 2:
                written = [_planted(x, None) if type(x) in {Linear, *ACTIVATIONS} else x for x in network.layers]
                network = replace(network, layers=tuple(written))
            for number in range(seeds):
                for regime in REGIMES:
                    case, fresh = Case(network, int(rng.integers(2**32)), regime, BATCH), number == 0 and regime == REGIMES[0]
                    yield Trial(case, width, fresh, activation=activation.__name__)


def large(count: int, seed: int) -> Iterator[tuple[Trial, Trial]]:
    """Yield a Linear of 500 x 500 with one random entry of its weight's gradient zeroed, and the right one on the same values."""
    rng = np.random.default_rng((seed, LARGE))
    for number in range(count):
        index, drawn = tuple(int(i) for i in rng.integers(LARGE, size=2)), int(rng.integers(2**32))
        wrong, right = (
            Case(Network((LARGE,), (PlantedLinear(LARGE, plant=plant),), MSELoss(reduction="sum")), drawn, "normal", BATCH)
            for plant in (Plant("entry-zeroed", "dweight", index), None)
        )
        yield Trial(wrong, LARGE, number == 0, "entry-zeroed", "layers.0", "dweight", index), Trial(right, LARGE, number == 0)
