"""A stand-alone script that shows one finding with nothing but NumPy and the framework."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import numpy as np
from backproof.adapters.calls import DENSE
from backproof.adapters.framework import Framework, all_frameworks
from backproof.draw.probe import Probe
from backproof.judge.directional import DIRECTIONAL, place_of, tangents_named
from backproof.reference.heads import Head
from backproof.reference.layer import describe
from backproof.reference.trace import LayerTrace
from backproof.report.finding import Finding
from backproof.report.tensors import inputs_of

__all__ = ["script"]

CANDIDATE, LAYER = "candidate.py.j2", "repro.py.j2"  # templates, which those of a framework extend
INLINE = 64  # numbers written into the script itself; larger arrays are read from tensors.npz beside it


def script(finding: Finding, templates: jinja2.Environment) -> str:
    """Return the source of repro.py: it rebuilds the numbers, prints both and the bound, and exits 1 while they differ."""
    step, certificate = finding.step, finding.certificate
    if step is None or certificate is None or certificate.ball is None:
        raise ValueError(f"{finding.title}: a finding without its tensors has no reproduction")
    if isinstance(finding.case, Probe):
        return _of_candidate(finding, finding.case, step, templates)
    framework = _framework(finding.subject.split(":")[0])
    if framework is None or LAYER not in framework.scripts or certificate.end_to_end:  # no single layer shows that
        call, source = "", ""
    else:
        call, source = finding.lowering
    head = isinstance(step.layer, Head)
    names = inputs_of(step.layer)
    inputs = dict(zip(names, step.inputs, strict=True))
    upstream = dict(zip(step.upstream_names, step.d_outputs, strict=True))
    arrays = inputs | upstream | {f"param_{k}": p for k, p in step.params.items()}
    tensor = certificate.tensor
    context: dict[str, Any] = {
        "finding": finding, "needs": _needs(framework if source else None), "source": source.rstrip(), "call": call,
        "options": {k: v for k, v in describe(step.layer).items() if k != "type"}, "is_head": head, "tensor": tensor,
        "arrays": {k: (_literal(k, a), _dtype(a, finding.precision)) for k, a in arrays.items()},
        "inputs": [n for n in names if n != "target"], "params": list(step.params),
        "dys": ", ".join(upstream) if len(upstream) == 1 else f"({', '.join(upstream)})",
        "y": "y" if len(upstream) == 1 else f"y[{step.layer.output_names.index(tensor) if tensor in step.layer.output_names else 0}]",
        "is_output": tensor in step.layer.output_names, "of": "x" if head else tensor[1:],
        "from_file": any(a.size > INLINE for a in arrays.values()), "dtype": finding.precision.replace("tf32", "float32"),
        "index": finding.index, "expected": finding.expected, "bound": finding.bound, "sentence": json.dumps(finding.diagnosis.sentence),
    }
    return _template(templates, LAYER, framework if source else None).render(context)


def _framework(name: str) -> Framework | None:
    """Return a framework, or None for an adapter or a candidate of none."""
    return next((one for one in all_frameworks() if one.name == name), None)


def _template(templates: jinja2.Environment, name: str, framework: Framework | None) -> jinja2.Template:
    """Return a framework's own form of a script, or the one that says what was recorded."""
    text = "" if framework is None else framework.scripts.get(name, "")
    return templates.from_string(text) if text else templates.get_template(name)


def _needs(framework: Framework | None) -> list[str]:
    return [*dict.fromkeys(("numpy", *([framework.module] if framework is not None and framework.module else [])))]


def _of_candidate(finding: Finding, probe: Probe, step: LayerTrace, templates: jinja2.Environment) -> str:
    """Return the script of a finding about a candidate, which it imports or asks for."""
    head = isinstance(step.layer, Head)
    names = inputs_of(step.layer)
    theirs = {theirs: mine for mine, theirs in probe.names}
    module, _, name = probe.candidate.partition(":")
    framework = _framework(probe.framework)
    real = [n for n, x in zip(names, step.inputs, strict=True) if x.dtype.kind not in "iub" and n != "target"]
    tensor = "dx" if finding.tensor == "dz" else finding.tensor
    wanted = f"ys[{step.layer.output_names.index(tensor)}]" if tensor in step.layer.output_names else f'gradients["{tensor[1:]}"]'
    context: dict[str, Any] = {
        "finding": finding, "probe": probe, "module": module, "name": name, "needs": _needs(framework), "inputs": list(names),
        "real": real, "params": {n: theirs.get(n, n) for n in step.params}, "trained": [n for n in step.params if n in step.d_params],
        "upstream": list(step.upstream_names), "alone_head": head and step.d_outputs[0].ndim == 0,
        "wanted": wanted, "at": f"tuple({list(finding.index)})", "dtype": finding.precision, "along": {},
        "layouts": _layouts(probe, framework), "sentence": json.dumps(finding.diagnosis.sentence),
    }
    if probe.condition.mode in DIRECTIONAL:
        context |= _along(finding, probe, list(names))
    return _template(templates, CANDIDATE, framework).render(context)


def _along(finding: Finding, probe: Probe, names: list[str]) -> dict[str, Any]:
    """Return what the script says of a derivative along directions."""
    call = probe.call()
    key, number = place_of(probe.layer, call, finding.tensor)
    arrays = {place: names[place] if isinstance(place, int) else place for place in call.tangents}
    along = dict(zip(tangents_named(probe.layer, call), arrays.values(), strict=True))
    return {"along": along, "of": "" if key is None else arrays[key], "number": number}


def _layouts(probe: Probe, framework: Framework | None) -> dict[str, tuple[str, str]]:
    """Return by layout the name and the source of the function that lays arrays out as the probe does, where there is one."""
    used = sorted({probe.condition.layout, probe.condition.upstream} - {DENSE})
    return {} if framework is None else {name: found for name in used if (found := framework.layout(name))[1]}


def _literal(name: str, array: np.ndarray) -> str:
    if array.size > INLINE:
        return f'DATA["{name}"]'
    numbers = array if array.dtype.kind in "iub" else array.astype(np.float64)
    return f"np.array({numbers.tolist()!r})".replace("nan", "np.nan").replace("inf", "np.inf")


def _dtype(array: np.ndarray, precision: str) -> str:
    """Return the framework's name of an array's type."""
    return {"i": "int64", "u": "int64", "b": "bool"}.get(array.dtype.kind, precision.replace("tf32", "float32"))
