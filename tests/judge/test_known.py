"""Known discrepancies: data that is checked when it is read, explains what it says and nothing else, and goes stale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest
import torch
from backproof.adapters import load, names
from backproof.judge import known
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.comparing import compare
from backproof.judge.directional import DIRECTIONAL
from backproof.judge.known import ENOUGH, Known, KnownList, load_known
from backproof.judge.rules import expected
from backproof.judge.verdicts import VERDICTS
from backproof.reference.case import Case
from backproof.reference.heads import BCEWithLogitsLoss, Head, MSELoss
from backproof.reference.layer import REGISTRY
from backproof.reference.linear import Linear
from backproof.reference.network import Network
from backproof.reference.rounding import BOUND_SLACK, PRECISIONS, Arithmetic, Precision, Rounded, precision_named
from backproof.reference.trace import LayerTrace, Trace
from backproof.reference.values import Values
from backproof.report.report import Report
from backproof.verify.run import Run

FLOAT64 = precision_named("float64")
ENTRY = Known("an-entry", "torch", ("ReLU",), ("dx",), ("wrong",), "because")
WHOLE = 'id = "a"\nlayers = ["ReLU"]\ntensors = ["dx"]\nverdicts = ["wrong"]\nreason = "because"\n'


def step_of(layer: Any, x: Any, target: Any = None) -> LayerTrace:
    x = np.asarray(x, dtype=np.float64)
    inputs = (x,) if target is None else (x, np.asarray(target, dtype=np.float64))
    return LayerTrace("layers.0", layer, inputs, x, (x,), x, {}, {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let known discrepancies be read from a folder of the test."""
    monkeypatch.setattr(known, "files", lambda package: tmp_path)
    load_known.cache_clear()
    yield tmp_path
    load_known.cache_clear()


def test_entries_are_read_from_every_file(folder: Path) -> None:
    """Each file holds the entries of the framework it is named after; lists become tuples, other files are left alone."""
    (folder / "torch.toml").write_text(f'[[known]]\n{WHOLE}above = 1.0\noptions = {{ beta = 2.0 }}\nversions = "<3"\n')
    other = WHOLE.replace('"a"', '"b"')
    (folder / "jax.toml").write_text(f"[[known]]\n{WHOLE}\n[[known]]\n{other}")
    (folder / "empty.toml").write_text("# nothing\n")
    (folder / "notes.txt").write_text("no TOML")
    entries = load_known()
    assert [(entry.framework, entry.id) for entry in entries] == [("jax", "a"), ("jax", "b"), ("torch", "a")]
    assert entries[2] == Known("a", "torch", ("ReLU",), ("dx",), ("wrong",), "because", versions="<3", above=1.0,
                               options={"beta": 2.0})


