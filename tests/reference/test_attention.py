"""Attention and rotary positions: definitions in loops, masks, orders of evaluation inside the balls, and mistakes outside of them."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from backproof.judge.mistakes.attention import MISTAKES
from backproof.judge.rules import expected
from backproof.reference.attention import RotaryEmbedding, ScaledDotProductAttention, _over_groups
from backproof.reference.functions import recomputed
from backproof.reference.layer import Constant, ShapeError
from backproof.reference.multihead_attention import MultiheadAttention
from backproof.reference.rounding import PRECISIONS, REFERENCE_ROUNDOFF, Arithmetic, Precision, Rounded
from backproof.reference.trace import LayerTrace
from flint import arb, ctx

Arrays = dict[str, np.ndarray]
STEP = 1e-100  # of the complex step

ALONE = [*ScaledDotProductAttention.examples(), (ScaledDotProductAttention(is_causal=True, mask="boolean"), (4, 2), (5, 2), (5, 1)),
         (ScaledDotProductAttention(is_causal=True, mask="additive"), (2, 4, 2), (2, 3, 2), (2, 3, 1))]
EVERY = [example for cls in (ScaledDotProductAttention, MultiheadAttention, RotaryEmbedding) for example in cls.examples()]
each_precision = pytest.mark.parametrize("precision", PRECISIONS.values(), ids=list(PRECISIONS))


def step_of(layer: Any, *shapes: Any, batch: int = 3, seed: int = 0, scale: float = 1.0, dtype: Any = np.float64) -> LayerTrace:
    """Return a step with drawn inputs, parameters, constants and upstream gradient; what it produced is left empty."""
    rng = np.random.default_rng(seed)

    def real(shape: Any) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(dtype)

    inputs = tuple(real((batch, *shape)) for shape in shapes)
    params = {name: real(shape) for name, shape in layer.parameters(*shapes).items()}
    for name, constant in layer.constants(*shapes).items():
        params[name] = rng.random(constant.shape) < constant.p if constant.kind == "boolean" else real(constant.shape)
    return LayerTrace("it", layer, inputs, None, (), real((batch, *layer.output_shape(*shapes))), params, {})


def run(step: LayerTrace, wrap: Callable[[np.ndarray], Any] = np.asarray) -> dict[str, Any]:
    """Return what the layer's rule produces, by tensor name."""
    params = {name: p if p.dtype == bool else wrap(p) for name, p in step.params.items()}
    y, backward = step.layer.forward(params, *map(wrap, step.inputs))
    d_inputs, d_params = backward(wrap(step.d_output))
    d_inputs = d_inputs if isinstance(d_inputs, tuple) else (d_inputs,)
    names = (f"d{name}" for name in step.layer.input_names)
    return {"output": y, **dict(zip(names, d_inputs, strict=True)), **{f"d{name}": d for name, d in d_params.items()}}


def balls_of(step: LayerTrace, precision: str) -> dict[str, Rounded]:
    return expected(step, Arithmetic(PRECISIONS[precision]))


def excess(actual: Any, ball: Rounded) -> float:
    """Return the largest |difference| / bound."""
    difference = np.abs(np.asarray(actual, dtype=np.float64) - ball.value)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.max(np.where(difference == 0, 0, difference / ball.radius()), initial=0.0))


def attention_in_loops(query: Any, key: Any, value: Any, scale: float, sees: Callable[[int, int], bool], added: Any = None) -> np.ndarray:
    """Write the definition down entry by entry, for one example and one head; real or complex."""
    y = np.zeros((len(query), value.shape[1]), dtype=query.dtype)
    for i, q in enumerate(query):
        keys = [j for j in range(len(key)) if sees(i, j)]
        exponentials = {j: np.exp(scale * sum(a * b for a, b in zip(q, key[j], strict=True)) + (0 if added is None else added[i, j]))
                        for j in keys}
        total = sum(exponentials.values())
        for e, j in product(range(value.shape[1]), keys):
            y[i, e] += exponentials[j] / total * value[j, e]
    return y


