"""JAX: pure functions of arrays, eager and under `jax.jit`."""

from __future__ import annotations

from importlib.resources import files

from backproof.adapters.framework import Framework, texts

__all__ = ["framework"]

framework = Framework(
    "jax", module="jax", packages=("jax", "jaxlib"), install='pip install "backproof[jax]"', rank=1,
    adapters={"jax": "backproof.adapters.jax:eager", "jax:jit": "backproof.adapters.jax:jit"}, default="jax:jit",
    calls="backproof.adapters.jax.candidate:driver", tables="backproof.adapters.jax", scripts=texts(files("backproof.adapters") / "jax"),
)
