"""Truth without a layer: the derivative of a candidate's own forward, by each of three methods."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backproof as bp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backproof.draw.probe import Probe
from backproof.report.finding import Finding
from backproof.report.report import Report
from backproof.truth.own_forward import OwnForward
from scipy import special

Change = Callable[..., Any]
SIZES = {"weight": (4,), "bias": (4,)}


def norm(change: Change = lambda dx, dp, dy, x: (dx, dp)) -> Callable[..., Any]:
    """Return layer normalisation by hand, with its gradients passed through a change of (dx, dparams, dy, x)."""

    def candidate(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        r = 1 / np.sqrt(var + x.dtype.type(1e-5))
        h = (x - mean) * r
        over = tuple(range(x.ndim - 1))

        def backward(dy: np.ndarray) -> Any:
            g = dy * weight
            dx = r * (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True))
            return change(dx, {"weight": (dy * h).sum(over), "bias": dy.sum(over)}, dy, x)

        return h * weight + bias, backward

    return candidate


def found(candidate: Any, **options: Any) -> Report:
    """Check a candidate without a layer, with few cases in float64."""
    return bp.check(candidate, None, **({"framework": "numpy", "cases": 14, "precisions": ("float64",)} | options))


def only(report: Report, verdict: str, tensor: str) -> Finding:
    """Return the one finding of a report, which has this verdict and tensor."""
    assert [(f.verdict, f.tensor) for f in report.findings] == [(verdict, tensor)], str(report)
    return report.findings[0]


def truths(report: Report) -> str:
    return "\n".join(report.options["truth"])


def test_a_right_candidate_agrees() -> None:
    """Nothing is found in float64 and float32, over regimes and conditions; the report names the truth, and what nobody can know."""
    report = found(norm(), params=SIZES, cases=40, precisions=("float64", "float32"))
    assert report.ok, str(report)
    assert report.compared > 1000
    assert sum(t.inconclusive for t in report.tallies.values()) < report.compared / 5
    assert {"plain", "layout transposed", "mode interleaved", "mode again"} <= set(report.coverage["conditions"])
    assert "complex step of the candidate's own forward, in 80 calls" in str(report)
    assert "the forward is taken as right" in str(report)


def entry(dx: np.ndarray, dp: Any, dy: np.ndarray, x: np.ndarray) -> Any:
    dx = dx.copy()
    dx.flat[np.argmax(np.abs(dx))] *= dx.dtype.type(1 + 1e-4)
    return dx, dp


@pytest.mark.parametrize(("change", "tensor", "code"), [
    (lambda dx, dp, dy, x: (dx * (1 + 1e-4), dp), "dx", "factor"),
    (lambda dx, dp, dy, x: (dx, {**dp, "weight": dp["weight"] / len(x)}), "dweight", "over-batch"),
    (lambda dx, dp, dy, x: (dx, {**dp, "bias": np.zeros_like(dp["bias"])}), "dbias", "zero"),
    (lambda dx, dp, dy, x: (dx[..., ::-1].copy(), dp), "dx", "unknown"),
    (lambda dx, dp, dy, x: (dy, dp), "dx", "derivative-missing"),
    (lambda dx, dp, dy, x: (dx, {**dp, "bias": dy[0].reshape(-1, 4).sum(0)}), "dbias", "first-example-only"),
    (lambda dx, dp, dy, x: (dx, {**dp, "bias": np.full_like(dp["bias"], dy[..., 0].size)}), "dbias", "upstream-ignored"),
    (entry, "dx", "single-entry"),
])
def test_a_mistake_is_found_and_named(change: Change, tensor: str, code: str) -> None:
    """Those explanations that need no rule are found by the forward alone; one part in 10,000 is enough, in one entry too."""
    report = found(norm(change), params=SIZES, shapes=[(4,), (2, 4)])
    assert only(report, "wrong", tensor).diagnosis.code == code, str(report)
    assert report.findings[0].layer == "OwnForward"


def test_float32_alone_is_enough() -> None:
    """A candidate that is checked in float32 only, against its forward in float64."""
    assert found(norm(), params=SIZES, precisions=("float32",)).ok
    report = found(norm(lambda dx, dp, dy, x: (dx, {**dp, "bias": dp["bias"] * dx.dtype.type(1 + 1e-4)})), params=SIZES,
                   precisions=("float32",))
    assert only(report, "wrong", "dbias").precision == "float32"


class Kinked(torch.autograd.Function):
    """relu by hand, whose derivative at 0 is 2, through operations that take no complex numbers."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, at_zero: float, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.numbers = at_zero, factor
        y = torch.empty_like(x)
        y.copy_(x.detach())
        return y.clamp_(min=0)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        at_zero, factor = ctx.numbers
        return dy * factor * ((x > 0) + at_zero * (x == 0)), None, None


