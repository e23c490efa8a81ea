"""The numbers of a case: inputs, parameters, target and upstream gradient, drawn from a seed in a named regime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from backproof.reference.graph import Graph, by_path, by_wire
from backproof.reference.layer import Constant, Shape
from backproof.reference.rounding import Precision, quiet

if TYPE_CHECKING:
    from backproof.reference.network import Network

__all__ = ["REGIMES", "Values", "draw", "sources", "store", "targets", "upstreams"]

Rng = np.random.Generator
Numbers = dict[str, np.ndarray]


@dataclass(frozen=True)
class Values:
    """The arrays of a case: `x` (batch, ...), `params` and constants by path and name, `target`, `upstream`: the gradient of the loss."""

    x: np.ndarray
    params: Mapping[str, Mapping[str, np.ndarray]]
    target: np.ndarray
    upstream: np.ndarray

    def sources(self) -> dict[str, np.ndarray]:
        """Return input, parameters and constants by wire."""
        return {"x": self.x, **by_wire(self.params)}


@lru_cache(maxsize=8)
def draw(network: Network, seed: int, regime: str, batch: int, precision: Precision) -> Values:
    """Return the arrays of a case, rounded to the precision's own format and read-only, since several adapters share them."""
    rng, graph = np.random.default_rng(seed), network.graph
    found = sources(rng, graph, regime, batch if regime != "trained" else max(batch, ROWS), precision, inputs=batch)
    target = targets(rng, network.head, (batch, *network.output_shape))
    if regime == "trained":
        found, target = _train(rng, network, found, batch)
    upstream = upstreams(rng, network.head.loss_shape((batch, *network.output_shape)))
    stored = {wire: store(a, precision) for wire, a in found.items()}
    x = stored.pop("x")
    return Values(x, by_path(stored), store(target, precision), store(upstream, precision))


def sources(rng: Rng, graph: Graph, regime: str, batch: int, precision: Precision, inputs: int | None = None) -> dict[str, np.ndarray]:
    """Return float64 numbers of a regime for the inputs and parameters of a graph, and its constants, by wire.

    `inputs` is the batch of the inputs, where the constants need another one.
    """
    size = batch if inputs is None else inputs
    found = REGIMES[regime](rng, graph, size, precision)
    for wire in graph.inputs:
        if wire in graph.indices:
            found[wire] = rng.integers(graph.indices[wire], size=(size, *graph.shapes[wire]))
    return {**found, **_constants(rng, graph, batch)}


def store(a: np.ndarray, precision: Precision) -> np.ndarray:
    """Return an array in the precision's own format, read-only; what is no float keeps its type."""
    stored = np.asarray(a)
    if stored.dtype.kind == "f":
        with quiet():
            stored = np.asarray(np.clip(a, -precision.largest, precision.largest)).astype(precision.dtype)
    stored.setflags(write=False)
    return stored


def upstreams(rng: Rng, shape: Shape) -> np.ndarray:
    """Return 1 half of the time, for a loss per entry never: sizes between 1/8 and 10, either sign."""
    if not shape and rng.random() < 0.5:
        return np.asarray(1.0)
    return np.asarray(rng.choice([-1.0, 1.0], size=shape) * 2.0 ** rng.integers(-3, 4, size=shape) * 1.25)


def _constants(rng: Rng, graph: Graph, batch: int) -> dict[str, np.ndarray]:
    """Return masks, running statistics and indices, by wire."""

    def one(constant: Constant) -> np.ndarray:
        shape = (*(batch,) * constant.batched, *constant.shape)
        if constant.kind == "index":
            return rng.integers(constant.below, size=shape)
        if constant.kind in {"keep", "boolean"}:
            chosen = rng.random(shape) < constant.p
            return chosen.astype(float) if constant.kind == "keep" else chosen
        numbers = 0.25 + 0.5 * rng.standard_normal(shape)
        return np.abs(numbers) + 0.125 if constant.kind == "positive" else numbers

    return {wire: one(constant) for wire, constant in graph.constants.items()}


def _each(graph: Graph, batch: int, inputs: Callable[[Shape], np.ndarray], parameters: Callable[[str, Shape], np.ndarray]) -> Numbers:
    """Draw the inputs, which have the batch axis, then the parameters, whose rule is also given their name."""
    found = {wire: inputs((batch, *graph.shapes[wire])) for wire in graph.inputs}
    return found | {wire: parameters(wire.rpartition(".")[2], shape) for wire, shape in graph.parameters.items()}


