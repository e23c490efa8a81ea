"""Random layers, networks and cases: they construct what fits, reach everything, repeat for a seed and shrink to little."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.adapters import load
from backproof.draw import strategies
from backproof.draw.batches import BATCHES, single_entry_groups
from backproof.draw.family import SIZES
from backproof.draw.strategies import FAMILIES, VERIFIED, Arrays, arrays_for, cases, heads, layers, networks
from backproof.draw.structures import DRAWS, generate
from backproof.judge.certify import certify
from backproof.proof.setting import Setting
from backproof.reference.case import Case
from backproof.reference.head import Head, pairs
from backproof.reference.layer import REGISTRY, Layer
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import precision_named
from backproof.reference.trace import Trace
from backproof.reference.values import REGIMES
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.statistics import collector

MANY = 3200
QUIET = settings(database=None, deadline=None, max_examples=300)


@cache
def drawn() -> tuple[Case, ...]:
    return tuple(generate(MANY, 0))


def collected(strategy: st.SearchStrategy[Any], examples: int = 80) -> tuple[list[Any], list[str]]:
    """Return what a strategy draws and the status Hypothesis gave each draw."""
    found: list[Any] = []

    @settings(max_examples=examples, database=None, deadline=None, phases=[Phase.generate], derandomize=True)
    @given(strategy)
    def collect(item: Any) -> None:
        found.append(item)

    reports: list[Any] = []
    with collector.with_value(reports.append):
        collect()
    return found, [test["status"] for test in reports[0]["generate-phase"]["test-cases"]]


DRAWN = {"layers": layers(), "layers-four": layers((4,)), "layers-odd": layers((5,)), "heads": heads(), "networks": networks(),
         "mixing": networks(["Softmax"]), "halving": networks(["GLU", "SwiGLU"]), "images": networks(["Conv2d", "MaxPool2d"]),
         "cases": cases(), "arrays": arrays_for(bp.BatchNorm()), "arrays-head": arrays_for(bp.CrossEntropyLoss()),
         "cases-mixed": cases(["PReLU", "GLU"])}


@pytest.mark.parametrize("strategy", DRAWN.values(), ids=DRAWN)
def test_strategies_construct_and_throw_nothing_away(strategy: st.SearchStrategy[Any]) -> None:
    """Hypothesis counts no draw as invalid: nothing was filtered or rejected."""
    found, statuses = collected(strategy)
    assert "invalid" not in statuses
    assert len(found) == statuses.count("valid") > 10


def test_the_source_holds_no_filter() -> None:
    """No strategy calls filter, assume or reject."""
    tree = ast.parse(Path(strategies.__file__).read_text())
    called = {node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
              for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert called.isdisjoint({"filter", "assume", "reject"})
    assert "sampled_from" in called


def classes(network: Network) -> set[str]:
    """Return the classes of a network's layers, of those inside others too."""

    def walk(layer: Any) -> set[str]:
        found = {type(layer).__name__}
        for value in vars(layer).values():
            for part in value if isinstance(value, tuple) else (value,):
                found |= walk(part) if isinstance(part, Layer) else set()
        return found

    return set.union(*map(walk, network.layers), {type(step.layer).__name__ for step in network.steps})


def test_drawn_cases_fit_and_run() -> None:
    """Every drawn network passes its values through the reference: shapes that fit, one loss or one for each entry."""
    found, _ = collected(cases(), 60)
    for case in found:
        assert case.network.layers
        assert case.precision in VERIFIED
        assert Case.from_json(case.to_json()) == case
        values = case.values()
        with np.errstate(all="ignore"):
            trace = case.network.run(values.params, values.x, values.target, values.upstream)
        loss_shape = case.network.head.loss_shape((case.batch, *case.network.output_shape))
        assert trace.layers[-1].output.shape == values.upstream.shape == loss_shape
        dx = next(step.d_inputs[0] for step, wired in zip(trace.layers, trace.wires, strict=True) if "x" in wired.inputs)
        assert dx is None or dx.shape == values.x.shape


def test_a_run_reaches_every_layer_in_every_regime() -> None:
    """A run of 3,200 cases meets each layer in each value regime, forks, sequences and branches included."""
    met = {(name, case.regime) for case in drawn() for name in classes(case.network)}
    own = {name for name, cls in REGISTRY.items() if issubclass(cls, Layer) and cls.__module__.startswith("backproof.reference.")}
    assert met == {(name, regime) for name in own for regime in REGIMES}


