"""A diagnosis names the mistake that reproduces the numbers of a finding, and says plainly when none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.derivation import derivation
from backproof.judge.diagnosis import Diagnosis, diagnose, digits_lost, source_of
from backproof.judge.factors import SINGLE
from backproof.judge.mistakes import MISTAKES
from backproof.judge.mistakes.general import MISTAKES as GENERAL
from backproof.judge.rules import expected, expected_plain, tensors
from backproof.reference.case import Case
from backproof.reference.graph import Container
from backproof.reference.heads import BCEWithLogitsLoss, CrossEntropyLoss, Head, MSELoss
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import BOUND_SLACK, Arithmetic, Rounded, precision_named
from backproof.reference.trace import LayerTrace

TORCH = load("torch")  # here, so that mutation testing imports it once
BATCH = 6
LAYERS = (Linear(5), bp.Tanh(), Linear(4), bp.Softmax(), Linear(4, bias=False), bp.ReLU(), Linear(3), bp.LogSoftmax())
NETWORK = Network((5,), LAYERS, Head("linear", "huber", "sum"))
AFFINE, TANH, SOFTMAX, RELU, LOG_SOFTMAX, HEAD = "layers.0", "layers.1", "layers.3", "layers.5", "layers.7", "head"

SEQUENCE = Network((BATCH, BATCH), (Linear(4),), Head("linear", "huber", "sum"))

every_precision = pytest.mark.parametrize("precision", ["float64", "float32"])


@cache
def step_of(path: str, precision: str, network: Network = NETWORK, batch: int = BATCH) -> LayerTrace:
    trace = TORCH.run(Case(network, 5, batch=batch, precision=precision))
    return next(step for step in trace.layers if step.path == path)


def planted_in(path: str, precision: str) -> LayerTrace:
    return step_of(AFFINE, precision, SEQUENCE) if path == "sequence" else step_of(path, precision)


def with_tensor(step: LayerTrace, tensor: str, value: Any) -> LayerTrace:
    if tensor == "output":
        return replace(step, output=value)
    if tensor in {"dx", "dz"}:
        return replace(step, d_inputs=(value,))
    return replace(step, d_params={**step.d_params, tensor[1:]: value})


def diagnosis(step: LayerTrace, tensor: str, wrong: np.ndarray) -> Diagnosis:
    """Plant a wrong tensor, let it be certified, and return the diagnosis of the one certificate that fails."""
    precision = precision_named(str(step.inputs[0].dtype))
    altered = with_tensor(step, tensor, np.asarray(wrong).astype(tensors(step)[tensor].dtype))
    (certificate,) = (c for c in certify_layer(altered, precision) if c.failed)
    assert certificate.tensor == tensor
    return diagnose(altered, certificate, precision)


def scaled(by: float) -> Callable[[LayerTrace, np.ndarray], np.ndarray]:
    return lambda _, right: right * right.dtype.type(by)


def outer(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The gradient of a Linear's weight, dW_ij = sum_n dy_ni x_nj."""
    return dy.T @ x


Plant = Callable[[LayerTrace, np.ndarray], np.ndarray]
PLANTS: dict[str, tuple[str, str, Plant]] = {
    "zero": (AFFINE, "dweight", lambda _, right: np.zeros_like(right)),
    "sign": (TANH, "dx", scaled(-1)),
    "over-batch": (AFFINE, "dbias", scaled(1 / BATCH)),
    "times-batch": (AFFINE, "dweight", scaled(BATCH)),
    "doubled": (HEAD, "dz", scaled(2)),
    "halved": (SOFTMAX, "dx", scaled(0.5)),
    "transposed": (AFFINE, "dweight", lambda _, right: right.T),
    "first-axes-swapped": ("sequence", "dx", lambda _, right: right.transpose(1, 0, 2)),
    "last-axes-swapped": ("sequence", "dx", lambda _, right: right.transpose(0, 2, 1)),
    "derivative-missing": (TANH, "dx", lambda step, _: step.d_output),
    "derivative-at-output": (TANH, "dx", lambda step, _: step.d_output * (1 - np.tanh(step.output) ** 2)),
    "upstream-ignored": (AFFINE, "dweight", lambda step, _: outer(np.ones_like(step.d_output), step.inputs[0])),
    "first-example-only": (AFFINE, "dweight", lambda step, _: outer(step.d_output[:1], step.inputs[0][:1])),
    "last-example-dropped": (AFFINE, "dbias", lambda step, _: step.d_output[:-1].sum(axis=0)),
    "first-example-dropped": (AFFINE, "dweight", lambda step, _: outer(step.d_output[1:], step.inputs[0][1:])),
    "stale-input": (AFFINE, "dweight", lambda step, _: outer(step.d_output, np.roll(step.inputs[0], 1, axis=0))),
    "rows-permuted": (AFFINE, "dweight", lambda _, right: right[[1, 2, 3, 4, 0]]),
    "rows-reversed": (TANH, "dx", lambda _, right: right[::-1]),
}
"""Each mistake made by hand, without the table's own code: where, in which tensor, and how. Chosen where they all differ."""


def test_every_mistake_is_planted_here() -> None:
    """The table above plants exactly the mistakes that any backward can have; those of one layer have a test of their own."""
    assert PLANTS.keys() == {mistake.code for mistake in GENERAL}
    assert len({mistake.code for mistake in MISTAKES}) == len(MISTAKES)


