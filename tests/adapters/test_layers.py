"""Every registered layer and head, by itself, on the real frameworks: sizes, value regimes, storage layouts and precisions.

A layer is enrolled by existing: its own `examples()` are run. Every number must agree with the hand-derived rule, be another valid
subgradient, be inconclusive, or be explained by an entry of `backproof.known`; what a framework refuses stands in one table here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from backproof.adapters.jax import LOWERINGS as JAX_LOWERINGS
from backproof.adapters.jax.attention import multihead_attention_by_formula, scaled_dot_product_attention_by_formula
from backproof.adapters.torch import LOWERINGS
from backproof.reference import network
from backproof.reference.attention import ScaledDotProductAttention
from backproof.reference.convolution import Conv2d
from backproof.reference.ctc import CTCLoss
from backproof.reference.graph import Container
from backproof.reference.head import Head, pairs
from backproof.reference.heads import CosineEmbeddingLoss
from backproof.reference.layer import REGISTRY, Layer, Shape, ShapeError
from backproof.reference.multihead_attention import MultiheadAttention
from backproof.reference.normalization import BatchNorm, GroupNorm, InstanceNorm
from backproof.reference.pixels import PixelShuffle, PixelUnshuffle
from backproof.reference.wiring import Reshape

from .single import KNOWN, LAYOUTS, REGIMES, Single, _compiled

assert network  # enrols every layer and head

OWN = {name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("backproof.reference.")}
LAYERS = [name for name, cls in OWN.items() if issubclass(cls, Layer) and not issubclass(cls, Container)]  # a graph unrolls containers
HEADS = [name for name, cls in OWN.items() if not issubclass(cls, Layer)]
PRECISIONS = ("float64", "float32", "bfloat16", "float16")

OPTIONS: dict[str, tuple[Any, ...]] = {
    "delta": (1.0, 0.5), "beta": (1.0, 0.5, 0.0), "margin": (1.0, 0.25), "pos_weight": (None, (0.5, 2.0, 1.25)),
    "weight": (None, (0.5, 2.0, 1.25)), "label_smoothing": (0.0, 0.125), "ignore_index": (-100, -1), "log_target": (False, True),
    "blank": (0, 2), "zero_infinity": (True,),
}
"""What the options of heads are set to, every combination of them."""

HEAD_SHAPES: dict[type, tuple[Shape, ...]] = {CosineEmbeddingLoss: ((2, 3), (2, 1)), CTCLoss: ((4, 3),)}
"""The shapes of z that a head is run on, where they are not the usual ones."""


@dataclass(frozen=True)
class Refusal:
    """What a framework does not compute: a case that it answers with an exception of this message, and why that is its right."""

    case: Single
    message: str
    reason: str

    def speaks_of(self, case: Single, error: Exception) -> bool:
        mine = self.case
        return (mine.framework, type(mine.layer)) == (case.framework, type(case.layer)) and re.search(self.message, str(error)) is not None


EMPTY_PIXELS = "torch's pixel_unshuffle hands an empty batch back in its own shape: docs/findings.md"

REFUSALS = (
    Refusal(Single("torch", BatchNorm(), ((3,),), 1), "Expected more than 1 value per channel", "one entry has no variance"),
    Refusal(Single("torch", GroupNorm(3), ((3,),), 1), "Expected more than 1 value per channel", "as of BatchNorm, for a batch of 1"),
    Refusal(Single("torch", InstanceNorm(affine=True), ((2, 3),), 0), "index 0 out of range", "the weight is repeated for no example"),
    Refusal(Single("torch", Reshape((2, -1, 1)), ((6,),), 0), "cannot reshape tensor of 0 elements", "-1 could be any size"),
    Refusal(Single("torch", CTCLoss(reduction="sum"), ((4, 3),), 0), "log_probs tensor must not be empty", "an empty batch"),
    Refusal(Single("torch", PixelShuffle(), ((8, 2, 3),), 0), "PixelShuffleBackward0 returned an invalid gradient", EMPTY_PIXELS),
    Refusal(Single("torch", PixelUnshuffle(), ((2, 4, 6),), 0), r"Mismatch in shape: grad_output\[0\] has a shape of .*\[0,", EMPTY_PIXELS),
)
"""Exclusions. jax has no storage layouts either: its arrays have no strides."""

LAYOUT_FAULTS = {
    (BatchNorm, 1): "read as if contiguous where x and dy are laid out differently: see the test below",
    (InstanceNorm, 1): "calls batch_norm on a batch of 1: the same",
}
"""Layers and batch sizes on which torch is silently wrong for some layouts."""


def settings(name: str) -> Iterator[tuple[Any, tuple[Shape, ...]]]:
    """Yield every setting of a layer, or of a head, with the shapes it is run on."""
    cls: Any = OWN[name]
    if issubclass(cls, Layer):
        yield from ((layer, tuple(shapes)) for layer, *shapes in cls.examples())
        return
    own = [f.name for f in fields(cls) if f.name not in {"output", "loss", "reduction"}]
    chosen = (dict(zip(own, values, strict=True)) for values in product(*(OPTIONS[option] for option in own)))
    heads = ([Head(output, loss, reduction) for (output, loss), reduction in product(pairs(), Head.reductions)] if cls is Head
             else [cls(reduction=reduction, **options) for options in chosen for reduction in cls.reductions])
    shapes = HEAD_SHAPES.get(cls, ((3,), (2, 3), (2, 2, 3)))
    yield from ((head, (shapes[index % len(shapes)],)) for index, head in enumerate(heads))


def sample(name: str) -> list[tuple[Any, tuple[Shape, ...]]]:
    """Return all settings, but of `Head` one reduction for each output and loss: the reductions in turn."""
    return [setting for index, setting in enumerate(settings(name)) if name != "Head" or index % 3 == index // 3 % 3]


def doubts(cases: Iterator[Single]) -> list[str]:
    """Return a sentence for every case that is not explained; cases of the same numbers are judged once."""
    found: list[str] = []
    seen: set[Any] = set()
    ran = 0
    for case in cases:
        ran += 1
        try:
            key = (case.layer, case.shapes, case.precision, case.bits())
        except Exception as error:  # noqa: BLE001  (whatever a framework raises is looked up)
            known = KNOWN.raised(case.adapter, case.precision, [case.layer], str(error))
            if known is None and not any(refusal.speaks_of(case, error) for refusal in REFUSALS):
                found.append(f"{case}: raised {type(error).__name__}: {error}")
            continue
        if key not in seen:
            seen.add(key)
            found += case.doubts()
    assert ran
    return found


quietly = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")  # torch, of kl_div's name
every_layer = pytest.mark.parametrize("name", LAYERS)
every_head = pytest.mark.parametrize("name", HEADS)


def regimes(index: int, precision: str) -> tuple[str, ...]:
    """Return the value regimes of a setting: all of them in float32, and for the first setting; else the usual one and another in turn."""
    return REGIMES if precision == "float32" or not index else ("normal", REGIMES[1 + index % (len(REGIMES) - 1)])


@quietly
@pytest.mark.parametrize("name", [*LAYERS, *HEADS])
def test_torch_agrees_in_every_regime_and_precision(name: str) -> None:
    """All settings of a layer or head, in all value regimes and all four precisions."""
    assert doubts(Single("torch", layer, shapes, regime=regime, precision=precision, seed=index)
                  for index, (layer, shapes) in enumerate(sample(name))
                  for precision in PRECISIONS
                  for regime in regimes(index, precision)) == []


@quietly
@pytest.mark.parametrize("name", [*LAYERS, *HEADS])
def test_every_tensor_is_compared(name: str) -> None:
    """On ordinary numbers some setting of every layer has a bound for each tensor that is tight enough to say something."""
    said: dict[str, set[str]] = {}
    for layer, shapes in settings(name):
        for certificate in Single("torch", layer, shapes).certificates:
            said.setdefault(certificate.tensor, set()).add(certificate.verdict if certificate.compared else "nothing")
    assert said
    assert [tensor for tensor, verdicts in said.items() if "agrees" not in verdicts] == []


def layouts(batch: int, precision: str) -> list[tuple[str, str]]:
    """Return pairs of layouts, of the inputs and of the upstream gradient: one for both, and in float32 each beside a dense one."""
    if batch == 1:  # where a stride of the batch axis means nothing
        return [pair for layout in ("transposed", "channels last") for pair in (("dense", layout), (layout, "dense"))]
    both = [(layout, layout) for layout in LAYOUTS]
    return both if precision != "float32" else [*both, *(("dense", u) for u in LAYOUTS), *((layout, "dense") for layout in LAYOUTS)]


@quietly
@pytest.mark.parametrize("name", [*LAYERS, *HEADS])
def test_torch_agrees_in_every_layout(name: str) -> None:
    """Transposed, stepped, channels-inside and expanded storage of inputs, parameters and upstream gradients changes nothing."""
    assert doubts(Single("torch", layer, shapes, batch, "normal", precision, 1, layout, upstream)
                  for layer, shapes in sample(name)
                  for batch, precision in ((1, "float32"), *((3, precision) for precision in PRECISIONS))
                  if (type(layer), batch) not in LAYOUT_FAULTS
                  for layout, upstream in layouts(batch, precision)) == []


@quietly
@pytest.mark.parametrize("name", [*LAYERS, *HEADS])
def test_torch_agrees_on_single_examples_and_sizes_of_one(name: str) -> None:
    """A batch of 1, and every axis of size 1 where the layer takes that."""
    def cases() -> Iterator[Single]:
        for layer, shapes in sample(name):
            ones = tuple((1,) * len(shape) for shape in shapes)
            for batch, own in ((1, shapes), (1, ones), (3, ones)):
                if own == shapes or takes(layer, own):
                    yield from (Single("torch", layer, own, batch, regime, precision, 2)
                                for regime, precision in (("normal", "float32"), ("ties", "float64"), ("wide-range", "bfloat16")))

    assert doubts(cases()) == []


def takes(layer: Any, shapes: tuple[Shape, ...]) -> bool:
    """Say whether a layer or head takes inputs of these shapes."""
    try:
        if isinstance(layer, Head):
            layer.check_shape(shapes[0])
        else:
            layer.output_shape(*shapes)
    except ShapeError:
        return False
    return True


def answer(case: Single) -> Any:
    """Return what the rule says of a case in plain float64, or the error it raises."""
    numbers = case.numbers
    try:
        y, backward = case.layer.forward({**numbers.params, **numbers.constants}, *numbers.inputs)
        backward(*numbers.dys)
    except ValueError as error:
        return error
    return y


@quietly
@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("name", [*LAYERS, *HEADS])
def test_an_empty_batch_has_an_answer_or_a_clear_error(name: str, framework: str) -> None:
    """The rule answers an empty batch as the framework does, with sums over nothing that are 0; only a mean over nothing is refused."""
    found = list(settings(name)) if framework == "torch" else [next(iter(settings(name)))]
    defined = []
    for layer, shapes in found:
        case = Single(framework, layer, shapes, batch=0)
        result = answer(case)
        if isinstance(layer, Head) and layer.reduction in {"mean", "batchmean"}:
            assert "the mean over an empty batch is not defined" in str(result)
        else:
            assert not isinstance(result, Exception), result
            defined.append(case)
    assert (doubts(iter(defined)) if defined else []) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@every_layer
def test_jax_agrees(name: str, precision: str) -> None:
    """The first setting of every layer, in float32 and one half precision, in all value regimes: one compilation each."""
    layer, shapes = next(iter(settings(name)))
    assert doubts(Single("jax", layer, shapes, regime=regime, precision=precision) for regime in REGIMES) == []


@every_head
def test_jax_agrees_on_heads(name: str) -> None:
    """The first setting of every head class in float32."""
    layer, shapes = next(iter(settings(name)))
    assert doubts(Single("jax", layer, shapes, regime=regime) for regime in REGIMES) == []


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("layer", [ScaledDotProductAttention, MultiheadAttention])
def test_attention_by_its_formula_agrees(layer: Any, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for `jax.nn.dot_product_attention`, which 0.4.30 has not, agrees on every example with nothing known against it."""
    formulas = {ScaledDotProductAttention: scaled_dot_product_attention_by_formula, MultiheadAttention: multihead_attention_by_formula}
    monkeypatch.setitem(JAX_LOWERINGS, layer, formulas[layer])
    _compiled.cache_clear()
    cases = [Single("jax", *setting, precision=precision) for setting in settings(layer.__name__)]
    found = [f"{case}: {certificate.tensor}" for case in cases for certificate in case.certificates if certificate.failed]
    _compiled.cache_clear()
    assert len(cases) > 4
    assert found == []


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: f"{refusal.case.framework}-{type(refusal.case.layer).__name__}")
def test_what_a_framework_refuses_it_still_refuses(refusal: Refusal) -> None:
    """Every exclusion is alive: the framework raises, and our rule has an answer."""
    with pytest.raises(Exception, match=refusal.message):
        _ = refusal.case.trace
    assert not isinstance(answer(refusal.case), Exception)


