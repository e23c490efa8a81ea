"""Hypothesis strategies for layers, networks and cases. They construct what fits; nothing is drawn and thrown away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hypothesis import strategies as st

from .reference import activations as A  # noqa: N812
from .reference import heads as H  # noqa: N812
from .reference.case import Case
from .reference.layer import Layer, Shape
from .reference.linear import Linear
from .reference.network import Network
from .reference.rounding import PRECISIONS
from .reference.values import REGIMES

__all__ = ["FAMILIES", "cases", "heads", "layers", "networks"]

SIZES = (1, 2, 3, 4, 5, 8, 13, 16, 32)
BATCHES = (1, 2, 3, 4, 7, 16, 33)
VERIFIED = ("float64", "float32")


def _plain(cls: type[Layer]) -> Callable[[Shape], st.SearchStrategy[Layer]]:
    return lambda shape: st.just(cls())


def _linear(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.builds(Linear, st.sampled_from(SIZES), bias=st.booleans())


def _prelu(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from(sorted({1, shape[0]})).map(A.PReLU)


def _leaky_relu(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from((0.01, 0.25, -0.5, 1.5)).map(A.LeakyReLU)


def _hardtanh(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from(((-1.0, 1.0), (-0.5, 2.0), (0.0, 6.0))).map(lambda ends: A.Hardtanh(*ends))


def _scaled(cls: Callable[[float], Layer], shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from((1.0, 0.5, 2.0, 0.7)).map(cls)


def _gelu(shape: Shape) -> st.SearchStrategy[Layer]:
    return st.sampled_from(("none", "tanh")).map(A.GELU)


FAMILIES: dict[str, Callable[[Shape], st.SearchStrategy[Layer]]] = {
    "Linear": _linear, "PReLU": _prelu, "LeakyReLU": _leaky_relu, "Hardtanh": _hardtanh, "GELU": _gelu,
    **{cls.__name__: partial(_scaled, cls) for cls in (A.ELU, A.CELU, A.Softplus)},
    **{cls.__name__: _plain(cls) for cls in (A.Identity, A.ReLU, A.ReLU6, A.SELU, A.SiLU, A.Mish, A.Sigmoid, A.LogSigmoid, A.Tanh,
                                            A.Softsign, A.Hardsigmoid, A.Hardswish, A.Softmax, A.LogSoftmax, A.GLU, A.SwiGLU)},
}  # fmt: skip
"""How each layer is drawn for an input shape. One entry per layer; a test holds it against the registry."""

HALVING = frozenset({"GLU", "SwiGLU"})


def layers(shape: Shape = (4,), families: Sequence[str] | None = None) -> st.SearchStrategy[Layer]:
    """Draw a layer that takes an input of this shape (batch axis left out), of the named families or of all.

    Raises ValueError for an unknown family, and where none of the families takes the shape.
    """
    fitting = _fitting(shape, families)
    if not fitting:
        raise ValueError(f"no layer of {', '.join(families or ())} takes an input of shape {shape}")
    return st.sampled_from(fitting).flatmap(lambda name: FAMILIES[name](shape))


def _fitting(shape: Shape, families: Sequence[str] | None) -> list[str]:
    return [name for name in checked(families) if name not in HALVING or shape[-1] % 2 == 0]


def checked(families: Sequence[str] | None) -> Sequence[str]:
    """Return the families named, or all of them; raise ValueError for an unknown one."""
    unknown = [name for name in families or () if name not in FAMILIES]
    if unknown:
        raise ValueError(f"unknown layer: got {', '.join(unknown)}, expected one of {', '.join(sorted(FAMILIES))}")
    return tuple(families) if families else tuple(FAMILIES)


def heads() -> st.SearchStrategy[H.Head]:
    """Draw a head: every output with every loss that takes it, fused forms and both reductions."""
    reductions = st.sampled_from(("mean", "sum"))
    fitting = [(output, loss) for output in H.OUTPUTS for loss in H.LOSSES
               if {"bce": "sigmoid", "cross_entropy": "softmax"}.get(loss, output) == output]  # fmt: skip
    return st.one_of(
        st.builds(lambda pair, reduction: H.Head(pair[0], pair[1], reduction), st.sampled_from(fitting), reductions),
        st.builds(H.MSELoss, reduction=reductions),
        st.builds(H.BCEWithLogitsLoss, reduction=reductions),
        st.builds(H.CrossEntropyLoss, reduction=reductions, label_smoothing=st.sampled_from((0.0, 0.125))),
    )


@st.composite
def networks(draw: Any, families: Sequence[str] | None = None, max_depth: int = 8) -> Network:
    """Draw a feed-forward network of depth 1 to `max_depth`: widths from a palette that includes 1, any head.

    Half of the networks alternate Linear and activation as people write them; the others stack layers as they come.
    """
    input_shape = shape = (draw(st.sampled_from([size for size in SIZES if _fitting((size,), families)])),)
    depth = draw(st.integers(1, max_depth))
    usual = "Linear" in checked(families) and draw(st.booleans())
    drawn: list[Layer] = []
    while len(drawn) < depth and _fitting(shape, families):
        layer = draw(_linear(shape) if usual and len(drawn) % 2 == 0 else layers(shape, families))
        drawn.append(layer)
        shape = layer.output_shape(shape)
    return Network(input_shape, tuple(drawn), draw(heads()))


@st.composite
def cases(draw: Any, families: Sequence[str] | None = None, precisions: Sequence[str] = VERIFIED) -> Case:
    """Draw a case: a network, a seed, a value regime, a batch size from 1 upward and a precision."""
    unknown = [p for p in precisions if p not in PRECISIONS]
    if unknown:
        raise ValueError(f"unknown precision: got {', '.join(unknown)}, expected one of {', '.join(PRECISIONS)}")
    return Case(draw(networks(families)), draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(tuple(REGIMES))),
                draw(st.sampled_from(BATCHES)), draw(st.sampled_from(tuple(precisions))))  # fmt: skip