@every_precision
@pytest.mark.parametrize("code", PLANTS)
def test_a_mistake_is_named(code: str, precision: str) -> None:
    """A mistake made by hand in a real trace gets its own code and a sentence about that tensor."""
    path, tensor, plant = PLANTS[code]
    step = planted_in(path, precision)
    found = diagnosis(step, tensor, plant(step, tensors(step)[tensor]))
    assert found.code == code
    assert found.sentence == next(m.sentence for m in MISTAKES if m.code == code).format(tensor=tensor, m=BATCH)
    assert tensor in found.sentence
    assert found.equation == derivation(step.layer, tensor)


@pytest.mark.parametrize("code", PLANTS)
def test_the_table_makes_the_same_mistake(code: str) -> None:
    """What the table computes for a mistake, in plain and in rounded arithmetic, is what is made by hand here."""
    path, tensor, plant = PLANTS[code]
    step, mistake = planted_in(path, "float64"), next(m for m in MISTAKES if m.code == code)
    by_hand = plant(step, tensors(step)[tensor]).astype(np.float64)
    precision = precision_named("float64")
    ball = mistake.wrong(step, tensor, lambda altered: expected(altered, Arithmetic(precision)))
    plain = mistake.wrong(step, tensor, expected_plain)
    assert ball is not None
    assert plain is not None
    for numbers in (by_hand, plain):
        assert bool((np.abs(numbers - ball.value) <= 2 * ball.radius()).all())


@pytest.mark.parametrize(("path", "tensor", "wrong", "code"), [
    # without its cross term the gradient of log-softmax is dy - 0: the upstream gradient itself
    (LOG_SOFTMAX, "dx", lambda step, _: step.d_output, "derivative-missing"),
    # relu's derivative is the same at x and at y = relu(x), so 1 everywhere is all that can be missing
    (RELU, "dx", lambda step, _: step.d_output, "derivative-missing"),
])
def test_of_equal_mistakes_the_first_is_named(path: str, tensor: str, wrong: Plant, code: str) -> None:
    """Mistakes that are the same numbers on a layer are named by the first of them."""
    step = step_of(path, "float64")
    assert diagnosis(step, tensor, wrong(step, tensors(step)[tensor])).code == code


def test_the_batch_size_is_said() -> None:
    """The sentence of a factor of the batch size holds the number."""
    step = step_of(AFFINE, "float64")
    assert diagnosis(step, "dbias", step.d_params["bias"] / BATCH).sentence == (
        "dbias is divided by the batch size m = 6 once too often")


def test_a_batch_of_two_is_halved_by_its_size() -> None:
    """With two examples a half may be either mistake; the one named fits the numbers."""
    step = step_of(AFFINE, "float64", NETWORK, 2)
    assert diagnosis(step, "dweight", step.d_params["weight"] / 2).code in {"halved", "over-batch"}


@every_precision
@pytest.mark.parametrize("factor", [1.7, -0.3, 1.01, 1e3])
def test_a_common_factor_is_read_off(factor: float, precision: str) -> None:
    """A factor that is no mistake of the table is said in numbers."""
    step = step_of(AFFINE, precision)
    found = diagnosis(step, "dweight", step.d_params["weight"].astype(np.float64) * factor)
    assert found == Diagnosis("factor", f"dweight is {factor:.6g} times what it should be, everywhere", found.equation)


def test_a_constant_in_single_precision_is_named() -> None:
    """A common factor that is 1 to 24 bits, in float64, is a constant held in single precision."""
    step = step_of(AFFINE, "float64")
    found = diagnosis(step, "dweight", step.d_params["weight"] * (float(np.float32(1 / 6)) * 6))
    assert found.code == "single-precision-constant"
    assert "held in single precision" in found.sentence


@pytest.mark.parametrize("part", [1e-11, -3e-13])
def test_a_smaller_factor_is_no_single_precision_constant(part: float) -> None:
    """A factor much closer to 1 than single precision rounds has another cause."""
    step = step_of(AFFINE, "float64")
    found = diagnosis(step, "dweight", step.d_params["weight"] * (1 + part))
    assert found.code != "single-precision-constant"


@pytest.mark.parametrize(("precision", "coarse"), [("float64", "float32"), ("float64", "float16"), ("float64", "bfloat16"),
                                                   ("float32", "float16"), ("float32", "bfloat16")])
def test_a_tensor_of_a_coarser_precision_is_named(precision: str, coarse: str) -> None:
    """Numbers of a coarser format are told to be of that, by the digits that they have and by their bits."""
    step = step_of(TANH, precision)
    found = diagnosis(step, "dx", step.d_inputs[0].astype(precision_named(coarse).dtype))
    assert found == Diagnosis("coarse-precision", f"dx is right to the digits of {coarse} only: it was computed in that",
                              derivation(step.layer, "dx"))


