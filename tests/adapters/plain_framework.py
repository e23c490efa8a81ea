"""A framework in one file, as somebody else would write it; the tests install a copy of it.

Its arrays are NumPy's, and a candidate is `f(x, **params) -> (y, backward)`, or a `Rule` of such a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from backproof.adapters import Framework
from backproof.adapters.calls import AUTODIFF, DENSE, FORWARD, SHAPES, Answer, Call, UnsupportedError, answered
from backproof.reference.case import Case
from backproof.reference.trace import Trace

SCRIPT = """{% extends "candidate.py.j2" %}
{% block gradient %}
y, backward = candidate(*inputs, **params)
dx, d_params = backward(*dys)
ys, gradients = (y,), {"x": dx} | {theirs: d_params[mine] for theirs, mine in {{ params }}.items()}
got = float({{ wanted }}[{{ at }}])
{% endblock %}
"""


class Rule:
    """A function of which its type says that it is a candidate of `plain`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, x: Any, **params: Any) -> Any:
        return self.function(x, **params)


class Driver:
    """Calls a candidate and its backward."""

    framework, layouts, selective, compiles = "plain", (DENSE,), False, False
    modes: Mapping[str, str] = {}

    def run(self, candidate: Callable[..., Any], call: Call) -> Answer:
        if call.mode == AUTODIFF:
            raise UnsupportedError("there is none")
        y, backward = candidate(*call.inputs, **call.params)
        ys = answered(y, len(call.dys), np.ndarray, "an array")
        if call.mode in {FORWARD, SHAPES}:
            return Answer(call.inputs, call.params, call.dys, ys, (None,) * len(call.inputs), {})
        dx, d_params = backward(*call.dys)
        return Answer(call.inputs, call.params, call.dys, ys, (dx,), d_params)


class Mode:
    """Runs the rules of the reference."""

    name = "plain:rules"

    def run(self, case: Case) -> Trace:
        values = case.values()
        return case.network.run(values.params, values.x, values.target, values.upstream)


class Plain(Framework):
    """The framework, which knows its own candidates."""

    def owns(self, given: Any) -> bool:
        return isinstance(given, Rule)

    def facts(self) -> Mapping[str, str]:
        return {"plain threads": "1"}


driver, mode = Driver(), Mode()
framework = Plain("plain", packages=("plain-framework",), adapters={"plain:rules": "plain_framework:mode"}, default="plain:rules",
                  calls="plain_framework:driver", kinds="a plain_framework.Rule", scripts={"candidate.py.j2": SCRIPT})
