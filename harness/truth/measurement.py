"""What is measured of a function without a rule: its outputs in float64, their derivatives, and how much rounding changes them.

How much is how far outputs and gradients of the function move when its inputs are perturbed in their last places, in the precision in
which it is judged. Each run rounds anew, so that also what the function's own operations lose is in it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from backproof.adapters.calls import Answer, Call
from backproof.reference.layer import Shape
from backproof.reference.rounding import Precision, quiet
from backproof.truth.pairing import Pairing
from backproof.truth.random_rounding import error_size, nudged
from backproof.truth.scalar_function import Truth
from backproof.wording import said

__all__ = ["MeasuredCall", "MeasuredForward"]

DRAWS = 8  # perturbations of a call

Changes = dict[Any, float]
"""The largest change of each tensor: ("output", n), the place of an input or the name of a parameter for its gradient."""


class MeasuredForward:
    """A function without a rule, which `run(call)` evaluates, and everything that its calls have taught."""

    def __init__(self, run: Callable[[Call], Answer]) -> None:
        self.run = run
        self.refused: dict[str, str] = {}
        """The methods of differentiation that the function does not take, with the reasons."""
        self.used: Counter[str] = Counter()
        """The methods that gave a truth, with the numbers of calls."""
        self.reasons: dict[tuple[str, str], str] = {}
        """Why a better method was not used, by the method used and the better one."""
        self.failed: Counter[str] = Counter()
        """What the function raised in float64."""
        self.shapes: dict[tuple[Shape, ...], Any] = {}
        """By the shapes of inputs the shapes of outputs, or the error as text."""
        self.single: dict[tuple[Shape, ...], str] = {}
        """By the shapes of inputs what the function raises for a batch of one example, empty where it takes one."""
        self.recent: OrderedDict[Any, MeasuredCall] = OrderedDict()


class MeasuredCall:
    """What is known of one call: the outputs in float64, their derivatives, and by precision how much rounding changes them."""

    def __init__(self, function: MeasuredForward, call: Call) -> None:
        self.function, self.call = function, call
        self.pairing = Pairing(function.run, call, function.refused)
        self._changes: dict[str, Changes] = {}
        try:
            self.outputs = self.pairing.outputs(self.pairing.z)
        except Exception as error:  # noqa: BLE001  (without a forward in float64 there is no truth: all of it is inconclusive)
            self.outputs = tuple(np.full(dy.shape, np.nan) for dy in call.dys)
            function.failed[said(error)] += 1

    @cached_property
    def truth(self) -> Truth:
        truth = self.pairing.truth()
        self.function.used[truth.method] += 1
        self.function.reasons |= {(truth.method, method): why for method, why in truth.reasons.items()}
        return truth

    @cached_property
    def kinks(self) -> tuple[np.ndarray, np.ndarray]:
        return self.pairing.kinks(self.truth)

    def changes(self, precision: Precision) -> Changes:
        """Return how much each output and gradient changes at most when the inputs are perturbed by rounding in a precision."""
        if precision.name not in self._changes:
            self._changes[precision.name] = self._measured(precision)
        return self._changes[precision.name]

    def _measured(self, precision: Precision) -> Changes:
        runs = []
        for draw in range(-1, DRAWS):  # the first without a perturbation
            try:
                answer = self.function.run(self._perturbed(precision, draw, error_size(precision) if draw >= 0 else 0.0))
            except Exception:  # noqa: BLE001, S112  (said where the candidate is called)
                continue
            outputs = {("output", n): y for n, y in enumerate(answer.outputs)}
            runs.append(outputs | dict(enumerate(answer.d_inputs)) | dict(answer.d_params))
        if not runs:
            return {}
        return {key: max((_largest_difference(run.get(key), value) for run in runs[1:]), default=0.0) for key, value in runs[0].items()}

    def _perturbed(self, precision: Precision, draw: int, size: float) -> Call:
        def off(a: np.ndarray, *, every: bool = False) -> np.ndarray:
            return nudged(a.astype(precision.dtype), draw, size, every=every)

        params = {name: off(p) for name, p in self.call.params.items()}
        return replace(self.call, inputs=tuple(map(off, self.call.inputs)), params=params,
                       dys=tuple(off(dy, every=True) for dy in self.call.dys))


def _largest_difference(a: Any, b: Any) -> float:
    """Return the largest finite difference of two arrays."""
    if a is None or b is None or np.shape(a) != np.shape(b):
        return 0.0
    with quiet():
        off = np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    return float(np.max(off, initial=0.0, where=np.isfinite(off)))
