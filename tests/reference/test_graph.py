"""Networks as graphs: what is wired to what, where gradients add up, and what does not fit."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.reference.graph import Graph, by_path, by_wire
from backproof.reference.layer import Layer, ShapeError, build, describe
from backproof.reference.network import Network
from backproof.reference.rounding import PRECISIONS, Arithmetic

LOSS = bp.MSELoss()
TIED = bp.Shared(bp.Linear(3, bias=False), "w")
GATED = bp.Sequential((bp.Parallel((bp.Linear(3), bp.Sigmoid(), bp.Identity())), bp.Concatenate(inputs=3), bp.Linear(3)))
LAYERS = (TIED, bp.Residual(bp.Sequential((bp.Tanh(), TIED))), GATED)


def branched() -> Network:
    return Network((3,), LAYERS, LOSS)


def drawn(network: Network, batch: int = 4) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    params = {path: {name: rng.standard_normal(shape) for name, shape in named.items()} for path, named in network.parameters().items()}
    return params, rng.standard_normal((batch, *network.input_shape)), rng.standard_normal((batch, *network.output_shape))


def test_every_wire_has_one_producer_and_one_consumer() -> None:
    """What is used several times is forked, the input and shared parameters too, so that every wire has one gradient."""
    graph = branched().graph
    produced = Counter([*graph.sources, *(w for step in graph.steps for w in step.outputs)])
    consumed = Counter([*graph.outputs, *(w for step in graph.steps for w in (*step.inputs, *(p for _, p in step.params)))])
    assert produced == consumed
    assert set(produced.values()) == {1}
    forks = {step.inputs[0]: step.layer.copies for step in graph.steps if isinstance(step.layer, bp.Fork)}
    assert forks == {"@w.weight": 2, "layers.0": 2, "layers.1.add": 3}


NORM = bp.BatchNorm(training=False)
STATISTICS = ("weight", "bias", "running_mean", "running_var")


def test_every_step_names_its_wires() -> None:
    """A step has the wires of its inputs, outputs and parameters in the layer's order, constants last; every wire has its shape."""
    graph = Graph.of([("a", bp.Parallel((bp.Identity(), bp.Reshape((1, 2))))), ("b", bp.GRU(2, bias=False, states=True)), ("c", bp.Add())],
                     {"x": (1, 2)})
    names = ("weight_ih_l0", "weight_hh_l0")
    assert [(step.path, step.inputs, step.outputs, step.params) for step in graph.steps] == [
        ("x.fork", ("x",), ("x#0", "x#1"), ()), ("a.0", ("x#0",), ("a.0",), ()), ("a.1", ("x#1",), ("a.1",), ()),
        ("b", ("a.0", "a.1"), ("b:output", "b:h_n"), tuple((name, f"b.{name}") for name in names)),
        ("c", ("b:output", "b:h_n"), ("c",), ()),
    ]
    assert graph.shapes == {**dict.fromkeys(["x", "x#0", "x#1", "a.0", "a.1", "b:output", "b:h_n", "c"], (1, 2)),
                            "b.weight_ih_l0": (6, 2), "b.weight_hh_l0": (6, 2)}
    assert graph.stages == [("x",), ("a.0", "a.1"), ("b:output", "b:h_n"), ("c",)]
    assert (graph.inputs, graph.outputs, graph.leaves) == (("x",), ("c",), ("x", "b.weight_ih_l0", "b.weight_hh_l0"))


def test_constants_are_no_parameters() -> None:
    """What a layer takes without a gradient stands among its step's parameters and the sources; shared, it is not forked."""
    shared = bp.Shared(NORM, "n")
    graph = Network((2, 3), (NORM, shared, shared), LOSS).graph
    assert graph.parameters == {f"{path}.{name}": (2,) for path in ("layers.0", "@n") for name in STATISTICS[:2]}
    assert graph.constants.keys() == {f"{path}.{name}" for path in ("layers.0", "@n") for name in STATISTICS[2:]}
    assert {constant.shape for constant in graph.constants.values()} == {(2,)}
    params = {step.path: dict(step.params) for step in graph.steps}
    assert params["layers.0"] == {name: f"layers.0.{name}" for name in STATISTICS}
    assert params["layers.2"] == {"weight": "@n.weight#1", "bias": "@n.bias#1", "running_mean": "@n.running_mean",
                                  "running_var": "@n.running_var"}
    assert graph.sources == ("x", *graph.parameters, *graph.constants)
    assert graph.shapes["@n.weight#1"] == graph.shapes["@n.weight"] == (2,)


