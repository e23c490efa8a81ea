"""JAX: `jax.value_and_grad`, eager and under `jax.jit`, through `jax.nn` and `jax.numpy`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from backproof.adapters import gathered
from backproof.reference.case import Case
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from jax import Array

Params = dict[str, Array]

LOWERINGS, HEADS = (gathered(__name__, __path__, table) for table in ("LOWERINGS", "HEADS"))


def _gradient(network: Network) -> Callable[..., Any]:
    """Return a function of a case's arrays that gives every output, and every gradient by a zero tap on each output."""

    def function(x: Array, params: dict[str, Params], taps: list[Array], target: Array, upstream: Array) -> Any:
        outputs = []
        y = x
        for (path, layer, _), tap in zip(network.paths(), taps, strict=True):
            y = LOWERINGS[type(layer)](layer, params[path], y) + tap
            outputs.append(y)
        loss = HEADS[type(network.head)](network.head, y, target)
        return loss * upstream, (loss, outputs)

    return jax.grad(function, argnums=(0, 1, 2), has_aux=True)


@lru_cache(maxsize=4)  # the draws of a structure come one after the other; more would only hold memory
def _jitted(network: Network) -> Callable[..., Any]:
    return jax.jit(_gradient(network))


class Jax:
    """One way of running JAX; x64 is on for float64 cases and only while they run."""

    def __init__(self, name: str, program: Callable[[Network], Callable[..., Any]], *, fused: bool) -> None:
        self.name = name
        self.fused = fused
        self.program = program

    def run(self, case: Case) -> Trace:
        values = case.values()
        with jax.enable_x64(case.precision == "float64"):
            taps = [np.zeros((case.batch, *shape), values.x.dtype) for shape in case.network.shapes[1:]]
            result = self.program(case.network)(values.x, values.params, taps, values.target, values.upstream)
            (dx, d_params, d_taps), (loss, outputs) = jax.tree.map(np.asarray, result)
        return Trace.assemble(case.network, x=values.x, params=values.params, target=values.target, upstream=values.upstream,
                              loss=loss, outputs=outputs, d_outputs=d_taps, dx=dx, d_params=d_params)  # fmt: skip


eager, jit = Jax("jax", _gradient, fused=False), Jax("jax:jit", _jitted, fused=True)
