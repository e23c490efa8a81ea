"""Hypothesis strategies for layers and their arrays, networks and cases. They construct what fits; nothing is drawn and thrown away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from backproof.draw.architectures import ARCHITECTURES, fitting, stack
from backproof.draw.batches import BATCHES, single_entry_groups
from backproof.draw.families import FAMILIES
from backproof.draw.probe import VALUES, Probe, shapes_for
from backproof.proof.setting import SHAPES
from backproof.reference import heads as H  # noqa: N812
from backproof.reference.case import Case
from backproof.reference.ctc import CTCLoss
from backproof.reference.head import Head, pairs
from backproof.reference.layer import Layer, Shape
from backproof.reference.network import Network
from backproof.reference.rounding import PRECISIONS
from backproof.reference.usage import UsageError
from backproof.reference.values import REGIMES
from hypothesis import strategies as st

__all__ = ["FAMILIES", "Arrays", "arrays_for", "batches", "cases", "each_input", "heads", "layers", "networks"]

VERIFIED = ("float64", "float32")


def layers(shape: Shape | None = None, families: Sequence[str] | None = None) -> st.SearchStrategy[Layer]:
    """Draw a layer of the named families or of all; with a shape (batch axis left out), one that takes real numbers of that shape.

    Raises ValueError for an unknown family, and where none of the families takes the shape.
    """
    names = checked(families)
    takes = {name: [s for s in SHAPES if s and FAMILIES[name].fits(s)] for name in names}
    if shape is not None:
        takes = {name: [shape] for name in fitting(shape, names)}
    if not takes:
        raise UsageError(f"no layer of {', '.join(families or ())} takes an input of shape {shape}")
    return st.sampled_from([*takes]).flatmap(lambda name: st.sampled_from(takes[name]).flatmap(FAMILIES[name].draw))


@dataclass(frozen=True)
class Arrays:
    """What one call of a layer takes: `inputs`, `params` by name and an upstream gradient for each output, drawn in a value regime.

    A head's inputs are z and the target. All are the caller's own, in the format of the precision asked for.
    """

    inputs: tuple[np.ndarray, ...]
    params: Mapping[str, np.ndarray]
    upstream: tuple[np.ndarray, ...]
    regime: str


def arrays_for(layer: Layer | Head, shapes: Sequence[Any] | None = None, precision: str = "float64") -> st.SearchStrategy[Arrays]:
    """Draw the arrays that a layer or head takes, in every value regime and batch size, over all shapes known to fit or those given.

    `shapes` are alternatives, batch axis left out; a layer of several inputs has a tuple of shapes in each. Examples shrink to a batch of
    1, small shapes and normal numbers. Raises ValueError where no shape is known, and for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision: got {precision}, expected one of {', '.join(PRECISIONS)}")
    fitting_shapes = [each_input(shape) for shape in shapes] if shapes is not None else shapes_for(layer)
    if not fitting_shapes:
        raise UsageError(f"{layer}: no input shape is known that it takes. Write shapes=[(3, 4), ...], batch axis left out")
    fitting_shapes.sort(key=lambda each: sum(map(prod, each)))

    @st.composite
    def drawn(draw: Any) -> Arrays:
        input_shapes = draw(st.sampled_from(fitting_shapes))
        least = 2 if isinstance(layer, Layer) and single_entry_groups(layer, input_shapes[0]) else 1
        batch = draw(st.sampled_from([n for n in BATCHES if n >= least]))
        regime = draw(st.sampled_from(VALUES))
        call = Probe(layer, input_shapes, batch, draw(st.integers(0, 2**32 - 1)), regime, precision).call()
        params = {name: np.array(a) for name, a in call.params.items()}
        return Arrays(tuple(map(np.array, call.inputs)), params, tuple(map(np.array, call.dys)), regime)

    return drawn()


def each_input(shapes: Any) -> tuple[Shape, ...]:
    """Return the shapes of one call's inputs; a single input's may be given as it is."""
    given = tuple(shapes)
    return tuple(map(tuple, given)) if given and not isinstance(given[0], int) else (given,)


def checked(families: Sequence[str] | None) -> Sequence[str]:
    """Return the families named, or all of them; raise ValueError for an unknown one."""
    unknown = [name for name in families or () if name not in FAMILIES]
    if unknown:
        raise UsageError(f"unknown layer: got {', '.join(unknown)}, expected one of {', '.join(sorted(FAMILIES))}")
    return tuple(families) if families else tuple(FAMILIES)


