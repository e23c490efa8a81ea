"""The cases of a run: structures drawn by Hypothesis from a seed, and several draws of values through each structure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from math import inf
from typing import Any, Protocol

import numpy as np
from backproof.draw.coverage import Coverage
from backproof.draw.strategies import HEADS, batches, checked, networks
from backproof.reference.case import Case
from backproof.reference.network import Network
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from platformdirs import user_cache_path

__all__ = ["BLOCK", "DRAWS", "Drawing", "Later", "generate", "structures"]

DRAWS = 4  # draws of values through one structure, which a compiling framework compiles once
BLOCK = 32  # structures drawn together: half of them as they come, half turned to what was reached least
AHEAD = 2  # blocks drawn before the one in use, so that workers draw while others examine
RARE_LAYERS, RARE_HEADS = 8, 3  # how many that half turns to


@dataclass(frozen=True)
class Structure:
    network: Network
    batch: int


class Drawn(Protocol):
    """What a block will be."""

    def result(self) -> list[Structure]: ...


Submit = Callable[..., Drawn]
"""Has a function called with its arguments, here or elsewhere."""


def draw_block(seed: int, block: int, families: Sequence[str] | None, rare: Sequence[str]) -> list[Structure]:
    """Draw the structures of a block: the same ones for the same arguments, whatever process does it.

    The rare layers take turns, each with any of the rare heads.
    """
    wide = _drawn((seed, block, 0), networks(families), BLOCK // 2)
    layers, heads = [name for name in rare if name not in HEADS], [name for name in rare if name in HEADS]
    each = -(-BLOCK // 2 // len(layers))
    turns = [_drawn((seed, block, 1, n), networks(families, rare=[name, *heads]), each) for n, name in enumerate(layers)]
    turned = chain.from_iterable(zip(*turns, strict=True))
    return list(chain.from_iterable(zip(wide, turned, strict=False)))


def _drawn(seed: tuple[int, ...], strategy: st.SearchStrategy[Network], count: int) -> list[Structure]:
    """Draw some structures; a strategy with fewer than that gives them in turn.

    The first example is always the simplest one there is, which is left out where there are others.
    """
    drawn: list[Structure] = []

    @hypothesis_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    @settings(max_examples=count + 1, database=None, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy.flatmap(lambda network: st.tuples(st.just(network), batches(network))))
    def collect(structure: tuple[Network, int]) -> None:
        drawn.append(Structure(*structure))

    # Hypothesis keeps what it learns of the sources; that belongs into no folder of the caller's
    set_hypothesis_home_dir(user_cache_path("backproof") / "hypothesis")
    try:
        collect()
    finally:
        set_hypothesis_home_dir(None)
    return list(islice(cycle(drawn[1:] or drawn), count))


class Drawing:
    """The structures of a run, in order and without end: the same ones for the same seed, whatever draws them and wherever it broke off.

    What a block turns to follows from the blocks before the last `AHEAD`, so that those can be drawn while others are examined.
    """

    def __init__(self, seed: int, families: Sequence[str] | None = None, state: Mapping[str, Any] | None = None) -> None:
        self.seed, self.families = seed, families
        self.coverage = Coverage()
        self.block = 0
        self.rare: list[list[str]] = []
        if state is not None:
            self.block, self.rare = state["block"], state["rare"]
            self.coverage.restore(state["coverage"])

    def _rarest(self) -> list[str]:
        return [*self.coverage.rarest(checked(self.families), RARE_LAYERS), *self.coverage.rarest(HEADS, RARE_HEADS)]

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on with the block that comes next, as JSON-ready data."""
        return {"block": self.block, "rare": [list(names) for names in self.rare], "coverage": self.coverage.describe()}

    def structures(self, submit: Submit, blocks: int | None = None) -> Iterator[tuple[int, dict[str, Any] | None, tuple[Case, ...]]]:
        """Yield the number of each structure, at the first of a block the state from which it can be drawn again, and the cases.

        `submit` runs a function here or elsewhere; `blocks` is how many are needed at most.
        """
        waiting: deque[Drawn] = deque()
        last = inf if blocks is None else blocks
        while self.block < last:
            while len(self.rare) <= AHEAD:
                self.rare.append(self._rarest())
            while len(waiting) <= AHEAD and self.block + len(waiting) < last:
                number = len(waiting)
                waiting.append(submit(draw_block, self.seed, self.block + number, self.families, self.rare[number]))
            state, first = self.state(), self.block * BLOCK
            drawn = waiting.popleft().result()
            for structure in drawn:
                self.coverage.count(structure.network)
            self.block, self.rare = self.block + 1, self.rare[1:]
            for offset, structure in enumerate(drawn):
                yield first + offset, None if offset else state, self._draws(first + offset, structure)

    def _draws(self, index: int, structure: Structure) -> tuple[Case, ...]:
        numbers = range(index * DRAWS, (index + 1) * DRAWS)
        regimes = self.coverage.turn(structure.network, DRAWS)
        return tuple(Case(structure.network, int(np.random.default_rng((self.seed, n)).integers(2**32)), regime, structure.batch)
                     for n, regime in zip(numbers, regimes, strict=True))


class Later:
    """A call that is made when its result is asked for: what `submit` returns where there is no other process."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def done(self) -> bool:
        return False

    def result(self) -> Any:
        return self.function(*self.arguments)


def structures(cases: int | None, seed: int, families: Sequence[str] | None = None) -> Iterator[tuple[Case, ...]]:
    """Yield the cases of a run, structure by structure (without end for None): the same ones for the same seed."""
    wanted = None if cases is None else -(-cases // DRAWS)
    for index, _, drawn in islice(Drawing(seed, families).structures(Later), wanted):
        yield drawn if cases is None else drawn[: cases - index * DRAWS]


def generate(cases: int | None, seed: int, families: Sequence[str] | None = None) -> Iterator[Case]:
    """Yield the cases of a run one by one, in float64."""
    return chain.from_iterable(structures(cases, seed, families))