@pytest.mark.parametrize(("last", "held"), [(0.5, True), (1.345e-6, False)])
def test_of_the_formats_that_hold_the_numbers_the_coarsest_is_named(last: float, held: bool) -> None:
    """Numbers of bfloat16 are told by their bits from those of float16, which explains them as well, and may hold them or not."""
    x, dy = np.array([[0.5, 1.0, -0.7, 0.3]]), np.array([[1.0, 2.0, 3.0, last]])
    y, backward = bp.Tanh().forward({}, x)
    right, _ = backward(dy)
    wrong = right.astype(precision_named("bfloat16").dtype)
    assert bool((wrong.astype(np.float64) == wrong.astype(np.float16)).all()) == held
    found = diagnosis(LayerTrace("layers.0", bp.Tanh(), (x,), y, (right,), dy, {}, {}), "dx", wrong)
    assert found.sentence == "dx is right to the digits of bfloat16 only: it was computed in that"


def test_digits_without_the_bits_are_of_the_finest_format() -> None:
    """Where a step was computed in a coarser format and the rest was not, the finest format that explains the numbers is named."""
    step = step_of(TANH, "float64")
    found = diagnosis(step, "dx", step.d_inputs[0].astype(np.float32) * (1 + 2.0**-50))
    assert found.sentence == "dx is right to the digits of float32 only: it was computed in that"


@pytest.mark.parametrize(("known", "code"), [(1, "unknown"), (2, "coarse-precision")])
def test_a_coarser_precision_is_named_where_most_entries_have_a_digit(known: int, code: str) -> None:
    """Where cancellation leaves half of the entries without a decimal digit in the coarser format, it explains too much to be named."""
    left = np.array([1.0] * known + [2.0**-21])  # of a sum of numbers near 1
    x, dy = np.array([np.ones(known + 1), left - 1]), np.ones((2, 1))
    layer, params = Linear(1, bias=False), {"weight": np.ones((1, known + 1))}
    y, backward = layer.forward(params, x)
    dx, d_params = backward(dy)
    step = LayerTrace("layers.0", layer, (x,), y, (dx,), dy, params, d_params)
    off = np.array([1 + 2.0**-10, 1 - 2.0**-10])[:known]
    assert diagnosis(step, "dweight", np.array([[*off, 1.25 * left[-1]]])).code == code


def test_nothing_is_coarser_than_half_precision() -> None:
    """Strange numbers in bfloat16 are of no coarser format."""
    step = step_of(AFFINE, "bfloat16")
    assert diagnosis(step, "dweight", np.random.default_rng(0).standard_normal((5, 5))).code == "unknown"


@every_precision
def test_a_single_zeroed_entry_is_named_with_its_index(precision: str) -> None:
    """One entry that is zero is said to be, with where it is."""
    step = step_of(AFFINE, precision)
    wrong = step.d_params["weight"].copy()
    wrong[3, 1] = 0
    found = diagnosis(step, "dweight", wrong)
    assert found == Diagnosis("single-entry", "one entry of dweight is wrong, at [3, 1]: it is zero", derivation(step.layer, "dweight"))


@pytest.mark.parametrize(("factor", "said"), [(3.0, "it is 3 times the true value"),
                                              (1 + 1e-4, "it is off by +0.0001 of the true value")])
def test_a_single_entry_is_set_against_its_true_value(factor: float, said: str) -> None:
    """One wrong entry is said as a multiple of the true one, or as a part of it where it is close."""
    step = step_of(AFFINE, "float64")
    wrong = step.d_params["weight"].copy()
    wrong[3, 1] *= factor
    assert diagnosis(step, "dweight", wrong).sentence == f"one entry of dweight is wrong, at [3, 1]: {said}"


def test_a_single_entry_that_should_be_zero_is_said() -> None:
    """One entry where the true value is 0 is given as it is."""
    step = step_of(RELU, "float64")
    at = tuple(int(i) for i in np.argwhere(step.inputs[0] < 0)[0])
    wrong = step.d_inputs[0].copy()
    wrong[at] = 0.125
    assert diagnosis(step, "dx", wrong).sentence == f"one entry of dx is wrong, at {list(at)}: it is 0.125 in place of 0"


@every_precision
def test_numbers_of_no_known_mistake_are_unknown(precision: str) -> None:
    """Random numbers are called unknown in so many words, with how many entries are outside."""
    step = step_of(AFFINE, precision)
    found = diagnosis(step, "dweight", np.random.default_rng(0).standard_normal((5, 5)))
    assert found == Diagnosis(
        "unknown", "no known mistake reproduces these numbers; 25 of 25 entries are outside, spread over the whole tensor",
        derivation(step.layer, "dweight"))


@pytest.mark.parametrize(("axis", "line"), [(0, 2), (1, 4)])
def test_the_unknown_says_where_it_gathers(axis: int, line: int) -> None:
    """Wrong entries that share a row or a column are said to."""
    step = step_of(AFFINE, "float64")
    wrong = step.d_params["weight"].copy()
    np.moveaxis(wrong, axis, 0)[line] = [1.0, -2.0, 3.0, -4.0, 5.0]
    found = diagnosis(step, "dweight", wrong)
    assert found.code == "unknown"
    assert f"the 5 entries outside lie at {line} of axis {axis} (size 5)" in found.sentence


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_counted(value: float) -> None:
    """NaN and infinity are counted and located by no mistake of the table."""
    step = step_of(AFFINE, "float64")
    wrong = step.d_params["weight"].copy()
    wrong[0, :2] = value
    found = diagnosis(step, "dweight", wrong)
    assert found == Diagnosis("nonfinite", "2 of 25 entries of dweight are not finite where the true value is",
                              derivation(step.layer, "dweight"))


