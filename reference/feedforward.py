"""The founding algorithm: backpropagation through a feed-forward network, in the letters of the lecture notes.

The rest of the reference keeps examples in rows and treats a network layer by layer; here examples are columns, the whole
network is one loop, and the mean over examples shows as the 1/m in dW and db. The two forms are tested equal.

Letters         m examples, n0 inputs, nl units in layer l = 1..L. Capitals hold one example per column.
                `parameters` = {"W1": (n1, n0), "b1": (n1, 1), ..., "WL": (nL, nL-1), "bL": (nL, 1)}
                `cache` = {"A0": X, "Z1", "A1", ..., "ZL", "AL": each (nl, m), and "output": the name of the output}
                `grads` = {"dZl": (nl, m), "dWl" and "dbl": like Wl and bl, "dA0" to "dAL-1": (nl, m)}
Forward         Z[l]_in = sum_j W[l]_ij A[l-1]_jn + b[l]_i      A[l] = max(0, Z[l]) for l < L      A[L] = g(Z[L])
Cost            J = 1/m sum_n loss(A[L]_n, Y_n)

A gradient with an example axis (dZ, dA) is that of the example's own loss, dZ[l]_in = d loss_n / d Z[l]_in, without the
1/m; where the examples are summed over (dW, db) the 1/m of the cost comes in. So dJ/dX is dA0 / m.

Source          Rumelhart, Hinton, Williams, *Learning representations by back-propagating errors*, Nature 323 (1986);
                Nielsen, *Neural Networks and Deep Learning*, chapter 2 (its BP1 to BP4 are named below);
                Goodfellow, Bengio, Courville, *Deep Learning*, 6.2.2 (outputs and their costs) and 6.5 (algorithms 6.3 and 6.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from backproof.reference.functions import sigmoid, softmax
from backproof.reference.rounding import Array
from scipy import special

__all__ = ["OUTPUTS", "ROUTES", "backpropagation", "cost", "forward_propagation"]

Parameters = Mapping[str, Array]


class Output(NamedTuple):
    """A last activation g with its matching loss, and the two factors of the general route to dZ[L]."""

    activation: Callable[[Array], Array]
    """A = g(Z)"""
    loss: Callable[[Array, Array], Array]
    """(A, Y) to the summands of the loss, one per output and example"""
    loss_derivative: Callable[[Array, Array], Array]
    """(A, Y) to dA = d loss / dA"""
    pullback: Callable[[Array, Array], Array]
    """(dA, A) to dZ = g'(Z)^T dA, with g' written in terms of A"""


def _linear(Z: Array) -> Array:
    """A = Z."""
    return Z


def _half_squared_error(A: Array, Y: Array) -> Array:
    """Loss = 1/2 sum_k (A_k - Y_k)^2."""
    return (A - Y) * (A - Y) / 2


def _half_squared_error_derivative(A: Array, Y: Array) -> Array:
    """dA_k = A_k - Y_k."""
    return A - Y


def _linear_pullback(dA: Array, A: Array) -> Array:
    """dZ = dA."""
    return dA


def _sigmoid(Z: Array) -> Array:
    """A = 1 / (1 + e^-Z)."""
    return sigmoid(Z)


def _binary_cross_entropy(A: Array, Y: Array) -> Array:
    """Loss = -sum_k Y_k log A_k + (1 - Y_k) log(1 - A_k), where 0 log 0 = 0."""
    return -(special.xlogy(Y, A) + special.xlog1py(1 - Y, -A))


def _binary_cross_entropy_derivative(A: Array, Y: Array) -> Array:
    """dA_k = -Y_k / A_k + (1 - Y_k) / (1 - A_k)."""
    return -(Y / A) + (1 - Y) / (1 - A)


def _sigmoid_pullback(dA: Array, A: Array) -> Array:
    """dA_k/dZ_k = A_k (1 - A_k), so dZ_k = dA_k A_k (1 - A_k)."""
    return dA * A * (1 - A)


def _softmax(Z: Array) -> Array:
    """A_k = e^Z_k / sum_i e^Z_i, down each column."""
    return softmax(Z, 0)


def _cross_entropy(A: Array, Y: Array) -> Array:
    """Loss = -sum_k Y_k log A_k, where 0 log 0 = 0."""
    return -special.xlogy(Y, A)


def _cross_entropy_derivative(A: Array, Y: Array) -> Array:
    """dA_k = -Y_k / A_k."""
    return -(Y / A)


def _softmax_pullback(dA: Array, A: Array) -> Array:
    """dA_i/dZ_k = A_i (delta_ik - A_k), so dZ_k = A_k (dA_k - sum_i dA_i A_i)."""
    return A * (dA - np.sum(dA * A, axis=0, keepdims=True))


OUTPUTS: dict[str, Output] = {
    "linear": Output(_linear, _half_squared_error, _half_squared_error_derivative, _linear_pullback),
    "sigmoid": Output(_sigmoid, _binary_cross_entropy, _binary_cross_entropy_derivative, _sigmoid_pullback),
    "softmax": Output(_softmax, _cross_entropy, _cross_entropy_derivative, _softmax_pullback),
}
"""Every output with its matching cost, by name."""

ROUTES = ("fused", "general")
"""The two ways to dZ[L]."""


def forward_propagation(X: Array, parameters: Parameters, output: str) -> tuple[Array, dict[str, Any]]:
    """Return A[L] and the cache that `backpropagation` needs.

    Formula         A[0] = X;  Z[l] = W[l] A[l-1] + b[l];  A[l] = max(0, Z[l]) for l < L;  A[L] = g(Z[L])
    Shapes          X (n0, m), A[L] (nL, m); b (n, 1) is added to every column.
    Output          `linear` g(Z) = Z; `sigmoid` g(Z) = 1 / (1 + e^-Z); `softmax` over each column. Hidden layers are ReLU.
    """
    known = _output("forward_propagation", output)
    depth = _depth(X, parameters)
    A = X
    cache: dict[str, Any] = {"output": output, "A0": X}
    for layer in range(1, depth + 1):
        Z = parameters[f"W{layer}"] @ A + parameters[f"b{layer}"]
        A = np.maximum(Z, 0) if layer < depth else known.activation(Z)
        cache[f"Z{layer}"], cache[f"A{layer}"] = Z, A
    return A, cache


def cost(AL: Array, Y: Array, output: str) -> Any:
    """Return J, the mean over the m examples of the loss that matches the output.

    Formula         linear     J = 1/(2m) sum_kn (A_kn - Y_kn)^2
                    sigmoid    J = -1/m sum_kn Y_kn log A_kn + (1 - Y_kn) log(1 - A_kn)
                    softmax    J = -1/m sum_kn Y_kn log A_kn
    Edges           0 log 0 = 0, so an A of exactly 0 or 1 that Y agrees with costs nothing; one that Y disagrees with costs
                    infinity. From A alone no more can be said: `Head` computes the same cost from Z, without that loss of digits.
    """
    known = _output("cost", output)
    _check_target("cost", AL, Y)
    return np.sum(known.loss(AL, Y)) / AL.shape[1]


def backpropagation(cache: Mapping[str, Any], Y: Array, parameters: Parameters, route: str = "fused") -> dict[str, Array]:
    """Return the gradients dZ, dW and db of every layer, and dA of every layer but the last (dA0 is the input's).

    Derivation, with loss_n the loss of example n, so that J = 1/m sum_n loss_n:
    (BP1)           dZ[L]_in = d loss_n / dZ[L]_in = sum_k d loss_n/dA[L]_kn dA[L]_kn/dZ[L]_in, which is A[L]_in - Y_in for all
                    three outputs with their matching loss (softmax: when each column of Y sums to 1):
                    linear   (A - Y) 1
                    sigmoid  (-Y/A + (1 - Y)/(1 - A)) A (1 - A) = -Y (1 - A) + (1 - Y) A = A - Y
                    softmax  sum_k -Y_k/A_k A_k (delta_ki - A_i) = -Y_i + A_i sum_k Y_k = A_i - Y_i
    (BP4)           dW[l]_ij = dJ/dW[l]_ij = 1/m sum_n d loss_n/dZ[l]_in dZ[l]_in/dW[l]_ij = 1/m sum_n dZ[l]_in A[l-1]_jn
                    dW[l] = 1/m dZ[l] A[l-1]^T
    (BP3)           db[l]_i = 1/m sum_n dZ[l]_in, since b is added to every column
    (BP2)           dA[l-1]_jn = sum_i dZ[l]_in dZ[l]_in/dA[l-1]_jn = sum_i W[l]_ij dZ[l]_in
                    dA[l-1] = W[l]^T dZ[l]
                    dZ[l-1]_in = dA[l-1]_in where Z[l-1]_in > 0, else 0
    Shapes          each gradient has the shape of what it is the gradient of.
    Kinks           max(0, Z) at Z = 0: the derivative is taken as 0; any of [0, 1] is a subgradient.
    Routes          `fused` takes dZ[L] = A[L] - Y. `general` forms dA[L] from the loss, then g'(Z[L])^T dA[L]: the same numbers
                    with digits lost where A nears 0 or 1, and not a number where it reaches them.
    """
    known = _output("backpropagation", cache.get("output"))
    if route not in ROUTES:
        raise ValueError(f"backpropagation: unknown route: got {route!r}, expected one of {', '.join(ROUTES)}")
    A0 = _cached(cache, "A0")
    depth, m = _depth(A0, parameters), A0.shape[1]
    AL = _cached(cache, f"A{depth}")
    _check_target("backpropagation", AL, Y)
    grads: dict[str, Array] = {}
    dZ = AL - Y if route == "fused" else known.pullback(known.loss_derivative(AL, Y), AL)
    for layer in range(depth, 0, -1):
        A_previous = _cached(cache, f"A{layer - 1}")
        grads[f"dZ{layer}"] = dZ
        grads[f"dW{layer}"] = dZ @ A_previous.T / m
        grads[f"db{layer}"] = np.sum(dZ, axis=1, keepdims=True) / m
        dA = parameters[f"W{layer}"].T @ dZ
        grads[f"dA{layer - 1}"] = dA
        if layer > 1:
            dZ = np.where(_cached(cache, f"Z{layer - 1}") > 0, dA, 0)
    return grads


def _output(caller: str, name: Any) -> Output:
    if name not in OUTPUTS:
        raise ValueError(f"{caller}: unknown output: got {name!r}, expected one of {', '.join(OUTPUTS)}")
    return OUTPUTS[name]


def _cached(cache: Mapping[str, Any], key: str) -> Array:
    if key not in cache:
        raise ValueError(f"backpropagation: the cache has no {key}: got {', '.join(cache)}. "
                         "Do: pass the cache of forward_propagation, with the parameters it was made with")
    return cache[key]


def _check_target(caller: str, AL: Array, Y: Array) -> None:
    if Y.shape != AL.shape:
        raise ValueError(f"{caller}: wrong shape of Y: got {Y.shape}, expected {AL.shape}, one column per example")


def _depth(X: Array, parameters: Parameters) -> int:
    """Return L; raise ValueError for an input or parameters that do not fit together."""
    if X.ndim != 2 or X.shape[1] == 0:
        raise ValueError(f"wrong shape of X: got {X.shape}, expected (n0, m) with one column per example")
    depth = max(1, (len(parameters) + 1) // 2)
    expected = [f"{letter}{layer}" for layer in range(1, depth + 1) for letter in "Wb"]
    if set(expected) != set(parameters):
        missing = [name for name in expected if name not in parameters]
        raise ValueError(f"parameters: no {', '.join(missing)}: got {', '.join(parameters) or 'none'}, "
                         f"expected {', '.join(expected)}")
    width = X.shape[0]
    for layer in range(1, depth + 1):
        W, b = parameters[f"W{layer}"], parameters[f"b{layer}"]
        if W.ndim != 2 or W.shape[1] != width:
            raise ValueError(f"wrong shape of W{layer}: got {W.shape}, expected (n{layer}, {width}), "
                             f"since A{layer - 1} has {width} rows")
        width = W.shape[0]
        if b.shape != (width, 1):
            raise ValueError(f"wrong shape of b{layer}: got {b.shape}, expected {(width, 1)}, since W{layer} has {width} rows")
    return depth
