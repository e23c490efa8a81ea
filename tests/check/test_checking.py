"""bp.check: right candidates agree, planted mistakes are found, named, and tied to the condition that shows them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import backproof as bp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backproof.adapters.calls import driver
from backproof.check.candidate import Candidate
from backproof.check.checker import Checker
from backproof.check.checking import GradientMismatch
from backproof.check.simplest import simplest
from backproof.draw.probe import Condition, Probe, probes, shapes_for
from backproof.report.finding import Finding
from backproof.report.report import Report

Backward = Callable[[np.ndarray], Any]
NORM = bp.LayerNorm()


def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Backward]:
    """Layer normalisation as one would write it by hand."""
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    r = 1 / np.sqrt(var + x.dtype.type(1e-5))
    h = (x - mean) * r
    over = tuple(range(x.ndim - 1))

    def backward(dy: np.ndarray) -> Any:
        g = dy * weight
        dx = r * (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True))
        return dx, {"weight": (dy * h).sum(over), "bias": dy.sum(over)}

    return h * weight + bias, backward


def altered(change: Callable[..., Any]) -> Callable[..., Any]:
    """Return `norm` with its gradients passed through a change of (dx, dparams, dy, x)."""

    def candidate(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Backward]:
        y, backward = norm(x, weight, bias)

        def wrong(dy: np.ndarray) -> Any:
            dx, dparams = backward(dy)
            return change(dx, dparams, dy, x)

        return y, wrong

    return candidate


def found(candidate: Any, like: Any = NORM, **options: Any) -> Report:
    """Check a candidate with few cases in float64."""
    return bp.check(candidate, like, **({"framework": "numpy", "cases": 40, "precisions": ("float64",)} | options))


def only(report: Report, verdict: str, tensor: str) -> Finding:
    """Return the one finding of a report, which has this verdict and tensor."""
    assert [(f.verdict, f.tensor) for f in report.findings] == [(verdict, tensor)], str(report)
    return report.findings[0]


def test_a_right_candidate_agrees() -> None:
    """Nothing is found in float64 and float32, numbers were compared, and every regime and several conditions were met."""
    report = found(norm, precisions=("float64", "float32"), cases=60)
    assert report.ok
    assert report.verdict == "agrees"
    assert report.compared > 1000
    assert len(report.coverage["regimes"]) == 7
    assert {"plain", "layout transposed", "upstream expanded", "mode interleaved", "mode again"} <= set(report.coverage["conditions"])


@pytest.mark.parametrize(("change", "tensor", "code"), [
    (lambda dx, dp, dy, x: (-dx, dp), "dx", "sign"),
    (lambda dx, dp, dy, x: (dx, {**dp, "weight": dp["weight"] / len(x)}), "dweight", "over-batch"),
    (lambda dx, dp, dy, x: (dx, {**dp, "bias": 5 * dp["bias"]}), "dbias", "factor"),
    (lambda dx, dp, dy, x: (dx, {**dp, "bias": np.zeros_like(dp["bias"])}), "dbias", "zero"),
])
def test_a_mistake_is_blamed_on_its_tensor_and_named(change: Callable[..., Any], tensor: str, code: str) -> None:
    """One finding, of the tensor with the mistake, in words."""
    finding = only(found(altered(change)), "wrong", tensor)
    assert finding.diagnosis.code == code
    assert finding.layer == "LayerNorm"
    assert finding.candidate.startswith("numpy:")


def test_a_wrong_entry_in_ten_thousand_is_found() -> None:
    """One part in 10,000 of one entry, in float64 and float32."""

    def nudged(dx: np.ndarray, dp: Any, dy: np.ndarray, x: np.ndarray) -> Any:
        dx.flat[np.argmax(np.abs(dx))] *= dx.dtype.type(1 + 1e-4)
        return dx, dp

    report = found(altered(nudged), precisions=("float64", "float32"))
    assert {f.precision for f in report.findings} >= {"float64"}
    assert only(found(altered(nudged), precisions=("float32",)), "wrong", "dx").diagnosis.code == "single-entry"


def test_one_wrong_entry_in_a_large_gradient_is_found() -> None:
    """A single zeroed entry of a 256 x 256 gradient."""

    def linear(x: np.ndarray, weight: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            dweight = dy.T @ x
            dweight[100, 17] = 0
            return dy @ weight, {"weight": dweight}

        return x @ weight.T, backward

    for precision in ("float64", "float32"):
        report = found(linear, bp.Linear(256, bias=False), shapes=[(256,)], cases=4, precisions=(precision,))
        assert [(f.verdict, f.tensor, f.index) for f in report.findings] == [("wrong", "dweight", (100, 17))]


def relu(slope_at_zero: float) -> Callable[..., Any]:
    return lambda x: (np.maximum(x, 0), lambda dy: np.where(x > 0, dy, np.where(x == 0, slope_at_zero * dy, 0)))


def test_the_condition_is_a_point() -> None:
    """At the kink 0.5 is a convention and 2 is wrong, at that point alone."""
    assert found(relu(0.5), bp.ReLU()).ok
    finding = only(found(relu(2.0), bp.ReLU()), "wrong", "dx")
    assert finding.diagnosis.condition.startswith("only at x = 0")


def test_the_condition_is_a_range() -> None:
    """A softplus that overflows does so for large x only."""

    def softplus(x: np.ndarray) -> Any:
        e = np.exp(x)
        return np.logaddexp(x, 0), lambda dy: dy * (e / (1 + e))

    finding = only(found(softplus, bp.Softplus()), "nonfinite", "dx")
    assert finding.diagnosis.condition.startswith("only for x from about 709.8 on")


def test_the_condition_is_a_band() -> None:
    """What is off in a tail and right beyond it, where all is 0, says both ends."""

    def silu(x: np.ndarray) -> Any:
        s = 0.5 * (1 + np.tanh(x / 2))
        return x / (1 + np.exp(-x)), lambda dy: dy * (s + x * s * (1 - s))

    conditions = [f.diagnosis.condition for f in found(silu, bp.SiLU(), cases=80).findings if f.tensor == "dx"]
    assert any(text.startswith("only for x between about -7") for text in conditions), conditions


def test_the_condition_is_a_batch() -> None:
    """A bias gradient of the first example is right for a batch of one."""
    change = lambda dx, dp, dy, x: (dx, {**dp, "bias": dy[0].reshape(-1, dy.shape[-1]).sum(0)})  # noqa: E731
    finding = only(found(altered(change)), "wrong", "dbias")
    assert "for a batch of more than one example" in finding.diagnosis.condition


def test_the_condition_is_a_layout() -> None:
    """A backward that reads the storage of dy as if it were contiguous is right for contiguous ones."""

    class Scaled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            storage = dy if dy.numel() < 2 or 0 in dy.stride() else torch.as_strided(dy, (dy.numel(),), (1,), dy.storage_offset())
            return storage.reshape(dy.shape) if dy.stride() and dy.stride()[-1] != 2 else dy

    report = found(Scaled.apply, bp.Identity(), framework="torch", shapes=[(3, 4)])
    finding = only(report, "wrong", "dx")
    assert finding.diagnosis.condition.startswith("only for an upstream gradient that is transposed in memory")


class Kept:
    """A candidate that keeps x on itself, not in the closure."""

    x: np.ndarray

    def __call__(self, x: np.ndarray) -> Any:
        self.x = x
        return x * x * x / 3, lambda dy: dy * self.x * self.x


def test_the_condition_is_state() -> None:
    """What is kept outside of the call is overwritten by the next one."""

    class Cube(bp.Layer):
        def forward(self, params: Any, x: Any, **_: Any) -> Any:
            return x * x * x / 3, lambda dy: (dy * x * x, {})

    finding = only(found(Kept(), Cube(), shapes=[(3,)]), "wrong", "dx")
    assert "called again before its backward pass" in finding.diagnosis.condition


def test_mutation_is_reported_as_such() -> None:
    """A candidate that overwrites its input or the upstream gradient says so by name, though its numbers are right."""

    def tanh(x: np.ndarray) -> Any:
        y = np.tanh(x)

        def backward(dy: np.ndarray) -> Any:
            if dy.flags.writeable:
                dy *= 1 - y * y
                return dy.copy()
            return dy * (1 - y * y)

        return y, backward

    codes = {(f.verdict, f.diagnosis.code, f.diagnosis.sentence.split(":")[0]) for f in found(tanh, bp.Tanh(), cases=8).findings}
    assert ("error", "mutation", "the candidate modifies its upstream gradient in place") in codes


def test_what_is_random_is_nondeterministic() -> None:
    """Two runs that differ in their last bits are found, although both are within the bound."""
    rng = np.random.default_rng(0)

    def noisy(x: np.ndarray) -> Any:
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2) * (1 + 2.0**-52 * rng.integers(2, size=dy.shape))

    only(found(noisy, bp.Tanh(), shapes=[(4,)], cases=1), "nondeterministic", "dx")


@pytest.mark.parametrize(("candidate", "words"), [
    (lambda x: x[0][len(x[0])], "IndexError"),
    (lambda x: (x[:, :-1], lambda dy: dy), "wrong shape of output"),
    (lambda x: (np.tanh(x).astype(np.float16), lambda dy: dy), "wrong dtype of output"),
    (lambda x: (np.tanh(x), lambda dy: (dy * (1 - np.tanh(x) ** 2))[:, :1]), "wrong shape of dx"),
    (lambda x: (np.tanh(x), lambda dy: None), "no dx came back"),
    (np.tanh, "expected (y, backward)"),
    (lambda x: (np.tanh(x), lambda dy: "dx"), "expected an array"),
    (lambda x: ((np.tanh(x), x), lambda dy: dy), "returned 2 outputs, expected 1"),
    (lambda x: ("y", lambda dy: dy), "returned str, expected an array"),
    (lambda x: (np.tanh(x), lambda dy: (dy, dy)), "returned 2 gradients of inputs, expected 1"),
])
def test_a_candidate_that_breaks_is_a_finding(candidate: Any, words: str) -> None:
    """Exceptions and wrong shapes and types are findings of `error`, never a crash of the check."""
    report = found(candidate, bp.Tanh(), cases=6)
    assert report.findings
    assert {f.verdict for f in report.findings} <= {"error", "wrong"}
    assert any(words in f.diagnosis.sentence for f in report.findings), str(report)


class TorchNorm(torch.nn.Module):
    """A module whose parameters bear other names than the reference's."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (x.shape[-1],), self.gain, self.shift)


