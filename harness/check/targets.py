"""How the targets of a loss are drawn that nobody has a rule for: by their shape and kind, or by a function of the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from backproof.reference.usage import UsageError, UsageTypeError

__all__ = ["target_source"]

Draw = Callable[[int, np.random.Generator], np.ndarray]

KINDS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "real": lambda rng, shape: rng.standard_normal(shape),
    "binary": lambda rng, shape: rng.integers(2, size=shape).astype(np.float64),
    "sign": lambda rng, shape: rng.choice([-1.0, 1.0], size=shape),
    "distribution": lambda rng, shape: rng.multinomial(64, np.full(shape[-1], 1 / shape[-1]), size=shape[:-1]) / 64,
}


def target_source(targets: Any) -> Draw:
    """Return what draws a target for so many examples; raise UsageError or UsageTypeError for what does not say how.

    `targets` is a pair of a shape, batch axis left out, and a kind: a name, or the number of classes of which the target holds the
    indices; or a function of the number of examples and a generator.
    """
    if callable(targets):
        return lambda batch, rng: np.asarray(targets(batch, rng))
    if not (isinstance(targets, tuple) and len(targets) == 2 and isinstance(targets[0], tuple)):
        raise UsageTypeError(f"targets: got {targets!r}, expected a shape and a kind, or a function of the number of examples and a "
                             "generator. Write targets=((), 10) for indices of 10 classes, or targets=lambda batch, rng: ...")
    shape, kind = targets
    if isinstance(kind, int):
        if kind < 1:
            raise UsageError(f"targets: got {kind} classes, expected at least 1")
        return lambda batch, rng: rng.integers(kind, size=(batch, *shape))
    if kind not in KINDS:
        raise UsageError(f"targets: unknown kind: got {kind!r}, expected the number of classes or one of {', '.join(KINDS)}")
    return lambda batch, rng: KINDS[kind](rng, (batch, *shape))