def _scaled(rng: Rng) -> Callable[[str, Shape], np.ndarray]:
    """Weights of variance 1 / fan_in, so that numbers keep their size from layer to layer; the rest around a quarter."""

    def rule(name: str, shape: Shape) -> np.ndarray:
        if len(shape) > 1:
            return rng.standard_normal(shape) / np.sqrt(max(1, int(np.prod(shape[1:]))))
        return 0.25 + 0.5 * rng.standard_normal(shape)

    return rule


def _normal(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    return _each(graph, batch, rng.standard_normal, _scaled(rng))


def _zeros(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """All-zero inputs, all-zero parameters, or both: every ReLU exactly at its kink."""
    found = _normal(rng, graph, batch, precision)
    which = rng.integers(3)
    kept = {0: graph.inputs, 1: tuple(graph.parameters)}.get(int(which), ())
    return {wire: a if wire in kept else np.zeros_like(a) for wire, a in found.items()}


def _kinks(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """Inputs on the knees of the activations, and weights that carry a knee to the next layer exactly.

    A row of a weight is zero, with a bias on a knee, or picks one input and adds no bias.
    """
    wires = _each(graph, 0, np.zeros, _scaled(rng))
    wires |= {copy: wires[copy.split("#")[0]] for step in graph.steps for _, copy in step.params if "#" in copy}
    knees = sorted({0.0, 1.0, -1.0, 3.0, 6.0}.union(*(step.layer.kinks({name: wires[w] for name, w in step.params if w in wires})
                                                     for step in graph.steps)))

    def rule(name: str, shape: Shape) -> np.ndarray:
        if name == "bias":
            return rng.choice([*knees, 0.0, 0.0, 0.0], size=shape)
        if len(shape) < 2:
            return rng.choice([-1.0, 0.0, 0.25, 0.5, 1.0], size=shape)
        weight = np.zeros((shape[0], int(np.prod(shape[1:]))))
        rows = np.flatnonzero(rng.random(shape[0]) < 0.7)
        weight[rows, rng.integers(weight.shape[1], size=rows.size)] = rng.choice([1.0, 1.0, -1.0], size=rows.size)
        return weight.reshape(shape)

    return _each(graph, batch, lambda shape: rng.choice(knees, size=shape), rule)


def _ties(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """Entries from a handful of values, rows and columns repeated."""

    def repeated(shape: Shape, scale: float) -> np.ndarray:
        a = rng.choice(rng.standard_normal(3), size=shape) * scale
        for axis, size in enumerate(shape):
            a = np.take(a, rng.integers(max(1, size // 2), size=size), axis=axis)
        return a

    params = {wire: repeated(shape, 1 / np.sqrt(max(1, int(np.prod(shape[1:]))))) for wire, shape in graph.parameters.items()}
    return {wire: repeated((batch, *graph.shapes[wire]), 1.0) for wire in graph.inputs} | params


def _saturated(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """Inputs up to +-1e3, which weights of unit gain pass on."""
    return _each(graph, batch, lambda shape: rng.uniform(-1, 1, shape) * 10.0 ** rng.uniform(0, 3), _scaled(rng))


def _tiny(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """Magnitudes from 1e-3 down into the subnormal numbers of the precision."""
    return _log_uniform(rng, graph, batch, np.log10(precision.underflow) - 3, -3)


def _wide_range(rng: Rng, graph: Graph, batch: int, precision: Precision) -> Numbers:
    """Magnitudes over twelve decades in one tensor (as many as the format has, for float16)."""
    top = min(6.0, np.log10(precision.largest) / 2)
    return _log_uniform(rng, graph, batch, -top, top)


def _log_uniform(rng: Rng, graph: Graph, batch: int, low: float, high: float) -> Numbers:
    def drawn(shape: Shape) -> np.ndarray:
        return rng.choice([-1.0, 1.0], size=shape) * 10.0 ** rng.uniform(low, high, shape)

    return _each(graph, batch, drawn, lambda _, shape: drawn(shape))


REGIMES: dict[str, Callable[[Rng, Graph, int, Precision], Numbers]] = {
    "normal": _normal, "zeros": _zeros, "kinks": _kinks, "ties": _ties, "saturated": _saturated, "tiny": _tiny,
    "wide-range": _wide_range, "trained": _normal,
}
"""Every value regime by name; `trained` starts from `normal` and takes gradient steps on real data."""


def targets(rng: Rng, head: Any, z_shape: Shape) -> np.ndarray:
    """Return what a head compares a z of this shape with, the batch axis in it."""
    return TARGETS[head.target_kind()](rng, head, head.target_shape(z_shape), z_shape[-1])


def _classes(rng: Rng, head: Any, shape: Shape, classes: int) -> np.ndarray:
    """Classes, some of them ignored where the head can ignore any, but never all."""
    drawn = rng.integers(classes, size=shape)
    if rng.random() < 0.7 or not drawn.size or not hasattr(head, "ignore_index"):
        return drawn
    ignored = rng.random(shape) < 0.3
    ignored.flat[0] = False
    return np.where(ignored, head.ignore_index, drawn)


def _distribution(rng: Rng, head: Any, shape: Shape, classes: int) -> np.ndarray:
    """One-hot rows, or soft targets in multiples of 1/64, so that every precision holds rows that sum to one."""
    if rng.random() < 0.7:
        return np.eye(classes)[rng.integers(classes, size=shape[:-1])]
    return rng.multinomial(64, np.full(classes, 1 / classes), size=shape[:-1]) / 64


def _labels(rng: Rng, head: Any, shape: Shape, classes: int) -> np.ndarray:
    """Rows of labels other than the blank, some of them repeated, of different lengths and padded with -1."""
    labels = rng.integers(classes - 1, size=shape) if classes > 1 else np.full(shape, -1)
    labels = np.where(rng.random(shape) < 0.3, labels[:, :1], labels)
    lengths = rng.integers(shape[1] + 1, size=(shape[0], 1))
    return np.where(np.arange(shape[1]) < lengths, labels + (labels >= head.blank), -1)


TARGETS: dict[str, Callable[[Rng, Any, Shape, int], np.ndarray]] = {
    "real": lambda rng, head, shape, classes: rng.standard_normal(shape),
    "binary": lambda rng, head, shape, classes: rng.integers(2, size=shape).astype(float) if rng.random() < 0.7 else rng.random(shape),
    "sign": lambda rng, head, shape, classes: rng.choice([-1.0, 1.0], size=shape),
    "classes": _classes,
    "distribution": _distribution,
    "log_distribution": lambda rng, head, shape, classes: np.log(0.1 + 0.9 * rng.random(shape)),
    "ctc": _labels,
}
"""How targets are drawn, by the head's `target_kind`."""


DATA_SETS = {"real": "load_diabetes", "binary": "load_breast_cancer", "distribution": "load_digits", "classes": "load_digits"}
ROWS, STEPS, RATE = 32, 5, 0.1


@lru_cache(maxsize=4)
def _data_set(loader: str) -> tuple[np.ndarray, np.ndarray]:
    """Return features (rows, columns), of mean 0 and variance 1, and labels of a data set that comes with scikit-learn."""
    from sklearn import datasets  # noqa: PLC0415  (heavy, and needed by one regime alone)

    features, labels = getattr(datasets, loader)(return_X_y=True)
    deviation = features.std(axis=0)
    return (features - features.mean(axis=0)) / np.where(deviation > 0, deviation, 1), labels


def _train(rng: Rng, network: Network, start: Numbers, batch: int) -> tuple[Numbers, np.ndarray]:
    """Take a few full-batch gradient steps on a real data set, its columns taken cyclically to fit the network."""
    graph, out = network.graph, network.output_shape
    kind = network.head.target_kind()
    size = max(batch, ROWS)
    features, labels = _data_set(DATA_SETS.get(kind, "load_digits"))
    rows = rng.choice(len(features), size=size, replace=False)
    features, labels = features[rows], labels[rows]
    columns = np.arange(int(np.prod(network.input_shape))) % features.shape[1]
    x = features[:, columns].reshape(size, *network.input_shape)
    if "x" in graph.indices:
        x = np.abs(x * 16).astype(np.int64) % graph.indices["x"]
    shape = network.head.target_shape((size, *out))
    if kind in {"classes", "distribution"}:
        classes = np.broadcast_to((labels % out[-1]).reshape(-1, *[1] * (len(out) - 1)), (size, *out[:-1]))
        target = classes if kind == "classes" else np.eye(out[-1])[classes]
    elif kind in {"real", "binary"}:
        centred = labels if kind == "binary" else (labels - labels.mean()) / labels.std()
        target = np.broadcast_to(centred.reshape(-1, *[1] * (len(shape) - 1)), shape).astype(float)
    else:
        target = targets(rng, network.head, (size, *out))
    found = {**start, "x": x}
    for _ in range(STEPS):
        wires, backward = graph.run(found)
        loss, head_backward = network.head.forward({}, wires[network.output], target)
        with quiet():
            gradients = backward({network.output: head_backward(np.ones_like(loss))})
            norm = np.sqrt(sum(float(np.sum(gradients[w] ** 2)) for w in graph.parameters))
            rate = RATE / max(1.0, norm)  # clipped, so that no architecture diverges
            if np.isfinite(norm):
                found |= {w: found[w] - rate * gradients[w] for w in graph.parameters}
    batched = {"x"} | {w for w, constant in graph.constants.items() if constant.batched}
    return {w: a[:batch] if w in batched else a for w, a in found.items()}, target[:batch]
