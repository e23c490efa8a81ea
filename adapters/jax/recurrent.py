"""JAX: the recurrent layers, each direction of each layer a `jax.lax.scan` over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from backproof.reference import recurrent as R
from jax import Array

Params = dict[str, Array]


def rnn(layer: Any, params: Params, x: Array, *states: Array) -> Any:
    def direction(x: Array, h: Array, suffix: str) -> tuple[Array, Array]:
        def step(h: Array, x_t: Array) -> tuple[Array, Array]:
            a = x_t @ params["weight_ih" + suffix].T + h @ params["weight_hh" + suffix].T
            a = a + params["bias_ih" + suffix] + params["bias_hh" + suffix] if layer.bias else a
            h = jnp.tanh(a) if layer.nonlinearity == "tanh" else jax.nn.relu(a)
            return h, h

        return jax.lax.scan(step, h, x, reverse="reverse" in suffix)

    x = jnp.swapaxes(x, 0, 1)
    last: list[Any] = []
    for k in range(layer.num_layers):
        halves: list[Array] = []
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + layer.bidirectional]:
            h_0 = states[0][:, len(last)] if states else jnp.zeros((x.shape[1], layer.hidden_size), x.dtype)
            h_n, half = direction(x, h_0, suffix)
            halves, last = [*halves, half], [*last, h_n]
        x = jnp.concatenate(halves, -1)
    output = jnp.swapaxes(x, 0, 1)
    return (output, jnp.stack(last, 1)) if states else output


def gru(layer: Any, params: Params, x: Array, *states: Array) -> Any:
    def direction(x: Array, h: Array, suffix: str) -> tuple[Array, Array]:
        w_rz, w_n = jnp.split(params["weight_hh" + suffix], [2 * layer.hidden_size])
        b_rz, b_n = jnp.split(params["bias_hh" + suffix], [2 * layer.hidden_size]) if layer.bias else (0, 0)

        def step(h: Array, x_t: Array) -> tuple[Array, Array]:
            a = x_t @ params["weight_ih" + suffix].T
            a_rz, a_n = jnp.split(a + params["bias_ih" + suffix] if layer.bias else a, [2 * layer.hidden_size], -1)
            r, z = jnp.split(jax.nn.sigmoid(a_rz + (h @ w_rz.T + b_rz)), 2, -1)
            n = jnp.tanh(a_n + (r * (h @ w_n.T + b_n) if layer.reset_after else (r * h) @ w_n.T + b_n))
            h = (1 - z) * n + z * h
            return h, h

        return jax.lax.scan(step, h, x, reverse="reverse" in suffix)

    x = jnp.swapaxes(x, 0, 1)
    last: list[Any] = []
    for k in range(layer.num_layers):
        halves: list[Array] = []
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + layer.bidirectional]:
            h_0 = states[0][:, len(last)] if states else jnp.zeros((x.shape[1], layer.hidden_size), x.dtype)
            h_n, half = direction(x, h_0, suffix)
            halves, last = [*halves, half], [*last, h_n]
        x = jnp.concatenate(halves, -1)
    output = jnp.swapaxes(x, 0, 1)
    return (output, jnp.stack(last, 1)) if states else output


def lstm(layer: Any, params: Params, x: Array, *states: Array) -> Any:
    def direction(x: Array, start: tuple[Array, ...], suffix: str) -> tuple[tuple[Array, ...], Array]:
        def step(state: tuple[Array, ...], x_t: Array) -> tuple[tuple[Array, ...], Array]:
            h, c = state
            a = x_t @ params["weight_ih" + suffix].T + h @ params["weight_hh" + suffix].T
            a = a + params["bias_ih" + suffix] + params["bias_hh" + suffix] if layer.bias else a
            i, f, g, o = jnp.split(a, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jax.lax.scan(step, start, x, reverse="reverse" in suffix)

    x = jnp.swapaxes(x, 0, 1)
    last: list[Any] = []
    for k in range(layer.num_layers):
        halves: list[Array] = []
        for suffix in (f"_l{k}", f"_l{k}_reverse")[: 1 + layer.bidirectional]:
            zeros = jnp.zeros((x.shape[1], layer.hidden_size), x.dtype)
            end, half = direction(x, tuple(state[:, len(last)] for state in states) or (zeros, zeros), suffix)
            halves, last = [*halves, half], [*last, end]
        x = jnp.concatenate(halves, -1)
    output = jnp.swapaxes(x, 0, 1)
    return (output, *(jnp.stack(ends, 1) for ends in zip(*last, strict=True))) if states else output


LOWERINGS: dict[type, Callable[..., Any]] = {R.RNN: rnn, R.GRU: gru, R.LSTM: lstm}
