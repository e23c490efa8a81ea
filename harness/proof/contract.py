"""What a layer promises beside its mathematics: shapes, names, dtypes, no warning, and inputs left as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from backproof.proof.setting import Point, Setting
from backproof.reference.layer import ShapeError
from backproof.wording import said

__all__ = ["breaches"]

BATCHES = (3, 1, 0)


def breaches(setting: Setting, seed: int) -> Iterator[str]:
    """Yield a sentence for every promise that the rule breaks; for a rule that does not run, the one that says so."""
    yield from _announcements(setting)
    for batch in BATCHES:
        point = setting.draw(batch=batch, seed=seed)
        for dtype in (np.float64, np.float32):
            sentences = list(_run(setting, point.lifted(partial(np.asarray, dtype=dtype)), f"batch {batch}, {dtype.__name__}", dtype))
            yield from sentences
            if sentences:
                return  # what is wrong with one batch and dtype is wrong with the next


def _announcements(setting: Setting) -> Iterator[str]:
    layer = setting.layer
    if len(setting.below) != len(layer.input_names):
        yield f"index_below is wrong: got {setting.below}, expected one entry for each of {layer.input_names}"
    both = setting.parameters.keys() & setting.constants.keys()
    if both:
        yield f"names are both parameter and constant: got {sorted(both)}, expected none"
    for name, shape in (setting.parameters | setting.outputs).items():
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            yield f"the shape of {name} is wrong: got {shape}, expected whole numbers"


def _run(setting: Setting, point: Point, where: str, dtype: Any) -> Iterator[str]:
    """Run forward and backward once and yield what is wrong with the answers."""
    layer, kept = setting.layer, point.copied()
    try:
        y, backward = _without_warnings(lambda: layer.forward(point.params, *point.inputs))
        answer = _without_warnings(lambda: backward(*point.dys))
    except ShapeError:
        if point.dys[0].shape[0]:
            raise
        return  # the layer says itself that it is not defined for no examples
    except Warning as warning:
        yield f"the rule warns: got {said(warning)}, expected no warning ({where})"
        return
    except Exception as error:  # noqa: BLE001  (whatever a wrong rule raises is the finding)
        yield f"the rule raises: got {said(error)}, expected an output and gradients ({where})"
        return
    sentences = list(_answers(setting, y, answer))
    if not sentences:
        outputs, dx, dparams = _each(y), _each(answer[0]), answer[1]
        named = (*zip(layer.output_names, outputs, strict=True), *zip((f"d{name}" for name in layer.input_names), dx, strict=True),
                 *((f"d{name}", value) for name, value in dparams.items()))
        sentences += _tensors(setting, dict(named), len(point.dys[0]), dtype)
        sentences += _altered(layer, kept, point)
    yield from (f"{sentence} ({where})" for sentence in sentences)


def _each(item: Any) -> tuple[Any, ...]:
    return item if isinstance(item, tuple) else (item,)


def _answers(setting: Setting, y: Any, answer: Any) -> Iterator[str]:
    """Yield what is wrong with the form of what forward and backward return."""
    outputs, inputs = setting.layer.output_names, setting.layer.input_names
    if len(_each(y)) != len(outputs):
        yield f"forward returns a wrong number of outputs: got {len(_each(y))}, expected {len(outputs)}"
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        yield f"backward returns something else: got {type(answer).__name__}, expected (dx, dparams)"
    elif len(_each(answer[0])) != len(inputs):
        yield f"backward returns a wrong number of input gradients: got {len(_each(answer[0]))}, expected {len(inputs)}"


def _tensors(setting: Setting, answers: dict[str, Any], batch: int, dtype: Any) -> Iterator[str]:
    """Yield what is wrong with names, shapes and dtypes."""
    expected = setting.expected(batch)
    for tensor in answers.keys() | expected.keys():
        value = answers.get(tensor)
        if tensor not in expected and value is not None:
            yield f"{tensor} is too many: got {type(value).__name__}, expected no gradient, since it is of an index or of no parameter"
        elif tensor in expected and value is None:
            yield f"{tensor} is missing: got None or nothing, expected an array of shape {expected[tensor]}"
        elif tensor in expected:
            yield from _tensor(tensor, value, expected[tensor], dtype)


def _without_warnings(call: Callable[[], Any]) -> Any:
    """Return what a call returns; raise the warnings that it gives."""
    with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
        warnings.simplefilter("error")
        return call()


def _tensor(tensor: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Iterator[str]:
    if np.shape(value) != shape:
        yield f"{tensor} has a wrong shape: got {np.shape(value)}, expected {shape}"
        return
    value = np.asarray(value)
    if value.dtype.kind != "f" or np.result_type(value.dtype, dtype) != value.dtype:  # a wider one loses nothing
        yield f"{tensor} has a wrong dtype: got {value.dtype}, expected {np.dtype(dtype)}"
    elif not np.all(np.isfinite(value)):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        yield f"{tensor}{list(index)} is not finite: got {value[index]}, expected a number"


def _altered(layer: Any, before: Point, after: Point) -> Iterator[str]:
    pairs = {**{name: (before.params[name], after.params[name]) for name in before.params},
             **{name: (a, b) for name, a, b in zip(layer.input_names, before.inputs, after.inputs, strict=True)},
             **{f"d{name}": (a, b) for name, a, b in zip(layer.output_names, before.dys, after.dys, strict=True)}}
    for name, (a, b) in pairs.items():
        if not np.array_equal(a, b):
            yield f"the rule alters {name} in place: got other numbers after the run, expected the same"
