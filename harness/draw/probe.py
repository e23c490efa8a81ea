"""A probe: one layer or head, the shapes, numbers and conditions of one call, and what a candidate answered to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import chain, islice, product
from math import prod
from typing import Any

import numpy as np
from backproof.adapters.calls import DENSE, PLAIN, Answer, Call, Driver
from backproof.draw.batches import BATCHES, single_entry_groups
from backproof.judge.directional import DIRECTIONAL, directions
from backproof.proof.setting import fitting
from backproof.reference.graph import Graph
from backproof.reference.heads import Head
from backproof.reference.layer import Layer, Shape, build, describe, each_shape
from backproof.reference.rounding import precision_named
from backproof.reference.trace import LayerTrace
from backproof.reference.usage import UsageError
from backproof.reference.values import REGIMES, sources, store, targets, upstreams
from backproof.reference.whole import WholeNetwork
from backproof.truth.own_forward import OwnForward

__all__ = ["Condition", "Probe", "probes", "shapes_for"]

VALUES = tuple(name for name in REGIMES if name != "trained")
MILD = {"zeros": "normal", "kinks": "normal", "saturated": "normal"}
"""The regime of upstream gradients where it is another than that of the inputs: all zero they would show nothing."""

MODERATE = ("normal", "zeros", "kinks", "ties")
"""Regimes in which derivatives along a direction are compared: in the others the digits that a gradient loses are found by itself."""

SIZES = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 33, 64, 65)
LONGEST = 17  # along an axis before the last: time, channels, height
EMPTY_AT = 6  # the number of the probe of an empty batch
LARGEST = 4_000  # entries of an example
POOL = 48  # shapes that a layer is tried on
OUTPUTS: tuple[Shape, ...] = ((4,), (3,), (1,), (2, 3), (5, 4), (2, 5), (3, 2, 4))
"""What heads are tried on first."""


@dataclass(frozen=True)
class Condition:
    """Under which a candidate is called: how its inputs and upstream gradients lie in memory, and the mode of the call."""

    layout: str = DENSE
    upstream: str = DENSE
    mode: str = PLAIN
    alone: int | str | None = None

    def __str__(self) -> str:
        parts = {"layout": self.layout, "upstream": self.upstream, "mode": self.mode, "alone": self.alone}
        return ", ".join(f"{name} {value}" for name, value in parts.items() if value not in (DENSE, PLAIN, None))


@dataclass(frozen=True)
class Probe:
    """Everything that one call of a candidate depends on: the layer that is the truth, shapes (batch axis left out), seed, conditions."""

    layer: Any
    shapes: tuple[Shape, ...]
    batch: int = 3
    seed: int = 0
    regime: str = "normal"
    precision: str = "float64"
    condition: Condition = Condition()
    xs: tuple[float, ...] | None = None
    """Numbers that stand in the place of the first input's, over and over, where that is asked for."""
    candidate: str = ""
    """Where the candidate can be imported from, as MODULE:NAME; empty where it cannot."""
    framework: str = ""
    names: tuple[tuple[str, str], ...] = ()
    """The candidate's own names of parameters, each with the layer's."""

    @property
    def size(self) -> int:
        return self.batch * sum(prod(shape) for shape in self.shapes)

    def call(self) -> Call:
        """Draw the arrays of the call."""
        return _call(self)

    def run(self, driver: Driver, candidate: Callable[..., Any]) -> tuple[LayerTrace, Answer]:
        """Call a candidate and return its trace and answer; raise what it raises."""
        call = self.call()
        answer = driver.run(candidate, call)
        d_inputs = answer.d_inputs[:1] if call.head else answer.d_inputs
        return LayerTrace("candidate", self.layer, answer.inputs, _one(answer.outputs), d_inputs, _one(answer.dys), answer.params,
                          answer.d_params), answer

    def describe(self) -> dict[str, Any]:
        """Return the probe as JSON-ready data."""
        return {"layer": describe(self.layer), "shapes": [list(shape) for shape in self.shapes], "batch": self.batch, "seed": self.seed,
                "regime": self.regime, "precision": self.precision, "condition": asdict(self.condition), "candidate": self.candidate,
                "framework": self.framework, "names": dict(self.names)}

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> Probe:
        """Return the probe that `describe` described; raise ValueError for data that describes none."""
        try:
            shapes = tuple(tuple(int(n) for n in shape) for shape in data["shapes"])
            described = data["layer"]
            layer = OwnForward.build(described) if described.get("type") == OwnForward.__name__ else build(described)
            return cls(layer, shapes, int(data["batch"]), int(data["seed"]), str(data["regime"]),
                       precision_named(data["precision"]).name, Condition(**data["condition"]), candidate=str(data["candidate"]),
                       framework=str(data["framework"]), names=tuple(dict(data["names"]).items()))
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"no probe: {type(error).__name__}: {error}") from error

    def to_json(self) -> str:
        return json.dumps(self.describe(), indent=2)

    def __str__(self) -> str:
        shapes = " and ".join(str(shape) for shape in self.shapes)
        how = str(self.condition)
        return f"{self.layer} on input {shapes}, batch {self.batch}, regime {self.regime}, seed {self.seed}{f', {how}' if how else ''}"


