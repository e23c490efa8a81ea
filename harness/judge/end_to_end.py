"""A whole run against a whole run of the reference, and every number where it belongs: what no layer by itself shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from backproof.judge.certificate import Certificate, error_certificate
from backproof.judge.comparing import compare
from backproof.judge.rules import expected, tensors
from backproof.reference.case import Case
from backproof.reference.rounding import Arithmetic, Precision, precision_named
from backproof.reference.trace import LayerTrace, Trace

__all__ = ["certify_end_to_end", "wrong_connections"]


def certify_end_to_end(trace: Trace, case: Case, precision: Precision) -> list[Certificate]:
    """Compare the loss, the input's gradient and every parameter's gradient with a whole run of the reference.

    Kinks are hulls here: any subgradient anywhere in the network is accepted.
    """
    arithmetic = Arithmetic(precision, kinks="hull")
    values = case.values()

    def real(array: np.ndarray) -> Any:
        return array if array.dtype.kind in "iub" else arithmetic.exact(array)

    params = {path: {k: real(a) for k, a in named.items()} for path, named in values.params.items()}
    truth = case.network.run(params, real(values.x), real(values.target), real(values.upstream))
    leaves = set(case.network.graph.leaves)
    certificates = []
    for step, ours, plan in zip(trace.layers, truth.layers, (*case.network.steps, None), strict=True):
        produced, balls = tensors(step), tensors(ours)
        wanted = list(step.layer.output_names) if plan is not None else ["output"]
        if plan is not None:
            wanted += [f"d{name}" for name, wire in zip(step.layer.input_names, plan.inputs, strict=True) if wire in leaves]
            wanted += [f"d{name}" for name, wire in plan.params if wire in leaves]
        certificates += [replace(compare(step, name, produced[name], arithmetic.lift(balls[name]), precision), end_to_end=True)
                         for name in wanted if name in balls]
    return certificates


def wrong_connections(trace: Trace, case: Case) -> list[Certificate]:
    """Return an error for each number that did not come where it belongs.

    The network's input, parameters, target and upstream gradient are the case's own, bit for bit; what a layer is handed lies
    within the bound of what its neighbour produces. In float64 the end-to-end comparison says so; no coarser precision has
    a bound tight enough for that.
    """
    values, steps, precision = case.values(), trace.layers, precision_named(case.precision)
    sources, plan = values.sources(), case.network.steps
    given_by_case = [(steps[-1], "the target", steps[-1].inputs[1], values.target),
                     (steps[-1], "the upstream gradient", steps[-1].d_output, values.upstream)]
    made: dict[str, tuple[LayerTrace, str, np.ndarray, np.ndarray]] = {}  # by wire: where it comes from, and its two numbers there
    for step, wires in zip(steps, plan, strict=False):
        given = [*zip(wires.inputs, step.inputs, strict=True), *((w, step.params[name]) for name, w in wires.params)]
        given_by_case += [(step, "the network's input" if wire == "x" else wire, array, sources[wire]) for wire, array in given
                if wire in sources]
        named = zip(wires.outputs, step.layer.output_names, step.outputs, step.d_outputs, strict=True)
        made |= {wire: (step, name, y, dy) for wire, name, y, dy in named}
    misplaced = [(step, what) for step, what, got, wanted in given_by_case if got.tobytes() != wanted.tobytes()]

    def handed_on(step: LayerTrace, tensor: str, produced: np.ndarray, array: np.ndarray) -> bool:
        if array.tobytes() == produced.tobytes():
            return True
        balls = expected(step, Arithmetic(precision))
        return tensor in balls and not compare(step, tensor, array, balls[tensor], precision).failed  # whole numbers have no ball

    for step, wired in zip(steps, trace.wires, strict=True):
        for wire, name, array in zip(wired.inputs, step.layer.input_names, step.inputs, strict=False):
            if wire not in made:
                continue
            before, output, y, dy = made[wire]
            if not handed_on(before, output, y, array):
                misplaced.append((step, f"what came of {output} of {before.path}"))
            if dy is not None and not handed_on(step, f"d{name}", tensors(step)[f"d{name}"], dy):
                misplaced.append((before, f"what came of d{name} of {step.path}"))
    return [error_certificate(step, "input 0", f"{what} is another number: a wrong connection") for step, what in misplaced]