def test_a_run_reaches_every_head_and_edge() -> None:
    """A run of 3,200 cases meets every head, output, loss and reduction, and every batch, size, depth and option."""
    found = drawn()
    every_head = {case.network.head for case in found}
    assert {type(head) for head in every_head} == {cls for cls in REGISTRY.values() if issubclass(cls, Head)}
    assert {head.output for head in every_head} == {output for output, _ in pairs()}
    assert {head.loss for head in every_head} >= {loss for _, loss in pairs()}
    assert {head.reduction for head in every_head} == {"mean", "sum", "none", "batchmean"}
    assert {getattr(head, "label_smoothing", 0.0) > 0 for head in every_head} == {True, False}
    assert {case.batch for case in found} == set(BATCHES)
    assert 1 in BATCHES
    assert {case.network.input_shape[0] for case in found} >= set(SIZES)
    assert 1 in SIZES
    assert {len(case.network.input_shape) for case in found} == {1, 2, 3, 4}
    assert {len(case.network.layers) for case in found} >= set(range(1, 9))
    every_layer = {step.layer for case in found for step in case.network.steps}
    assert {(1, True), (1, False)} <= {(layer.out_features, layer.bias) for layer in every_layer if isinstance(layer, Linear)}
    assert {layer.approximate for layer in every_layer if isinstance(layer, bp.GELU)} == {"none", "tanh"}
    assert {layer.num_parameters == 1 for layer in every_layer if isinstance(layer, bp.PReLU)} == {True, False}
    assert {layer.training for layer in every_layer if isinstance(layer, bp.BatchNorm)} == {True, False}
    assert {layer.mask for layer in every_layer if isinstance(layer, bp.ScaledDotProductAttention)} == {None, "boolean", "additive"}
    assert {layer.states for layer in every_layer if isinstance(layer, bp.LSTM)} == {True, False}
    assert {layer.groups > 1 for layer in every_layer if isinstance(layer, bp.Conv2d)} == {True, False}
    assert {(case.batch, case.network.input_shape) for case in found} >= {(1, (1,))}
    assert {case.values().upstream.ndim > 0 for case in found[:64]} == {True, False}


def test_heads_reach_every_pair() -> None:
    """`heads()` draws every output with every loss that takes it, in all reductions."""
    found, _ = collected(heads(), 3000)
    drawn_pairs = {(head.output, head.loss, head.reduction) for head in found if type(head) is Head}
    assert drawn_pairs == {(*pair, reduction) for pair in pairs() for reduction in ("mean", "sum", "none")}


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_drawn_alone(name: str) -> None:
    """A network restricted to one family holds that layer, for every family; a layer of several inputs brings what feeds them."""
    found, _ = collected(networks([name]), 20)
    assert found
    assert all(name in classes(network) for network in found)


def test_families_restrict_a_run() -> None:
    """`generate` draws the named families alone, all of them."""
    wanted = ["Linear", "ReLU", "GLU"]
    assert {name for case in generate(100, 3, wanted) for name in classes(case.network)} == set(wanted)


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (2, 6), (3, 1)])
def test_layers_take_the_shape_they_are_drawn_for(shape: tuple[int, ...]) -> None:
    """Every layer drawn for a shape takes it; those that halve an axis are drawn for even ones alone."""
    found, _ = collected(layers(shape), 400)
    for layer in found:
        layer.output_shape(shape)
    fitting = {name for name, family in FAMILIES.items() if family.fits(shape) and not family.first}
    assert {type(layer).__name__ for layer in found} <= {*fitting, "Sequential"}
    assert fitting <= set().union(*(classes(Network(shape, (layer,), bp.MSELoss())) for layer in found))


def test_the_same_seed_gives_the_same_cases() -> None:
    """A seed gives one sequence, however much of it is taken, and another seed another."""
    first = [case.to_json() for case in generate(40, 7)]
    assert [case.to_json() for case in generate(40, 7)] == first
    assert [case.to_json() for case in generate(13, 7)] == first[:13]
    assert [case.to_json() for case in generate(40, 8)] != first
    assert len(set(first)) == 40


