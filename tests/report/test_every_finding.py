"""Whatever is found, of whatever shape, is printed by every renderer; a fault of ours on the way there costs the part, not the finding."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import backproof as bp
import numpy as np
import pytest
from backproof.judge.certificate import Certificate
from backproof.judge.certify import certify_layer
from backproof.judge.diagnosis import Diagnosis
from backproof.judge.judgement import Judgement, judge
from backproof.judge.mistakes.general import MISTAKES as GENERAL
from backproof.judge.rules import expected_plain
from backproof.reference.heads import Head
from backproof.reference.layer import Layer
from backproof.reference.rounding import precision_named
from backproof.reference.trace import LayerTrace
from backproof.report import disk
from backproof.report.finding import Finding
from backproof.report.report import Report
from backproof.report.terminal import render, render_html

FLOAT64 = precision_named("float64")
FAULT = "by a fault of backproof's own"
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Entrywise(Layer):
    """The test's own layer of several inputs and outputs: output j is s (j + 1) times the product of the inputs, plus their squares."""

    inputs: int = 1
    outputs: int = 1

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("x",) if self.inputs == 1 else NAMES[: self.inputs]

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("output", "second", "third")[: self.outputs]

    def parameters(self, *shapes: Any) -> Any:
        return {"s": ()}

    def output_shape(self, *shapes: Any) -> Any:
        return shapes[0] if self.outputs == 1 else (shapes[0],) * self.outputs

    def forward(self, params: Any, *xs: Any) -> tuple[Any, Any]:
        s, product = params["s"], xs[0]
        for x in xs[1:]:
            product = product * x
        one = [product * (s * (j + 1)) + xs[0] * xs[0] for j in range(self.outputs)]

        def backward(*dys: Any) -> tuple[Any, Any]:
            weighted = sum((dy * (j + 1) for j, dy in enumerate(dys[1:], 1)), dys[0])
            dxs = []
            for i in range(len(xs)):
                others = weighted
                for k, x in enumerate(xs):
                    others = others if k == i else others * x
                dxs.append(others * s + (xs[0] * 2 * sum(dys[1:], dys[0]) if i == 0 else others * 0))
            ds = (weighted * product).sum()
            return (tuple(dxs) if len(dxs) > 1 else dxs[0]), {"s": ds}

        return (one[0] if self.outputs == 1 else tuple(one)), backward


def with_numbers(step: LayerTrace, numbers: dict[str, Any]) -> LayerTrace:
    """Return a step that produced these numbers."""
    layer = step.layer
    outputs = tuple(np.asarray(numbers[name]) for name in layer.output_names)
    gradients = tuple(np.asarray(numbers[f"d{name}"]) for name in layer.input_names)
    return replace(step, output=outputs if len(outputs) > 1 else outputs[0], d_inputs=gradients,
                   d_params={name: np.asarray(numbers[f"d{name}"]) for name in step.params})


def entrywise(axes: int, inputs: int, outputs: int) -> LayerTrace:
    """Return a right step of the test's layer, of three examples (of one number for no axes)."""
    rng, shape = np.random.default_rng(axes), (3, 2, 2, 3)[:axes]
    xs, dys = (tuple(rng.normal(size=shape) for _ in range(n)) for n in (inputs, outputs))
    if not axes:  # a batch of numbers: nothing but the batch axis
        xs, dys = (tuple(rng.normal(size=(1,)) for _ in range(n)) for n in (inputs, outputs))
    bare = LayerTrace("layers.0", Entrywise(inputs, outputs), xs, (), (), dys if len(dys) > 1 else dys[0], {"s": np.array(1.7)}, {})
    return with_numbers(bare, expected_plain(bare))


def findings_of(step: LayerTrace) -> list[Finding]:
    """Return the findings of every general mistake, of other numbers, NaN, and a wrong shape, in every tensor of a step."""
    right = expected_plain(step)
    found: list[Finding] = []
    for tensor in right:
        made = {m.code: m.wrong(step, tensor, expected_plain) for m in GENERAL}
        rng = np.random.default_rng(1)
        made |= {"other": rng.normal(size=right[tensor].shape), "nan": right[tensor] * np.nan, "shape": np.zeros((5, 5, 1))}
        for wrong in (one for one in made.values() if one is not None):
            bad = with_numbers(step, right | {tensor: np.array(wrong, dtype=float)})
            failed = [c for c in certify_layer(bad, FLOAT64) if c.failed]
            judged = [judge(c, bad, FLOAT64, tell_apart=lambda _: "wrong") for c in failed]
            found += [Finding.of(one, subject="numpy:mine", precision="float64", case=None) for one in judged]
    return found


