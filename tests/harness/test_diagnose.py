"""A diagnosis names the mistake that reproduces the numbers of a finding, and says plainly when none does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.certify import certify_layer, expected, expected_plain, tensors
from backproof.diagnose import Diagnosis, derivation, diagnose
from backproof.mistakes import MISTAKES
from backproof.mistakes.general import MISTAKES as GENERAL
from backproof.reference.case import Case
from backproof.reference.graph import Container
from backproof.reference.heads import BCEWithLogitsLoss, CrossEntropyLoss, Head, MSELoss
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import Arithmetic, precision_named
from backproof.reference.trace import LayerTrace

BATCH = 6
LAYERS = (Linear(5), bp.Tanh(), Linear(4), bp.Softmax(), Linear(4, bias=False), bp.ReLU(), Linear(3), bp.LogSoftmax())
NETWORK = Network((5,), LAYERS, Head("linear", "huber", "sum"))
AFFINE, TANH, SOFTMAX, RELU, LOG_SOFTMAX, HEAD = "layers.0", "layers.1", "layers.3", "layers.5", "layers.7", "head"

every_precision = pytest.mark.parametrize("precision", ["float64", "float32"])


@cache
def step_of(path: str, precision: str, network: Network = NETWORK, batch: int = BATCH) -> LayerTrace:
    trace = load("torch").run(Case(network, 5, batch=batch, precision=precision))
    return next(step for step in trace.layers if step.path == path)


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
    step = step_of(path, precision)
    found = diagnosis(step, tensor, plant(step, tensors(step)[tensor]))
    assert found.code == code
    assert tensor in found.sentence
    assert "{" not in found.sentence
    assert found.equation == derivation(step.layer, tensor)


@pytest.mark.parametrize("code", PLANTS)
def test_the_table_makes_the_same_mistake(code: str) -> None:
    """What the table computes for a mistake, in plain and in rounded arithmetic, is what is made by hand here."""
    path, tensor, plant = PLANTS[code]
    step, mistake = step_of(path, "float64"), next(m for m in MISTAKES if m.code == code)
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
])  # fmt: skip
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


@every_precision
def test_a_single_zeroed_entry_is_named_with_its_index(precision: str) -> None:
    """One entry that is zero is said to be, with where it is."""
    step = step_of(AFFINE, precision)
    wrong = step.d_params["weight"].copy()
    wrong[3, 1] = 0
    found = diagnosis(step, "dweight", wrong)
    assert (found.code, found.sentence) == ("single-entry", "one entry of dweight is wrong, at [3, 1]: it is zero")


@pytest.mark.parametrize(("factor", "said"), [(3.0, "it is 3 times the true value"),
                                              (1 + 1e-4, "it is off by +0.0001 of the true value")])  # fmt: skip
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
    assert found.code == "unknown"
    assert found.sentence == (
        "no known mistake reproduces these numbers; 25 of 25 entries are outside, spread over the whole tensor")


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
    assert found.code == "nonfinite"
    assert found.sentence == "2 of 25 entries of dweight are not finite where the true value is"


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
}  # fmt: skip
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
])  # fmt: skip
def test_the_line_is_the_formula_in_index_notation(layer: Any, tensor: str, line: str) -> None:
    """The line quoted is the formula or the chain rule of that tensor, not the prose around it."""
    assert " ".join(derivation(layer, tensor).split()) == line


@pytest.mark.parametrize("head", [MSELoss(), BCEWithLogitsLoss(), CrossEntropyLoss()], ids=lambda head: type(head).__name__)
def test_a_mistake_in_a_head_is_named(head: Head) -> None:
    """The fused heads are diagnosed as the layers are."""
    step = step_of("head", "float64", Network((4,), (Linear(3),), head))
    assert diagnosis(step, "dz", -step.d_inputs[0]).code == "sign"
    assert diagnosis(step, "dz", step.d_inputs[0] * BATCH).code == "times-batch"
