"""Convolutions and their transposes over one, two or three axes, as sums over the windows of `convolution_windows`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from backproof.reference.convolution_windows import ConvolutionLayer, Window, pairings, spread, windowed
from backproof.reference.layer import Backward, Example, Params, Shape, ShapeError, register
from backproof.reference.rounding import Array

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d"]

Sizes = int | tuple[int, ...]


@dataclass(frozen=True)
class _Convolution(ConvolutionLayer):
    paddings: ClassVar[tuple[str, ...]] = ("same", "valid")
    out_channels: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Sizes | str = 0
    dilation: Sizes = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.padding == "same" and max(cast("Shape", self.stride)) > 1:
            raise self._wrong("stride", "1 along every axis where padding='same'")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self.out_channels, self._in_channels(shape) // self.groups, *cast("Shape", self.kernel_size))}
        return found | {"bias": (self.out_channels,)} if self.bias else found

    def window(self, inputs: Shape) -> Window:
        """Return the window over an input of these sizes; padding 'same' puts an odd zero behind: as many outputs as inputs."""
        kernel, stride, dilation = (cast("Shape", sizes) for sizes in (self.kernel_size, self.stride, self.dilation))
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        if isinstance(self.padding, str):
            around = reach if self.padding == "same" else [0] * self.axes
            before = tuple(n // 2 for n in around)
        else:
            before, around = self.padding, [2 * p for p in cast("Shape", self.padding)]  # type: ignore[assignment]
        outputs = tuple((i + n - r - 1) // s + 1 for i, n, r, s in zip(inputs, around, reach, stride, strict=True))
        return Window(kernel, stride, before, dilation, inputs, outputs)

    def output_shape(self, shape: Shape) -> Shape:
        self._in_channels(shape)
        outputs = self.window(shape[1:]).outputs
        if min(outputs) < 1:
            raise ShapeError(self, shape, "sizes that, padded, hold the kernel with its dilation")
        return (self.out_channels, *outputs)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        weight, bias = self.kernels(params)
        window, inputs = self.window(x.shape[2:]), self.grouped(x)
        y = windowed(inputs, weight, window, bias).reshape((x.shape[0], self.out_channels, *window.outputs))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            outputs = self.grouped(dy)
            dx = spread(outputs, weight, window).reshape(x.shape)
            return dx, self._gradients(params, pairings(inputs, outputs, window), dy)

        return y, backward


@dataclass(frozen=True)
class _Transposed(ConvolutionLayer):
    out_channels: int
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Sizes = 0
    output_padding: Sizes = 0
    groups: int = 1
    bias: bool = True
    dilation: Sizes = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = (cast("Shape", value) for value in (self.output_padding, self.stride, self.dilation))
        if any(extra >= max(s, d) for extra, s, d in zip(*sizes, strict=True)):
            raise self._wrong("output_padding", "less than the stride or the dilation along its axis")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        found: dict[str, Shape] = {"weight": (self._in_channels(shape), self.out_channels // self.groups, *cast("Shape", self.kernel_size))}
        return found | {"bias": (self.out_channels,)} if self.bias else found

    def window(self, inputs: Shape) -> Window:
        """Return the window of the convolution that this is the transpose of: its outputs are this layer's inputs."""
        options = (self.kernel_size, self.stride, self.padding, self.dilation, self.output_padding)
        kernel, stride, padding, dilation, extra = (cast("Shape", sizes) for sizes in options)
        outputs = tuple((i - 1) * s - 2 * p + d * (k - 1) + e + 1
                        for i, k, s, p, d, e in zip(inputs, kernel, stride, padding, dilation, extra, strict=True))
        return Window(kernel, stride, padding, dilation, inputs=outputs, outputs=inputs)

    def output_shape(self, shape: Shape) -> Shape:
        self._in_channels(shape)
        outputs = self.window(shape[1:]).inputs
        if min(outputs) < 1:
            raise ShapeError(self, shape, "sizes of which the padding leaves something")
        return (self.out_channels, *outputs)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        weight, bias = self.kernels(params)
        window, inputs = self.window(x.shape[2:]), self.grouped(x)
        y = spread(inputs, weight, window, bias).reshape((x.shape[0], self.out_channels, *window.inputs))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            outputs = self.grouped(dy)
            dx = windowed(outputs, weight, window).reshape(x.shape)
            return dx, self._gradients(params, pairings(outputs, inputs, window), dy)

        return y, backward