def written(found: list[Finding], folder: Path) -> str:
    """Return all that the renderers say of some findings, and what they write."""
    report = Report(findings=tuple(found))
    path = report.save(folder)
    json.loads((path / "report.json").read_text(encoding="utf-8"))
    files = [file.read_text(encoding="utf-8") for file in path.rglob("*") if file.suffix in {".md", ".html", ".json", ".py"}]
    return "\n".join([render(report), render_html(report), *files])


@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("inputs", [1, 2, 3])
@pytest.mark.parametrize("axes", [0, 1, 2, 3, 4])
def test_every_finding_is_printed(axes: int, inputs: int, outputs: int, tmp_path: Path) -> None:
    """Every mistake in every tensor is found, and text, Markdown, page, script and JSON are made without a fault."""
    found = findings_of(entrywise(axes, inputs, outputs))
    assert {f.tensor for f in found} >= {*Entrywise(inputs, outputs).output_names, "ds"}
    assert FAULT not in written(found, tmp_path)


def test_a_finding_of_a_number_is_printed(tmp_path: Path) -> None:
    """The loss of a head, a single number without axes, is a finding like another."""
    z, target = np.array([[0.3, -1.2], [0.7, 0.1]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    head = Head("softmax", "cross_entropy", "mean")
    bare = LayerTrace("head", head, (z, target), (), (), np.array(1.0), {}, {})
    right = expected_plain(bare)
    for loss in (right["output"] * 2, np.float64(np.nan), right["output"] + 0.123):
        bad = replace(bare, output=np.asarray(loss), d_inputs=(right["dz"],))
        failed = [c for c in certify_layer(bad, FLOAT64) if c.failed]
        found = [Finding.of(judge(c, bad, FLOAT64, tell_apart=lambda _: "wrong"), subject="numpy:mine", precision="float64", case=None)
                 for c in failed]
        assert found
        assert FAULT not in written(found, tmp_path)


# A fault of ours.


class BrokenError(RuntimeError):
    """What a faulty part of the harness raises in these tests."""


def raising(*_: Any, **__: Any) -> Any:
    raise BrokenError("broken")


def test_a_fault_in_the_diagnosis_keeps_the_finding() -> None:
    """A finding whose diagnosis fails is there, and says so; one that cannot be told from imprecise is wrong."""
    step = entrywise(2, 1, 1)
    bad = replace(step, d_inputs=(step.d_inputs[0] * 3,))
    (failed,) = (c for c in certify_layer(bad, FLOAT64) if c.failed)
    judgement = judge(failed, bad, FLOAT64, tell_apart=raising, explain=raising)
    assert judgement.verdict == "wrong"
    assert judgement.diagnosis == Diagnosis("unknown", f"not diagnosed, {FAULT}: BrokenError: broken")


@pytest.mark.parametrize("part", ["arrays_of", "script"])
def test_a_fault_in_a_file_keeps_the_report(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is whole without the part, which says why it is not there."""
    found = findings_of(entrywise(1, 1, 1))[:1]
    monkeypatch.setattr("backproof.report.repro._of_layer" if part == "script" else f"{disk.__name__}.{part}", raising)
    said = written(found, tmp_path)
    assert FAULT in said
    assert found[0].diagnosis.sentence in said


def test_a_fault_in_a_picture_keeps_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page and terminal show the rest."""
    found = findings_of(entrywise(2, 1, 1))
    monkeypatch.setattr("backproof.report.page.heat_map", raising)
    monkeypatch.setattr("backproof.report.excess.levels_of", raising)
    said = written(found, tmp_path)
    assert f"not shown in full, {FAULT}" in said.replace("&#39;", "'")
    assert f"no map of the entries, {FAULT}" in said


def test_a_fault_in_the_search_for_a_simpler_probe_keeps_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check whose shrinking fails reports what it found."""
    monkeypatch.setattr(import_module("backproof.check.simplest"), "shrink", raising)
    report = bp.check(lambda x: (x * x, lambda dy: (3 * x * dy, {})), None, framework="numpy", cases=3)
    assert [f.verdict for f in report.findings if f.tensor == "dx"] == ["wrong"]
    assert f"not brought to a simpler case, {FAULT}" in report.findings[0].diagnosis.sentence


def test_the_derivative_at_the_output_is_of_one_input() -> None:
    """With two inputs of which one equals the output's shape no other rule is tried on too few of them."""
    step = entrywise(2, 2, 1)
    mistake = next(m for m in GENERAL if m.code == "derivative-at-output")
    assert mistake.wrong(step, "dx", expected_plain) is None
    assert isinstance(Judgement(Certificate("", step.layer, "dx", "error", 0), step, "error", raising).diagnosis, Diagnosis)
