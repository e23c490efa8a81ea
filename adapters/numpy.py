"""Candidates in hand-written NumPy: a forward that returns the output and its own backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from backproof.adapters.calls import AUTODIFF, DENSE, FORWARD, SHAPES, Answer, Call, UnsupportedError, answered

Candidate = Callable[..., Any]


def _stepped(a: np.ndarray) -> np.ndarray:
    """Every second place of a storage that holds NaN in between."""
    gaps = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan if a.dtype.kind not in "iub" else 0, dtype=a.dtype)
    gaps[..., 1::2] = a
    return gaps[..., 1::2]


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    DENSE: np.array, "transposed": np.asfortranarray, "stepped": _stepped,
    "rows expanded": lambda a: np.broadcast_to(a[:1], a.shape), "expanded": lambda a: np.broadcast_to(a.ravel()[0], a.shape),
}


def laid(a: np.ndarray, layout: str) -> np.ndarray:
    """Return a copy of the array in a layout; what has no axis or no entry stays as it is."""
    return LAYOUTS[layout](a) if a.ndim and a.size else a.copy()


class NumpyDriver:
    """Calls `candidate(x, **params) -> (y, backward)`, `backward(dy) -> (dx, dparams)`.

    A head whose loss is one number gets an upstream gradient of 1, of which nobody tells it: `backward() -> dz`.
    """

    framework = "numpy"
    layouts = tuple(LAYOUTS)
    selective = False
    compiles = False
    modes: Mapping[str, str] = {
        "interleaved": "when it is called again before its backward pass: something is kept outside of the closure",
        "again": "when backward is called twice",
    }

    def run(self, candidate: Candidate, call: Call) -> Answer:
        """Call a candidate and its backward; raise what they raise, TypeError where they do not return what the contract says."""
        if call.mode == AUTODIFF:
            raise UnsupportedError("NumPy has none")
        if call.mode in {FORWARD, SHAPES}:
            given = tuple(x.copy() for x in call.inputs)  # of their own class, which carries a complex step
            with np.errstate(all="ignore"):
                ys, _ = _forward(candidate, given, {name: a.copy() for name, a in call.params.items()}, len(call.dys))
            return Answer(given, call.params, call.dys, tuple(map(np.asarray, ys)), (None,) * len(given), {})
        inputs = tuple(laid(x, call.layout) for x in call.inputs)
        params = {name: laid(a, call.layout) for name, a in call.params.items()}
        alone = call.head and not call.dys[0].ndim  # the gradient of a loss that is one number is called without an upstream gradient
        dys = tuple(np.ones_like(dy) if alone else laid(dy, call.upstream) for dy in call.dys)
        every = {f"input {i}": a for i, a in enumerate(inputs)} | params | {f"upstream gradient {i}": a for i, a in enumerate(dys)}
        before = {name: a.tobytes() for name, a in every.items()}
        with np.errstate(all="ignore"):  # of what overflows there is a finding
            ys, backward = _forward(candidate, inputs, params, len(dys))
            if call.mode == "interleaved":
                others = tuple(x[::-1] * 2 if real else x for x, real in zip(inputs, call.real, strict=True))
                _forward(candidate, others, params, len(dys))
            if call.mode == "again":
                _backward(backward, () if alone else tuple(dy * -2 for dy in dys), call)
            dx, d_params = _backward(backward, () if alone else dys, call)
        changed = tuple(name for name, a in every.items() if a.tobytes() != before[name])
        found = dict(zip((i for i, real in enumerate(call.real) if real), dx, strict=True))
        return Answer(inputs, params, dys, tuple(map(np.asarray, ys)), tuple(_numbers(found.get(i)) for i in range(len(inputs))),
                      {name: _numbers(d_params.get(name)) for name in {**dict.fromkeys(call.trained), **d_params}}, changed)


def _numbers(gradient: Any) -> Any:
    if gradient is None or (array := np.asarray(gradient)).dtype.kind in "biufcV":  # V: bfloat16
        return None if gradient is None else array
    raise TypeError(f"backward returned {type(gradient).__name__} for a gradient, expected an array")


def _forward(candidate: Candidate, inputs: tuple[np.ndarray, ...], params: Mapping[str, np.ndarray], count: int) -> Any:
    found = candidate(*inputs, **params)
    if not (isinstance(found, tuple) and len(found) == 2 and callable(found[1])):
        raise TypeError(f"the candidate returned {type(found).__name__}, expected (y, backward), backward being a function of dy")
    return answered(found[0], count, (np.ndarray, np.generic, float), "an array, or a tuple of them"), found[1]


def _backward(backward: Candidate, dys: tuple[np.ndarray, ...], call: Call) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the gradients of the inputs that have one, and those of the parameters by name."""
    found = backward(*dys)
    count = sum(call.real)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping):
        dx, d_params = found[0], {_of(name, call): d for name, d in found[1].items()}
    elif not call.trained:
        dx, d_params = found, {}
    else:
        names = ", ".join(f'"{name}": ...' for name in call.trained)
        raise TypeError(f"backward returned {type(found).__name__}, expected (dx, {{{names}}})")
    dxs = tuple(dx) if isinstance(dx, (tuple, list)) else (dx,) if count else ()
    if len(dxs) == len(call.real) != count:
        dxs = tuple(d for d, real in zip(dxs, call.real, strict=True) if real)
    if len(dxs) != count:
        raise TypeError(f"backward returned {len(dxs)} gradients of inputs, expected {count}")
    return dxs, d_params


def _of(name: str, call: Call) -> str:
    """Return the parameter that a gradient is of; `dweight` is another name for that of `weight`."""
    return name[1:] if name not in call.params and name[:1] == "d" and name[1:] in call.params else name


driver = NumpyDriver()
