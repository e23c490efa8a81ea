"""One call of a candidate: a function that computes one layer or head on a framework, and may have its own backward.

A driver, one per framework, makes the call. It is an object with `framework`, the `layouts` that inputs and upstream gradients may have in
memory there, the `modes` in which a candidate may be called, and `run(candidate, call) -> Answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from backproof.adapters.framework import framework_named

__all__ = ["AUTODIFF", "DENSE", "DOUBLE", "FORWARD", "JVP", "PLAIN", "SHAPES", "Answer", "Call", "Driver", "UnsupportedError",
           "answered", "driver", "first_sentence"]

PLAIN, DENSE = "plain", "dense"
FORWARD, AUTODIFF, SHAPES = "forward", "autodiff", "shapes"
"""Modes that every driver has beside its `modes`, which look for the truth in the candidate's own forward.

`forward` returns the outputs alone, of complex arrays too; `autodiff` the framework's own gradients of the forward without the backward
that the candidate defines, UnsupportedError where there is no such thing; `shapes` outputs of which only the shape counts.
"""
JVP, DOUBLE = "jvp", "double backward"
"""Modes of drivers that differentiate along `tangents`: forward mode, one array at a time; and the gradient of <u, dx> + <U, dparams>."""


@dataclass(frozen=True)
class Call:
    """The arrays of one call, in the precision of the candidate, and how it is made.

    `real` says which inputs have a gradient; the others are whole numbers, or the target of a head. `trained` are the `params` that have
    one; the others are constants. `layout` is how inputs and parameters lie in memory, `upstream` how the gradients from above do. With
    `alone`, that one tensor alone requires a gradient. `batched` are the constants that
    have a batch axis. `tangents` are the directions of the modes `jvp` and `double backward`, by the place of an input or the name of a
    parameter.
    """

    inputs: tuple[np.ndarray, ...]
    real: tuple[bool, ...]
    params: Mapping[str, np.ndarray]
    trained: tuple[str, ...]
    dys: tuple[np.ndarray, ...]
    layout: str = DENSE
    upstream: str = DENSE
    mode: str = PLAIN
    alone: int | str | None = None
    batched: tuple[str, ...] = ()
    head: bool = False
    tangents: Mapping[int | str, np.ndarray] = field(default_factory=dict)

    def wants(self, key: int | str) -> bool:
        """Say whether the gradient of an input, by its place, or of a parameter, by its name, is asked for."""
        return self.alone in (None, key)


@dataclass(frozen=True)
class Answer:
    """What came of a call: the arrays that went in as the candidate saw them, and those that came out, None for what did not.

    `changed` names the arrays that the candidate modified. `derivatives` are those of the modes `jvp`, by what was moved and the number of
    the output, and `double backward`, by what the gradient is of: (place or name, 0), (None, n) for the upstream gradient n. `undefined`
    says why the candidate may not mean its double backward to be one.
    """

    inputs: tuple[np.ndarray, ...]
    params: Mapping[str, np.ndarray]
    dys: tuple[np.ndarray, ...]
    outputs: tuple[Any, ...]
    d_inputs: tuple[Any, ...]
    d_params: Mapping[str, Any]
    changed: tuple[str, ...] = ()
    derivatives: Mapping[tuple[int | str | None, int], Any] = field(default_factory=dict)
    undefined: str = ""


class UnsupportedError(RuntimeError):
    """A mode in which this candidate cannot be called, by the framework's own word: no finding."""


class Driver(Protocol):
    """How candidates are called on one framework."""

    framework: str
    layouts: tuple[str, ...]
    selective: bool
    """Whether single arrays may be asked for their gradient."""
    compiles: bool
    """Whether new shapes, and each mode, take long the first time."""
    modes: Mapping[str, str]
    """The modes beside `plain`, each with the words that say when a finding shows in it alone."""

    def run(self, candidate: Callable[..., Any], call: Call) -> Answer: ...


def driver(framework: str) -> Driver:
    """Return the driver of a framework; raise ValueError for an unknown one, MissingFrameworkError where it is not installed."""
    return framework_named(framework).driver()


def answered(y: Any, count: int, kind: type | tuple[type, ...], wanted: str) -> tuple[Any, ...]:
    """Return what a candidate returned as a tuple of `count` arrays, of any number where that is 0; raise TypeError for anything else."""
    ys = tuple(y) if isinstance(y, (tuple, list)) else (y,)
    if count and len(ys) != count:
        raise TypeError(f"the candidate returned {len(ys)} outputs, expected {count}")
    for one in ys:
        if not isinstance(one, kind):
            raise TypeError(f"the candidate returned {type(one).__name__}, expected {wanted}")
    return ys


def first_sentence(error: BaseException) -> str:
    """Return what an error says, without the advice that follows."""
    return re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0]
