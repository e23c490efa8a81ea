"""Forward mode and double backward of candidates: right ones pass, each mistake is found, named and shown by its script."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import backproof as bp
import backproof.adapters.jax as on_jax
import backproof.adapters.torch as on_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backproof.adapters.calls import DOUBLE, JVP
from backproof.check.checking import check_again
from backproof.draw.probe import Condition, Probe, probes, shapes_for
from backproof.judge.comparing import compare
from backproof.judge.directional import DIRECTIONAL, expected_along, first_order, place_of
from backproof.reference.heads import Head
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.rounding import precision_named
from backproof.reference.trace import LayerTrace
from torch.autograd.function import once_differentiable


class Affine(torch.autograd.Function):
    """A linear layer with every rule right."""

    times, detached = 1.0, False

    @staticmethod
    def forward(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight.T + bias

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @classmethod
    def gradients(cls, x: Any, weight: Any, dy: Any) -> Any:
        rows = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, rows.T @ x.reshape(-1, x.shape[-1]), rows.sum(0)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return Affine.gradients(*ctx.saved_tensors, dy)

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Any:
        x, weight = ctx.saved_tensors
        return dx @ weight.T + x @ dweight.T + dbias


class Doubled(Affine):
    """Its jvp has a factor too many in the term of the weight."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Any:
        x, weight = ctx.saved_tensors
        return dx @ weight.T + 2 * (x @ dweight.T) + dbias


class Lacking(Affine):
    """Its jvp lacks the term of the bias."""

    @staticmethod
    def jvp(ctx: Any, dx: Any, dweight: Any, dbias: Any) -> Any:
        x, weight = ctx.saved_tensors
        return dx @ weight.T + x @ dweight.T


class Detached(Affine):
    """Its backward is right, and differentiates dweight as if it did not depend on x."""

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        x, weight = ctx.saved_tensors
        return Affine.gradients(x.detach(), weight, dy)


class Saved(torch.autograd.Function):
    """A tanh whose backward uses a slope that forward computed."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = torch.tanh(x)
        ctx.slope = 1 - y * y
        return y

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.slope


class Once(Saved):
    """The same, which says that it is differentiated once."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Any) -> Any:
        return dy * ctx.slope


class Leaving(Saved):
    """The same by NumPy, of which no graph is left."""

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return torch.from_numpy(dy.detach().numpy() * ctx.slope.detach().numpy())


