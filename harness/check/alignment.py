"""Layers that broadcast example by example, and candidates that broadcast whole batches, made to mean the same.

Of an example of shape () and one of shape (4,) the batches have the shapes (3,) and (3, 4), which no plain function broadcasts so. The
candidate is handed axes of size 1 after the axis of examples, so that it never has to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["aligned"]


def aligned(candidate: Callable[..., Any]) -> Callable[..., Any]:
    """Return a candidate that is given inputs of equally many axes; of a NumPy backward's gradients those axes are taken away again."""

    def called(*inputs: Any, **params: Any) -> Any:
        most = max(x.ndim for x in inputs)
        padded = (x.reshape((x.shape[0], *[1] * (most - x.ndim), *x.shape[1:])) for x in inputs)
        y = candidate(*padded, **params)
        if not (isinstance(y, tuple) and len(y) == 2 and callable(y[1])):
            return y

        def backward(*dys: Any) -> Any:
            found = y[1](*dys)
            named = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)
            dx = found[0] if named else found
            shaped = tuple(_shaped(d, x) for d, x in zip(dx, inputs, strict=True)) if _pairs(dx, inputs) else dx
            return (shaped, found[1]) if named else shaped

        return y[0], backward

    called.__wrapped__ = candidate  # type: ignore[attr-defined]  # whose signature is the one to check
    return called


def _pairs(dx: Any, inputs: tuple[Any, ...]) -> bool:
    return isinstance(dx, (tuple, list)) and len(dx) == len(inputs)


def _shaped(d: Any, x: Any) -> Any:
    """Return a gradient in the shape of its input where it has that of the padded one."""
    padded = getattr(d, "ndim", 0) > x.ndim and d.shape[:1] + d.shape[1 + d.ndim - x.ndim :] == x.shape
    return d.reshape(x.shape) if padded else d
