"""Layers that pick, drop and scatter entries: their arithmetic is a sum over repeated indices at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.reference.layer import Backward, Constant, Example, Layer, Params, Shape, register
from backproof.reference.reductions import axis_of, check_dim
from backproof.reference.rounding import Array, scatter_add

__all__ = ["Dropout", "Embedding", "Gather", "IndexSelect", "ScatterAdd"]


def _check_index(layer: Any, index: Any, below: int) -> Any:
    """Return the index if it holds whole numbers from 0 to below - 1; raise ValueError otherwise."""
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise ValueError(f"{layer}: wrong index: got {index.dtype} numbers, expected whole ones")
    if index.size and not 0 <= index.min() <= index.max() < below:
        raise ValueError(f"{layer}: index out of range: got {index.min()} to {index.max()}, expected 0 to {below - 1}")
    return index


def _places_along(index: Any, axis: int) -> tuple[Any, ...]:
    """Return what NumPy takes between brackets for `take_along_axis`: the index on its axis, each entry's own place on the others."""
    grid = np.ogrid[tuple(slice(n) for n in index.shape)]
    return tuple(index if a == axis else places for a, places in enumerate(grid))


@register
@dataclass(frozen=True)
class Embedding(Layer):
    """y = the rows of weight that x names. The row `padding_idx` is read as it stands and never trained.

    Formula       y_nd = weight_vd, v = x_n
    Chain rule    dy_nd/dweight_vd = 1 if x_n = v, else 0
                  dweight_vd = sum_(n: x_n = v) dy_nd, and 0 for v = padding_idx
    Shapes        x (batch, ...) of whole numbers, y (batch, ..., embedding_dim), weight (num_embeddings, embedding_dim);
                  n runs over every entry of x, d along the last axis of y. x has no gradient.
    Kinks         none.
    Source        Bengio, Ducharme, Vincent, Jauvin, *A Neural Probabilistic Language Model*, JMLR 3 (2003).
    """

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_embeddings", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"Embedding: wrong {name}: got {getattr(self, name)}, expected at least 1")
        if self.padding_idx is not None and not -self.num_embeddings <= self.padding_idx < self.num_embeddings:
            raise ValueError(f"Embedding: wrong padding_idx: got {self.padding_idx}, "
                             f"expected a row from {-self.num_embeddings} to {self.num_embeddings - 1}")

    def index_below(self) -> tuple[int | None, ...]:
        return (self.num_embeddings,)

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def fixed(self, shape: Shape) -> dict[str, Any]:
        return {} if self.padding_idx is None else {"weight": self.padding_idx}

    def output_shape(self, shape: Shape) -> Shape:
        return (*shape, self.embedding_dim)

    def forward(self, params: Params, x: Any) -> tuple[Array, Backward]:
        weight = params["weight"]
        x = _check_index(self, x, self.num_embeddings)

        def backward(dy: Array) -> tuple[None, dict[str, Array]]:
            if self.padding_idx is not None:
                dy = np.where((x == self.padding_idx % self.num_embeddings)[..., None], 0, dy)
            return None, {"weight": scatter_add(dy, (x,), weight.shape, stored=True)}

        return weight[x], backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(3, 2), (4,)
        yield cls(5, 3, padding_idx=0), (2, 3)
        yield cls(3, 2, padding_idx=-1), (4,)
        yield cls(2, 1), ()
        yield cls(1, 2), (3,)


