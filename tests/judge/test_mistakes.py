"""Every layer has at least three planted mistakes of its own; each is caught, blamed on its tensors and named."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import backproof as bp
import backproof.reference.library  # enrols every layer
import numpy as np
import pytest
import torch
from backproof.adapters import load
from backproof.adapters.torch import HEADS, LOWERINGS, to_numpy, to_torch
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer, certify_step
from backproof.judge.derivation import derivation
from backproof.judge.diagnosis import diagnose
from backproof.judge.mistakes import MISTAKES, Mistake
from backproof.judge.mistakes.general import MISTAKES as GENERAL
from backproof.judge.mistakes.mistake import faulty
from backproof.judge.neighbourhood import Neighbourhood
from backproof.judge.rules import expected, expected_plain, tensors
from backproof.proof.setting import Setting
from backproof.reference import heads as H  # noqa: N812
from backproof.reference.adaptive_pooling import GlobalMaxPool
from backproof.reference.case import Case
from backproof.reference.ctc import CTCLoss
from backproof.reference.graph import Container
from backproof.reference.layer import REGISTRY, Layer, each
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.pooling import MaxPool1d, MaxPool2d
from backproof.reference.rounding import Arithmetic, Precision, precision_named, quiet
from backproof.reference.trace import LayerTrace, Trace, Wired
from backproof.reference.values import TARGETS
from backproof.report.results import SelfTest
from backproof.verify.planting import KINDS, Planter, with_tensor

pytestmark = [pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning"),  # torch, of KLDivLoss
              pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")]  # torch.compile's own call

FAMILY = tuple(m for m in MISTAKES if m not in GENERAL)
BY_CODE = {m.code: m for m in MISTAKES}
BATCH = 3
NUMBERS = {"normal": (), "wide": (), "ties": (-3.0, -1.0, 0.0, 0.5, 1.0, 6.0, 7.0), "bits": (0.0, 1.0)}
"""Inputs of size 1, of size 4, and from a handful of values on which layers tie and kink."""

OWN = {name: cls for name, cls in REGISTRY.items() if cls.__module__.startswith("backproof.") and not issubclass(cls, Container)}
"""The classes that mistakes are made in: containers only connect others."""

FIGURES = (2, 5)
HEAD_EXAMPLES: tuple[tuple[H.Head, tuple[int, ...]], ...] = (
    *((H.Head(output, loss), FIGURES) for output, loss in H.pairs() if loss != "cosine_embedding"),
    *((cls(reduction=reduction), FIGURES) for cls in (H.MSELoss, H.L1Loss, H.SoftMarginLoss) for reduction in ("mean", "none")),
    (H.HuberLoss(delta=0.7), FIGURES), (H.HuberLoss("linear", "huber", "none"), FIGURES),
    (H.SmoothL1Loss(beta=0.7), FIGURES), (H.SmoothL1Loss(reduction="none"), FIGURES),
    (H.HingeLoss(), FIGURES), (H.HingeLoss(margin=0.5), FIGURES), (H.HingeLoss(reduction="none"), FIGURES),
    (H.BCEWithLogitsLoss(), FIGURES), (H.BCEWithLogitsLoss(pos_weight=(0.5, 1.0, 2.0, 3.0, 1.5)), FIGURES),
    (H.KLDivLoss(), FIGURES), (H.KLDivLoss(log_target=True), FIGURES), (H.KLDivLoss(reduction="batchmean"), FIGURES),
    (H.KLDivLoss(reduction="none"), FIGURES),
    (H.NLLLoss(), (5,)), (H.NLLLoss(weight=(0.5, 1.0, 2.0, 3.0, 1.5), ignore_index=0), FIGURES), (H.NLLLoss(reduction="none"), FIGURES),
    (H.CrossEntropyLoss(), (5,)), (H.CrossEntropyLoss(ignore_index=1), FIGURES),
    (H.CrossEntropyLoss(label_smoothing=0.1, ignore_index=0, weight=(0.5, 1.0, 2.0, 3.0, 1.5)), FIGURES),
    (H.CosineEmbeddingLoss(), (2, 4)), (H.CosineEmbeddingLoss(margin=0.3, reduction="none"), (2, 4)),
    (CTCLoss(), (6, 3)), (CTCLoss(reduction="none"), (6, 3)), (CTCLoss(reduction="sum"), (5, 4)),
)


def examples(cls: type) -> Iterator[tuple[Any, ...]]:
    """Yield the settings of a class: a layer with the shapes of its inputs, a head with that of z."""
    if issubclass(cls, H.Head):
        yield from (example for example in HEAD_EXAMPLES if type(example[0]) is cls)
    else:
        yield from (example for example in cls.examples() if type(example[0]) is cls)  # type: ignore[attr-defined]


def _cast(array: np.ndarray, precision: Precision) -> np.ndarray:
    return array if array.dtype.kind in "iub" else np.asarray(array).astype(precision.dtype)


def _numbers(numbers: str, x: np.ndarray, seed: int) -> np.ndarray:
    if x.dtype.kind in "iub" or numbers == "normal":
        return x
    return x * 4 if numbers == "wide" else np.random.default_rng(seed).choice(NUMBERS[numbers], size=x.shape)


def _tensors(arrays: dict[Any, np.ndarray], constant: Collection[Any] = ()) -> dict[Any, torch.Tensor]:
    return {name: to_torch(a).requires_grad_(a.dtype.kind == "f" and name not in constant) for name, a in arrays.items()}


def _one(arrays: tuple[Any, ...]) -> Any:
    return arrays if len(arrays) > 1 else arrays[0]


@cache
def step_of(layer: Any, shapes: tuple[tuple[int, ...], ...], numbers: str, name: str) -> LayerTrace:
    """Return what torch makes of a layer on numbers of a kind, as one step of a trace."""
    precision = precision_named(name)
    if isinstance(layer, H.Head):
        return _head_step(layer, (BATCH, *shapes[0]), numbers, precision)
    point = Setting(layer, shapes).draw(batch=BATCH)
    inputs = {i: _cast(_numbers(numbers, x, i), precision) for i, x in enumerate(point.inputs)}
    params = {name: _cast(a, precision) for name, a in point.params.items()}
    dys = tuple(_cast(dy, precision) for dy in point.dys)
    xs, weights = _tensors(inputs), _tensors(params, layer.constants(*shapes))
    ys = each(LOWERINGS[type(layer)](layer, weights, *xs.values()))
    torch.autograd.backward(ys, [to_torch(dy) for dy in dys])
    return LayerTrace("layers.0", layer, tuple(inputs.values()), _one(tuple(map(to_numpy, ys))),
                      tuple(to_numpy(x.grad) if x.requires_grad else None for x in xs.values()), _one(dys), params,
                      {name: to_numpy(w.grad) for name, w in weights.items() if w.requires_grad})


def _head_step(head: H.Head, shape: tuple[int, ...], numbers: str, precision: Precision) -> LayerTrace:
    rng = np.random.default_rng(5)
    z = _cast(_numbers(numbers, rng.standard_normal(shape), 0), precision)
    target = _cast(TARGETS[head.target_kind()](rng, head, head.target_shape(shape), shape[-1]), precision)
    dloss = _cast(rng.standard_normal(head.loss_shape(shape)), precision)
    leaf = to_torch(z).requires_grad_()
    loss = HEADS[type(head)](head, leaf, to_torch(target))
    torch.autograd.backward(loss, to_torch(dloss))
    return LayerTrace("head", head, (z, target), to_numpy(loss), (to_numpy(leaf.grad),), dloss, {}, {})


@cache
def right_step(layer: Any, shapes: tuple[tuple[int, ...], ...], numbers: str, name: str) -> LayerTrace:
    """Return the step with what torch itself gets wrong put right, so that only a planted mistake is left to be blamed."""
    step, precision = step_of(layer, shapes, numbers, name), precision_named(name)
    wrong = [c.tensor for c in certify_layer(step, precision) if c.failed]
    for tensor in wrong:
        step = with_tensor(step, tensor, expected_plain(step)[tensor].astype(precision.dtype))
    return step


def steps(cls: type, precision: str, run: Callable[..., LayerTrace] = right_step) -> Iterator[LayerTrace]:
    """Yield what torch makes of every example of a class, on every kind of numbers."""
    for layer, *shapes in examples(cls):
        for numbers in NUMBERS:
            yield run(layer, tuple(shapes), numbers, precision)


def made(mistake: Mistake, step: LayerTrace) -> dict[str, np.ndarray]:
    """Return the tensors that a mistake names in a step, as it makes them."""
    with quiet():
        wrong = {name: mistake.wrong(step, name, expected_plain) for name in tensors(step)}
        return {name: np.asarray(w).astype(tensors(step)[name].dtype) for name, w in wrong.items() if w is not None}


def applies(mistake: Mistake, cls: type) -> bool:
    return any(made(mistake, step) for step in steps(cls, "float64", step_of))


Blamed = tuple[LayerTrace, list[Certificate]]


def show(mistake: Mistake, cls: type, name: str) -> Blamed:
    """Plant a mistake into the first example on which every tensor it names comes out wrong; return that step and what failed.

    On no example may a certificate fail in a tensor that it does not name.
    """
    precision = precision_named(name)
    for step in steps(cls, name):
        planted, altered = made(mistake, step), step
        if not all(np.isfinite(wrong.astype(np.float64)).all() for wrong in planted.values()):
            continue  # numbers that are not finite are a finding of their own
        for tensor, wrong in planted.items():
            altered = with_tensor(altered, tensor, wrong)
        failed = [c for c in certify_layer(altered, precision) if c.failed]
        blamed = {c.tensor for c in failed}
        assert blamed <= planted.keys(), f"{mistake.code} in {step.layer}: blamed {blamed}, expected {set(planted)}"
        if planted and blamed == planted.keys():
            return altered, failed
    raise AssertionError(f"{mistake.code} never shows in all of its tensors in {cls.__name__}, {name}")


def name_it(mistake: Mistake, blamed: Blamed, name: str) -> None:
    """Diagnose every tensor of a step that a mistake was planted into: the code must be its own, or that of equal numbers."""
    (step, failed), precision = blamed, precision_named(name)

    def rule(altered: LayerTrace) -> Any:
        return expected(altered, Arithmetic(precision))

    for certificate in failed:
        tensor = certificate.tensor
        found = diagnose(step, certificate, precision)
        assert tensor in found.sentence
        assert found.equation == derivation(step.layer, tensor) != ""
        if found.code != mistake.code:
            assert found.code in BY_CODE, f"{mistake.code} in {tensor} of {step.layer}, {name}: {found.code}"
            ours, theirs = mistake.wrong(step, tensor, rule), BY_CODE[found.code].wrong(step, tensor, rule)
            assert ours is not None
            assert theirs is not None
            apart = np.abs(ours.value - theirs.value)
            assert bool((apart <= np.minimum(ours.radius(), theirs.radius())).all()), \
                f"{mistake.code} in {tensor} of {step.layer}, {name}: {found.code}"


@cache
def codes_of(cls: type) -> tuple[str, ...]:
    return tuple(m.code for m in FAMILY if applies(m, cls))


@pytest.mark.parametrize("cls", OWN.values(), ids=OWN)
def test_every_layer_has_three_mistakes_of_its_own(cls: type) -> None:
    """Beyond the general mistakes at least three more have a meaning for every layer and head."""
    assert len(codes_of(cls)) >= 3, codes_of(cls)


@pytest.mark.parametrize("mistake", FAMILY, ids=lambda m: m.code)
def test_a_mistake_is_caught_blamed_and_named(mistake: Mistake) -> None:
    """In every layer it belongs to, a planted mistake fails exactly the tensors it names, and the diagnosis knows it."""
    belongs = [cls for cls in OWN.values() if mistake.code in codes_of(cls)]
    assert belongs, f"{mistake.code} belongs to no layer"
    for cls in belongs:
        for name in ("float64", "float32"):
            name_it(mistake, show(mistake, cls, name), name)


def test_the_self_test_of_a_run_plants_every_kind() -> None:
    """Where a run meets every layer with every option, its self-test plants every kind of mistake and misses none."""
    result = SelfTest()
    planter = Planter(0, result)
    for cls in OWN.values():
        for layer, *shapes in examples(cls):
            for numbers in ("normal", "ties"):
                step = right_step(layer, tuple(shapes), numbers, "float64")
                trace = Trace(step.outputs[0], (step,), (Wired(step.layer.input_names, step.layer.output_names),))
                planter.plant(trace, precision_named("float64"), numbers, fused=False)
    assert result.missed == []
    assert result.planted == result.caught == result.blamed
    assert set(result.by_mistake) == set(KINDS)


def test_codes_are_told_apart() -> None:
    """Every code is one mistake's, in small letters, digits and hyphens; every sentence names the tensor."""
    assert len(BY_CODE) == len(MISTAKES)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", m.code) for m in MISTAKES)
    assert all("{tensor}" in m.sentence for m in MISTAKES)


