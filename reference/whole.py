"""A whole network as one layer of two inputs, x and the target, whose output is the loss: the truth for what computes all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from backproof.reference.layer import Backward, Constant, Layer, Params, Shape
from backproof.reference.network import Network
from backproof.reference.rounding import Array

__all__ = ["WholeNetwork", "spread"]


@dataclass(frozen=True)
class WholeNetwork(Layer):
    """A network with its head: forward(params, x, target) -> loss; parameters bear their wires' names, such as `layers.0.weight`.

    A loss of the whole batch is spread over its examples: each of them has it as its output, and their upstream gradients add up.
    """

    network: Network
    input_names: ClassVar[tuple[str, ...]] = ("x", "target")

    def parameters(self, *shapes: Any, **_: Any) -> dict[str, Shape]:
        return dict(self.network.graph.parameters)

    def constants(self, *shapes: Any, **_: Any) -> dict[str, Constant]:
        return dict(self.network.graph.constants)

    def index_below(self) -> tuple[int | None, ...]:
        """Return what stands for `no gradient` at the target."""
        return self.network.graph.indices.get("x"), 1

    def output_shape(self, *shapes: Any, **_: Any) -> Any:
        return self.network.head.loss_shape((1, *self.network.output_shape))[1:]

    @property
    def shapes(self) -> tuple[Shape, Shape]:
        """The shapes of x and the target, batch axis left out."""
        return self.network.input_shape, self.network.head.target_shape((1, *self.network.output_shape))[1:]

    def forward(self, params: Params, *inputs: Any, **_: Any) -> tuple[Any, Backward]:
        x, target = inputs
        wires, run_back = self.network.graph.run({"x": x, **params})
        loss, head_backward = self.network.head.forward({}, wires[self.network.output], target)
        single = loss.ndim == 0

        def backward(dy: Array) -> tuple[Any, dict[str, Array]]:
            found = run_back({self.network.output: head_backward(np.sum(dy) if single else dy)})
            return (found.get("x"), None), {w: found[w] for w in self.network.graph.parameters}

        return (loss + np.zeros(len(x)) if single else loss), backward

    def __str__(self) -> str:
        return " -> ".join(str(layer) for layer in (*self.network.layers, self.network.head))


def spread(candidate: Callable[..., Any]) -> Callable[..., Any]:
    """Return a candidate, as `(x, target, **params) -> loss`, with a loss of the whole batch spread over its examples, as truths do."""

    def called(x: Any, *others: Any, **params: Any) -> Any:
        found = candidate(x, *others, **params)
        if isinstance(found, tuple) and len(found) == 2 and callable(found[1]):
            loss, backward = found
            if np.ndim(loss):
                return found
            return np.broadcast_to(loss, len(x)), lambda dy: _times(backward(), dy.sum())
        return found if getattr(found, "ndim", 1) else found * _ones(x, found)

    return called


def _ones(x: Any, loss: Any) -> Any:
    """Return a one for every example, of the kind that the loss is."""
    flat = x.reshape((x.shape[0], -1))[:, :0].sum(1)
    return (flat + 1).to(loss.dtype) if hasattr(flat, "to") else (flat + 1).astype(loss.dtype)


def _times(found: Any, factor: Any) -> Any:
    """Return the gradients of a loss, of its input alone or of the parameters too, times its upstream gradient."""
    if not isinstance(found, tuple):
        return found * factor
    dx, d_params = found
    return (None if dx is None else dx * factor), {name: d * factor for name, d in d_params.items()}