def _one(items: Sequence[Any]) -> Any:
    return tuple(items) if len(items) > 1 else items[0]


@lru_cache(maxsize=32)
def _call(probe: Probe) -> Call:
    rng, precision, layer, how = np.random.default_rng(probe.seed), precision_named(probe.precision), probe.layer, probe.condition
    options: dict[str, Any] = {"layout": how.layout, "upstream": how.upstream, "mode": how.mode, "alone": how.alone}
    if isinstance(layer, Head):
        z_shape = (probe.batch, *probe.shapes[0])
        z = sources(rng, Graph(("z",), shapes={"z": probe.shapes[0]}), probe.regime, probe.batch, precision)["z"]
        arrays = (store(z, precision), store(targets(rng, layer, z_shape), precision))
        dy = store(upstreams(rng, layer.loss_shape(z_shape)), precision)
        return _along(probe, Call(arrays, (True, False), {}, (), (dy,), head=True, **options))
    graph = Graph.of([("layer", layer)], dict(zip(layer.input_names, probe.shapes, strict=True)))
    params = {wire.removeprefix("layer."): store(a, precision) for wire, a in
             sources(rng, graph, probe.regime, probe.batch, precision).items()}
    inputs = tuple(params.pop(name) for name in layer.input_names)
    if isinstance(layer, WholeNetwork):
        inputs = (inputs[0], store(targets(rng, layer.network.head, (probe.batch, *layer.network.output_shape)), precision))
    if probe.xs is not None:
        inputs = (store(np.resize(np.array(probe.xs), inputs[0].shape), precision), *inputs[1:])
    outputs = dict(zip(layer.output_names, each_shape(layer.output_shape(*probe.shapes)), strict=True))
    above = sources(rng, Graph(tuple(outputs), shapes=outputs), MILD.get(probe.regime, probe.regime), probe.batch, precision)
    constants = layer.constants(*probe.shapes)
    call = Call(inputs, tuple(below is None for below in layer.index_below()), params, tuple(layer.parameters(*probe.shapes)),
                tuple(store(above[name], precision) for name in outputs),
                batched=tuple(name for name, constant in constants.items() if constant.batched), **options)
    return _along(probe, call)


def _along(probe: Probe, call: Call) -> Call:
    """Give a call directions where its mode asks for them."""
    if call.mode not in DIRECTIONAL:
        return call
    shapes: dict[int | str, Shape] = {i: x.shape for i, (x, real) in enumerate(zip(call.inputs, call.real, strict=True)) if real}
    fixed = {} if isinstance(probe.layer, Head) else probe.layer.fixed(*probe.shapes)
    shapes |= {name: call.params[name].shape for name in call.trained}
    tangents = directions(np.random.default_rng([probe.seed, 1]), shapes, fixed)
    return replace(call, tangents={key: store(v, precision_named(probe.precision)) for key, v in tangents.items()})


def shapes_for(layer: Any, limit: int = POOL) -> list[tuple[Shape, ...]]:
    """Return shapes of the inputs that a layer or head takes, batch axis left out: the usual ones first, then their sizes varied.

    Sizes are 1, primes, powers of two and their neighbours. A size that inputs have in common is varied in all of them and in one alone.
    """
    if isinstance(layer, WholeNetwork):
        return [layer.shapes]
    bases = list(islice(_bases(layer), 6))
    pool = dict.fromkeys(bases)
    for varied in _in_turn([_varied(base) for base in bases]):
        if len(pool) >= limit:
            break
        if varied not in pool and sum(map(prod, varied)) <= LARGEST and _takes(layer, varied):
            pool[varied] = None
    return list(pool)


def _bases(layer: Any) -> Iterator[tuple[Shape, ...]]:
    if isinstance(layer, Head):
        # where a row holds the scores of classes, frameworks differ in the axis of classes once there are more axes
        yield from ((shape,) for shape in OUTPUTS if _takes(layer, (shape,)) and (len(shape) == 1 or layer.target_kind() != "classes"))
    else:
        usual = fitting(layer)
        yield from (shapes for shapes in chain(usual, _of_options(layer)) if _takes(layer, shapes))


def _of_options(layer: Any) -> Iterator[tuple[Shape, ...]]:
    """Yield shapes with a size among the layer's own numbers, such as `embed_dim`, on one of their axes."""
    numbers = [value for field in fields(layer) if type(value := getattr(layer, field.name)) is int and 0 < value <= LARGEST]
    for n, rank in product(dict.fromkeys(numbers), (2, 1, 3)):
        for axis in range(rank):
            yield (tuple(n if i == axis else 3 + i for i in range(rank)),) * len(layer.input_names)