class WrongTwice(torch.autograd.Function):
    """Its backward is wrong, and so is what comes of it."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (x,) = ctx.saved_tensors
        return dy * torch.sigmoid(x)


@jax.custom_jvp
def silu(x: Any) -> Any:
    return x * jax.nn.sigmoid(x)


@silu.defjvp
def _(primals: Any, tangents: Any) -> Any:
    s = jax.nn.sigmoid(primals[0])
    return silu(primals[0]), (s + primals[0] * s * (1 - s)) * tangents[0]


@jax.custom_jvp
def held(x: Any) -> Any:
    return jnp.tanh(x)


@held.defjvp
def _(primals: Any, tangents: Any) -> Any:
    y = jnp.tanh(primals[0])
    return y, jax.lax.stop_gradient(1 - y * y) * tangents[0]


@jax.custom_vjp
def reverse_only(x: Any) -> Any:
    return jnp.tanh(x)


reverse_only.defvjp(lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, dy: ((1 - y * y) * dy,))


def check(candidate: Any, like: Any, framework: str = "torch", **options: Any) -> bp.Report:
    return bp.check(candidate, like, framework=framework, **{"cases": 8, **options})


def found(report: bp.Report) -> list[tuple[str, str, str]]:
    return [(f.verdict, f.tensor, f.diagnosis.code) for f in report.findings]


def test_right_rules_pass_and_are_compared() -> None:
    """Each derivative is in the table, and none is skipped."""
    report = check(Affine, bp.Linear(3))
    assert report.ok, report
    tensors = {key[3] for key in report.tallies}
    assert {"jvp x", "jvp weight", "jvp bias", "double backward x", "double backward weight", "double backward bias",
            "double backward dy"} < tensors
    assert not any("mode" in reason for reason in report.skipped)


@pytest.mark.parametrize(("candidate", "tensor", "code", "said"), [
    (Doubled, "jvp weight", "factor", "jvp weight is 2 times what it should be, everywhere"),
    (Lacking, "jvp bias", "zero", "jvp bias is zero everywhere"),
    (Detached, "double backward x", "not-differentiated", "double backward x lacks the part of dweight: it is not differentiated by x"),
], ids=["factor", "term", "detached"])
def test_a_wrong_rule_is_named(candidate: Any, tensor: str, code: str, said: str) -> None:
    """The tensor says which array moved, the diagnosis what is wrong; of the other tensors nothing is said."""
    report = check(candidate, bp.Linear(3))
    assert found(report) == [("wrong", tensor, code)]
    (finding,) = report.findings
    assert said in finding.diagnosis.sentence
    assert finding.diagnosis.condition == ""
    assert finding.index == tuple(0 for _ in finding.index) or finding.entries[0] > 0


def test_a_slope_that_forward_kept_is_said() -> None:
    """The gradient is right; its derivative, which torch takes for zero, is none that the candidate defines, and the report says so."""
    report = check(Saved, bp.Tanh())
    assert report.ok, report
    (said,) = (reason for reason in report.skipped if reason.startswith("mode double backward: not defined by the candidate: "))
    assert "or mark backward with torch.autograd.function.once_differentiable" in said


@pytest.mark.parametrize(("candidate", "framework", "mode", "said"), [
    (Once, "torch", DOUBLE, "marked with @once_differentiable"),
    (Leaving, "torch", DOUBLE, "its backward leaves autograd: the gradient of input 0 has no graph"),
    (Once, "torch", JVP, "You must implement the jvp function"),
    (reverse_only, "jax", JVP, "can't apply forward-mode"),
])
def test_what_a_candidate_does_not_support_is_said(candidate: Any, framework: str, mode: str, said: str) -> None:
    """It is no finding and no silent pass."""
    report = check(candidate, bp.Tanh(), framework, cases=4, shapes=[(4,)])
    assert report.ok, report
    assert any(reason.startswith(f"mode {mode}: not supported by the candidate: ") and said in reason for reason in report.skipped)


def test_a_function_without_a_backward_of_its_own_has_all() -> None:
    """What is composed of torch's operations is differentiated by torch."""
    report = check(lambda x, weight, bias: torch.nn.functional.layer_norm(x, weight.shape, weight, bias), bp.LayerNorm())
    assert report.ok, report
    assert not any("mode" in reason for reason in report.skipped)


def test_a_derivative_of_what_is_wrong_is_no_second_finding() -> None:
    """A wrong gradient is one finding, whatever else comes of it."""
    assert [(f.verdict, f.tensor) for f in check(WrongTwice, bp.SiLU()).findings] == [("wrong", "dx")]


def test_jax_custom_jvp() -> None:
    """A right rule passes in both modes; one that stops the gradient is right once and wrong twice."""
    report = check(silu, bp.SiLU(), "jax", cases=4, shapes=[(4,)])
    assert report.ok, report
    assert {"jvp x", "double backward x", "double backward dy"} < {key[3] for key in report.tallies}
    wrong = check(held, bp.Tanh(), "jax", cases=4, shapes=[(4,)], precisions="float64")
    assert found(wrong) == [("wrong", "double backward x", "not-differentiated")]


