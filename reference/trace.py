"""What one run of a case produced: the numbers of every layer, in the framework's own precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .network import Network

__all__ = ["HEAD_PATH", "LayerTrace", "Trace"]

HEAD_PATH = "head"


@dataclass(frozen=True)
class LayerTrace:
    """One layer (or the head) of a run: what went in, what came out, and both ways.

    `inputs` and `d_inputs` are tuples, one array per input; a head has the inputs `(z, target)` and the d_inputs `(dz,)`,
    its `output` is the loss and its `d_output` the upstream gradient, both of shape ().
    """

    path: str
    layer: Any
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray
    d_inputs: tuple[np.ndarray, ...]
    d_output: np.ndarray
    params: Mapping[str, np.ndarray]
    d_params: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trace:
    """A whole run: the loss, and one `LayerTrace` per layer and one for the head, in forward order."""

    loss: np.ndarray
    layers: tuple[LayerTrace, ...]

    @classmethod
    def assemble(cls, network: Network, *, x: Any, params: Mapping[str, Mapping[str, Any]], target: Any, upstream: Any, loss: Any,
                 outputs: Sequence[Any], d_outputs: Sequence[Any], dx: Any,
                 d_params: Mapping[str, Mapping[str, Any]]) -> Trace:  # fmt: skip
        """Return the trace of a sequential run from what a framework hands back: one output and its gradient per layer."""
        inputs, d_inputs = [x, *outputs], [dx, *d_outputs]
        steps = [LayerTrace(path, layer, (inputs[i],), outputs[i], (d_inputs[i],), d_outputs[i], params[path], d_params[path])
                 for i, (path, layer, _) in enumerate(network.paths())]  # fmt: skip
        head = LayerTrace(HEAD_PATH, network.head, (inputs[-1], target), loss, (d_inputs[-1],), upstream, {}, {})
        return cls(loss, (*steps, head))
