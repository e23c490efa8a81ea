"""The layers around a layer, whose roundings a compiler that fuses them may have redone."""

from __future__ import annotations

from typing import Any

import numpy as np
from backproof.judge.rules import expected
from backproof.reference.rounding import Arithmetic, Precision, Rounded, either, largest_of
from backproof.reference.trace import Trace

__all__ = ["FUSION_REACH", "Neighbourhood"]

FUSION_REACH = 2  # layers on either side whose roundings a fused kernel may have redone; each further one only loosens the bound


class Neighbourhood:
    """The values between the layers of a trace as a fusing compiler may have rounded them, and what the layers make of those.

    A layer that rounds nothing, such as one that only moves entries about, does not count: what lies behind it is as near as itself.
    Only what the layers were given is looked at: traces that differ in what a layer produced have one neighbourhood. Kinks are hulls.
    """

    def __init__(self, trace: Trace, precision: Precision) -> None:
        self.trace, self.arithmetic = trace, Arithmetic(precision, kinks="hull")
        self.balls: dict[tuple[int, int], dict[str, Rounded]] = {}
        self.before: dict[tuple[str, int], Any] = {}
        self.after: dict[tuple[str, int], Any] = {}
        self.producer = {w: (i, k) for i, wired in enumerate(trace.wires) for k, w in enumerate(wired.outputs)}
        self.consumer = {w: (i, f"d{name}") for i, (step, wired) in enumerate(zip(trace.layers, trace.wires, strict=True))
                         for name, w in (*zip(step.layer.input_names, wired.inputs, strict=True), *wired.params)}

    def expected(self, index: int, reach: int = FUSION_REACH) -> dict[str, Rounded]:
        """Run a layer's rule on x and dy as any rounding of the `reach` layers around it may give them."""
        if (index, reach) not in self.balls:
            self.balls[index, reach] = self._run(index, self.inputs(index, reach), self.upstream(index, reach))
        return self.balls[index, reach]

    def _run(self, index: int, inputs: tuple[Any, ...], upstream: tuple[Any, ...] = ()) -> dict[str, Rounded]:
        return expected(self.trace.layers[index], self.arithmetic, inputs, upstream)

    def _rounds(self, index: int, tensor: str) -> bool:
        """Say whether a layer rounds a tensor."""
        return bool(largest_of(self.expected(index, 0)[tensor].bound))

    def inputs(self, index: int, reach: int) -> tuple[Any, ...]:
        """Return the inputs of a layer as the `reach` layers before it may round them, the recorded ones among them."""
        step, wires = self.trace.layers[index], self.trace.wires[index].inputs
        return tuple(self._input(x, wire, reach) for x, wire in zip(step.inputs, wires, strict=False))

    def _input(self, recorded: np.ndarray, wire: str, reach: int) -> Any:
        if recorded.dtype.kind in "iub":
            return recorded
        if reach == 0 or wire not in self.producer:
            return self.arithmetic.exact(recorded)
        if (wire, reach) not in self.before:
            index, place = self.producer[wire]
            name = self.trace.layers[index].layer.output_names[place]
            balls = self._run(index, self.inputs(index, reach - self._rounds(index, name)))
            self.before[wire, reach] = either(self.arithmetic.exact(recorded), balls[name])
        return self.before[wire, reach]

    def upstream(self, index: int, reach: int) -> tuple[Any, ...]:
        """Return the upstream gradients of a layer as the `reach` layers after it may round them, the recorded ones among them."""
        step, wires = self.trace.layers[index], self.trace.wires[index].outputs
        if not wires:  # the head
            return tuple(self.arithmetic.exact(dy) for dy in step.d_outputs)
        return tuple(self._upstream(dy, wire, reach) for dy, wire in zip(step.d_outputs, wires, strict=True))

    def _upstream(self, recorded: np.ndarray | None, wire: str, reach: int) -> Any:
        if recorded is None:
            return None
        if reach == 0 or wire not in self.consumer:
            return self.arithmetic.exact(recorded)
        if (wire, reach) not in self.after:
            index, tensor = self.consumer[wire]
            balls = self._run(index, self.inputs(index, reach), self.upstream(index, reach - self._rounds(index, tensor)))
            self.after[wire, reach] = either(self.arithmetic.exact(recorded), balls[tensor])
        return self.after[wire, reach]
