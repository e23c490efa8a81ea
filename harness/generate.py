"""The cases of a run: structures drawn by Hypothesis from a seed, and several draws of values through each structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from .reference.case import Case
from .reference.network import Network
from .reference.values import REGIMES
from .strategies import batches, networks

__all__ = ["DRAWS", "generate", "structures"]

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
    @given(networks(families).flatmap(lambda network: st.tuples(st.just(network), batches(network))))
    def collect(structure: tuple[Network, int]) -> None:
        drawn.append(Structure(*structure))

    collect()
    return drawn


def structures(cases: int | None, seed: int, families: Sequence[str] | None = None) -> Iterator[tuple[Case, ...]]:
    """Yield the cases of a run, structure by structure (without end for None): the same ones for the same seed, whatever runs them."""
    regimes = tuple(REGIMES)
    wanted = None if cases is None else -(-cases // DRAWS)  # so that no block is drawn for nothing
    for index, structure in enumerate(islice(chain.from_iterable(_block(seed, block, families) for block in count()), wanted)):
        numbers = range(index * DRAWS, (index + 1) * DRAWS if cases is None else min((index + 1) * DRAWS, cases))
        # regimes take turns, so that every eight cases hold each of them once
        yield tuple(Case(structure.network, int(np.random.default_rng((seed, n)).integers(2**32)), regimes[n % len(regimes)],
                         structure.batch) for n in numbers)  # fmt: skip


def generate(cases: int | None, seed: int, families: Sequence[str] | None = None) -> Iterator[Case]:
    """Yield the cases of a run one by one, in float64."""
    return chain.from_iterable(structures(cases, seed, families))
