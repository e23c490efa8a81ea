"""Networks of the founding text as two functions and their parameters, right ones and ways to change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from backproof.report.finding import Finding
from backproof.report.report import Report

Parameters = dict[str, Any]
Loss = Callable[[Parameters], Any]
Gradients = Callable[[Parameters], dict[str, Any]]
Model = tuple[Loss, Gradients, Parameters]

HIDDEN = {"relu": (lambda Z: np.maximum(Z, 0), lambda Z, A: Z > 0), "tanh": (np.tanh, lambda Z, A: 1 - A * A)}


def network(widths: tuple[int, ...] = (4, 6, 3), m: int = 12, output: str = "softmax", *, hidden: str = "tanh", lam: float = 0.6,
            dtype: type = np.float64, seed: int = 0) -> Model:
    """Return a network in the founding text's form, with a regularisation term lam / 2m ||W||^2."""
    rng, depth = np.random.default_rng(seed), len(widths) - 1
    X = rng.standard_normal((widths[0], m)).astype(dtype)
    labels = {"linear": lambda: rng.standard_normal((widths[-1], m)), "sigmoid": lambda: rng.integers(2, size=(widths[-1], m)),
              "softmax": lambda: np.eye(widths[-1])[rng.integers(widths[-1], size=m)].T}
    Y = labels[output]().astype(dtype)
    parameters: Parameters = {}
    for l, (before, after) in enumerate(pairwise(widths), 1):
        parameters[f"W{l}"] = (rng.standard_normal((after, before)) / math.sqrt(before)).astype(dtype)
        parameters[f"b{l}"] = (rng.standard_normal((after, 1)) / 10).astype(dtype)
    g, slope = HIDDEN[hidden]

    def forward(parameters: Parameters) -> Parameters:
        cache: Parameters = {"A0": X}
        for l in range(1, depth + 1):
            Z = parameters[f"W{l}"] @ cache[f"A{l - 1}"] + parameters[f"b{l}"]
            if l < depth or output == "linear":
                A = g(Z) if l < depth else Z
            elif output == "sigmoid":
                A = 1 / (1 + np.exp(-Z))
            else:
                e = np.exp(Z - np.max(Z, axis=0, keepdims=True))
                A = e / np.sum(e, axis=0, keepdims=True)
            cache[f"Z{l}"], cache[f"A{l}"] = Z, A
        return cache

    def loss(parameters: Parameters) -> Any:
        A = forward(parameters)[f"A{depth}"]
        losses = {"linear": lambda: (A - Y) ** 2 / 2, "sigmoid": lambda: -(Y * np.log(A) + (1 - Y) * np.log(1 - A)),
                  "softmax": lambda: -Y * np.log(A)}[output]()
        return np.sum(losses) / m + lam / (2 * m) * sum(np.sum(np.square(parameters[f"W{l}"])) for l in range(1, depth + 1))

    def gradients(parameters: Parameters) -> Parameters:
        cache, found = forward(parameters), dict[str, Any]()
        dZ = cache[f"A{depth}"] - Y
        for l in range(depth, 0, -1):
            found[f"dW{l}"] = dZ @ cache[f"A{l - 1}"].T / m + lam / m * parameters[f"W{l}"]
            found[f"db{l}"] = np.sum(dZ, axis=1, keepdims=True) / m
            if l > 1:
                dZ = parameters[f"W{l}"].T @ dZ * slope(cache[f"Z{l - 1}"], cache[f"A{l - 1}"])
        return found

    return loss, gradients, parameters


def changed(gradients: Gradients, **by: Callable[[Any], Any]) -> Gradients:
    """Return gradients of which some are changed."""
    return lambda parameters: {key: by[key](value) if key in by else value for key, value in gradients(parameters).items()}


def one_off(part: float, index: tuple[int, ...] = (1, 2)) -> Callable[[np.ndarray], np.ndarray]:
    """Return a mistake: one entry is off by a part of the largest."""

    def off(gradient: np.ndarray) -> np.ndarray:
        gradient = gradient.copy()
        gradient[index] += part * np.max(np.abs(gradient))
        return gradient

    return off


def no_class(function: Callable[[Parameters], Any]) -> Callable[[Parameters], Any]:
    """Return a function that turns its arrays into plain ones."""
    return lambda parameters: function({name: np.array(array) for name, array in parameters.items()})


def no_complex(loss: Loss) -> Loss:
    """Return a loss that takes no complex numbers."""

    def real(parameters: Parameters) -> Any:
        if any(np.iscomplexobj(array) for array in parameters.values()):
            raise TypeError("real numbers only")
        return loss(parameters)

    return real


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding
