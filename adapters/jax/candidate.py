"""Candidates on JAX: pure functions of arrays, with whatever `custom_vjp` they define."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from backproof.adapters.calls import (
    AUTODIFF,
    DENSE,
    DOUBLE,
    FORWARD,
    JVP,
    SHAPES,
    Answer,
    Call,
    UnsupportedError,
    answered,
    first_sentence,
)
from backproof.adapters.jax.directional import directional
from backproof.adapters.jax.forward import plain
from backproof.adapters.jax.versions import enable_x64, quick_jit

Candidate = Callable[..., Any]
ARRAYS = (jax.Array, np.ndarray, np.generic)


@lru_cache(maxsize=16)
def _program(candidate: Candidate, mode: str, real: tuple[int, ...], trained: tuple[str, ...], batched: tuple[str, ...],
             count: int) -> Callable[..., Any]:
    """Return outputs and gradients as a function of the arrays; the draws of a structure share a compilation."""

    def called(inputs: Any, params: Any) -> tuple[Any, ...]:
        return answered(candidate(*inputs, **params), count, ARRAYS, "an array, or a tuple of them")

    def mapped(inputs: Any, params: Any) -> tuple[Any, ...]:
        def one(inputs: Any, own: Any) -> tuple[Any, ...]:
            few = {**params, **{name: a[None] for name, a in own.items()}}
            return tuple(y[0] for y in called(tuple(x[None] for x in inputs), few))

        return jax.vmap(one)(tuple(inputs), {name: params[name] for name in batched})

    forward = {"vmap": mapped, "checkpoint": jax.checkpoint(called), AUTODIFF: plain(called)}.get(mode, called)

    def both(inputs: Any, params: Any, dys: Any) -> Any:
        def chosen(some: Any, weights: Any) -> tuple[Any, ...]:
            replaced = dict(zip(real, some, strict=True))
            return tuple(forward([replaced.get(i, x) for i, x in enumerate(inputs)], {**params, **weights}))

        ys, pullback = jax.vjp(chosen, [inputs[i] for i in real], {name: params[name] for name in trained})
        for y, dy in zip(ys, dys, strict=True):
            if y.shape != dy.shape:
                raise ValueError(f"wrong shape of the output: got {y.shape}, expected {dy.shape}")
        return ys, pullback(tuple(jnp.asarray(dy, y.dtype) for dy, y in zip(dys, ys, strict=True)))

    return both if mode == "eager" else quick_jit(both)


class JaxDriver:
    """Calls by `jax.vjp`, compiled unless the mode says otherwise; x64 is on for float64 and only while it runs."""

    framework = "jax"
    layouts = (DENSE,)
    selective = True
    compiles = True
    modes: Mapping[str, str] = {"eager": "outside of jax.jit", "vmap": "under jax.vmap", "checkpoint": "under jax.checkpoint",
                               JVP: "in forward mode", DOUBLE: "when its backward is differentiated"}

    def run(self, candidate: Candidate, call: Call) -> Answer:
        """Call a candidate and its backward; raise what it raises, UnsupportedError where the mode is not for it."""
        real = tuple(i for i, is_real in enumerate(call.real) if is_real and call.wants(i))
        trained = tuple(name for name in call.trained if call.wants(name))
        if call.mode in {FORWARD, SHAPES}:
            return _forward(candidate, call)
        if call.mode in {JVP, DOUBLE}:
            return directional(candidate, call)
        program = _program(candidate, call.mode, real, trained, call.batched, len(call.dys))
        with enable_x64(any(a.dtype == np.float64 for a in (*call.inputs, *call.dys))):
            try:
                result = program(list(call.inputs), dict(call.params), call.dys)
            except (NotImplementedError, ValueError, TypeError) as error:
                if call.mode in {"vmap", "checkpoint", AUTODIFF}:
                    raise UnsupportedError(first_sentence(error)) from error
                raise
            ys, (dx, d_params) = jax.tree.map(np.asarray, result)
        found = dict(zip(real, dx, strict=True))
        return Answer(call.inputs, call.params, call.dys, tuple(ys), tuple(found.get(i) for i in range(len(call.inputs))),
                      {name: d_params.get(name) for name in call.trained})


@lru_cache(maxsize=16)
def _compiled(candidate: Candidate) -> Callable[..., Any]:
    def called(inputs: Any, params: Any) -> Any:
        return candidate(*inputs, **params)

    return quick_jit(called)


def _forward(candidate: Candidate, call: Call) -> Answer:
    """Return the outputs alone; where only their shapes count, nothing is compiled."""
    with enable_x64(any(a.dtype.name in {"float64", "complex128"} for a in (*call.inputs, *call.params.values(), *call.dys))):
        given = list(call.inputs), dict(call.params)
        if call.mode == SHAPES:
            shapes = jax.eval_shape(lambda inputs, params: candidate(*inputs, **params), *given)
            found: Any = jax.tree.map(lambda y: np.zeros(y.shape, y.dtype), shapes)
        else:
            found = _compiled(candidate)(*given)
        ys = answered(found, len(call.dys), ARRAYS, "an array, or a tuple of them")
        return Answer(call.inputs, call.params, call.dys, tuple(map(np.asarray, ys)), (None,) * len(call.inputs), {})


driver = JaxDriver()
