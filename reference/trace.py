"""What one run of a case produced: the numbers of every layer, in the framework's own precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["LayerTrace", "Trace"]


@dataclass(frozen=True)
class LayerTrace:
    """One layer (or the head) of a run: what went in, what came out, and both ways.

    `inputs` and `d_inputs` are tuples, one array per input; a head has the inputs `(z, target)` and the d_inputs `(dz,)`,
    its `output` is the loss and its `d_output` the upstream gradient, both of shape ().
    """

    path: str
    layer: Any
    inputs: tuple[np.ndarray, ...]
    output: np.ndarray
    d_inputs: tuple[np.ndarray, ...]
    d_output: np.ndarray
    params: Mapping[str, np.ndarray]
    d_params: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trace:
    """A whole run: the loss, and one `LayerTrace` per layer and one for the head, in forward order."""

    loss: np.ndarray
    layers: tuple[LayerTrace, ...]