def kinked(at_zero: float = 0.0, factor: float = 1.0) -> Callable[..., torch.Tensor]:
    apply = Kinked.apply  # as people bind it: nothing that is replaced in the class would reach it
    return lambda x: apply(x, at_zero, factor)


def log_gamma(factor: float = 1.0) -> Callable[..., Any]:
    """Return a function that SciPy has for real numbers only."""
    return lambda x: (special.gammaln(1 + x * x), lambda dy: dy * factor * 2 * x * special.digamma(1 + x * x))


@pytest.mark.parametrize(("made", "framework", "method", "reason"), [
    (lambda factor: lambda x: (np.tanh(x), lambda dy: factor * dy * (1 - np.tanh(x) ** 2)), "numpy", "complex step", ""),
    (lambda factor: kinked(factor=factor), "torch", "autodiff", "clamp is not supported for complex types"),
    (log_gamma, "numpy", "extrapolated differences", "NumPy has none"),
])
def test_each_truth_is_named_and_finds_one_part_in_ten_thousand(made: Any, framework: str, method: str, reason: str) -> None:
    """The report says which truth was used and why no better one; a right candidate agrees with it and one off by 1e-4 does not."""
    right = found(made(1.0), framework=framework, precisions=("float64", "float32"))
    assert right.ok, str(right)
    assert f"{method} of the candidate's own forward" in truths(right)
    assert reason in truths(right)
    assert only(found(made(1 + 1e-4), framework=framework), "wrong", "dx").diagnosis.code == "factor"


def test_autodiff_is_never_compared_with_itself() -> None:
    """Of a function without a backward of its own differences are the truth, and the report says why."""
    report = found(torch.nn.functional.gelu, framework="torch", shapes=[(3,)], cases=4)
    assert report.ok
    assert "no autodiff, since the candidate defines no backward, so that it would be compared with itself" in truths(report)
    assert "extrapolated differences" in truths(report)


def test_a_complex_step_that_lies_is_not_believed() -> None:
    """torch takes the magnitude of a complex number, which has another derivative; differences contradict it, and it is left."""
    report = found(lambda x: x * x.abs(), framework="torch", shapes=[(3,)], cases=6)
    assert report.ok, str(report)
    assert "no complex step, since differences contradict it" in truths(report)


@pytest.mark.parametrize(("candidate", "framework"), [
    (kinked, "torch"),
    (lambda at_zero: lambda x: (np.maximum(x, 0), lambda dy: dy * ((x > 0) + at_zero * (x == 0)).astype(x.dtype)), "numpy"),
])
def test_at_a_kink_the_sides_bracket_the_answer(candidate: Any, framework: str) -> None:
    """0, 1/2 and 1 lie between the one-sided derivatives of relu at 0 and are right or a convention; 2 is wrong there alone."""
    for at_zero in (0.0, 0.5, 1.0):
        report = found(candidate(at_zero), framework=framework, shapes=[(4,)])
        assert report.ok, str(report)
    assert any(found(candidate(at_zero), framework=framework, shapes=[(4,)]).conventions for at_zero in (0.5, 1.0))
    finding = only(found(candidate(2.0), framework=framework, shapes=[(4,)]), "wrong", "dx")
    assert "knee" in finding.diagnosis.condition or "zero" in finding.diagnosis.condition


