"""Embedding, dropout, gather and scatter against loops, with repeated, padded and impossible indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.indexing import MISTAKES
from backproof.judge.rules import expected, expected_plain
from backproof.reference.indexing import Dropout, Embedding, Gather, IndexSelect, ScatterAdd
from backproof.reference.layer import Constant, Layer, Shape, ShapeError
from backproof.reference.rounding import PRECISIONS, Arithmetic, Rounded
from backproof.reference.trace import LayerTrace

LAYERS = (Embedding, Dropout, Gather, ScatterAdd, IndexSelect)
SIZED = (Gather, ScatterAdd, IndexSelect)
EXAMPLES = tuple(example for cls in LAYERS for example in cls.examples())
every_example = pytest.mark.parametrize(("layer", "shape"), EXAMPLES, ids=[f"{layer}-{shape}" for layer, shape in EXAMPLES])
every_sized = pytest.mark.parametrize("cls", SIZED)
every_precision = pytest.mark.parametrize("precision", PRECISIONS)


def drawn(layer: Any, shape: Shape, batch: int = 3, seed: int = 0) -> LayerTrace:
    """Return a step with random numbers, masks and indices."""
    rng = np.random.default_rng(seed)
    (below,) = layer.index_below()
    x = rng.standard_normal((batch, *shape)) if below is None else rng.integers(below, size=(batch, *shape))
    params = {name: rng.standard_normal(size) for name, size in layer.parameters(shape).items()}
    for name, constant in layer.constants(shape).items():
        size = (*(batch,) * constant.batched, *constant.shape)
        index = constant.kind == "index"
        params[name] = rng.integers(constant.below, size=size) if index else (rng.random(size) < constant.p).astype(float)
    dy = rng.standard_normal((batch, *layer.output_shape(shape)))
    trained = {name: params[name] for name in layer.parameters(shape)}
    return LayerTrace("layers.0", layer, (x,), dy, (None if below else x,), dy, params, trained)


def outside(value: Any, ball: Rounded) -> np.ndarray:
    return ~(np.abs(value - ball.value) <= ball.radius())


def by_loops(step: LayerTrace) -> dict[str, np.ndarray]:
    """Return every tensor from the definitions, one entry at a time."""
    layer: Any = step.layer
    x, dy = step.inputs[0], step.d_output
    if isinstance(layer, Embedding):
        weight = step.params["weight"]
        y, dweight = np.zeros(dy.shape), np.zeros(weight.shape)
        for place in np.ndindex(*x.shape):
            y[place] = weight[x[place]]
            if layer.padding_idx is None or x[place] != range(layer.num_embeddings)[layer.padding_idx]:
                dweight[x[place]] += dy[place]
        return {"output": y, "dweight": dweight}
    y, dx = np.zeros(dy.shape), np.zeros(x.shape)
    if isinstance(layer, Dropout):
        for place in np.ndindex(*x.shape):
            if step.params["mask"][place] and layer.p < 1:
                y[place], dx[place] = x[place] / (1 - layer.p), dy[place] / (1 - layer.p)
        return {"output": y, "dx": dx}
    axis, index = layer.dim % x.ndim, step.params["index"]
    for place in np.ndindex(*(x.shape if isinstance(layer, ScatterAdd) else dy.shape)):
        other = list(place)
        other[axis] = index[place[axis]] if isinstance(layer, IndexSelect) else index[place]
        if isinstance(layer, ScatterAdd):
            y[tuple(other)] += x[place]
            dx[place] = dy[tuple(other)]
        else:
            y[place] = x[tuple(other)]
            dx[tuple(other)] += dy[place]
    return {"output": y, "dx": dx}


@every_example
@every_precision
def test_the_ball_holds_the_definition(layer: Layer, shape: Shape, precision: str) -> None:
    """Every tensor from loops lies in the ball of every precision."""
    step = drawn(layer, shape)
    balls = expected(step, Arithmetic(PRECISIONS[precision]))
    truth = by_loops(step)
    assert set(truth) == set(balls)
    for name, ball in balls.items():
        assert not outside(truth[name], ball).any(), name


@every_example
def test_a_small_mistake_leaves_the_ball(layer: Layer, shape: Shape) -> None:
    """In float32 a relative error of 2^-10 in the largest entry of each tensor shows."""
    step = drawn(layer, shape)
    plain = expected_plain(step)
    for name, ball in expected(step, Arithmetic(PRECISIONS["float32"])).items():
        worst = np.unravel_index(np.argmax(np.abs(plain[name])), ball.shape)
        if plain[name][worst]:
            assert outside(plain[name] * (1 + 2.0**-10), ball)[worst], f"{layer}: {name} is too wide"


def test_sums_over_repeated_indices_may_be_stored_at_each_step() -> None:
    """Terms added one by one in bfloat16, as frameworks do, stay in the ball."""
    step = drawn(Embedding(2, 3), (20,), batch=2)
    dy = np.abs(step.d_output).astype(PRECISIONS["bfloat16"].dtype)
    total = np.zeros((2, 3), dtype=dy.dtype)
    for place in np.ndindex(*step.inputs[0].shape):
        total[step.inputs[0][place]] += dy[place]
    step = LayerTrace("layers.0", step.layer, step.inputs, dy.astype(float), (None,), dy.astype(float), step.params, {})
    ball = expected(step, Arithmetic(PRECISIONS["bfloat16"]))["dweight"]
    assert not outside(total.astype(float), ball).any()
    assert np.all(ball.radius() < 0.2 * ball.value)


@pytest.mark.parametrize(("layer", "tensor"), [(Embedding(1, 1), "dweight"), (Gather(1, 3), "dx"), (IndexSelect(1, 3), "dx"),
                                               (ScatterAdd(1, 1), "output")], ids=str)
def test_what_meets_in_a_place_may_be_stored_at_each_step(layer: Any, tensor: str) -> None:
    """256 + 1 - 256 is 0 where bfloat16 stores the first sum."""
    terms = np.array([[256.0, 1.0, -256.0]])
    x = np.zeros((1, 3), dtype=int) if isinstance(layer, Embedding) else terms if isinstance(layer, ScatterAdd) else np.zeros((1, 1))
    index = {"index": np.zeros(3 if isinstance(layer, IndexSelect) else (1, 3), dtype=int), "weight": np.zeros((1, 1))}
    dy = np.zeros((1, 1)) if isinstance(layer, ScatterAdd) else terms.reshape((1, *layer.output_shape(x.shape[1:])))
    step = LayerTrace("layers.0", layer, (x,), dy, (x,), dy, index, {})
    for precision, held in (("bfloat16", True), ("float32", False)):
        ball = expected(step, Arithmetic(PRECISIONS[precision]))[tensor]
        assert outside(0.0, ball).any() != held


def test_constants_are_announced_as_what_they_are() -> None:
    """A mask keeps with the probability 1 - p; an index stays below the size of the axis that it names places of."""
    assert Dropout(0.25).constants((3,)) == {"mask": Constant((3,), "keep", batched=True, p=0.75)}
    assert Gather(1, 6).constants((3, 2)) == {"index": Constant((6, 2), "index", batched=True, below=3)}
    assert ScatterAdd(1, 3).constants((6, 2)) == {"index": Constant((6, 2), "index", batched=True, below=3)}
    assert IndexSelect(2, 6).constants((3, 2)) == {"index": Constant((6,), "index", below=2)}


def test_the_padding_row_is_fixed() -> None:
    """The row `padding_idx`, which may be counted from the end, is announced as never trained; without one all are."""
    assert Embedding(3, 2).fixed((4,)) == {}
    assert Embedding(3, 2, padding_idx=-3).fixed((4,)) == {"weight": -3}
    assert Embedding(3, 2).index_below() == (3,)


def test_the_padding_row_is_read_and_not_trained() -> None:
    """Row `padding_idx` goes into the output as it stands, its gradient is exactly 0; -1 is the last row."""
    for padding, row in ((0, 0), (-1, 2), (2, 2)):
        layer = Embedding(3, 2, padding_idx=padding)
        weight = np.arange(6.0).reshape(3, 2) + 1
        y, backward = layer.forward({"weight": weight}, np.array([[row, 1, row]]))
        assert (y == weight[[[row, 1, row]]]).all()
        dx, dparams = backward(np.ones((1, 3, 2)))
        assert dx is None
        assert (dparams["weight"][row] == 0).all()
        assert (dparams["weight"][1] == 1).all()


@pytest.mark.parametrize("index", [[-1, 0], [0, 3], [7, 7]])
def test_an_index_out_of_range_is_an_error(index: list[int]) -> None:
    """A negative or too large index never wraps around in silence."""
    weight, x = np.ones((3, 2)), np.ones((1, 3))
    with pytest.raises(ValueError, match=r"Embedding\(.*index out of range: got .* to .*, expected 0 to 2"):
        Embedding(3, 2).forward({"weight": weight}, np.array([index]))
    for cls in (Gather, IndexSelect):
        with pytest.raises(ValueError, match=rf"{cls.__name__}\(.*index out of range: got .* to .*, expected 0 to 2"):
            cls(-1, 2).forward({"index": np.array([index] if cls is Gather else index)}, x)
    with pytest.raises(ValueError, match=r"ScatterAdd\(.*index out of range: got .* to .*, expected 0 to 2"):
        ScatterAdd(-1, 3).forward({"index": np.array([index])}, np.ones((1, 2)))


def test_an_index_of_fractions_is_an_error() -> None:
    """Floats and booleans are no indices, whatever their values."""
    for strange in (np.array([[0.0, 1.0]]), np.array([[True, False]])):
        with pytest.raises(ValueError, match=r"wrong index: got (float64|bool) numbers, expected whole ones"):
            Embedding(3, 2).forward({"weight": np.ones((3, 2))}, strange)


@pytest.mark.parametrize(("p", "factor"), [(0.0, 1.0), (0.75, 4.0), (1.0, 0.0), (0, 1), (1, 0)])
def test_dropout_scales_what_is_kept(p: float, factor: float) -> None:
    """What is kept is divided by 1 - p, forward and backward; p = 1 keeps nothing, even where the mask does."""
    layer, mask = Dropout(p), np.array([[1.0, 0.0, 1.0]])
    y, backward = layer.forward({"mask": mask}, np.array([[1.0, 2.0, -3.0]]))
    assert (y == factor * np.array([[1.0, 0.0, -3.0]])).all()
    assert (backward(np.array([[5.0, 6.0, 7.0]]))[0] == factor * np.array([[5.0, 0.0, 7.0]])).all()
    assert layer.constants((3,))["mask"].p == 1 - p


@every_sized
def test_gather_and_scatter_are_transposes(cls: type[Any]) -> None:
    """<y, dy> = <x, dx>: forward and backward are one matrix and its transpose."""
    for layer, shape in cls.examples():
        step = drawn(layer, shape, seed=2)
        plain = expected_plain(step)
        forward, backward = np.sum(plain["output"] * step.d_output), np.sum(plain["dx"] * step.inputs[0])
        assert abs(forward - backward) <= 2.0**-45 * np.sum(np.abs(plain["dx"] * step.inputs[0]))


@every_example
def test_batch_zero(layer: Layer, shape: Shape) -> None:
    """No example gives no output, no dx, and a parameter's gradient of 0, in plain and in rounded arithmetic."""
    step = drawn(layer, shape, batch=0)
    for tensors in (expected_plain(step), expected(step, Arithmetic(PRECISIONS["float32"]))):
        assert tensors["output"].shape == (0, *layer.output_shape(shape))
        if "dweight" in tensors:
            dweight = tensors["dweight"]
            assert not np.any(dweight.value if isinstance(dweight, Rounded) else dweight)
        else:
            assert tensors["dx"].shape == (0, *shape)


