"""What a mistake in a backward is, and how a faulty rule becomes one.

One table serves twice: `plant` puts a mistake into a real trace to test the run itself, and `diagnose` asks which mistake reproduces the
numbers of a finding. A mistake calls a layer's rule on altered arrays, or a faulty copy of the rule, so it works in plain and in rounded
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from backproof.reference.layer import Backward, Layer, Params
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace

__all__ = ["Faulty", "FaultyRule", "Mistake", "RunRule", "Tensors", "faulty", "with_gradients"]

RunRule = Callable[[LayerTrace], dict[str, Array]]
"""What a layer's rule produces for a step, by tensor name, in some arithmetic."""


@dataclass(frozen=True)
class Mistake:
    """`wrong(step, tensor, rule)` is the tensor as the mistake makes it, or None where the mistake has no meaning.

    `of` are the layers and heads that it may be in.
    """

    code: str
    sentence: str
    wrong: Callable[[LayerTrace, str, RunRule], Array | None]
    of: type | tuple[type, ...] = object


FaultyRule = Callable[..., tuple[Any, Backward]]
"""A wrong version of a layer's `forward`: it takes the layer, its parameters and inputs, and returns `(y, backward)`."""


@dataclass(frozen=True)
class Faulty(Layer):
    """A layer whose rule is another, wrong one: shapes, parameters and names are the layer's own."""

    layer: Any
    faulty_rule: FaultyRule

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.layer.input_names

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.layer.output_names

    def parameters(self, *shapes: Any) -> Any:
        return self.layer.parameters(*shapes)

    def constants(self, *shapes: Any) -> Any:
        return self.layer.constants(*shapes)

    def fixed(self, *shapes: Any) -> Any:
        return self.layer.fixed(*shapes)

    def index_below(self) -> tuple[int | None, ...]:
        return self.layer.index_below()

    def output_shape(self, *shapes: Any) -> Any:
        return self.layer.output_shape(*shapes)

    def forward(self, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        return self.faulty_rule(self.layer, params, *inputs)


def with_gradients(gradients: Callable[[Any, tuple[Array, ...], Any], Any]) -> FaultyRule:
    """Return a layer's rule with other input gradients: of the layer, its inputs, and dy (a tuple where there are several)."""

    def rule(layer: Any, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        return layer.forward(params, *inputs)[0], lambda *dys: (gradients(layer, inputs, dys if len(dys) > 1 else dys[0]), {})

    return rule


Tensors = Collection[str] | Callable[[LayerTrace], Collection[str]]
"""The names of the tensors that a mistake changes, or how they follow from a step: its options and shapes."""


def faulty(code: str, sentence: str, of: type | tuple[type, ...], tensors: Tensors, rule: FaultyRule) -> Mistake:
    """Return the mistake of a faulty rule in the named tensors of some layers; elsewhere it has no meaning."""

    def wrong(step: LayerTrace, tensor: str, right: RunRule) -> Array | None:
        if not isinstance(step.layer, of) or tensor not in (tensors(step) if callable(tensors) else tensors):
            return None
        return right(replace(step, layer=Faulty(step.layer, rule)))[tensor]

    return Mistake(code, sentence, wrong, of)
