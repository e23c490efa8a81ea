"""The contract every layer keeps, and the way a layer turns into JSON and back.

A layer is a frozen dataclass whose fields are its configuration. Its rule is one method, `forward`, which returns the output
and a closure, `backward`, that holds the cache. Shapes are given without the batch axis, which is always the first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from .rounding import Array

__all__ = ["Elementwise", "Layer", "Params", "Shape", "ShapeError", "build", "describe", "register"]

Shape = tuple[int, ...]
Params = Mapping[str, Array]
Backward = Callable[[Array], tuple[Array, dict[str, Array]]]


class ShapeError(ValueError):
    """An input shape that a layer cannot take. Carries `.layer` and `.shape`."""

    def __init__(self, layer: Any, shape: Shape, expected: str) -> None:
        super().__init__(f"{layer}: wrong input shape: got {shape}, expected {expected} (batch axis left out)")
        self.layer, self.shape = layer, shape


@dataclass(frozen=True)
class Layer(ABC):
    """A differentiable map with parameters, and its hand-derived backward rule."""

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return the shape of every parameter by name, for an input of this shape."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output; raise ShapeError for an input the layer cannot take."""
        return shape

    def kinks(self, params: Params) -> tuple[float, ...]:
        """Return the input values at which the layer has no derivative."""
        return ()

    @abstractmethod
    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        """Return `y` and `backward(dy) -> (dx, dparams)`."""


@dataclass(frozen=True)
class Elementwise(Layer):
    """A layer whose output entries depend on one input entry each."""


REGISTRY: dict[str, type] = {}


def register(cls: type) -> type:
    """Enrol a layer or head under its class name; a second class of that name is an error."""
    if cls.__name__ in REGISTRY:
        raise ValueError(f"a layer named {cls.__name__} is registered already: {REGISTRY[cls.__name__]!r}")
    REGISTRY[cls.__name__] = cls
    return cls


def describe(item: Any) -> dict[str, Any]:
    """Return a layer or head as JSON-ready data: its class name and its fields."""
    return {"type": type(item).__name__} | {f.name: getattr(item, f.name) for f in fields(item)}


def build(data: Mapping[str, Any]) -> Any:
    """Return the layer or head that `describe` described; raise ValueError for data that names none."""
    if not isinstance(data, Mapping):
        raise ValueError(f"a layer is described by an object with a type: got {data!r}")  # noqa: TRY004  (unreadable input)
    name = data.get("type")
    if name not in REGISTRY:
        raise ValueError(f"unknown layer: got {name!r}, expected one of {', '.join(sorted(REGISTRY))}")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "type"}
    try:
        return REGISTRY[name](**options)
    except TypeError as error:
        raise ValueError(f"{name}: wrong options: got {options}: {error}") from error