def test_only_parameters_and_their_copies_have_no_batch_axis() -> None:
    """Inputs and values have the batch axis before their shape; a parameter, forked or not, has not."""
    graph = branched().graph
    assert {wire for wire in graph.shapes if not graph.batched(wire)} == {
        *graph.parameters, "@w.weight#0", "@w.weight#1"}
    assert all(graph.batched(wire) for wire in ("x", "layers.0", "layers.0#1", "layers.1.add#2"))


def test_an_output_that_is_used_elsewhere_is_forked() -> None:
    """A value that leaves the graph, and goes into a layer or leaves once more, has a copy for each."""
    nothing = bp.Sequential(())
    graph = Graph.of([("a", bp.Parallel((nothing, bp.Tanh(), nothing)))], {"x": (2,)})
    assert graph.outputs == ("x#1", "a.1", "x#2")
    assert [(step.path, step.inputs, step.outputs) for step in graph.steps] == [
        ("x.fork", ("x",), ("x#0", "x#1", "x#2")), ("a.1", ("x#0",), ("a.1",))]
    assert graph.stages[-1] == ("x", "a.1", "x")


@pytest.mark.parametrize(("container", "inputs", "outputs"), [
    (bp.Sequential((bp.Tanh(), bp.Linear(3))), ((2,),), (3,)),
    (bp.Sequential((bp.Multiply(),)), ((2,), (2,)), (2,)),
    (bp.Sequential((bp.Concatenate(inputs=3), bp.Parallel((bp.Tanh(), bp.Linear(1))))), ((2,), (1,), (1,)), ((4,), (1,))),
])
def test_a_container_takes_and_returns_one_array_or_several(container: Layer, inputs: Any, outputs: Any) -> None:
    """One output and one gradient come as they are, several as a tuple, as with any layer."""
    rng = np.random.default_rng(0)
    assert container.output_shape(*inputs) == outputs
    xs = tuple(rng.standard_normal((2, *shape)) for shape in inputs)
    y, backward = container.forward({name: rng.standard_normal(shape) for name, shape in container.parameters(*inputs).items()}, *xs)
    ys = y if isinstance(outputs[0], tuple) else (y,)
    assert isinstance(ys, tuple)
    assert [a.shape[1:] for a in ys] == list(outputs if isinstance(outputs[0], tuple) else (outputs,))
    dx, dparams = backward(*ys)
    dxs = dx if len(inputs) > 1 else (dx,)
    assert isinstance(dxs, tuple)
    assert [d.shape for d in dxs] == [x.shape for x in xs]
    assert dparams.keys() == container.parameters(*inputs).keys()


def test_any_other_name_is_a_key() -> None:
    """A key is any name without the signs that paths and wires are made with; whoever names none shares under one."""
    assert bp.Shared(bp.Linear(2), "X_1").key == "X_1"
    assert Network((2,), (bp.Shared(bp.Linear(2)), bp.Shared(bp.Linear(2))), LOSS).parameters().keys() == {"@shared"}


def test_steps_come_after_what_they_take() -> None:
    """A step stands behind the producers of all its wires."""
    known = set(branched().graph.sources)
    for step in branched().steps:
        assert {*step.inputs, *(wire for _, wire in step.params)} <= known
        known |= set(step.outputs)


