"""A network: input shape, layers, head. It only says what is computed; adapters and the reference do the computing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from backproof.reference import library  # noqa: F401  (enrols the layers)
from backproof.reference.graph import Graph, Step, by_path, by_wire
from backproof.reference.layer import Constant, Layer, Shape, ShapeError, build, describe
from backproof.reference.rounding import Array
from backproof.reference.trace import Trace
from backproof.reference.usage import UsageError

__all__ = ["Network"]


@dataclass(frozen=True)
class Network:
    """Layers in sequence between an input of shape (batch, *input_shape) and a head. Immutable and hashable.

    Containers among the layers branch, repeat and share; `graph` is the network unrolled to single layers.
    """

    input_shape: Shape
    layers: tuple[Layer, ...]
    head: Any

    def __post_init__(self) -> None:
        self.head.check_shape(self.output_shape)

    @cached_property
    def graph(self) -> Graph:
        """The network as single steps between wires; raises ShapeError where the shapes do not fit."""
        return Graph.of(((f"layers.{i}", layer) for i, layer in enumerate(self.layers)), {"x": self.input_shape})

    @property
    def steps(self) -> list[Step]:
        """What is done, in forward order, the head left out."""
        return self.graph.steps

    @property
    def output(self) -> str:
        """The wire that goes into the head; raises ShapeError where the last layer leaves several."""
        outputs = self.graph.outputs
        if len(outputs) != 1:
            shapes = tuple(self.graph.shapes[w] for w in outputs)
            raise ShapeError(self.head, shapes, "one output of the last layer")
        return outputs[0]

    @property
    def output_shape(self) -> Shape:
        return self.graph.shapes[self.output]

    @property
    def shapes(self) -> tuple[tuple[Shape, ...], ...]:
        """The shapes that flow into each layer and, last, into the head: one for each array."""
        return tuple(tuple(self.graph.shapes[w] for w in wires) for wires in self.graph.stages)

    def parameters(self) -> dict[str, dict[str, Shape]]:
        """Return the shape of every parameter, by the path it belongs to and its name."""
        return by_path(self.graph.parameters)

    def constants(self) -> dict[str, dict[str, Constant]]:
        """Return what the layers take without a gradient, by path and name."""
        return by_path(self.graph.constants)

    def run(self, params: Mapping[str, Mapping[str, Array]], x: Array, target: Array, upstream: Array = 1.0) -> Trace:
        """Run forward and backward by the hand-derived rules, on whatever kind of array comes in; `params` hold the constants too."""
        wires, backward = self.graph.run({"x": x, **by_wire(params)})
        loss, head_backward = self.head.forward({}, wires[self.output], target)
        gradients = backward({self.output: head_backward(upstream)})
        return Trace.assemble(self, wires=wires, gradients=gradients, target=target, upstream=upstream, loss=loss)

    def describe(self) -> dict[str, Any]:
        """Return the network as JSON-ready data."""
        return {"input_shape": list(self.input_shape), "layers": [describe(layer) for layer in self.layers],
                "head": describe(self.head)}

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> Network:
        """Return the network that `describe` described; raise ValueError for data that describes none."""
        try:
            shape, layers, head = data["input_shape"], data["layers"], data["head"]
        except (KeyError, TypeError) as error:
            raise UsageError(f"a network is an object with input_shape, layers and head: missing {error}") from error
        return cls(tuple(int(n) for n in shape), tuple(build(layer) for layer in layers), build(head))
