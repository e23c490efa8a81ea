"""A two-layer network as a notebook has it, examples in columns, with a mistake: db1 is not divided by the number of examples."""

import backproof as bp
import numpy as np

Arrays = dict[str, np.ndarray]

rng = np.random.default_rng(1)
m = 50
X = rng.standard_normal((4, m))
Y = (X[:1] * X[1:2] > 0).astype(float)
parameters = {"W1": rng.standard_normal((8, 4)) / 2, "b1": np.zeros((8, 1)), "W2": rng.standard_normal((1, 8)) / 2, "b2": np.zeros((1, 1))}


def forward(parameters: Arrays) -> Arrays:
    """Return the cache: Z and A of both layers."""
    Z1 = parameters["W1"] @ X + parameters["b1"]
    A1 = np.maximum(0, Z1)
    Z2 = parameters["W2"] @ A1 + parameters["b2"]
    A2 = 1 / (1 + np.exp(-Z2))
    return {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}


def loss(parameters: Arrays) -> float:
    """Return the cross entropy, the mean over the examples."""
    A2 = forward(parameters)["A2"]
    return -np.sum(Y * np.log(A2) + (1 - Y) * np.log(1 - A2)) / m


def gradients(parameters: Arrays) -> Arrays:
    """Return dW and db of both layers."""
    cache = forward(parameters)
    dZ2 = cache["A2"] - Y
    dW2 = dZ2 @ cache["A1"].T / m
    db2 = np.sum(dZ2, axis=1, keepdims=True) / m
    dZ1 = parameters["W2"].T @ dZ2 * (cache["Z1"] > 0)
    dW1 = dZ1 @ X.T / m
    db1 = np.sum(dZ1, axis=1, keepdims=True)  # the mistake: "/ m" is missing
    return {"dW1": dW1, "db1": db1, "dW2": dW2, "db2": db2}


print(bp.check_gradients(loss, gradients, parameters))
