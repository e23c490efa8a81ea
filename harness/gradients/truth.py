"""The true derivatives of a loss along directions, by complex step and by extrapolated differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.gradients.model import DRAWS, FailedError, Model, Move
from backproof.reference.layer import Layer
from backproof.reference.rounding import Rounded
from backproof.reference.trace import LayerTrace
from backproof.truth.differences import LONGEST, REFINED, differences
from backproof.truth.exact import NotAnalyticError
from backproof.truth.random_rounding import NoisyStep, Step

__all__ = ["Slopes", "Truth", "stand_in"]

STEP = 2.0**-100  # of the complex step: its error is of the order of its square


@dataclass
class Truth:
    """The derivative by one parameter: the method, why not the other, the entries at some places and what they may be off by."""

    method: str
    reason: str
    values: np.ndarray
    errors: np.ndarray

    @property
    def by_steps(self) -> bool:
        return self.method == "complex step"


class Slopes:
    """Derivatives of a model's loss along directions."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.rng = np.random.default_rng(model.seed)  # one for the whole check
        sizes = {name: float(np.sqrt(np.mean(a * a))) if a.size else 0.0 for name, a in model.exact.items()}
        self.usual = max(sizes.values(), default=0.0) or 1.0
        self.sizes = {name: size or self.usual for name, size in sizes.items()}

    def direction(self, *names: str) -> Move:
        """Return a random direction with no entry near 0, which no wrong entry can hide in."""
        return {name: self.rng.uniform(1, 2, a.shape) * self.rng.choice((-1.0, 1.0), a.shape) for name, a in self.model.exact.items()
                if name in names}

    def step(self, by: Move, point: Mapping[str, np.ndarray] | None = None) -> float:
        """Return the derivative along a direction by complex step. Raises where the loss does not carry it."""
        return self._imaginary(self._stepped(by, Step, point), checked=point is None)

    def step_error(self, by: Move, draws: int = DRAWS) -> float:
        """Return the most that rounding moves the derivative by."""
        lifted = {name: np.asarray(array, dtype=complex) for name, array in self.model.moved(by, 1j * STEP).items()}

        def derivative(parameters: Mapping[str, np.ndarray]) -> float:
            return self._imaginary(self.model.value(parameters), checked=False)

        return self.model.moves(derivative, self.step(by), NoisyStep, lifted, draws)

    def _stepped(self, by: Move, kind: type[Step], point: Mapping[str, np.ndarray] | None) -> Any:
        moved = self.model.moved(by, 1j * STEP, point)
        return self.model.value({name: np.asarray(array, dtype=complex).view(kind) for name, array in moved.items()})

    def _imaginary(self, value: Any, *, checked: bool) -> float:
        if not isinstance(value, complex):
            raise NotAnalyticError("loss takes the real part of its numbers")
        if checked and not abs(value.real - self.model.base) <= self.model.noise:
            raise NotAnalyticError(f"loss is {value.real!r} on complex parameters and {self.model.base!r} on real ones")
        return value.imag / STEP

    def differences(self, moves: list[Move], side: int = 0, *, shrink: float = 1.0, point: Mapping[str, np.ndarray] | None = None,
                    refined: int = REFINED) -> tuple[np.ndarray, np.ndarray]:
        """Return the derivatives along directions by extrapolated differences, and what they may be off by."""
        base = self._real(point or self.model.exact)

        def along(length: np.ndarray, which: np.ndarray) -> np.ndarray:
            pairs = zip(np.ravel(length), np.ravel(np.broadcast_to(which, np.shape(length))), strict=True)
            found = [self._real(self.model.moved(moves[int(k)], t, point)) if t else base for t, k in pairs]
            return np.array(found).reshape(np.shape(length))

        first = np.array([self._first_step(by) for by in moves])
        return differences(along, first, self.model.noise, side, shrink=shrink, refined=refined)

    def _first_step(self, by: Move) -> float:
        """Return a step along a direction that is a part of the usual size of the parameters."""
        longest = max(float(np.sqrt(np.sum(np.square(v)))) for v in by.values())
        return LONGEST * self.usual / longest

    def _real(self, parameters: Mapping[str, np.ndarray]) -> float:
        try:
            value = self.model.value(parameters)
        except (FailedError, TypeError, ValueError):
            return math.nan
        return float(value.real)


@dataclass(frozen=True, eq=False)
class Handwritten(Layer):
    """The stand-in for a model whose rule is not known, only the true gradient of one parameter."""

    name: str = ""
    ball: Any = None

    def forward(self, params: Any, *inputs: Any, **_: Any) -> tuple[Any, Any]:
        return inputs[0], lambda dy: (inputs[0], {self.name: self.ball})


def stand_in(model: Model, name: str, ball: Rounded) -> LayerTrace:
    """Return a step whose rule is the truth, for what compares and explains the steps of layers."""
    one, two = np.zeros(1), np.zeros(2)
    return LayerTrace(model.path, Handwritten(name, ball), (one,), two, (one,), two, {}, {})
