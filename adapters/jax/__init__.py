"""JAX: `jax.value_and_grad`, eager and under `jax.jit`, through `jax.nn` and `jax.numpy`."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from backproof.adapters import gathered, lowered
from backproof.adapters.jax.versions import enable_x64
from backproof.reference.case import Case
from backproof.reference.network import Network
from backproof.reference.trace import Trace
from jax import Array

Arrays = dict[str, Array]

LOWERINGS, HEADS = (gathered(__name__, __path__, table) for table in ("LOWERINGS", "HEADS"))


def _gradient(network: Network) -> Callable[..., Any]:
    """Return a function of a case's arrays that gives every output, and every gradient by a zero tap on each output."""

    def function(leaves: Arrays, taps: Arrays, fixed: Arrays, target: Array, upstream: Array) -> Any:
        wires, loss = lowered(network, LOWERINGS, HEADS, {**leaves, **fixed}, target,
                              lambda wire, y: y + taps[wire] if wire in taps else y)
        return jnp.sum(loss * upstream), (loss, {wire: wires[wire] for wire in wires if wire not in leaves and wire not in fixed})

    return jax.grad(function, argnums=(0, 1), has_aux=True)


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
        values, graph = case.values(), case.network.graph
        sources = values.sources()
        leaves = {wire: sources[wire] for wire in graph.leaves}
        fixed = {wire: array for wire, array in sources.items() if wire not in leaves}
        with enable_x64(case.precision == "float64"):
            taps = {w: np.zeros((case.batch,) * graph.batched(w) + shape, values.upstream.dtype) for w, shape in graph.taps.items()}
            result = self.program(case.network)(leaves, taps, fixed, values.target, values.upstream)
            (d_leaves, d_taps), (loss, wires) = jax.tree.map(np.asarray, result)
        return Trace.assemble(case.network, wires={**sources, **wires}, gradients={**d_leaves, **d_taps}, target=values.target,
                              upstream=values.upstream, loss=loss)


eager, jit = Jax("jax", _gradient, fused=False), Jax("jax:jit", _jitted, fused=True)
