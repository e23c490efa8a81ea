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
    """Check a candidate against a layer, head or network of the reference, or with `like=None` its own forward; return the report.

    `candidate` is, for torch and jax, a function `candidate(*inputs, **params) -> y` (a head's: `candidate(z, target) -> loss`) or a
    `torch.nn.Module`; for numpy `candidate(*inputs, **params) -> (y, backward)`, with `backward(dy) -> (dx, {name: gradient})`. For a
    network it is `candidate(x, target, **params) -> loss` with parameters named as `layers.0.weight`, in numpy with `backward()`. `params`
    maps the candidate's own names of parameters to those of `like`. Each of `cases` draws shapes, values, upstream gradients and conditions
    anew and runs in every precision; `shapes` (of the inputs, batch axis left out) restricts the shapes. `reports` names a folder to
    write the report to. With `timeout`, in seconds, each call is made in a process of its own, so that a candidate that never returns, or
    that kills its process, becomes a finding.

    With `like=None` the truth is the derivative of the candidate's own forward, which is taken as right; `params` then gives the shapes of
    its parameters, `params={"weight": (5, 4)}`, and `options["truth"]` of the report says how the derivative was found.

    Raises ValueError or TypeError, saying what to write instead, for a candidate that cannot be called so.
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
