"""Inputs of different shapes spread over each other behind the batch axis, and the gradient summed back to the shape of each."""

from __future__ import annotations

import numpy as np
from backproof.reference.layer import Layer, Shape, ShapeError
from backproof.reference.rounding import Array

__all__ = ["aligned", "broadcast_shape", "summed_to"]


def broadcast_shape(layer: Layer, a: Shape, b: Shape) -> Shape:
    """Return the shape two inputs have together."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise ShapeError(layer, (a, b), "sizes that are equal or 1, from the last axis on") from None


def aligned(x: Array, axes: int) -> Array:
    """Return x with axes of size 1 put in behind the batch axis, so that NumPy broadcasts it as shapes without a batch axis do."""
    return x.reshape((x.shape[0], *[1] * (axes - x.ndim), *x.shape[1:]))


def summed_to(dy: Array, shape: Shape) -> Array:
    """Return the sum of dy over the entries that one entry of an input of this shape was spread to."""
    lent = dy.ndim - len(shape)
    axes = tuple(i for i in range(1, dy.ndim) if i <= lent or (shape[i - lent] == 1 and dy.shape[i] != 1))
    return np.sum(dy, axis=axes).reshape(shape)
