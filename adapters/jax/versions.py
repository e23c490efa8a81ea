"""What moved within jax between 0.4.30 and 0.10: what has two names is asked for here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

import jax

__all__ = ["enable_x64", "quick_jit"]

enable_x64: Any = (jax if hasattr(jax, "enable_x64") else import_module("jax.experimental")).enable_x64

# XLA's code generator need not optimise what is not timed; what it fuses is decided before
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
OPTIONS: dict[str, Any] = {"compiler_options": QUICK} if "compiler_options" in signature(jax.jit).parameters else {}


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `jax.jit` of a function whose speed does not matter, which compiles faster where this version can be asked to."""
    return jax.jit(function, **OPTIONS)
