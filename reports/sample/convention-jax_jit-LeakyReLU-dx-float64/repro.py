"""convention: LeakyReLU dx on jax:jit (float64): 1 of 1 entries outside the bound.

Exits 1 while the discrepancy exists, 0 when it is gone. Needs numpy and jax.
"""
import sys
from types import SimpleNamespace

import numpy as np
import jax
import jax.numpy as jnp
from jax import Array

Any, Params = object, dict
jax.config.update("jax_enable_x64", True)


def leaky_relu(layer: Any, params: Params, x: Array) -> Array:
    return jax.nn.leaky_relu(x, layer.negative_slope)


layer = SimpleNamespace(**{'negative_slope': 0.01})
x = jnp.asarray(np.array([[0.0]]), dtype=jnp.float64)
dy = jnp.asarray(np.array([[3.3341156018023126]]), dtype=jnp.float64)
inputs = {"x": x}
params = {}
leaves = {name: array for name, array in {**inputs, **params}.items() if jnp.issubdtype(array.dtype, jnp.floating)}


def forward(leaves):
    return leaky_relu(layer, {**params, **leaves}, *({**inputs, **leaves}[name] for name in inputs))


def run(leaves, dy):
    y, pullback = jax.vjp(forward, leaves)
    return y, pullback(dy)[0]


y, gradients = jax.jit(run)(leaves, dy)
got = np.asarray(gradients["x"], dtype=np.float64)
got = float(got[(0, 0)])
expected, bound = 0.03334115601802313, 7.403230876030188e-18
print("LeakyReLU dx[0, 0]", "another subgradient than the reference's own at input 0: valid, since the layer has a kink there")
print(f"got {got!r}\nexpected {expected!r} +- {bound!r}\nexcess {abs(got - expected) / bound if bound else float('inf'):.3g}")
sys.exit(0 if abs(got - expected) <= bound else 1)
