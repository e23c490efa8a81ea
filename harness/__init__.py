"""backproof: is this gradient right? Hand-derived backpropagation as ground truth for PyTorch, JAX and custom layers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backproof.adapters import Adapter as Adapter
    from backproof.check.checking import GradientMismatch as GradientMismatch
    from backproof.check.checking import assert_gradients as assert_gradients
    from backproof.check.checking import check as check
    from backproof.gradients import check_gradients as check_gradients
    from backproof.judge.certificate import Certificate as Certificate
    from backproof.proof.proving import Proof as Proof
    from backproof.proof.proving import prove as prove
    from backproof.reference.case import Case as Case
    from backproof.reference.layer import Constant as Constant
    from backproof.reference.layer import Layer as Layer
    from backproof.reference.network import Network as Network
    from backproof.reference.trace import LayerTrace as LayerTrace
    from backproof.reference.trace import Trace as Trace
    from backproof.reference.usage import UsageError as UsageError
    from backproof.report.finding import Finding as Finding
    from backproof.report.report import Report as Report
    from backproof.verify.run import verify as verify

# Public names and where they live. They are imported on first use, so that `import backproof` costs nothing; every registered layer and
# head is one too.
_HOMES = {
    "verify": "verify.run",
    "check": "check.checking",
    "assert_gradients": "check.checking",
    "GradientMismatch": "check.checking",
    "check_gradients": "gradients",
    "prove": "proof.proving",
    "Proof": "proof.proving",
    "Report": "report.report",
    "Finding": "report.finding",
    "Certificate": "judge.certificate",
    "Case": "reference.case",
    "Network": "reference.network",
    "Trace": "reference.trace",
    "LayerTrace": "reference.trace",
    "Layer": "reference.layer",
    "Constant": "reference.layer",
    "UsageError": "reference.usage",
    "Adapter": "adapters",
}
_MODULES = {"adapters": "adapters", "strategies": "draw.strategies", "reference": "reference"}

# Importing a submodule binds its name here, once. Where a room bears the name of its function, the function is what the name is for.
for _room in ("check", "verify"):
    import_module(f"{__name__}.{_room}")
    del globals()[_room]
del _room


def _layers() -> dict[str, Any]:
    """Return the layers and heads of the reference by name."""
    import_module(f"{__name__}.reference.library")
    registry: dict[str, Any] = import_module(f"{__name__}.reference.layer").REGISTRY
    return {name: cls for name, cls in registry.items() if cls.__module__.startswith(f"{__name__}.reference.")}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name == "__all__":
        return __dir__()
    if name[:1].isupper() and (found := _layers().get(name)) is not None:
        return found
    raise AttributeError(f"module 'backproof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, *_MODULES, *_layers()])
