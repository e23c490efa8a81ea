"""Whether a layer's trace has the arrays, and the shapes, without which no rule can be run on it."""

from __future__ import annotations

import numpy as np
from backproof.judge.rules import copies_whole_numbers, tensors
from backproof.reference.trace import LayerTrace

__all__ = ["fault_of"]


def fault_of(step: LayerTrace) -> tuple[str, str] | None:
    """Return tensor and sentence of what keeps a step from being judged at all, or None."""
    return _no_array(step) or _wrong_count(step) or _wrong_shape(step)


def _arrays(step: LayerTrace) -> dict[str, np.ndarray]:
    """Return what the layer was given, by name."""
    upstream = {f"d_output {i}": dy for i, dy in enumerate(step.d_outputs) if dy is not None}
    return {**{f"input {i}": x for i, x in enumerate(step.inputs)}, **upstream, **step.params}


def _no_array(step: LayerTrace) -> tuple[str, str] | None:
    produced = {name: array for name, array in tensors(step).items() if array is not None}  # what is missing is judged by itself
    for name, array in {**_arrays(step), **produced}.items():
        if not isinstance(array, np.ndarray | np.generic):
            return name, f"no array for {name}: got {type(array).__name__}"
    return None


def _wrong_count(step: LayerTrace) -> tuple[str, str] | None:
    arguments, gradients = step.layer.argument_names, step.layer.input_names
    if len(step.inputs) != len(arguments):
        return f"input {len(step.inputs)}", f"wrong number of inputs: got {len(step.inputs)}, expected {' and '.join(arguments)}"
    if len(step.d_inputs) != len(gradients):
        return "dx", f"wrong number of input gradients: got {len(step.d_inputs)}, expected {len(gradients)}"
    return None


def _wrong_shape(step: LayerTrace) -> tuple[str, str] | None:
    arrays = _arrays(step)
    try:
        wanted = step.layer.array_shapes(*(x.shape for x in step.inputs))
    except (ValueError, IndexError) as error:
        return "input 0", f"wrong shape of input 0: {error}"
    for name, shape in wanted.items():
        if name.startswith("d_output") and copies_whole_numbers(step):
            continue  # which have no gradient
        if name not in arrays:
            return name, f"no {name} came with the layer: expected an array of shape {shape}"
        if arrays[name].shape != shape:
            return name, f"wrong shape of {name}: got {arrays[name].shape}, expected {shape}"
    return None
