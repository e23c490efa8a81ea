"""Every adapter keeps the whole contract of a trace, is reproducible bit for bit, and leaves the frameworks' settings alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import backproof as bp
import jax
import numpy as np
import pytest
from backproof.adapters import Adapter, MissingFrameworkError, load, names
from backproof.adapters.jax import _jitted
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify
from backproof.judge.judgement import Judgement, by_second_precision, judge
from backproof.judge.known import Known, KnownList
from backproof.judge.rules import tensors
from backproof.reference import activations
from backproof.reference.case import Case
from backproof.reference.heads import BCEWithLogitsLoss, CrossEntropyLoss, Head, MSELoss
from backproof.reference.layer import Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import precision_named
from backproof.reference.trace import HEAD_PATH, LayerTrace, Trace
from backproof.reference.values import draw
from torch._dynamo.utils import counters

ADAPTERS = ("torch", "torch:func", "jax", "jax:jit")
COMPILING = "torch:compile"  # by far the slowest: ten seconds for one small case
PRECISIONS = ("float64", "float32", "bfloat16", "float16")
FEW = ("float64", "float32")

ACTIVATIONS = [getattr(bp, name)() for name in activations.__all__]
MIXED = Network((4,), (Linear(4), bp.PReLU(4), bp.SwiGLU(), Linear(4, bias=False), bp.Softmax()), CrossEntropyLoss())
TINY = Network((4,), (Linear(3), bp.GELU()), MSELoss())
EVERY = Network((4,), tuple(layer for activation in ACTIVATIONS for layer in (Linear(8), activation)), Head("sigmoid", "bce"))
TOKENS = Network((3,), (bp.Shared(bp.Embedding(5, 4), "words"), bp.Residual(bp.Sequential((bp.LayerNorm(), bp.MultiheadAttention(4, 2)))),
                        bp.Dropout(), bp.Parallel((bp.Identity(), bp.Sequential((bp.Flatten(), Linear(2), bp.Reshape((1, 2)))))),
                        bp.GRU(2, states=True), bp.Concatenate(1), Linear(4), bp.Shared(Linear(5, bias=False), "words")),
                 CrossEntropyLoss(reduction="none"))
UNIT = Network((1,), (Linear(1), bp.Tanh()), MSELoss())
HEADS = (Head("linear", "l1", "sum"), Head("tanh", "huber"), Head("softmax", "half_squared_error"), Head("sigmoid", "bce", "sum"),
         Head("softmax", "cross_entropy"), CrossEntropyLoss(label_smoothing=0.125), BCEWithLogitsLoss())

AGREEING = [
    *(pytest.param(name, Case(MIXED, 3), id=f"{name}-mixed") for name in ADAPTERS),
    *(pytest.param(name, Case(EVERY, 3), id=f"{name}-every layer") for name in ADAPTERS if name != "jax"),
    *(pytest.param(name, Case(TOKENS, 3), id=f"{name}-tokens") for name in ADAPTERS if name != "jax"),
    *(pytest.param(name, Case(UNIT, 3, batch=1), id=f"{name}-1x1") for name in ADAPTERS if name != "jax"),
    *(pytest.param(name, Case(Network((3,), (Linear(5),), head), 3), id=f"{name}-{head}")
      for name in ADAPTERS if name != "jax" for head in HEADS),
]
"""Eager jax compiles each primitive for each shape, for seconds a network: it runs one, and shares the lowerings of jax:jit."""

every_adapter = pytest.mark.parametrize("name", ADAPTERS)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)
compiles = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # torch's own call


@cache
def traced(name: str, case: Case) -> Trace:
    """Run a case once for all tests that look at its trace."""
    return load(name).run(case)


def arrays(trace: Trace) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array of a trace with its name."""
    yield "loss", trace.loss
    for step in trace.layers:
        yield from ((f"{step.path} input {i}", x) for i, x in enumerate(step.inputs))
        yield f"{step.path} d_output", step.d_output
        yield from ((f"{step.path} {name}", array) for name, array in {**step.params, **tensors(step)}.items())


def bits(trace: Trace) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays(trace)}