@register
@dataclass(frozen=True)
class Conv1d(_Convolution):
    """y = sum over the window of x W, plus b (a cross-correlation: the kernel is not turned round).

    Formula       y_nao = sum_bk x_nbi W_abk + b_a, i = s o + d k - p, x = 0 outside
    Chain rule    dy_nao/dx_nbi = W_abk for the k with s o + d k - p = i, else 0
                  dx_nbi = sum_ao dy_nao W_abk over the o, k with s o + d k - p = i
                  dW_abk = sum_no dy_nao x_nbi, i = s o + d k - p
                  db_a = sum_no dy_nao
    Shapes        x (batch, in_channels, length), weight (out_channels, in_channels / groups, kernel_size), bias (out_channels,);
                  y has (length + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1 positions. s, p, d are stride,
                  padding and dilation; a and b run over the channels of one group, and groups have nothing in common.
    Kinks         none.
    Source        Dumoulin, Visin, *A guide to convolution arithmetic for deep learning*, 2016, chapters 2, 4 and 5.
    """

    axes: ClassVar[int] = 1

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2, 3), (2, 5)
        yield cls(2, 2, stride=3, padding=1, bias=False), (1, 6)
        yield cls(1, 3, stride=2, padding=4, dilation=3), (1, 4)
        yield cls(4, 2, stride=2, groups=2), (4, 5)
        yield cls(3, 1, stride=2, groups=3), (3, 4)
        yield cls(2, 4, padding="same", dilation=1), (1, 3)
        yield cls(1, 2, padding="valid", dilation=2), (2, 3)
        yield cls(1, 3, padding=1), (1, 1)


@register
@dataclass(frozen=True)
class Conv2d(_Convolution):
    """y = sum over the window of x W, plus b (a cross-correlation: the kernel is not turned round).

    Formula       y_nao = sum_bk x_nbi W_abk + b_a, i = s o + d k - p, x = 0 outside; i, o, k are pairs
    Chain rule    dy_nao/dx_nbi = W_abk for the k with s o + d k - p = i, else 0
                  dx_nbi = sum_ao dy_nao W_abk over the o, k with s o + d k - p = i
                  dW_abk = sum_no dy_nao x_nbi, i = s o + d k - p
                  db_a = sum_no dy_nao
    Shapes        x (batch, in_channels, height, width), weight (out_channels, in_channels / groups, *kernel_size), bias
                  (out_channels,); y has (size + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1 positions along
                  an axis. a and b run over the channels of one group: with groups = in_channels it is depthwise.
    Kinks         none.
    Source        LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998, section II;
                  Dumoulin, Visin, *A guide to convolution arithmetic for deep learning*, 2016, chapters 2, 4 and 5.
    """

    axes: ClassVar[int] = 2

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2, (2, 1)), (2, 3, 2)
        yield cls(1, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)), (2, 3, 2)
        yield cls(2, 3, stride=2, padding=1, groups=2, bias=False), (2, 3, 2)
        yield cls(4, 2, stride=(1, 3), groups=2), (2, 2, 4)
        yield cls(1, (3, 2), padding="same"), (1, 2, 3)
        yield cls(1, (2, 4), padding=(1, 1)), (1, 1, 2)