@pytest.mark.parametrize(("text", "message"), [
    (WHOLE + 'tensor = "dx"\n',
     r"torch\.toml: unknown field: got tensor, expected some of above, adapters, argument, at_most, below, .*, versions"),
    (WHOLE + 'framework = "jax"\n', r"^torch\.toml: unknown field: got framework, expected some of above, "),
    (WHOLE.replace('reason = "because"\n', ""), r"torch\.toml: a: .*'reason'"),
    (WHOLE.replace('id = "a"\n', ""), r"torch\.toml: an entry: .*'id'"),
    (WHOLE.replace('tensors = ["dx"]\n', ""), r"torch\.toml: a: .*'tensors'"),
    (WHOLE.replace('["ReLU"]', '"ReLU"'), r"^torch\.toml: a: layers must be a list: got 'ReLU'$"),
    (WHOLE.replace('["dx"]', '"dx"'), r"^torch\.toml: a: tensors must be a list: got 'dx'$"),
    (WHOLE + 'adapters = "torch"\n', r"^torch\.toml: a: adapters must be a list: got 'torch'$"),
    (WHOLE.replace('["wrong"]', '"wrong"'), r"^torch\.toml: a: verdicts must be a list: got 'wrong'$"),
    (WHOLE + 'precisions = "float32"\n', r"^torch\.toml: a: precisions must be a list: got 'float32'$"),
    (WHOLE.replace('["wrong"]', '["rong"]'), r"^torch\.toml: a: unknown verdicts: got 'rong', expected some of agrees, .*, wrong$"),
    (WHOLE.replace('["ReLU"]', '["Relu"]'), r"^torch\.toml: a: unknown layers: got 'Relu', expected some of AdaptiveAvgPool2d, Add, "),
    (WHOLE + 'precisions = ["float46"]\n', r"^torch\.toml: a: unknown precisions: got 'float46', expected some of bfloat16, .*, tf32$"),
    (WHOLE + 'argument = "sise"\n', r"^torch\.toml: a: unknown argument: got 'sise', expected one of BatchNorm, .*, soft_margin$"),
    (WHOLE + 'versions = "two"\n', r"torch\.toml: a: .*'two'"),
    (WHOLE + f"\n[[known]]\n{WHOLE}", r"torch\.toml: a: .*twice"),
    (WHOLE + "id = \n", r"torch\.toml: "),
], ids=["unknown-field", "framework", "no-reason", "no-id", "no-tensors", "layers-no-list", "tensors-no-list",
        "adapters-no-list", "verdicts-no-list", "precisions-no-list", "verdict", "layer",
        "precision", "argument", "versions", "duplicate", "no-toml"])
def test_a_malformed_entry_is_refused(text: str, message: str, folder: Path) -> None:
    """What is missing, unknown or of the wrong kind is an error that names file, entry and field."""
    (folder / "torch.toml").write_text(f"[[known]]\n{text}")
    with pytest.raises(ValueError, match=message):
        load_known()


def own_tensors(cls: type) -> set[str]:
    """Return the names of what a layer or head produces, over its examples."""
    if issubclass(cls, Head):
        return {"output", "dz"}
    found: set[str] = set()
    for layer, *shapes in cls.examples():
        found |= {*layer.output_names, *(f"d{name}" for name in (*layer.input_names, *layer.parameters(*shapes)))}
        found |= {f"{mode} {name}" for mode in DIRECTIONAL for name in (*layer.input_names, *layer.parameters(*shapes), "dy")}
    return found


@pytest.mark.parametrize("entry", load_known(), ids=lambda entry: entry.id)
def test_the_entries_speak_of_what_exists(entry: Known) -> None:
    """Every entry of the package names layers, options, tensors, verdicts, precisions and adapters that exist, and a reason."""
    assert {entry.framework} <= {name.split(":")[0] for name in names()}
    assert set(entry.adapters) <= set(names())
    assert set(entry.precisions) <= set(PRECISIONS)
    assert set(entry.verdicts) <= set(VERDICTS) - {"agrees", "inconclusive"}
    for layer in entry.layers:
        cls = REGISTRY[layer]
        assert entry.raises or set(entry.tensors) & own_tensors(cls)
        assert set(entry.options) <= {f.name for f in fields(cls)}
    assert set(entry.tensors) <= set.union(*(own_tensors(REGISTRY[layer]) for layer in entry.layers))
    assert entry.above < entry.below
    assert len(entry.reason) > 40
    assert entry.versions