def test_a_gradient_of_no_examples_is_a_sum_of_nothing() -> None:
    """Of an empty batch every parameter's gradient is 0, whatever came back in its stead."""
    x, y = np.zeros((0, 3)), np.zeros((0, 2))
    params = {"weight": np.zeros((2, 3)), "bias": np.zeros(2)}
    step = LayerTrace("layers.0", Linear(2), (x,), y, (x,), y, params, params)
    found = diagnosis(step, "dbias", np.full(2, 7.0))
    assert found == Diagnosis("empty-batch", "of no examples dbias is a sum of nothing, 0: something else came back",
                              derivation(Linear(2), "dbias"))
    assert found.equation


def test_an_error_carries_its_message() -> None:
    """A tensor of a wrong shape is diagnosed by the certificate's own message."""
    step = step_of(AFFINE, "float64")
    found = diagnosis(step, "dweight", np.zeros((5, 4)))
    assert (found.code, found.sentence) == ("error", "wrong shape of dweight: got (5, 4), expected (5, 5)")


def test_a_mistake_hidden_by_rounding_is_not_claimed() -> None:
    """No mistake is named that fits only because the bound is as large as the numbers."""
    step = step_of(AFFINE, "float64", Network((5,), (Linear(5),), MSELoss()))
    wrong = step.d_params["weight"] + np.random.default_rng(1).standard_normal((5, 5)) * 1e-3
    assert diagnosis(step, "dweight", wrong).code == "unknown"


OWN = [cls for cls in REGISTRY.values() if cls.__module__.startswith("backproof.reference.")]
SETTINGS = [example for cls in OWN if issubclass(cls, Layer) and not issubclass(cls, Container) for example in cls.examples()]
PRODUCED = {
    **{(cls.__name__, tensor): (cls(), tensor) for cls in OWN if issubclass(cls, Head) for tensor in ("output", "dz")},
    **{(type(layer).__name__, tensor): (layer, tensor) for layer, *shapes in SETTINGS
       for tensor in (*layer.output_names, *(f"d{name}" for name in (*layer.input_names, *layer.parameters(*shapes))))
       if tensor not in {f"d{name}" for name, below in zip(layer.input_names, layer.index_below(), strict=True) if below is not None}},
}
"""Every tensor that a head, or a layer in any of its examples, produces."""


@pytest.mark.parametrize(("layer", "tensor"), PRODUCED.values(), ids=map("-".join, PRODUCED))
def test_every_tensor_has_its_line_of_the_derivation(layer: Any, tensor: str) -> None:
    """For every tensor of every layer and head a line of the rule's own derivation is quoted."""
    line = derivation(layer, tensor)
    assert " = " in line
    assert "as in torch" not in line


@pytest.mark.parametrize(("layer", "tensor", "line"), [
    (Linear(3), "output", "y_ni = sum_j x_nj W_ij + b_i"),
    (Linear(3), "dx", "dx_nj = sum_i dy_ni dy_ni/dx_nj = sum_i dy_ni W_ij"),
    (Linear(3), "dweight", "dW_ij = sum_n dy_ni x_nj"),
    (Linear(3), "dbias", "db_i = sum_n dy_ni"),
    (bp.ReLU(), "output", "y_n = x_n if x_n > 0, else 0"),
    (bp.Tanh(), "dx", "dx_n = dy_n sech^2 x_n = dy_n 4 s(2 x_n) s(-2 x_n) = dy_n (1 - y_n^2)"),
])
def test_the_line_is_the_formula_in_index_notation(layer: Any, tensor: str, line: str) -> None:
    """The line quoted is the formula or the chain rule of that tensor, not the prose around it."""
    assert " ".join(derivation(layer, tensor).split()) == line


@pytest.mark.parametrize("head", [MSELoss(), BCEWithLogitsLoss(), CrossEntropyLoss()], ids=lambda head: type(head).__name__)
def test_a_mistake_in_a_head_is_named(head: Head) -> None:
    """The fused heads are diagnosed as the layers are."""
    step = step_of("head", "float64", Network((4,), (Linear(3),), head))
    assert diagnosis(step, "dz", -step.d_inputs[0]).code == "sign"
    assert diagnosis(step, "dz", step.d_inputs[0] * BATCH).code == "times-batch"


# What is said of numbers of no mistake, on certificates by hand. The layer's own rule has other numbers, so that no mistake fits.

FLOAT64 = precision_named("float64")


def said(actual: Any, value: Any, bound: Any = 0.0, *, outside: int = 2, index: tuple[int, ...] = (0,),
         precision: str = "float64", **params: Any) -> Diagnosis:
    """Return the diagnosis of a tensor of a layer, `dx` of a ReLU, whose true value and bound are these, by parameters that it has."""
    p = precision_named(precision)
    truth = Rounded(np.asarray(value, np.float64), np.asarray(bound, np.float64), Arithmetic(p))
    x = np.full(truth.shape, 7.0) * np.linspace(1, 2, truth.size).reshape(truth.shape) ** 3
    step = LayerTrace("layers.0", bp.ReLU(), (x,), x, (x,), x, {name: np.asarray(p) for name, p in params.items()}, {})
    return diagnose(step, Certificate("layers.0", bp.ReLU(), "dx", "outside", truth.size, outside, index=index, actual=np.asarray(actual),
                                      ball=truth), p)