@register
@dataclass(frozen=True)
class Dropout(Layer):
    """y = x with every entry kept or dropped as the constant `mask` says (1 or 0), and scaled so that its mean is kept.

    Formula       y_n = x_n mask_n / (1 - p); with p = 1 everything is dropped, y_n = 0
    Chain rule    dx_n = dy_n mask_n / (1 - p), the same mask and the same scale
    Shapes        x, y, mask (batch, ...); n runs over every entry.
    Kinks         none: the mask does not depend on x.
    Source        Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, *Dropout*, JMLR 15 (2014), section 10 (the inverted form).
    """

    by_example = True

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"Dropout: wrong p: got {self.p}, expected a probability from 0 to 1")

    def constants(self, shape: Shape) -> dict[str, Constant]:
        return {"mask": Constant(shape, "keep", batched=True, p=1 - self.p)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        mask = params["mask"]

        def scaled(values: Array) -> Array:
            return values * mask / (1 - self.p) if self.p < 1 else values * 0

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return scaled(dy), {}

        return scaled(x), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(0.1), (4,)
        yield cls(0), (3,)
        yield cls(1), (2, 2)


@dataclass(frozen=True)
class _Sized(Layer):
    """A layer that works along axis `dim` and has `size` entries there; the batch axis counts, but it cannot be the one."""

    by_example = True

    dim: int
    size: int

    def __post_init__(self) -> None:
        check_dim(self)
        if self.size < 1:
            raise ValueError(f"{type(self).__name__}: wrong size: got {self.size}, expected at least 1")

    def output_shape(self, shape: Shape) -> Shape:
        axis = axis_of(self, shape)
        return (*shape[: axis - 1], self.size, *shape[axis:])

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(-1, 5), (3,)
        yield cls(1, 4), (2, 3)
        yield cls(-2, 2), (2, 3, 2)
        yield cls(1, 1), (3, 2)
        yield cls(-1, 3), (2, 1)


@register
@dataclass(frozen=True)
class Gather(_Sized):
    """y = the entries of x that the constant `index` names along axis `dim`, each place its own index.

    As in torch the batch axis counts, but it cannot be the one.

    Formula       y_i = x_(index_i)
    Chain rule    dy_i/dx_j = 1 if index_i = j, else 0
                  dx_j = sum_(i: index_i = j) dy_i
    Shapes        x (batch, ...), y and index (batch, ...) with `size` entries along `dim`; i, j run along it, everything else is left out.
    Kinks         none.
    Source        `numpy.take_along_axis`; the gradient is its transpose, as a matrix of zeros and ones.
    """

    def constants(self, shape: Shape) -> dict[str, Constant]:
        return {"index": Constant(self.output_shape(shape), "index", batched=True, below=shape[axis_of(self, shape) - 1])}

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        axis = axis_of(self, x.shape[1:])
        index = _check_index(self, params["index"], x.shape[axis])

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return scatter_add(dy, _places_along(index, axis), x.shape, stored=True), {}

        return np.take_along_axis(x, index, axis), backward


@register
@dataclass(frozen=True)
class ScatterAdd(_Sized):
    """y = zeros to which each entry of x is added at the place that the constant `index` names along axis `dim`.

    As in torch the batch axis counts, but it cannot be the one.

    Formula       y_i = sum_(k: index_k = i) x_k
    Chain rule    dy_i/dx_j = 1 if index_j = i, else 0
                  dx_j = dy_(index_j)
    Shapes        x and index (batch, ...), y (batch, ...) with `size` entries along `dim`; i, j, k run along it, the rest is left out.
    Kinks         none.
    Source        the transpose of `numpy.take_along_axis`, as a matrix of zeros and ones.
    """

    def constants(self, shape: Shape) -> dict[str, Constant]:
        axis_of(self, shape)
        return {"index": Constant(shape, "index", batched=True, below=self.size)}

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        axis = axis_of(self, x.shape[1:])
        index = _check_index(self, params["index"], self.size)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.take_along_axis(dy, index, axis), {}

        shape = (*x.shape[:axis], self.size, *x.shape[axis + 1 :])
        return scatter_add(x, _places_along(index, axis), shape, stored=True), backward


@register
@dataclass(frozen=True)
class IndexSelect(_Sized):
    """y = the slices of x that the constant `index` names along axis `dim`, the same for every place and example.

    As in torch the batch axis counts, but it cannot be the one.

    Formula       y_i = x_(index_i)
    Chain rule    dy_i/dx_j = 1 if index_i = j, else 0
                  dx_j = sum_(i: index_i = j) dy_i
    Shapes        x (batch, ...), y (batch, ...) with `size` entries along `dim`, index (size,); i, j run along `dim`,
                  everything else is left out.
    Kinks         none.
    Source        `numpy.take`; the gradient is its transpose, as a matrix of zeros and ones.
    """

    def constants(self, shape: Shape) -> dict[str, Constant]:
        return {"index": Constant((self.size,), "index", below=shape[axis_of(self, shape) - 1])}

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        axis = axis_of(self, x.shape[1:])
        index = _check_index(self, params["index"], x.shape[axis])
        key = (*[slice(None)] * axis, index)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return scatter_add(dy, key, x.shape, stored=True), {}

        return x[key], backward