def test_a_module_is_a_torch_candidate() -> None:
    """Its own names are mapped to the reference's."""
    report = bp.check(TorchNorm(), bp.LayerNorm(), params={"gain": "weight", "shift": "bias"}, cases=20)
    assert report.ok, str(report)
    assert report.options["candidate"] == "torch:TorchNorm"


def test_a_function_class_is_called_by_its_apply() -> None:
    """A torch.autograd.Function may be given as its class or its `apply`; both bear the name of the class."""

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            return 2 * dy

    for candidate in (Doubled, Doubled.apply):
        finding = only(found(candidate, bp.Identity(), framework="torch", cases=4), "wrong", "dx")
        assert (finding.candidate, finding.diagnosis.code) == ("torch:Doubled", "doubled")


def test_gradients_may_be_named_with_a_d() -> None:
    """In NumPy `dweight` is the gradient of `weight`, as notebooks have it."""
    change = lambda dx, dp, dy, x: (dx, {f"d{name}": d for name, d in dp.items()})  # noqa: E731
    assert found(altered(change), cases=6).ok


def test_what_shows_in_one_precision_says_so() -> None:
    """A cast that hurts float32 alone is told as that."""
    halved = lambda x: (np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2) / (2 if x.dtype == np.float32 else 1))  # noqa: E731
    finding = only(found(halved, bp.Tanh(), cases=6, precisions=("float64", "float32")), "wrong", "dx")
    assert finding.diagnosis.condition == "only in float32"