def test_several_outputs_are_named() -> None:
    """Of a layer of several outputs the name says which, and double backward has a tensor for each upstream gradient."""
    layer, shapes = bp.LSTM(2, states=True), ((2, 3), (1, 2), (1, 2))

    def cell(x: Any, h_0: Any, c_0: Any, weight_ih_l0: Any, weight_hh_l0: Any, bias_ih_l0: Any, bias_hh_l0: Any) -> Any:
        h, c, ys = h_0[:, 0], c_0[:, 0], []
        for t in range(x.shape[1]):
            i, f, g, o = (x[:, t] @ weight_ih_l0.T + bias_ih_l0 + h @ weight_hh_l0.T + bias_hh_l0).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            ys.append(h)
        return torch.stack(ys, 1), h[:, None], c[:, None]

    for mode, tensors in ((JVP, {"jvp x of output", "jvp c_0 of h_n"}), (DOUBLE, {"double backward doutput", "double backward dc_n"})):
        report = check_again(Probe(layer, shapes, condition=Condition(mode=mode), framework="torch"), cell)
        assert report.ok, report
        assert tensors < {key[3] for key in report.tallies}


def test_a_whole_network_is_a_truth() -> None:
    """The second derivatives of a network are compared as those of a layer are."""
    network = bp.Network((3,), (bp.Linear(4), bp.Tanh(), bp.Linear(1)), bp.MSELoss())

    def right(x: Any, target: Any, **params: Any) -> Any:
        a = torch.tanh(x @ params["layers.0.weight"].T + params["layers.0.bias"])
        return ((a @ params["layers.2.weight"].T + params["layers.2.bias"] - target) ** 2).mean()

    report = check(right, network)
    assert report.ok, report
    assert {"jvp layers.0.weight", "double backward layers.2.weight"} < {key[3] for key in report.tallies}


def trace(layer: Any, probe: Probe) -> tuple[LayerTrace, Any]:
    call = probe.call()
    return LayerTrace("candidate", layer, call.inputs, np.zeros(1), (), call.dys[0], call.params, {}), call


@pytest.mark.parametrize("mode", DIRECTIONAL)
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("layer", [bp.LayerNorm(), bp.Linear(3), bp.GELU(), bp.Softmax()], ids=str)
def test_a_mistake_just_above_the_bound_is_found(layer: Any, precision: str, mode: str) -> None:
    """What lies a few per cent inside the bound agrees, what lies a few per cent outside does not."""
    probe = Probe(layer, (shapes_for(layer)[0]), precision=precision, condition=Condition(mode=mode))
    step, call = trace(layer, probe)
    own = precision_named(precision)
    for name, ball in expected_along(step, call, own).items():
        worst = np.unravel_index(int(np.argmax(ball.radius())), ball.shape)
        if ball.radius()[worst] < 2.0**-60:  # that of a bias is exact
            continue
        for share, verdict in ((0.9, "agrees"), (1.5, "outside")):
            numbers = ball.value.copy()
            numbers[worst] += share * ball.radius()[worst]
            other = replace(own, dtype=np.dtype(np.float64))  # so that the planted number is not rounded away
            assert compare(step, name, numbers, ball, other).verdict == verdict, name


def examples(names: dict[Any, Any], count: int) -> list[tuple[Layer, Any]]:
    every = ((cls, n, setting) for _, cls in sorted(REGISTRY.items()) if issubclass(cls, Layer) and cls in names
             for n, setting in enumerate(cls.examples()))
    return [(setting[0], setting[1:]) for cls, n, setting in every if n < count]


@pytest.mark.parametrize(("layer", "shapes"), examples(on_torch.LOWERINGS, 2), ids=str)
def test_torch_itself_raises_no_alarm(layer: Layer, shapes: Any) -> None:
    """Torch's own functions agree with the rule in both modes and precisions, at kinks too, but for what is known."""

    def own(*inputs: Any, **params: Any) -> Any:
        return on_torch.LOWERINGS[type(layer)](layer, params, *inputs)

    for mode, precision, regime in ((JVP, "float32", "normal"), (DOUBLE, "float64", "kinks"), (DOUBLE, "float32", "normal"),
                                    (JVP, "float64", "zeros")):
        report = check_again(Probe(layer, shapes, 3, 5, regime, precision, Condition(mode=mode), framework="torch"), own)
        assert not report.findings, report


