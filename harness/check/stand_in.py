"""How the stand-in layer of a candidate is made: its inputs, the shapes that it takes, its outputs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np
from backproof.adapters.calls import FORWARD, SHAPES
from backproof.check.candidate import Candidate
from backproof.draw.strategies import each_input
from backproof.reference.layer import Shape, ShapeError, each_shape
from backproof.reference.usage import UsageError, UsageTypeError
from backproof.reference.whole import spread
from backproof.truth.measurement import MeasuredForward
from backproof.truth.own_forward import DRAWN, OwnForward
from backproof.truth.random_rounding import HALF
from backproof.wording import said

__all__ = ["own_forward"]

LARGEST = 4_000  # entries of a call's inputs and parameters
POOL = 24  # shapes that are tried where none are given
USUAL: tuple[Shape, ...] = ((4,), (3, 2), (2, 3, 4), (1,), (5,), (7,), (8,), (2, 4, 4), (1, 3), (3, 1), (16,), (17,), (5, 4), ())


def own_forward(candidate: Candidate, shapes: Sequence[Any] | None,
                params: Mapping[str, Any]) -> tuple[Candidate, OwnForward, list[tuple[Shape, ...]]]:
    """Return a candidate, the layer that stands for its own forward, and the shapes of inputs to try.

    `params` are the shapes of its parameters, or arrays that have them. Raises ValueError or TypeError, saying what to write, where that
    is not enough to call it.
    """
    if candidate.own is not None and params:
        raise UsageError(f"params: a module's parameters have shapes of their own: got {', '.join(params)}. Leave params out")
    sizes = _sizes(params) if candidate.own is None else dict(candidate.own)
    given = None if shapes is None else [each_input(one) for one in shapes]
    if given is not None and len({len(every) for every in given}) != 1:
        raise UsageError(f"shapes: got {shapes!r}, expected shapes of the same inputs. Write shapes=[(3, 4), ...], or for two inputs "
                         "shapes=[((3, 4), (5,)), ...], batch axis left out")
    names = _input_names(candidate, sizes, len(given[0]) if given else None)
    layer = OwnForward(names, tuple(sizes.items()), function=_measured(candidate))
    tried = given or list(_usual(sizes, len(names)))
    ys = _first_outputs(candidate.name, layer, tried, required=given is not None)
    if any(y.ndim == 0 for y in ys):
        candidate = replace(candidate, function=spread(candidate.function))
    layer = replace(layer, outputs=len(ys), function=_measured(candidate))
    fitting = given or [every for every in tried if _takes(layer, every)][:POOL]
    for every in fitting:
        layer.output_shape(*every)  # which raises for one that was given and does not fit
        if (entries := layer.entries(every, 1)) > LARGEST:
            raise UsageError(f"shapes: {entries:,} entries in the inputs and parameters for {every}, expected at most {LARGEST:,}: the "
                             "truth takes up to a run of the forward for each. Write smaller shapes")
    return candidate, replace(layer, apart=_by_example(layer, fitting[0])), fitting


def _measured(candidate: Candidate) -> MeasuredForward:
    return MeasuredForward(partial(candidate.driver.run, candidate.function))


def _sizes(params: Mapping[str, Any]) -> dict[str, Shape]:
    found = {}
    for name, one in params.items():
        shape = one.shape if hasattr(one, "shape") else one
        if isinstance(shape, str) or not all(isinstance(n, int) for n in shape):
            raise UsageTypeError(f"params: got {one!r} for {name}, expected the shape of a parameter, as there is no layer that knows it. "
                                 f'Write params={{"{name}": (5, 4)}}, or an array of that shape')
        found[name] = tuple(shape)
    return found


def _input_names(candidate: Candidate, sizes: Mapping[str, Shape], count: int | None) -> tuple[str, ...]:
    """Return names for the inputs: those of the positional arguments that are no parameters, as far as these are known."""
    try:
        arguments = list(inspect.signature(candidate.function).parameters.values())
    except (TypeError, ValueError):  # a builtin tells nothing of its arguments
        arguments = []
    names = [a.name for a in arguments if a.kind in {a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD} and a.name not in sizes
             and (a.default is a.empty or count is not None)]
    if count is None and len(names) > 1:
        takes = ", ".join(names)
        raise UsageTypeError(f"{candidate.name} takes {takes}, and nobody knows their shapes. Write params={{'{names[1]}': (5, 4), ...}} "
                             "for those that are parameters, or shapes=[((3, 4), (5,)), ...] for inputs, batch axis left out")
    count = count or 1
    return tuple(names[:count]) if len(names) >= count else ("x", *(f"x_{n}" for n in range(2, count + 1)))


def _usual(sizes: Mapping[str, Shape], count: int) -> Iterator[tuple[Shape, ...]]:
    """Yield shapes that a candidate may take: usual ones, and those with a size of its parameters on one of their axes."""
    own = {n for shape in sizes.values() for n in shape}
    placed = (tuple(n if i == axis else 3 + i for i in range(rank)) for n, rank in product(sorted(own), (1, 2, 3)) for axis in range(rank))
    for shape in dict.fromkeys(chain(USUAL, placed)):
        if count * math.prod(shape) <= DRAWN // 2 and not (own and 1 in shape and 1 not in own):  # which would be broadcast
            yield (shape,) * count


def _first_outputs(name: str, layer: OwnForward, tried: Sequence[tuple[Shape, ...]], *, required: bool) -> tuple[np.ndarray, ...]:
    """Return what the candidate gives for the first shapes that it takes; raise ValueError where it takes none."""
    problem = ""
    for every in tried:
        try:
            return tuple(layer.run(every, 2, SHAPES))
        except Exception as error:  # noqa: BLE001  (whatever a candidate raises for shapes that it does not take)
            problem = problem or f"{' and '.join(map(str, every))}: {said(error)}"
            if required:
                break
    raise UsageError(f"{name} cannot be called on inputs of shape {problem}. Write shapes=[...] that it takes, batch axis "
                     'left out, and the shapes of its parameters as params={"weight": (5, 4)}')


def _takes(layer: OwnForward, shapes: tuple[Shape, ...]) -> bool:
    try:
        found = layer.output_shape(*shapes)
    except ShapeError:
        return False
    return all(math.prod(shape) for shape in each_shape(found)) and layer.entries(shapes, 1) <= LARGEST


def _by_example(layer: OwnForward, shapes: tuple[Shape, ...]) -> bool:
    """Say whether the outputs of an example are the same without the others."""
    call = layer.call(shapes, 3, FORWARD)
    try:
        whole = layer.run_call(call)
        for i in range(3):
            few = replace(call, inputs=tuple(x[i : i + 1] for x in call.inputs))
            alone = layer.run_call(few)
            if any((np.abs(y[i : i + 1] - own) > HALF * np.abs(own)).any() for y, own in zip(whole, alone, strict=True)):
                return False
    except Exception:  # noqa: BLE001  (said where the candidate is called)
        return False
    return True
