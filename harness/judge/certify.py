"""Local certificates: given the framework's own x and dy, did a layer produce the right y, dx and d-parameters?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from backproof.reference.case import Case
from backproof.reference.graph import each
from backproof.reference.heads import Head
from backproof.reference.layer import Elementwise, each_shape
from backproof.reference.rounding import BOUND_SLACK, Arithmetic, Precision, Rounded, either, largest_of, quiet
from backproof.reference.trace import LayerTrace, Trace
from backproof.reference.wiring import Fork

__all__ = [
    "Certificate",
    "Neighbourhood",
    "certify",
    "certify_end_to_end",
    "certify_layer",
    "certify_step",
    "expected",
    "expected_plain",
    "judge",
    "tensors",
]

Index = tuple[int, ...]

LARGE = 2**18  # entries of a tensor from which on it is looked at in parts
BLOCK = 2**16  # entries of a part: a few arrays of them stay in the cache
SMALLEST = 5e-324  # in place of a bound of 0: nothing over it is 0, anything else infinite
OFF = frozenset({"outside", "nonfinite"})  # NaN from above may go to any of several tied entries
FUSION_REACH = 2  # layers on either side whose roundings a fused kernel may have redone; each further one only loosens the bound


@dataclass(frozen=True)
class Certificate:
    """One tensor of a trace against its bound.

    `verdict` is `agrees`, `convention`, `inconclusive`, `nonfinite`, `error` or `outside`, which a second precision turns into
    `wrong` or `imprecise`. `excess` is the largest |difference| / bound, `margin` the largest one among the entries that agree.
    `actual` and `ball` hold the tensors of a certificate that does not agree, in full.
    """

    path: str
    layer: Any
    tensor: str
    verdict: str
    compared: int
    outside: int = 0
    conventions: int = 0
    inconclusive: int = 0
    excess: float = 0.0
    margin: float = 0.0
    index: Index = ()
    message: str = ""
    actual: np.ndarray | None = None
    ball: Rounded | None = None

    @property
    def failed(self) -> bool:
        return self.verdict in {"outside", "nonfinite", "error"}


def tensors(step: LayerTrace) -> dict[str, np.ndarray]:
    """Return what a layer produced, by the tensor's name: `output`, `dx` (or `dz`), `dweight`, ...; whole numbers are left out."""
    return {} if _copies_whole_numbers(step) else named(step.layer, step.outputs, step.d_inputs, step.d_params)


def named(layer: Any, outputs: tuple[Any, ...], d_inputs: tuple[Any, ...], d_params: Mapping[str, Any]) -> dict[str, Any]:
    """Name outputs and gradients, of which those of whole numbers are None and left out."""
    d_by_name = {f"d{name}": d for name, d in zip(layer.input_names, d_inputs, strict=False)}
    below = dict(zip(d_by_name, layer.index_below(), strict=False))
    return {**dict(zip(layer.output_names, outputs, strict=False)), **{k: d for k, d in d_by_name.items() if below[k] is None},
            **{f"d{name}": d for name, d in d_params.items()}}


def _copies_whole_numbers(step: LayerTrace) -> bool:
    """Say whether a step is a fork of indices: nothing of it is rounded, and nothing has a gradient."""
    return isinstance(step.layer, Fork) and all(np.asarray(x).dtype.kind in "iub" for x in step.inputs)


def expected(step: LayerTrace, arithmetic: Arithmetic, inputs: Sequence[Any] = (), upstream: Sequence[Any] = (),
             reach: int | None = None) -> dict[str, Rounded]:
    """Run the layer's hand-derived rule in rounded arithmetic, on the trace's own inputs and upstream gradients.

    Balls given for `inputs` and `upstream` take the place of the recorded numbers. With a `reach` it is `Layer.retraced` beside the
    recorded outputs.
    """
    with quiet():
        balls = {name: arithmetic.lift(ball) for name, ball in _produced(step, arithmetic.exact, inputs, upstream, reach).items()}
    return _open_to_nan(step, balls) if isinstance(step.layer, Elementwise) else balls


