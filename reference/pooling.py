"""Pooling: the largest entry or the mean of sliding windows; sums and means along an axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from backproof.reference.layer import Backward, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array
from backproof.reference.windows import average, by_channel, gather, knockout, shares, spread, windows_of

__all__ = ["AvgPool1d", "AvgPool2d", "MaxPool1d", "MaxPool2d", "Mean", "Sum", "is_whole"]

Sizes = int | tuple[int, ...]


def is_whole(value: Any, least: int) -> bool:
    """Say whether an option is a whole number, at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class _Pool(Layer):
    """Sliding windows over the `axes` last axes."""

    by_example = True
    axes: ClassVar[int]

    kernel_size: Sizes
    stride: Sizes | None = None
    padding: Sizes = 0

    def __post_init__(self) -> None:
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            sizes = self.each(name)
            if len(sizes) != self.axes or not all(is_whole(size, least) for size in sizes):
                raise ValueError(f"{type(self).__name__}: wrong {name}: got {getattr(self, name)}, "
                                 f"expected {' or '.join(['a whole number', *[f'{self.axes} of them'] * (self.axes > 1)])} >= {least}")
        if any(2 * p > k for k, p in zip(self.each("kernel_size"), self.each("padding"), strict=True)):
            raise ValueError(f"{type(self).__name__}: wrong padding: got {self.padding}, expected at most half of "
                             f"kernel_size={self.kernel_size}, so that no window lies in the padding")

    def each(self, name: str) -> tuple[int, ...]:
        """Return an option's number for every axis; without a stride, windows lie side by side."""
        value = getattr(self, name, 1)
        value = self.kernel_size if value is None else value
        return tuple(value) if isinstance(value, tuple) else (value,) * self.axes

    def positions(self, sizes: Shape) -> list[np.ndarray]:
        """Return, for each axis, where entry k of window o lies: o stride + k dilation - padding."""
        options = zip(sizes, *(self.each(name) for name in ("kernel_size", "stride", "padding", "dilation")), strict=True)
        return [np.arange(self._count(n, k, s, p, d)) * s + np.arange(k)[:, None] * d - p for n, k, s, p, d in options]

    def _count(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
        """Return how many windows fit; in ceil mode a last one may reach out, if it starts within the input or the left padding."""
        room = size + 2 * padding - dilation * (kernel - 1) - 1
        count = room // stride + 1
        reaches_out = getattr(self, "ceil_mode") and room % stride and count * stride < size + padding  # noqa: B009  (of subclasses)
        return max(count + bool(reaches_out), 0)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != self.axes + 1:
            raise ShapeError(self, shape, f"(channels, {'height, width' if self.axes == 2 else 'length'})")
        positions = self.positions(shape[1:])
        if any(not along.shape[1] for along in positions):
            raise ShapeError(self, shape, "room for at least one window")
        # a step over the whole axis leaves room for one window at most: along an axis either all windows hold an entry or none does
        if any(not ((along >= 0) & (along < n)).any() for along, n in zip(positions, shape[1:], strict=True)):
            raise ShapeError(self, shape, "an entry in every window")
        return (shape[0], *(along.shape[1] for along in positions))


@dataclass(frozen=True)
class _MaxPool(_Pool):
    dilation: Sizes = 1
    ceil_mode: bool = False

    def conserved(self, dx: Array, dy: Array) -> tuple[Array, Array]:
        return by_channel(dx, dy)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        places, held = windows_of(self, x.shape[2:])
        y, matches = knockout(gather(x, places), places >= 0)

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return spread(shares(dy.reshape(y.shape), matches), held).reshape(x.shape), {}

        return y.reshape((x.shape[0], *self.output_shape(x.shape[1:]))), backward


@register
@dataclass(frozen=True)
class MaxPool1d(_MaxPool):
    """y = the largest entry of each window of a sequence.

    Formula       y_nco = max_k x_nci, i = o stride + k dilation - padding, over the k with 0 <= i < length
    Chain rule    dy_nco/dx_nci = 1 if x_nci is the largest of window o, else 0
                  dx_nci = sum of dy_nco over the windows o that x_nci is the largest of
    Shapes        x (batch, channels, length), y (batch, channels, windows): (length + 2 padding - dilation (kernel_size - 1) - 1)
                  / stride + 1 windows, rounded down, or in ceil mode up, but for a window that starts behind the input.
    Kinks         ties, where dy_nco may be shared among the largest in any way; own choice the first.
    Source        Zhou, Chellappa, *Computation of Optical Flow Using a Neural Network*, ICNN 1988; LeCun et al., *Gradient-Based Learning
                  Applied to Document Recognition*, 1998, for windows; torch.nn.MaxPool1d for ceil mode.
    """

    axes = 1

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (2, 5)
        yield cls(3, stride=1, padding=1), (2, 4)
        yield cls(2, stride=3), (1, 6)
        yield cls(3, stride=2, padding=1, ceil_mode=True), (1, 6)
        yield cls(2, stride=1, dilation=3, padding=1), (1, 6)
        yield cls(1), (2, 1)


@register
@dataclass(frozen=True)
class MaxPool2d(_MaxPool):
    """y = the largest entry of each window of an image.

    Formula       y_nco = max_k x_nci over the k with i inside the image; i, o, k are pairs (row, column),
                  i = o stride + k dilation - padding in each
    Chain rule    dy_nco/dx_nci = 1 if x_nci is the largest of window o, else 0
                  dx_nci = sum of dy_nco over the windows o that x_nci is the largest of
    Shapes        x (batch, channels, height, width), y (batch, channels, rows, columns): (height + 2 padding - dilation (kernel_size - 1)
                  - 1) / stride + 1 rows, rounded down, or in ceil mode up, but for a window that starts behind the input.
    Kinks         ties, where dy_nco may be shared among the largest in any way; own choice the first in row-major order.
    Source        LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998, for windows; Jarrett, Kavukcuoglu, Ranzato,
                  LeCun, *What is the Best Multi-Stage Architecture for Object Recognition?*, ICCV 2009; torch.nn.MaxPool2d for ceil mode.
    """

    axes = 2

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (2, 3, 4)
        yield cls(3, stride=1, padding=1), (1, 3, 4)
        yield cls((1, 3), stride=(3, 2), padding=(0, 1), ceil_mode=True), (1, 4, 4)
        yield cls(2, stride=1, dilation=(2, 1)), (1, 4, 3)
        yield cls((2, 1), padding=(1, 0)), (1, 1, 2)


@dataclass(frozen=True)
class _AvgPool(_Pool):
    ceil_mode: bool = False
    count_include_pad: bool = True

    def divisors(self, sizes: Shape) -> np.ndarray:
        """Return what each window's sum is divided by: its entries, and the padding it covers where that counts.

        In ceil mode a window may reach beyond the padding, which never counts.
        """
        counts = np.ones(1, dtype=np.int64)
        for along, size, padding in zip(self.positions(sizes), sizes, self.each("padding"), strict=True):
            counted = along < size + padding if self.count_include_pad else (along >= 0) & (along < size)
            counts = (counts[:, None] * counted.sum(axis=0)).ravel()
        return counts

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        return average(x, *windows_of(self, x.shape[2:]), self.divisors(x.shape[2:]), self.output_shape(x.shape[1:]))


@register
@dataclass(frozen=True)
class AvgPool1d(_AvgPool):
    """y = the mean of each window of a sequence.

    Formula       y_nco = 1/d_o sum_k x_nci, i = o stride + k - padding, over the k with 0 <= i < length
                  d_o counts these k, with count_include_pad also those with -padding <= i < length + padding
    Chain rule    dy_nco/dx_nci = 1/d_o
                  dx_nci = sum of dy_nco / d_o over the windows o that x_nci lies in
    Shapes        x (batch, channels, length), y (batch, channels, windows): (length + 2 padding - kernel_size) / stride + 1 windows,
                  rounded down, or in ceil mode up, but for a window that starts behind the input.
    Kinks         none.
    Source        LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998; torch.nn.AvgPool1d for the divisor.
    """

    axes = 1

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (2, 5)
        yield cls(3, stride=1, padding=1), (2, 4)
        yield cls(3, stride=1, padding=1, count_include_pad=False), (1, 4)
        yield cls(2, stride=3), (1, 6)
        yield cls(3, stride=2, padding=1, ceil_mode=True), (1, 6)
        yield cls(3, stride=2, ceil_mode=True, count_include_pad=False), (1, 6)
        yield cls(1), (2, 1)


@register
@dataclass(frozen=True)
class AvgPool2d(_AvgPool):
    """y = the mean of each window of an image.

    Formula       y_nco = 1/d_o sum_k x_nci over the k with i inside the image; i, o, k are pairs (row, column),
                  i = o stride + k - padding in each
                  d_o counts these k, with count_include_pad also those with i inside the padded image
    Chain rule    dy_nco/dx_nci = 1/d_o
                  dx_nci = sum of dy_nco / d_o over the windows o that x_nci lies in
    Shapes        x (batch, channels, height, width), y (batch, channels, rows, columns): (height + 2 padding - kernel_size) / stride + 1
                  rows, rounded down, or in ceil mode up, but for a window that starts behind the input.
    Kinks         none.
    Source        LeCun et al., *Gradient-Based Learning Applied to Document Recognition*, 1998; torch.nn.AvgPool2d for the divisor.
    """

    axes = 2

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (2, 3, 4)
        yield cls(3, stride=1, padding=1), (1, 3, 4)
        yield cls((2, 3), stride=(2, 1), padding=(1, 1), count_include_pad=False), (1, 3, 3)
        yield cls((1, 3), stride=(3, 2), padding=(0, 1), ceil_mode=True), (1, 4, 4)
        yield cls((2, 1), padding=(1, 0)), (1, 1, 2)


@dataclass(frozen=True)
class _Reduction(Layer):
    """A reduction along axis `dim`; as in torch, the batch axis counts, but it cannot be the one."""

    by_example = True

    dim: int = -1
    keepdim: bool = False

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise ValueError(f"{type(self).__name__}: wrong dim: got 0, expected an axis other than the batch axis")

    def output_shape(self, shape: Shape) -> Shape:
        if not -len(shape) <= self.dim <= len(shape):
            raise ShapeError(self, shape, f"an axis {self.dim} behind the batch axis")
        axis = self.dim % (len(shape) + 1) - 1
        return (*shape[:axis], *(1,) * self.keepdim, *shape[axis + 1 :])

    def _widened(self, dy: Array, shape: Shape) -> Array:
        """Return dy repeated along the axis that was summed over."""
        return np.broadcast_to(dy if self.keepdim else np.expand_dims(dy, self.dim), shape)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3,)
        yield cls(1), (2, 3)
        yield cls(-2, keepdim=True), (3, 2)
        yield cls(2), (2, 1, 3)


@register
@dataclass(frozen=True)
class Sum(_Reduction):
    """y = the sum along axis `dim`; as in torch, the batch axis counts, but it cannot be the one.

    Formula       y = sum_i x_i
    Chain rule    dx_i = dy
    Shapes        x (batch, ...), y the same without axis `dim`, or with size 1 there if keepdim; i runs along `dim`.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, section 6.5.6.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return self._widened(dy, x.shape), {}

        return np.sum(x, axis=self.dim, keepdims=self.keepdim), backward


@register
@dataclass(frozen=True)
class Mean(_Reduction):
    """y = the mean along axis `dim`; as in torch, the batch axis counts, but it cannot be the one.

    Formula       y = 1/n sum_i x_i
    Chain rule    dx_i = dy / n
    Shapes        x (batch, ...), y the same without axis `dim`, or with size 1 there if keepdim; i runs along `dim`, of size n.
    Kinks         none.
    Source        Goodfellow, Bengio, Courville, *Deep Learning*, section 6.5.6.
    """

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        size = x.shape[self.dim]

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            return self._widened(dy / size, x.shape), {}

        return np.sum(x, axis=self.dim, keepdims=self.keepdim) / size, backward