PARTS = [2.0**-10, 2.0**-30]


def code(*arguments: Any, **options: Any) -> str:
    return said(*arguments, **options).code


def test_a_factor_is_read_off_where_the_true_value_is_known_best() -> None:
    """Entries that are 0, or hardly known, have no say in the factor; two that are known to a decimal digit are needed."""
    assert said([12.0, 3.0], [4.0, 1.0]).sentence == "dx is 3 times what it should be, everywhere"
    assert said([0.0, 12.0, 3.0], [0.0, 4.0, 1.0]).sentence == "dx is 3 times what it should be, everywhere"
    assert said([99.0, 12.0, 3.0], [1.0, 4.0, 1.0], [np.inf, 0, 0]).sentence == "dx is 3 times what it should be, everywhere"
    assert said([3.5, 12.0, 3.0], [1.0, 4.0, 1.0], [0.75, 0, 0]).sentence == "dx is 3 times what it should be, everywhere"
    assert said([-6.0, -1.6], [4.0, 1.0], [0, 0.1 / BOUND_SLACK]).sentence == "dx is -1.5 times what it should be, everywhere"
    assert code([-6.0, -1.6], [4.0, 1.0], [0, 0.101]) == "unknown"
    assert said([0.305, 0.6, 0.9], [0.1, 0.2, 0.3], [0.009, 0, 0]).sentence == "dx is 3 times what it should be, everywhere"
    assert said([0.3002, 300.0], [0.1, 100.0], [1e-4, 1e-3]).sentence == "dx is 3 times what it should be, everywhere"
    assert code([12.0, 3.0], [4.0, 1.0], [0, 1.0]) == "unknown"
    assert code([12.0, 0.0], [4.0, 0.0]) == "unknown"
    assert code([0.0, 1.0], [4.0, 1.0], [0, 0.5]) == "unknown"
    assert code([np.inf, np.inf], [4.0, 1.0]) == "unknown"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("factor", [3.0, -3.0])
@pytest.mark.parametrize("side", [1, -1])
def test_every_entry_has_the_factor_within_its_bound(part: float, factor: float, side: int) -> None:
    """An entry may be off by the factor times its own bound, and by what the factor is uncertain: the bound that it is read off with."""
    known = part / BOUND_SLACK
    for off, right in ((2.99, True), (3.01, False)):
        assert (code([4 * factor, factor + side * off * part], [4.0, 1.0], [0, known]) == "factor") == right
    for off, right in ((5.99, True), (6.03, False)):
        assert (code([4 * factor, factor + side * off * part], [4.0, 1.0], [4 * known, known]) == "factor") == right


def test_a_product_is_rounded() -> None:
    """Where the true value is exact, a product with it is not."""
    value = np.arange(1.0, 20.0)
    assert said(value * 1.7, value).sentence == "dx is 1.7 times what it should be, everywhere"


@pytest.mark.parametrize("part", PARTS)
def test_a_factor_of_one_within_its_doubt_is_none(part: float) -> None:
    """A factor is told from 1 where it is further from it than the best relative bound, though an entry hardly beyond its bound fits it."""
    for off, told in ((0.99, False), (1.01, True)):
        for side in (1, -1):
            factor = 1 + side * off * part
            bound = part / BOUND_SLACK
            found = code([4 * factor, factor, 1024 + side * (1 + 512 * part)], [4.0, 1.0, 1024.0], [4 * bound, bound, 1])
            assert (found in {"factor", "single-precision-constant"}) == told


def test_what_rounding_leaves_of_zero_is_zero() -> None:
    """Where every entry lies within the bound of 0, the tensor is zero, whatever its entries."""
    assert said([1e-9, -2e-9, 1.0], [4.0, 1.0, 1.0], [1e-8, 1e-8, np.inf]) == Diagnosis(
        "zero", "dx is zero everywhere but for rounding", derivation(bp.ReLU(), "dx"))
    assert code([1e-9, -2e-8], [4.0, 1.0], [1e-8, 1e-8]) != "zero"


@pytest.mark.parametrize(("part", "precision", "single"), [
    (SINGLE, "float64", True), (-SINGLE, "float64", True), (SINGLE / 64, "float64", True), (SINGLE * 1.001, "float64", False),
    (SINGLE / 64.1, "float64", False), (SINGLE / 2, "float32", False), (SINGLE / 2, "bfloat16", False),
])
def test_a_constant_in_single_precision_is_off_by_its_rounding(part: float, precision: str, single: bool) -> None:
    """A common factor between 2^-30 and 2^-24 off 1 is such a constant, in a format that is finer."""
    found = said([4 * (1 + part), 1 + part], [4.0, 1.0], precision=precision)
    if single:
        assert found.code == "single-precision-constant"
        assert found.sentence == (f"dx is off by {part:+.3g} of its value everywhere: a constant of the formula is held in single "
                                  "precision (unit roundoff 5.96e-08)")
    else:
        assert (found.code, found.sentence) == ("factor", "dx is 1 times what it should be, everywhere")