# The checks above can fail.


def _right(layer: Any, params: Any, x: Any) -> Any:
    return layer.forward(params, x)


def _no_weight(layer: Any, params: Any, x: Any) -> Any:
    y, right = layer.forward(params, x)

    def backward(dy: Any) -> Any:
        dx, dparams = right(dy)
        return dx, {**dparams, "weight": dparams["weight"] * 0.75}

    return y, backward


@pytest.mark.parametrize(("rule", "tensors_named"), [(_right, ("dx",)), (_no_weight, ("dx", "dweight"))])
def test_a_mistake_that_changes_nothing_fails(rule: Any, tensors_named: tuple[str, ...]) -> None:
    """A mistake that leaves a tensor it names as it is on every example is not one that is caught."""
    with pytest.raises(AssertionError, match="changes-nothing never shows in all of its tensors in Linear, float64"):
        show(faulty("changes-nothing", "", Linear, tensors_named, rule), Linear, "float64")


def test_a_mistake_blamed_on_another_tensor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that fails in a tensor the mistake does not name is no blame of the mistake."""
    mistake = faulty("weight-shrunk", "{tensor} is three quarters of what it should be", Linear, ("dweight",), _no_weight)

    def misplaced(step: LayerTrace, tensor: str, wrong: np.ndarray) -> LayerTrace:
        return replace(step, d_inputs=(step.d_inputs[0] + 1,))

    monkeypatch.setattr(f"{__name__}.with_tensor", misplaced)
    with pytest.raises(AssertionError, match=r"weight-shrunk in Linear.*blamed .*dx.*expected .*dweight"):
        show(mistake, Linear, "float64")


def test_a_mistake_under_another_name_fails() -> None:
    """A mistake that the table does not know is not named by it, and one named as another with other numbers fails."""
    unknown = faulty("weight-shrunk", "{tensor} is three quarters of what it should be", Linear, ("dweight",), _no_weight)
    with pytest.raises(AssertionError, match=r"weight-shrunk in dweight of Linear.*: factor"):
        name_it(unknown, show(unknown, Linear, "float64"), "float64")
    step, failed = show(BY_CODE["silu-gate-only"], REGISTRY["SiLU"], "float64")
    with pytest.raises(AssertionError, match=r"silu-gate-missing in dx of SiLU.*: silu-gate-only"):
        name_it(BY_CODE["silu-gate-missing"], (step, failed), "float64")


# Ties, of which a hull holds more than the subgradients.

TIED: tuple[tuple[Any, tuple[int, ...]], ...] = (
    (MaxPool1d(2), (2, 4)), (MaxPool1d(3, stride=1, padding=1), (1, 5)), (MaxPool2d(2, stride=1), (2, 3, 3)), (GlobalMaxPool(), (2, 2, 3)),
)


def _even(layer: Any, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Return dx in which the largest entries of a window share dy evenly, as `jnp.max` has it, by the mean over small disturbances."""
    rng = np.random.default_rng(3)
    if isinstance(layer, GlobalMaxPool):
        largest = x == x.max(axis=tuple(range(2, x.ndim)), keepdims=True)
        return np.where(largest, dy / largest.sum(axis=tuple(range(2, x.ndim)), keepdims=True), 0)
    parts = [layer.forward({}, x + 1e-3 * rng.random(x.shape))[1](dy)[0] for _ in range(6)]
    return sum(parts) / len(parts)  # type: ignore[return-value]


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(("layer", "shape"), TIED, ids=lambda item: type(item).__name__ if isinstance(item, Layer) else "")
def test_a_shared_tie_is_a_convention_and_a_tie_paid_twice_is_wrong(layer: Any, shape: tuple[int, ...], precision: str) -> None:
    """Tied entries may share dy in any way, evenly too; when each receives all of it, dx sums to more than dy and is wrong."""
    dtype = precision_named(precision).dtype
    rng = np.random.default_rng(0)
    x, dy = np.ones((BATCH, *shape)), rng.standard_normal((BATCH, *layer.output_shape(shape))).astype(dtype).astype(np.float64)
    y, backward = layer.forward({}, x)
    first = LayerTrace("layers.0", layer, (x.astype(dtype),), y.astype(dtype), (backward(dy)[0].astype(dtype),), dy.astype(dtype), {}, {})
    everywhere = BY_CODE["tied-all-full"].wrong(first, "dx", expected_plain)
    verdicts = {}
    for name, dx in (("first", first.d_inputs[0]), ("even", _even(layer, x, dy)), ("full", everywhere)):
        step = with_tensor(first, "dx", np.asarray(dx).astype(dtype))
        verdicts[name] = next(c.verdict for c in certify_layer(step, precision_named(precision)) if c.tensor == "dx")
    assert verdicts == {"first": "agrees", "even": "convention", "full": "outside"}