JAX = ("LayerNorm", "Linear", "Softmax", "Conv1d", "ELU")


@pytest.mark.parametrize("name", JAX)
def test_jax_itself_raises_no_alarm(name: str) -> None:
    """Jax's own functions agree with the rule, but for what is known."""
    layer, *shapes = next(iter(REGISTRY[name].examples()))  # type: ignore[attr-defined]

    def own(*inputs: Any, **params: Any) -> Any:
        return on_jax.LOWERINGS[type(layer)](layer, params, *inputs)

    for mode, precision in ((JVP, "float32"), (DOUBLE, "float64")):
        report = check_again(Probe(layer, tuple(shapes), 3, 5, "normal", precision, Condition(mode=mode), framework="jax"), own)
        assert not report.findings, report


def test_a_large_tensor_of_jax_itself_raises_no_alarm() -> None:
    """Among thousands of numbers some show the last rounding: jax forms the slope of tanh as (1 + y)(1 - y)."""
    probe = Probe(bp.Tanh(), ((128,),), 64, 0, "normal", "float32", Condition(mode=JVP), framework="jax")
    report = check_again(probe, jnp.tanh)
    assert not report.findings, report


@pytest.mark.parametrize("head", [bp.CrossEntropyLoss(), bp.BCEWithLogitsLoss(), bp.MSELoss()], ids=str)
def test_heads(head: Head) -> None:
    """A loss is differentiated along z, and twice."""
    report = check(lambda z, target: on_torch.HEADS[type(head)](head, z, target), head)
    assert report.ok, report
    assert {"jvp z", "double backward z", "double backward dy"} < {key[3] for key in report.tallies}


def test_a_head_has_a_wrong_second_derivative() -> None:
    """A loss whose gradient forgets that the residual depends on z."""

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: Any, target: Any) -> Any:
            ctx.save_for_backward(z, target)
            return ((z - target) ** 2).mean()

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            z, target = ctx.saved_tensors
            return dy * 2 * (z - target).detach() / z.numel(), None

    assert found(check(Loss, bp.MSELoss())) == [("wrong", "double backward z", "not-differentiated")]


def test_they_come_first_and_in_moderate_regimes() -> None:
    """Four cases are enough for both, and the same seed gives the other conditions as before."""
    from backproof.adapters.calls import driver

    planned = list(probes(bp.Linear(3), [((4,),)], 60, 0, driver("torch"), 1))
    modes = [probe.condition.mode for probe in planned]
    assert modes[1::2][:2] == [JVP, DOUBLE]
    assert {probe.regime for probe in planned if probe.condition.mode in DIRECTIONAL} <= {"normal", "zeros", "kinks", "ties"}


def test_entries_that_are_never_trained_do_not_move() -> None:
    """The row of a padding index has the direction 0."""
    probe = Probe(bp.Embedding(4, 2, padding_idx=1), ((3,),), condition=Condition(mode=JVP))
    assert not probe.call().tangents["weight"][1].any()
    assert probe.call().tangents["weight"][0].all()


def test_kinks_are_left_out_and_counted() -> None:
    """At relu(0) there is no derivative along a direction: nothing is found, and the report says how many entries that are."""
    report = check_again(Probe(bp.ReLU(), ((4,),), regime="zeros", condition=Condition(mode=JVP), framework="torch"), torch.relu)
    assert report.ok
    assert report.skipped == {"jvp: no derivative, at a kink or a tie, or out of range": 24}  # it is run twice


def test_half_precision_is_left_out_and_said() -> None:
    """Bounds along a direction do not know which steps a kernel stores in half precision."""
    report = check(Doubled, bp.Linear(3), precisions="bfloat16", cases=4)
    assert report.ok, report
    assert report.skipped["jvp: not compared in bfloat16, where each step may or may not be stored"] == 1


