"""A layer trace that stands for a hand-written model, so that what compares and explains layers can judge one of its gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from backproof.gradients.model import Model
from backproof.reference.layer import Layer
from backproof.reference.rounding import Rounded
from backproof.reference.trace import LayerTrace

__all__ = ["stand_in"]


@dataclass(frozen=True, eq=False)
class Handwritten(Layer):
    """The stand-in for a model whose rule is not known, only the true gradient of one parameter with its bound."""

    name: str = ""
    ball: Any = None

    def forward(self, params: Any, *inputs: Any, **_: Any) -> tuple[Any, Any]:
        return inputs[0], lambda dy: (inputs[0], {self.name: self.ball})


def stand_in(model: Model, name: str, ball: Rounded) -> LayerTrace:
    """Return a trace whose layer's rule is the truth about one parameter."""
    one, two = np.zeros(1), np.zeros(2)
    return LayerTrace(model.path, Handwritten(name, ball), (one,), two, (one,), two, {}, {})
