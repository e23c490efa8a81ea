"""The layer that stands for a function without a rule: its backward rule is the derivative of the function's own forward.

Truth           `pairing.py` finds the derivative: by complex step, by autodiff of the forward without the backward that the function
                defines, or by extrapolated differences.
Forward         The forward is taken as right, since what it should compute is written nowhere. In another layout, mode or precision its
                outputs are compared with those of a plain call in float64.
Bound           There is no rule, so no rigorous bound on what rounding does to a gradient; the bound is measured (`measurement.py`). The
                function runs again, in the precision in which it is judged, on inputs that are perturbed by up to 16 roundings, which is
                what `reference/rounding` grants an elementary function. The largest change of a tensor, over 8 draws and all entries,
                times 4, covers how ill-conditioned it is, and what the function's own operations and kernels lose, as each run rounds
                anew. Three terms are added: the error of the truth, 16 roundings of the tensor's largest number, and 4 roundings of the
                products that it may be made of, the upstream gradient times two numbers. (Of dy (1 - tanh^2) nothing but these products is
                left where tanh is 1.) The changes count up to half of the precision's digits: a gradient that changes by more is no
                number of any use, and is judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from backproof.adapters.calls import FORWARD, SHAPES, Call
from backproof.reference.layer import Backward, Layer, Params, Shape, ShapeError
from backproof.reference.rounding import Arithmetic, Precision, Rounded, quiet
from backproof.truth.measurement import MeasuredCall, MeasuredForward
from backproof.truth.pairing import SLACK
from backproof.truth.random_rounding import FLOAT64, error_size
from backproof.wording import said

__all__ = ["DRAWN", "OwnForward"]

DRAWN = 48  # the most entries of a call whose shapes were not given: most truths take a run of the forward for each entry
UNDERFLOWS = 64  # underflows that a sum may be made of
KEPT = 8  # recent calls whose truth is kept: a probe asks for it several times


@dataclass(frozen=True)
class OwnForward(Layer):
    """The candidate's own forward, with its derivative as the backward rule.

    `inputs` are the names of its inputs, `sizes` the shapes of its parameters by name, `outputs` is the number of its outputs.
    """

    inputs: tuple[str, ...] = ("x",)
    sizes: tuple[tuple[str, Shape], ...] = ()
    outputs: int = 1
    apart: bool = False
    """Whether no example of a batch depends on another."""
    function: MeasuredForward | None = field(default=None, repr=False)
    """What evaluates it; None in a layer that was read from disk."""

    @property
    def input_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.inputs

    @property
    def by_example(self) -> bool:  # type: ignore[override]
        return self.apart

    @property
    def output_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("output", *(f"output_{n}" for n in range(2, self.outputs + 1)))

    def parameters(self, *shapes: Any, **_: Any) -> dict[str, Shape]:
        return dict(self.sizes)

    def output_shape(self, *shapes: Any, **_: Any) -> Any:
        """Return what the forward gives; raise ShapeError where it raises, or where the batch is not the first axis."""
        known = self.measured.shapes
        if shapes not in known:
            try:
                known[shapes] = self._announced(shapes)
            except Exception as error:  # noqa: BLE001  (whatever a forward raises for shapes that it does not take)
                known[shapes] = said(error)
        if isinstance(known[shapes], str):
            raise ShapeError(self, shapes, f"one that it takes: {known[shapes]}")
        return known[shapes]

    @property
    def measured(self) -> MeasuredForward:
        """The function and what is known of it; raise ValueError where there is none."""
        if self.function is None:
            raise ValueError("OwnForward needs a candidate. Do: bp.check(candidate, like=None)")
        return self.function

    def _announced(self, shapes: tuple[Shape, ...]) -> Any:
        batched = [[y.shape for y in self.run(shapes, batch, SHAPES)] for batch in (2, 3)]
        for batch, ys in zip((2, 3), batched, strict=True):
            for y in ys:
                if y[:1] != (batch,):
                    raise ValueError(f"its output has shape {y} for a batch of {batch}, expected the batch as the first axis")
        shapes_of_2, shapes_of_3 = (tuple(y[1:] for y in ys) for ys in batched)
        if shapes_of_2 != shapes_of_3:
            raise ValueError(f"its output has shape {batched[0][0]} for a batch of 2 and {batched[1][0]} for one of 3, expected the batch "
                             "as the first axis alone")
        return shapes_of_2 if len(shapes_of_2) > 1 else shapes_of_2[0]

    def entries(self, shapes: tuple[Shape, ...], batch: int) -> int:
        """Return how many numbers a call has derivatives by."""
        return batch * sum(map(math.prod, shapes)) + sum(math.prod(shape) for _, shape in self.sizes)

    def batch(self, shapes: tuple[Shape, ...], wanted: int) -> int:
        """Return a batch size, another than is wanted where the derivatives would be too many or the forward takes no single example."""
        if wanted == 1 and not self._takes_one(shapes):
            return 2
        return min(wanted, max(2, (DRAWN - self.entries(shapes, 0)) // max(1, self.entries(shapes, 1) - self.entries(shapes, 0))))

    def _takes_one(self, shapes: tuple[Shape, ...]) -> bool:
        known = self.measured.single
        if shapes not in known:
            try:
                self.run(shapes, 1, FORWARD)
                known[shapes] = ""
            except Exception as error:  # noqa: BLE001  (a normalisation over the batch may refuse one example)
                known[shapes] = said(error)
        return not known[shapes]

    def run(self, shapes: tuple[Shape, ...], batch: int, mode: str) -> tuple[np.ndarray, ...]:
        """Return what the candidate gives for ordinary numbers; raise what it raises."""
        return self.run_call(self.call(shapes, batch, mode))

    def run_call(self, call: Call) -> tuple[np.ndarray, ...]:
        """Return the outputs of the candidate for a call; raise what it raises."""
        return tuple(self.measured.run(call).outputs)

    def call(self, shapes: tuple[Shape, ...], batch: int, mode: str) -> Call:
        """Return a call with ordinary numbers."""
        rng = np.random.default_rng(0)
        inputs = tuple(rng.uniform(0.5, 1.5, (batch, *shape)) for shape in shapes)
        params = {name: rng.uniform(0.5, 1.5, shape) for name, shape in self.sizes}
        return Call(inputs, (True,) * len(inputs), params, tuple(params), (), mode=mode)

    def forward(self, params: Params, *inputs: Any, **_: Any) -> tuple[Any, Backward]:
        arithmetic: Arithmetic = inputs[0].arithmetic
        arrays = tuple(x.value for x in inputs)
        numbers = {name: p.value for name, p in params.items()}

        def measured_call(dys: tuple[np.ndarray, ...]) -> MeasuredCall:
            return self._measured_call(Call(arrays, (True,) * len(arrays), numbers, tuple(numbers), dys))

        first = measured_call(tuple(np.ones(shape) for shape in self._output_shapes(arrays)))
        changes, scale = first.changes(arithmetic.precision), _product((*arrays, *numbers.values()))
        y = tuple(_ball(value, _bound(value, changes.get(("output", n), 0.0), scale, arithmetic.precision), arithmetic)
                  for n, value in enumerate(first.outputs))

        def backward(*dys: Rounded) -> tuple[Any, dict[str, Any]]:
            arithmetic.ties += 1  # so that a gradient outside its bound is compared again with the hull at kinks
            balls = _gradients(measured_call(tuple(dy.value for dy in dys)), arithmetic)
            dx = tuple(balls[i] for i in range(len(arrays)))
            return (dx if len(dx) > 1 else dx[0]), {name: balls[name] for name in numbers}

        return (y if len(y) > 1 else y[0]), backward

    def _output_shapes(self, arrays: tuple[np.ndarray, ...]) -> list[Shape]:
        shapes = self.output_shape(*(x.shape[1:] for x in arrays))
        return [(len(arrays[0]), *shape) for shape in (shapes if self.outputs > 1 else (shapes,))]

    def _measured_call(self, call: Call) -> MeasuredCall:
        """Return what is known of a call, looked up where it was asked for a short time ago."""
        kept = self.measured.recent
        key = tuple((a.shape, a.tobytes()) for a in (*call.inputs, *call.params.values(), *call.dys))
        if key not in kept:
            kept[key] = MeasuredCall(self.measured, call)
            while len(kept) > KEPT:
                kept.popitem(last=False)
        return kept[key]

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> OwnForward:
        """Return the layer that `describe` described, which has no candidate yet."""
        sizes = tuple((str(name), tuple(map(int, shape))) for name, shape in data["sizes"])
        return cls(tuple(map(str, data["inputs"])), sizes, int(data["outputs"]), bool(data["apart"]))

    def __str__(self) -> str:
        return f"OwnForward({', '.join(f'{name}={shape}' for name, shape in self.sizes)})"

    def said(self) -> list[str]:
        """Return in sentences which truths were used, why not better ones, and what nobody can know."""
        lines = ["the forward is taken as right: what it should compute is written nowhere"]
        for method, count in self.measured.used.most_common():
            why = [f"no {other}, since {reason}" for (used, other), reason in self.measured.reasons.items() if used == method]
            lines.append(f"{method} of the candidate's own forward, in {count:,} calls" + (f" ({'; '.join(why)})" if why else ""))
        lines += [f"batches of one example are left out for {shapes}: the forward raises {why}"
                  for shapes, why in self.measured.single.items() if why]
        lines += [f"none in {count:,} calls, where the forward in float64 raised {why}" for why, count in self.measured.failed.items()]
        return lines


def _gradients(measured: MeasuredCall, arithmetic: Arithmetic) -> dict[Any, Rounded]:
    """Return the true gradient of every input and parameter, with its bound; in a hull what lies between those beside a kink."""
    truth, pairing, precision = measured.truth, measured.pairing, arithmetic.precision
    values, errors = truth.values, truth.errors
    if not truth.by_differences:  # the errors were measured at the last places of float64
        errors = errors * max(1.0, error_size(precision) / error_size(FLOAT64))
    if arithmetic.kinks == "hull":
        low, high = measured.kinks
        at_kink = ~np.isnan(low)
        with quiet():
            values = np.where(at_kink & np.isfinite(low), (low + high) / 2, values)
            errors = np.where(at_kink, errors + (high - low) / 2, errors)
    changes, balls = measured.changes(precision), {}
    above = _largest(measured.call.dys)
    for key, place in pairing.slices.items():
        others = [a for other, a in (*enumerate(measured.call.inputs), *measured.call.params.items()) if other != key]
        value = values[place].reshape(pairing.shapes[key])
        bound = _bound(value, changes.get(key, 0.0), above * _product(others), precision, capped=not truth.by_differences)
        balls[key] = _ball(value, errors[place].reshape(value.shape) + bound, arithmetic)
    return balls


def _bound(value: np.ndarray, change: float, scale: float, precision: Precision, *, capped: bool = True) -> float:
    """Return what rounding may do to a tensor that changes by so much when perturbed, and is made of numbers of the size `scale`."""
    largest = _largest((value,))
    changes = min(SLACK * change, math.sqrt(precision.store) * max(largest, scale)) if capped else SLACK * change
    return changes + error_size(precision) * largest + SLACK * precision.store * scale + UNDERFLOWS * precision.underflow


def _ball(value: np.ndarray, bound: Any, arithmetic: Arithmetic) -> Rounded:
    with quiet():
        bound = np.broadcast_to(np.asarray(bound, dtype=np.float64), value.shape)
        beyond = ~(np.abs(value) + bound <= arithmetic.precision.largest / 2)
        return Rounded(value, np.where(beyond, np.inf, bound), arithmetic)


def _largest(arrays: Iterable[np.ndarray]) -> float:
    return max((float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) for a in arrays), default=0.0)


def _product(arrays: Iterable[np.ndarray]) -> float:
    """Return how large the products may be that a gradient is made of: the product of the two largest numbers of different arrays."""
    return math.prod(sorted((max(1.0, _largest((a,))) for a in arrays), reverse=True)[:2])