def test_the_options_of_every_head_are_set() -> None:
    """Each option of a head class is in the table, and is an option of some class."""
    own = {f.name for name in HEADS for f in fields(OWN[name]) if f.name not in {"output", "loss", "reduction"}}
    assert own == OPTIONS.keys()


IMAGE = ((4, 3, 5),)


@pytest.mark.parametrize("layer", [BatchNorm(), BatchNorm(training=False), InstanceNorm(affine=True)], ids=str)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_torch_batch_norm_misreads_the_gradient_of_a_single_image(layer: Any, precision: str) -> None:
    """dy of one image with its channels inside, as `y.squeeze(0).permute(1, 2, 0)` hands it back, is read as if it were contiguous.

    The kernel asks of both tensors whether they are contiguous in some format, and whether they suggest the same one. Of a batch of
    1 the stride of the batch axis makes the second answer another than the first, and the entries of dy are taken in storage order.
    """
    dense = Single("torch", layer, IMAGE, 1, precision=precision)
    assert list(dense.doubts()) == []
    found = list(replace(dense, upstream="channels last").doubts())
    assert [sentence for sentence in found if ": dx wrong" in sentence]
    assert list(replace(dense, batch=2, upstream="channels last").doubts()) == []


def test_torch_group_norm_loses_the_variance_of_channels_inside() -> None:
    """Where the channels lie inside, torch takes E[x^2] - E[x]^2 as the variance, which cancels beside a large mean."""
    class Raised(Single):
        """Numbers of deviation 1 around 300."""

        @property
        def numbers(self) -> Any:
            drawn = super().numbers
            return replace(drawn, inputs=tuple((x + 300).astype(x.dtype) for x in drawn.inputs))

    dense = Raised("torch", GroupNorm(2), IMAGE)
    assert list(dense.doubts()) == []
    assert "output imprecise" in "".join(replace(dense, layout="channels last").doubts())


def test_a_planted_mistake_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering that is wrong for one layout only is found, and the sentence names the layer, the layout and the tensor."""
    right = LOWERINGS[Conv2d]

    def wrong(layer: Any, params: Any, x: Any) -> Any:
        return right(layer, params, x if x.is_contiguous() else x.flip(-1))

    monkeypatch.setitem(LOWERINGS, Conv2d, wrong)
    layer, shapes = next(iter(settings("Conv2d")))
    cases = [Single("torch", layer, shapes, layout=layout) for layout in ("dense", "transposed")]
    assert doubts(iter(cases[:1])) == []
    sentences = doubts(iter(cases))
    assert {sentence.split(": ")[2].split()[0] for sentence in sentences} >= {"output", "dx"}
    assert all("Conv2d" in sentence and "transposed" in sentence for sentence in sentences)
    assert np.isfinite(cases[1].certificates[0].excess)
