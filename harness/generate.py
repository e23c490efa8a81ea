"""The cases of a run: structures drawn by Hypothesis from a seed, and several draws of values through each structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from .reference.case import Case
from .reference.network import Network
from .reference.values import REGIMES
from .strategies import BATCHES, networks

__all__ = ["DRAWS", "generate"]

DRAWS = 4  # draws of values through one structure, which a compiling framework compiles once
BLOCK = 32  # structures drawn by one run of Hypothesis, so that memory does not grow with the number of cases


@dataclass(frozen=True)
class Structure:
    network: Network
    batch: int


def _block(seed: int, block: int, families: Sequence[str] | None) -> list[Structure]:
    drawn: list[Structure] = []

    @hypothesis_seed(int(np.random.SeedSequence((seed, block)).generate_state(1)[0]))
    @settings(max_examples=BLOCK, database=None, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
    @given(networks(families), st.sampled_from(BATCHES))
    def collect(network: Network, batch: int) -> None:
        drawn.append(Structure(network, batch))

    collect()
    return drawn


def generate(cases: int | None, seed: int, families: Sequence[str] | None = None, precision: str = "float64") -> Iterator[Case]:
    """Yield the cases of a run (without end for None): the same ones for the same seed, whatever runs them."""
    return islice(_endless(seed, families, precision), cases)


def _endless(seed: int, families: Sequence[str] | None, precision: str) -> Iterator[Case]:
    regimes = tuple(REGIMES)
    index = 0
    for block in count():
        for structure in _block(seed, block, families):
            for _ in range(DRAWS):
                # regimes take turns, so that every eight cases hold each of them once
                rng = np.random.default_rng((seed, index))
                yield Case(structure.network, int(rng.integers(2**32)), regimes[index % len(regimes)], structure.batch, precision)
                index += 1