def _open_to_nan(step: LayerTrace, balls: dict[str, Rounded]) -> dict[str, Rounded]:
    """Claim nothing of what an entry-by-entry layer makes of a dy that is not finite.

    Where its derivative is 0 a rule that selects gives 0, and one that multiplies gives 0 times infinity: NaN. Both are right.
    """
    lost = ~np.isfinite(step.d_outputs[0])
    if not lost.any():
        return balls
    unknown = {name: lost if name == "dx" else np.True_ for name in balls if name not in step.layer.output_names}
    return {**balls, **{name: Rounded(np.where(where, np.nan, balls[name].value), balls[name].bound, balls[name].arithmetic)
                        for name, where in unknown.items()}}


def expected_plain(step: LayerTrace) -> dict[str, np.ndarray]:
    """Run the same rule in plain float64."""
    return _produced(step, lambda array: array.astype(np.float64))


def _produced(step: LayerTrace, wrap: Callable[[np.ndarray], Any], inputs: Sequence[Any] = (), upstream: Sequence[Any] = (),
              reach: int | None = None) -> dict[str, Any]:
    def real(array: np.ndarray) -> Any:
        return array if array.dtype.kind in "iub" else wrap(array)

    if _copies_whole_numbers(step):
        return {}
    params = {name: real(p) for name, p in step.params.items()}
    xs = tuple(inputs) or tuple(real(x) for x in step.inputs)
    dys = tuple(upstream) or tuple(wrap(dy) for dy in step.d_outputs)
    if isinstance(step.layer, Head):
        y, head_backward = step.layer.forward(params, xs[0], real(step.inputs[1]))
        return named(step.layer, (y,), (head_backward(*dys),), {})
    if reach is None:
        y, backward = step.layer.forward(params, *xs)
    else:
        y, backward = step.layer.retraced(tuple(wrap(y) for y in step.outputs), reach, params, *xs)
    dx, d_params = backward(*dys)
    return named(step.layer, each(y), each(dx), d_params)


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
        again = {c.tensor: judge(step, c.tensor, actual[c.tensor], balls[c.tensor], precision) for c in suspects
                 if conserves(step, c.tensor, actual[c.tensor], precision, upstream)}
        found = [again[c.tensor] if c.tensor in again and not again[c.tensor].failed else c for c in found]
    return found


def certify_layer(step: LayerTrace, precision: Precision) -> list[Certificate]:
    """Certify the tensors of one layer; where one is outside and the layer met an exact tie, try every subgradient.

    A step that is malformed, so that the rule cannot be run on it, gets one certificate of `error`.
    """
    if fault := _malformed(step):
        return [_error(step, *fault)]
    with quiet():  # once, not for every tensor
        return _certified(step, precision)


def _certified(step: LayerTrace, precision: Precision) -> list[Certificate]:
    own = Arithmetic(precision)
    try:
        if (found := _certify_in_parts(step, own)) is not None:
            return found
        retraced = step.layer.stepwise and _came_back(step, precision)
        balls = expected(step, own, reach=0 if retraced else None)
    except ValueError as error:  # a rule's own word on what it cannot take, such as classes that do not exist
        return [_error(step, "input 0", f"the layer cannot take these inputs: {error}")]
    actual = tensors(step)
    certificates = [judge(step, name, actual.get(name), ball, precision) for name, ball in balls.items()]
    if retraced:
        certificates = _retraced_again(step, certificates, precision)
    certificates += [_error(step, name, f"a gradient that the layer does not have: got {name}, expected one of {', '.join(balls)}")
                     for name in actual if name not in balls]
    if own.ties and any(c.verdict in OFF for c in certificates):
        hulls = expected(step, Arithmetic(precision, kinks="hull"))
        certificates = [_as_convention(c, judge(step, c.tensor, actual[c.tensor], hulls[c.tensor], precision))
                        if c.verdict in OFF and conserves(step, c.tensor, actual[c.tensor], precision) else c for c in certificates]
    return certificates


