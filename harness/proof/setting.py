"""A layer with the shapes of its inputs, the numbers it is proved on, and what its rule answers, by tensor name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from backproof.reference.layer import Constant, Layer, Shape, each_shape
from backproof.reference.rounding import PRECISIONS, Arithmetic, Array, Rounded

__all__ = ["Point", "Setting", "fitting"]

Draw = Callable[[Shape], np.ndarray]

SHAPES: tuple[Shape, ...] = ((3, 2), (4,), (2, 4), (2, 4, 4), (4, 3, 2), (2, 3, 4, 4), ())


@dataclass(frozen=True)
class Point:
    """Where a rule is evaluated: parameters and constants by name, inputs, and the upstream gradient of each output."""

    params: Mapping[str, Array]
    inputs: tuple[Array, ...]
    dys: tuple[Array, ...]

    def lifted(self, kind: Callable[[Array], Array]) -> Point:
        """Return the point in another kind of numbers; indices and truth values stay."""

        def lift(array: Array) -> Array:
            return array if array.dtype.kind in "biu" else kind(array)

        return Point({name: lift(array) for name, array in self.params.items()}, tuple(map(lift, self.inputs)), tuple(map(lift, self.dys)))

    def rounded(self, precision: str = "float64", kinks: str = "own") -> Point:
        """Return the point in rounded arithmetic."""
        return self.lifted(Arithmetic(PRECISIONS[precision], kinks=kinks).exact)

    def copied(self) -> Point:
        return Point({name: array.copy() for name, array in self.params.items()}, tuple(a.copy() for a in self.inputs),
                     tuple(a.copy() for a in self.dys))


@dataclass(frozen=True)
class Setting:
    """A layer and the shapes of its inputs, with what it announces about them."""

    layer: Layer
    shapes: tuple[Shape, ...]

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        return dict(self.layer.parameters(*self.shapes))

    @cached_property
    def constants(self) -> dict[str, Constant]:
        return dict(self.layer.constants(*self.shapes))

    @cached_property
    def outputs(self) -> dict[str, Shape]:
        """The shapes of the outputs by name, without the batch axis."""
        return dict(zip(self.layer.output_names, each_shape(self.layer.output_shape(*self.shapes)), strict=True))

    @cached_property
    def below(self) -> tuple[int | None, ...]:
        return tuple(self.layer.index_below())

    @cached_property
    def places(self) -> dict[str, int | str]:
        """Where a gradient belongs, by its name: the number of an input, or the name of a parameter."""
        inputs = zip(self.layer.input_names, self.below, strict=True)
        return {f"d{name}": k for k, (name, below) in enumerate(inputs) if below is None} | {f"d{name}": name for name in self.parameters}

    def expected(self, batch: int) -> dict[str, Shape]:
        """Return the announced shape of every output and gradient."""
        shapes = {name: (batch, *shape) for name, shape in self.outputs.items()}
        for tensor, place in self.places.items():
            shapes[tensor] = (batch, *self.shapes[place]) if isinstance(place, int) else self.parameters[place]
        return shapes

    def free(self, tensor: str, shape: Shape) -> np.ndarray:
        """Return 1 where a gradient is the derivative, 0 where the layer holds an entry of the parameter fixed."""
        mask = np.ones(shape, dtype=int)
        index = self.fixed.get(tensor)
        if index is not None:
            mask[index] = 0
        return mask

    @cached_property
    def fixed(self) -> dict[str, Any]:
        return {f"d{name}": index for name, index in self.layer.fixed(*self.shapes).items()}

    def draw(self, numbers: str = "float", scale: int = 1, batch: int = 3, seed: int = 7) -> Point:
        """Return random numbers: floats, or as objects fractions of 7 * 1024, which are no usual kink; inputs times `scale`."""
        rng = np.random.default_rng(seed)
        real: Draw = rng.standard_normal if numbers == "float" else lambda shape: _fractions(rng, shape)
        params: dict[str, Any] = {name: real(shape) for name, shape in self.parameters.items()}
        params |= {name: _constant(rng, real, constant, batch) for name, constant in self.constants.items()}
        inputs = tuple(real((batch, *shape)) * scale if below is None else rng.integers(below, size=(batch, *shape))
                       for shape, below in zip(self.shapes, self.below, strict=True))
        return Point(params, inputs, tuple(real((batch, *shape)) for shape in self.outputs.values()))

    def run(self, point: Point) -> tuple[tuple[Array, ...], Callable[..., dict[str, Array]]]:
        """Return the outputs and, by name, the gradients for given upstream gradients."""
        y, backward = self.layer.forward(point.params, *point.inputs)

        def gradients(*dys: Array) -> dict[str, Array]:
            dx, dparams = backward(*dys)
            dinputs = zip(self.layer.input_names, dx if isinstance(dx, tuple) else (dx,), strict=True)
            return {f"d{name}": value for name, value in (*dinputs, *dparams.items()) if value is not None}

        return y if isinstance(y, tuple) else (y,), gradients

    def evaluate(self, point: Point) -> dict[str, Array]:
        """Return every output and gradient of the rule, by tensor name."""
        outputs, gradients = self.run(point)
        return dict(zip(self.layer.output_names, outputs, strict=True)) | gradients(*point.dys)

    def rounded(self, point: Point, precision: str = "float64", kinks: str = "own") -> dict[str, Rounded]:
        """Return the same in rounded arithmetic."""
        balls = point.rounded(precision, kinks)
        arithmetic = balls.dys[0].arithmetic
        return {name: arithmetic.lift(value) for name, value in self.evaluate(balls).items()}

    def pairing(self, point: Point) -> Any:
        """Return the sum of dy * y over all outputs, the scalar whose gradient is proved."""
        outputs, _ = self.run(point)
        return sum(np.sum(dy * y) for dy, y in zip(point.dys, outputs, strict=True))

    def moved(self, point: Point, place: int | str, step: Array) -> Point:
        """Return the point with a step added to one input or parameter."""
        if isinstance(place, int):
            inputs = tuple(x + step if k == place else x for k, x in enumerate(point.inputs))
            return Point(point.params, inputs, point.dys)
        return Point({**point.params, place: point.params[place] + step}, point.inputs, point.dys)


def _fractions(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    flat = [Fraction(int(n) * 7 + 1, 7 * 1024) for n in rng.integers(-(2**13), 2**13, size=int(np.prod(shape)))]
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(shape)


def _constant(rng: np.random.Generator, real: Draw, constant: Constant, batch: int) -> np.ndarray:
    shape = (batch, *constant.shape) if constant.batched else constant.shape
    if constant.kind == "index":
        return rng.integers(constant.below, size=shape)
    if constant.kind == "boolean":
        return rng.random(shape) < constant.p
    if constant.kind == "keep":
        return (rng.random(shape) < constant.p).astype(float)
    values: Any = np.asarray(real(shape))
    if constant.kind == "positive":
        return np.asarray(abs(values) + (Fraction(1, 2) if values.dtype == object else 0.5))
    return values


def fitting(layer: Layer) -> Iterator[tuple[Shape, ...]]:
    """Yield shapes that the layer may take: those of its own example first, then some usual ones that it announces an output for."""
    try:
        examples = list(type(layer).examples())
    except Exception:  # noqa: BLE001  (a class whose options have no default has no example of its own)
        examples = []
    of_examples = [tuple(shapes) for example, *shapes in examples]
    equal = [tuple(shapes) for example, *shapes in examples if example == layer]
    same = [(shape,) * len(layer.input_names) for shape in SHAPES]
    pairs = product(SHAPES, repeat=2) if len(layer.input_names) == 2 else ()
    seen: set[Any] = set()
    for shapes in (*equal, *of_examples, *same, *pairs):
        if shapes in seen:
            continue
        seen.add(shapes)
        try:
            Setting(layer, shapes).expected(1)
        except Exception:  # noqa: BLE001, S112  (shapes that do not fit)
            continue
        yield shapes