def test_the_same_seed_gives_the_same_cases_in_another_process() -> None:
    """Cases and their numbers do not hang on the process or its hash seed."""
    code = """
from hashlib import sha256
from backproof.draw.structures import generate
digest = sha256()
for case in generate(16, 7):
    for part in (case.to_json().encode(), case.values().x.tobytes(), case.values().target.tobytes()):
        digest.update(part)
"""
    here: dict[str, Any] = {}
    exec(code, here)  # noqa: S102  (the same lines here and there)
    command = [sys.executable, "-c", f"{code}\nprint(digest.hexdigest())"]
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == here["digest"].hexdigest()


def test_several_draws_share_a_structure() -> None:
    """Each network and batch is drawn values for several times in a row, with other seeds and regimes."""
    found = list(generate(10 * DRAWS, 0))
    for start in range(0, len(found), DRAWS):
        block = found[start : start + DRAWS]
        assert len({(case.network, case.batch) for case in block}) == 1
        assert len({case.seed for case in block}) == len({case.regime for case in block}) == DRAWS


@pytest.mark.parametrize("name", ["Linear", "Tanh", "Softmax"])
def test_a_property_of_one_layer_shrinks_to_that_layer(name: str) -> None:
    """The smallest network of a family is its layer alone, of size 1."""
    network = find(networks([name]), bool, settings=QUIET, random=Random(0))  # noqa: S311  (a seed)
    assert [type(layer).__name__ for layer in network.layers] == [name]
    assert network.input_shape == (1,)


class HalvedBias:
    """Torch with a mistake: the gradient of every Linear's bias is half of what it should be."""

    name = "halved-bias"

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        halved = ({name: d / 2 if name == "bias" else d for name, d in step.d_params.items()} for step in trace.layers)
        return replace(trace, layers=tuple(replace(step, d_params=d) for step, d in zip(trace.layers, halved, strict=True)))


def test_a_failing_case_shrinks_to_one_layer() -> None:
    """A mistake in one layer's backward, found over random cases, shrinks to that layer, batch 1 and the first regime."""

    def fails(case: Case) -> bool:
        return any(c.failed and c.tensor == "dbias" for c in certify(HalvedBias().run(case), precision_named(case.precision)))

    smallest = find(cases(["Linear", "ReLU", "Tanh"]), fails, settings=QUIET, random=Random(0))  # noqa: S311  (a seed)
    assert smallest == Case(Network((1,), (Linear(1, bias=True),), Head()), smallest.seed, "normal", 1, "float64")


@pytest.mark.parametrize("draw", [
    lambda name: find(layers((4,), [name]), bool), lambda name: find(networks(["ReLU", name]), bool),
    lambda name: find(cases([name]), bool), lambda name: list(generate(1, 0, [name]))],
    ids=["layers", "networks", "cases", "generate"])
def test_an_unknown_layer_is_refused(draw: Any) -> None:
    """A family that does not exist is named, with those that do."""
    with pytest.raises(ValueError, match=r"(?m)^unknown layer: got Konvolution, expected one of AdaptiveAvgPool2d, Add, .*, Transpose$"):
        draw("Konvolution")


def test_an_unknown_precision_is_refused() -> None:
    """A precision that does not exist is named, with those that do."""
    with pytest.raises(ValueError, match=r"(?m)^unknown precision: got float12, expected one of float64, .*, tf32$"):
        find(cases(precisions=["float64", "float12"]), bool)


def test_a_shape_that_no_family_takes_is_refused() -> None:
    """Families that cannot take a shape are named with it."""
    with pytest.raises(ValueError, match=r"^no layer of GLU, SwiGLU takes an input of shape \(3,\)$"):
        layers((3,), ["GLU", "SwiGLU"])


def test_layers_without_a_shape_draw_every_layer() -> None:
    """`layers()` reaches all families, images and sequences and whole numbers too."""
    found, _ = collected(layers(), 1500)
    assert set().union(*({type(layer).__name__} | inner(layer) for layer in found)) >= FAMILIES.keys()


