"""A framework as it is known without being imported: its versions, its modes, how its candidates are called and shown again.

Frameworks are found by the entry-point group `backproof.frameworks`, whose names are theirs; an entry is a `Framework`. Every list of
frameworks, of adapters and of packages derives from it.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from backproof.reference.usage import MissingPackageError, UsageError, UsageTypeError

if TYPE_CHECKING:
    from backproof.adapters.calls import Driver
    from backproof.reference.case import Case
    from backproof.reference.layer import Shape
    from backproof.reference.trace import Trace

__all__ = [
    "Adapter",
    "Framework",
    "MissingFrameworkError",
    "all_frameworks",
    "default_adapters",
    "framework_named",
    "framework_version",
    "installed_version",
    "owner",
    "texts",
]

GROUP = "backproof.frameworks"


@runtime_checkable
class Adapter(Protocol):
    """One framework in one mode: `run` returns every layer's numbers, in the case's own precision.

    An adapter whose compiler fuses layers says so by an attribute `fused = True`.
    """

    name: str

    def run(self, case: Case) -> Trace: ...


class MissingFrameworkError(MissingPackageError):
    """The framework of an adapter is not installed. Carries `.adapter`, `.framework` and `.install`, the command that installs it."""

    def __init__(self, adapter: str, framework: str, install: str = "") -> None:
        self.adapter, self.framework, self.install = adapter, framework, install or f'pip install "backproof[{framework}]"'
        super().__init__(f"adapter {adapter} needs {framework}, which is not installed. Do: {self.install}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.adapter, self.framework, self.install)


@dataclass(frozen=True, eq=False)
class Framework:
    """One framework. A subclass overrides the methods in which it differs; nothing here imports the framework before it is used.

    name      what `check(framework=...)` calls it
    module    what it must be able to import; empty where that is nothing
    install   the command that installs it
    packages  the distributions whose versions a report names, its own first
    rank      its place in lists, of those of one rank by name
    adapters  its modes under `verify`, each with the MODULE:OBJECT of its `Adapter`; a mode is called `name` or `name:mode`
    default   the adapter that `verify` runs where none is named; empty for none
    calls     MODULE:OBJECT of the `Driver` that calls its candidates; empty where it takes none
    kinds     the candidates that it `owns`, in words; empty where a candidate's type says nothing
    tables    the module whose `LOWERINGS` and `HEADS` are its own functions by layer and head; empty where it has none
    scripts   Jinja templates by the name of the template of ours that they extend: `candidate.py.j2` shows a finding of `check` again,
              `repro.py.j2` one of `verify`. Without them the script says what was recorded
    known     the file of its known discrepancies; None for the one of its name among ours, if there is one
    """

    name: str
    module: str = ""
    install: str = ""
    packages: tuple[str, ...] = ()
    rank: int = 100
    adapters: Mapping[str, str] = field(default_factory=dict)
    default: str = ""
    calls: str = ""
    kinds: str = ""
    tables: str = ""
    scripts: Mapping[str, str] = field(default_factory=dict)
    known: Traversable | None = None

    def __post_init__(self) -> None:
        strange = [name for name in self.adapters if name != self.name and not name.startswith(f"{self.name}:")]
        if strange:
            raise UsageError(f"framework {self.name}: wrong name of an adapter: got {strange[0]}, expected {self.name} or {self.name}:MODE")
        if self.default and self.default not in self.adapters:
            raise UsageError(f"framework {self.name}: unknown default: got {self.default}, expected one of {', '.join(self.adapters)}")

    def version(self) -> str:
        """Return its installed version, or an empty string."""
        return installed_version(self.packages[0]) if self.packages else ""

    def installed(self) -> bool:
        return not self.module or find_spec(self.module) is not None

    def missing(self, adapter: str) -> MissingFrameworkError:
        """Return the error of an adapter that cannot be had."""
        return MissingFrameworkError(adapter, self.name, self.install or f"pip install {self.module}")

    def facts(self) -> Mapping[str, str]:
        """Return what else of its environment a report names, such as its number of threads. It imports nothing."""
        return {}

    def adapter(self, name: str) -> Adapter:
        """Return one of its adapters; raise MissingFrameworkError where it is not installed."""
        found = self._loaded(self.adapters[name], name)
        if not isinstance(found, Adapter):
            raise UsageTypeError(f"adapter {name}: {self.adapters[name]} holds {found!r}, expected a name and a run(case)")
        return found

    def driver(self) -> Driver:
        """Return what calls its candidates; raise MissingFrameworkError where it is not installed, ValueError where it takes none."""
        if not self.calls:
            able = ", ".join(other.name for other in all_frameworks() if other.calls)
            raise UsageError(f"framework {self.name} takes no candidates: expected one of {able}")
        found: Driver = self._loaded(self.calls, f"{self.name} candidate")
        return found

    def _loaded(self, at: str, needed_by: str) -> Any:
        try:
            return _object(at)
        except ModuleNotFoundError as error:
            if not self.module or error.name != self.module:
                raise
            raise self.missing(needed_by) from error

    def owns(self, given: Any) -> bool:
        """Say whether a candidate is of this framework by its type. It imports nothing."""
        return False

    def as_candidate(self, given: Any) -> tuple[Callable[..., Any], Mapping[str, Shape] | None]:
        """Return a candidate as a function that the driver calls, and the shapes of the parameters that it brings along.

        They are None for a function, whose parameters are its arguments.
        """
        return given, None

    def own_function(self, like: Any) -> Callable[..., Any]:
        """Return its own function for a layer or head, as a candidate of `check`: of inputs and named parameters, or z and target."""
        tables = import_module(self.tables)
        if type(like) in tables.HEADS:
            return partial(tables.HEADS[type(like)], like)
        lowering = tables.LOWERINGS[type(like)]
        return lambda *inputs, **params: lowering(like, params, *inputs)

    def lowering(self, layer: type) -> tuple[str, str]:
        """Return name and source of its function for a layer or head; both are empty where it has none, or was not imported here."""
        tables = sys.modules.get(self.tables)
        function = tables and (tables.HEADS.get(layer) or tables.LOWERINGS.get(layer))
        return (function.__name__, _source(function)) if function else ("", "")

    def layout(self, name: str) -> tuple[str, str]:
        """Return name and source of the function by which a script lays an array out in memory; empty where it only says how it lay."""
        return "", ""


def texts(folder: Traversable) -> dict[str, str]:
    """Return the templates of scripts that lie in a folder, by their names."""
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".j2")}


def _object(at: str) -> Any:
    module, _, name = at.partition(":")
    return getattr(import_module(module), name)


_source = cache(inspect.getsource)


@cache
def _registered() -> tuple[dict[str, Framework], dict[str, Exception]]:
    """Return the frameworks by name, and what is wrong with those that cannot be used, which costs nobody else anything."""
    found: dict[str, Framework] = {}
    wrong: dict[str, Exception] = {}
    entries: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        try:
            if (first := entries.setdefault(entry.name, entry)) != entry:
                raise UsageError(f"framework {entry.name} is registered twice: by {first.value} and {entry.value}")  # noqa: TRY301
            found[entry.name] = _checked(entry)
        except Exception as error:  # noqa: BLE001  (a module of somebody else may raise anything)
            wrong[entry.name] = error
            warnings.warn(f"framework {entry.name} is left out: {error}", RuntimeWarning, stacklevel=3)
    usable = (one for one in found.values() if one.name not in wrong)
    return {one.name: one for one in sorted(usable, key=lambda one: (one.rank, one.name))}, wrong


def _checked(entry: EntryPoint) -> Framework:
    framework = entry.load()
    if not isinstance(framework, Framework):
        raise UsageTypeError(f"entry point {entry.value} holds {framework!r}, expected a Framework")
    if framework.name != entry.name:
        raise UsageError(f"entry point {entry.value} holds a framework called {framework.name}, expected {entry.name}")
    return framework


def all_frameworks() -> tuple[Framework, ...]:
    """Return all registered frameworks, whether or not they are installed; ours first."""
    return tuple(_registered()[0].values())


def framework_named(name: str) -> Framework:
    """Return a framework; raise ValueError for an unknown one, or what is wrong with one that cannot be used."""
    found, wrong = _registered()
    if name in wrong:
        raise UsageError(f"framework {name} cannot be used: {wrong[name]}") from wrong[name]
    if name not in found:
        raise UsageError(f"unknown framework: got {name!r}, expected one of {', '.join(found)}")
    return found[name]


def owner(given: Any) -> Framework | None:
    """Return the framework of a candidate by its type, or None."""
    return next((one for one in all_frameworks() if one.owns(given)), None)


def default_adapters() -> tuple[str, ...]:
    """Return the adapters that run where none is named."""
    return tuple(one.default for one in all_frameworks() if one.default)


def installed_version(distribution: str) -> str:
    """Return the installed version of a distribution, or an empty string."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def framework_version(name: str) -> str:
    """Return the installed version of a framework, or of a distribution that is none, or an empty string."""
    framework = _registered()[0].get(name)
    return installed_version(name) if framework is None else framework.version()
