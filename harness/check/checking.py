"""Check one layer or head that somebody wrote: is its backward right, and if not, where, since when, and what mistake is it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

from backproof.check.candidate import Candidate
from backproof.check.checker import Checker
from backproof.check.isolation import Isolated
from backproof.check.simplest import simplest
from backproof.check.stand_in import own_forward
from backproof.draw.probe import Probe
from backproof.reference.heads import Head
from backproof.reference.layer import Layer
from backproof.reference.network import Network
from backproof.reference.usage import UsageError, UsageTypeError
from backproof.reference.whole import WholeNetwork, spread
from backproof.report.report import Report
from backproof.truth.own_forward import OwnForward

__all__ = ["GradientMismatch", "assert_gradients", "check", "check_again"]


class GradientMismatch(AssertionError):  # noqa: N818  (a mismatch is what it is called; pytest shows it as a failure)
    """The gradients of a candidate are wrong. Carries the `.report` that says where; its text is that of the report."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"\n{report}")
        self.report = report


GradientMismatch.__module__ = "backproof"  # where it is imported from


def assert_gradients(candidate: Any, like: Any, **options: Any) -> None:
    """Check a candidate, with the same options as `check`; raise GradientMismatch where its gradients are wrong."""
    __tracebackhide__ = True
    report = check(candidate, like, **options)
    if not report.ok:
        raise GradientMismatch(report)


def check(candidate: Any, like: Any, *, framework: str | None = None, precisions: str | Sequence[str] = ("float64", "float32"),
          cases: int = 100, seed: int = 0, reports: str | Path | None = None, params: Mapping[str, Any] | None = None,
          shapes: Sequence[Any] | None = None, timeout: float | None = None) -> Report:
    """Check a layer, head or network that somebody wrote: is its backward the derivative of its forward?

    Parameters
    ----------
    candidate : callable or torch.nn.Module
        For torch and jax a function ``candidate(*inputs, **params) -> y``, or a module; for numpy ``candidate(*inputs, **params) -> (y,
        backward)`` with ``backward(dy) -> (dx, {name: gradient})``. A head is ``candidate(z, target) -> loss``, in numpy ``(loss,
        backward)`` with ``backward() -> dz``. A network is ``candidate(x, target, **params) -> loss``, its parameters named as
        ``layers.0.weight``.
    like : Layer, Head, Network or None
        The truth. With None it is the derivative of the candidate's own forward, which is taken as right; ``report.options["truth"]`` says
        how that was found.
    framework : str or None, default None
        ``"torch"``, ``"jax"``, ``"numpy"`` or another that is registered; not needed where the candidate's type tells.
    precisions : str or sequence of str, default ("float64", "float32")
        Every case runs in each; ``"float16"`` and ``"bfloat16"`` too.
    cases : int, default 100
        Draws of shapes, values, upstream gradients and conditions (memory layouts, modes of the call).
    seed : int, default 0
        What they are drawn from; the same seed gives the same cases.
    reports : str, pathlib.Path or None, default None
        A folder below which the report is written; None writes nothing.
    params : mapping or None, default None
        The candidate's own names of parameters, each with that of ``like``. With ``like=None`` the shapes of its parameters:
        ``params={"weight": (5, 4)}``.
    shapes : sequence or None, default None
        Shapes of the input, or tuples of shapes for several inputs, batch axis left out. None: as many as ``like`` takes.
    timeout : float or None, default None
        Seconds for each call, made in a process of its own, so that one that never returns or ends its process is a finding.

    Returns
    -------
    Report
        ``report.ok`` says whether nothing is wrong, ``report.findings`` holds what is, and ``print(report)`` shows it.

    Raises
    ------
    UsageError
        A ValueError, and a TypeError where a type is wrong: a candidate that cannot be called so. It says what to write instead.
    MissingFrameworkError
        An ImportError: the framework is not installed.

    Notes
    -----
    What the candidate raises itself is not raised: it is a finding with the verdict ``error``.

    Examples
    --------
    >>> import numpy as np
    >>> import backproof as bp
    >>> def square(x):
    ...     return x * np.sign(x), lambda dy: (-dy * np.sign(x), {})
    >>> report = bp.check(square, None, framework="numpy", cases=4)
    >>> report.ok, report.findings[0].tensor, report.findings[0].diagnosis.code
    (False, 'dx', 'sign')
    """
    if not isinstance(like, (Layer, Head, Network, NoneType)):
        raise UsageTypeError(f"like is a bp.Layer, a bp.Head or a bp.Network: got {like!r}. Write like=bp.LayerNorm(), say, or "
                             "like=None for the truth to come from the candidate's own forward")
    if cases < 1:
        raise UsageError(f"check needs at least one case: got {cases}")
    if not precisions:
        raise UsageError("check needs at least one precision: got none")
    precisions = (precisions,) if isinstance(precisions, str) else precisions
    if like is not None and (strange := {name: theirs for name, theirs in (params or {}).items() if not isinstance(theirs, str)}):
        raise UsageTypeError(f'params: got {strange!r}, expected names: the layer knows the shapes. Write params={{"my_name": "weight"}}')
    given = Candidate.of(candidate, framework, (params or {}) if like is not None else {})
    if isinstance(like, Network):
        given, like = replace(given, function=spread(given.function)), WholeNetwork(like)
    isolated = None if timeout is None else Isolated(given.driver, timeout, getattr(candidate, "__module__", ""))
    given = given if isolated is None else replace(given, driver=isolated)
    try:
        if like is None:
            given, like, shapes = own_forward(given, shapes, params or {})
        run = Checker(given, like, precisions)
        run.examine(run.planned(cases, seed, shapes))
        simplest(run)
    finally:
        if isolated is not None:
            isolated.close()
    report = run.report({"cases": cases, "seed": seed, "precisions": list(precisions)})
    if reports is not None:
        report.save(reports)
    return report


def check_again(probe: Probe, candidate: Any) -> Report:
    """Check a candidate on one probe and return the report."""
    given = Candidate.of(candidate, probe.framework, dict(probe.names))
    if isinstance(probe.layer, OwnForward):
        given, layer, _ = own_forward(given, [probe.shapes], {} if given.own is not None else dict(probe.layer.sizes))
        probe = replace(probe, layer=layer)
    run = Checker(given, probe.layer, (probe.precision,))
    run.shapes = (probe.shapes,)
    run.examine([probe])
    simplest(run)
    return run.report({"cases": 1, "seed": probe.seed, "precisions": [probe.precision]})