def test_a_module_is_checked_for_its_names_and_sizes() -> None:
    """Names that do not fit are said at once; shapes that its own parameters cannot take are left out; its buffers stay as they are."""
    with pytest.raises(ValueError, match=r'params=\{"gain": "bias", "shift": "weight"\}'):
        bp.check(TorchNorm(), bp.LayerNorm(), cases=2)
    assert bp.check(torch.nn.Linear(4, 3), bp.Linear(3), cases=6).ok
    module = torch.nn.BatchNorm1d(3)
    before = module.running_mean.clone()
    assert bp.check(module, bp.BatchNorm(), cases=4, shapes=[(3,)]).ok
    assert torch.equal(module.running_mean, before)


def test_what_is_computed_in_single_precision_is_said_so() -> None:
    """A float64 gradient with the digits of float32 has its own diagnosis."""
    coarse = lambda x: torch.tanh(x.float()).to(x.dtype)  # noqa: E731
    report = found(coarse, bp.Tanh(), framework="torch", cases=8)
    assert {f.diagnosis.code for f in report.findings if f.verdict == "wrong"} <= {"coarse-precision"}
    assert report.findings


def test_a_parameter_left_out_is_named() -> None:
    """A factor that is one over the only entry of a parameter is told as that."""

    @dataclass(frozen=True)
    class Scaled(bp.Layer):
        def parameters(self, *shapes: Any, **_: Any) -> dict[str, Any]:
            return {"scale": (1,)}

        def forward(self, params: Any, x: Any, **_: Any) -> Any:
            scale = params["scale"]
            return x * x * scale, lambda dy: (2 * dy * x * scale, {"scale": np.sum(dy * x * x).reshape((1,))})

    def left_out(x: np.ndarray, scale: np.ndarray) -> Any:
        return x * x * scale, lambda dy: (2 * dy * x, {"scale": np.sum(dy * x * x).reshape(1)})

    finding = only(found(left_out, Scaled(), shapes=[(3,)], cases=6), "wrong", "dx")
    assert finding.diagnosis.code == "parameter-factor"
    assert "scale" in finding.diagnosis.sentence


