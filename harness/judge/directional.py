"""Forward mode and double backward: given x, dy and a direction, did a candidate produce the right derivatives along it?

jvp x                     the derivative of the output as x alone moves along v: J v
jvp weight                the same of a parameter
double backward x         the gradient of <u, dx> + <U, dparams> by x, dx and dparams being what backward returns; and so of parameters
double backward dy        the same by the upstream gradient

With f(x, p) the layer and phi = <dy, f>, backward returns the gradient of phi, so the third is the Hessian of phi times (u, U): the
derivative of backward as (x, p) moves along (u, U). The last is the derivative of f along it, since backward is linear in dy. Both come of
one run of the hand-derived rule on `Directed` arrays (Griewank, Walther, *Evaluating Derivatives*, 2nd ed., 2008, section 5.1: second-order
adjoints by forward over reverse).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from backproof.adapters.calls import DOUBLE, JVP, Answer, Call
from backproof.judge.certificate import Certificate
from backproof.judge.comparing import compare
from backproof.reference.direction import Directed
from backproof.reference.layer import Shape
from backproof.reference.rounding import Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace

__all__ = ["DIRECTIONAL", "alike", "certify_directional", "directions", "expected_along", "first_order", "place_of", "said_of",
           "tangents_named"]

DIRECTIONAL = (JVP, DOUBLE)
Key = int | str


def directions(rng: np.random.Generator, shapes: Mapping[Key, Shape], fixed: Mapping[str, Any]) -> dict[Key, np.ndarray]:
    """Return a direction for each array, of sizes between 1/8 and 10 and either sign; 0 in entries that are never trained."""
    found: dict[Key, np.ndarray] = {}
    for key, shape in shapes.items():
        found[key] = rng.choice([-1.0, 1.0], size=shape) * rng.uniform(1, 1.25, size=shape) * 2.0 ** rng.integers(-3, 4, size=shape)
        if key in fixed:
            found[key][fixed[str(key)]] = 0
    return found


def _named(layer: Any, mode: str, derivatives: Mapping[tuple[Key | None, int], Any]) -> dict[str, Any]:
    """Return derivatives by the name of their tensor."""
    outputs = layer.output_names
    return {f"{mode} {_name(layer, key, n)}{f' of {outputs[n]}' if mode == JVP and len(outputs) > 1 else ''}": d
            for (key, n), d in derivatives.items()}


def _name(layer: Any, key: Key | None, n: int) -> str:
    inputs, outputs = layer.input_names, layer.output_names
    if key is None:
        return "dy" if len(outputs) == 1 else f"d{outputs[n]}"
    return inputs[key] if isinstance(key, int) else key


def place_of(layer: Any, call: Call, tensor: str) -> tuple[Key | None, int]:
    """Return what a tensor of this name is of: an input's place, a parameter's name or None for what comes from above; and a number."""
    count = len(layer.output_names)
    places = [*((None, n) for n in range(count)), *((key, n) for key in call.tangents for n in range(count if call.mode == JVP else 1))]
    found: tuple[Key | None, int] = _named(layer, call.mode, {place: place for place in places})[tensor]
    return found


def tangents_named(layer: Any, call: Call) -> dict[str, np.ndarray]:
    """Return the directions by the names of the arrays that move."""
    return {_name(layer, key, 0): v for key, v in call.tangents.items()}


def expected_along(step: LayerTrace, call: Call, precision: Precision) -> dict[str, Rounded]:
    """Run the layer's hand-derived rule along the directions of a call; raise what the rule raises."""
    arithmetic = Arithmetic(precision, kinks="hull")
    with quiet():
        if call.mode == JVP:
            found: dict[tuple[Key | None, int], Rounded] = {}
            for key, v in call.tangents.items():
                ys, _ = _moved(step, arithmetic, {key: v})
                found |= {(key, n): y.derivative() for n, y in enumerate(ys)}
        else:
            ys, backward = _moved(step, arithmetic, call.tangents)
            # the parts of the arrays that move may be added up apart, and so may the ways through forward and through backward
            parts = len(call.tangents)
            found = {(None, n): y.derivative(parts) for n, y in enumerate(ys)}
            d_inputs, d_params = backward(*(Directed.of(dy, arithmetic) for dy in step.d_outputs))
            gradients = {**dict(enumerate(d_inputs)), **d_params}
            found |= {(key, 0): gradients[key].derivative(parts) for key in call.tangents}
    return _named(step.layer, call.mode, found)


def _moved(step: LayerTrace, arithmetic: Arithmetic, along: Mapping[Key, np.ndarray]) -> tuple[tuple[Directed, ...], Any]:
    """Run the rule's forward with some arrays moving."""

    def real(key: Key, array: np.ndarray) -> Any:
        return array if array.dtype.kind in "iub" else Directed.of(array, arithmetic, along.get(key))

    inputs = [real(i, x) for i, x in enumerate(step.inputs)]
    ys, backward = step.layer.rule({name: real(name, p) for name, p in step.params.items()}, *inputs)
    return tuple(y if isinstance(y, Directed) else Directed(arithmetic.lift(y)) for y in ys), backward


def certify_directional(step: LayerTrace, call: Call, answer: Answer, precision: Precision) -> tuple[list[Certificate], int]:
    """Judge the derivatives that a candidate returned; return how many entries have no derivative, at a kink or a tie, beside it."""
    balls, actual = expected_along(step, call, precision), _named(step.layer, call.mode, answer.derivatives)
    found, left_out = [], 0
    for name, ball in balls.items():
        certificate = compare(step, name, actual.get(name), ball, precision)
        unknown = min(int(np.count_nonzero(~np.isfinite(ball.radius()))), certificate.inconclusive)
        left_out += unknown
        found.append(replace(certificate, inconclusive=certificate.inconclusive - unknown))
    return found, left_out


def first_order(layer: Any, tensor: str) -> str:
    """Return the gradient that a derivative along a direction is made of, whose known discrepancies are also those of the derivative."""
    name = next((tensor.removeprefix(mode).strip() for mode in DIRECTIONAL if tensor.startswith(mode)), None)
    if name is None:
        return tensor
    inputs, outputs = layer.input_names, layer.output_names
    own = name.partition(" of ")[0]
    return f"d{inputs[0]}" if own == "dy" or own in {f"d{output}" for output in outputs} else f"d{own}"


def alike(layer: Any, tensor: str) -> tuple[str, ...]:
    """Return the tensors whose known discrepancies a derivative along a direction shares: its gradient, and the output that it moves.

    Forward mode differentiates the output, and so does double backward by what comes from above.
    """
    gradient = first_order(layer, tensor)
    moves = tensor.startswith(JVP) or gradient != f"d{tensor.removeprefix(DOUBLE).strip()}"
    return (gradient, *layer.output_names) if moves else (gradient,)


def said_of(mode: str) -> str:
    """Say why entries were left out."""
    return f"{mode}: no derivative, at a kink or a tie, or out of range"
