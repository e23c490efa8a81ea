"""Layers made of layers: in sequence, around a shortcut, side by side, and with shared parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from backproof.reference.graph import Container, Place, Wires
from backproof.reference.layer import Example, Layer, ShapeError, register
from backproof.reference.linear import Linear
from backproof.reference.smooth import Tanh
from backproof.reference.wiring import Add, Concatenate, Multiply

__all__ = ["Parallel", "Residual", "Sequential", "Shared"]


@register
@dataclass(frozen=True)
class Sequential(Container):
    """Layers one after the other; what one hands out, one array or several, the next takes.

    Formula       y = f_n(... f_2(f_1(x)))
    Chain rule    dx = J_1^T ... J_n^T dy, from the last layer to the first
    Shapes        as the layers have them.
    Kinks         those of the layers.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 6.5.2.
    """

    layers: tuple[Layer, ...]

    def wire(self, place: Place, inputs: Wires) -> Wires:
        for index, layer in enumerate(self.layers):
            inputs = place.inside(str(index), layer, inputs)
        return inputs

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls((Linear(2), Tanh(), Linear(1))), (3,)
        yield cls((Parallel((Linear(2), Tanh())), Concatenate())), (2,)
        yield cls(()), (2,)


@register
@dataclass(frozen=True)
class Residual(Container):
    """A layer with a shortcut around it (He, Zhang, Ren, Sun, CVPR 2016, equation 1).

    Formula       y = x + f(x)
    Chain rule    dx = dy + J_f^T dy
    Shapes        x, y and f(x) (batch, ...); f(x) may be spread over x, or x over f(x).
    Kinks         those of the layer.
    Source        He, Zhang, Ren, Sun, *Identity Mappings in Deep Residual Networks*, ECCV 2016, equation 5.
    """

    layer: Layer

    def wire(self, place: Place, inputs: Wires) -> Wires:
        return place.inside("add", Add(), (*inputs, *place.inside("layer", self.layer, inputs)))

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(Linear(2)), (3, 2)
        yield cls(Residual(Tanh())), (2,)


@register
@dataclass(frozen=True)
class Parallel(Container):
    """Branches side by side, with as many outputs; one input goes to all of them, several inputs go to one each.

    Formula       y_i = f_i(x), or f_i(x_i)
    Chain rule    dx = sum_i J_i^T dy_i, or dx_i = J_i^T dy_i
    Shapes        as the branches have them; a layer of several inputs, such as Add or Concatenate, takes the outputs.
    Kinks         those of the branches.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 6.5.2: the sum over all paths.
    """

    branches: tuple[Layer, ...]

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError("Parallel: no branches: got none, expected at least one layer")

    def wire(self, place: Place, inputs: Wires) -> Wires:
        fed = (inputs,) * len(self.branches) if len(inputs) == 1 else tuple((w,) for w in inputs)
        if len(fed) != len(self.branches):
            shapes = tuple(place.graph.shapes[w] for w in inputs)
            raise ShapeError(self, shapes, f"one input or {len(self.branches)}, one for each branch")
        return tuple(wire for index, (branch, wires) in enumerate(zip(self.branches, fed, strict=True))
                     for wire in place.inside(str(index), branch, wires))

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        count = len(self.branches)
        return tuple(f"output_{i}" for i in range(count)) if count > 1 else ("output",)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls((Linear(2), Tanh())), (3,)
        yield cls((Tanh(),)), (2,)


@register
@dataclass(frozen=True)
class Shared(Container):
    """A layer whose parameters belong to a key: all layers of a network under the same key use one set of them.

    Formula       y = f(x; w), with the same w wherever the key stands
    Chain rule    dw = the sum of dw over all uses
    Shapes        as the layer has them; layers under one key must agree on the shapes of the parameters.
    Kinks         those of the layer.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 7.9: parameter sharing.
    """

    layer: Layer
    key: str = "shared"

    def __post_init__(self) -> None:
        if not self.key or any(c in self.key for c in ".#:@"):
            raise ValueError(f"Shared: wrong key: got {self.key!r}, expected a name without . # : @")

    def wire(self, place: Place, inputs: Wires) -> Wires:
        return place.shared(self.key, self.layer, inputs)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(Linear(2)), (3,)
        yield Sequential((cls(Linear(2, bias=False), "w"), Tanh(), cls(Linear(2, bias=False), "w"))), (2,)
        yield Sequential((Parallel((cls(Linear(2)), cls(Sequential((Linear(2),)), "other"), cls(Linear(2)))), Concatenate(inputs=3))), (2,)
        yield Sequential((Parallel((cls(Linear(1)), cls(Linear(1)))), Multiply())), (2,)