def test_paths_say_where_a_layer_stands() -> None:
    """Paths count through containers; a shared layer has a place, and parameters under its key."""
    paths = {step.path: step.layer for step in branched().steps if not isinstance(step.layer, bp.Fork)}
    assert list(paths) == ["layers.0", "layers.1.layer.0", "layers.1.layer.1", "layers.1.add", "layers.2.0.0", "layers.2.0.1",
                           "layers.2.0.2", "layers.2.1", "layers.2.2"]
    assert branched().parameters() == {"@w": {"weight": (3, 3)}, "layers.2.0.0": {"weight": (3, 3), "bias": (3,)},
                                     "layers.2.2": {"weight": (3, 9), "bias": (3,)}}
    assert by_path(by_wire(branched().parameters())) == branched().parameters()


def test_gradients_of_a_network_are_its_complex_step() -> None:
    """Every parameter's gradient, shared and branched, is the complex step of the loss."""
    network = branched()
    params, x, target = drawn(network)
    trace = network.run(params, x, target)
    found = {step.path: step for step in trace.layers}
    gradients = {"@w.weight": found["@w.weight.fork"].d_inputs[0], "layers.2.0.0.bias": found["layers.2.0.0"].d_params["bias"],
                 "layers.2.2.weight": found["layers.2.2"].d_params["weight"]}
    for wire, gradient in gradients.items():
        path, _, name = wire.rpartition(".")
        for index in np.ndindex(gradient.shape):
            moved = {p: {n: a.astype(complex) for n, a in named.items()} for p, named in params.items()}
            moved[path][name][index] += 1e-30j
            slope = float(np.imag(network.run(moved, x.astype(complex), target).loss) / 1e-30)
            assert abs(slope - gradient[index]) <= 2.0**-44 * (1 + np.abs(gradient).max()), (wire, index)


def test_a_container_is_the_graph_of_its_parts() -> None:
    """A container run as a layer gives bit for bit what its network gives, under the names of its parts."""
    container = bp.Sequential(LAYERS)
    params, x, target = drawn(branched())
    flat = {wire.removeprefix("layers."): array for wire, array in by_wire(params).items()}
    assert container.parameters((3,)) == {wire: array.shape for wire, array in flat.items()}
    y, backward = container.forward(flat, x)
    trace = branched().run(params, x, target)
    assert y.tobytes() == trace.layers[-1].inputs[0].tobytes()
    dx, dparams = backward(trace.layers[-1].d_inputs[0])
    assert dparams.keys() == flat.keys()
    assert dx.tobytes() == next(s for s in trace.layers if s.path == "layers.0").d_inputs[0].tobytes()


def test_a_shared_layer_adds_the_gradients_of_its_uses() -> None:
    """With every use but one frozen the gradients of the uses are those of separate layers, and the shared one is their sum."""
    params, x, target = drawn(Network((3,), (TIED, bp.Tanh(), TIED), LOSS))
    shared = Network((3,), (TIED, bp.Tanh(), TIED), LOSS).run(params, x, target)
    apart = Network((3,), (bp.Linear(3, bias=False), bp.Tanh(), bp.Linear(3, bias=False)), LOSS)
    own = apart.run({"layers.0": params["@w"], "layers.2": params["@w"]}, x, target)
    uses = [step.d_params["weight"] for step in own.layers if "weight" in step.d_params]
    (fork,) = (step for step in shared.layers if isinstance(step.layer, bp.Fork))
    assert fork.d_inputs[0].tobytes() == (uses[0] + uses[1]).tobytes()


def test_whole_numbers_are_known_as_such() -> None:
    """The input of an embedding has no gradient, also where two embeddings read it; the smaller vocabulary bounds what is drawn."""
    two = bp.Parallel((bp.Embedding(7, 2), bp.Embedding(5, 2)))
    graph = Network((4,), (two, bp.Add()), LOSS).graph
    other = Network((4,), (bp.Parallel((bp.Embedding(5, 2), bp.Embedding(7, 2))), bp.Add()), LOSS).graph
    assert graph.indices == other.indices == {"x": 5, "x#0": 5, "x#1": 5}
    assert graph.leaves == ("layers.0.0.weight", "layers.0.1.weight")
    case = bp.Case(Network((4,), (two, bp.Add()), LOSS), 0)
    assert case.values().x.dtype == np.int64
    assert case.values().x.max() < 5


