"""The contract every layer keeps, and the way a layer turns into JSON and back.

A layer is a frozen dataclass whose fields are its configuration. Its rule is one method, `forward`, which returns the output
and a closure, `backward`, that holds the cache. Shapes are given without the batch axis, which is always the first.

Most layers have one input and one output. One with several names them in `input_names` and `output_names`, takes shapes and
arrays positionally in that order, and hands back tuples: `forward(params, query, key, value) -> (y, backward)`,
`backward(dy) -> ((dquery, dkey, dvalue), dparams)`. Arrays without a gradient are `constants`, which come among the
`params` and have no entry in `dparams`; an input of indices has the gradient None.
"""

from __future__ import annotations

import ast
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from backproof.reference.rounding import Array
from backproof.reference.usage import UsageError

__all__ = ["Constant", "Elementwise", "Layer", "Params", "Rule", "RuleBackward", "Shape", "ShapeError", "build", "describe", "each",
           "each_shape", "parse", "register", "with_tuples"]

Shape = tuple[int, ...]
Params = Mapping[str, Array]
Backward = Callable[..., tuple[Any, dict[str, Array]]]
RuleBackward = Callable[..., tuple[tuple[Any, ...], dict[str, Array]]]
"""Takes the upstream gradient of each output to the gradients of the inputs and, by name, of the parameters."""

Example = tuple[Any, ...]
"""A layer and the shapes of its inputs."""


class ShapeError(UsageError):
    """An input shape that a layer cannot take. Carries `.layer` and `.shape`."""

    def __init__(self, layer: Any, shape: Shape | tuple[Shape, ...], expected: str) -> None:
        super().__init__(f"{layer}: wrong input shape: got {shape}, expected {expected} (batch axis left out)")
        self.layer, self.shape = layer, shape


@dataclass(frozen=True)
class Constant:
    """An array that a layer takes among its parameters and that has no gradient: a mask, a running statistic, indices.

    `kind` says which numbers it holds: `real`, `positive`, `keep` (1 with probability `p`, else 0, as floats), `boolean` (True with
    probability `p`) or `index` (int64 from 0 to `below` - 1). With `batched` the array has the batch axis before `shape`.
    """

    shape: Shape
    kind: str = "real"
    batched: bool = False
    p: float = 0.5
    below: int = 0


class Rule:
    """What layers and heads have in common: the names of their arrays, and one way to run their hand-derived rule."""

    input_names: ClassVar[tuple[str, ...]] = ("x",)
    """The inputs that a gradient is returned for."""
    output_names: ClassVar[tuple[str, ...]] = ("output",)
    output_symbols: ClassVar[tuple[str, ...]] = ("y", "output")
    """What the derivation calls the first output."""
    by_example: ClassVar[bool] = False
    """Whether outputs and input gradients of an example depend on that example alone, whatever else is in the batch."""
    stepwise: ClassVar[bool] = False
    """Whether the layer goes on from its own outputs, so that `retraced` is another thing than `forward`."""

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The arrays that `forward` takes in order, after the parameters."""
        return self.input_names

    @abstractmethod
    def rule(self, params: Params, *arguments: Any) -> tuple[tuple[Any, ...], RuleBackward]:
        """Return the outputs and `pullback(*upstream) -> (d_inputs, d_params)`, always as tuples."""

    @abstractmethod
    def array_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        """Return the shapes of parameters, constants and upstream gradients by name, for arguments of these shapes, batch axis in all.

        Upstream gradients are called `d_output 0`, `d_output 1`, ... Raises ValueError or IndexError for shapes that the rule cannot take.
        """

    def parameters(self, *shapes: Any, **_: Any) -> dict[str, Shape]:
        """Return the shape of every parameter by name, for inputs of these shapes."""
        return {}

    def constants(self, *shapes: Any, **_: Any) -> dict[str, Constant]:
        """Return what the layer takes by name beside its parameters, without a gradient."""
        return {}

    def fixed(self, *shapes: Any, **_: Any) -> dict[str, Any]:
        """Return by parameter name an index of the entries that are never trained: read, but with a gradient of 0 by definition."""
        return {}

    def index_below(self) -> tuple[int | None, ...]:
        """Return for each input the number that its integers stay below, None for an input of real numbers."""
        return (None,) * len(self.input_names)

    def kinks(self, params: Params) -> tuple[float, ...]:
        """Return the input values at which the layer has no derivative."""
        return ()

    def conserved(self, dx: Array, dy: Array) -> tuple[Array, Array] | None:
        """Return dx and dy in rows whose sums are equal for every subgradient, or None where a tie binds no entries together.

        One row of dx belongs to one row of dy, and its entries are sums of parts of that row's: at a tie an entry of dy may be shared
        in any way, but all of it is handed on.
        """
        return None

    def derivation(self) -> str:
        """Return the formula and the chain rule of the docstring, line by line."""
        return _sections(inspect.getdoc(type(self)) or "", "Formula", "Chain rule")


def _sections(text: str, *titles: str) -> str:
    """Return the lines of a rule's docstring that stand under some of its titles."""
    kept, keep = [], False
    for line in text.splitlines():
        title = re.match(r"([A-Z][a-z]+(?: [a-z]+)?)\s{2,}", line)
        if title or not line.strip():
            keep = title is not None and title.group(1) in titles
        if keep:
            kept.append(line[title.end() :] if title else line)
    return "\n".join(kept)


