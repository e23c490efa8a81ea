"""What is learned of a candidate without a rule: its forward in float64, the derivatives of that, and what rounding moves."""

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
from backproof.truth.pairing import Pairing, Truth, nudged
from backproof.truth.random_rounding import error_size
from backproof.wording import said

__all__ = ["Found", "Moves", "Source"]

DRAWS = 8  # of the rounding of a candidate

Moves = dict[Any, float]


class Source:
    """The function behind a stand-in layer, as `run(call)` evaluates it, and everything that its calls taught."""

    def __init__(self, run: Callable[[Call], Answer]) -> None:
        self.run = run
        self.refused: dict[str, str] = {}
        self.used: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.reasons: dict[tuple[str, str], str] = {}
        self.shapes: dict[tuple[Shape, ...], Any] = {}
        self.single: dict[tuple[Shape, ...], str] = {}
        self.found: OrderedDict[Any, Found] = OrderedDict()


class Found:
    """What is known of one call: the forward in float64, its derivatives, and by precision what rounding moves."""

    def __init__(self, source: Source, call: Call) -> None:
        self.source, self.call = source, call
        self.pairing = Pairing(source.run, call, source.refused)
        self.moved: dict[str, Moves] = {}
        try:
            self.outputs = self.pairing.outputs(self.pairing.z)
        except Exception as error:  # noqa: BLE001  (without a forward in float64 there is no truth: all of it is inconclusive)
            self.outputs = tuple(np.full(dy.shape, np.nan) for dy in call.dys)
            source.failed[said(error)] += 1

    @cached_property
    def truth(self) -> Truth:
        found = self.pairing.truth()
        self.source.used[found.method] += 1
        self.source.reasons |= {(found.method, method): why for method, why in found.reasons.items()}
        return found

    @cached_property
    def kinks(self) -> tuple[np.ndarray, np.ndarray]:
        return self.pairing.kinks(self.truth)

    def moves(self, precision: Precision) -> Moves:
        """Return the most that each output and gradient of the candidate moves by when its numbers are off in their last places."""
        if precision.name not in self.moved:
            self.moved[precision.name] = self._moves(precision)
        return self.moved[precision.name]

    def _moves(self, precision: Precision) -> Moves:
        def nudge(draw: int, size: float) -> Call:
            def off(a: np.ndarray, *, every: bool = False) -> np.ndarray:
                return nudged(a.astype(precision.dtype), draw, size, every=every)

            return replace(self.call, inputs=tuple(map(off, self.call.inputs)), params={k: off(p) for k, p in self.call.params.items()},
                           dys=tuple(off(dy, every=True) for dy in self.call.dys))

        runs = []
        for draw in range(-1, DRAWS):
            try:
                answer = self.source.run(nudge(draw, error_size(precision) if draw >= 0 else 0.0))
            except Exception:  # noqa: BLE001, S112  (said where the candidate is called)
                continue
            runs.append({("output", n): y for n, y in enumerate(answer.outputs)} | dict(enumerate(answer.d_inputs)) | dict(answer.d_params))
        return {key: max((_apart(run.get(key), value) for run in runs[1:]), default=0.0) for key, value in runs[0].items()} if runs else {}


def _apart(a: Any, b: Any) -> float:
    """Return the largest finite difference of two arrays."""
    if a is None or b is None or np.shape(a) != np.shape(b):
        return 0.0
    with quiet():
        off = np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    return float(np.max(off, initial=0.0, where=np.isfinite(off)))
