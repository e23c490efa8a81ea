"""Networks as people build them, and stacks that nobody would draw by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from backproof.draw.families import FAMILIES
from backproof.draw.family import LARGEST, SIZES
from backproof.reference import activations as A  # noqa: N812
from backproof.reference.adaptive_pooling import GlobalAvgPool
from backproof.reference.attention import RotaryEmbedding
from backproof.reference.containers import Parallel, Residual, Sequential, Shared
from backproof.reference.convolution import Conv1d, Conv2d
from backproof.reference.indexing import Dropout, Embedding
from backproof.reference.layer import Layer, Shape, each_shape
from backproof.reference.linear import Linear
from backproof.reference.multihead_attention import MultiheadAttention
from backproof.reference.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm
from backproof.reference.pooling import AvgPool2d, MaxPool1d, MaxPool2d, Mean
from backproof.reference.recurrent import GRU, LSTM, RNN
from backproof.reference.wiring import Add, Concatenate, Flatten
from hypothesis import strategies as st

__all__ = ["ARCHITECTURES", "Plan", "stack"]

Plan = tuple[Shape, tuple[Layer, ...]]
"""The shape of an input, and layers that take it."""

SHAPES: tuple[Shape, ...] = (
    *((n,) for n in SIZES), (1, 1), (3, 2), (2, 5), (4, 4), (5, 3), (6, 2), (1, 3, 3), (2, 4, 3), (3, 5, 4), (1, 1, 1),
    (1, 2, 3, 2), (2, 2, 2, 2),
)
ACTIVATIONS = st.sampled_from((A.ReLU(), A.GELU(), A.Tanh(), A.SiLU(), A.LeakyReLU(), A.ELU(), A.Mish()))


def fitting(shape: Shape, families: Sequence[str]) -> list[str]:
    """Return the families that take a shape of real numbers."""
    return [name for name in families if FAMILIES[name].fits(shape) and not FAMILIES[name].first]


@st.composite
def stack(draw: Any, families: Sequence[str], max_depth: int = 8, first: Sequence[str] = ()) -> Plan:
    """Layers as they come: any one (of `first`) first, with an input that it takes, then each drawn for the shape that flows into it."""
    takes = {name: fits for name in first or families if (fits := [s for s in SHAPES if FAMILIES[name].fits(s)])}
    names = [draw(st.sampled_from(list(takes)))]
    input_shape = shape = draw(st.sampled_from(takes[names[0]]))
    depth = draw(st.integers(1, max_depth))
    layers: list[Layer] = []
    while len(layers) < depth and names and prod(shape) <= LARGEST:
        layer = draw(FAMILIES[draw(st.sampled_from(names))].draw(shape))
        layers.append(layer)
        shape = each_shape(layer.output_shape(shape))[0]
        names = fitting(shape, families)
    return input_shape, tuple(layers)


@st.composite
def perceptron(draw: Any) -> Plan:
    """Linear and activation in turn, of widths from a palette that includes 1."""
    layers: list[Layer] = []
    for _ in range(draw(st.integers(1, 4))):
        layers += [Linear(draw(st.sampled_from(SIZES)), draw(st.booleans())), draw(ACTIVATIONS)]
    return (draw(st.sampled_from(SIZES)),), tuple(layers[: draw(st.sampled_from((len(layers), len(layers) - 1)))])


@st.composite
def convolutional(draw: Any) -> Plan:
    """Convolution, normalisation, activation and pool, then a classifier (LeCun et al., 1998; Simonyan, Zisserman, 2015)."""
    shape = (draw(st.sampled_from((1, 3))), draw(st.sampled_from((6, 7, 8))), draw(st.sampled_from((5, 8))))
    channels = draw(st.sampled_from((2, 4)))
    stride = draw(st.sampled_from((1, 2)))
    layers: list[Layer] = [Conv2d(channels, (3, draw(st.sampled_from((1, 3)))), stride, (1, 1), 1, 1, draw(st.booleans())),
                           draw(st.sampled_from((BatchNorm(), BatchNorm(training=False), GroupNorm(2)))), draw(ACTIVATIONS),
                           draw(st.sampled_from((MaxPool2d(2), AvgPool2d(2), MaxPool2d(3, 2, 1)))),
                           Conv2d(channels, 1, groups=channels), draw(ACTIVATIONS),
                           draw(st.sampled_from((Flatten(), Sequential((GlobalAvgPool(), Flatten()))))), Dropout(), Linear(3)]
    return shape, tuple(layers)


@st.composite
def residual(draw: Any) -> Plan:
    """Blocks with shortcuts, before or after the activation (He et al., CVPR and ECCV 2016)."""
    channels = draw(st.sampled_from((2, 4)))
    flat = draw(st.booleans())
    shape: Shape = (channels, draw(st.sampled_from((4, 7)))) if flat else (channels, 5, draw(st.sampled_from((3, 4))))
    conv: Any = Conv1d if flat else Conv2d
    block = Sequential((BatchNorm(), draw(ACTIVATIONS), conv(channels, 3, padding=1, bias=False), draw(ACTIVATIONS),
                        conv(channels, 3, padding=1)))
    layers: list[Layer] = [Residual(block)] * draw(st.integers(1, 2))
    return shape, (*layers, draw(ACTIVATIONS), GlobalAvgPool(), Flatten(), Linear(2))


@st.composite
def transformer(draw: Any) -> Plan:
    """Blocks of attention and a feed-forward part, normalised before (Vaswani et al., 2017; Xiong et al., 2020)."""
    width, heads = draw(st.sampled_from(((4, 1), (4, 2), (8, 4))))
    time = draw(st.sampled_from((1, 3, 5)))
    norm: Layer = draw(st.sampled_from((LayerNorm(), RMSNorm())))
    attention = MultiheadAttention(width, heads, draw(st.sampled_from((None, 1))), draw(st.booleans()), draw(st.booleans()))
    gated = Sequential((Linear(8, bias=False), A.SwiGLU(), Linear(width, bias=False)))
    forward = draw(st.sampled_from((Sequential((Linear(6), A.GELU(), Linear(width))), gated)))
    block = (Residual(Sequential((norm, attention))), Residual(Sequential((norm, forward))))
    end: tuple[Layer, ...] = draw(st.sampled_from(((norm, Linear(3)), (Mean(1), Linear(2)), (Flatten(), Linear(2)))))
    if draw(st.booleans()):
        return (time,), (Embedding(7, width), RotaryEmbedding(), *block, *end)
    return (time, width), (*block, *end)


@st.composite
def sequence(draw: Any) -> Plan:
    """A recurrent layer over a sequence, from numbers or tokens, read off at every step or all at once."""
    features = draw(st.sampled_from((1, 3)))
    cells = (RNN(3), LSTM(2), GRU(3), GRU(2, reset_after=False), LSTM(2, bidirectional=True), GRU(2, num_layers=2))
    cell: Layer = draw(st.sampled_from(cells))
    end: tuple[Layer, ...] = draw(st.sampled_from(((Linear(3),), (Flatten(), Linear(2)), (Conv1d(2, 1), MaxPool1d(1, 2), Flatten()))))
    time = draw(st.sampled_from((1, 2, 4)))
    if draw(st.booleans()):
        return (time,), (Embedding(5, features, 0), cell, *end)
    return (time, features), (cell, *end)


@st.composite
def tied(draw: Any) -> Plan:
    """A language model whose output layer is its embedding (Press, Wolf, EACL 2017), or one layer used again and again."""
    width = draw(st.sampled_from((2, 3)))
    if draw(st.booleans()):
        body: Layer = draw(st.sampled_from((Residual(Linear(width)), LayerNorm(), A.Tanh())))
        return (3,), (Shared(Embedding(5, width), "words"), body, Shared(Linear(5, bias=False), "words"))
    again = Shared(Linear(width), "step")
    return (width,), (again, A.Tanh(), again, draw(ACTIVATIONS), Residual(again))


@st.composite
def branches(draw: Any) -> Plan:
    """Branches of different depth that meet again (Szegedy et al., CVPR 2015), and gates (Srivastava et al., 2015)."""
    channels = draw(st.sampled_from((1, 2)))
    towers = (Conv2d(2, 1), Sequential((Conv2d(1, 1), A.ReLU(), Conv2d(2, 3, padding=1))), MaxPool2d(3, 1, 1), A.Identity())
    chosen = draw(st.lists(st.sampled_from(towers), min_size=2, max_size=3))
    join: Layer = Concatenate(1, len(chosen))
    if draw(st.booleans()):
        gate = Parallel((Sequential((Linear(4), A.Sigmoid())), Sequential((Linear(4), A.Tanh()))))
        return (draw(st.sampled_from((3, 5))),), (gate, draw(st.sampled_from((Add(), Concatenate()))), Linear(2))
    return (channels, 3, 4), (Parallel(tuple(chosen)), join, draw(ACTIVATIONS), Flatten(), Linear(2))


@st.composite
def sequence_labels(draw: Any) -> Plan:
    """Scores of labels at every step, as CTC takes them (Graves et al., 2006), or two vectors to compare (Hadsell et al., 2006)."""
    features = draw(st.sampled_from((1, 3)))
    if draw(st.booleans()):
        return (draw(st.sampled_from((1, 4, 5))), features), (GRU(2, bidirectional=True), Linear(draw(st.sampled_from((2, 4)))))
    return (2, features), (Linear(3), draw(ACTIVATIONS), Linear(2))


ARCHITECTURES: tuple[Callable[[], st.SearchStrategy[Plan]], ...] = (
    perceptron, convolutional, residual, transformer, sequence, tied, branches, sequence_labels,
)
"""What networks look like when no family is named; half of all networks are stacks."""