def _came_back(step: LayerTrace, precision: Precision) -> bool:
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
        each_way = [judge(step, c.tensor, actual.get(c.tensor), balls[c.tensor], precision) for balls in bounds]
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
    if isinstance(step.layer, Head) or not step.layer.by_example or step.d_params:
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
                margin = _agreement(actual[part], ball, margins.get(name, 0.0))
                if margin is None:
                    return None
                margins[name] = margin
    if margins.keys() != whole.keys():
        return None
    return [Certificate(step.path, step.layer, name, "agrees", whole[name].size, excess=m, margin=m) for name, m in margins.items()]


class Neighbourhood:
    """The values between the layers of a trace as a fusing compiler may have rounded them, and what the layers make of those.

    A layer that rounds nothing, such as one that only moves entries about, does not count: what lies behind it is as near as itself.
    Only what the layers were given is looked at: traces that differ in what a layer produced have one neighbourhood. Kinks are hulls.
    """

    def __init__(self, trace: Trace, precision: Precision) -> None:
        self.trace, self.arithmetic = trace, Arithmetic(precision, kinks="hull")
        self.balls: dict[tuple[int, int], dict[str, Rounded]] = {}
        self.before: dict[tuple[str, int], Any] = {}
        self.after: dict[tuple[str, int], Any] = {}
        self.producer = {w: (i, k) for i, wired in enumerate(trace.wires) for k, w in enumerate(wired.outputs)}
        self.consumer = {w: (i, f"d{name}") for i, (step, wired) in enumerate(zip(trace.layers, trace.wires, strict=True))
                         for name, w in (*zip(step.layer.input_names, wired.inputs, strict=True), *wired.params)}

    def expected(self, index: int, reach: int = FUSION_REACH) -> dict[str, Rounded]:
        """Run a layer's rule on x and dy as any rounding of the `reach` layers around it may give them."""
        if (index, reach) not in self.balls:
            self.balls[index, reach] = self._run(index, self.inputs(index, reach), self.upstream(index, reach))
        return self.balls[index, reach]

    def _run(self, index: int, inputs: tuple[Any, ...], upstream: tuple[Any, ...] = ()) -> dict[str, Rounded]:
        return expected(self.trace.layers[index], self.arithmetic, inputs, upstream)

    def _rounds(self, index: int, tensor: str) -> bool:
        """Say whether a layer rounds a tensor."""
        return bool(largest_of(self.expected(index, 0)[tensor].bound))

    def inputs(self, index: int, reach: int) -> tuple[Any, ...]:
        """Return the inputs of a layer as the `reach` layers before it may round them, the recorded ones among them."""
        step, wires = self.trace.layers[index], self.trace.wires[index].inputs
        return tuple(self._input(x, wire, reach) for x, wire in zip(step.inputs, wires, strict=False))

    def _input(self, recorded: np.ndarray, wire: str, reach: int) -> Any:
        if recorded.dtype.kind in "iub":
            return recorded
        if reach == 0 or wire not in self.producer:
            return self.arithmetic.exact(recorded)
        if (wire, reach) not in self.before:
            index, place = self.producer[wire]
            name = self.trace.layers[index].layer.output_names[place]
            balls = self._run(index, self.inputs(index, reach - self._rounds(index, name)))
            self.before[wire, reach] = either(self.arithmetic.exact(recorded), balls[name])
        return self.before[wire, reach]

    def upstream(self, index: int, reach: int) -> tuple[Any, ...]:
        """Return the upstream gradients of a layer as the `reach` layers after it may round them, the recorded ones among them."""
        step, wires = self.trace.layers[index], self.trace.wires[index].outputs
        if not wires:  # the head
            return tuple(self.arithmetic.exact(dy) for dy in step.d_outputs)
        return tuple(self._upstream(dy, wire, reach) for dy, wire in zip(step.d_outputs, wires, strict=True))

    def _upstream(self, recorded: np.ndarray | None, wire: str, reach: int) -> Any:
        if recorded is None:
            return None
        if reach == 0 or wire not in self.consumer:
            return self.arithmetic.exact(recorded)
        if (wire, reach) not in self.after:
            index, tensor = self.consumer[wire]
            balls = self._run(index, self.inputs(index, reach), self.upstream(index, reach - self._rounds(index, tensor)))
            self.after[wire, reach] = either(self.arithmetic.exact(recorded), balls[tensor])
        return self.after[wire, reach]


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
        found, balls = tensors(step), tensors(ours)
        wanted = list(step.layer.output_names) if plan is not None else ["output"]
        if plan is not None:
            wanted += [f"d{name}" for name, wire in zip(step.layer.input_names, plan.inputs, strict=True) if wire in leaves]
            wanted += [f"d{name}" for name, wire in plan.params if wire in leaves]
        certificates += [judge(step, name, found[name], arithmetic.lift(balls[name]), precision) for name in wanted if name in balls]
    return certificates


