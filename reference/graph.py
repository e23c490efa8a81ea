"""A graph: layers wired into one another, unrolled to the single steps that adapters run and certificates judge.

Every value is a wire with one producer and one consumer. Where a value is used several times, an input of two branches or a shared
parameter, a `Fork` stands between, whose backward is the one rule of sharing: gradients add up.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from backproof.reference.layer import Backward, Constant, Layer, Params, Shape, ShapeError, each, each_shape
from backproof.reference.rounding import Array
from backproof.reference.wiring import Fork

__all__ = ["Container", "Graph", "Place", "Step", "by_path", "by_wire"]

Wires = tuple[str, ...]
SHARED = "@"  # begins the path of parameters that belong to a key and not to a place


@dataclass(frozen=True)
class Step:
    """One layer at work: where it stands, the wires it takes and gives, and the wire of each of its parameters by name."""

    path: str
    layer: Layer
    inputs: Wires
    outputs: Wires
    params: tuple[tuple[str, str], ...] = ()


def by_path(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a table of wires such as `layers.0.weight` by path, then by name."""
    found: dict[str, dict[str, Any]] = {}
    for wire, value in table.items():
        path, _, name = wire.rpartition(".")
        found.setdefault(path, {})[name] = value
    return found


def by_wire(table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a table by path and name as one of wires."""
    return {f"{path}.{name}": value for path, named in table.items() for name, value in named.items()}


@dataclass
class Graph:
    """Steps in forward order between input and output wires, and the shapes of all wires (batch axis left out)."""

    inputs: Wires
    outputs: Wires = ()
    steps: list[Step] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    parameters: dict[str, Shape] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    stages: list[Wires] = field(default_factory=list)
    """The wires between the layers in sequence: those that flow into each, and last the outputs, before any fork."""
    indices: dict[str, int] = field(default_factory=dict)
    """The wires of whole numbers, with the number they stay below: they have no gradient."""

    @classmethod
    def of(cls, layers: Iterable[tuple[str, Layer]], shapes: Mapping[str, Shape]) -> Graph:
        """Return the graph of layers in sequence, each with its path; raise ShapeError where their shapes do not fit."""
        graph = cls(tuple(shapes), shapes=dict(shapes))
        graph.stages.append(graph.inputs)
        for path, layer in layers:
            graph.stages.append(Place(graph, path, path).put(layer, graph.stages[-1]))
        graph.outputs = graph.stages[-1]
        graph._fork()
        return graph

    @property
    def sources(self) -> tuple[str, ...]:
        """The wires that no step produces: inputs, parameters, constants."""
        return (*self.inputs, *self.parameters, *self.constants)

    @property
    def leaves(self) -> tuple[str, ...]:
        """The sources that have a gradient."""
        return tuple(w for w in (*self.inputs, *self.parameters) if w not in self.indices)

    @property
    def taps(self) -> dict[str, Shape]:
        """The wires that some step produces and that have a gradient, with their shapes; a parameter's copy has its whole shape."""
        return {w: self.shapes[w] for step in self.steps for w in step.outputs if w not in self.indices}

    def batched(self, wire: str) -> bool:
        """Say whether a wire has a batch axis before its shape: all but parameters and their copies."""
        return wire.partition("#")[0] not in self.parameters

    def append(self, path: str, owner: str, layer: Layer, inputs: Wires) -> Wires:
        """Add one layer's step and return its output wires."""
        names = layer.input_names
        shapes = tuple(self.shapes[w] for w in inputs)
        if len(inputs) != len(names):
            raise ShapeError(layer, shapes, f"{len(names)} input{'s' * (len(names) != 1)} ({', '.join(names)})")
        outputs = tuple(path if len(layer.output_names) == 1 else f"{path}:{name}" for name in layer.output_names)
        self.shapes.update(zip(outputs, each_shape(layer.output_shape(*shapes)), strict=True))
        for name, shape in layer.parameters(*shapes).items():
            self._enter(self.parameters, f"{owner}.{name}", shape, layer, shapes)
            self.shapes[f"{owner}.{name}"] = shape
        for name, constant in layer.constants(*shapes).items():
            self._enter(self.constants, f"{owner}.{name}", constant, layer, shapes)
        named = (*layer.parameters(*shapes), *layer.constants(*shapes))
        for wire, below in zip(inputs, layer.index_below(), strict=True):
            if below is not None:
                self.indices[wire] = min(below, self.indices.get(wire, below))
        self.steps.append(Step(path, layer, inputs, outputs, tuple((name, f"{owner}.{name}") for name in named)))
        return outputs

    def _enter(self, table: dict[str, Any], wire: str, shape: Any, layer: Layer, shapes: tuple[Shape, ...]) -> None:
        if table.setdefault(wire, shape) != shape:
            raise ShapeError(layer, shapes, f"{wire} of the shape {table[wire]} that it shares with another layer, not {shape}")

    def _fork(self) -> None:
        """Put a fork behind every wire that is used more than once; constants, which have no gradient, need none."""
        uses = Counter(self.outputs)
        for step in self.steps:
            uses.update((*step.inputs, *(w for _, w in step.params if w not in self.constants)))
        copies = {wire: iter([f"{wire}#{i}" for i in range(n)]) for wire, n in uses.items() if n > 1}

        def own(wire: str) -> str:
            return next(copies[wire]) if wire in copies else wire

        steps: list[Step] = []
        forks = {wire: self._forked(wire, uses[wire]) for wire in copies}
        steps.extend(forks[wire] for wire in self.sources if wire in forks)
        for step in self.steps:
            steps.append(replace(step, inputs=tuple(map(own, step.inputs)), params=tuple((n, own(w)) for n, w in step.params)))
            steps.extend(forks[wire] for wire in step.outputs if wire in forks)
        self.steps, self.outputs = steps, tuple(map(own, self.outputs))

    def _forked(self, wire: str, uses: int) -> Step:
        outputs = tuple(f"{wire}#{i}" for i in range(uses))
        self.shapes.update(dict.fromkeys(outputs, self.shapes[wire]))
        if wire in self.indices:
            self.indices.update(dict.fromkeys(outputs, self.indices[wire]))
        return Step(f"{wire}.fork", Fork(uses), (wire,), outputs)

    def run(self, sources: Mapping[str, Array]) -> tuple[dict[str, Array], Callable[[Mapping[str, Array]], dict[str, Array]]]:
        """Run the rules forward on the arrays of the sources.

        Returns the arrays of all wires, and `backward`, which takes the gradients of the output wires and returns those of all wires.
        """
        wires, backwards = dict(sources), []
        for step in self.steps:
            y, backward = step.layer.forward({name: wires[w] for name, w in step.params}, *(wires[w] for w in step.inputs))
            wires.update(zip(step.outputs, each(y), strict=True))
            backwards.append(backward)

        def backward_all(gradients: Mapping[str, Array]) -> dict[str, Array]:
            found = dict(gradients)
            for step, backward in zip(reversed(self.steps), reversed(backwards), strict=True):
                dx, dparams = backward(*(found[w] for w in step.outputs))
                found.update(zip(step.inputs, each(dx), strict=True))
                found.update((w, dparams[name]) for name, w in step.params if name in dparams)
            return found

        return wires, backward_all


@dataclass(frozen=True)
class Place:
    """Where a layer is put: its path, and the path by which its parameters are known."""

    graph: Graph
    path: str
    owner: str

    def put(self, layer: Layer, inputs: Wires) -> Wires:
        """Wire a layer to its inputs here and return its output wires; a container puts its own layers in turn."""
        if isinstance(layer, Container):
            return layer.wire(self, inputs)
        return self.graph.append(self.path, self.owner, layer, inputs)

    def inside(self, name: str, layer: Layer, inputs: Wires) -> Wires:
        """Put a part of a container under a name of its own."""
        path, owner = (f"{p}.{name}" if p else name for p in (self.path, self.owner))
        return Place(self.graph, path, owner).put(layer, inputs)

    def shared(self, key: str, layer: Layer, inputs: Wires) -> Wires:
        """Put a layer whose parameters belong to a key."""
        return Place(self.graph, self.path, f"{SHARED}{key}").put(layer, inputs)


@dataclass(frozen=True)
class Container(Layer):
    """A layer made of layers. Its parameters bear the path of the part they belong to: `0.weight`, or `@key.weight` where shared."""

    @abstractmethod
    def wire(self, place: Place, inputs: Wires) -> Wires:
        """Put the parts at their place and return the output wires."""

    def graph(self, *shapes: Shape) -> Graph:
        return _graph(self, shapes)

    def parameters(self, *shapes: Shape) -> dict[str, Shape]:
        return self.graph(*shapes).parameters

    def constants(self, *shapes: Shape) -> dict[str, Constant]:
        return self.graph(*shapes).constants

    def output_shape(self, *shapes: Shape) -> Any:
        graph = self.graph(*shapes)
        found = tuple(graph.shapes[w] for w in graph.outputs)
        return found[0] if len(found) == 1 else found

    def forward(self, params: Params, *inputs: Array) -> tuple[Any, Backward]:
        graph = self.graph(*(tuple(x.shape[1:]) for x in inputs))
        wires, run_back = graph.run({**dict(zip(graph.inputs, inputs, strict=True)), **params})

        def backward(*dys: Array) -> tuple[Any, dict[str, Array]]:
            found = run_back(dict(zip(graph.outputs, dys, strict=True)))
            dxs = tuple(found[w] for w in graph.inputs)
            return dxs if len(dxs) > 1 else dxs[0], {w: found[w] for w in graph.parameters}

        ys = tuple(wires[w] for w in graph.outputs)
        return ys if len(ys) > 1 else ys[0], backward


@lru_cache(maxsize=256)
def _graph(layer: Container, shapes: tuple[Shape, ...]) -> Graph:
    names: Sequence[str] = layer.input_names
    if len(names) != len(shapes):
        names = [f"x_{i}" for i in range(len(shapes))]
    return Graph.of([("", layer)], dict(zip(names, shapes, strict=True)))
