"""How each layer is drawn for the shape that flows into it: one entry per layer, which says what it takes and what to draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from backproof.draw.family import FEW, LARGEST, SIZES, Family
from backproof.reference import activations as A  # noqa: N812
from backproof.reference import attention as T  # noqa: N812
from backproof.reference import containers as C  # noqa: N812
from backproof.reference import convolution as V  # noqa: N812
from backproof.reference import indexing as I  # noqa: N812
from backproof.reference import normalization as N  # noqa: N812
from backproof.reference import pooling as P  # noqa: N812
from backproof.reference import recurrent as R  # noqa: N812
from backproof.reference import reductions as D  # noqa: N812
from backproof.reference import wiring as W  # noqa: N812
from backproof.reference.adaptive_pooling import AdaptiveAvgPool2d, GlobalAvgPool, GlobalMaxPool
from backproof.reference.layer import Layer, Shape
from backproof.reference.linear import Linear
from backproof.reference.multihead_attention import MultiheadAttention
from backproof.reference.pixels import PixelShuffle, PixelUnshuffle
from hypothesis import strategies as st

__all__ = ["FAMILIES"]


def _rank(*ranks: int) -> Callable[[Shape], bool]:
    return lambda shape: len(shape) in ranks


def _at_least(rank: int) -> Callable[[Shape], bool]:
    return lambda shape: len(shape) >= rank


def _plain(cls: type[Layer]) -> Family:
    return Family(lambda shape: st.just(cls()))


def _axis(shape: Shape) -> st.SearchStrategy[int]:
    """Draw an axis other than the batch axis, counted from either end."""
    return st.sampled_from([*range(1, len(shape) + 1), *range(-len(shape), 0)])


VECTOR = _at_least(1)


def _along(cls: Callable[..., Layer], *, fits: Callable[[Shape], bool] = VECTOR, **options: Any) -> Family:
    return Family(lambda shape: st.builds(cls, dim=_axis(shape), **options), fits)


def _scaled(cls: Callable[[float], Layer]) -> Family:
    return Family(lambda shape: st.sampled_from((1.0, 0.5, 2.0, 0.7)).map(cls))


EPS = st.sampled_from((1e-5, 1e-5, 0.5, 1e-3))


def _group_norm(shape: Shape) -> st.SearchStrategy[Layer]:
    return _divisors(shape[0]).flatmap(lambda n: st.builds(N.GroupNorm, st.just(n), EPS, st.booleans()))


def _divisors(n: int) -> st.SearchStrategy[int]:
    return st.sampled_from([d for d in range(1, n + 1) if n % d == 0])


def _room(shape: Shape) -> tuple[int, ...]:
    """Return numbers of channels that keep an example small, 1 at least."""
    space = max(1, prod(shape[1:]))
    return tuple(n for n in FEW if n * space <= max(LARGEST, prod(shape))) or (1,)


@st.composite
def _convolution(draw: Any, cls: Any, shape: Shape) -> Layer:
    """Any window that fits: as large as the padded input at most, strides that do and do not divide it."""
    channels, *space = shape
    groups = draw(_divisors(channels))
    sizes, strides, paddings, dilations = [], [], [], []
    for n in space:
        padding = draw(st.integers(0, 2))
        dilation = draw(st.integers(1, 2))
        most = (n + 2 * padding - 1) // dilation + 1
        sizes.append(draw(st.integers(1, max(1, min(3, most)))))
        strides.append(draw(st.integers(1, 3)))
        paddings.append(padding)
        dilations.append(dilation)
    out = groups * draw(st.sampled_from([n for n in _room(shape) if n * groups <= max(4, groups)] or [1]))
    return cls(out, tuple(sizes), tuple(strides), tuple(paddings), tuple(dilations), groups, draw(st.booleans()))


@st.composite
def _transposed(draw: Any, cls: Any, shape: Shape) -> Layer:
    """Windows that leave at least one entry; the output padding is smaller than stride or dilation.

    Of an image it has strides or dilations, never both: among those with both are some that end the process in XLA.
    """
    channels, *space = shape
    groups = draw(_divisors(channels))
    apart = len(space) > 1
    dilated = draw(st.booleans()) if apart else True
    sizes, strides, paddings, extra, dilations = [], [], [], [], []
    for n in space:
        size, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)) if dilated else 1
        stride = 1 if apart and dilated else draw(st.integers(1, 2 if n > 8 else 3))
        most = ((n - 1) * stride + dilation * (size - 1)) // 2
        sizes.append(size)
        strides.append(stride)
        paddings.append(draw(st.integers(0, min(1, most))))
        extra.append(draw(st.integers(0, max(stride, dilation) - 1)))
        dilations.append(dilation)
    out = groups * draw(st.sampled_from((1, 2)))
    return cls(out, tuple(sizes), tuple(strides), tuple(paddings), tuple(extra), groups, draw(st.booleans()), tuple(dilations))


@st.composite
def _pool(draw: Any, cls: Any, shape: Shape) -> Layer:
    """Windows that overlap or leave gaps; padding of at most half a window."""
    sizes, strides, paddings, dilations = [], [], [], []
    largest = cls in {P.MaxPool1d, P.MaxPool2d}
    for n in shape[1:]:
        size = draw(st.integers(1, min(3, n)))
        padding = draw(st.integers(0, size // 2))
        dilation = draw(st.integers(1, 2)) if largest and (n + 2 * padding) > 2 * (size - 1) else 1
        sizes.append(size)
        strides.append(draw(st.integers(1, 3)))
        paddings.append(padding)
        dilations.append(dilation)
    options = {"dilation": tuple(dilations)} if largest else {"count_include_pad": draw(st.booleans())}
    return cls(tuple(sizes), tuple(strides), tuple(paddings), ceil_mode=draw(st.booleans()), **options)


def _adaptive(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.tuples(*(st.integers(1, n + 1) for n in shape[1:])).map(AdaptiveAvgPool2d)


def _multihead(shape: Shape) -> st.SearchStrategy[Layer]:
    width = shape[-1]

    def heads(number: int) -> st.SearchStrategy[Layer]:
        groups = st.sampled_from([None, *(d for d in range(1, number) if number % d == 0)])
        return st.builds(MultiheadAttention, st.just(width), st.just(number), groups, st.booleans(), st.booleans())

    return _divisors(width).flatmap(heads)


@st.composite
def _attention(draw: Any, shape: Shape) -> Layer:
    """Query, key and value from one sequence; the query sometimes of another length, by a pool over time."""
    width = draw(st.sampled_from((1, 2, 4)))
    query: Layer = Linear(width)
    if len(shape) == 2 and draw(st.booleans()):
        shorter = draw(st.integers(1, shape[0]))
        query = C.Sequential((I.Gather(1, shorter), query))
    core = T.ScaledDotProductAttention(draw(st.booleans()), draw(st.sampled_from((None, "boolean", "additive"))),
                                       draw(st.sampled_from((None, 0.7))))
    return C.Sequential((C.Parallel((query, Linear(width), Linear(draw(st.sampled_from((1, 3)))))), core))


@st.composite
def _recurrent(draw: Any, cls: Any, options: dict[str, st.SearchStrategy[Any]], shape: Shape) -> Layer:
    """A recurrent layer; sometimes with initial states made from the sequence, and with its final states handed on."""
    hidden, depth, both = draw(st.sampled_from((1, 2, 4))), draw(st.sampled_from((1, 1, 2))), draw(st.booleans())
    states = draw(st.booleans())
    layer = cls(hidden, num_layers=depth, bias=draw(st.booleans()), bidirectional=both, states=states,
                **{name: draw(strategy) for name, strategy in options.items()})
    if not states:
        return layer
    rows = depth * (1 + both)
    start = C.Sequential((W.Flatten(), Linear(rows * hidden), W.Reshape((rows, hidden))))
    count = len(layer.input_names)
    return C.Sequential((C.Parallel((A.Identity(), *[start] * (count - 1))), layer, C.Parallel((W.Flatten(),) * count),
                         W.Concatenate(-1, count)))


def _short(shape: Shape) -> bool:
    """Say whether a shape is a sequence short enough for bounds that grow with time."""
    return len(shape) == 2 and shape[0] <= 6


def _embedding(shape: Shape) -> st.SearchStrategy[Layer]:
    def padded(rows: int) -> st.SearchStrategy[Layer]:
        return st.builds(I.Embedding, st.just(rows), st.sampled_from(FEW), st.sampled_from((None, 0, rows - 1)))

    return st.sampled_from((1, 3, 7)).flatmap(padded)


def _reshape(shape: Shape) -> st.SearchStrategy[Layer]:
    size = prod(shape)
    ways = [(size,), *((a, -1) for a in range(1, size + 1) if size % a == 0), *((1, a, size // a) for a in range(2, size) if size % a == 0)]
    return st.sampled_from(ways).map(W.Reshape)


def _pixels(cls: Any, shape: Shape) -> st.SearchStrategy[Layer]:
    """Draw a factor that fits the shape as it is, or a convolution that makes channels, or an enlargement that makes pixels, that fit."""
    channels, height, width = shape
    if cls is PixelShuffle:
        fitting = [cls(r) for r in (1, 2, 3) if channels % r**2 == 0 and prod(shape) <= LARGEST]
        return st.sampled_from([*fitting, C.Sequential((V.Conv2d(4, 1), cls(2)))])
    fitting = [cls(r) for r in (1, 2, 3) if height % r == 0 and width % r == 0]
    return st.sampled_from([*fitting, C.Sequential((V.Conv2d(4, 1), PixelShuffle(2), cls(2)))])


def _joined(join: Layer, shape: Shape) -> st.SearchStrategy[Layer]:
    """Two branches of the same width that meet again, one of them spread over the other where it is 1 wide."""
    wide = st.sampled_from((A.Identity(), A.Sigmoid(), Linear(shape[-1])))
    narrow = st.sampled_from((Linear(1), Linear(shape[-1]), A.Tanh(), A.Identity(), Linear(shape[-1], bias=False)))
    return st.tuples(wide, narrow).map(lambda pair: C.Sequential((C.Parallel(pair), join)))


def _concatenated(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.integers(1, 3).map(lambda n: C.Sequential((C.Parallel((Linear(2), A.Identity(), A.ReLU())[:n]), W.Concatenate(-1, n))))


def _residual(shape: Shape) -> st.SearchStrategy[Layer]:
    bodies = (Linear(shape[-1]), C.Sequential((Linear(3), A.ReLU(), Linear(shape[-1]))), A.Tanh(), C.Residual(A.SiLU()))
    return st.sampled_from(bodies).map(C.Residual)


def _shared(shape: Shape) -> st.SearchStrategy[Layer]:
    tied = C.Shared(Linear(shape[-1]), f"tied-{shape[-1]}")  # wherever in the network this width comes again
    return st.sampled_from((C.Sequential((tied, A.Tanh(), tied)), C.Sequential((tied, tied, tied)), C.Residual(C.Sequential((tied, tied)))))


def _drop(cls: Any, shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from((0.5, 0.1, 0.0)).map(cls)


def _parametric(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from(sorted({1, shape[0]})).map(A.PReLU)


def _even(shape: Shape) -> bool:
    return bool(shape) and shape[-1] % 2 == 0


def _spatial(*ranks: int) -> Callable[[Shape], bool]:
    """Say whether a shape has channels and space, and is small enough to be made larger."""
    return lambda shape: len(shape) in ranks and prod(shape) <= LARGEST


FAMILIES: dict[str, Family] = {
    "Linear": Family(lambda shape: st.builds(Linear, st.sampled_from(SIZES if len(shape) == 1 else FEW), bias=st.booleans()), VECTOR),
    **{cls.__name__: _plain(cls) for cls in (A.Identity, A.ReLU, A.ReLU6, A.SELU, A.SiLU, A.Mish, A.Sigmoid, A.LogSigmoid, A.Tanh,
                                            A.Softsign, A.Hardsigmoid, A.Hardswish)},
    "PReLU": Family(_parametric, VECTOR),
    "LeakyReLU": Family(lambda shape: st.sampled_from((0.01, 0.25, -0.5, 1.5)).map(A.LeakyReLU)),
    "Hardtanh": Family(lambda shape: st.sampled_from(((-1.0, 1.0), (-0.5, 2.0), (0.0, 6.0))).map(lambda ends: A.Hardtanh(*ends))),
    "GELU": Family(lambda shape: st.sampled_from(("none", "tanh")).map(A.GELU)),
    **{cls.__name__: _scaled(cls) for cls in (A.ELU, A.CELU, A.Softplus)},
    "Softmax": _along(A.Softmax), "LogSoftmax": _along(A.LogSoftmax),
    "GLU": Family(lambda shape: st.just(A.GLU()), _even), "SwiGLU": Family(lambda shape: st.just(A.SwiGLU()), _even),
    "Conv1d": Family(lambda shape: _convolution(V.Conv1d, shape), _spatial(2)),
    "Conv2d": Family(lambda shape: _convolution(V.Conv2d, shape), _spatial(3)),
    "Conv3d": Family(lambda shape: _convolution(V.Conv3d, shape), _spatial(4)),
    "ConvTranspose1d": Family(lambda shape: _transposed(V.ConvTranspose1d, shape), _spatial(2)),
    "ConvTranspose2d": Family(lambda shape: _transposed(V.ConvTranspose2d, shape), lambda shape: len(shape) == 3 and prod(shape) <= 32),
    "MaxPool1d": Family(lambda shape: _pool(P.MaxPool1d, shape), _rank(2)),
    "MaxPool2d": Family(lambda shape: _pool(P.MaxPool2d, shape), _rank(3)),
    "AvgPool1d": Family(lambda shape: _pool(P.AvgPool1d, shape), _rank(2)),
    "AvgPool2d": Family(lambda shape: _pool(P.AvgPool2d, shape), _rank(3)),
    "AdaptiveAvgPool2d": Family(_adaptive, _rank(3)),
    "GlobalAvgPool": Family(lambda shape: st.just(GlobalAvgPool()), _at_least(2)),
    "GlobalMaxPool": Family(lambda shape: st.just(GlobalMaxPool()), _at_least(2)),
    "Sum": _along(P.Sum, fits=_at_least(2), keepdim=st.booleans()), "Mean": _along(P.Mean, fits=_at_least(2), keepdim=st.booleans()),
    "BatchNorm": Family(lambda shape: st.builds(N.BatchNorm, EPS, st.booleans(), st.booleans()), VECTOR),
    "LayerNorm": Family(lambda shape: st.builds(N.LayerNorm, EPS, st.booleans(), st.booleans(), st.integers(1, len(shape))), VECTOR),
    "RMSNorm": Family(lambda shape: st.builds(N.RMSNorm, EPS, st.booleans()), VECTOR),
    "GroupNorm": Family(_group_norm, VECTOR),
    "InstanceNorm": Family(lambda shape: st.builds(N.InstanceNorm, EPS, st.booleans()), lambda shape: prod(shape[1:]) > 1),
    "ScaledDotProductAttention": Family(_attention, _rank(2, 3)),
    "MultiheadAttention": Family(_multihead, _rank(2)),
    "RotaryEmbedding": Family(lambda shape: st.builds(T.RotaryEmbedding, interleaved=st.booleans()),
                              lambda shape: len(shape) > 1 and _even(shape)),
    "RNN": Family(lambda shape: _recurrent(R.RNN, {"nonlinearity": st.sampled_from(("tanh", "relu"))}, shape), _short),
    "GRU": Family(lambda shape: _recurrent(R.GRU, {"reset_after": st.booleans()}, shape), _short),
    "LSTM": Family(lambda shape: _recurrent(R.LSTM, {}, shape), _short),
    "Embedding": Family(_embedding, first=True),
    "Dropout": Family(lambda shape: _drop(I.Dropout, shape)),
    **{cls.__name__: _along(cls, size=st.sampled_from((1, 3, 5)), fits=VECTOR) for cls in (I.Gather, I.ScatterAdd, I.IndexSelect)},
    "CumSum": _along(D.CumSum), "CumProd": _along(D.CumProd),
    "Prod": _along(D.Prod, fits=_at_least(2)), "LogSumExp": _along(D.LogSumExp, fits=_at_least(2)), "Normalize": _along(D.Normalize),
    "Flatten": Family(lambda shape: st.just(W.Flatten())), "Reshape": Family(_reshape),
    "Transpose": Family(lambda shape: st.builds(W.Transpose, _axis(shape), _axis(shape)), _at_least(2)),
    "PixelShuffle": Family(partial(_pixels, PixelShuffle), lambda shape: len(shape) == 3),
    "PixelUnshuffle": Family(partial(_pixels, PixelUnshuffle), lambda shape: len(shape) == 3),
    "Add": Family(partial(_joined, W.Add()), VECTOR), "Multiply": Family(partial(_joined, W.Multiply()), VECTOR),
    "Concatenate": Family(_concatenated, VECTOR),
    "Residual": Family(_residual, VECTOR), "Shared": Family(_shared, VECTOR),
}
"""How each layer is drawn. A test holds the table against the registry."""
