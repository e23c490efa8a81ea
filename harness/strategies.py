"""Hypothesis strategies for layers, networks and cases. They construct what fits; nothing is drawn and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from hypothesis import strategies as st

from .architectures import ARCHITECTURES, fitting, stack
from .families import FAMILIES
from .reference import heads as H  # noqa: N812
from .reference.case import Case
from .reference.ctc import CTCLoss
from .reference.head import Head, pairs
from .reference.layer import Layer, Shape
from .reference.network import Network
from .reference.normalization import BatchNorm, GroupNorm
from .reference.rounding import PRECISIONS
from .reference.values import REGIMES

__all__ = ["BATCHES", "FAMILIES", "batches", "cases", "heads", "layers", "networks"]

BATCHES = (1, 2, 3, 4, 7, 16, 33)
VERIFIED = ("float64", "float32")


def layers(shape: Shape = (4,), families: Sequence[str] | None = None) -> st.SearchStrategy[Layer]:
    """Draw a layer that takes an input of this shape (batch axis left out), of the named families or of all.

    Raises ValueError for an unknown family, and where none of the families takes the shape.
    """
    names = fitting(shape, checked(families))
    if not names:
        raise ValueError(f"no layer of {', '.join(families or ())} takes an input of shape {shape}")
    return st.sampled_from(names).flatmap(lambda name: FAMILIES[name].draw(shape))


def checked(families: Sequence[str] | None) -> Sequence[str]:
    """Return the families named, or all of them; raise ValueError for an unknown one."""
    unknown = [name for name in families or () if name not in FAMILIES]
    if unknown:
        raise ValueError(f"unknown layer: got {', '.join(unknown)}, expected one of {', '.join(sorted(FAMILIES))}")
    return tuple(families) if families else tuple(FAMILIES)


def heads(shape: Shape = (4,)) -> st.SearchStrategy[Head]:
    """Draw a head for outputs of this shape: every output with every loss that takes it, fused forms and all reductions."""
    reductions = st.sampled_from(Head.reductions)
    weights = st.sampled_from((None, tuple(0.5 + 0.25 * (i % 3) for i in range(shape[-1] if shape else 1))))
    any_pair = st.builds(lambda pair, reduction: Head(pair[0], pair[1], reduction), st.sampled_from(pairs()), reductions)
    drawn = [
        *(st.builds(cls, reduction=reductions) for cls in (H.MSELoss, H.L1Loss, H.SoftMarginLoss)),
        st.builds(H.HuberLoss, reduction=reductions, delta=st.sampled_from((1.0, 0.5))),
        st.builds(H.SmoothL1Loss, reduction=reductions, beta=st.sampled_from((1.0, 0.5))),
        st.builds(H.HingeLoss, reduction=reductions, margin=st.sampled_from((1.0, 0.25))),
        st.builds(H.BCEWithLogitsLoss, reduction=reductions, pos_weight=weights),
        st.builds(H.KLDivLoss, reduction=st.sampled_from(H.KLDivLoss.reductions), log_target=st.booleans()),
        st.builds(H.NLLLoss, reduction=reductions, weight=weights),
        st.builds(H.CrossEntropyLoss, reduction=reductions, label_smoothing=st.sampled_from((0.0, 0.125)), weight=weights),
    ]
    groups = [any_pair, st.one_of(drawn)]
    if len(shape) == 2 and shape[0] == 2:
        groups.append(st.builds(H.CosineEmbeddingLoss, reduction=reductions, margin=st.sampled_from((0.0, 0.5))))
    if len(shape) == 2 and shape[1] > 1:
        groups.append(st.builds(CTCLoss, reduction=reductions))
    return st.sampled_from(groups).flatmap(lambda group: group)


@st.composite
def networks(draw: Any, families: Sequence[str] | None = None, max_depth: int = 8) -> Network:
    """Draw a network with any head: half of them as people build them, the others of layers as they come, up to `max_depth`.

    Named families restrict the layers, and then all networks are stacks of those.
    """
    usual = families is None and draw(st.booleans())
    input_shape, drawn = draw(draw(st.sampled_from(ARCHITECTURES))() if usual else stack(checked(families), max_depth))
    network = Network(input_shape, drawn, H.MSELoss())
    return Network(input_shape, drawn, draw(heads(network.output_shape)))


def batches(network: Network) -> st.SearchStrategy[int]:
    """Draw a batch size from 1 upward; from 2 where a group of a normalisation would have a single entry, which torch refuses."""
    lone = any(_lone(step.layer, network.graph.shapes[step.inputs[0]]) for step in network.steps)
    return st.sampled_from([n for n in BATCHES if n > 1 or not lone])


def _lone(layer: Layer, shape: Shape) -> bool:
    if isinstance(layer, BatchNorm):
        return layer.training and prod(shape[1:]) == 1
    return isinstance(layer, GroupNorm) and prod(shape) == layer.num_groups


@st.composite
def cases(draw: Any, families: Sequence[str] | None = None, precisions: Sequence[str] = VERIFIED) -> Case:
    """Draw a case: a network, a seed, a value regime, a batch size from 1 upward and a precision."""
    unknown = [p for p in precisions if p not in PRECISIONS]
    if unknown:
        raise ValueError(f"unknown precision: got {', '.join(unknown)}, expected one of {', '.join(PRECISIONS)}")
    network = draw(networks(families))
    return Case(network, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(tuple(REGIMES))), draw(batches(network)),
                draw(st.sampled_from(tuple(precisions))))  # fmt: skip
