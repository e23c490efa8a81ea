"""A candidate as the user gave it: a function, a module or a torch Function, made into a function that a driver can call."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backproof.adapters.calls import Driver
from backproof.adapters.framework import Framework, all_frameworks, framework_named, owner
from backproof.reference.heads import Head
from backproof.reference.layer import Shape
from backproof.reference.usage import UsageError, UsageTypeError

__all__ = ["Candidate", "check_signature"]


@dataclass(frozen=True)
class Candidate:
    """What is checked, as a function of inputs and of parameters by the reference's names; its name; and the driver that calls it.

    `address` is MODULE:NAME where another process can import it, `names` are its own names of parameters, each with the reference's.
    """

    function: Callable[..., Any]
    name: str
    driver: Driver
    address: str = ""
    names: tuple[tuple[str, str], ...] = ()
    own: Mapping[str, Shape] | None = None
    """The shapes of a module's own parameters, by the reference's names."""

    @classmethod
    def of(cls, given: Any, framework: str | None, params: Mapping[str, str]) -> Candidate:
        """Return a candidate as the user gave it; raise TypeError or ValueError for one that cannot be called."""
        home = _home(given, framework)
        function, own = home.as_candidate(given)
        if own is not None and (strange := sorted(set(params) - set(own))):
            raise UsageError(f"params: the module has no parameter {', '.join(strange)}: expected some of {', '.join(own)}")
        theirs = None if own is None else {params.get(name, name): shape for name, shape in own.items()}
        return cls(_renamed(function, params), _name(given, function), home.driver(), _address(function), tuple(params.items()), theirs)


def _home(given: Any, framework: str | None) -> Framework:
    """Return the framework of a candidate: the one that owns its type, or the one that is named."""
    found, kinds = owner(given), [one.kinds for one in all_frameworks() if one.kinds]
    if found is not None and framework not in {None, found.name}:
        raise UsageError(f"framework: got {framework!r} for {found.kinds}, expected {found.name!r}")
    if found is not None:
        return found
    if framework is None:
        *first, last = [repr(one.name) for one in all_frameworks() if one.calls]
        raise UsageError(f"framework: got none, and the candidate is not {' or '.join(kinds)}. "
                         f"Write framework={', '.join(first)} or {last}")
    if not callable(given):
        raise UsageTypeError(f"the candidate is {' or '.join(['a function', *kinds])}: got {given!r}")
    return framework_named(framework)


def _name(given: Any, function: Callable[..., Any]) -> str:
    name, bound = getattr(given, "__qualname__", None) or type(given).__name__, getattr(function, "__self__", None)
    if isinstance(bound, type) or (name.endswith(".apply") and bound is not None):  # a method of a class, as MyFunction.apply
        name = getattr(bound, "__name__", name)
    return str(name).rpartition("<locals>.")[2].replace("<lambda>", "lambda")


def _address(given: Any) -> str:
    """Return MODULE:NAME of what another process can import; nothing for a lambda, a closure, or what stands in the script itself."""
    name, module = getattr(given, "__qualname__", ""), getattr(given, "__module__", "")
    owner = getattr(given, "__self__", None)
    if isinstance(owner, type) and (address := _address(owner)):  # a method of a class, as MyFunction.apply
        return f"{address}.{given.__name__}"
    home = sys.modules.get(module)
    return f"{module}:{name}" if module != "__main__" and home is not None and getattr(home, name, None) is given else ""


def _renamed(function: Callable[..., Any], params: Mapping[str, str]) -> Callable[..., Any]:
    """Return the function with its own names of parameters in place of the reference's; those of its gradients too, in NumPy."""
    if not params:
        return function
    back = {theirs: own for own, theirs in params.items()}

    def called(*inputs: Any, **given: Any) -> Any:
        y = function(*inputs, **{back.get(name, name): a for name, a in given.items()})
        if not (isinstance(y, tuple) and len(y) == 2 and callable(y[1])):
            return y

        def backward(*dys: Any) -> Any:
            found = y[1](*dys)
            if isinstance(found, tuple) and isinstance(found[-1], Mapping):
                return (*found[:-1], {params.get(name, name): d for name, d in found[-1].items()})
            return found

        return y[0], backward

    called.__wrapped__ = function  # type: ignore[attr-defined]  # whose signature is the one to check
    return called


def check_signature(candidate: Candidate, like: Any, shapes: tuple[Shape, ...]) -> None:
    """Raise TypeError for a function that cannot be called with the layer's inputs and parameters."""
    head = isinstance(like, Head)
    inputs = ("z", "target") if head else like.input_names
    mine = {theirs: own for own, theirs in candidate.names}
    names = [] if head else [mine.get(name, name) for name in (*like.parameters(*shapes), *like.constants(*shapes))]
    try:
        signature = inspect.signature(candidate.function)
        signature.bind(*inputs, **dict.fromkeys(names))
    except ValueError:  # a builtin tells nothing of its arguments
        return
    except TypeError as error:
        call = ", ".join((*inputs, *(f"{name}=..." for name in names)))
        mapped = f'params={{"my_name": "{names[0] if names else "weight"}"}}'
        raise UsageTypeError(f"{candidate.name}{signature} cannot be called as candidate({call}): {error}. Give it these arguments, or map "
                             f"its own names of parameters: {mapped}") from error