@pytest.mark.parametrize(("layers", "message"), [
    ((bp.Parallel((bp.Linear(2), bp.Linear(3))), bp.Add()),
     r"Add\(\): wrong input shape: got \(\(2,\), \(3,\)\), expected sizes that are equal"),
    ((bp.Add(),), r"Add\(\): wrong input shape: got \(\(3,\),\), expected 2 inputs \(a, b\)"),
    ((bp.Parallel((bp.Identity(), bp.Identity())),), "expected one output of the last layer"),
    ((bp.Parallel((bp.Identity(),) * 3), bp.Parallel((bp.Identity(),) * 2), bp.Add()),
     r"wrong input shape: got \(\(3,\), \(3,\), \(3,\)\), expected one input or 2, one for each branch"),
    ((TIED, bp.Linear(2), TIED),
     r"Linear\(.*\): wrong input shape: got \(\(2,\),\), expected @w.weight of the shape \(3, 3\) that it shares with .*, not \(3, 2\)"),
    ((bp.Shared(NORM, "n"), bp.Reshape((1, 3)), bp.Shared(NORM, "n")),
     r"BatchNorm\(.*\): wrong input shape: got \(\(1, 3\),\), expected @n.weight of the shape \(3,\) that it shares"),
    ((bp.Shared(bp.Dropout(), "d"), bp.Reshape((1, 3)), bp.Shared(bp.Dropout(), "d")),
     r"Dropout\(.*\): wrong input shape: got \(\(1, 3\),\), expected @d.mask of the shape Constant\(shape=\(3,\), .* that it shares"),
    ((bp.Transpose(1, 2),), "expected axes 1 and 2 behind the batch axis"),
    ((bp.Reshape((2, -1)),), r"Reshape\(shape=\(2, -1\)\): wrong input shape: got \(3,\), expected 2 entries or a multiple"),
    ((bp.Parallel((bp.Identity(), bp.Flatten())), bp.Concatenate(2)), "expected an axis 2 behind the batch axis"),
])
def test_what_does_not_fit_is_named(layers: tuple[Layer, ...], message: str) -> None:
    """A wrong shape names the layer, what it got and what it takes."""
    with pytest.raises(ShapeError, match=message):
        Network((3,), layers, LOSS)


