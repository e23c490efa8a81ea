"""A SwiGLU in Pallas under jax.custom_vjp: the first backward launches one block too few. interpret=True needs no accelerator."""

from collections.abc import Callable
from typing import Any

import backproof as bp
import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

BLOCK = 8


def forward_kernel(a: Any, b: Any, y: Any) -> None:
    """Write silu(a) * b for one block."""
    y[...] = a[...] * jax.nn.sigmoid(a[...]) * b[...]


def backward_kernel(a: Any, b: Any, dy: Any, da: Any, db: Any) -> None:
    """Write the gradients of both halves for one block: silu'(a) = s + a s (1 - s)."""
    s = jax.nn.sigmoid(a[...])
    da[...] = dy[...] * b[...] * (s + a[...] * s * (1 - s))
    db[...] = dy[...] * a[...] * s


def launch(kernel: Callable[..., None], outputs: int, blocks: Callable[[int], int], *arrays: Array) -> list[Array]:
    """Run a kernel over blocks of the flattened arrays; what no block covers is never written, which shows as NaN."""
    flat = [a.ravel() for a in arrays]
    spec, size = pl.BlockSpec((BLOCK,), lambda i: (i,)), flat[0].size
    out = [jax.ShapeDtypeStruct((size,), arrays[0].dtype)] * outputs
    call = pl.pallas_call(kernel, out, grid=(blocks(size),), in_specs=[spec] * len(flat), out_specs=[spec] * outputs, interpret=True)
    return [a.reshape(arrays[0].shape) for a in call(*flat)]


def with_backward(blocks: Callable[[int], int]) -> Callable[[Array], Array]:
    """Return a SwiGLU whose backward launches blocks(size) blocks."""

    @jax.custom_vjp
    def swiglu(x: Array) -> Array:
        return fwd(x)[0]

    def fwd(x: Array) -> tuple[Array, Array]:
        a, b = jnp.split(x, 2, axis=-1)
        return launch(forward_kernel, 1, lambda n: pl.cdiv(n, BLOCK), a, b)[0], x

    def bwd(x: Array, dy: Array) -> tuple[Array]:
        return (jnp.concatenate(launch(backward_kernel, 2, blocks, *jnp.split(x, 2, axis=-1), dy), axis=-1),)

    swiglu.defvjp(fwd, bwd)
    return swiglu


candidates = {"one block too few": with_backward(lambda n: max(1, n // BLOCK)), "right": with_backward(lambda n: pl.cdiv(n, BLOCK))}
for name, candidate in candidates.items():
    print(f"\n{name}:")
    print(bp.check(candidate, like=bp.SwiGLU(), framework="jax", cases=8, precisions=("float32",)))
