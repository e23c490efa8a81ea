"""Whether a gradient that came back can be compared at all: an array of floats of its parameter's shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from backproof.gradients.model import d
from backproof.gradients.record import Record
from backproof.proof.directions import index_of

__all__ = ["comparable", "is_float_array", "well_formed"]


def is_float_array(array: Any) -> bool:
    """Say whether an object is a NumPy array of floats."""
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


def comparable(a: Any, b: Any) -> bool:
    """Say whether two objects are arrays of floats of one shape."""
    return is_float_array(a) and is_float_array(b) and a.shape == b.shape


def well_formed(record: Record, name: str, array: Any) -> bool:
    """Say whether a gradient can be compared with the truth; enter a finding where it cannot."""
    model = record.model
    shape, dtype = model.given[name].shape, model.given[name].dtype
    if array is None:
        like = [key for key, value in model.extra.items() if np.shape(value) == shape]
        guess = f"; is {' or '.join(like)} meant?" if like else ""
        fault = "missing", f"no gradient of {name} came back: got nothing or None, expected {d(name)} of shape {shape}{guess}"
    elif array.shape != shape:
        advice = _reshaping(d(name), array.shape, shape)
        fault = "shape", f"{d(name)} has a wrong shape: got {array.shape}, expected {shape}; {advice}"
    elif array.dtype.kind != "f" or array.dtype.itemsize < dtype.itemsize:
        fault = "dtype", f"{d(name)} has a wrong dtype: got {array.dtype}, expected {dtype}"
    elif not np.isfinite(array).all():
        index = index_of(np.argmin(np.isfinite(array)), shape)
        count = int(np.count_nonzero(~np.isfinite(array)))
        sentence = f"{count} of {array.size} entries of {d(name)} are not finite, and loss is"
        record.problem("nonfinite", d(name), "nonfinite", sentence, name=name, index=index, entries=(count, array.size),
                       actual=float(array[index]))
        fault = None
    else:
        return True
    if fault is not None:
        record.problem("error", d(name), *fault, name=name)
    record.skipped["no array of numbers that could be compared came back"] += int(np.prod(shape))
    return False


def _reshaping(tensor: str, got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Say what to write for the right shape."""
    if got == expected[::-1]:
        return f"that is the transposed one, write {tensor}.T"
    if math.prod(got) == math.prod(expected):
        return f"write {tensor}.reshape{expected}, or keepdims=True in the sum"
    if len(got) == len(expected) and all(e in (1, g) for g, e in zip(got, expected, strict=True)):
        return "a sum over the examples is missing"
    return "a gradient has the shape of what it is the gradient of"