@pytest.mark.parametrize(("make", "message"), [
    *((lambda key=key: bp.Shared(bp.Linear(2), key), f"Shared: wrong key: got '{key}', expected a name without")
      for key in ("a.b", "a#b", "a:b", "a@b", "")),
    (lambda: bp.Parallel(()), "Parallel: no branches"),
    (lambda: bp.Transpose(0, 1), "Transpose: wrong axes: got 0 and 1"),
    (lambda: bp.Transpose(1, 0), "Transpose: wrong axes: got 1 and 0"),
    (lambda: bp.Concatenate(0), "Concatenate: wrong dim: got 0"),
    (lambda: bp.Concatenate(1, 0), "Concatenate: wrong number of inputs: got 0"),
    (lambda: bp.Fork(0), "Fork: wrong number of copies: got 0"),
    (lambda: bp.Reshape((-1, -1)), r"Reshape: wrong shape: got \(-1, -1\)"),
    (lambda: bp.Reshape((2, -2)), r"Reshape: wrong shape: got \(2, -2\), expected sizes of which one may be -1"),
])
def test_wrong_options_are_named(make: Any, message: str) -> None:
    """An option that makes no sense is refused when the layer is made."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("layer", "shapes", "message"), [
    (bp.Reshape((2, 2)), ((8,),), r"got \(8,\), expected 4 entries \(batch"),
    (bp.Reshape((0, -1)), ((0,),), r"got \(0,\), expected 0 entries or a multiple \(batch"),
    (bp.Transpose(1, 2), ((3,),), r"got \(3,\), expected axes 1 and 2 behind the batch axis"),
    (bp.Transpose(-1, -2), ((3,),), r"got \(3,\), expected axes -1 and -2 behind the batch axis"),
    (bp.Transpose(-3, 1), ((3,),), r"got \(3,\), expected axes -3 and 1 behind the batch axis"),
    (bp.Concatenate(-2), ((3,), (3,)), "expected an axis -2 behind the batch axis"),
    (bp.Concatenate(), ((2, 3), (3, 3)), r"got \(\(2, 3\), \(3, 3\)\), expected the same sizes but along axis -1"),
    (bp.Concatenate(1), ((2, 3), (2, 1)), "expected the same sizes but along axis 1"),
    (bp.Concatenate(), ((3,), (1, 3)), "expected the same sizes but along axis -1"),
    (bp.Multiply(), ((2, 3), (2,)), r"^Multiply\(\): wrong input shape: got \(\(2, 3\), \(2,\)\), expected sizes that are equal or 1"),
])
def test_a_wrong_shape_is_refused(layer: Layer, shapes: Any, message: str) -> None:
    """What a layer cannot take is named."""
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(*shapes)


@pytest.mark.parametrize(("layer", "shapes", "expected"), [
    (bp.Flatten(), ((2, 3, 4),), (24,)), (bp.Reshape((2, -1)), ((0,),), (2, 0)), (bp.Transpose(1, 3), ((2, 3, 4),), (4, 3, 2)),
    (bp.Transpose(-1, 1), ((2, 3, 4),), (4, 3, 2)), (bp.Concatenate(1), ((2, 3), (4, 3)), (6, 3)),
    (bp.Concatenate(2), ((2, 3), (2, 1)), (2, 4)), (bp.Concatenate(-3, 3), ((1, 2, 3),) * 3, (3, 2, 3)), (bp.Add(), ((2,), (3, 1)), (3, 2)),
])
def test_shapes_that_come_out(layer: Layer, shapes: Any, expected: Any) -> None:
    """Axes count from either end, the batch axis among them."""
    assert layer.output_shape(*shapes) == expected


@pytest.mark.parametrize("shapes", [((1, 2), (1, 2)), ((3, 2), (3, 2)), ((2,), (1, 2))])
def test_what_is_not_spread_is_not_summed(shapes: Any) -> None:
    """The gradient of an input that is used once is dy, in bfloat16 too, where a sum of one number would be stored again."""
    arithmetic = Arithmetic(PRECISIONS["bfloat16"])
    a, b = (arithmetic.exact(np.ones((3, *shape))) for shape in shapes)
    y, backward = bp.Add().forward({}, a, b)
    dy = arithmetic.exact(np.random.default_rng(0).standard_normal(y.shape))
    for d, of in zip(backward(dy)[0], (a, b), strict=True):
        assert d.value.tolist() == dy.value.reshape(of.shape).tolist()
        assert not d.radius().any()


def test_an_only_input_or_output_is_no_tuple() -> None:
    """Concatenating one input gives one gradient, and a fork to one place one output of one shape."""
    x = np.ones((2, 3))
    assert isinstance(bp.Concatenate(-1, 1).forward({}, x)[1](x)[0], np.ndarray)
    assert isinstance(bp.Fork(1).forward({}, x)[0], np.ndarray)
    assert bp.Fork(1).output_shape((3,)) == (3,)


def test_whole_numbers_have_no_gradient_behind_a_fork() -> None:
    """Where no use has a gradient there is nothing to add up."""
    _, backward = bp.Fork(2).forward({}, np.arange(3))
    assert backward(None, None)[0] is None


def test_a_nested_network_survives_json() -> None:
    """Containers within containers are described and built again, tuples of layers and of sizes alike."""
    layers = (*LAYERS, bp.Reshape((3, 1)), bp.Conv1d(2, (1,)))
    assert tuple(build(json.loads(json.dumps(describe(layer)))) for layer in layers) == layers


def test_a_graph_without_steps_hands_its_input_on() -> None:
    """No layer at all is the identity, forward and backward."""
    graph = Graph.of([], {"x": (2,)})
    wires, backward = graph.run({"x": np.ones((1, 2))})
    assert graph.outputs == ("x",)
    assert backward({"x": wires["x"]})["x"].tolist() == [[1.0, 1.0]]