def heads(shape: Shape = (4,), among: Sequence[str] = ()) -> st.SearchStrategy[Head]:
    """Draw a head for outputs of this shape: every output with every loss that takes it, fused forms and all reductions.

    `among` restricts the draw to heads of these names, where any of them takes the shape.
    """
    heads_by_name = _heads(shape)
    wanted = [heads_by_name[name] for name in among if name in heads_by_name]
    plain = [heads_by_name[name] for name in heads_by_name if name not in OF_SPECIAL_SHAPES and name != "Head"]
    groups = [heads_by_name["Head"], st.one_of(plain), *(heads_by_name[name] for name in OF_SPECIAL_SHAPES if name in heads_by_name)]
    return st.sampled_from(wanted or groups).flatmap(lambda group: group)


OF_SPECIAL_SHAPES = ("CosineEmbeddingLoss", "CTCLoss")


def _heads(shape: Shape) -> dict[str, st.SearchStrategy[Head]]:
    reductions = st.sampled_from(Head.reductions)
    weights = st.sampled_from((None, tuple(0.5 + 0.25 * (i % 3) for i in range(shape[-1] if shape else 1))))
    heads_by_name: dict[str, st.SearchStrategy[Head]] = {
        "Head": st.builds(lambda pair, reduction: Head(pair[0], pair[1], reduction), st.sampled_from(pairs()), reductions),
        **{cls.__name__: st.builds(cls, reduction=reductions) for cls in (H.MSELoss, H.L1Loss, H.SoftMarginLoss)},
        "HuberLoss": st.builds(H.HuberLoss, reduction=reductions, delta=st.sampled_from((1.0, 0.5))),
        "SmoothL1Loss": st.builds(H.SmoothL1Loss, reduction=reductions, beta=st.sampled_from((1.0, 0.5))),
        "HingeLoss": st.builds(H.HingeLoss, reduction=reductions, margin=st.sampled_from((1.0, 0.25))),
        "BCEWithLogitsLoss": st.builds(H.BCEWithLogitsLoss, reduction=reductions, pos_weight=weights),
        "KLDivLoss": st.builds(H.KLDivLoss, reduction=st.sampled_from(H.KLDivLoss.reductions), log_target=st.booleans()),
        "NLLLoss": st.builds(H.NLLLoss, reduction=reductions, weight=weights),
        "CrossEntropyLoss": st.builds(H.CrossEntropyLoss, reduction=reductions, label_smoothing=st.sampled_from((0.0, 0.125)),
                                      weight=weights),
    }
    if len(shape) == 2 and shape[0] == 2:
        heads_by_name["CosineEmbeddingLoss"] = st.builds(H.CosineEmbeddingLoss, reduction=reductions, margin=st.sampled_from((0.0, 0.5)))
    if len(shape) == 2 and shape[1] > 1:
        heads_by_name["CTCLoss"] = st.builds(CTCLoss, reduction=reductions)
    return heads_by_name


HEADS = tuple(_heads((2, 2)))
"""The heads by name."""


@st.composite
def networks(draw: Any, families: Sequence[str] | None = None, max_depth: int = 8, rare: Sequence[str] = ()) -> Network:
    """Draw a network with any head: half of them as people build them, the others of layers as they come, up to `max_depth`.

    Named families restrict the layers, and then all networks are stacks of those. With `rare`, names of layers and heads, it is a stack
    that begins with one of those layers, and where one of those heads takes its output it ends with it.
    """
    first = [name for name in rare if name in FAMILIES]
    usual = families is None and not first and draw(st.booleans())
    input_shape, drawn = draw(draw(st.sampled_from(ARCHITECTURES))() if usual else stack(checked(families), max_depth, first))
    network = Network(input_shape, drawn, H.MSELoss())
    return Network(input_shape, drawn, draw(heads(network.output_shape, rare)))


def batches(network: Network) -> st.SearchStrategy[int]:
    """Draw a batch size from 1 upward; from 2 where a group of a normalisation would have a single entry, which torch refuses."""
    least = 2 if any(single_entry_groups(step.layer, network.graph.shapes[step.inputs[0]]) for step in network.steps) else 1
    return st.sampled_from([n for n in BATCHES if n >= least])


@st.composite
def cases(draw: Any, families: Sequence[str] | None = None, precisions: Sequence[str] = VERIFIED) -> Case:
    """Draw a case: a network, a seed, a value regime, a batch size from 1 upward and a precision."""
    unknown = [p for p in precisions if p not in PRECISIONS]
    if unknown:
        raise UsageError(f"unknown precision: got {', '.join(unknown)}, expected one of {', '.join(PRECISIONS)}")
    network = draw(networks(families))
    return Case(network, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(tuple(REGIMES))), draw(batches(network)),
                draw(st.sampled_from(tuple(precisions))))