def test_ties_of_a_maximum() -> None:
    """All to the first of several equal entries, or shared among them: both are right; twice is not."""

    def largest(share: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
        return lambda x: (x.max(-1), lambda dy: (dy[..., None] * share(x == x.max(-1, keepdims=True))).astype(x.dtype))

    first = lambda m: (np.cumsum(m, -1) == 1) & m  # noqa: E731
    for share in (first, lambda m: m / m.sum(-1, keepdims=True)):
        assert found(largest(share), shapes=[(5,)], cases=20).ok
    assert found(largest(lambda m: 2 * first(m)), shapes=[(5,)]).verdict == "wrong"


RULES = (bp.Softmax(), bp.LogSoftmax(), bp.ELU(), bp.GELU(), bp.Softplus(), bp.Hardtanh(), bp.BatchNorm(affine=False), bp.MaxPool1d(2),
         bp.GroupNorm(2, affine=False), bp.Linear(3), bp.SwiGLU(), bp.ScaledDotProductAttention(), bp.RMSNorm(), bp.Normalize())


@pytest.mark.parametrize("layer", RULES, ids=lambda layer: type(layer).__name__)
def test_the_rules_of_the_library_raise_no_alarm(layer: bp.Layer) -> None:
    """Each as a NumPy candidate, over every regime, in both precisions."""
    shapes = ((2, 2),) * len(layer.input_names)

    def candidate(*xs: np.ndarray, **params: np.ndarray) -> Any:
        y, backward = layer.forward(params, *xs)
        return y, backward

    report = found(candidate, shapes=[shapes], params=layer.parameters(*shapes), precisions=("float64", "float32"), seed=3)
    assert report.ok, str(report)


def test_a_condition_is_named() -> None:
    """What goes wrong only when it is called again in between is tied to that."""

    class Kept:
        x: np.ndarray

        def __call__(self, x: np.ndarray) -> Any:
            self.x = x
            return x * x * x, lambda dy: 3 * dy * self.x * self.x

    finding = only(found(Kept(), shapes=[(3,)], cases=30), "wrong", "dx")
    assert "called again before its backward pass" in finding.diagnosis.condition


def test_modules_losses_and_several_inputs_and_outputs() -> None:
    """A module knows its parameters; a loss of the whole batch, two inputs and two outputs need nothing more."""
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
    report = bp.check(module, None, cases=6)
    assert report.ok, str(report)
    assert {"dx", "d0.weight", "d0.bias"} <= {tensor for _, _, _, tensor in report.tallies}

    def loss(factor: float) -> Callable[..., Any]:
        return lambda z: (np.mean(z * z), lambda: factor * z / z.size)

    assert found(loss(2.0), shapes=[(3,)]).ok
    assert found(loss(1.0), shapes=[(3,)]).findings[0].diagnosis.code == "halved"
    two = lambda a, b: ((a * b, a + b), lambda dy, dz: ((dy * b + dz, dy * a + dz), {}))  # noqa: E731
    report = found(two, shapes=[((3,), (3,))])
    assert report.ok, str(report)
    assert {"output", "output_2", "da", "db"} == {tensor for _, _, _, tensor in report.tallies}


def test_a_forward_that_takes_no_single_example() -> None:
    """Batches of one are left out, and the report says so."""
    report = found(lambda x: torch.nn.functional.batch_norm(x, None, None, training=True), framework="torch", shapes=[(3,)], cases=16)
    assert report.ok, str(report)
    assert "batches of one example are left out for ((3,),): the forward raises ValueError" in truths(report)


def test_a_custom_vjp_within_others() -> None:
    """jax: the rule that a function under jit calls is left out of the truth, where erf takes no complex numbers."""

    def made(right: bool) -> Any:
        @jax.custom_vjp
        def inner(x: Any) -> Any:
            return jax.scipy.special.erf(x)

        inner.defvjp(lambda x: (inner(x), x), lambda x, dy: (dy * jnp.exp(-x * x) * (2 / np.sqrt(np.pi) if right else 1),))
        return jax.jit(lambda x: 2 * inner(x) * x)

    options = {"framework": "jax", "cases": 4, "shapes": [(3,)]}
    report = found(made(right=True), **options)
    assert report.ok, str(report)
    assert "autodiff of the candidate's own forward" in truths(report)
    assert only(found(made(right=False), **options), "wrong", "dx")


def test_what_is_computed_in_single_precision_is_said_so() -> None:
    """A gradient with the digits of float32 in float64."""
    rough = lambda x: (np.tanh(x), lambda dy: (dy * (1 - np.tanh(x.astype(np.float32)) ** 2)).astype(x.dtype))  # noqa: E731
    report = found(rough, shapes=[(3,), (2, 4)])
    assert {f.diagnosis.code for f in report.findings} & {"coarse-precision"}, str(report)


def test_without_a_forward_in_float64_nothing_is_passed() -> None:
    """All of it is inconclusive, with the reason."""

    def single(x: np.ndarray) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return x * x, lambda dy: 2 * dy * x

    with pytest.raises(ValueError, match="float32 only"):
        found(single, shapes=[(3,)], precisions=("float32",))


def test_a_candidate_in_a_process_of_its_own() -> None:
    """With a timeout the truth is computed there too."""
    assert found(norm(), params=SIZES, shapes=[(4,)], cases=2, timeout=60).ok


@pytest.mark.parametrize(("options", "words"), [
    ({"candidate": norm()}, r"takes x, weight, bias, .*params=\{'weight': \(5, 4\), "),
    ({"candidate": norm(), "params": {"weight": "gain"}}, r"expected the shape of a parameter.*Write params=\{\"weight\": \(5, 4\)\}"),
    ({"candidate": norm(), "params": SIZES, "shapes": [(3,)]}, "cannot be called on inputs of shape"),
    ({"candidate": norm(), "params": SIZES, "shapes": []}, "expected shapes of the same inputs"),
    ({"candidate": norm(), "params": SIZES, "shapes": [(4,), ((4,), (4,))]}, "expected shapes of the same inputs"),
    ({"candidate": norm(), "params": SIZES, "shapes": [(2000, 4)]}, "8,008 entries.*expected at most 4,000"),
    ({"candidate": torch.nn.Linear(2, 2), "framework": None, "params": {"weight": (2, 2)}}, "Leave params out"),
    ({"candidate": lambda x: (x @ x.T, lambda dy: dy @ x), "shapes": [(3,)]},
     r"has shape \(2, 2\) for a batch of 2 and \(3, 3\) for one of 3"),
])
def test_wrong_usage_says_what_to_write(options: dict[str, Any], words: str) -> None:
    """What cannot be called raises before anything runs."""
    with pytest.raises((ValueError, TypeError), match=words):
        found(**options)


def test_shapes_for_a_layer_are_refused() -> None:
    """With a layer, params are names."""
    with pytest.raises(TypeError, match="expected names"):
        bp.check(norm(), bp.LayerNorm(), framework="numpy", params=SIZES)


SCRIPT = """
import numpy as np


def cube(x, weight):
    return x ** 3 * weight, lambda dy: (2 * dy * weight * x ** 2, {"weight": (dy * x ** 3).sum(tuple(range(x.ndim - 1)))})
"""


COMMAND = (sys.executable, "-c", "from backproof.cli import main; main()")


def _call(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_its_reproduction_and_its_replay(tmp_path: Path) -> None:
    """`backproof check` without --like finds it, the script shows it, and `replay` runs it again."""
    (tmp_path / "mine.py").write_text(SCRIPT)
    shape = ("--param", "weight=4", "--shape", "4", "--shape", "2,4")
    done = _call(*COMMAND, "check", "mine:cube", "--framework", "numpy", *shape, "--cases", "6", "--reports", "out", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "dx is 0.666667 times what it should be, everywhere" in done.stdout
    (folder,) = (tmp_path / "out").glob("*/wrong-*dx*")
    case = json.loads((folder / "case.json").read_text())
    assert Probe.build(case).layer == OwnForward(("x",), (("weight", (4,)),), apart=True)
    script = _call(sys.executable, str(folder / "repro.py"), cwd=tmp_path)
    assert script.returncode == 1, script.stdout + script.stderr
    again = _call(*COMMAND, "replay", str(folder / "case.json"), cwd=tmp_path)
    assert again.returncode == 1, again.stdout + again.stderr
    assert "dx is 0.666667 times what it should be" in again.stdout
    wrong = _call(*COMMAND, "check", "mine:cube", "--framework", "numpy", "--shape", "x", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "--shape: got 'x', expected the sizes of a shape, such as 3,4" in wrong.stderr