@dataclass(frozen=True)
class Layer(Rule, ABC):
    """A differentiable map with parameters, and its hand-derived backward rule."""

    def output_shape(self, *shapes: Any, **_: Any) -> Any:
        """Return the shape of the output, or a tuple of shapes; raise ShapeError for an input the layer cannot take."""
        return shapes[0]

    def extent(self, *shapes: Any) -> int:
        """Return how many numbers an array of the rule holds for one example, where it is larger than inputs and outputs; otherwise 0."""
        return 0

    def retraced(self, outputs: tuple[Array, ...], reach: int, params: Params, *inputs: Any) -> tuple[Any, Backward]:
        """Do what `forward` does, for rounded arrays, beside what an implementation made of it.

        A layer of several steps, each of which goes on from a result that is also in the outputs, starts each from the
        implementation's own: what is judged is then every step by itself, and no step's rounding is carried through all later ones.
        Up to `reach` steps may have been rounded otherwise than they are recorded, as a compiler that fuses steps may do.
        """
        return self.forward(params, *inputs)

    @abstractmethod
    def forward(self, params: Params, *inputs: Any, **_: Any) -> tuple[Any, Backward]:
        """Return `y` and `backward(dy) -> (dx, dparams)`."""

    def rule(self, params: Params, *arguments: Any) -> tuple[tuple[Any, ...], RuleBackward]:
        return with_tuples(*self.forward(params, *arguments))

    def array_shapes(self, *shapes: Shape) -> dict[str, Shape]:
        if len(shapes) != len(self.input_names):
            raise UsageError(f"{self} takes {len(self.input_names)} inputs: got {len(shapes)}")
        batch, examples = shapes[0][:1], [shape[1:] for shape in shapes]
        constants = {name: (*batch * c.batched, *c.shape) for name, c in self.constants(*examples).items()}
        outputs = {f"d_output {i}": (*batch, *shape) for i, shape in enumerate(each_shape(self.output_shape(*examples)))}
        return {**self.parameters(*examples), **constants, **outputs}

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield settings that bring out what is special about the layer, each with small input shapes: what the proof runs on."""
        yield cls(), (3, 2)


def with_tuples(y: Any, backward: Backward) -> tuple[tuple[Any, ...], RuleBackward]:
    """Return what `forward` or `retraced` returned, with outputs and input gradients as tuples also where there is one."""

    def pullback(*upstream: Any) -> tuple[tuple[Any, ...], dict[str, Array]]:
        dx, d_params = backward(*upstream)
        return each(dx), d_params

    return each(y), pullback


def each(value: Any) -> tuple[Any, ...]:
    """Return what a rule returned, one thing or a tuple of them, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def each_shape(shape: Any) -> tuple[Shape, ...]:
    """Return what `output_shape` returned as a tuple of shapes, one per output."""
    return shape if shape and isinstance(shape[0], tuple) else (shape,)