def complex_step(function: Callable[..., np.ndarray], arrays: Arrays, dy: np.ndarray) -> Arrays:
    """Return the gradients of sum(dy * function(**arrays)), entry by entry."""
    found = {name: np.zeros(a.shape) for name, a in arrays.items()}
    for name, a in arrays.items():
        for index in np.ndindex(a.shape):
            moved = {k: v.astype(complex) for k, v in arrays.items()}
            moved[name][index] += 1j * STEP
            found[name][index] = float(np.sum(dy * function(**moved)).imag) / STEP
    return found


def sees(step: LayerTrace) -> Callable[[int, int], bool]:
    layer, mask = step.layer, step.params.get("attn_mask")
    hidden = ~mask if mask is not None and mask.dtype == bool else np.zeros((99, 99), dtype=bool)
    return lambda i, j: (j <= i or not layer.is_causal) and not hidden[i, j]


@pytest.mark.parametrize("example", ALONE, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_attention_is_its_definition_in_loops(example: Any, seed: int) -> None:
    """Output and gradients are those of the definition written entry by entry, within what float64 may lose."""
    step = step_of(*example, seed=seed)
    layer, balls, added = step.layer, balls_of(step, "float64"), step.params["attn_mask"] if step.layer.mask == "additive" else None
    scale = layer.scale or 1 / math.sqrt(step.inputs[0].shape[-1])
    for n in np.ndindex(*step.inputs[0].shape[:-2]):  # every example and head
        arrays = {name: x[n] for name, x in zip(layer.input_names, step.inputs, strict=True)}
        function = lambda query, key, value: attention_in_loops(query, key, value, scale, sees(step), added)  # noqa: E731
        truth = {"output": function(**arrays)} | {f"d{k}": d for k, d in complex_step(function, arrays, step.d_output[n]).items()}
        for name, tensor in truth.items():
            assert excess(tensor, balls[name][n]) <= 1, f"{name}: got {tensor}, expected {balls[name][n]}"


@pytest.mark.parametrize("is_causal", [False, True])
def test_heads_are_separate_and_groups_share(is_causal: bool) -> None:
    """Head h attends with the slice h of the query and the slice of its group of key and value, and nothing else."""
    layer = MultiheadAttention(8, 4, num_kv_heads=2, is_causal=is_causal)
    step = step_of(layer, (3, 8), batch=2)
    p, size = step.params, 2
    balls = balls_of(step, "float64")
    for n, x in enumerate(step.inputs[0]):
        features = x @ p["in_proj_weight"].T + p["in_proj_bias"]
        query, key, value = np.split(features, [8, 12], axis=-1)
        heads = []
        for head in range(4):
            own, shared = slice(size * head, size * head + size), slice(size * (head // 2), size * (head // 2) + size)
            heads.append(attention_in_loops(query[:, own], key[:, shared], value[:, shared], 1 / math.sqrt(size), sees(step)))
        y = np.concatenate(heads, axis=-1) @ p["out_proj_weight"].T + p["out_proj_bias"]
        assert excess(y, balls["output"][n]) <= 1


def test_shared_heads_are_repeated_heads() -> None:
    """Groups give what plain heads give whose key and value rows are repeated; their gradients are sums over the repeats."""
    few, plain = MultiheadAttention(8, 4, num_kv_heads=2), MultiheadAttention(8, 4)
    step = step_of(few, (3, 8))
    rows = np.r_[0:8, 8:10, 8:10, 10:12, 10:12, 12:14, 12:14, 14:16, 14:16]
    repeated = {name: p[rows] if name.startswith("in_") else p for name, p in step.params.items()}
    found = run(LayerTrace("it", plain, step.inputs, None, (), step.d_output, repeated, {}))
    for name, ball in balls_of(step, "float64").items():
        tensor = found[name]
        if name.startswith("din_"):
            tensor = np.zeros(ball.shape)
            np.add.at(tensor, rows, found[name])
        assert excess(tensor, ball) <= 1, name


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_complex_multiplication(interleaved: bool) -> None:
    """Each pair, read as a complex number, is multiplied by e^(ia), and its gradient by e^(-ia)."""
    step = step_of(RotaryEmbedding(100.0, interleaved), (5, 6))
    balls, x, dy = balls_of(step, "float64"), step.inputs[0], step.d_output
    pairs = [(2 * i, 2 * i + 1) for i in range(3)] if interleaved else [(i, i + 3) for i in range(3)]
    for n, m, (i, (u, v)) in product(range(3), range(5), enumerate(pairs)):
        turn = cmath.exp(1j * m * 100.0 ** (-2 * i / 6))
        for name, number in (("output", complex(x[n, m, u], x[n, m, v]) * turn), ("dx", complex(dy[n, m, u], dy[n, m, v]) / turn)):
            assert excess([number.real, number.imag], balls[name][n, m][[u, v]]) <= 1


def test_rotated_products_depend_on_the_distance_alone() -> None:
    """The product of a query at n and a key at m is the same for all n - m, which is what the rotation is for."""
    q, k = np.broadcast_to(np.random.default_rng(0).standard_normal((2, 1, 1, 8)), (2, 1, 9, 8))
    arithmetic = Arithmetic(PRECISIONS["float64"])
    rotated = [RotaryEmbedding().forward({}, arithmetic.exact(a))[0] for a in (q, k)]
    products = (rotated[0] @ np.swapaxes(rotated[1], -1, -2))[0]
    for n, m in product(range(8), range(8)):
        assert abs(products.value[n, m] - products.value[n + 1, m + 1]) <= products.radius()[n, m] + products.radius()[n + 1, m + 1]


@each_precision
@pytest.mark.parametrize(("base", "size"), [(10_000, 12), (7.3, 6)])  # of which no power is a short decimal fraction
def test_the_table_is_right_far_out(precision: Precision, base: float, size: int) -> None:
    """Cosine and sine lie in their balls at position 20,011 as in exact arithmetic, and the balls are as narrow as the format."""
    layer, where = RotaryEmbedding(base), 20_011
    x = np.zeros((where + 1, size))
    x[:, : size // 2] = 1.0
    y, _ = layer.forward({}, Arithmetic(precision).exact(x))
    with ctx.workprec(200):
        angles = [where * arb(base) ** (-arb(2 * i) / size) for i in range(size // 2)]
        truth = np.array([float(a.cos()) for a in angles] + [float(a.sin()) for a in angles])
    assert excess(truth, y[-1]) <= 1
    assert (y.radius()[-1] <= np.maximum(8 * precision.store, 2 * 16 * where * 2.0**-53)).all()


@pytest.mark.parametrize("position", [0, 1, 2, 1000])
def test_the_table_is_as_wide_as_its_angles_are_unsure(position: int) -> None:
    """With base 1 an angle n may be off by 4 n of its roundoffs and a cosine by 2, here and in an implementation; at 0 it is exact."""
    x = np.zeros((position + 1, 2))
    x[:, 0] = 1.0
    y, _ = RotaryEmbedding(1.0).forward({}, Arithmetic(PRECISIONS["float64"]).exact(x))
    unsure = 2 * REFERENCE_ROUNDOFF * (4 * position + 2) if position else 0
    assert (unsure <= y.radius()[-1]).all()
    assert (y.radius()[-1] <= 1.001 * unsure + 5 * PRECISIONS["float64"].store * np.abs(y.value[-1]) + 1e-300).all()


@pytest.mark.parametrize("example", EVERY, ids=str)
@each_precision
def test_balls_hold_the_exact_result(example: Any, precision: Precision) -> None:
    """What float64 gives lies in the ball of every precision, for large and small numbers too."""
    for scale in (1.0, 8.0, 1e-3):
        step = step_of(*example, scale=scale, dtype=precision.dtype)
        plain = run(step, lambda a: a.astype(np.float64))
        for name, ball in expected(step, Arithmetic(precision)).items():
            assert excess(plain[name], ball) <= 1, name


def as_kept(q: Any, k: Any, v: Any, dy: Any, scale: Any) -> tuple[Any, ...]:
    """Attention as it is composed: scores scaled afterwards, the weights kept."""
    s = (q @ k.swapaxes(-1, -2)) * scale
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    p = e / e.sum(axis=-1, keepdims=True)
    dp = dy @ v.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(axis=-1, keepdims=True)) * scale
    return p @ v, ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy


def as_recomputed(q: Any, k: Any, v: Any, dy: Any, scale: Any) -> tuple[Any, ...]:
    """Attention as FlashAttention-2 has it: divided at the end, weights from log sum e^s, sum_k p_k dp_k from the output."""
    s = (q * scale) @ k.swapaxes(-1, -2)
    top = s.max(axis=-1, keepdims=True)
    e = np.exp(s - top)
    total = e.sum(axis=-1, keepdims=True)
    y = (e @ v) / total
    p = np.exp(s - (top + np.log(total)))
    ds = p * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(axis=-1, keepdims=True))
    return y, (ds @ k) * scale, (ds.swapaxes(-1, -2) @ q) * scale, p.swapaxes(-1, -2) @ dy


def as_tiles(q: Any, k: Any, v: Any, dy: Any, scale: Any) -> tuple[Any, ...]:
    """Attention whose softmax meets the keys tile by tile, and the root of the scale on query and key."""
    root = np.sqrt(scale)
    q_scaled, k_scaled = q * root, k * root
    top, total, y = np.full((*q.shape[:-1], 1), -np.inf, q.dtype), q[..., :1] * 0, q[..., :1] * v[..., :1, :] * 0
    for start in range(0, k.shape[-2], 3):
        s = q_scaled @ k_scaled[..., start : start + 3, :].swapaxes(-1, -2)
        new = np.maximum(top, s.max(axis=-1, keepdims=True))
        e, shrink = np.exp(s - new), np.exp(top - new)
        total, y, top = total * shrink + e.sum(axis=-1, keepdims=True), y * shrink + e @ v[..., start : start + 3, :], new
    p = np.exp(q_scaled @ k_scaled.swapaxes(-1, -2) - (top + np.log(total)))
    y = y / total
    ds = p * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(axis=-1, keepdims=True))
    return y, (ds @ k_scaled) * root, (ds.swapaxes(-1, -2) @ q_scaled) * root, p.swapaxes(-1, -2) @ dy


@pytest.mark.parametrize("implementation", [as_kept, as_recomputed, as_tiles])
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 8.0])
def test_balls_hold_every_order_of_evaluation(implementation: Callable[..., Any], precision: str, scale: float) -> None:
    """The usual ways to compute attention lie in the balls, also where scores reach hundreds, and those that store every step."""
    dtype = PRECISIONS[precision].dtype
    for seed in range(3):
        step = step_of(ScaledDotProductAttention(scale=0.3), (7, 5), (11, 5), (11, 4), seed=seed, scale=scale, dtype=dtype)
        with np.errstate(over="ignore", under="ignore"):
            found = implementation(*step.inputs, step.d_output, dtype.type(0.3))
        for tensor, (name, ball) in zip(found, balls_of(step, precision).items(), strict=True):
            assert tensor.dtype == dtype
            assert excess(tensor, ball) <= 1, f"{name}, seed {seed}"


def test_balls_hold_the_mean_taken_from_a_stored_output() -> None:
    """Where every dp_j is 0 by cancellation, sum_e dy_e y_e is not once y is stored in half precision, as flash kernels store it."""
    a = np.array([1.0, 2.0, 4.0])
    value, dy = np.stack([a, 3 * a], axis=-1)[None], np.array([[[3.0, -1.0]]])
    key = np.array([[[1.0], [2.0], [3.0]]])
    step = LayerTrace("it", ScaledDotProductAttention(), tuple(x.astype(np.float16) for x in (np.zeros((1, 1, 1)), key, value)), None, (),
                      dy.astype(np.float16), {}, {})
    stored = (np.full((1, 1, 3), 1 / 3) @ value).astype(np.float16).astype(np.float64)
    mean = np.sum(dy * stored)
    dquery = -mean * np.mean(key)
    assert dquery
    assert not run(step, lambda x: x.astype(np.float64))["dquery"].any()
    assert excess(dquery, balls_of(step, "float16")["dquery"]) <= 1


def test_sums_by_group_may_be_stored() -> None:
    """In bfloat16 what the heads of a group give their key may be stored head by head; of one head there is nothing to store."""
    held, rng, arithmetic = PRECISIONS["bfloat16"].held, np.random.default_rng(0), Arithmetic(PRECISIONS["bfloat16"])
    a, b = (held(rng.standard_normal((200, 1, 4, 1))) for _ in range(2))
    heads = [held(np.swapaxes(one, -1, -2) @ other) for one, other in zip(np.split(a, 2, axis=-2), np.split(b, 2, axis=-2), strict=True)]
    stored = held(heads[0] + heads[1])
    assert excess(stored, _over_groups(arithmetic.exact(a), arithmetic.exact(b), 2)) <= 1
    assert excess(stored, _over_groups(arithmetic.exact(a), arithmetic.exact(b), 1)) > 1


def test_heads_of_a_group_may_be_stored_one_by_one() -> None:
    """In bfloat16 what 64 heads give the value that they share may be added to what is stored, where 1 + 2^-8 is 1."""
    layer, arithmetic = MultiheadAttention(64, 64, num_kv_heads=1), Arithmetic(PRECISIONS["bfloat16"])
    _, pullback = layer.attention(arithmetic.exact(np.zeros((1, 1, 66))))
    dz = np.full((1, 1, 64), 2.0**-8)
    dz[..., 0] = 1.0
    dvalue = pullback(arithmetic.exact(dz))[..., -1]
    assert excess(1.0, dvalue) <= 1


def test_the_root_of_the_scale_may_be_on_both_factors() -> None:
    """Its rounding counts twice in a float32 score of -64, and 64 times that in the weight e^-64."""
    scale, rng = 1.003, np.random.default_rng(0)  # whose root is off by nearly half an ulp
    query = rng.uniform(1, 1.02, (4096, 1, 1)).astype(np.float32)
    key = (rng.uniform(-65, -64, (4096, 1, 1)) * [[0], [1]]).astype(np.float32)
    root = np.float32(math.sqrt(scale))
    score = ((query * root) * (key[:, 1:] * root)).astype(np.float64)
    value = np.broadcast_to([[0.0], [1.0]], key.shape)
    step = LayerTrace("it", ScaledDotProductAttention(scale=scale), (query, key, value), None, (), query, {}, {})
    assert excess(1 / (1 + np.exp(-score)), balls_of(step, "float32")["output"]) <= 1


def test_a_kept_logarithm_is_as_good_as_the_format_has_it() -> None:
    """Where log sum e^s alone is kept, weights carry the 8 roundoffs that an elementary function may be off by."""
    arithmetic = Arithmetic(PRECISIONS["float32"])
    weight, top, total = (arithmetic.exact(np.array(v)) for v in (1.0, 0.0, 2.0**60))
    log = 60 * math.log(2)
    kept = log * (1 + PRECISIONS["float32"].ulps * PRECISIONS["float32"].store)
    assert excess(math.exp(log - kept), recomputed(weight, top, total)) <= 1


@pytest.mark.parametrize("example", [(MultiheadAttention(8, 4, 2, is_causal=True), (6, 8)), (RotaryEmbedding(), (6, 8)),
                                     (ScaledDotProductAttention(is_causal=True), (6, 8), (6, 8), (6, 8))], ids=str)
def test_a_thousandth_leaves_the_balls(example: Any) -> None:
    """A float32 tensor that is off by 2^-10 is outside: nearly every entry that is not the small rest of large numbers."""
    step = step_of(*example, scale=0.5, dtype=np.float32)
    for name, ball in balls_of(step, "float32").items():
        large = np.abs(ball.value) > np.max(np.abs(ball.value)) / 8
        assert (ball.radius() < np.abs(ball.value) * 2.0**-10)[large].all(), name


@pytest.mark.parametrize("mask", ["boolean", "additive"])
def test_a_query_that_sees_no_key_gives_zero(mask: str) -> None:
    """Its output and its gradients are 0 exactly, and it adds nothing to the gradients of keys and values."""
    step = step_of(ScaledDotProductAttention(mask=mask), (3, 2), (4, 2), (4, 2))
    seen = np.array([[True] * 4, [False] * 4, [False, True, True, False]])
    step.params["attn_mask"] = seen if mask == "boolean" else np.where(seen, 0.5, -np.inf)  # type: ignore[index]
    without = LayerTrace("it", step.layer, (step.inputs[0][:, ::2], *step.inputs[1:]), None, (), step.d_output[:, ::2],
                         {"attn_mask": step.params["attn_mask"][::2]}, {})
    plain, balls, rest = run(step), balls_of(step, "float32"), run(without)
    for name in ("output", "dquery"):
        assert not plain[name][:, 1].any()
        assert not balls[name].value[:, 1].any()
        assert (balls[name].radius()[:, 1] <= 1e-30).all()
    for name in ("dkey", "dvalue"):
        assert np.isfinite(balls[name].radius()).all()
        assert excess(rest[name], balls[name]) <= 1


def test_a_boolean_mask_may_come_as_numbers() -> None:
    """Ones and zeros, in rounded arithmetic too, say what True and False do."""
    step = step_of(ScaledDotProductAttention(is_causal=True, mask="boolean"), (4, 2), (5, 2), (5, 3))
    numbers = LayerTrace("it", step.layer, step.inputs, None, (), step.d_output, {"attn_mask": step.params["attn_mask"] * 1.0}, {})
    for name, tensor in run(step).items():
        assert (run(numbers)[name] == tensor).all()
        assert excess(tensor, run(numbers, Arithmetic(PRECISIONS["float32"]).exact)[name]) <= 1


def test_minus_infinity_hides_a_key() -> None:
    """An additive mask of 0 and -inf is the boolean mask, in plain and in rounded arithmetic, to the last bit."""
    step = step_of(ScaledDotProductAttention(mask="boolean"), (4, 2), (5, 2), (5, 3))
    added = {"attn_mask": np.where(step.params["attn_mask"], 0.0, -np.inf)}
    other = LayerTrace("it", ScaledDotProductAttention(mask="additive"), step.inputs, None, (), step.d_output, added, {})
    plain, balls = run(other), balls_of(other, "float32")
    for name, tensor in run(step).items():
        assert (plain[name] == tensor).all()
        assert np.isfinite(balls[name].radius()).all()


def test_a_hidden_key_of_any_size_changes_nothing() -> None:
    """What a query does not see may be as large as the format allows."""
    step = step_of(ScaledDotProductAttention(is_causal=True), (3, 2), (3, 2), (3, 2))
    step.inputs[1][:, 2] = 1e200
    assert (run(step)["output"][:, :2] == run(step_of(step.layer, (3, 2), (3, 2), (3, 2)))["output"][:, :2]).all()
    assert np.isfinite(run(step)["output"][:, :2]).all()


@pytest.mark.parametrize("example", EVERY, ids=str)
def test_an_empty_batch_has_gradients_of_zero(example: Any) -> None:
    """Batch 0 keeps the shapes, and sums over nothing are 0."""
    step = step_of(*example, batch=0)
    for wrap in (np.asarray, Arithmetic(PRECISIONS["float32"]).exact):
        for name, tensor in run(step, wrap).items():
            if name[1:] in step.params:
                assert tensor.shape == step.params[name[1:]].shape
                assert not (tensor.value if isinstance(tensor, Rounded) else tensor).any()
            else:
                assert not tensor.shape[0]


PLANTED = {
    "attention-mask-forgotten": (ScaledDotProductAttention(is_causal=True), (3, 2), (3, 2), (3, 2)),
    "attention-causal-off-by-one": (ScaledDotProductAttention(is_causal=True), (3, 2), (3, 2), (3, 2)),
    "attention-scale-forgotten": (ScaledDotProductAttention(), (3, 2), (4, 2), (4, 2)),
    "attention-scale-twice": (ScaledDotProductAttention(scale=0.3), (3, 2), (4, 2), (4, 2)),
    "attention-cross-term-dropped": (ScaledDotProductAttention(mask="boolean"), (2, 3, 2), (2, 4, 2), (2, 4, 3)),
    "attention-weights-not-transposed": (ScaledDotProductAttention(mask="additive"), (3, 2), (3, 2), (3, 2)),
    "attention-heads-mixed": (MultiheadAttention(4, 2), (3, 4)),
    "attention-groups-not-summed": (MultiheadAttention(4, 2, num_kv_heads=1), (3, 4)),
    "attention-weights-held-constant": (MultiheadAttention(4, 2, is_causal=True), (3, 4)),
    "attention-bias-last-position-only": (MultiheadAttention(4, 2), (3, 4)),
    "rotary-not-undone": (RotaryEmbedding(), (3, 4)),
    "rotary-other-pairs": (RotaryEmbedding(interleaved=True), (3, 4)),
    "rotary-position-off-by-one": (RotaryEmbedding(), (3, 4)),
}
"""Where each mistake shows."""


def test_every_mistake_has_a_place() -> None:
    """A new mistake must enrol in PLANTED."""
    assert {mistake.code for mistake in MISTAKES} == set(PLANTED)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.code)
