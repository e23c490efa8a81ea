"""A network: input shape, layers, head. It only says what is computed; adapters and the reference do the computing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import activations, heads, linear  # noqa: F401  (enrol the layers)
from .layer import Layer, Shape, build, describe
from .rounding import Array
from .trace import Trace

__all__ = ["Network"]

NetworkParams = Mapping[str, Mapping[str, Array]]
"""Parameters of every layer by its path, then by name."""


@dataclass(frozen=True)
class Network:
    """Layers in sequence between an input of shape (batch, *input_shape) and a head. Immutable and hashable."""

    input_shape: Shape
    layers: tuple[Layer, ...]
    head: Any

    def __post_init__(self) -> None:
        self.head.check_shape(self.shapes[-1])

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape that flows into each layer and, last, into the head; raises ShapeError where they do not fit."""
        shapes = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return tuple(shapes)

    def paths(self) -> Iterator[tuple[str, Layer, Shape]]:
        """Yield path, layer and input shape in forward order, the head left out."""
        for index, layer in enumerate(self.layers):
            yield f"layers.{index}", layer, self.shapes[index]

    def parameters(self) -> dict[str, dict[str, Shape]]:
        """Return the shape of every parameter, by path and name."""
        return {path: layer.parameters(shape) for path, layer, shape in self.paths()}

    def run(self, params: NetworkParams, x: Array, target: Array, upstream: Array = 1.0) -> Trace:
        """Run forward and backward by the hand-derived rules, on whatever kind of array comes in."""
        outputs, backwards = [], []
        y = x
        for path, layer, _ in self.paths():
            y, backward = layer.forward(params[path], y)
            outputs.append(y)
            backwards.append((path, backward))
        loss, head_backward = self.head.forward({}, y, target)
        dy = head_backward(upstream)
        d_outputs, d_params = [], {}
        for path, backward in reversed(backwards):
            d_outputs.append(dy)
            dy, d_params[path] = backward(dy)
        return Trace.assemble(self, x=x, params=params, target=target, upstream=upstream, loss=loss, outputs=outputs,
                              d_outputs=d_outputs[::-1], dx=dy, d_params=d_params)  # fmt: skip

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
            raise ValueError(f"a network is an object with input_shape, layers and head: missing {error}") from error
        return cls(tuple(int(n) for n in shape), tuple(build(layer) for layer in layers), build(head))
