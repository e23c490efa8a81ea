"""Layers that move numbers about or bring several inputs together: shapes, sums and products, forks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from backproof.reference.broadcasting import aligned, broadcast_shape, summed_to
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array, added

__all__ = ["Add", "Concatenate", "Flatten", "Fork", "Multiply", "Reshape", "Transpose"]


@register
@dataclass(frozen=True)
class Flatten(Layer):
    """All axes but the batch in one.

    Formula       y_nk = x_n(i,j,...), k the place of (i, j, ...) in row-major order
    Chain rule    dx_n(i,j,...) = dy_nk
    Shapes        x (batch, ...), y (batch, product of the rest).
    Kinks         none.
    Source        a relabelling of entries: its Jacobian is the identity.
    """

    by_example = True

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy.reshape(x.shape), {}

        return x.reshape((x.shape[0], prod(x.shape[1:]))), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(), ()
        yield cls(), (1, 2, 2)


@register
@dataclass(frozen=True)
class Reshape(Layer):
    """The entries of an example in row-major order under another shape; one size may be -1, and then follows from the others.

    Formula       y_nk = x_nk, k the place in row-major order
    Chain rule    dx_nk = dy_nk
    Shapes        x (batch, ...), y (batch, *shape).
    Kinks         none.
    Source        a relabelling of entries: its Jacobian is the identity.
    """

    by_example = True

    shape: Shape

    def __post_init__(self) -> None:
        if sum(n == -1 for n in self.shape) > 1 or any(n < -1 for n in self.shape):
            raise ValueError(f"Reshape: wrong shape: got {self.shape}, expected sizes of which one may be -1")

    def output_shape(self, shape: Shape) -> Shape:
        size, rest = prod(shape), prod(n for n in self.shape if n != -1)
        fits = rest and size % rest == 0 if -1 in self.shape else size == rest
        if not fits:
            raise ShapeError(self, shape, f"{rest} entries{' or a multiple' if -1 in self.shape else ''}")
        return tuple(size // rest if n == -1 else n for n in self.shape)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return dy.reshape(x.shape), {}

        return x.reshape((x.shape[0], *self.output_shape(tuple(x.shape[1:])))), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls((2, 3)), (3, 2)
        yield cls((2, -1, 1)), (6,)
        yield cls(()), (1, 1)


@register
@dataclass(frozen=True)
class Transpose(Layer):
    """Two axes exchanged; as in torch, the batch axis counts, but it cannot be one of them.

    Formula       y_..i..j.. = x_..j..i..
    Chain rule    dx_..j..i.. = dy_..i..j..
    Shapes        x (batch, ..., a, ..., b, ...), y (batch, ..., b, ..., a, ...).
    Kinks         none.
    Source        a relabelling of entries: its Jacobian is a permutation, whose transpose is its inverse.
    """

    by_example = True

    dim0: int = 1
    dim1: int = 2

    def __post_init__(self) -> None:
        if 0 in {self.dim0, self.dim1}:
            raise ValueError(f"Transpose: wrong axes: got {self.dim0} and {self.dim1}, expected two axes other than the batch axis")

    def output_shape(self, shape: Shape) -> Shape:
        axes = len(shape) + 1
        places = [d % axes for d in (self.dim0, self.dim1) if -axes < d < axes]
        if len(places) < 2 or 0 in places:
            raise ShapeError(self, shape, f"axes {self.dim0} and {self.dim1} behind the batch axis")
        sizes = [0, *shape]
        sizes[places[0]], sizes[places[1]] = sizes[places[1]], sizes[places[0]]
        return tuple(sizes[1:])

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return np.swapaxes(dy, self.dim0, self.dim1), {}

        return np.swapaxes(x, self.dim0, self.dim1), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2)
        yield cls(1, -1), (1, 2, 3)
        yield cls(-2, -2), (2, 3)


@register
@dataclass(frozen=True)
class Concatenate(Layer):
    """The inputs one behind the other along axis `dim`; the batch axis counts, but it cannot be the one.

    Formula       y = [x_0, x_1, ...]
    Chain rule    dx_i = the part of dy that x_i went to: from n_0 + ... + n_(i-1) on, n_i long
    Shapes        x_i (batch, ..., n_i, ...), y (batch, ..., sum n_i, ...).
    Kinks         none.
    Source        a relabelling of entries: its Jacobian is the identity, cut into blocks.
    """

    by_example = True

    dim: int = -1
    inputs: int = 2

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise ValueError("Concatenate: wrong dim: got 0, expected an axis other than the batch axis")
        if self.inputs < 1:
            raise ValueError(f"Concatenate: wrong number of inputs: got {self.inputs}, expected at least 1")

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"x_{i}" for i in range(self.inputs))

    def output_shape(self, *shapes: Shape) -> Shape:
        axes = len(shapes[0]) + 1
        if not (-axes < self.dim < axes):
            raise ShapeError(self, shapes, f"an axis {self.dim} behind the batch axis")
        axis = self.dim % axes - 1
        if any(len(s) != len(shapes[0]) or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes):
            raise ShapeError(self, shapes, f"the same sizes but along axis {self.dim}")
        return (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Backward]:
        ends = np.cumsum([x.shape[self.dim] for x in xs])

        def backward(dy: Array) -> tuple[Any, dict[str, Array]]:
            parts = tuple(np.split(dy, ends[:-1], self.dim))
            return parts if len(parts) > 1 else parts[0], {}

        return np.concatenate(xs, axis=self.dim), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 3), (2, 1)
        yield cls(1, 3), (1, 2), (2, 2), (1, 2)
        yield cls(-1, 1), (3,)


@register
@dataclass(frozen=True)
class Add(Layer):
    """y = a + b; sizes of 1 and missing leading axes are spread over the other input.

    Formula       y_k = a_k + b_k
    Chain rule    da_k = sum of dy over the entries that a_k was spread to
                  db_k = sum of dy over the entries that b_k was spread to
    Shapes        a, b (batch, ...), y the two broadcast; the batch axis is never spread.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 6.5.2: a value used several times gathers all gradients.
    """

    by_example = True
    input_names = ("a", "b")

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        return broadcast_shape(self, a, b)

    def forward(self, params: Params, a: Array, b: Array) -> tuple[Array, Backward]:
        axes = max(a.ndim, b.ndim)

        def backward(dy: Array) -> tuple[tuple[Array, Array], dict[str, Array]]:
            return (summed_to(dy, a.shape), summed_to(dy, b.shape)), {}

        return aligned(a, axes) + aligned(b, axes), backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2), (3, 2)
        yield cls(), (3, 2), (1, 2)
        yield cls(), (2,), (3, 1)
        yield cls(), (), (2,)


@register
@dataclass(frozen=True)
class Multiply(Layer):
    """y = a b, entry by entry; sizes of 1 and missing leading axes are spread over the other input.

    Formula       y_k = a_k b_k
    Chain rule    da_k = sum of dy b over the entries that a_k was spread to
                  db_k = sum of dy a over the entries that b_k was spread to
    Shapes        a, b (batch, ...), y the two broadcast; the batch axis is never spread.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 6.5.2.
    """

    by_example = True
    input_names = ("a", "b")

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        return broadcast_shape(self, a, b)

    def forward(self, params: Params, a: Array, b: Array) -> tuple[Array, Backward]:
        axes = max(a.ndim, b.ndim)
        left, right = aligned(a, axes), aligned(b, axes)

        def backward(dy: Array) -> tuple[tuple[Array, Array], dict[str, Array]]:
            return (summed_to(dy * right, a.shape), summed_to(dy * left, b.shape)), {}

        return left * right, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3, 2), (3, 2)
        yield cls(), (3, 2), (1, 2)
        yield cls(), (2,), (3, 1)
        yield cls(), (), (2,)


@register
@dataclass(frozen=True)
class Fork(Layer):
    """One value used several times: every use gets it as it is, and gradients add up. Graphs put it in where a value is shared.

    Formula       output_i = x
    Chain rule    dx = sum_i d(output_i)
    Shapes        x and every output the same; a parameter that is shared is forked too, and has no batch axis.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, 6.5.2: the sum over all paths.
    """

    copies: int = 2

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"Fork: wrong number of copies: got {self.copies}, expected at least 1")

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(f"output_{i}" for i in range(self.copies)) if self.copies > 1 else ("output",)

    def output_shape(self, shape: Shape) -> Any:
        return (shape,) * self.copies if self.copies > 1 else shape

    def forward(self, params: Params, x: Array) -> tuple[Any, Backward]:
        def backward(*dys: Array) -> tuple[Array, dict[str, Array]]:
            return None if dys[0] is None else added(dys), {}

        return (x,) * self.copies if self.copies > 1 else x, backward

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3,)
        yield cls(3), (2, 1)
        yield cls(1), (2,)