def test_a_parameter_may_be_the_factor() -> None:
    """A parameter of one entry, or one over it, is named in the place of a number, by its own name."""
    assert said([12.0, 3.0], [4.0, 1.0], scale=[[3.0]]) == Diagnosis(
        "parameter-factor", "dx is multiplied by scale once too often: scale is 3", derivation(bp.ReLU(), "dx"))
    assert said([4.0, 1.0], [12.0, 3.0], other=[5.0], scale=3.0).sentence == "dx is not multiplied by scale, or divided by it: scale is 3"


@pytest.mark.parametrize("scale", [3, True, [3.0, 3.0, 3.0], 0.0, 2.0, np.nan, 3 * (1 + 2**-51)])
def test_a_parameter_that_is_not_the_factor_is_not_named(scale: Any) -> None:
    """Whole numbers, entries that no axis has, and what does not give the numbers within their bound are no factor."""
    assert said([12.0, 3.0], [4.0, 1.0], scale=scale).sentence == "dx is 3 times what it should be, everywhere"


def test_a_parameter_may_lie_along_axes() -> None:
    """A parameter with as many entries as an axis, or as several in a row, is named with the axes."""
    value, scale = np.arange(1.0, 25.0).reshape(2, 3, 4), np.array([3.0, 5.0, 7.0])
    along = scale[:, None]
    assert said(value * along, value, scale=scale, outside=24).sentence == "dx is multiplied by scale once too often, along axis 1"
    assert said(value / along, value, scale=scale, outside=24).sentence == "dx is not multiplied by scale, or divided by it, along axis 1"
    matrix = np.arange(1.5, 13.0).reshape(3, 4)
    assert said(value * matrix, value, scale=matrix, outside=24).sentence == "dx is multiplied by scale once too often, along axes 1 and 2"
    assert said(value * along, value, scale=scale.astype(int), outside=24).code != "parameter-factor"
    assert said(value * along, value, scale=scale, outside=12).code != "parameter-factor"  # most of the entries are right


def test_each_place_of_an_axis_may_have_its_own_factor() -> None:
    """One place of an axis that has a factor is named, or all of them with their factors, of which five are said."""
    value = np.arange(1.0, 13.0).reshape(6, 2)
    wrong = value.copy()
    wrong[3] *= -1.5
    assert said(wrong, value) == Diagnosis("line-factor", "the entries of dx at 3 of axis 0 are -1.5 times what they should be",
                                           derivation(bp.ReLU(), "dx"))
    wrong[3] *= 0
    assert said(wrong, value).sentence == "the entries of dx at 3 of axis 0 are 0 times what they should be"
    factors = np.array([1.0, 2.0, 1.0, 0.25, 0.0, 7.0])
    assert said(value * factors[:, None], value) == Diagnosis(
        "line-factors", "dx has a wrong factor of its own at each place of axis 0: 1, 2, 1, 0.25, 0, ...", derivation(bp.ReLU(), "dx"))
    assert said((value * factors[:, None])[:5].T, value[:5].T).sentence == (
        "dx has a wrong factor of its own at each place of axis 1: 1, 2, 1, 0.25, 0")
    assert code(value[:, :1] * factors[:, None], value[:, :1]) == "unknown"  # a single entry has a factor always
    assert code(value[:, 0] * factors, value[:, 0]) == "unknown"


def test_a_gradient_that_is_not_summed_is_named() -> None:
    """A tensor of more axes than the true one that is right once it is summed over some is told over which; others are of a wrong shape."""
    step = step_of(AFFINE, "float64")
    dy = step.d_output
    found = diagnosis(step, "dbias", dy)
    assert (found.code, found.sentence) == ("not-summed", "wrong shape of dbias: got (6, 5), expected (5,). Summed over axis 0 it is right")
    assert diagnosis(step, "dbias", np.stack([dy.T / 2, dy.T / 2])).sentence == (
        "wrong shape of dbias: got (2, 5, 6), expected (5,). Summed over axes 0 and 2 it is right")
    assert diagnosis(step, "dbias", dy * 1.01).code == "error"
    assert diagnosis(step, "dweight", dy).code == "error"
    precision = precision_named("float64")
    altered = with_tensor(step, "dbias", dy.astype(complex))
    (certificate,) = (c for c in certify_layer(altered, precision) if c.failed)
    assert diagnose(altered, certificate, precision).code == "error"
    altered = with_tensor(step, "dbias", step.d_params["bias"].astype(np.float32))
    (certificate,) = (c for c in certify_layer(altered, precision) if c.failed)
    assert diagnose(altered, certificate, precision).sentence == "wrong dtype of dbias: got float32, expected float64"


@pytest.mark.parametrize("kept", [{}, {"actual": np.ones((2, 3))}, {"ball": Arithmetic(precision_named("float64")).exact(np.ones(3))}])
def test_without_its_numbers_an_error_is_its_message(kept: dict[str, Any]) -> None:
    """What came back in a wrong form, or not at all, and was not kept, is said as it was found."""
    step = step_of(AFFINE, "float64")
    found = diagnose(step, Certificate(AFFINE, step.layer, "dbias", "error", 0, message="no dbias came back", **kept), FLOAT64)
    assert found == Diagnosis("error", "no dbias came back", derivation(step.layer, "dbias"))


