"""Known discrepancies: differences that were understood, kept as data in a file for each framework, counted and shown, never hidden."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from backproof.adapters.framework import all_frameworks, framework_version
from backproof.judge.certificate import Certificate
from backproof.judge.known.arguments import ARGUMENTS, argument
from backproof.judge.rules import expected
from backproof.judge.verdicts import VERDICTS
from backproof.reference.layer import REGISTRY
from backproof.reference.rounding import PRECISIONS, Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace
from backproof.reference.usage import UsageError
from packaging.specifiers import InvalidSpecifier, SpecifierSet

ENOUGH = 8  # layers compared in the range of an entry before its absence says that it is stale

__all__ = ["Known", "KnownList", "load_known"]


@dataclass(frozen=True)
class Known:
    """One understood discrepancy: an entry of a tensor is explained when its argument, the input it comes from, lies in a range.

    `argument` names another number that it depends on, one of `arguments.ARGUMENTS`.
    `above` and `below` are the ends of that range, `at_most` the largest relative error it explains; `versions` is a PEP 440
    specifier of the framework; `options` are the layer's. `shows_above` and `shows_below` narrow the range to where the
    discrepancy shows in every precision, so that its absence there means that it is gone.
    For a tensor that sums over its input (a loss, a parameter's gradient) one argument in the range explains every entry.
    `held_in` names a coarser precision, whose own bound holds what it explains. Entries whose true size is `truth_below` a number are
    explained however far they are off. `raises` is part of the message of an exception that it explains, of any network that holds one
    of the layers.
    """

    id: str
    framework: str
    layers: tuple[str, ...]
    tensors: tuple[str, ...]
    verdicts: tuple[str, ...]
    reason: str
    adapters: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    versions: str = ""
    argument: str = ""
    above: float = -np.inf
    below: float = np.inf
    at_most: float = np.inf
    held_in: str = ""
    truth_below: float = 0.0
    raises: str = ""
    shows_above: float = -np.inf
    shows_below: float = np.inf
    options: dict[str, Any] = field(default_factory=dict)
    link: str = ""

    def covers(self, adapter: str, precision: str, step: LayerTrace) -> bool:
        """Say whether the entry speaks of this layer, on this adapter, in this precision and version."""
        return self.speaks_of(adapter, precision, step.layer)

    def speaks_of(self, adapter: str, precision: str, layer: Any) -> bool:
        return (
            type(layer).__name__ in self.layers
            and adapter.partition(":")[0] == self.framework
            and (not self.adapters or adapter in self.adapters)
            and (not self.precisions or precision in self.precisions)
            and all(getattr(layer, name, None) == value for name, value in self.options.items())
            and _in_range(self.framework, self.versions)
        )

    def explained(self, step: LayerTrace, shape: tuple[int, ...], tensor: str) -> np.ndarray:
        """Return which entries of a tensor of this shape depend on numbers in the entry's range."""
        inside = _between(argument(step, tensor, shape, self.argument), self.above, self.below)
        return inside if inside.shape == shape else np.full(shape, bool(inside.any()))

    def small_enough(self, actual: np.ndarray, ball: Rounded, rounded: Callable[[Precision], Rounded]) -> np.ndarray:
        """Return which entries are off by no more than the entry explains; `rounded` gives the ball in another precision."""
        with quiet():
            truth, difference = np.abs(ball.value), np.abs(actual.astype(np.float64) - ball.value)
            within = np.ones(truth.shape, dtype=bool)
            if self.at_most < np.inf:
                within &= difference / truth <= self.at_most
            if self.held_in:
                coarse = rounded(PRECISIONS[self.held_in])
                known = np.isfinite(coarse.value) & np.isfinite(coarse.radius())  # beyond its range anything may come
                within &= ~known | (np.abs(actual.astype(np.float64) - coarse.value) <= coarse.radius())
            return within | (truth < self.truth_below)

    def shows(self, step: LayerTrace) -> bool:
        """Say whether some input of the layer lies where the discrepancy must show."""
        if self.shows_above == np.inf:
            return False
        numbers = argument(step, "dx", step.inputs[0].shape, self.argument)
        return bool((_between(numbers, self.above, self.below) & _between(numbers, self.shows_above, self.shows_below)).any())


def _between(argument: np.ndarray, low: float, high: float) -> np.ndarray:
    with quiet():
        return (argument >= low) & (argument <= high)


@lru_cache(maxsize=64)
def _in_range(framework: str, versions: str) -> bool:
    return framework_version(framework).split("+")[0] in SpecifierSet(versions, prereleases=True)


@lru_cache(maxsize=1)
def load_known() -> tuple[Known, ...]:
    """Read the list of each framework, its own or that of its name here; raise ValueError, naming file and entry, for a malformed one."""
    found: list[Known] = []
    ours = files("backproof.judge.known")
    for name, file in sorted((one.name, one.known or ours / f"{one.name}.toml") for one in all_frameworks()):
        if not file.is_file():
            continue
        try:
            entries = tomllib.loads(file.read_text()).get("known", [])
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{file.name}: not readable as TOML: {error}") from error
        for entry in entries:
            known = _entry(name, file.name, entry)
            if any((known.framework, known.id) == (other.framework, other.id) for other in found):
                raise UsageError(f"{file.name}: {known.id}: an entry of this id stands there twice")
            found.append(known)
    return tuple(found)


def _entry(framework: str, file: str, data: dict[str, Any]) -> Known:
    names = {f.name for f in fields(Known)} - {"framework"}
    if unknown := set(data) - names:
        raise UsageError(f"{file}: unknown field: got {', '.join(sorted(unknown))}, expected some of {', '.join(sorted(names))}")
    lists: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    where = f"{file}: {data.get('id', 'an entry')}"
    try:
        known = Known(framework=framework, **lists)
        SpecifierSet(known.versions)
    except (TypeError, InvalidSpecifier) as error:
        raise UsageError(f"{where}: {error}") from error
    if known.argument and known.argument not in ARGUMENTS:
        raise UsageError(f"{where}: unknown argument: got {known.argument!r}, expected one of {', '.join(sorted(ARGUMENTS))}")
    for field_name, choices in (("layers", REGISTRY), ("tensors", None), ("verdicts", VERDICTS), ("precisions", PRECISIONS),
                                ("adapters", None)):
        values = getattr(known, field_name)
        if not isinstance(values, tuple):
            raise UsageError(f"{where}: {field_name} must be a list: got {values!r}")
        if choices is not None and (strange := [v for v in values if v not in choices]):
            raise UsageError(f"{where}: unknown {field_name}: got {strange[0]!r}, expected some of {', '.join(sorted(choices))}")
    return known


class KnownList:
    """The known discrepancies, and what they explain."""

    def __init__(self, entries: tuple[Known, ...] | None = None) -> None:
        self.entries = load_known() if entries is None else entries

    def reached(self, adapter: str, precision: str, step: LayerTrace) -> list[str]:
        """Return the ids of the entries that should show here: the layer was compared on arguments in their range."""
        return [entry.id for entry in self.entries
                if {"dx", "dz"} & set(entry.tensors)  # a sum, such as a loss, hides what one entry would show
                and entry.covers(adapter, precision, step) and entry.shows(step)]

    def explain(self, adapter: str, precision: str, step: LayerTrace, verdict: str,
                certificate: Certificate, *, alike: Sequence[str] = (),
                rounded: Callable[[Precision], Rounded] | None = None) -> tuple[np.ndarray, list[Known]]:
        """Return which entries of a certificate's tensor are known, and the discrepancies that explain them.

        A derivative along a direction also shares those of tensors that it is `alike`, and says how another precision has it `rounded`.
        """
        actual, ball = certificate.actual, certificate.ball
        if actual is None or ball is None:
            raise UsageError(f"{certificate.tensor}: a certificate without its tensors cannot be explained")
        with quiet():
            outside = ~(np.abs(actual.astype(np.float64) - ball.value) <= ball.radius())
        rounded = rounded or (lambda precision: expected(step, Arithmetic(precision))[certificate.tensor])
        excused, met = np.zeros(outside.shape, dtype=bool), []
        for entry in self.entries:
            tensor = next((name for name in (certificate.tensor, *alike) if name in entry.tensors), "")
            if tensor and verdict in entry.verdicts and entry.covers(adapter, precision, step):
                mask = outside & entry.explained(step, outside.shape, tensor)
                mask &= entry.small_enough(actual, ball, rounded)
                if mask.any():
                    excused |= mask
                    met.append(entry)
        return excused, met

    def raised(self, adapter: str, precision: str, layers: Iterable[Any], message: str) -> Known | None:
        """Return the discrepancy that explains an exception of a network of these layers, if there is one."""
        return next((entry for entry in self.entries if entry.raises and entry.raises in message
                     and any(entry.speaks_of(adapter, precision, layer) for layer in layers)), None)

    def stale(self, reached: Counter[str], met: Counter[str]) -> tuple[str, ...]:
        """Return the entries that matched nothing although they were looked for often enough."""
        return tuple(e.id for e in self.entries if reached[e.id] >= ENOUGH and not met[e.id])
