"""What a layer's hand-derived rule makes of the numbers of a trace: in rounded arithmetic, and in plain float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from backproof.reference.layer import Elementwise, Rule, with_tuples
from backproof.reference.rounding import Arithmetic, Rounded, quiet
from backproof.reference.trace import LayerTrace
from backproof.reference.wiring import Fork

__all__ = ["copies_whole_numbers", "expected", "expected_plain", "tensors", "tensors_by_name"]


def tensors(step: LayerTrace) -> dict[str, np.ndarray]:
    """Return what a layer produced, by the tensor's name: `output`, `dx` (or `dz`), `dweight`, ...; whole numbers are left out."""
    return {} if copies_whole_numbers(step) else tensors_by_name(step.layer, step.outputs, step.d_inputs, step.d_params)


def tensors_by_name(layer: Rule, outputs: Sequence[Any], d_inputs: Sequence[Any], d_params: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs and gradients by the tensor's name; gradients of whole numbers, which are None, are left out."""
    d_by_name = {f"d{name}": d for name, d in zip(layer.input_names, d_inputs, strict=False)}
    below = dict(zip(d_by_name, layer.index_below(), strict=False))
    return {**dict(zip(layer.output_names, outputs, strict=False)), **{k: d for k, d in d_by_name.items() if below[k] is None},
            **{f"d{name}": d for name, d in d_params.items()}}


def copies_whole_numbers(step: LayerTrace) -> bool:
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
    """Run the rule, with `wrap` making another kind of number of every real array."""
    def real(array: np.ndarray) -> Any:
        return array if array.dtype.kind in "iub" else wrap(array)

    if copies_whole_numbers(step):
        return {}
    params = {name: real(p) for name, p in step.params.items()}
    xs = (*inputs, *map(real, step.inputs[len(inputs) :]))
    dys = tuple(upstream) or tuple(wrap(dy) for dy in step.d_outputs)
    if reach is None:
        outputs, backward = step.layer.rule(params, *xs)
    else:
        outputs, backward = with_tuples(*step.layer.retraced(tuple(wrap(y) for y in step.outputs), reach, params, *xs))
    d_inputs, d_params = backward(*dys)
    return tensors_by_name(step.layer, outputs, d_inputs, d_params)