def judge(step: LayerTrace, name: str, actual: np.ndarray | None, ball: Rounded, precision: Precision,
          excused: np.ndarray | None = None) -> Certificate:
    """Compare one tensor with its ball, entry by entry; entries in the mask `excused` are counted and not judged.

    An entry is inconclusive when its bound is not finite, or as large as the largest number of the tensor. The margin is taken
    over entries known to within half their size: at a kink the ends of the hull are reached by every correct answer.
    """
    if actual is None:
        return _error(step, name, f"no {name} came back: expected an array of shape {ball.shape}")
    if actual.shape != ball.shape:
        return _error(step, name, f"wrong shape of {name}: got {actual.shape}, expected {ball.shape}", actual, ball)
    if actual.dtype != precision.dtype:
        return _error(step, name, f"wrong dtype of {name}: got {actual.dtype}, expected {precision.dtype}", actual, ball)
    if (margin := _agreement(actual, ball)) is not None:
        return Certificate(step.path, step.layer, name, "agrees", int(actual.size), excess=margin, margin=margin)
    with quiet():
        difference = np.abs(actual.astype(np.float64) - ball.value)
        bound = ball.radius()
        known = np.isfinite(ball.value) & np.isfinite(bound)
        excess = np.where(difference == 0, 0.0, difference / bound)
    size, within = np.abs(ball.value), difference <= bound
    largest = largest_of(np.where(known, size, 0.0))
    open_ = ~known | ((bound >= largest) & (difference != 0) & within)
    outside = known & ~within
    if excused is not None:
        outside &= ~excused
    margin = largest_of(np.where(within & (bound <= size / 2), excess, 0.0))
    judged = Certificate(step.path, step.layer, name, "agrees", int(actual.size), outside=int(np.count_nonzero(outside)),
                         inconclusive=int(np.count_nonzero(open_)), excess=margin, margin=margin)
    if not judged.outside:
        return replace(judged, verdict="inconclusive") if actual.size and open_.all() else judged
    finite = np.isfinite(difference)
    severity = np.where(outside, np.where(finite, excess, np.inf), -1.0)
    # several entries may share an infinite excess: the worst of them is the one that is furthest off
    ranked = np.where(severity == severity.max(), np.where(finite, difference, np.inf), -1.0)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ranked)), actual.shape))
    verdict = "outside" if finite[outside].all() else "nonfinite"
    return replace(judged, verdict=verdict, excess=float(severity.max()), index=index, actual=actual, ball=ball)