def inner(layer: Layer) -> set[str]:
    """Return the classes of the layers inside a layer."""
    values = [part for value in vars(layer).values() for part in (value if isinstance(value, tuple) else (value,))]
    return set().union(*({type(part).__name__} | inner(part) for part in values if isinstance(part, Layer)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_takes_the_arrays_drawn_for_it(name: str) -> None:
    """What `arrays_for` draws for any layer passes through it, forward and backward, with an upstream gradient for each output."""
    found, statuses = collected(layers(families=[name]).flatmap(lambda layer: st.tuples(st.just(layer), arrays_for(layer))), 15)
    assert "invalid" not in statuses
    for layer, drawn in found:
        setting = Setting(layer, tuple(x.shape[1:] for x in drawn.inputs))
        with np.errstate(all="ignore"):
            outputs, gradients = setting.run(drawn)
            answers = gradients(*drawn.upstream)
        assert [y.shape for y in outputs] == [dy.shape for dy in drawn.upstream]
        assert {tensor: d.shape for tensor, d in answers.items()} == {tensor: shape for tensor, shape in setting.expected(
            len(drawn.inputs[0])).items() if tensor.startswith("d")}


def test_arrays_reach_every_regime_batch_and_shape() -> None:
    """All value regimes but that of trained networks, all batches, shapes of several ranks, and zeros, ties and large numbers with them."""
    found, _ = collected(arrays_for(bp.LayerNorm()), 800)
    assert {drawn.regime for drawn in found} == REGIMES.keys() - {"trained"}
    assert {len(drawn.inputs[0]) for drawn in found} == set(BATCHES)
    assert len({drawn.inputs[0].shape[1:] for drawn in found}) > 20
    assert {drawn.inputs[0].ndim for drawn in found} >= {2, 3, 4}
    assert {bool(drawn.inputs[0].any()) for drawn in found} == {True, False}
    assert max(np.abs(drawn.inputs[0]).max() for drawn in found) > 100


def test_arrays_are_the_callers_own() -> None:
    """They are in the format asked for and writable, and writing into them changes nothing that is drawn later."""

    def spoiled(drawn: Arrays) -> bool:
        assert {a.dtype for a in (*drawn.inputs, *drawn.params.values(), *drawn.upstream)} == {np.dtype("float32")}
        seen = drawn.inputs[0].copy()
        drawn.inputs[0][...] = np.nan
        return bool(np.isnan(seen).any())

    found, statuses = collected(st.booleans().flatmap(lambda _: arrays_for(bp.Linear(1), [(1,)], "float32")).map(spoiled), 200)
    assert found.count(True) == 0
    assert statuses.count("valid") == len(found)


def test_arrays_shrink_to_a_small_batch_of_normal_numbers() -> None:
    """The smallest arrays are one example of one number, of two where a single one has no variance; the regime stays if it is needed."""
    seed = {"settings": QUIET, "random": Random(0)}  # noqa: S311  (a seed)
    smallest = find(arrays_for(bp.Linear(1)), lambda drawn: True, **seed)
    assert (smallest.inputs[0].shape, smallest.regime) == ((1, 1), "normal")
    assert single_entry_groups(bp.BatchNorm(), (1,))
    assert find(arrays_for(bp.BatchNorm()), lambda drawn: True, **seed).inputs[0].shape == (2, 1)
    wide = find(arrays_for(bp.ReLU(), [(9,), (3,), (1,)]), lambda drawn: drawn.inputs[0].shape[-1] > 2, **seed)
    assert (wide.inputs[0].shape, wide.regime) == ((1, 3), "normal")
    large = find(arrays_for(bp.ReLU()), lambda drawn: np.abs(drawn.inputs[0]).max() > 20, **seed)
    assert large.regime == "saturated"


@pytest.mark.parametrize(("layer", "shapes", "drawn"), [
    (bp.Linear(2), [(3,), (2, 5)], {((3,),), ((2, 5),)}), (bp.Add(), [((3,), (1,))], {((3,), (1,))}), (bp.ReLU(), [()], {((),)})],
    ids=["alternatives", "two-inputs", "scalar"])
def test_arrays_take_the_shapes_given(layer: Layer, shapes: list[Any], drawn: set[Any]) -> None:
    """Shapes are alternatives, batch axis left out; those of a layer with two inputs come in pairs."""
    found, _ = collected(arrays_for(layer, shapes), 40)
    assert {tuple(x.shape[1:] for x in arrays.inputs) for arrays in found} == drawn


def test_a_layer_of_unknown_shapes_is_refused() -> None:
    """Where no shape is known, the error says what to write; an unknown precision is named with those that exist."""
    with pytest.raises(ValueError, match=r"^Reshape\(shape=\(11, 13\)\): no input shape is known that it takes. Write shapes="):
        arrays_for(bp.Reshape((11, 13)))
    with pytest.raises(ValueError, match=r"^unknown precision: got float12, expected one of float64, "):
        arrays_for(bp.ReLU(), precision="float12")
