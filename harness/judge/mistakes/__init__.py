"""The mistakes people make in a backward, each as a way to compute the wrong tensor: the general ones, then each family's own."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from backproof.judge.mistakes.general import MISTAKES as GENERAL
from backproof.judge.mistakes.mistake import Mistake, RunRule

__all__ = ["MISTAKES", "Mistake", "RunRule"]


def _families() -> tuple[Mistake, ...]:
    modules = (import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__) if module.name != "general")
    return tuple(mistake for module in modules for mistake in getattr(module, "MISTAKES", ()))


MISTAKES: tuple[Mistake, ...] = (*GENERAL, *_families())