def _agreement(actual: np.ndarray, ball: Rounded, margin: float = 0.0) -> float | None:
    """Return the margin of a tensor of which `judge` would say nothing else than that it agrees, None where there may be more to say.

    Every entry must be well inside a finite bound that is smaller than the tensor's largest number: what nearly every tensor is,
    found in a few passes over blocks of rows that stay in the cache. A margin known already is returned where none is larger.
    """
    size = actual.size
    if not size:
        return None
    if ball.exact:
        with quiet():  # an exact result is a number of the format
            same = (actual == _distinct(ball.held).astype(actual.dtype, copy=False)).all() and np.isfinite(actual).all()
        return margin if same else None
    values, bounds, widest = ball.value, ball.bounds(), 0.0
    alike = tuple(axis for axis, n in enumerate(actual.shape) if n > 1 and not values.strides[axis] and not bounds.strides[axis])
    if alike:  # of entries whose balls are the same one, the smallest and the largest are the furthest off
        once = tuple(slice(1) if axis in alike else slice(None) for axis in range(actual.ndim))
        one = Rounded(values[once], bounds[once], ball.arithmetic)
        first = _agreement(np.min(actual, axis=alike, keepdims=True), one, margin)
        return None if first is None else _agreement(np.max(actual, axis=alike, keepdims=True), one, first)
    if not actual.ndim:
        actual, values, bounds = (np.atleast_1d(a) for a in (actual, values, bounds))
    rows = max(1, BLOCK * len(actual) // size)
    with quiet():
        for start in range(0, len(actual), rows):
            part = slice(start, start + rows)
            value, bound = values[part], bounds[part]
            positive = np.minimum.reduce(bound[(0,) * (bound.ndim - 1)]) > 0  # the rest most often is as its first row
            excess = _excess(actual[part], value, bound if positive else np.maximum(bound, SMALLEST))
            place = int(np.argmax(excess))  # of NaN, where there is any
            if positive and np.isnan(excess.ravel()[place]):
                excess = _excess(actual[part], value, np.maximum(bound, SMALLEST))  # 0 / 0 is 0 here
                place = int(np.argmax(excess))
            if not (top := float(excess.ravel()[place])) < 1:
                return None
            if top > margin * BOUND_SLACK:
                worst = np.unravel_index(place, excess.shape)
                if not bound[worst] < abs(value[worst]) / 2:
                    excess *= bound < np.abs(value) / 2
                    top = float(np.max(excess))
                margin = max(margin, top / BOUND_SLACK)
            widest = max(widest, float(np.maximum.reduce(_distinct(bound), axis=None)))
    return margin if any(widest < _largest(some) / BOUND_SLACK for some in (values[:1], values)) else None


def _excess(actual: np.ndarray, value: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Return |actual - value| / bound."""
    excess = actual.astype(np.float64)
    excess -= value
    np.abs(excess, out=excess)
    excess /= bound
    return excess


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Return numbers of which one that is spread along an axis comes once."""
    if 0 not in numbers.strides:
        return numbers
    return numbers[tuple(slice(None) if stride else slice(0, 1) for stride in numbers.strides)]


def _largest(numbers: np.ndarray) -> float:
    """Return the largest magnitude of some numbers."""
    return max(float(np.max(numbers)), -float(np.min(numbers)))


def conserves(step: LayerTrace, tensor: str, actual: np.ndarray, precision: Precision, upstream: Sequence[Any] = ()) -> bool:
    """Say whether a gradient that may be another subgradient hands on all of dy, where the layer says that it must.

    A hull holds each entry by itself, and so also dx in which every one of several tied entries receives all of dy. In a row of m
    entries of dx and n of dy, each entry of dx is a sum of at most n parts of dy's: a part is rounded twice at most (times 1/k, for k
    tied entries) and meets n - 1 additions, so the sum of dx is off by at most gamma_(n+1) sum |dy|, and by m n underflows. The two
    sums themselves are taken here in float64. All of it lies within gamma_(m+n) (sum |dx| + sum |dy|), as m > 1 where entries tie.
    """
    if isinstance(step.layer, Head) or tensor != f"d{step.layer.input_names[0]}":
        return True
    arithmetic = Arithmetic(precision)
    dy = arithmetic.lift(upstream[0]) if upstream else arithmetic.exact(step.d_outputs[0])
    rows = step.layer.conserved(arithmetic.exact(actual), dy)
    if rows is None:
        return True
    m, n = (row.shape[1] for row in rows)
    with quiet():
        left, right = (np.sum(row.value, axis=1) for row in rows)
        magnitude = sum(np.sum(np.abs(row.value) + row.bounds(), axis=1) for row in rows)
        bound = sum(np.sum(row.bounds(), axis=1) for row in rows) + m * n * precision.underflow
        bound = bound + arithmetic.gamma(m + n, arithmetic.roundoff) * magnitude
        return bool(((np.abs(left - right) <= bound) | ~np.isfinite(right)).all())  # of a dy that is not finite nothing is known


def _malformed(step: LayerTrace) -> tuple[str, str] | None:  # noqa: PLR0911  (one per fault)
    """Return tensor and sentence of what keeps a step from being judged at all, or None."""
    outputs = {f"d_output {i}": dy for i, dy in enumerate(step.d_outputs) if dy is not None}
    arrays = {**{f"input {i}": x for i, x in enumerate(step.inputs)}, **outputs, **step.params}
    produced = {name: array for name, array in tensors(step).items() if array is not None}  # what is missing is judged by itself
    for name, array in {**arrays, **produced}.items():
        if not isinstance(array, np.ndarray | np.generic):
            return name, f"no array for {name}: got {type(array).__name__}"
    if len(step.d_inputs) != (count := 1 if isinstance(step.layer, Head) else len(step.inputs)):
        return "dx", f"wrong number of input gradients: got {len(step.d_inputs)}, expected {count}"
    if isinstance(step.layer, Head):
        if len(step.inputs) != 2:
            return "input 1", f"wrong number of inputs of the head: got {len(step.inputs)}, expected z and target"
        wanted = {"d_output 0": step.layer.loss_shape(step.inputs[0].shape)}
    else:
        try:
            wanted = _shapes(step)
        except (ValueError, IndexError) as error:
            return "input 0", f"wrong shape of input 0: {error}"
    for name, expected_shape in wanted.items():
        if name not in arrays:
            return name, f"no {name} came with the layer: expected an array of shape {expected_shape}"
        if arrays[name].shape != expected_shape:
            return name, f"wrong shape of {name}: got {arrays[name].shape}, expected {expected_shape}"
    return None


def _shapes(step: LayerTrace) -> dict[str, Index]:
    """Return the shapes that a layer's inputs call for, by the name of the array."""
    if len(step.inputs) != len(step.layer.input_names):
        raise ValueError(f"{step.layer} takes {len(step.layer.input_names)} inputs: got {len(step.inputs)}")
    batch, shapes = step.inputs[0].shape[:1], [x.shape[1:] for x in step.inputs]
    constants = {name: (*batch * c.batched, *c.shape) for name, c in step.layer.constants(*shapes).items()}
    d_shapes = () if _copies_whole_numbers(step) else each_shape(step.layer.output_shape(*shapes))
    outputs = {f"d_output {i}": (*batch, *shape) for i, shape in enumerate(d_shapes)}
    return {**step.layer.parameters(*shapes), **constants, **outputs}


def _error(step: LayerTrace, name: str, message: str, actual: np.ndarray | None = None, ball: Rounded | None = None) -> Certificate:
    return Certificate(step.path, step.layer, name, "error", 0, message=message, actual=actual, ball=ball)


def _as_convention(own: Certificate, hull: Certificate) -> Certificate:
    """Keep what stays outside of every subgradient; the rest is the framework's convention."""
    if hull.failed or own.verdict == "nonfinite":
        return hull
    return replace(own, verdict="convention", outside=0, conventions=own.outside, inconclusive=hull.inconclusive, excess=hull.excess)

