"""The tensors of a finding as named arrays for its folder, and back, so that the page of a campaign that went on has its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.draw.probe import Probe
from backproof.judge.certificate import END_TO_END, Certificate
from backproof.judge.directional import DIRECTIONAL, tangents_named
from backproof.reference.case import Case
from backproof.reference.heads import Head
from backproof.reference.rounding import BOUND_SLACK, Arithmetic, Rounded, precision_named, quiet
from backproof.reference.trace import HEAD_PATH, LayerTrace
from backproof.report.finding import Finding

__all__ = ["arrays_of", "inputs_of", "with_arrays", "with_layer"]

PARAM = "param_"
JUDGED = {"wrong": "outside", "imprecise": "outside"}  # verdicts of findings that certificates call otherwise


def arrays_of(finding: Finding) -> dict[str, np.ndarray]:
    """Return the arrays of a finding: what went in, what came out at one tensor, what was expected and the bound."""
    step, certificate = finding.step, finding.certificate
    if step is None or certificate is None or certificate.actual is None or certificate.ball is None:
        return {}
    arrays = {**dict(zip(inputs_of(step.layer), step.inputs, strict=True)), **dict(zip(step.upstream_names, step.d_outputs, strict=True)),
              **{f"{PARAM}{name}": p for name, p in step.params.items()}, "actual": certificate.actual,
              "expected": certificate.ball.value, "bound": np.asarray(certificate.ball.radius())}
    if isinstance(finding.case, Probe) and finding.case.condition.mode in DIRECTIONAL:
        arrays |= {f"along_{name}": v for name, v in tangents_named(step.layer, finding.case.call()).items()}
    # bfloat16 has no NumPy type of its own: every bfloat16 is a float32
    return {name: a.astype(np.float32) if a.dtype.kind == "V" or a.dtype.name == "bfloat16" else a for name, a in arrays.items()}


def with_layer(finding: Finding) -> Finding:
    """Return a finding with the layer that its case has at its path, where it has one; without any numbers."""
    layer = _layer(finding)
    return finding if layer is None else replace(finding, step=LayerTrace(finding.path, layer, (), (), (), (), {}, {}))


def with_arrays(finding: Finding, arrays: Mapping[str, np.ndarray]) -> Finding:
    """Return a finding with the numbers that `arrays_of` gave of it; raise ValueError or KeyError for those of something else."""
    layer, (value, radius, actual) = _layer(finding), (arrays[name] for name in ("expected", "bound", "actual"))
    if layer is None or not value.shape == radius.shape == actual.shape or np.ndim(value[finding.index]):
        raise ValueError(f"{finding.title}: the tensors are not those of the finding")
    upstream = tuple(arrays[f"d{name}"] for name in layer.output_names) if "dy" not in arrays else arrays["dy"]
    params = {name.removeprefix(PARAM): array for name, array in arrays.items() if name.startswith(PARAM)}
    step = LayerTrace(finding.path, layer, tuple(arrays[name] for name in inputs_of(layer)), (), (), upstream, params, {})
    ball = Rounded(value, _bound(radius), Arithmetic(precision_named(finding.precision)))
    verdict = JUDGED.get(finding.verdict, finding.verdict)
    tensor, whole = finding.tensor.removeprefix(END_TO_END), finding.tensor.startswith(END_TO_END)
    certificate = Certificate(finding.path, layer, tensor, verdict, finding.entries[1], excess=finding.excess, index=finding.index,
                              actual=actual, ball=ball, end_to_end=whole)
    return replace(finding, step=step, certificate=certificate)


def inputs_of(layer: Any) -> tuple[str, ...]:
    """Return what the inputs of a layer or head are called in scripts and files."""
    return ("x", "target") if isinstance(layer, Head) else tuple(layer.input_names)


def _layer(finding: Finding) -> Any:
    if not isinstance(finding.case, Case):
        return None
    network = finding.case.network
    return network.head if finding.path == HEAD_PATH else next((s.layer for s in network.steps if s.path == finding.path), None)


def _bound(radius: np.ndarray) -> np.ndarray:
    """Return the bound of which this is the radius, to the last bit."""
    with quiet():
        near = radius / BOUND_SLACK
        choices = (near, np.nextafter(near, 0), np.nextafter(near, np.inf))
        return np.select([choice * BOUND_SLACK == radius for choice in choices], choices, near)
