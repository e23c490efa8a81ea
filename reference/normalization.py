"""Normalisation: entries are shifted and scaled by the mean and variance of the group they belong to."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from backproof.reference.layer import Backward, Constant, Example, Layer, Params, Shape, ShapeError, register
from backproof.reference.moments import Axes, Standardised, given, root_mean_square, standardised
from backproof.reference.normalization_sums import bias_gradient, weight_gradient
from backproof.reference.rounding import Array

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "Normalisation", "RMSNorm"]


class Normalisation(Layer):
    """What the normalisations share; they differ in which entries make a group, and in which share a weight.

    Formula       y_i = h_i w_i + b_i, h_i = (x_i - m) r, r = 1 / sqrt(v + eps), m = 1/n sum_k x_k, v = 1/n sum_k (x_k - m)^2
    Chain rule    with g_i = dy_i w_i, and since sum_k (x_k - m) = 0 takes dm out of dv:
                  dm/dx_j = 1/n,  dv/dx_j = 2/n (x_j - m),  dr/dv = -r^3/2
                  dh_i/dx_j = r (delta_ij - 1/n) - (x_i - m) r^3 (x_j - m) / n = r (delta_ij - 1/n - h_i h_j / n)
                  dx_j = sum_i g_i dh_i/dx_j = r (g_j - 1/n sum_i g_i - h_j 1/n sum_i g_i h_i)
                  dw_i = sum dy_i h_i, db_i = sum dy_i, over every entry that shares the weight
    """

    eps: float

    def _check_eps(self) -> None:
        if not 0 < self.eps < math.inf:
            raise ValueError(f"{type(self).__name__}: wrong eps: got {self.eps}, expected a finite number > 0")

    @abstractmethod
    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        """Return the shape in which x is laid out (batch axis included), the axes of a group, and the axes that weights lie along."""

    def statistics(self, params: Params, x: Array, axes: Axes) -> Standardised:
        """Return the groups of x along `axes`, standardised."""
        return standardised(x, axes, self.eps)

    def forward(self, params: Params, x: Array) -> tuple[Array, Backward]:
        layout, axes, kept = self.grouping(x.shape)
        groups = self.statistics(params, x.reshape(layout), axes)
        along = tuple(size if axis in kept else 1 for axis, size in enumerate(layout))
        shared = tuple(axis for axis in range(len(layout)) if axis not in kept)
        weight, bias = (params[name].reshape(along) if name in params else None for name in ("weight", "bias"))

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dy = dy.reshape(layout)
            dparams = {}
            if weight is not None:
                dparams["weight"] = weight_gradient(groups, dy, shared).reshape(params["weight"].shape)
            if bias is not None:
                dparams["bias"] = bias_gradient(groups, dy, shared).reshape(params["bias"].shape)
            return groups.pullback(dy, weight).reshape(x.shape), dparams

        return groups.affine(weight, bias).reshape(x.shape), backward


def _per_channel(layer: Normalisation, shape: Shape) -> dict[str, Shape]:
    return {"weight": shape[:1], "bias": shape[:1]} if layer.affine else {}  # type: ignore[attr-defined]


@register
@dataclass(frozen=True)
class BatchNorm(Normalisation):
    """Normalise each channel (axis 1) over the batch and space: by its own statistics in training, by running ones in evaluation.

    Formula       y_i = h_i w + b, h_i = (x_i - m) r, r = 1 / sqrt(v + eps)
                  training:    m = 1/n sum_k x_k, v = 1/n sum_k (x_k - m)^2; n counts the batch times all of space
                  evaluation:  m and v are the constants running_mean and running_var
    Chain rule    training:    dx_j = r w (dy_j - 1/n sum_i dy_i - h_j 1/n sum_i dy_i h_i): see Normalisation
                  evaluation:  dx_j = r w dy_j
                  dw = sum_i dy_i h_i
                  db = sum_i dy_i
    Shapes        x, y (batch, channels, ...); weight, bias (channels,); i, j, k run over the batch and space of one channel.
                  One entry to a channel is its own mean: h = 0 and dx = 0 (torch refuses it).
    Kinks         none.
    Source        Ioffe, Szegedy, *Batch Normalization*, ICML 2015, section 3; its dx is this one before dv is put in.
    """

    eps: float = 1e-5
    training: bool = True
    affine: bool = True

    def __post_init__(self) -> None:
        self._check_eps()

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return _per_channel(self, shape)

    def constants(self, shape: Shape) -> dict[str, Constant]:
        if self.training:
            return {}
        return {"running_mean": Constant(shape[:1]), "running_var": Constant(shape[:1], "positive")}

    def output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ShapeError(self, shape, "an axis of channels")
        return shape

    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        return shape, (0, *range(2, len(shape))), (1,)

    def statistics(self, params: Params, x: Array, axes: Axes) -> Standardised:
        if self.training:
            return standardised(x, axes, self.eps)
        along = (1, -1, *(1 for _ in x.shape[2:]))
        return given(x, axes, params["running_mean"].reshape(along), params["running_var"].reshape(along), self.eps)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (3,)
        yield cls(eps=0.5), (2, 3)
        yield cls(affine=False), (2, 1, 2)
        yield cls(training=False), (3, 2)
        yield cls(training=False, affine=False), (2,)


@register
@dataclass(frozen=True)
class LayerNorm(Normalisation):
    """Normalise each example over its last `axes` axes, every entry with a weight of its own.

    Formula       y_i = h_i w_i + b_i, h_i = (x_i - m) r, r = 1 / sqrt(v + eps), m = 1/n sum_k x_k, v = 1/n sum_k (x_k - m)^2
    Chain rule    dx_j = r (g_j - 1/n sum_i g_i - h_j 1/n sum_i g_i h_i), g_i = dy_i w_i: see Normalisation
                  dw_i = sum_n dy_ni h_ni
                  db_i = sum_n dy_ni
    Shapes        x, y (batch, ...); weight, bias as the last `axes` axes of x, over which i, j, k run; n runs over the others.
    Kinks         none.
    Source        Ba, Kiros, Hinton, *Layer Normalization*, 2016, equation 4 (with eps under the root, as everyone has it).
    """

    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True
    axes: int = 1

    def __post_init__(self) -> None:
        self._check_eps()
        if self.axes < 1:
            raise ValueError(f"LayerNorm: wrong axes: got {self.axes}, expected the number of trailing axes, at least 1")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        if not self.elementwise_affine:
            return {}
        found = {"weight": shape[-self.axes :]}
        return found | {"bias": shape[-self.axes :]} if self.bias else found

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < self.axes:
            raise ShapeError(self, shape, f"at least {self.axes} axes")
        return shape

    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        last = tuple(range(len(shape) - self.axes, len(shape)))
        return shape, last, last

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (4,)
        yield cls(eps=0.5), (2, 3)
        yield cls(axes=2), (2, 3)
        yield cls(bias=False), (3,)
        yield cls(elementwise_affine=False, axes=2), (2, 2, 2)
        yield cls(), (2, 1)


@register
@dataclass(frozen=True)
class RMSNorm(Normalisation):
    """Divide by the root mean square of the last axis; no mean is taken away.

    Formula       y_i = h_i w_i, h_i = x_i r, r = 1 / sqrt(v + eps), v = 1/n sum_k x_k^2
    Chain rule    dr/dx_j = -r^3 x_j / n = -r^2 h_j / n
                  dx_j = r (g_j - h_j 1/n sum_i g_i h_i), g_i = dy_i w_i
                  dw_i = sum_n dy_ni h_ni
    Shapes        x, y (batch, ..., features); weight (features,); i, j, k run along the last axis, n over the others.
    Kinks         none.
    Source        Zhang, Sennrich, *Root Mean Square Layer Normalization*, NeurIPS 2019, equation 4.
    """

    eps: float = 1e-6
    elementwise_affine: bool = True

    def __post_init__(self) -> None:
        self._check_eps()

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"weight": shape[-1:]} if self.elementwise_affine else {}

    def output_shape(self, shape: Shape) -> Shape:
        if not shape:
            raise ShapeError(self, shape, "an axis of features")
        return shape

    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        last = (len(shape) - 1,)
        return shape, last, last

    def statistics(self, params: Params, x: Array, axes: Axes) -> Standardised:
        return root_mean_square(x, axes, self.eps)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (4,)
        yield cls(eps=0.5), (2, 3)
        yield cls(elementwise_affine=False), (2, 3)
        yield cls(), (2, 1)


@register
@dataclass(frozen=True)
class GroupNorm(Normalisation):
    """Normalise each example over `num_groups` runs of neighbouring channels (axis 1) and all of space.

    Formula       y_ci = h_ci w_c + b_c, h_ci = (x_ci - m) r, r = 1 / sqrt(v + eps)
                  m = 1/n sum_dk x_dk, v = 1/n sum_dk (x_dk - m)^2 over the channels d of c's group, c // (channels / num_groups)
    Chain rule    dx_ci = r (g_ci - 1/n sum_dk g_dk - h_ci 1/n sum_dk g_dk h_dk), g_ci = dy_ci w_c: see Normalisation
                  dw_c = sum_ni dy_nci h_nci
                  db_c = sum_ni dy_nci
    Shapes        x, y (batch, channels, ...); weight, bias (channels,); i, k run over space, n over the batch.
                  One entry to a group is its own mean: h = 0 and dx = 0 (torch refuses it for a batch of 1).
    Kinks         none.
    Source        Wu, He, *Group Normalization*, ECCV 2018, equations 1 and 7.
    """

    num_groups: int
    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        self._check_eps()
        if self.num_groups < 1:
            raise ValueError(f"GroupNorm: wrong num_groups: got {self.num_groups}, expected at least 1")

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return _per_channel(self, shape)

    def output_shape(self, shape: Shape) -> Shape:
        if not shape or shape[0] % self.num_groups:
            raise ShapeError(self, shape, f"channels that {self.num_groups} groups divide")
        return shape

    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        groups = self.num_groups
        return (shape[0], groups, shape[1] // groups, math.prod(shape[2:])), (2, 3), (1, 2)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(2), (4, 3)
        yield cls(1, eps=0.5), (2, 2, 2)
        yield cls(2, affine=False), (6,)
        yield cls(2), (2, 3)
        yield cls(3), (3,)


@register
@dataclass(frozen=True)
class InstanceNorm(Normalisation):
    """Normalise each channel (axis 1) of each example over space.

    Formula       y_i = h_i w + b, h_i = (x_i - m) r, r = 1 / sqrt(v + eps), m = 1/n sum_k x_k, v = 1/n sum_k (x_k - m)^2
    Chain rule    dx_j = r w (dy_j - 1/n sum_i dy_i - h_j 1/n sum_i dy_i h_i): see Normalisation
                  dw = sum_ni dy_ni h_ni
                  db = sum_ni dy_ni
    Shapes        x, y (batch, channels, ...), with more than one entry to a channel, since one alone is 0 whatever it is;
                  weight, bias (channels,); i, j, k run over the space of one channel, n over the batch.
    Kinks         none.
    Source        Ulyanov, Vedaldi, Lempitsky, *Instance Normalization: The Missing Ingredient for Fast Stylization*, 2016, equation 7.
    """

    eps: float = 1e-5
    affine: bool = False

    def __post_init__(self) -> None:
        self._check_eps()

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return _per_channel(self, shape)

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) < 2 or math.prod(shape[1:]) == 1:
            raise ShapeError(self, shape, "channels and more than one entry of space")
        return shape

    def grouping(self, shape: Shape) -> tuple[Shape, Axes, Axes]:
        return shape, tuple(range(2, len(shape))), (1,)

    @classmethod
    def examples(cls) -> Iterator[Example]:
        yield cls(), (2, 3)
        yield cls(affine=True), (3, 2)
        yield cls(eps=0.5, affine=True), (2, 1, 2)
        yield cls(affine=True), (1, 2, 2, 2)
