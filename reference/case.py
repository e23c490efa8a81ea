"""A case: everything needed to rebuild one run bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backproof.reference.network import Network
from backproof.reference.rounding import precision_named
from backproof.reference.usage import UsageError
from backproof.reference.values import REGIMES, Values, draw

__all__ = ["Case"]

SCHEMA = 1


@dataclass(frozen=True)
class Case:
    """A network with the seed and regime its numbers are drawn from, a batch size and a precision."""

    network: Network
    seed: int
    regime: str = "normal"
    batch: int = 4
    precision: str = "float64"

    def __post_init__(self) -> None:
        precision_named(self.precision)
        if self.regime not in REGIMES:
            raise UsageError(f"unknown regime: got {self.regime!r}, expected one of {', '.join(REGIMES)}")
        if self.batch < 1:
            raise UsageError(f"a case needs a batch of at least 1: got {self.batch}")
        if self.seed < 0:
            raise UsageError(f"a case needs a seed of at least 0: got {self.seed}")

    def __str__(self) -> str:
        network = self.network
        layers = " -> ".join(str(layer) for layer in (*network.layers, network.head))
        return f"input {network.input_shape} -> {layers}, batch {self.batch}, regime {self.regime}, seed {self.seed}"

    def values(self) -> Values:
        """Return the arrays of this case, in its precision."""
        return draw(self.network, self.seed, self.regime, self.batch, precision_named(self.precision))

    def describe(self) -> dict[str, Any]:
        """Return the case as JSON-ready data."""
        return {"schema": SCHEMA, "network": self.network.describe(), "seed": self.seed, "regime": self.regime,
                "batch": self.batch, "precision": self.precision}

    def to_json(self) -> str:
        return json.dumps(self.describe(), indent=2)

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> Case:
        """Return the case that `describe` described; raise ValueError for data that describes none."""
        if not isinstance(data, Mapping) or "network" not in data:
            raise UsageError("a case is an object with network, seed, regime, batch and precision: this is none")
        if data.get("schema") != SCHEMA:
            raise UsageError(f"unknown case schema: got {data.get('schema')!r}, expected {SCHEMA}")
        try:
            return cls(Network.build(data["network"]), int(data["seed"]), data["regime"], int(data["batch"]), data["precision"])
        except KeyError as error:
            raise UsageError(f"a case needs {error}: it is missing") from error
        except TypeError as error:
            raise UsageError(f"a case holds a value of the wrong type: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Return the case written by `to_json`; raise ValueError for anything else."""
        return cls.build(json.loads(text))