def test_the_only_entry_is_set_against_its_true_value() -> None:
    """Where a tensor has a single entry, that is no place among others."""
    found = said([[3.0]], [[2.0]], outside=1, index=(0, 0))
    assert found.code == "unknown"
    assert found.sentence == "no known mistake reproduces these numbers; its one entry is 1.5 times the true value"


@pytest.mark.parametrize(("scale", "factor"), [(3.0, 3.0), (0.75, 1 / 0.75)])
@pytest.mark.parametrize("side", [1, -1])
def test_a_parameter_is_the_factor_of_every_entry_within_its_bound(scale: float, factor: float, side: int) -> None:
    """An entry may be off by its own bound times the factor, and by the rounding of the product; further off it has no factor at all."""
    part = 2.0**-30
    for off, right in ((0.999 * factor, "parameter-factor"), (1.001 * factor, "unknown")):
        found = code([4 * factor, factor + side * off * part], [4.0, 1.0], [0, part / BOUND_SLACK], scale=scale)
        assert found == right


@pytest.mark.parametrize(("here", "there", "what"), [
    (0.0, 4.0, "zero"), (2.0, 0.0, "2 in place of 0"), (6.0, 4.0, "1.5 times the true value"), (-4.0, 4.0, "-1 times the true value"),
    (4.00404, 4.0, "1.00101 times the true value"), (4.00396, 4.0, "off by +0.00099 of the true value"),
    (3.9961, 4.0, "off by -0.000975 of the true value"), (3.99, 4.0, "0.9975 times the true value"),
])
def test_one_entry_is_set_against_its_true_value(here: float, there: float, what: str) -> None:
    """It is zero, in place of 0, so many times the true value, or where it is as close as a thousandth off by a part of it."""
    found = said([[1.0, 2.0], [9.0, here]], [[1.0, 2.0], [9.0, there]], outside=1, index=(1, 1))
    assert (found.code, found.sentence) == ("single-entry", f"one entry of dx is wrong, at [1, 1]: it is {what}")


def gathered(shape: tuple[int, ...], *places: Any) -> str:
    """Return what is said of entries, which are wrong by no common factor, at these places."""
    value = 1 + np.arange(np.prod(shape)).reshape(shape)
    wrong = value.astype(np.float64)
    for number, place in enumerate(places):
        wrong[place] = -100 - number**2
    return said(wrong, value).sentence.removeprefix("no known mistake reproduces these numbers; ")


def test_it_is_said_where_wrong_entries_gather() -> None:
    """In one line of an axis, or at most a quarter of its lines, of which five are named; else they are spread."""
    assert gathered((2, 3), (0, 0), (0, 2)) == "the 2 entries outside lie at 0 of axis 0 (size 2)"
    assert gathered((2, 3), (0, 2), (1, 2)) == "the 2 entries outside lie at 2 of axis 1 (size 3)"
    assert gathered((1, 8), (0, 1), (0, 5)) == "the 2 entries outside lie at 1, 5 of axis 1 (size 8)"
    assert gathered((1, 7), (0, 1), (0, 5)) == "2 of 7 entries are outside, spread over the whole tensor"
    assert gathered((2, 24), *((i % 2, 3 * i) for i in range(6))) == "the 6 entries outside lie at 0, 3, 6, 9, 12 of axis 1 (size 24)"
    assert gathered((2, 2, 2), (0, 0, 1), (1, 1, 1)) == "the 2 entries outside lie at 1 of axis 2 (size 2)"


def test_on_the_edge_is_not_outside() -> None:
    """An entry that lies on the edge of its ball, or hardly beyond, is counted as in it, or not."""
    edge = 0.25 * BOUND_SLACK
    assert said([1 + edge, 9.0, -7.0], [1.0, 2.0, 3.0], 0.25).sentence.endswith("2 of 3 entries are outside, spread over the whole tensor")
    assert said([1.2501, 9.0, -7.0], [1.0, 2.0, 3.0], 0.25).sentence.endswith("3 of 3 entries are outside, spread over the whole tensor")


def test_a_mistake_fits_only_where_it_says_something() -> None:
    """A mistake explains numbers that lie in its ball, all of them, where that ball is smaller than the numbers; or nothing but zeros."""
    x, dy = np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]])
    step = LayerTrace("layers.0", bp.Identity(), (x,), x, (dy,), dy, {}, {})

    def found(actual: Any) -> str:
        truth = Arithmetic(FLOAT64).exact(dy)
        return diagnose(step, Certificate("layers.0", step.layer, "dx", "outside", 2, 2, actual=np.array(actual), ball=truth), FLOAT64).code

    assert found([[-3.0, -5.0]]) == "sign"
    assert found([[-3.0, -5.0 + 1e-12]]) != "sign"
    assert found([[0.0, 0.0]]) == "zero"
    nothing = replace(step, d_inputs=(dy * 0,), d_output=dy * 0)
    certificate = Certificate("layers.0", step.layer, "dx", "outside", 2, 2, actual=dy * 1e-310, ball=Arithmetic(FLOAT64).exact(dy * 0))
    assert diagnose(nothing, certificate, FLOAT64).code == "unknown"


