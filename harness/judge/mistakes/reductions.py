"""Mistakes in sums, products and norms along an axis: the wrong end, a division by zero, a term left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import Mistake, faulty
from backproof.reference.layer import Backward, Params
from backproof.reference.reductions import CumProd, CumSum, LogSumExp, Normalize, Prod
from backproof.reference.rounding import Array, running_product, running_sum

__all__ = ["MISTAKES"]


def _not_reversed(layer: CumSum, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (running_sum(dy, layer.dim), {})


def _exclusive(layer: CumSum | CumProd, params: Params, x: Array) -> tuple[Array, Backward]:
    """Leave out the entry's own output."""
    y, right = layer.forward(params, x)
    if isinstance(layer, CumSum):
        return y, lambda dy: (right(dy)[0] - dy, {})
    before = _shifted(y, layer.dim)
    return y, lambda dy: (right(dy)[0] - dy * before, {})


def _shifted(y: Array, dim: int) -> Array:
    """Return y moved on by one along an axis, with 1 at the start."""
    along = np.moveaxis(y, dim, -1)
    return np.moveaxis(np.concatenate([along[..., :1] * 0 + 1, along[..., :-1]], axis=-1), -1, dim)


def _last_only(layer: CumSum, params: Params, x: Array) -> tuple[Array, Backward]:
    """Take y for the total of all entries: each gets the whole sum."""
    y, _ = layer.forward(params, x)
    return y, lambda dy: (x * 0 + np.sum(dy, axis=layer.dim, keepdims=True), {})


def _divided(products: Array, x: Array) -> Array:
    """Return products / x as people write it against the division by zero: 0 where x is 0."""
    return np.where(x == 0, 0, products / np.where(x == 0, 1, x))


