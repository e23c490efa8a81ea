"""What one run of a case produced: the numbers of every layer, in the framework's own precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from backproof.reference.network import Network

__all__ = ["HEAD_PATH", "LayerTrace", "Trace", "Wired"]

HEAD_PATH = "head"


@dataclass(frozen=True)
class LayerTrace:
    """One layer (or the head) of a run: what went in, what came out, and both ways.

    `inputs` and `d_inputs` are tuples, one array per input (None for the gradient of whole numbers); a head has the inputs
    `(z, target)` and the d_inputs `(dz,)`, its `output` is the loss and its `d_output` the upstream gradient. A layer of several
    outputs has tuples for `output` and `d_output`. `params` hold the constants too, `d_params` do not.
    """

    path: str
    layer: Any
    inputs: tuple[np.ndarray, ...]
    output: Any
    d_inputs: tuple[Any, ...]
    d_output: Any
    params: Mapping[str, np.ndarray]
    d_params: Mapping[str, np.ndarray]

    @property
    def outputs(self) -> tuple[np.ndarray, ...]:
        """The outputs as a tuple, also where there is one."""
        return self.output if isinstance(self.output, tuple) else (self.output,)

    @property
    def d_outputs(self) -> tuple[np.ndarray, ...]:
        """The upstream gradients as a tuple, also where there is one."""
        return self.d_output if isinstance(self.d_output, tuple) else (self.d_output,)

    @property
    def upstream_names(self) -> tuple[str, ...]:
        """What the upstream gradients are called in scripts and files: `dy` where there is one, else `d` and the output's name."""
        return ("dy",) if len(self.d_outputs) == 1 else tuple(f"d{name}" for name in self.layer.output_names)


class Wired(NamedTuple):
    """The names of the values that a layer took and gave, and of its parameters by the name that it knows them by."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Trace:
    """A whole run: the loss, and one `LayerTrace` per layer and one for the head, in forward order.

    `wires` names the values between the layers, for each layer and the head.
    """

    loss: np.ndarray
    layers: tuple[LayerTrace, ...]
    wires: tuple[Wired, ...] = ()

    @classmethod
    def assemble(cls, network: Network, *, wires: Mapping[str, Any], gradients: Mapping[str, Any], target: Any, upstream: Any,
                 loss: Any) -> Trace:
        """Return the trace of a run from what a framework hands back: the array of every wire, and its gradient where it has one."""

        def one(items: tuple[Any, ...]) -> Any:
            return items if len(items) > 1 else items[0]

        def of(table: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
            return tuple(table.get(name) for name in names)

        def trained(params: tuple[tuple[str, str], ...]) -> dict[str, Any]:
            return {name: gradients.get(w) for name, w in params if w not in network.graph.constants}

        steps = [LayerTrace(step.path, step.layer, of(wires, step.inputs), one(of(wires, step.outputs)), of(gradients, step.inputs),
                            one(of(gradients, step.outputs)), {name: wires[w] for name, w in step.params},
                            trained(step.params)) for step in network.steps]
        z = network.output
        head = LayerTrace(HEAD_PATH, network.head, (wires[z], target), loss, (gradients.get(z),), upstream, {}, {})
        wired = (Wired(step.inputs, step.outputs, step.params) for step in network.steps)
        return cls(loss, (*steps, head), (*wired, Wired((z,), ())))