def test_a_diagnosis_is_that_of_most_draws() -> None:
    """On the draw that a finding was met with two mistakes may be the same numbers; the one that fits other draws too is named."""
    probe = Probe(bp.Identity(), ((3,),), seed=7)
    first = probe.call().inputs[0]
    candidate = lambda x: (x * 1, lambda dy: dy * (2 if np.array_equal(x, first) else -1))  # noqa: E731
    run = Checker(Candidate.of(candidate, "numpy", {}), bp.Identity(), ("float64",))
    run.shapes = (probe.shapes,)
    run.examine([probe])
    simplest(run)
    (finding,) = run.ledger.found.values()
    assert (finding.diagnosis.code, finding.count) == ("sign", 1)
    assert isinstance(finding.case, Probe)
    assert finding.case.seed != probe.seed


def test_the_condition_is_a_size() -> None:
    """What is right for multiples of a block only says so."""

    def blocks(x: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> np.ndarray:
            dx = dy.copy()
            dx[..., dy.shape[-1] // 4 * 4 :] = 0
            return dx

        return x * 1, backward

    finding = only(found(blocks, bp.Identity()), "wrong", "dx")
    assert finding.diagnosis.condition.startswith("only for a last axis of ")
    assert ", not of 4, 8" in finding.diagnosis.condition


NETWORK = bp.Network((4,), (bp.Linear(3), bp.Tanh(), bp.Linear(2)), bp.MSELoss())


def by_hand(x: np.ndarray, target: np.ndarray, **params: np.ndarray) -> Any:
    """NETWORK's loss and its backward, with the bias of the last layer over the batch once too often."""
    w1, b1, w2, b2 = (params[f"layers.{i}.{name}"] for i in (0, 2) for name in ("weight", "bias"))
    a = np.tanh(x @ w1.T + b1)
    z = a @ w2.T + b2

    def backward() -> Any:
        dz = 2 * (z - target) / z.size
        dh = dz @ w2 * (1 - a * a)
        return dh @ w1, {"layers.0.weight": dh.T @ x, "layers.0.bias": dh.sum(0), "layers.2.weight": dz.T @ a,
                         "layers.2.bias": dz.sum(0) / len(x)}

    return np.mean((z - target) ** 2), backward


class TorchNetwork(torch.nn.Module):
    """NETWORK as a module, whose parameters bear the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)])

    def forward(self, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return torch.nn.functional.mse_loss(x, target)


def test_a_whole_network_is_a_truth() -> None:
    """A candidate that computes the loss of all of it: parameters are named by layer, and the one that is wrong is blamed."""
    assert bp.check(TorchNetwork(), NETWORK, cases=12).ok
    finding = only(found(by_hand, NETWORK), "wrong", "dlayers.2.bias")
    assert finding.diagnosis.code == "over-batch"

    def loss(x: Any, target: Any, **params: Any) -> Any:
        h = jnp.tanh(x @ params["layers.0.weight"].T + params["layers.0.bias"])
        return jnp.mean((h @ params["layers.2.weight"].T + params["layers.2.bias"] - target) ** 2)

    assert found(loss, NETWORK, framework="jax", cases=6).ok


def test_a_container_is_a_truth() -> None:
    """Layers in sequence against one function; its parameters are named by place."""

    def both(x: torch.Tensor, **params: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ params["0.weight"].T + params["0.bias"])

    assert found(both, bp.Sequential((bp.Linear(3), bp.ReLU())), framework="torch", cases=20).ok
    only(found(lambda x, **p: both(x, **{**p, "0.bias": p["0.bias"].detach()}), bp.Sequential((bp.Linear(3), bp.ReLU())), framework="torch",
               cases=20), "error", "d0.bias")


def test_a_jax_candidate_with_its_own_rule() -> None:
    """A custom_vjp that forgets the upstream gradient is found, the right one is not."""

    def made(right: bool) -> Any:
        @jax.custom_vjp
        def square(x: Any) -> Any:
            return jnp.tanh(x)

        square.defvjp(lambda x: (jnp.tanh(x), x), lambda x, dy: ((dy if right else 1) * (1 - jnp.tanh(x) ** 2),))
        return square

    options = {"framework": "jax", "cases": 12, "shapes": [(3,)], "precisions": ("float32",)}
    assert found(made(right=True), bp.Tanh(), **options).ok
    only(found(made(right=False), bp.Tanh(), **options), "wrong", "dx")


def test_heads_in_numpy_and_torch() -> None:
    """A head is called with z and target; in numpy its backward takes nothing."""

    def mse(z: np.ndarray, target: np.ndarray) -> Any:
        return np.mean((z - target) ** 2), lambda: 2 * (z - target) / z.size

    def forgot_two(z: np.ndarray, target: np.ndarray) -> Any:
        return np.mean((z - target) ** 2), lambda: (z - target) / z.size

    assert found(mse, bp.MSELoss()).ok
    assert only(found(forgot_two, bp.MSELoss()), "wrong", "dz").diagnosis.code == "halved"
    assert found(torch.nn.functional.cross_entropy, bp.CrossEntropyLoss(), framework="torch").ok


def test_several_inputs() -> None:
    """Attention takes query, key and value by position; a gradient of one of them alone is found there."""
    attention = torch.nn.functional.scaled_dot_product_attention
    like = bp.ScaledDotProductAttention()
    assert found(attention, like, framework="torch", cases=20).ok

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            return dy / 2

    report = found(lambda q, k, v: attention(q, Halved.apply(k), v), like, framework="torch", cases=6)
    assert only(report, "wrong", "dkey").diagnosis.code == "halved"


def test_the_same_seed_gives_the_same_report() -> None:
    """Findings, counts and margins are those of the seed."""
    change = lambda dx, dp, dy, x: (dx * (1 + 1e-9 * (x > 1)), dp)  # noqa: E731
    first, second = (found(altered(change), seed=5, cases=12) for _ in range(2))
    timed = {"seconds", "environment"}
    assert {k: v for k, v in first.describe().items() if k not in timed} == {k: v for k, v in second.describe().items() if k not in timed}


def test_a_candidate_that_hangs_or_dies_is_a_finding() -> None:
    """In a process of its own neither takes the check with it; the calls before are compared, those after are counted as not run."""

    def hangs(x: np.ndarray) -> Any:
        if x.shape[-1] == 5:
            time.sleep(600)
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)

    def dies(x: np.ndarray) -> Any:
        if x.shape[-1] == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.tanh(x), lambda dy: dy * (1 - np.tanh(x) ** 2)

    for candidate, words in ((hangs, "no answer within 2 s"), (dies, "the process died")):
        report = found(candidate, bp.Tanh(), cases=12, shapes=[(4,), (5,)], timeout=2)
        finding = only(report, "error", "")
        assert finding.diagnosis.code == "lost"
        assert words in finding.diagnosis.sentence
        assert report.compared
        assert report.skipped["cases not run: the candidate hung or died too often"] > 0
    assert found(norm, cases=4, timeout=30).ok
    with pytest.raises(ValueError, match="seconds above 0"):
        found(norm, timeout=0)


def test_assert_gradients_raises_with_the_report(tmp_path: Any) -> None:
    """The exception is an AssertionError, reads like the report, and the report is on disk when asked for."""
    bp.assert_gradients(norm, bp.LayerNorm(), framework="numpy", cases=4)
    change = lambda dx, dp, dy, x: (2 * dx, dp)  # noqa: E731
    with pytest.raises(GradientMismatch, match="dx is twice too large") as raised:
        bp.assert_gradients(altered(change), bp.LayerNorm(), framework="numpy", cases=4, reports=tmp_path)
    assert isinstance(raised.value, AssertionError)
    assert raised.value.report.findings
    assert list(tmp_path.glob("*/report.json"))
    assert list(tmp_path.glob("*/*/case.json"))


@pytest.mark.parametrize(("arguments", "words"), [
    ({"candidate": norm, "like": "LayerNorm"}, "like is a bp.Layer, a bp.Head or a bp.Network"),
    ({"candidate": norm, "like": bp.LayerNorm(), "framework": None}, "Write framework="),
    ({"candidate": norm, "like": bp.LayerNorm(), "framework": "tensorflow"}, "unknown framework"),
    ({"candidate": 3, "like": bp.LayerNorm()}, "a function or a torch.nn.Module"),
    ({"candidate": norm, "like": bp.LayerNorm(), "cases": 0}, "at least one case"),
    ({"candidate": norm, "like": bp.LayerNorm(), "precisions": ()}, "at least one precision"),
    ({"candidate": norm, "like": bp.LayerNorm(), "precisions": ("float8",)}, "unknown precision"),
    ({"candidate": lambda x, w, b: x, "like": bp.LayerNorm()}, 'params={"my_name": "weight"}'),
    ({"candidate": TorchNorm(), "like": bp.LayerNorm(), "framework": None, "params": {"scale": "weight"}}, "no parameter scale"),
    ({"candidate": norm, "like": bp.Linear(3), "shapes": []}, "Write shapes="),
    ({"candidate": norm, "like": bp.Add(), "shapes": [(3,), (3,)]}, "expected 2 at a time, of a, b"),
])
def test_wrong_usage_says_what_to_write(arguments: dict[str, Any], words: str) -> None:
    """A call that cannot be meant raises before anything runs."""
    with pytest.raises((ValueError, TypeError), match=words.replace("(", "\\(").replace("{", "\\{")):
        bp.check(**({"framework": "numpy"} | arguments))


def test_shapes_are_varied_and_fit() -> None:
    """Primes, powers of two and their neighbours, sizes of 1, for layers of one input, of several, and for heads."""
    for layer in (bp.LayerNorm(), bp.Conv2d(3, (2, 3), stride=2), bp.ScaledDotProductAttention(), bp.MultiheadAttention(8, 2), bp.MSELoss(),
                  bp.GroupNorm(2), bp.Embedding(5, 3)):
        shapes = shapes_for(layer)
        assert len(shapes) >= 9, layer
        sizes = {n for every in shapes for shape in every for n in shape}
        assert {1, 7, 8, 16, 17} & sizes
        if not isinstance(layer, bp.reference.heads.Head):
            assert all(layer.output_shape(*every) for every in shapes)


def test_probes_begin_plain() -> None:
    """What is wrong on every input is found by the first probe; afterwards every second one has a condition."""
    planned = list(probes(bp.LayerNorm(), shapes_for(bp.LayerNorm()), 30, 0, driver("torch"), 1))
    assert planned[0].condition == Condition()
    assert planned[0].regime in {"normal", "zeros"}
    assert {p.condition for p in planned[1::2]} != {Condition()}
    assert planned == list(probes(bp.LayerNorm(), shapes_for(bp.LayerNorm()), 30, 0, driver("torch"), 1))


def test_a_probe_draws_the_same_numbers_again() -> None:
    """The numbers depend on nothing but the probe."""
    probe = Probe(bp.Linear(3), ((4,),), seed=3, regime="ties")
    again = Probe(bp.Linear(3), ((4,),), seed=3, regime="ties")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(probe.call().inputs, again.call().inputs, strict=True))
    assert probe.call().trained == ("weight", "bias")


def on_empty(change: Callable[[dict[str, Any]], Any]) -> Any:
    """Return a linear layer in NumPy whose gradients are changed, as `change` says, where the batch is empty."""

    def candidate(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Any:
        def backward(dy: np.ndarray) -> Any:
            found = {"x": dy @ weight, "weight": dy.T @ x, "bias": dy.sum(0)}
            if not len(x):
                change(found)
            return found.pop("x"), found

        return x @ weight.T + bias, backward

    return candidate


@pytest.mark.parametrize(("tensor", "change", "verdict", "code"), [
    ("dweight", lambda found: found["weight"].fill(7.0), "wrong", "empty-batch"),
    ("dbias", lambda found: found.update(bias=found["bias"] / 0.0), "nonfinite", "empty-batch"),
    ("dx", lambda found: found.update(x=found["x"].ravel()), "error", "error"),
], ids=["left over", "mean of nothing", "shape"])
def test_an_empty_batch_gives_zero_gradients(tensor: str, change: Callable[[dict[str, Any]], Any], verdict: str, code: str) -> None:
    """Of no examples dx has no entries and what sums over them is 0: memory left over, a mean of nothing or a lost axis are findings."""
    (finding,) = bp.check(on_empty(change), bp.Linear(3), framework="numpy", cases=12, shapes=[(4,)]).findings
    assert (finding.tensor, finding.verdict, finding.diagnosis.code) == (tensor, verdict, code)
    assert finding.diagnosis.condition == "only for an empty batch"


def test_a_candidate_may_refuse_an_empty_batch() -> None:
    """That it takes none is said, and is no finding; one that takes it and is right has nothing said of it."""

    def refuses(found: dict[str, Any]) -> None:
        raise RuntimeError("no rows")

    for change, said in ((refuses, ["an empty batch: not supported by the candidate: no rows"]), (lambda _: None, [])):
        report = bp.check(on_empty(change), bp.Linear(3), framework="numpy", cases=12, shapes=[(4,)])
        assert report.ok
        assert [reason for reason in report.skipped if "empty" in reason] == said
