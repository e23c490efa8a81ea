"""What a layer promises beside its mathematics: shapes, names, dtypes, no warning, and inputs left as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .reference.layer import ShapeError
from .setting import Point, Setting

__all__ = ["breaches", "said"]

BATCHES = (3, 1, 0)


def said(error: BaseException) -> str:
    """Return an error as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def breaches(setting: Setting, seed: int) -> Iterator[str]:
    """Yield a sentence for every promise that the rule breaks; where it does not run at all, that is the one."""
    yield from _announcements(setting)
    for batch in BATCHES:
        point = setting.draw(batch=batch, seed=seed)
        for dtype in (np.float64, np.float32):
            found = list(_run(setting, point.lifted(lambda a, to=dtype: a.astype(to)), f"batch {batch}, {dtype.__name__}", dtype))
            yield from found
            if found:
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
    layer, kept, expected = setting.layer, point.copied(), setting.expected(len(point.dys[0]))
    try:
        y, backward = _heard(lambda: layer.forward(point.params, *point.inputs))
        outputs = y if isinstance(y, tuple) else (y,)
        if len(outputs) != len(layer.output_names):
            yield f"forward returns a wrong number of outputs: got {len(outputs)}, expected {len(layer.output_names)} ({where})"
            return
        answer = _heard(lambda: backward(*point.dys))
    except ShapeError:
        if not len(point.dys[0]):
            return  # the layer says itself that it is not defined for no examples
        raise
    except Warning as warning:
        yield f"the rule warns: got {said(warning)}, expected no warning ({where})"
        return
    except Exception as error:  # noqa: BLE001  (whatever a wrong rule raises is the finding)
        yield f"the rule raises: got {said(error)}, expected an output and gradients ({where})"
        return
    if not (isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[1], dict)):
        yield f"backward returns something else: got {type(answer).__name__}, expected (dx, dparams) ({where})"
        return
    dx, dparams = answer
    dxs = dx if isinstance(dx, tuple) else (dx,)
    if len(dxs) != len(layer.input_names):
        yield f"backward returns a wrong number of input gradients: got {len(dxs)}, expected {len(layer.input_names)} ({where})"
        return
    if dparams.keys() != setting.parameters.keys():
        yield from _names(sorted(dparams.keys() - setting.parameters.keys()), sorted(setting.parameters.keys() - dparams.keys()), where)
    for name, gradient, below in zip(layer.input_names, dxs, setting.below, strict=True):
        if (gradient is None) != (below is not None):
            wanted = "None, since the input holds indices" if gradient is not None else "an array"
            yield f"d{name} is wrong: got {type(gradient).__name__}, expected {wanted} ({where})"
    found = dict(zip(layer.output_names, outputs, strict=True)) | {
        f"d{name}": value for name, value in (*zip(layer.input_names, dxs, strict=True), *dparams.items())}
    for tensor, shape in expected.items():
        yield from _tensor(tensor, found.get(tensor), shape, dtype, where)
    yield from _altered(layer, kept, point, where)


def _heard(call: Callable[[], Any]) -> Any:
    """Return what a call returns; a warning is raised."""
    with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
        warnings.simplefilter("error")
        return call()


def _names(extra: list[str], missing: list[str], where: str) -> Iterator[str]:
    yield from (f"d{name} is missing: got no gradient, expected dparams[{name!r}] ({where})" for name in missing)
    yield from (f"d{name} is too many: got dparams[{name!r}], expected none of a name that parameters() does not announce ({where})"
                for name in extra)


def _tensor(tensor: str, value: Any, shape: tuple[int, ...], dtype: Any, where: str) -> Iterator[str]:
    if value is None:
        return  # said already
    if np.shape(value) != shape:
        yield f"{tensor} has a wrong shape: got {np.shape(value)}, expected {shape} ({where})"
    elif np.asarray(value).dtype != dtype:
        yield f"{tensor} has a wrong dtype: got {np.asarray(value).dtype}, expected {np.dtype(dtype)} ({where})"
    elif not np.all(np.isfinite(value)):
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        yield f"{tensor}{list(index)} is not finite: got {value[index]}, expected a number ({where})"


def _altered(layer: Any, before: Point, after: Point, where: str) -> Iterator[str]:
    pairs = {**{name: (before.params[name], after.params[name]) for name in before.params},
             **{name: (a, b) for name, a, b in zip(layer.input_names, before.inputs, after.inputs, strict=True)},
             **{f"d{name}": (a, b) for name, a, b in zip(layer.output_names, before.dys, after.dys, strict=True)}}  # fmt: skip
    for name, (a, b) in pairs.items():
        if not np.array_equal(a, b):
            yield f"the rule alters {name} in place: got other numbers after the run, expected the same ({where})"