@dataclass(frozen=True)
class Elementwise(Layer):
    """A layer whose output entries depend on one input entry each."""

    by_example: ClassVar[bool] = True


REGISTRY: dict[str, type] = {}
SCALARS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (float, int), "bool": (bool,), "str": (str,), "None": (type(None),)}
"""What a field of a declared type takes in a file or a text; a type that is not named here is the layer's own to check."""


def register(cls: type) -> type:
    """Enrol a layer or head under its class name; a second class of that name is an error."""
    if cls.__name__ in REGISTRY:
        raise UsageError(f"a layer named {cls.__name__} is registered already: {REGISTRY[cls.__name__]!r}")
    REGISTRY[cls.__name__] = cls
    return cls


def describe(item: Any) -> dict[str, Any]:
    """Return a layer or head as JSON-ready data: its class name and the fields that it shows."""
    return {"type": type(item).__name__} | {f.name: _described(getattr(item, f.name)) for f in fields(item) if f.repr}


def _described(value: Any) -> Any:
    if is_dataclass(value):
        return describe(value)
    return [_described(v) for v in value] if isinstance(value, tuple) else value


def build(data: Mapping[str, Any]) -> Any:
    """Return the layer or head that `describe` described; raise ValueError for data that names none."""
    if not isinstance(data, Mapping):
        raise UsageError(f"a layer is described by an object with a type: got {data!r}")
    name = data.get("type")
    if name not in REGISTRY:
        raise UsageError(f"unknown layer: got {name!r}, expected one of {', '.join(sorted(REGISTRY))}")
    options = {k: _built(v) for k, v in data.items() if k != "type"}
    try:
        return _of_declared_types(REGISTRY[name](**options))
    except TypeError as error:
        raise UsageError(f"{name}: wrong options: got {options}: {error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _of_declared_types(layer: Any) -> Any:
    """Return a layer whose numbers, texts and truth values are of the types that its fields declare; raise UsageError for another."""
    for field in fields(layer):
        declared = str(getattr(field.type, "__name__", field.type)).split(" | ")
        value = getattr(layer, field.name)
        taken = tuple(kind for name in declared for kind in SCALARS.get(name, (object,)))
        if not isinstance(value, taken) or (isinstance(value, bool) and not {bool, object} & {*taken}):  # a bool is an int to Python
            raise UsageError(f"{type(layer).__name__}: {field.name} takes {' or '.join(declared)}: got {value!r}")
    return layer


def parse(text: str) -> Any:
    """Return the layer or head that a call such as `LayerNorm(eps=1e-5)` describes; nothing else is evaluated.

    Raises ValueError for what is no call of a registered class with literal options, layers among them.
    """
    wanted = f"not a layer: got {text!r}, expected a call such as LayerNorm(eps=1e-5)"
    try:
        layer = ast.parse(text.strip(), mode="eval").body
        found = _parsed(layer) if isinstance(layer, ast.Call) else None
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(f"{wanted}: {error}") from error
    if found is None:
        raise UsageError(wanted)
    return found


def _parsed(node: ast.AST) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id not in REGISTRY:
            raise UsageError(f"unknown layer: got {node.func.id!r}, expected one of {', '.join(sorted(REGISTRY))}")
        options = {str(keyword.arg): _parsed(keyword.value) for keyword in node.keywords}
        arguments = [*map(_parsed, node.args)]
        try:
            return _of_declared_types(REGISTRY[node.func.id](*arguments, **options))
        except (TypeError, ValueError) as error:  # a layer's own word on its options
            raise UsageError(str(error)) from error
    if isinstance(node, (ast.Tuple, ast.List)):
        return tuple(map(_parsed, node.elts))
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UsageError(f"an option is a number, a text, a truth value, a tuple or a layer: got {ast.unparse(node)}") from error


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_built(v) for v in value)
    return build(value) if isinstance(value, Mapping) else value