def test_every_id_is_its_own() -> None:
    """No two entries share an id."""
    ids = [entry.id for entry in load_known()]
    assert ids
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("installed", "versions", "covered"), [
    ("2.13.0", "", True),
    ("2.13.0", ">=2.13", True),
    ("2.13.0+cpu", "==2.13.0", True),
    ("2.13.0+cpu", ">=1.6,<2.14", True),
    ("2.14.0", ">=1.6,<2.14", False),
    ("2.13.0", ">2.13.0", False),
    ("2.5.1+cu121", "~=2.5.0", True),
    ("2.6.0a0+git1234", ">=2.5", True),
])
def test_versions_are_a_range(installed: str, versions: str, covered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry holds for the framework versions of its PEP 440 range; local labels do not matter, pre-releases count."""
    monkeypatch.setattr(known, "framework_version", lambda name: {"torch": installed}[name])
    known._in_range.cache_clear()
    assert replace(ENTRY, versions=versions).covers("torch", "float64", step_of(bp.ReLU(), [0.0])) is covered
    known._in_range.cache_clear()


def test_the_installed_versions_are_those_asked_for() -> None:
    """Without a test's help the range is held against the framework that is installed."""
    assert replace(ENTRY, versions=">=2").covers("torch", "float64", step_of(bp.ReLU(), [0.0]))
    assert not replace(ENTRY, versions="<2").covers("torch", "float64", step_of(bp.ReLU(), [0.0]))


@pytest.mark.parametrize(("changes", "adapter", "precision", "layer", "covered"), [
    ({}, "torch", "float64", bp.ReLU(), True),
    ({}, "torch:compile", "float32", bp.ReLU(), True),
    ({}, "torch:compile:cuda", "float32", bp.ReLU(), True),
    ({}, "jax", "float64", bp.ReLU(), False),
    ({}, "torchlike", "float64", bp.ReLU(), False),
    ({}, "torch", "float64", bp.ReLU6(), False),
    ({"precisions": ("float64",)}, "torch", "float64", bp.ReLU(), True),
    ({"precisions": ("float64",)}, "torch", "float32", bp.ReLU(), False),
    ({"adapters": ("torch:func",)}, "torch:func", "float64", bp.ReLU(), True),
    ({"adapters": ("torch:func",)}, "torch", "float64", bp.ReLU(), False),
    ({"layers": ("GELU",), "options": {"approximate": "tanh"}}, "torch", "float64", bp.GELU("tanh"), True),
    ({"layers": ("GELU",), "options": {"approximate": "tanh"}}, "torch", "float64", bp.GELU(), False),
    ({"layers": ("GELU", "ReLU"), "options": {"approximate": "tanh"}}, "torch", "float64", bp.ReLU(), False),
])
def test_an_entry_covers_what_it_names(changes: dict[str, Any], adapter: str, precision: str, layer: Any, covered: bool) -> None:
    """Framework in any mode unless modes are named, layer, options and precision must all fit."""
    assert replace(ENTRY, **changes).covers(adapter, precision, step_of(layer, [0.0])) is covered


X = [[-2.0, -1.0, 0.5], [1.0, 2.0, np.nan]]


@pytest.mark.parametrize(("layer", "shape", "ends", "mask"), [
    (bp.ReLU(), (2, 3), (-1.0, 1.0), [[False, True, True], [True, False, False]]),
    (bp.ReLU(), (2, 3), (-np.inf, -1.5), [[True, False, False], [False, False, False]]),
    (bp.ReLU(), (2, 3), (5.0, np.inf), np.zeros((2, 3), bool)),
    (bp.PReLU(), (1,), (1.5, np.inf), [True]),
    (bp.PReLU(), (1,), (5.0, np.inf), [False]),
    (bp.Softplus(2.0), (2, 3), (2.0, 4.0), [[False, False, False], [True, True, False]]),
])
def test_an_entry_explains_the_arguments_in_its_range(layer: Any, shape: tuple[int, ...], ends: tuple[float, float],
                                                      mask: Any) -> None:
    """Entry by entry the input decides, both ends included, NaN never; a sum is explained by one input in the range."""
    explained = replace(ENTRY, above=ends[0], below=ends[1]).explained(step_of(layer, X), shape, "dx")
    assert explained.dtype == bool
    assert explained.tolist() == np.asarray(mask).tolist()


def test_a_gated_layer_is_judged_by_its_gate() -> None:
    """The gate of a gated unit decides for its output, and for both halves of its input's gradient."""
    entry = replace(ENTRY, above=1.0)
    x = [[0.0, 5.0, 2.0, 0.0]]
    assert entry.explained(step_of(bp.GLU(), x), (1, 2), "dx").tolist() == [[True, False]]
    assert entry.explained(step_of(bp.GLU(), x), (1, 4), "dx").tolist() == [[True, False, True, False]]
    assert entry.explained(step_of(bp.SwiGLU(), x), (1, 2), "dx").tolist() == [[False, True]]
    assert entry.explained(step_of(bp.SwiGLU(), x), (1, 4), "dx").tolist() == [[False, True, False, True]]


def test_a_cross_entropy_is_judged_from_the_targets_side() -> None:
    """A logit counts as positive where it lies on its target's side."""
    step = step_of(BCEWithLogitsLoss(), [[3.0, -3.0, 3.0, -3.0]], [[1.0, 1.0, 0.0, 0.0]])
    assert replace(ENTRY, above=1.0).explained(step, (1, 4), "dx").tolist() == [[True, False, False, True]]
    assert replace(ENTRY, above=1.0).explained(step, (), "dx").tolist() is True


def certificate(tensor: str = "dx") -> Certificate:
    """Return a certificate on three entries outside, by 1, 2 and 3 parts in ten, and three that are right."""
    truth = Rounded(np.full((2, 3), 10.0), np.full((2, 3), 0.5), Arithmetic(FLOAT64))
    edge = 10 + 0.5 * BOUND_SLACK
    return compare(step_of(bp.ReLU(), X), tensor, np.array([[11.0, 12.0, edge], [13.0, 10.0, 10.25]]), truth, FLOAT64)


def test_only_what_is_outside_is_excused() -> None:
    """An entry is excused where it is outside and in the range, and the discrepancies met are returned."""
    inside = replace(ENTRY, above=-1.5, below=1.5)
    elsewhere = replace(ENTRY, id="elsewhere", above=100.0)
    excused, met = KnownList((inside, elsewhere)).explain("torch", "float64", step_of(bp.ReLU(), X), "wrong", certificate())
    assert excused.tolist() == [[False, True, False], [True, False, False]]
    assert met == [inside]


def test_entries_excuse_what_any_of_them_explains() -> None:
    """Two entries that each explain some places excuse both, and are both met."""
    low, high = replace(ENTRY, below=-0.5), replace(ENTRY, id="high", above=0.75)
    excused, met = KnownList((low, high)).explain("torch", "float64", step_of(bp.ReLU(), X), "wrong", certificate())
    assert excused.tolist() == [[True, True, False], [True, False, False]]
    assert met == [low, high]


def test_a_query_is_judged_by_the_keys_it_sees() -> None:
    """The tensor says what its entries depend on: an attention's output row by row on the keys that its query sees."""
    x = np.zeros((1, 3, 2))
    step = LayerTrace("layers.0", bp.ScaledDotProductAttention(is_causal=True), (x, x, x), x, (x, x, x), x, {}, {})
    entry = replace(ENTRY, layers=("ScaledDotProductAttention",), tensors=("output", "dvalue"), above=2.0)
    for tensor, rows in (("output", [False, True, True]), ("dvalue", [True] * 3)):
        found = compare(step, tensor, x + 1, Arithmetic(FLOAT64).exact(x), FLOAT64)
        assert KnownList((entry,)).explain("torch", "float64", step, "wrong", found)[0].tolist() == [[[row] * 2 for row in rows]]


def test_no_more_than_the_known_error_is_excused() -> None:
    """An entry that is off by more than the discrepancy is known for is not excused."""
    known_for = replace(ENTRY, at_most=0.25)
    excused, met = KnownList((known_for,)).explain("torch", "float64", step_of(bp.ReLU(), X), "wrong", certificate())
    assert excused.tolist() == [[True, True, False], [False, False, False]]
    assert met == [known_for]


@pytest.mark.parametrize(("adapter", "tensor", "verdict"), [("torch", "output", "wrong"), ("torch", "dx", "imprecise"),
                                                            ("torch", "dx", "nonfinite"), ("jax", "dx", "wrong")])
def test_nothing_else_is_excused(adapter: str, tensor: str, verdict: str) -> None:
    """Another framework, tensor or verdict than the entry's is not excused."""
    excused, met = KnownList((ENTRY,)).explain(adapter, "float64", step_of(bp.ReLU(), X), verdict, certificate(tensor))
    assert not excused.any()
    assert met == []


def test_an_entry_that_matches_nothing_goes_stale() -> None:
    """An entry is stale once the layer was compared often enough in its range and it explained nothing; met once, it is not."""
    entries = KnownList((replace(ENTRY, above=1.0), replace(ENTRY, id="met", above=1.0), replace(ENTRY, id="never", above=100.0)))
    reached: Counter[str] = Counter()
    for count in range(ENOUGH):
        assert entries.stale(reached, Counter({"met": 1})) == (), count
        reached.update(entries.reached("torch", "float64", step_of(bp.ReLU(), X)))
    assert reached == {"an-entry": ENOUGH, "met": ENOUGH}
    assert entries.stale(reached, Counter({"met": 1})) == ("an-entry",)
    assert entries.reached("jax", "float64", step_of(bp.ReLU(), X)) == []


@pytest.mark.parametrize(("limits", "explained"), [
    ({}, "yyyyyyy"), ({"at_most": 0.25}, "yynynyn"), ({"at_most": 0.25, "truth_below": 1.0}, "yynyyyn"),
    ({"at_most": 0.25, "truth_below": 1.5}, "yyyyyyn"),
])
def test_an_entry_explains_errors_of_a_certain_size(limits: dict[str, Any], explained: str) -> None:
    """Relative to the true value, the limit included and NaN not, but for what is small in truth."""
    value = np.array([4.0, -1.0, 1.0, 2.0, 0.0, -8.0, np.inf])
    error = np.array([0.5, 0.25, 0.5, -0.5, 0.75, 2.0, 0.0])
    for scale in (1, 2.0**-8) if "truth_below" not in limits else (1,):
        actual = ((value + error) * scale).astype(np.float32)
        ball = Arithmetic(FLOAT64).exact(value * scale)
        found = replace(ENTRY, **limits).small_enough(actual, ball, _rounded(step_of(bp.ReLU(), X)))
        assert "".join("y" if entry else "n" for entry in found) == explained


def test_an_entry_explains_what_a_coarser_precision_holds() -> None:
    """float64 numbers computed in float32 are explained, beyond float32's range whatever they are; a mistake is not, nor is NaN."""
    layer, entry = bp.Softmax(), replace(ENTRY, layers=("Softmax",), held_in="float32")
    x = np.array([[1.0, 2.0, 3.0], [-7.0, 0.5, 4.0]])
    step = step_of(layer, x)
    right = _rounded(step)(FLOAT64)
    single = np.exp(x.astype(np.float32) - np.float32(4))
    single /= single.sum(axis=1, keepdims=True)
    assert (np.abs(single - right.value) > right.radius()).any()
    assert entry.small_enough(single.astype(np.float64), right, _rounded(step)).all()
    for wrong in (right.value * (1 + 1e-4), np.full((2, 3), np.nan)):
        assert not entry.small_enough(wrong, right, _rounded(step)).any()
    large = step_of(bp.Softplus(), np.full((1, 3), 1e300))
    assert entry.small_enough(np.full((1, 3), np.inf), _rounded(large)(FLOAT64), _rounded(large)).all()


def test_the_bound_of_a_coarser_precision_ends_what_is_explained() -> None:
    """Its edge belongs to it, where it overflows anything is explained, and a limit of the error holds besides."""
    truth, actual = Rounded(np.ones(4), np.zeros(()), Arithmetic(FLOAT64)), np.array([1.0, 1.0, 7.0, 1.5])
    edge = 1 - 0.5 * BOUND_SLACK
    coarse = Rounded(np.array([edge, edge - 2.0**-40, np.inf, 1.0]), np.array([0.5, 0.5, 1.0, 1.0]), Arithmetic(FLOAT64))
    for limits, explained in (({}, [True, False, True, True]), ({"at_most": 0.25}, [True, False, False, False])):
        entry = replace(ENTRY, held_in="float32", **limits)
        assert entry.small_enough(actual, truth, lambda precision: coarse).tolist() == explained
        assert entry.small_enough(np.full(4, 1.0), truth, lambda precision: coarse).tolist() == [True, False, True, True]


def test_an_entry_finds_out_what_a_coarser_precision_holds() -> None:
    """Where nobody says how another precision has a tensor rounded, the layer's own rule does, on the same numbers."""
    step = step_of(bp.Softmax(), [[1.0, 2.0, 3.0], [-7.0, 0.5, 4.0]])
    right = _rounded(step)(FLOAT64)
    entry = replace(ENTRY, layers=("Softmax",), tensors=("output",), held_in="float32")
    for part, explained in ((2.0**-26, True), (2.0**-12, False)):
        found = compare(step, "output", right.value * (1 + part), right, FLOAT64)
        excused, met = KnownList((entry,)).explain("torch", "float64", step, "wrong", found)
        assert (excused.all(), excused.any(), met) == (explained, explained, [entry] * explained)


def _rounded(step: LayerTrace) -> Callable[[Precision], Rounded]:
    return lambda precision: expected(step, Arithmetic(precision))["output"]


@pytest.mark.parametrize(("ends", "shows", "shown"), [
    ((-1.0, 1.0), (-np.inf, np.inf), True), ((5.0, 6.0), (-np.inf, np.inf), False), ((-1.0, 2.0), (1.5, np.inf), True),
    ((-1.0, 1.0), (1.5, np.inf), False), ((-1.0, 2.0), (-np.inf, -1.0), True), ((-1.0, 2.0), (-np.inf, -1.5), False),
    ((-np.inf, np.inf), (np.inf, np.inf), False), ((-np.inf, np.inf), (3.0, np.inf), True),
])
def test_an_entry_shows_where_both_ranges_meet(ends: tuple[float, float], shows: tuple[float, float], shown: bool) -> None:
    """Its absence says something where an input lies in its range and where it must show; one that never must, never shows."""
    entry = replace(ENTRY, above=ends[0], below=ends[1], shows_above=shows[0], shows_below=shows[1])
    assert entry.shows(step_of(bp.ReLU(), [[-2.0, -1.0, 0.5], [1.0, 2.0, 9.0]])) is shown
    assert entry.shows(step_of(bp.ReLU(), [[-2.0, -1.0, 0.5], [np.inf, 2.0, 9.0]])) is shown


def test_an_entry_shows_by_the_argument_that_it_names() -> None:
    """Of an entry that depends on how large an input is, the sign of the input says nothing."""
    entry = replace(ENTRY, above=1.0, shows_above=3.0)
    assert [replace(entry, argument=name).shows(step_of(bp.ReLU(), [[-4.0, 2.0]])) for name in ("", "Softsign")] == [False, True]


def test_only_an_entry_for_gradients_of_the_input_is_looked_for() -> None:
    """Whether an entry shows is told from `dx` or `dz`; a tensor that sums may hide it."""
    entries = KnownList(tuple(replace(ENTRY, id=str(i), layers=("ReLU", "MSELoss"), tensors=tensors)
                              for i, tensors in enumerate([("dx",), ("dz", "output"), ("output",), ("dweight",)])))
    assert entries.reached("torch", "float64", step_of(bp.ReLU(), X)) == ["0", "1"]
    assert entries.reached("torch", "float64", step_of(bp.ReLU6(), X)) == []
    single = KnownList((replace(ENTRY, precisions=("float32",)),))
    assert (single.reached("torch", "float32", step_of(bp.ReLU(), X)), single.reached("torch", "float64", step_of(bp.ReLU(), X))) == (
        ["an-entry"], [])


def test_a_lost_projection_is_explained_for_long_vectors_alone() -> None:
    """torch's own gradient of a pair of lengths 5e7 and 3e10 has lost its projection term; one as far off at length 1 is a mistake."""
    layer, entry = bp.CosineEmbeddingLoss(), next(e for e in load_known() if e.id == "torch-cosine-embedding-long-vectors")
    target = np.ones(1, np.float32)
    for scale, explained in ((3e9, True), (1.0, False)):
        pair = np.array([[[0.02, 1e-8, 0.01], [1e-6, 10.0, -4e-7]]]) * scale
        z = pair.astype(np.float32)
        u, v = torch.tensor(z, requires_grad=True).unbind(1)
        loss = torch.nn.functional.cosine_embedding_loss(u, v, torch.tensor(target))
        dz = torch.stack(torch.autograd.grad(loss, (u, v)), 1).numpy() * np.float32(1.0 if explained else 1.01)
        step = LayerTrace("head", layer, (z, target), np.float32(0), (dz,), np.float32(1), {}, {})
        found = next(c for c in certify_layer(step, precision_named("float32")) if c.tensor == "dz")
        assert found.verdict == "outside"
        excused, met = KnownList((entry,)).explain("torch", "float32", step, "imprecise", found)
        assert bool(excused.any()) is bool(met) is explained


def test_an_orthogonal_pair_has_no_projection_to_lose() -> None:
    """What is off in the gradient of a pair at right angles is a mistake, however long it is."""
    layer, entry = bp.CosineEmbeddingLoss(), next(e for e in load_known() if e.id == "torch-cosine-embedding-long-vectors")
    z, target = np.array([[[3e9, 0.0], [0.0, 2e9]]], np.float32), np.ones(1, np.float32)
    step = LayerTrace("head", layer, (z, target), np.float32(0), (z,), np.float32(1), {}, {})
    assert not entry.explained(step, z.shape, "dz").any()


def test_a_certificate_without_its_tensors_cannot_be_explained() -> None:
    """Without the numbers, or the truth, there is nothing to compare with an entry."""
    for kept in ({"actual": None}, {"ball": None}):
        with pytest.raises(ValueError, match="dx: a certificate without its tensors cannot be explained"):
            KnownList((ENTRY,)).explain("torch", "float64", step_of(bp.ReLU(), X), "wrong", replace(certificate(), **kept))


@pytest.mark.parametrize(("changes", "adapter", "layers", "message", "explained"), [
    ({"raises": "no kernel"}, "torch", (bp.GELU(), bp.ReLU()), "there is no kernel for it", True),
    ({"raises": "no kernel"}, "torch", (bp.GELU(),), "there is no kernel for it", False),
    ({"raises": "no kernel"}, "torch", (bp.ReLU(),), "out of memory", False),
    ({"raises": "no kernel"}, "jax", (bp.ReLU(),), "there is no kernel for it", False),
    ({"raises": "no kernel", "precisions": ("float32",)}, "torch", (bp.ReLU(),), "no kernel", False),
    ({"raises": "no kernel", "precisions": ("float64",)}, "torch", (bp.ReLU(),), "no kernel", True),
    ({}, "torch", (bp.ReLU(),), "there is no kernel for it", False),
])
def test_an_entry_explains_an_exception(changes: dict[str, Any], adapter: str, layers: tuple[Any, ...], message: str,
                                        explained: bool) -> None:
    """Its words must be in the message, and its layer in the network; an entry without words explains none."""
    entry = replace(ENTRY, **changes)
    found = KnownList((replace(ENTRY, id="other"), entry)).raised(adapter, "float64", layers, message)
    assert found is (entry if explained else None)


def test_the_entries_of_the_package_are_the_usual_list() -> None:
    """Where no entries are given they are those that are read; an empty list is empty."""
    assert KnownList().entries == load_known() != ()
    assert KnownList(()).entries == ()


@dataclass(frozen=True)
class At(Case):
    """A case whose input holds the given points, over and over."""

    points: tuple[float, ...] = (0.0,)

    def values(self) -> Values:
        values = super().values()
        return replace(values, x=np.resize(np.asarray(self.points), values.x.shape).astype(values.x.dtype))


class Doubled:
    """Torch with the gradients of one layer doubled where its input lies in a range, under the name of torch itself."""

    name = "torch"

    def __init__(self, layer: str, above: float = -np.inf, below: float = np.inf) -> None:
        self.layer, self.above, self.below = layer, above, below

    def run(self, case: Case) -> Trace:
        trace = load("torch").run(case)
        return replace(trace, layers=tuple(self.changed(step) for step in trace.layers))

    def changed(self, step: LayerTrace) -> LayerTrace:
        if type(step.layer).__name__ != self.layer:
            return step
        x, dx = step.inputs[0], step.d_inputs[0]
        dx = np.where((x > self.above) & (x < self.below), 2 * dx, dx)
        return replace(step, d_inputs=(dx.astype(step.output.dtype),))


def report_of(adapter: Any, layer: Any, *points: float, precisions: tuple[str, ...] = ("float64",)) -> Report:
    run = Run([adapter], 1, 0, precisions, None, None)
    run.examine(At(Network((4,), (layer,), Head("linear", "half_squared_error", "sum")), 1, points=points))
    run.shrink()
    return run.report()


@pytest.mark.parametrize(("layer", "points", "tensors"), [
    (bp.Hardsigmoid(), (0.5, -1.0, 5.0, 2.0), {"dx"}),
    (bp.Softplus(), (20.5, 1.0, 22.0, -3.0), {"output", "dx"}),
    (bp.GELU(), (-8.0, -5.0, 1.0, -6.0), {"output", "dx"}),
])
def test_a_known_discrepancy_is_not_held_against_the_run(layer: Any, points: tuple[float, ...], tensors: set[str]) -> None:
    """What torch is known for is counted with its reason, apart from the findings, and the run is ok."""
    report = report_of("torch", layer, *points)
    assert report.findings == ()
    assert {finding.tensor for finding in report.known} == tensors
    assert {finding.known for finding in report.known} <= {entry.reason for entry in load_known()}
    assert report.ok


@pytest.mark.parametrize(("layer", "points"), [
    (bp.Hardsigmoid(), (0.5, -1.0, 5.0, 2.0)),
    (bp.Softplus(), (20.5, 25.0, 22.0, 30.0)),
    (bp.CELU(0.7), (-0.5, -1.0, -2.0, 0.5)),
])
def test_a_known_discrepancy_hides_no_other_mistake(layer: Any, points: tuple[float, ...]) -> None:
    """Where torch is known to be off by a few digits, a gradient of twice the size is still a finding."""
    report = report_of(Doubled(type(layer).__name__), layer, *points)
    assert [(finding.tensor, finding.verdict) for finding in report.findings] == [("dx", "wrong")]
    assert not report.ok


def test_a_known_discrepancy_hides_no_mistake_beside_it() -> None:
    """In a tensor with known entries one that is wrong outside of their range is a finding, and is the one named."""
    report = report_of(Doubled("Softplus", above=19.0, below=20.0), bp.Softplus(), 20.5, 19.5, -1.0, 1.0)
    (finding,) = report.findings
    assert (finding.tensor, finding.verdict) == ("dx", "wrong")
    assert finding.step is not None
    assert float(finding.step.inputs[0][finding.index]) == 19.5


def test_the_run_says_what_is_stale() -> None:
    """An entry that torch no longer shows is named by the report after enough comparisons in its range."""
    run = Run(["torch"], 1, 0, ("float64",), None, None)
    run.examiner.known = KnownList((Known("gone", "torch", ("Linear",), ("dx",), ("wrong",), "because"),))
    for seed in range(ENOUGH):
        run.examine(Case(Network((2,), (Linear(2),), MSELoss()), seed))
    assert run.examiner.known.stale(run.ledger.reached, run.ledger.met) == ("gone",)