def _prod_divided(layer: Prod, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (_divided(np.expand_dims(dy * y, layer.dim), x), {})


def _prod_whole(layer: Prod, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (x * 0 + np.expand_dims(dy * y, layer.dim), {})


def _prod_prefix(layer: Prod, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    before = _shifted(running_product(x, layer.dim), layer.dim)
    return y, lambda dy: (np.expand_dims(dy, layer.dim) * before, {})


def _prod_upstream_lost(layer: Prod, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    return y, lambda dy: right(dy * 0 + 1)


def _cum_prod_divided(layer: CumProd, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (_divided(running_sum(dy * y, layer.dim, backwards=True), x), {})


def _cum_prod_not_reversed(layer: CumProd, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (_divided(running_sum(dy * y, layer.dim), x), {})


def _cum_prod_own_only(layer: CumProd, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    before = _shifted(y, layer.dim)
    return y, lambda dy: (dy * before, {})


def _weights_missing(layer: LogSumExp, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (x * 0 + np.expand_dims(dy, layer.dim), {})


def _weights_even(layer: LogSumExp, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    return y, lambda dy: (x * 0 + np.expand_dims(dy, layer.dim) / x.shape[layer.dim], {})


def _largest_only(layer: LogSumExp, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    largest = x == np.max(x, axis=layer.dim, keepdims=True)
    return y, lambda dy: (np.where(largest, np.expand_dims(dy, layer.dim), 0), {})


def _not_normalised(layer: LogSumExp, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    shifted = np.exp(x - np.max(x, axis=layer.dim, keepdims=True))
    return y, lambda dy: (np.expand_dims(dy, layer.dim) * shifted, {})


def _length(layer: Normalize, x: Array) -> tuple[Any, Array]:
    """Return where the norm is above eps, and max(norm, eps)."""
    total = np.sum(x * x, axis=layer.dim, keepdims=True)
    long = total > layer.eps * layer.eps
    return long, np.where(long, np.sqrt(np.where(long, total, total * 0 + layer.eps * layer.eps)), layer.eps)


def _projection_missing(layer: Normalize, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    _, s = _length(layer, x)
    return y, lambda dy: (dy / s, {})


def _projection_by_input(layer: Normalize, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    long, s = _length(layer, x)
    return y, lambda dy: ((dy - np.where(long, x * np.sum(dy * x, axis=layer.dim, keepdims=True), 0)) / s, {})


def _norm_missing(layer: Normalize, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    _, s = _length(layer, x)
    return y, lambda dy: (right(dy)[0] * s, {})


def _eps_projected(layer: Normalize, params: Params, x: Array) -> tuple[Array, Backward]:
    y, _ = layer.forward(params, x)
    _, s = _length(layer, x)
    return y, lambda dy: ((dy - y * np.sum(dy * y, axis=layer.dim, keepdims=True)) / s, {})


def _eps_stopped(layer: Normalize, params: Params, x: Array) -> tuple[Array, Backward]:
    y, right = layer.forward(params, x)
    long, _ = _length(layer, x)
    return y, lambda dy: (np.where(long, right(dy)[0], 0), {})


MISTAKES: tuple[Mistake, ...] = (
    faulty("cumsum-not-reversed", "{tensor} sums the upstream gradient from the start: it must be summed from the end",
           CumSum, ("dx",), _not_reversed),
    faulty("cumulative-own-lost", "{tensor} lacks the entry's own output: the sum starts one too late",
           (CumSum, CumProd), ("dx",), _exclusive),
    faulty("cumsum-total", "{tensor} is the sum of the whole upstream gradient, as of a plain sum", CumSum, ("dx",), _last_only),
    faulty("prod-divided", "{tensor} is dy * y / x, which is lost where x is 0: there it is the product of the others",
           Prod, ("dx",), _prod_divided),
    faulty("prod-own-factor", "{tensor} is dy * y: the entry's own factor is still in the product", Prod, ("dx",), _prod_whole),
    faulty("prod-prefix-only", "{tensor} lacks the factors behind the entry", Prod, ("dx",), _prod_prefix),
    faulty("prod-upstream-ignored", "{tensor} lacks the factor dy", Prod, ("dx",), _prod_upstream_lost),
    faulty("cumprod-divided", "{tensor} is divided by x, which is lost where x is 0: there the others must be multiplied",
           CumProd, ("dx",), _cum_prod_divided),
    faulty("cumprod-not-reversed", "{tensor} sums dy * y from the start: it must be summed from the end",
           CumProd, ("dx",), _cum_prod_not_reversed),
    faulty("cumprod-own-only", "{tensor} has the entry's own output only: the later ones depend on it too",
           CumProd, ("dx",), _cum_prod_own_only),
    faulty("logsumexp-weights-missing", "{tensor} is dy for every entry: the softmax weights are missing",
           LogSumExp, ("dx",), _weights_missing),
    faulty("logsumexp-even", "{tensor} has equal weights, as of a mean", LogSumExp, ("dx",), _weights_even),
    faulty("logsumexp-largest-only", "{tensor} reaches the largest entry only, as of a maximum", LogSumExp, ("dx",), _largest_only),
    faulty("logsumexp-not-normalised", "{tensor} lacks the division by the sum of the exponentials", LogSumExp, ("dx",), _not_normalised),
    faulty("normalize-projection-missing", "{tensor} lacks the term y sum(dy * y) / s: the norm is held constant",
           Normalize, ("dx",), _projection_missing),
    faulty("normalize-projection-by-input", "{tensor} projects by x in place of y, which is of length one",
           Normalize, ("dx",), _projection_by_input),
    faulty("normalize-norm-missing", "{tensor} lacks the division by the norm", Normalize, ("dx",), _norm_missing),
    faulty("normalize-eps-projected", "{tensor} has the term of the norm where the norm is below eps, too",
           Normalize, ("dx",), _eps_projected),
    faulty("normalize-eps-stopped", "{tensor} is 0 where the norm is below eps: it is dy / eps there", Normalize, ("dx",), _eps_stopped),
)