class Unruly(Layer):
    """A user's layer, right in NumPy, whose rule uses what has no derivative along a direction."""

    def forward(self, params: Any, x: Any) -> Any:
        if isinstance(x, np.ndarray) or hasattr(x, "bound"):
            return x * 1, lambda dy: (dy * 1, {})
        return np.median(x), None


def test_a_rule_without_a_derivative_is_said() -> None:
    """A truth that cannot be found is counted, with the reason."""
    report = check(lambda x: x * 1, Unruly())
    assert report.ok, report
    assert any(reason.startswith("jvp: no truth for") and "no rule for median" in reason for reason in report.skipped)


@pytest.mark.parametrize(("mode", "tensor", "place", "gradient"), [
    (JVP, "jvp weight", ("weight", 0), "dweight"), (DOUBLE, "double backward x", (0, 0), "dx"),
    (DOUBLE, "double backward dy", (None, 0), "dx"), (JVP, "jvp x", (0, 0), "dx"),
])
def test_names_lead_back_to_arrays(mode: str, tensor: str, place: Any, gradient: str) -> None:
    """Scripts find the array by the name of the tensor, and known discrepancies the gradient."""
    call = Probe(bp.Linear(3), ((4,),), condition=Condition(mode=mode)).call()
    assert place_of(bp.Linear(3), call, tensor) == place
    assert first_order(bp.Linear(3), tensor) == gradient
    assert first_order(bp.Linear(3), "dweight") == "dweight"


MODULE = """
import jax, jax.numpy as jnp, torch

class Mistaken(torch.autograd.Function):
    @staticmethod
    def forward(x, weight, bias): return x @ weight.T + bias

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs[:2]), ctx.save_for_forward(*inputs[:2])

    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        rows = dy.reshape(-1, dy.shape[-1])
        return dy @ weight, rows.T @ x.detach().reshape(-1, x.shape[-1]), rows.sum(0)

    @staticmethod
    def jvp(ctx, dx, dweight, dbias):
        x, weight = ctx.saved_tensors
        return dx @ weight.T + 2 * (x @ dweight.T) + dbias

@jax.custom_jvp
def held(x):
    return jnp.tanh(x)

@held.defjvp
def _(primals, tangents):
    y = jnp.tanh(primals[0])
    return y, jax.lax.stop_gradient(1 - y * y) * tangents[0]

@jax.custom_jvp
def tripled(x):
    return jnp.tanh(x)

@tripled.defjvp
def _(primals, tangents):
    return jnp.tanh(primals[0]), 3 * tangents[0]
"""


@pytest.mark.parametrize(("name", "layer", "mode", "tensor"), [
    ("Mistaken", bp.Linear(3), DOUBLE, "double backward x"), ("Mistaken", bp.Linear(3), JVP, "jvp weight"),
    ("held", bp.Tanh(), DOUBLE, "double backward x"), ("tripled", bp.Tanh(), JVP, "jvp x"),
])
def test_a_finding_is_shown_by_its_script_and_replayed(name: str, layer: Layer, mode: str, tensor: str, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """repro.py computes the same number from the kept arrays and exits 1, and the case says how to call the candidate again."""
    module = f"mine_{name}_{mode[:3]}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    candidate = getattr(importlib.import_module(module), name)
    framework = "torch" if name == "Mistaken" else "jax"
    report = check_again(Probe(layer, ((4,),), condition=Condition(mode=mode), framework=framework), candidate)
    (finding,) = (f for f in report.findings if f.tensor == tensor)
    report.save(tmp_path / "reports")
    (script,) = (path for path in tmp_path.glob("reports/*/*/repro.py") if tensor.replace(" ", "_") in str(path))
    again = subprocess.run([sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert again.returncode == 1, again.stderr
    assert f"got {finding.actual!r}" in again.stdout
    replayed = Probe.build(json.loads(script.with_name("case.json").read_text()))
    assert replayed.candidate.startswith(f"{module}:{name}")
    assert (tensor, finding.actual) in [(f.tensor, f.actual) for f in check_again(replayed, candidate).findings]