@pytest.mark.parametrize("adapter", ["jax:jit", "torch:compile"])
def test_a_fusing_compiler_is_held_to_it_too(adapter: str) -> None:
    """What lies in a hull because of neighbouring roundings must hand on all of dy as well."""
    case = Case(Network((1, 4), (bp.Identity(), MaxPool1d(2), bp.Identity()), H.MSELoss()), 1, "zeros", 2)
    trace = load("torch").run(case)
    index = next(i for i, step in enumerate(trace.layers) if isinstance(step.layer, MaxPool1d))
    step = trace.layers[index]
    wrong, precision = BY_CODE["tied-all-full"].wrong(step, "dx", expected_plain), precision_named("float64")
    altered = replace(trace, layers=(*trace.layers[:index], with_tensor(step, "dx", np.asarray(wrong)), *trace.layers[index + 1 :]))
    assert not any(c.failed for c in certify_step(trace, index, precision, Neighbourhood(trace, precision)))
    assert [c.tensor for c in certify_step(altered, index, precision, Neighbourhood(altered, precision)) if c.failed] == ["dx"]


# Derivations


def _produced() -> Iterator[tuple[Any, str]]:
    for cls in OWN.values():
        for layer, *shapes in examples(cls):
            names = ("output", "dz") if isinstance(layer, H.Head) else Setting(layer, tuple(shapes)).expected(1)
            yield from ((layer, name) for name in names)


def test_every_tensor_has_its_line_of_the_derivation() -> None:
    """For every tensor of every example's layer a line of the rule's own docstring is quoted, and it is about that tensor."""
    missing = [(layer, tensor) for layer, tensor in _produced() if not re.match(r"\S+ = \S", derivation(layer, tensor))]
    assert not missing
