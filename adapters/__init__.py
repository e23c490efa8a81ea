"""Adapters turn a case into a trace on one framework in one mode. A framework is imported only when its adapter is loaded.

An adapter is a mode of a framework (`framework.py`), or stands alone in the entry-point group `backproof.adapters`, whose names are the
adapters' names: an object with `name` and `run(case) -> Trace`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from backproof.adapters.framework import Adapter, Framework, MissingFrameworkError, all_frameworks, framework_named
from backproof.reference.usage import UsageError, UsageTypeError

if TYPE_CHECKING:
    from backproof.reference.network import Network

__all__ = ["Adapter", "Framework", "MissingFrameworkError", "gathered", "load", "lowered", "lowering", "names", "own_function"]

GROUP = "backproof.adapters"


def names() -> tuple[str, ...]:
    """Return the names of all adapters, whether or not their framework is installed."""
    return tuple(sorted({*_modes(), *(entry.name for entry in entry_points(group=GROUP))}))


def _modes() -> dict[str, Framework]:
    return {name: framework for framework in all_frameworks() for name in framework.adapters}


def load(name: str) -> Adapter:
    """Return an adapter by name; raise ValueError for an unknown one, MissingFrameworkError without its framework."""
    if (framework := _modes().get(name)) is not None:
        return framework.adapter(name)
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise UsageError(f"unknown adapter: got {name!r}, expected one of {', '.join(names())}")
    adapter = found[0].load()
    if not isinstance(adapter, Adapter):
        raise UsageTypeError(f"adapter {name}: entry point {found[0].value} holds {adapter!r}, expected a name and a run(case)")
    return adapter


def gathered(package: str, paths: list[str], table: str) -> dict[type, Callable[..., Any]]:
    """Return the dicts of one name (`LOWERINGS`, `HEADS`) in a package's modules as one; a layer lowered twice is an error."""
    found: dict[type, Callable[..., Any]] = {}
    for module in iter_modules(paths):
        for layer, lowering in getattr(import_module(f"{package}.{module.name}"), table, {}).items():
            if layer in found:
                raise UsageError(f"{package}: {layer.__name__} is lowered twice, the second time in {module.name}")
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
    return framework_named(framework).own_function(like)


def lowering(adapter: str, layer: type) -> tuple[str, str]:
    """Return the name and the source of the function by which an adapter's framework lowers a layer.

    Both are empty where it has none, and where the framework was not loaded in this process.
    """
    found = next((one for one in all_frameworks() if one.name == adapter.partition(":")[0]), None)
    return ("", "") if found is None else found.lowering(layer)
