"""A stand-alone script that shows one finding with nothing but NumPy and the framework."""

from __future__ import annotations

import inspect
import json
from typing import Any

import jinja2
import numpy as np
from backproof.draw.probe import Probe
from backproof.judge.directional import DIRECTIONAL, place_of, tangents_named
from backproof.reference.heads import Head
from backproof.reference.layer import describe
from backproof.reference.trace import LayerTrace
from backproof.report.finding import Finding

__all__ = ["script"]

INLINE = 64  # numbers written into the script itself; larger arrays are read from tensors.npz beside it


def script(finding: Finding, templates: jinja2.Environment) -> str:
    """Return the source of repro.py: it rebuilds the numbers, prints both and the bound, and exits 1 while they differ."""
    step, certificate = finding.step, finding.certificate
    if step is None or certificate is None or certificate.ball is None:
        raise ValueError(f"{finding.title}: a finding without its tensors has no reproduction")
    if isinstance(finding.case, Probe):
        return _of_candidate(finding, finding.case, step, templates)
    framework = finding.adapter.split(":")[0]
    whole = finding.tensor.startswith("end-to-end")  # no single layer shows it
    call, source = ("", "") if whole else finding.lowering
    head = isinstance(step.layer, Head)
    names = ("x", "target") if head else step.layer.input_names
    inputs = dict(zip(names, step.inputs, strict=True))
    upstream = {"dy" if len(step.d_outputs) == 1 else f"d{name}": dy
                for name, dy in zip(("dy",) if head else step.layer.output_names, step.d_outputs, strict=True)}
    arrays = inputs | upstream | {f"param_{k}": p for k, p in step.params.items()}
    tensor = finding.tensor.removeprefix("end-to-end ")
    context: dict[str, Any] = {
        "finding": finding, "framework": framework if source else "", "compiled": finding.adapter.endswith((":jit", ":compile")),
        "source": source.rstrip(), "call": call,
        "options": {k: v for k, v in describe(step.layer).items() if k != "type"}, "is_head": head, "tensor": tensor,
        "arrays": {k: (_literal(k, a), _dtype(a, finding.precision)) for k, a in arrays.items()},
        "inputs": [n for n in names if n != "target"], "upstream": list(upstream), "params": list(step.params),
        "output": 0 if tensor not in step.layer.output_names else step.layer.output_names.index(tensor),
        "is_output": tensor in step.layer.output_names,
        "from_file": any(a.size > INLINE for a in arrays.values()), "dtype": finding.precision.replace("tf32", "float32"),
        "index": finding.index, "expected": finding.expected, "bound": finding.bound, "sentence": json.dumps(finding.diagnosis.sentence),
    }
    return templates.get_template("repro.py.j2").render(context)


def _of_candidate(finding: Finding, probe: Probe, step: LayerTrace, templates: jinja2.Environment) -> str:
    """Return the script of a finding about a candidate, which it imports or asks for."""
    head = isinstance(step.layer, Head)
    names = ("x", "target") if head else step.layer.input_names
    outputs = ("dy",) if len(step.d_outputs) == 1 else tuple(f"d{name}" for name in step.layer.output_names)
    theirs = {theirs: mine for mine, theirs in probe.names}
    module, _, name = probe.candidate.partition(":")
    real = [n for n, x in zip(names, step.inputs, strict=True) if x.dtype.kind not in "iub" and n != "target"]
    context: dict[str, Any] = {
        "finding": finding, "probe": probe, "module": module, "name": name, "framework": probe.framework, "inputs": list(names),
        "real": real, "params": {n: theirs.get(n, n) for n in step.params}, "trained": [n for n in step.params if n in step.d_params],
        "upstream": list(outputs), "alone_head": head and step.d_outputs[0].ndim == 0,
        "tensor": "dx" if finding.tensor == "dz" else finding.tensor, "dtype": finding.precision,
        "output": 0 if finding.tensor not in step.layer.output_names else step.layer.output_names.index(finding.tensor),
        "is_output": finding.tensor in step.layer.output_names,
        "along": {}, "layouts": _layouts(probe) if probe.framework == "torch" else {}, "sentence": json.dumps(finding.diagnosis.sentence),
    }
    if probe.condition.mode in DIRECTIONAL:
        context |= _along(finding, probe, list(names))
    return templates.get_template("candidate.py.j2").render(context)


def _along(finding: Finding, probe: Probe, names: list[str]) -> dict[str, Any]:
    """Return what the script says of a derivative along directions."""
    call = probe.call()
    key, number = place_of(probe.layer, call, finding.tensor)
    arrays = {place: names[place] if isinstance(place, int) else place for place in call.tangents}
    along = dict(zip(tangents_named(probe.layer, call), arrays.values(), strict=True))
    return {"along": along, "of": "" if key is None else arrays[key], "number": number}


def _layouts(probe: Probe) -> dict[str, tuple[str, str]]:
    """Return by layout the name and the source of the function that lays tensors out as the probe does."""
    from backproof.adapters.torch.candidate import LAYOUTS  # noqa: PLC0415  (torch is imported where it is used)

    used = {probe.condition.layout, probe.condition.upstream} - {"dense"}
    return {name: (LAYOUTS[name].__name__, inspect.getsource(LAYOUTS[name])) for name in sorted(used)}


def _literal(name: str, array: np.ndarray) -> str:
    if array.size > INLINE:
        return f'DATA["{name}"]'
    numbers = array if array.dtype.kind in "iub" else array.astype(np.float64)
    return f"np.array({numbers.tolist()!r})".replace("nan", "np.nan").replace("inf", "np.inf")


def _dtype(array: np.ndarray, precision: str) -> str:
    """Return the framework's name of an array's type."""
    return {"i": "int64", "u": "int64", "b": "bool"}.get(array.dtype.kind, precision.replace("tf32", "float32"))