def same(one: np.ndarray, two: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (two.dtype, two.shape, two.tobytes())


def keeps_contract(trace: Trace, case: Case) -> None:
    """Raise AssertionError where a trace is not what `Trace` promises for a case."""
    network, values, dtype = case.network, case.values(), precision_named(case.precision).dtype
    assert [(step.path, step.layer) for step in trace.layers] == [
        *((step.path, step.layer) for step in network.steps), (HEAD_PATH, network.head)]
    floats = {name: array.dtype for name, array in arrays(trace) if name != f"{HEAD_PATH} input 1" or array.dtype.kind != "i"}
    assert set(floats.values()) == {dtype}, floats
    *steps, head = trace.layers
    for index, step in enumerate(steps):
        before, after = ((case.batch, *network.shapes[index + i][0]) for i in (0, 1))
        shapes = network.parameters().get(step.path, {})
        assert [x.shape for x in step.inputs] == [dx.shape for dx in step.d_inputs] == [before]
        assert step.output.shape == step.d_output.shape == after
        for named in (step.params, step.d_params):
            assert {name: array.shape for name, array in named.items()} == shapes
        for name, array in step.params.items():
            assert same(array, values.params[step.path][name])
        following = trace.layers[index + 1]
        assert same(following.inputs[0], step.output)
        assert same(following.d_inputs[0], step.d_output)
    assert same(trace.layers[0].inputs[0], values.x)
    assert len(head.inputs) == 2
    assert same(head.inputs[1], values.target)
    assert head.output.shape == head.d_output.shape == ()
    assert same(head.output, trace.loss)
    assert same(head.d_output, values.upstream)
    assert head.params == head.d_params == {}
    assert [dz.shape for dz in head.d_inputs] == [head.inputs[0].shape]


@every_precision
@every_adapter
def test_a_trace_keeps_its_contract(name: str, precision: str) -> None:
    """One step per layer and head, with the shapes, precision, links, parameters and target of the case."""
    case = Case(MIXED, 3, precision=precision)
    keeps_contract(traced(name, case), case)


@pytest.mark.parametrize("name", ["torch", "torch:func", "jax:jit"])
def test_branches_are_wired_as_the_graph_says(name: str) -> None:
    """Whole numbers, shared parameters, constants, forks and several outputs: every wire carries one array, and one gradient."""
    case = Case(TOKENS, 3, precision="float32")
    trace, graph, sources = traced(name, case), TOKENS.graph, case.values().sources()
    assert trace.wires[:-1] == tuple((step.inputs, step.outputs, step.params) for step in graph.steps)
    arrays_of: dict[str, list[np.ndarray]] = {wire: [array] for wire, array in sources.items()}
    gradients_of: dict[str, list[Any]] = {}
    for step, plan in zip(trace.layers, graph.steps, strict=False):
        for taken, values, gradients in ((plan.inputs, step.inputs, step.d_inputs), (plan.outputs, step.outputs, step.d_outputs)):
            for wire, array, gradient in zip(taken, values, gradients, strict=True):
                arrays_of.setdefault(wire, []).append(array)
                gradients_of.setdefault(wire, []).append(gradient)
        for parameter, wire in plan.params:
            arrays_of.setdefault(wire, []).append(step.params[parameter])
            if wire not in graph.constants:
                gradients_of.setdefault(wire, []).append(step.d_params[parameter])
    assert all(same(array, found[0]) for found in arrays_of.values() for array in found[1:])
    assert {wire for wire, found in gradients_of.items() if found[0] is None} == set(graph.indices) == {"x"}
    assert all(same(g, found[0]) for wire, found in gradients_of.items() if wire != "x" for g in found[1:])
    assert {step.layer.copies for step in graph.steps if isinstance(step.layer, bp.Fork)} == {2}
    assert set(graph.parameters) == {w for w in gradients_of if w in sources} - {"x"}


@every_precision
@every_adapter
def test_a_case_rebuilt_from_its_json_gives_the_same_bits(name: str, precision: str) -> None:
    """A case written to JSON and read again, its numbers drawn anew, gives the trace of the first, bit for bit."""
    case = Case(MIXED, 3, precision=precision)
    first = bits(traced(name, case))
    draw.cache_clear()
    assert bits(load(name).run(Case.from_json(case.to_json()))) == first


@every_precision
@every_adapter
def test_two_runs_give_the_same_bits(name: str, precision: str) -> None:
    """The second run of a case repeats the first, and leaves the arrays of its trace alone."""
    case = Case(MIXED, 3, precision=precision)
    trace = traced(name, case)
    first = bits(trace)
    assert bits(load(name).run(case)) == first
    assert bits(trace) == first


@every_precision
@every_adapter
def test_another_seed_gives_other_numbers(name: str, precision: str) -> None:
    """The seed reaches the numbers of a trace: no adapter hands out those of an earlier draw."""
    first, other = (traced(name, Case(MIXED, seed, precision=precision)) for seed in (3, 4))
    changed = {path for path, array in arrays(first) if not same(array, dict(arrays(other))[path])}
    assert {"loss", "layers.0 weight", "layers.0 dweight", "layers.0 dx", "head dz"} <= changed


@pytest.mark.parametrize("precision", FEW)
@pytest.mark.parametrize(("name", "case"), AGREEING)
def test_correct_frameworks_agree(name: str, case: Case, precision: str) -> None:
    """Every tensor of every layer and head lies within its bound on ordinary numbers."""
    trace = traced(name, Case(case.network, case.seed, batch=case.batch, precision=precision))
    certificates = certify(trace, precision_named(precision), fused=getattr(load(name), "fused", False))
    produced = {(step.path, tensor) for step in trace.layers for tensor in tensors(step)}
    assert {(c.path, c.tensor) for c in certificates} == produced
    assert len(certificates) == len(produced)
    assert sum(c.compared for c in certificates) == sum(a.size for step in trace.layers for a in tensors(step).values())
    steps = {step.path: step for step in trace.layers}
    doubtful = [judged(name, case, steps[c.path], c, precision) for c in certificates if c.verdict != "agrees"]
    assert [(one.certificate.path, one.key, one.certificate.excess) for one in doubtful if not one.known] == []


def judged(name: str, case: Case, step: LayerTrace, certificate: Certificate, precision: str) -> Judgement:
    """Judge a tensor as `verify` does: by a run in a second precision, and by the discrepancies that are known."""

    def twin(second: str) -> tuple[LayerTrace, Certificate] | None:
        other = traced(name, Case(case.network, case.seed, batch=case.batch, precision=second))
        found = next(c for c in certify(other, precision_named(second)) if (c.path, c.tensor) == (certificate.path, certificate.tensor))
        return next(s for s in other.layers if s.path == found.path), found

    def excuse(verdict: str, failed: Certificate) -> tuple[Any, list[Known]]:
        return KnownList().explain(name, precision, step, verdict, failed)

    ours = precision_named(precision)
    return judge(certificate, step, ours, tell_apart=by_second_precision(ours, twin), excuse=excuse)


@compiles
def test_torch_compile_keeps_the_contract_and_agrees() -> None:
    """`torch.compile` gives a whole trace within its bounds, the same bits twice, and compiles once for three draws."""
    case = Case(TINY, 3)
    adapter = load(COMPILING)
    graphs = counters["stats"]["unique_graphs"]
    trace = adapter.run(case)
    keeps_contract(trace, case)
    assert {c.verdict for c in certify(trace, precision_named("float64"), fused=True)} == {"agrees"}
    assert bits(adapter.run(Case.from_json(case.to_json()))) == bits(trace)
    other = adapter.run(Case(TINY, 4, "saturated"))
    assert not same(other.loss, trace.loss)
    assert counters["stats"]["unique_graphs"] == graphs + 1


@pytest.mark.parametrize("precision", FEW)
def test_draws_of_values_share_one_compilation(precision: str) -> None:
    """Several draws of values, of several regimes, run through one compiled structure of `jax:jit`."""
    network = Network((3,), (Linear(2), bp.ReLU()), MSELoss())
    _jitted.cache_clear()
    draws = [(0, "normal"), (1, "normal"), (2, "zeros"), (3, "wide-range")]
    losses = {load("jax:jit").run(Case(network, seed, regime, precision=precision)).loss.tobytes() for seed, regime in draws}
    assert len(losses) == len(draws)
    assert _jitted(network)._cache_size() == 1
    assert _jitted.cache_info().currsize == 1


@pytest.mark.parametrize("precision", FEW)
@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("name", ["jax", "jax:jit"])
def test_jax_keeps_the_users_configuration(name: str, precision: str, *, wanted: bool) -> None:
    """Whichever way the user has set `jax_enable_x64`, it stands as it was after a run, and the run has its own precision."""
    before = jax.config.jax_enable_x64
    with jax.enable_x64(wanted):
        trace = load(name).run(Case(UNIT, 5, batch=2, precision=precision))
        assert jax.config.jax_enable_x64 is wanted
    assert jax.config.jax_enable_x64 is before
    assert trace.loss.dtype == np.dtype(precision)


def test_a_failing_run_keeps_the_users_configuration() -> None:
    """An exception inside a float64 run leaves `jax_enable_x64` as it was."""

    class Unheard(Layer):
        def forward(self, params: Any, x: Any) -> Any:
            raise NotImplementedError

    before = jax.config.jax_enable_x64
    with pytest.raises(KeyError, match="Unheard"):
        load("jax:jit").run(Case(Network((2,), (Unheard(),), MSELoss()), 0))
    assert jax.config.jax_enable_x64 is before


def test_every_registered_adapter_is_tested() -> None:
    """The adapters of this file are the package's own, all of them, and each bears the name it is loaded by."""
    assert {*ADAPTERS, COMPILING} == set(names())
    for name in names():
        adapter = load(name)
        assert isinstance(adapter, Adapter)
        assert adapter.name == name


def test_an_unknown_adapter_is_refused_with_the_known_names() -> None:
    """`load` of an unknown name says what it got and lists every name there is."""
    message = "^unknown adapter: got 'tensorflow', expected one of jax, jax:jit, torch, torch:compile, torch:func$"
    with pytest.raises(ValueError, match=message):
        load("tensorflow")


def in_subprocess(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [*ADAPTERS, COMPILING])
def test_a_missing_framework_is_one_line_saying_what_to_install(name: str) -> None:
    """Without its framework an adapter raises MissingFrameworkError: one line with the command that installs it."""
    framework = name.split(":", maxsplit=1)[0]
    printed = in_subprocess(f"""
import sys
sys.modules[{framework!r}] = None
from backproof.adapters import MissingFrameworkError, load, names
assert {name!r} in names()
try:
    load({name!r})
except MissingFrameworkError as error:
    print(error)
    print(error.adapter, error.framework)
""")
    message = f'adapter {name} needs {framework}, which is not installed. Do: pip install "backproof[{framework}]"'
    assert printed.splitlines() == [message, f"{name} {framework}"]
    assert issubclass(MissingFrameworkError, ImportError)


def test_a_broken_framework_is_not_called_missing() -> None:
    """Where jax is there and a part of it is not, the framework's own error comes through."""
    printed = in_subprocess("""
import sys
sys.modules["jax.numpy"] = None
from backproof.adapters import MissingFrameworkError, load
try:
    load("jax")
except MissingFrameworkError:
    print("missing")
except ImportError as error:
    print("broken", error.name)
""")
    assert printed.split()[0] == "broken"


def third_party(folder: Path, name: str, body: str) -> None:
    """Write a distribution with one module and an adapter in the entry-point group, as another project would."""
    (folder / f"{name}.py").write_text(body)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[backproof.adapters]\n{name} = {name}:adapter\n")


def test_third_parties_register_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of another distribution is found by its entry point."""
    third_party(tmp_path, "third", "class Third:\n    name = 'third'\n    def run(self, case): return case\nadapter = Third()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "third" in names()
    assert load("third").name == "third"


def test_an_entry_point_that_is_no_adapter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no name and no run(case) is refused with the entry point that holds it."""
    third_party(tmp_path, "hollow", "adapter = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match=r"adapter hollow: entry point hollow:adapter holds 3, expected a name and a run\(case\)"):
        load("hollow")
