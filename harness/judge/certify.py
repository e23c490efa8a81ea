"""Local certificates: given the framework's own x and dy, did a layer produce the right y, dx and d-parameters?"""

from __future__ import annotations

import numpy as np
from backproof.judge.certificate import OFF, Certificate, error_certificate
from backproof.judge.comparing import BLOCK, compare, margin_of
from backproof.judge.neighbourhood import FUSION_REACH, Neighbourhood
from backproof.judge.rules import expected, tensors
from backproof.judge.subgradients import as_convention, conserves
from backproof.judge.wellformed import fault_of
from backproof.reference.layer import Layer, each_shape
from backproof.reference.rounding import Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace, Trace

__all__ = ["certify", "certify_layer", "certify_step"]

LARGE = 2**18  # entries of a tensor from which on it is looked at in parts


def certify(trace: Trace, precision: Precision, *, fused: bool = False) -> list[Certificate]:
    """Certify every tensor of every layer of a trace.

    A compiler that fuses layers (`fused`) may hand a layer numbers that it rounded otherwise than the ones it recorded; what the
    local bound does not explain is then judged against the layer together with its neighbours.
    """
    around = Neighbourhood(trace, precision) if fused else None
    return [c for index in range(len(trace.layers)) for c in certify_step(trace, index, precision, around)]


def certify_step(trace: Trace, index: int, precision: Precision, around: Neighbourhood | None = None) -> list[Certificate]:
    """Certify the tensors of one layer of a trace, which do not depend on what the other layers produced.

    Given a neighbourhood, what the local bound does not explain is judged again with x and dy as any rounding of the neighbouring
    layers may give them, the nearest first.
    """
    step = trace.layers[index]
    found = certify_layer(step, precision)
    if around is None:
        return found
    for reach in range(1, FUSION_REACH + 1):
        suspects = [c for c in found if c.verdict == "outside"]
        if not suspects:
            break
        actual, balls, upstream = tensors(step), around.expected(index, reach), around.upstream(index, reach)
        again = {c.tensor: compare(step, c.tensor, actual[c.tensor], balls[c.tensor], precision) for c in suspects
                 if conserves(step, c.tensor, actual[c.tensor], precision, upstream)}
        found = [again[c.tensor] if c.tensor in again and not again[c.tensor].failed else c for c in found]
    return found


def certify_layer(step: LayerTrace, precision: Precision) -> list[Certificate]:
    """Certify the tensors of one layer; where one is outside and the layer met an exact tie, try every subgradient.

    A step that is malformed, so that the rule cannot be run on it, gets one certificate of `error`.
    """
    if fault := fault_of(step):
        return [error_certificate(step, *fault)]
    with quiet():  # once, not for every tensor
        return _certified(step, precision)


def _certified(step: LayerTrace, precision: Precision) -> list[Certificate]:
    arithmetic = Arithmetic(precision)
    try:
        if (found := _certify_in_parts(step, arithmetic)) is not None:
            return found
        retraced = step.layer.stepwise and _first_output_is_usable(step, precision)
        balls = expected(step, arithmetic, reach=0 if retraced else None)
    except ValueError as error:  # a rule's own word on what it cannot take, such as classes that do not exist
        return [error_certificate(step, "input 0", f"the layer cannot take these inputs: {error}")]
    actual = tensors(step)
    certificates = [compare(step, name, actual.get(name), ball, precision) for name, ball in balls.items()]
    if retraced:
        certificates = _retraced_again(step, certificates, precision)
    unknown = f"expected one of {', '.join(balls)}"
    certificates += [error_certificate(step, name, f"a gradient that the layer does not have: got {name}, {unknown}")
                     for name in actual if name not in balls]
    if arithmetic.ties and any(c.verdict in OFF for c in certificates):
        hulls = expected(step, Arithmetic(precision, kinks="hull"))
        certificates = [as_convention(c, compare(step, c.tensor, actual[c.tensor], hulls[c.tensor], precision))
                        if c.verdict in OFF and conserves(step, c.tensor, actual[c.tensor], precision) else c for c in certificates]
    return certificates


def _first_output_is_usable(step: LayerTrace, precision: Precision) -> bool:
    """Say whether the first output of a layer is one that `Layer.retraced` can go on from."""
    y, shape = step.outputs[0], each_shape(step.layer.output_shape(*(x.shape[1:] for x in step.inputs)))[0]
    return isinstance(y, np.ndarray) and y.shape == (len(step.inputs[0]), *shape) and y.dtype == precision.dtype


def _retraced_again(step: LayerTrace, found: list[Certificate], precision: Precision) -> list[Certificate]:
    """Judge again what is outside where each step starts from the recorded result of the one before.

    A compiler may have rounded some of those results otherwise than it recorded them; the whole rule's bound holds either way. And
    where the results themselves are outside, what is made of them says nothing about the gradients: these the whole rule judges alone.
    """
    if not any(c.verdict in OFF for c in found):
        return found
    first, actual = step.layer.output_names[0], tensors(step)
    near, whole = expected(step, Arithmetic(precision), reach=FUSION_REACH), expected(step, Arithmetic(precision))

    def judged(c: Certificate, *bounds: dict[str, Rounded]) -> Certificate:
        each_way = [compare(step, c.tensor, actual.get(c.tensor), balls[c.tensor], precision) for balls in bounds]
        return next((again for again in each_way if again.verdict in OFF), each_way[0])

    output = next(c for c in found if c.tensor == first)
    if output.verdict in OFF:
        output = judged(output, near, whole)
    bounds = (whole,) if output.verdict in OFF else (near, whole)
    return [output if c.tensor == first else judged(c, *bounds) if OFF & {c.verdict, output.verdict} else c for c in found]


def _certify_in_parts(step: LayerTrace, arithmetic: Arithmetic) -> list[Certificate] | None:
    """Certify a layer whose examples have nothing to do with each other a few examples at a time, so that their numbers stay in the cache.

    None for another layer, for a step so small that this gains nothing, and where some tensor does not plainly agree.
    """
    if not isinstance(step.layer, Layer) or not step.layer.by_example or step.d_params:
        return None
    batch, shapes = len(step.inputs[0]), [x.shape[1:] for x in step.inputs]
    size = max(batch * step.layer.extent(*shapes), *(a.size for a in (*step.inputs, *step.outputs) if a is not None))
    if batch < 2 or size < LARGE:
        return None
    constants = step.layer.constants(*shapes)
    batched = [name for name, constant in constants.items() if constant.batched]
    whole, margins, rows = tensors(step), dict[str, float](), max(1, BLOCK * batch // size)
    with quiet():
        for start in range(0, batch, rows):
            part = slice(start, start + rows)
            params = {**step.params, **{k: step.params[k][part] for k in batched}}
            inputs, upstream = (tuple(a[part] for a in arrays) for arrays in (step.inputs, step.d_outputs))
            few = LayerTrace(step.path, step.layer, inputs, None, (), upstream, params, {})
            for name, ball in expected(few, arithmetic).items():
                actual = whole.get(name)
                if actual is None or actual.shape != (batch, *ball.shape[1:]) or actual.dtype != arithmetic.precision.dtype:
                    return None
                margin = margin_of(actual[part], ball, margins.get(name, 0.0))
                if margin is None:
                    return None
                margins[name] = margin
    if margins.keys() != whole.keys():
        return None
    return [Certificate(step.path, step.layer, name, "agrees", whole[name].size, excess=m, margin=m) for name, m in margins.items()]
