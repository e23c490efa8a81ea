"""Hand-written NumPy: a forward that returns the output and its own backward."""

from __future__ import annotations

from backproof.adapters.framework import Framework

__all__ = ["framework"]

CHECK = r"""{% extends "candidate.py.j2" %}
{% block gradient %}
y, backward = candidate(*inputs, **params)
ys = y if isinstance(y, tuple) else (y,)
{% if probe.condition.mode == "interleaved" %}
candidate(*(x[::-1] * 2 if x.dtype.kind == "f" else x for x in inputs), **params)  # another call before the backward pass of the first
{% elif probe.condition.mode == "again" %}
backward({{ "" if alone_head else "*(dy * -2 for dy in dys)" }})
{% endif %}
found = backward({{ "" if alone_head else "*dys" }})
dx, d_params = found if isinstance(found, tuple) and isinstance(found[-1], dict) else (found, {})
gradients = dict(zip({{ real }}, dx if isinstance(dx, tuple) else (dx,)))
gradients |= {theirs: d_params[mine] for theirs, mine in {{ params }}.items() if mine in d_params}
got = np.asarray({{ wanted }}, dtype=np.float64)
got = float(got[{{ at }}])
{% endblock %}
"""

framework = Framework("numpy", module="numpy", packages=("numpy",), rank=2, calls="backproof.adapters.numpy:driver",
                      scripts={"candidate.py.j2": CHECK})