def test_without_its_numbers_a_finding_is_unknown() -> None:
    """Where the tensor or its truth was not kept, that is said, and the derivation quoted."""
    step = step_of(AFFINE, "float64")
    right = step.d_params["weight"]
    for kept in ({}, {"actual": right}, {"ball": Arithmetic(FLOAT64).exact(right)}):
        found = diagnose(step, Certificate(AFFINE, step.layer, "dweight", "outside", 25, 1, **kept), FLOAT64)
        assert found == Diagnosis("unknown", "the numbers of this finding were not kept", derivation(step.layer, "dweight"))


def test_what_is_wrong_only_end_to_end_is_a_connection() -> None:
    """A tensor of the whole network that no layer can be blamed for is wrong wiring; its line is that of the layer's own tensor."""
    step = step_of(AFFINE, "float64")
    right = step.d_params["weight"]
    certificate = Certificate(AFFINE, step.layer, "dweight", "outside", 25, 25, actual=-right,
                              ball=Arithmetic(FLOAT64).exact(right), end_to_end=True)
    assert diagnose(step, certificate, FLOAT64) == Diagnosis(
        "wiring", "every layer is right by itself and yet end-to-end dweight of the network is not: a wrong connection between layers",
        "dW_ij = sum_n dy_ni x_nj")


def test_lost_digits_are_said_with_the_worst_input() -> None:
    """How many, in how many entries, and at which input, where the tensor has one for each entry."""
    step = step_of(TANH, "float64")
    x = step.inputs[0]
    certificate = Certificate(TANH, step.layer, "dx", "outside", x.size, 3, index=(1, 2), actual=x)
    found = digits_lost(step, certificate, 4.25)
    assert found == Diagnosis("digits-lost", "the formula is right but loses about 4.2 decimal digits in 3 entries of dx, worst at input "
                              f"{x[1, 2]:.4g}", derivation(step.layer, "dx"))
    for kept in (None, x[:, :1]):
        assert digits_lost(step, replace(certificate, actual=kept), 4.25).sentence == (
            "the formula is right but loses about 4.2 decimal digits in 3 entries of dx")


def test_a_gradient_comes_from_its_own_input() -> None:
    """The input that a gradient is of; the first for outputs, parameters and heads."""
    a, b = np.ones((1, 2)), np.zeros((1, 2))
    step = LayerTrace("layers.0", bp.Multiply(), (a, b), a, (a, b), a, {}, {})
    assert [source_of(step, tensor) is a for tensor in ("da", "db", "output", "dweight")] == [True, False, True, True]
    head = replace(step, layer=MSELoss())
    assert source_of(head, "dz") is source_of(head, "output") is a


@dataclass(frozen=True)
class Written(Layer):
    """A layer with a derivation.

    Formula       y_nk = 2 x_nk, or so; y is never quoted twice
                  other: z_n = 5; dw_0 = 7
                  relu:  h_t = max(0, x)
                  train: r = 1 (a; b); c = 3
    Chain rule    dx_n(i,j) = 2 dy_n(i,j).
                  dg_..i.. = 3 dy_..i..
                  du    = 3 x_X    = X ;
                  dw_i   = sum_n x_n, of which more
                  dv_ij = a_i    b_j
                  dq = 1, which is 1; ds = 2, dJ/dt = 3: see below
    Kinks         y_0 = 9, not quoted.

    dk = 4
    """

    mode: str = "relu"

    def forward(self, params: Any, *inputs: Any, **_: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Trained(Written):
    """A layer with another one for training.

    Formula       training: r = 1 (a; b)
                  evaluation: h_t = max(0, x)
    """

    training: bool = True


@pytest.mark.parametrize(("layer", "tensor", "line"), [
    (Written(), "output", "y_nk = 2 x_nk, or so"), (Written(), "dx", "dx_n(i,j) = 2 dy_n(i,j)"), (Written(), "h_n", "h_t = max(0, x)"),
    (Written(), "dg", "dg_..i.. = 3 dy_..i.."), (Written(), "du", "du = 3 x_X = X"),
    (Written("tanh"), "h_n", ""), (Written(), "dw_3", "dw_i = sum_n x_n"), (Written("other"), "dw_0", "dw_0 = 7"),
    (Written(), "dv", "dv_ij = a_i"), (Written(), "dq", "dq = 1"), (Written(), "ds", "ds = 2"), (Written(), "dt", ""),
    (Written(), "dk", ""),
    (Written(), "r", ""), (Written("train"), "r", "r = 1 (a; b)"), (Trained(), "r", "r = 1 (a; b)"), (Trained(training=False), "r", ""),
    (Trained(), "h_n", ""), (Trained(training=False), "h_n", "h_t = max(0, x)"),
    (bp.LSTM(2, num_layers=2, bidirectional=True), "dweight_hh_l1_reverse", None),
])
def test_a_line_is_found_and_cut_where_its_equation_ends(layer: Any, tensor: str, line: str | None) -> None:
    """A line under Formula or Chain rule that is about the layer's options, up to what it says besides; none is an empty text."""
    found = derivation(layer, tensor)
    assert found == (derivation(bp.LSTM(2), "dweight_hh_l0") if line is None else line)
    assert line is not None or found.startswith("dweight_hh_l0 = ")
