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
    head = isinstance(step.layer, Head)
    names = ("x", "target") if head else step.layer.input_names
    inputs = dict(zip(names, step.inputs, strict=True))
    upstream = {"dy" if len(step.d_outputs) == 1 else f"d{name}": dy
                for name, dy in zip(("dy",) if head else step.layer.output_names, step.d_outputs, strict=True)}  # fmt: skip
    arrays = inputs | upstream | {f"param_{k}": p for k, p in step.params.items()}
    tensor = finding.tensor.removeprefix("end-to-end ")
    context: dict[str, Any] = {
        "finding": finding, "framework": framework if lowering else "", "compiled": finding.adapter.endswith((":jit", ":compile")),
        "source": inspect.getsource(lowering).rstrip() if lowering else "", "call": lowering.__name__ if lowering else "",
        "options": {k: v for k, v in describe(step.layer).items() if k != "type"}, "is_head": head, "tensor": tensor,
        "arrays": {k: (_literal(k, a), _dtype(a, finding.precision)) for k, a in arrays.items()},
        "inputs": [n for n in names if n != "target"], "upstream": list(upstream), "params": list(step.params),
        "output": 0 if head or tensor not in step.layer.output_names else step.layer.output_names.index(tensor),
        "is_output": tensor in (("output",) if head else step.layer.output_names),
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
        return f'DATA["{name}"]'
    numbers = array if array.dtype.kind in "iub" else array.astype(np.float64)
    return f"np.array({numbers.tolist()!r})".replace("nan", "np.nan").replace("inf", "np.inf")


def _dtype(array: np.ndarray, precision: str) -> str:
    """Return the framework's name of an array's type."""
    return {"i": "int64", "u": "int64", "b": "bool"}.get(array.dtype.kind, precision.replace("tf32", "float32"))
