"""Every layer and head there is; importing this enrols them."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["load_all"]

NO_LAYERS = frozenset({"library", "network", "case", "values", "trace", "usage", "whole"})
"""Modules that stand on top of the layers."""


def load_all() -> None:
    """Import every module of the package that may hold layers."""
    package = __name__.rpartition(".")[0]
    for module in iter_modules(import_module(package).__path__):
        if module.name not in NO_LAYERS:
            import_module(f"{package}.{module.name}")


load_all()