@register
@dataclass(frozen=True)
class Conv3d(_Convolution):
    """y = sum over the window of x W, plus b (a cross-correlation: the kernel is not turned round).

    Formula       y_nao = sum_bk x_nbi W_abk + b_a, i = s o + d k - p, x = 0 outside; i, o, k are triples
    Chain rule    dy_nao/dx_nbi = W_abk for the k with s o + d k - p = i, else 0
                  dx_nbi = sum_ao dy_nao W_abk over the o, k with s o + d k - p = i
                  dW_abk = sum_no dy_nao x_nbi, i = s o + d k - p
                  db_a = sum_no dy_nao
    Shapes        x (batch, in_channels, depth, height, width), weight (out_channels, in_channels / groups, *kernel_size), bias
                  (out_channels,); y has (size + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1 positions along
                  an axis. a and b run over the channels of one group.
    Kinks         none.
    Source        Ji, Xu, Yang, Yu, *3D Convolutional Neural Networks for Human Action Recognition*, PAMI 35 (2013), section 2;
                  Dumoulin, Visin, *A guide to convolution arithmetic for deep learning*, 2016.
    """

    axes: ClassVar[int] = 3

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(1, (1, 2, 2)), (1, 2, 2, 3)
        yield cls(2, (2, 1, 2), stride=(1, 2, 3), padding=(1, 0, 1), dilation=(2, 1, 1), groups=2, bias=False), (2, 2, 2, 3)


@register
@dataclass(frozen=True)
class ConvTranspose1d(_Transposed):
    """The transpose of a convolution, with that convolution's weight: each input spreads W into its window, and b is added.

    Formula       y_nbi = sum_ao x_nao W_abk + b_b over the o, k with s o + d k - p = i
    Chain rule    dy_nbi/dx_nao = W_abk for the k with s o + d k - p = i, else 0
                  dx_nao = sum_bk dy_nbi W_abk, i = s o + d k - p, dy = 0 outside
                  dW_abk = sum_no x_nao dy_nbi, i = s o + d k - p
                  db_b = sum_ni dy_nbi
    Shapes        x (batch, in_channels, length), weight (in_channels, out_channels / groups, kernel_size), bias (out_channels,);
                  y has (length - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1 positions;
                  those that output_padding adds behind may lie in no window. a and b run over the channels of one group.
    Kinks         none.
    Source        Dumoulin, Visin, *A guide to convolution arithmetic for deep learning*, 2016, chapter 4.
    """

    axes: ClassVar[int] = 1

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2, 3), (2, 3)
        yield cls(2, 2, stride=3, padding=1, output_padding=2), (1, 3)
        yield cls(4, 3, stride=2, padding=1, groups=2, bias=False), (2, 3)
        yield cls(1, 2, stride=2, padding=0, output_padding=2, dilation=3), (2, 2)
        yield cls(1, 1, padding=1), (1, 3)
        yield cls(3, 2, padding=0, groups=3), (3, 1)


@register
@dataclass(frozen=True)
class ConvTranspose2d(_Transposed):
    """The transpose of a convolution, with that convolution's weight: each input spreads W into its window, and b is added.

    Formula       y_nbi = sum_ao x_nao W_abk + b_b over the o, k with s o + d k - p = i; i, o, k are pairs
    Chain rule    dy_nbi/dx_nao = W_abk for the k with s o + d k - p = i, else 0
                  dx_nao = sum_bk dy_nbi W_abk, i = s o + d k - p, dy = 0 outside
                  dW_abk = sum_no x_nao dy_nbi, i = s o + d k - p
                  db_b = sum_ni dy_nbi
    Shapes        x (batch, in_channels, height, width), weight (in_channels, out_channels / groups, *kernel_size), bias
                  (out_channels,); y has (size - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1
                  positions along an axis. a and b run over the channels of one group.
    Kinks         none.
    Source        Zeiler, Krishnan, Taylor, Fergus, *Deconvolutional Networks*, CVPR 2010;
                  Dumoulin, Visin, *A guide to convolution arithmetic for deep learning*, 2016, chapter 4.
    """

    axes: ClassVar[int] = 2

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2, (2, 1)), (2, 2, 2)
        yield cls(1, (2, 3), stride=(2, 3), padding=(0, 1), output_padding=(1, 2)), (2, 2, 2)
        yield cls(2, 2, stride=(3, 1), groups=2, bias=False, dilation=(1, 2)), (2, 2, 1)
        yield cls(4, (1, 2), stride=2, padding=(0, 1), output_padding=1, groups=2), (2, 1, 2)
