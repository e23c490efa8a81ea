"""The forward of a candidate without the derivatives that it defines, for `jax.vjp` to differentiate: a second opinion on these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from backproof.adapters.calls import UnsupportedError
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

__all__ = ["plain"]

OPENED = {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"}
"""Operations that only call others, which may stand in their place."""


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function without the `custom_vjp` and `custom_jvp` of what it calls.

    It raises UnsupportedError where there are none, so that `jax.vjp` would be compared with itself, and where one stands inside of a
    loop or a kernel.
    """

    def run(*arguments: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        if not _defines(closed.jaxpr):
            raise UnsupportedError("the candidate defines no derivative, so that it would be compared with itself")
        found = _evaluated(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return run


def _custom(equation: Any) -> bool:
    return str(equation.primitive.name).startswith(("custom_vjp_call", "custom_jvp_call"))


def _inner(equation: Any) -> list[Any]:
    """Return the programs that an operation runs."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: isinstance(v, (ClosedJaxpr, Jaxpr)))
    return [leaf for leaf in leaves if isinstance(leaf, (ClosedJaxpr, Jaxpr))]


def _defines(program: Any) -> bool:
    """Say whether a program calls anything that has a derivative of its own."""
    program = getattr(program, "jaxpr", program)
    return any(_custom(e) or any(map(_defines, _inner(e))) for e in program.eqns)


def _evaluated(program: Any, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Run a program, opening the calls that have a derivative of their own."""
    known = dict(zip((*program.constvars, *program.invars), (*constants, *arguments), strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, Literal) else known[v]

    for equation in program.eqns:
        given = [read(v) for v in equation.invars]
        inner = _inner(equation)
        if (_custom(equation) or equation.primitive.name in OPENED) and inner:
            found = _evaluated(getattr(inner[0], "jaxpr", inner[0]), getattr(inner[0], "consts", ()), given)
        elif any(map(_defines, inner)):
            raise UnsupportedError(f"a derivative is defined inside of {equation.primitive.name}")
        else:
            found = equation.primitive.bind(*given, **equation.params)
            found = found if equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, found, strict=True))
    return [read(v) for v in program.outvars]