def test_wrong_configuration() -> None:
    """Impossible sizes, paddings, probabilities and axes are errors that say so."""
    with pytest.raises(ValueError, match=r"^Embedding: wrong num_embeddings: got 0, expected at least 1$"):
        Embedding(0, 2)
    with pytest.raises(ValueError, match=r"^Embedding: wrong embedding_dim: got -1, expected at least 1$"):
        Embedding(3, -1)
    for padding in (3, -4):
        with pytest.raises(ValueError, match=rf"^Embedding: wrong padding_idx: got {padding}, expected a row from -3 to 2$"):
            Embedding(3, 2, padding)
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"^Dropout: wrong p: got .*, expected a probability from 0 to 1$"):
            Dropout(p)


@every_sized
def test_wrong_axis_or_size(cls: type[Any]) -> None:
    """The batch axis, an axis that is not there, an empty one and no size are errors that say so."""
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: wrong dim: got 0, expected an axis other than the batch axis$"):
        cls(0, 2)
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: wrong size: got 0, expected at least 1$"):
        cls(1, 0)
    with pytest.raises(ShapeError, match=r"got \(4,\), expected an axis 2 behind the batch axis"):
        cls(2, 2).constants((4,))
    with pytest.raises(ShapeError, match=r"got \(0,\), expected something along the axis -1"):
        cls(-1, 2).output_shape((0,))


SHAPES: dict[type, tuple[Any, Shape]] = {
    Embedding: (Embedding(3, 2, padding_idx=1), (6,)), Dropout: (Dropout(0.25), (6,)), Gather: (Gather(1, 6), (3, 2)),
    ScatterAdd: (ScatterAdd(1, 3), (6, 2)), IndexSelect: (IndexSelect(1, 6), (3, 2)),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.code for m in MISTAKES])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_each_mistake_is_outside_in_its_tensors_alone(mistake: Any, precision: str) -> None:
    """A planted mistake leaves the ball in the tensors it names and has no meaning elsewhere."""
    met = 0
    for layer, shape in SHAPES.values():
        step = drawn(layer, shape)
        for tensor, ball in expected(step, Arithmetic(PRECISIONS[precision])).items():
            wrong = mistake.wrong(step, tensor, expected_plain)
            if wrong is not None:
                met += 1
                assert outside(wrong, ball).any(), f"{mistake.code} is not seen in {tensor} of {layer}"
                rounded = mistake.wrong(step, tensor, lambda s: expected(s, Arithmetic(PRECISIONS[precision])))
                assert isinstance(rounded, Rounded)
                assert not outside(wrong, rounded).any()
    assert met