def test_a_mistake_shows_in_the_tensors_it_names(mistake: Any) -> None:
    """It takes every tensor it speaks of out of the right ball, in plain and in rounded arithmetic alike, and leaves the others."""
    step = step_of(*PLANTED[mistake.code], dtype=np.float32)
    balls = balls_of(step, "float32")
    named = {name for name in balls if mistake.wrong(step, name, lambda s: run(s, lambda a: a.astype(np.float64))) is not None}
    assert named
    for name in named:
        wrong = mistake.wrong(step, name, lambda s: run(s, lambda a: a.astype(np.float64)))
        ball = mistake.wrong(step, name, lambda s: expected(s, Arithmetic(PRECISIONS["float32"])))
        assert excess(wrong, balls[name]) > 1, name
        assert excess(wrong, ball) <= 1, name  # type: ignore[arg-type]
    everything = mistake.wrong(step, next(iter(named)), lambda s: {name: run(s) for name in named})
    for name in set(balls) - named:
        assert excess(everything[name], balls[name]) <= 1, name  # type: ignore[index]


@pytest.mark.parametrize("example", EVERY, ids=str)
def test_where_a_mistake_cannot_be_made_it_is_none(example: Any) -> None:
    """Every mistake runs on every example of its layer and keeps the shape, or says that it has no meaning there."""
    step = step_of(*example)
    right = run(step)
    for mistake, name in product(MISTAKES, right):
        wrong = mistake.wrong(step, name, run)
        assert wrong is None or wrong.shape == right[name].shape, f"{mistake.code} in {name}"


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ScaledDotProductAttention(mask="causal"), "unknown mask: got 'causal', expected None, 'boolean' or 'additive'"),
    (lambda: ScaledDotProductAttention(scale=0.0), "wrong scale: got 0.0, expected None or a finite number > 0"),
    (lambda: ScaledDotProductAttention(scale=math.inf), "wrong scale: got inf"),
    (lambda: MultiheadAttention(6, 4), "wrong embed_dim: got 6, expected a multiple of num_heads, 4"),
    (lambda: MultiheadAttention(4, 0), "wrong embed_dim: got 4, expected a multiple of num_heads, 0"),
    (lambda: MultiheadAttention(4, 4, num_kv_heads=3), "wrong num_kv_heads: got 3, expected None or a divisor of num_heads, 4"),
    (lambda: MultiheadAttention(4, 4, num_kv_heads=0), "wrong num_kv_heads: got 0"),
    (lambda: RotaryEmbedding(base=0.5), "wrong base: got 0.5, expected a finite number >= 1"),
    (lambda: RotaryEmbedding(base=math.inf), "wrong base: got inf, expected a finite number >= 1"),
])
def test_wrong_options_are_named(make: Callable[[], Any], message: str) -> None:
    """An option that makes no layer is refused with what was got and what was expected."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()


@pytest.mark.parametrize(("layer", "shapes", "message"), [
    (ScaledDotProductAttention(), ((2,), (2,), (2,)), r"got \(2,\), expected a query \(Lq, E\) or \(heads, Lq, E\)"),
    (ScaledDotProductAttention(), ((3, 2), (3, 4), (3, 4)), r"got \(3, 4\), expected a key of shape \('Lk', 2\)"),
    (ScaledDotProductAttention(), ((2, 3, 2), (1, 3, 2), (1, 3, 2)), r"expected a key of shape \(2, 'Lk', 2\)"),
    (ScaledDotProductAttention(), ((3, 2), (4, 2), (3, 2)), r"got \(3, 2\), expected a value of shape \(4, 'Ev'\)"),
    (ScaledDotProductAttention(), ((3, 0), (4, 0), (4, 2)), "no size 0"),
    (MultiheadAttention(4, 2), ((3, 5),), r"got \(3, 5\), expected \(L, 4\)"),
    (ScaledDotProductAttention(), ((2, 3, 2), (2, 3, 2), (2, 3, 0)), r"got \(2, 3, 0\), expected a value of shape \(2, 3, 'Ev'\)"),
    (MultiheadAttention(4, 2), ((0, 4),), r"got \(0, 4\), expected \(L, 4\), L at least 1"),
    (RotaryEmbedding(), ((3, 5),), r"got \(3, 5\), expected \(\.\.\., L, E\) with an even E"),
    (RotaryEmbedding(), ((2, 4, 3),), r"got \(2, 4, 3\), expected \(\.\.\., L, E\) with an even E"),
])
def test_wrong_shapes_are_named(layer: Any, shapes: tuple[Any, ...], message: str) -> None:
    """A shape that the layer cannot take is refused with what was got and what was expected."""
    with pytest.raises(ShapeError, match=message):
        layer.output_shape(*shapes)


def test_a_mask_is_announced_as_what_it_is() -> None:
    """A boolean mask lets most keys be seen, an additive one holds real numbers, and without one there is no constant."""
    shapes = ((2, 3, 4), (2, 5, 4), (2, 5, 1))
    assert ScaledDotProductAttention(mask="boolean").constants(*shapes) == {"attn_mask": Constant((3, 5), "boolean", p=0.75)}
    assert ScaledDotProductAttention(mask="additive").constants(*shapes) == {"attn_mask": Constant((3, 5), "real")}
    assert ScaledDotProductAttention(is_causal=True).constants(*shapes) == {}


def test_what_attention_holds_beside_inputs_and_outputs() -> None:
    """Every query's score of every key, of every head."""
    assert ScaledDotProductAttention().extent((2, 6, 4), (2, 3, 4), (2, 3, 5)) == 2 * 6 * 3
    assert ScaledDotProductAttention().extent((6, 4), (3, 4), (3, 5)) == 6 * 3
