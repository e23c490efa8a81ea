"""The tables that say which rule each operator and function of NumPy has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.rounding.comparison import comparison
from backproof.reference.rounding.contractions import matmul
from backproof.reference.rounding.dispatch import FUNCTIONS, UFUNCS
from backproof.reference.rounding.elementary import ELEMENTARY, exponential, log_add_exp
from backproof.reference.rounding.operations import absolute, add, divide, multiply, negative, power, subtract
from backproof.reference.rounding.selections import extremum, largest_along, smallest_along, where
from backproof.reference.rounding.structure import joining, split, structural
from backproof.reference.rounding.sums import averaged, summed

__all__ = ["RULES_OF_FUNCTIONS", "RULES_OF_UFUNCS"]

RULES_OF_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: add, np.subtract: subtract, np.multiply: multiply, np.divide: divide, np.power: power,
    np.square: lambda x: multiply(x, x), np.reciprocal: lambda x: divide(x.arithmetic.lift(1.0), x),
    np.matmul: matmul, np.negative: negative, np.absolute: absolute,
    np.maximum: extremum(np.maximum), np.minimum: extremum(np.minimum), np.logaddexp: log_add_exp, np.exp: exponential,
    **ELEMENTARY,
    **{f: comparison(f) for f in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)},
}

RULES_OF_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.sum: summed, np.mean: averaged, np.max: largest_along, np.min: smallest_along, np.where: where, np.split: split,
    np.concatenate: joining(np.concatenate), np.stack: joining(np.stack),
    np.zeros_like: lambda x, **_: np.zeros(x.shape), np.ones_like: lambda x, **_: np.ones(x.shape), np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim, np.size: lambda x: x.size,
    **{f: structural(f) for f in (np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze,
                                  np.broadcast_to, np.take_along_axis, np.flip, np.ravel)},
}

UFUNCS.update(RULES_OF_UFUNCS)
FUNCTIONS.update(RULES_OF_FUNCTIONS)
