"""PyTorch: functions of tensors, modules and autograd Functions; eager, `torch.func` and `torch.compile`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from backproof.adapters.framework import Framework, texts

if TYPE_CHECKING:
    from backproof.reference.layer import Shape

__all__ = ["framework"]


class Torch(Framework):
    """A module holds its parameters, a Function is called by its `apply`."""

    def owns(self, given: Any) -> bool:
        return _is_module(given) or _is_function(given) or _is_function(getattr(given, "__self__", None))

    def as_candidate(self, given: Any) -> tuple[Callable[..., Any], Mapping[str, Shape] | None]:
        if _is_module(given):
            from backproof.adapters.torch.candidate import from_module  # noqa: PLC0415  (torch is imported where it is used)

            return from_module(given), {name: tuple(p.shape) for name, p in given.named_parameters()}
        return given.apply if _is_function(given) else given, None

    def facts(self) -> Mapping[str, str]:
        return {"torch threads": str(sys.modules["torch"].get_num_threads())} if "torch" in sys.modules else {}

    def layout(self, name: str) -> tuple[str, str]:
        from backproof.adapters.torch.candidate import LAYOUTS  # noqa: PLC0415  (torch is imported where it is used)

        return LAYOUTS[name].__name__, inspect.getsource(LAYOUTS[name])


def _is_module(given: Any) -> bool:
    return _descends(type(given), "torch.nn.modules.module", "Module")


def _is_function(given: Any) -> bool:
    return isinstance(given, type) and _descends(given, "torch.autograd.function", "Function")


def _descends(kind: type, module: str, name: str) -> bool:
    return any((cls.__module__, cls.__name__) == (module, name) for cls in kind.__mro__)


framework = Torch(
    "torch", module="torch", packages=("torch",), install='pip install "backproof[torch]"', rank=0,
    adapters={"torch": "backproof.adapters.torch:eager", "torch:func": "backproof.adapters.torch:func",
              "torch:compile": "backproof.adapters.torch:compiled"},
    default="torch", calls="backproof.adapters.torch.candidate:driver", kinds="a torch.nn.Module or torch.autograd.Function",
    tables="backproof.adapters.torch", scripts=texts(files("backproof.adapters") / "torch"),
)
