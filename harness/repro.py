"""A stand-alone script that shows one finding with nothing but NumPy and the framework."""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import jinja2
import numpy as np

from .finding import Finding
from .reference.heads import Head
from .reference.layer import describe

__all__ = ["script"]

FRAMEWORKS = ("torch", "jax")
INLINE = 64  # numbers written into the script itself; larger arrays are read from tensors.npz beside it


def script(finding: Finding, templates: jinja2.Environment) -> str:
    """Return the source of repro.py: it rebuilds the numbers, prints both and the bound, and exits 1 while they differ."""
    step, certificate = finding.step, finding.certificate
    if step is None or certificate is None or certificate.ball is None:
        raise ValueError(f"{finding.title}: a finding without its tensors has no reproduction")
    framework = finding.adapter.split(":")[0]
    whole = finding.tensor.startswith("end-to-end")  # no single layer shows it
    lowering = None if whole else _lowering(framework, type(step.layer))
    arrays = {"x": step.inputs[0], "dy": step.d_output} | {f"param_{k}": p for k, p in step.params.items()}
    if isinstance(step.layer, Head):
        arrays["target"] = step.inputs[1]
    name = "repro_head" if isinstance(step.layer, Head) else "repro_layer"
    context: dict[str, Any] = {
        "finding": finding, "framework": framework if lowering else "", "compiled": finding.adapter.endswith((":jit", ":compile")),
        "source": inspect.getsource(lowering).rstrip() if lowering else "", "call": lowering.__name__ if lowering else "",
        "options": {k: v for k, v in describe(step.layer).items() if k != "type"}, "is_head": name == "repro_head",
        "arrays": {k: _literal(k, a) for k, a in arrays.items()}, "params": list(step.params),
        "from_file": any(a.size > INLINE for a in arrays.values()), "dtype": finding.precision.replace("tf32", "float32"),
        "index": finding.index, "expected": finding.expected, "bound": finding.bound, "sentence": json.dumps(finding.diagnosis.sentence),
    }  # fmt: skip
    return templates.get_template("repro.py.j2").render(context)


def _lowering(framework: str, layer: type) -> Any:
    """Return the function by which the framework's own adapter lowers a layer, or None for an adapter from elsewhere."""
    module = sys.modules.get(f"backproof.adapters.{framework}")
    if framework not in FRAMEWORKS or module is None:
        return None
    return module.HEADS.get(layer) or module.LOWERINGS.get(layer)


def _literal(name: str, array: np.ndarray) -> str:
    if array.size > INLINE:
        return f'DATA["{"d_output" if name == "dy" else name}"]'
    numbers = array.astype(np.float64) if array.dtype.kind != "i" else array
    text = json.dumps(numbers.tolist()).replace("NaN", "np.nan").replace("Infinity", "np.inf")
    return f"np.array({text})"
