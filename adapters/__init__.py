"""Adapters turn a case into a trace on one framework in one mode. A framework is imported only when its adapter is loaded.

Adapters are found through the entry-point group `backproof.adapters`, whose names are the adapters' names; an entry is an
object with `name` and `run(case) -> Trace`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from backproof.reference.case import Case
    from backproof.reference.network import Network
    from backproof.reference.trace import Trace

__all__ = ["Adapter", "MissingFrameworkError", "gathered", "load", "lowered", "lowering", "names", "own_function"]

GROUP = "backproof.adapters"
OURS = ("torch", "jax")  # packages that have tables of functions, one for each layer and head


@runtime_checkable
class Adapter(Protocol):
    """One framework in one mode: `run` returns every layer's numbers, in the case's own precision.

    An adapter whose compiler fuses layers says so by an attribute `fused = True`.
    """

    name: str

    def run(self, case: Case) -> Trace: ...


class MissingFrameworkError(ImportError):
    """The framework of an adapter is not installed. Carries `.adapter` and `.framework`."""

    def __init__(self, adapter: str, framework: str) -> None:
        super().__init__(f'adapter {adapter} needs {framework}, which is not installed. Do: pip install "backproof[{framework}]"')
        self.adapter, self.framework = adapter, framework

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.adapter, self.framework)


def names() -> tuple[str, ...]:
    """Return the names of all registered adapters, whether or not their framework is installed."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def load(name: str) -> Adapter:
    """Return an adapter by name; raise ValueError for an unknown one, MissingFrameworkError without its framework."""
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise ValueError(f"unknown adapter: got {name!r}, expected one of {', '.join(names())}")
    framework = name.split(":", maxsplit=1)[0]
    try:
        adapter = found[0].load()
    except ModuleNotFoundError as error:
        if error.name != framework:
            raise
        raise MissingFrameworkError(name, framework) from error
    if not isinstance(adapter, Adapter):
        raise TypeError(f"adapter {name}: entry point {found[0].value} holds {adapter!r}, expected a name and a run(case)")
    return adapter


def gathered(package: str, paths: list[str], table: str) -> dict[type, Callable[..., Any]]:
    """Return the dicts of one name (`LOWERINGS`, `HEADS`) in a package's modules as one; a layer lowered twice is an error."""
    found: dict[type, Callable[..., Any]] = {}
    for module in iter_modules(paths):
        for layer, lowering in getattr(import_module(f"{package}.{module.name}"), table, {}).items():
            if layer in found:
                raise ValueError(f"{package}: {layer.__name__} is lowered twice, the second time in {module.name}")
            found[layer] = lowering
    return found


def lowered(network: Network, lowerings: Mapping[type, Callable[..., Any]], heads: Mapping[type, Callable[..., Any]],
            sources: Mapping[str, Any], target: Any, tap: Callable[[str, Any], Any]) -> tuple[dict[str, Any], Any]:
    """Run a network forward by a framework's lowerings; return the array of every wire, and the loss.

    `tap(wire, y)` sees every array that a layer hands out and returns what goes on in its place.
    """
    wires = dict(sources)
    for step in network.steps:
        y = lowerings[type(step.layer)](step.layer, {name: wires[w] for name, w in step.params}, *(wires[w] for w in step.inputs))
        outputs = y if isinstance(y, tuple) else (y,)
        wires.update((wire, tap(wire, value)) for wire, value in zip(step.outputs, outputs, strict=True))
    return wires, heads[type(network.head)](network.head, wires[network.output], target)


def own_function(framework: str, like: Any) -> Callable[..., Any]:
    """Return a framework's own function for a layer or head, as a candidate of `check`: of inputs and named parameters, or z and target."""
    adapter = import_module(f"{__name__}.{framework}")
    if type(like) in adapter.HEADS:
        return partial(adapter.HEADS[type(like)], like)
    lowering = adapter.LOWERINGS[type(like)]
    return lambda *inputs, **params: lowering(like, params, *inputs)


def lowering(adapter: str, layer: type) -> tuple[str, str]:
    """Return the name and the source of the function by which an adapter of ours lowers a layer.

    Both are empty for another adapter, and where the framework was not loaded in this process.
    """
    framework = adapter.partition(":")[0]
    module = sys.modules.get(f"{__name__}.{framework}")
    if framework not in OURS or module is None:
        return "", ""
    function = module.HEADS.get(layer) or module.LOWERINGS.get(layer)
    return (function.__name__, _source(function)) if function is not None else ("", "")


_source = cache(inspect.getsource)