def _takes(layer: Any, shapes: tuple[Shape, ...]) -> bool:
    """Say whether a layer takes these shapes, and leaves something to compare."""
    try:
        if isinstance(layer, Head):
            layer.check_shape(shapes[0])
            return True
        if len(shapes) != len(layer.input_names):
            return False
        layer.parameters(*shapes), layer.constants(*shapes)
        return all(n > 0 for shape in each_shape(layer.output_shape(*shapes)) for n in shape)
    except Exception:  # noqa: BLE001  (a user's own layer may raise anything for shapes that do not fit)
        return False


def _varied(base: tuple[Shape, ...]) -> Iterator[tuple[Shape, ...]]:
    """Yield the shapes with one size replaced, wherever it stands or in one place."""
    for new in sorted(SIZES, key=lambda n: (n * 7) % 11):  # no order that a limit would cut the large ones off
        for old in sorted({n for shape in base for n in shape}):
            if new != old and new <= LONGEST:
                yield tuple(tuple(new if n == old else n for n in shape) for shape in base)
        for i, shape in enumerate(base):
            for axis in range(len(shape)) if new <= LONGEST else (len(shape) - 1,):
                yield (*base[:i], (*shape[:axis], new, *shape[axis + 1 :]), *base[i + 1 :])


def _in_turn(sources: Sequence[Iterator[Any]]) -> Iterator[Any]:
    waiting = list(sources)
    while waiting:
        for source in tuple(waiting):
            try:
                yield next(source)
            except StopIteration:
                waiting.remove(source)


def probes(layer: Any, shapes: Sequence[tuple[Shape, ...]], cases: int, seed: int, driver: Driver, draws: int) -> Iterator[Probe]:
    """Yield the probes of a check: a plain one first, then every second under another condition, `draws` through each shape and batch.

    Regimes take turns, the conditions too; the same seed gives the same probes.
    """
    rng = np.random.default_rng(seed)
    conditions = list(_conditions(layer, shapes[0], driver))
    rng.shuffle(conditions)
    along = [] if isinstance(layer, OwnForward) else [Condition(mode=mode) for mode in DIRECTIONAL if mode in driver.modes]
    half = len(conditions) if draws > 1 else len(conditions) // 2
    conditions = [*along, *conditions[:half], *(along if draws == 1 else ()), *conditions[half:]]
    order = [0, *(1 + rng.permutation(len(shapes) - 1))]
    batches = [3, *chain.from_iterable(rng.permutation([n for n in BATCHES if n != 3]) for _ in range(1 + cases))]
    for n in range(cases):
        at = n // draws
        input_shapes = shapes[order[at % len(order)]]
        batch = int(batches[at])
        if batch == 1 and not isinstance(layer, Head) and any(single_entry_groups(*placed) for placed in _placed(layer, input_shapes)):
            batch = 2
        turn = n // 2 if draws == 1 else at  # one condition for all draws of a structure, since each is compiled
        condition = conditions[turn % len(conditions)] if n % 2 and conditions else Condition()
        if condition in along and turn < len(along):
            input_shapes, batch = shapes[0], 3  # the usual one: of a single feature many a derivative is 0 whatever the rule
        regime = VALUES[n % len(VALUES)] if not n % 2 or rng.random() < 0.3 else "normal"
        if condition.mode in DIRECTIONAL and regime not in MODERATE:
            regime = "normal"
        if n == EMPTY_AT and isinstance(layer, Layer) and not isinstance(layer, (OwnForward, WholeNetwork)):
            batch, condition = 0, Condition()
        if isinstance(condition.alone, str) and condition.alone not in layer.parameters(*input_shapes):
            condition = replace(condition, alone=None)
        yield Probe(layer, input_shapes, batch, int(rng.integers(2**31)), regime, condition=condition)


def _placed(layer: Any, shapes: tuple[Shape, ...]) -> Iterator[tuple[Any, Shape]]:
    """Yield the single layers of a layer, each with the shape of its first input."""
    inputs = dict(zip(layer.input_names, shapes, strict=True))
    graph = layer.network.graph if isinstance(layer, WholeNetwork) else Graph.of([("layer", layer)], inputs)
    yield from ((step.layer, graph.shapes[step.inputs[0]]) for step in graph.steps)


def _conditions(layer: Any, shapes: tuple[Shape, ...], driver: Driver) -> Iterator[Condition]:
    """Yield the conditions other than the plain one that a layer is tried under on a framework."""
    layouts = [name for name in driver.layouts if name != DENSE]
    for layout in layouts:
        yield Condition(layout=layout)
        if not (isinstance(layer, Head) and layer.reduction != "none"):
            yield Condition(upstream=layout)
            yield Condition(layout=layout, upstream=layout)
    for mode in driver.modes:
        if mode in DIRECTIONAL:
            continue  # they come before the others
        if mode != "vmap" or getattr(layer, "by_example", False):  # elsewhere the examples may depend on one another
            yield Condition(mode=mode)
    if isinstance(layer, Head) or not driver.selective:
        return
    keys = [*(i for i, below in enumerate(layer.index_below()) if below is None), *layer.parameters(*shapes)]
    if len(keys) > 1:
        yield from (Condition(alone=key) for key in keys)
