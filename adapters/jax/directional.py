"""Candidates on JAX differentiated along a direction: by `jax.jvp`, and by `jax.vjp` of their `jax.vjp`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from backproof.adapters.calls import JVP, Answer, Call, UnsupportedError, answered, first_sentence
from backproof.adapters.jax.versions import enable_x64, quick_jit

__all__ = ["directional"]

Candidate = Callable[..., Any]
Key = int | str
ARRAYS = (jax.Array, np.ndarray, np.generic)


def directional(candidate: Candidate, call: Call) -> Answer:
    """Return the outputs and derivatives of a call; raise UnsupportedError where jax says that the candidate has none."""
    keys, count = tuple(call.tangents), len(call.dys)
    program = (_forward_mode if call.mode == JVP else _twice)(candidate, keys, count)
    chosen = [call.inputs[key] if isinstance(key, int) else call.params[key] for key in keys]
    tangents = [call.tangents[key] for key in keys]
    with enable_x64(any(a.dtype == np.float64 for a in (*call.inputs, *call.dys))):
        try:
            ys, found = program(list(call.inputs), dict(call.params), chosen, tangents, call.dys)
        except (NotImplementedError, ValueError, TypeError, AssertionError) as error:
            raise UnsupportedError(first_sentence(error)) from error
        ys, found = jax.tree.map(np.asarray, (ys, found))
    derivatives: dict[tuple[Key | None, int], Any] = {}
    if call.mode == JVP:
        derivatives |= {(key, n): d for key, ds in zip(keys, found, strict=True) for n, d in enumerate(ds)}
    else:
        derivatives |= {(key, 0): d for key, d in zip(keys, found[0], strict=True)}
        derivatives |= {(None, n): d for n, d in enumerate(found[1])}
    return Answer(call.inputs, call.params, call.dys, tuple(ys), (None,) * len(call.inputs), {}, derivatives=derivatives)


def _as_function(candidate: Candidate, keys: tuple[Key, ...], count: int) -> Callable[..., Any]:
    """Return a candidate as a function of some of its arrays, which stand in the place of those it was given."""

    def called(inputs: Any, params: Any, chosen: Any) -> tuple[Any, ...]:
        new = dict(zip(keys, chosen, strict=True))
        some = {name: new.get(name, a) for name, a in params.items()}
        return answered(candidate(*(new.get(i, x) for i, x in enumerate(inputs)), **some), count, ARRAYS, "an array, or a tuple of them")

    return called


@lru_cache(maxsize=16)
def _forward_mode(candidate: Candidate, keys: tuple[Key, ...], count: int) -> Callable[..., Any]:
    """Return outputs and derivatives, moving one array at a time."""
    called = _as_function(candidate, keys, count)

    def every(inputs: Any, params: Any, chosen: Any, tangents: Any, dys: Any) -> Any:
        found = []
        for place, v in enumerate(tangents):
            def one(moved: Any, place: int = place) -> tuple[Any, ...]:
                return called(inputs, params, [*chosen[:place], moved, *chosen[place + 1 :]])

            found.append(jax.jvp(one, (jnp.asarray(chosen[place]),), (jnp.asarray(v),))[1])
        return called(inputs, params, chosen), found

    return quick_jit(every)


@lru_cache(maxsize=16)
def _twice(candidate: Candidate, keys: tuple[Key, ...], count: int) -> Callable[..., Any]:
    """Return outputs and the gradients of <u, dx> + <U, dparams> by the arrays and by what comes from above."""
    called = _as_function(candidate, keys, count)

    def every(inputs: Any, params: Any, chosen: Any, tangents: Any, dys: Any) -> Any:
        def pulled(chosen: Any, dys: Any) -> Any:
            ys, pullback = jax.vjp(lambda some: called(inputs, params, some), chosen)
            return pullback(tuple(jnp.asarray(dy, y.dtype) for dy, y in zip(dys, ys, strict=True)))[0]

        _, back = jax.vjp(pulled, chosen, tuple(jnp.asarray(dy) for dy in dys))
        return called(inputs, params, chosen), back([jnp.asarray(v) for v in tangents])

    return quick_jit(every)
