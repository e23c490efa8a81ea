"""The network of a finding as boxes inside boxes, with the guilty layer marked: what the page draws and a screen reader reads as lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from backproof.draw.probe import Probe
from backproof.reference.case import Case
from backproof.reference.containers import Parallel, Residual, Sequential, Shared
from backproof.reference.graph import Container
from backproof.reference.layer import Shape
from backproof.reference.network import Network
from backproof.reference.trace import HEAD_PATH
from backproof.reference.whole import WholeNetwork
from backproof.report.finding import Finding

__all__ = ["Box", "drawing"]

FORK = ".fork"


@dataclass(frozen=True)
class Box:
    """A layer, or layers held together: `chain` one after the other, `branches` side by side, `residual` with a shortcut around them."""

    kind: str
    label: str = ""
    options: str = ""
    shape: str = ""
    note: str = ""
    guilty: bool = False
    inside: tuple[Box, ...] = ()

    @property
    def blamed(self) -> bool:
        """Whether the guilty layer is this one or stands inside."""
        return self.guilty or any(box.blamed for box in self.inside)


def drawing(finding: Finding) -> tuple[Box, ...]:
    """Return the boxes of a finding's case from input to head; nothing for a finding that has no case."""
    case = finding.case
    if isinstance(case, Case):
        return _network(case.network, finding.path, case.batch)
    if not isinstance(case, Probe):
        return ()
    if isinstance(case.layer, WholeNetwork):
        return _network(case.layer.network, finding.path, case.batch)
    inputs = tuple(_input(f"input {name}", shape, case.batch) for name, shape in zip(case.layer.input_names, case.shapes, strict=False))
    layer = _Drawer("", {}, case.batch).box(case.layer, "")
    if layer.inside:
        return (*inputs, Box("chain", "the candidate", note="stands for all of this", guilty=True, inside=(layer,)))
    return (*inputs, Box("layer", layer.label, layer.options, note="the candidate", guilty=True))


def _network(network: Network, guilty: str, batch: int) -> tuple[Box, ...]:
    drawer = _Drawer(guilty, network.graph.shapes, batch)
    source = _input("input x", network.input_shape, batch, note=drawer.fork("x"))
    layers = [drawer.box(layer, f"layers.{i}") for i, layer in enumerate(network.layers)]
    head = Box("layer", type(network.head).__name__, _options(network.head), "the loss", "head", guilty == HEAD_PATH)
    return (source, *layers, head)


def _input(label: str, shape: Shape, batch: int, note: str = "") -> Box:
    return Box("input", label, shape=_shape((batch, *shape)), note=note, guilty=bool(note))


@dataclass(frozen=True)
class _Drawer:
    """Draws the layers of a network, of which the one at the path `guilty` is marked."""

    guilty: str
    shapes: Mapping[str, Shape]
    batch: int

    def box(self, layer: Any, path: str) -> Box:
        match layer:
            case Sequential():
                return Box("chain", inside=self._all(layer.layers, path))
            case Parallel():
                return Box("branches", "Parallel", inside=self._all(layer.branches, path))
            case Residual():
                inner = self.box(layer.layer, f"{path}.layer" if path else "layer")
                return Box("residual", "Residual", inside=(inner, self._leaf("Add", "", f"{path}.add" if path else "add")))
            case Shared():
                inner = self.box(layer.layer, path)
                blamed = self.guilty.startswith(f"@{layer.key}.")
                note = f"shares the parameters {layer.key}{': their fork' if blamed else ''}"
                return Box("chain", "Shared", note=note, guilty=blamed, inside=(inner,))
            case _:
                inside = isinstance(layer, Container) and self.guilty.startswith(f"{path}.")
                return self._leaf(type(layer).__name__, _options(layer), path, inside=inside)

    def _all(self, layers: Iterable[Any], path: str) -> tuple[Box, ...]:
        return tuple(self.box(layer, f"{path}.{i}" if path else str(i)) for i, layer in enumerate(layers))

    def _leaf(self, label: str, options: str, path: str, *, inside: bool = False) -> Box:
        fork = self.fork(path)
        wires = [path] if path in self.shapes else [w for w in self.shapes if w.startswith(f"{path}:") and "#" not in w]
        shape = " and ".join(_shape((self.batch, *self.shapes[wire])) for wire in wires)
        return Box("layer", label, options, shape, fork or path, guilty=bool(fork) or inside or (path == self.guilty and bool(path)))

    def fork(self, path: str) -> str:
        """Say that what stands at a path is used several times, where its fork is the guilty one."""
        wire = self.guilty.removesuffix(FORK)
        return f"{path}: its fork" if wire != self.guilty and path and wire.partition(":")[0] == path else ""


def _shape(shape: Shape) -> str:
    return " × ".join(map(str, shape))


def _options(layer: Any) -> str:
    """Return the options of a layer that are not the usual ones; `(1, 1)` is the usual stride of 1, spelt out."""

    def usual(value: Any, default: Any) -> bool:
        return value == default or (isinstance(value, tuple) and bool(value) and all(one == default for one in value))

    every = ((f, getattr(layer, f.name)) for f in fields(layer))
    return ", ".join(f"{f.name}={value}" for f, value in every if not usual(value, f.default))
