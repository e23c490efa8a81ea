"""The line of a layer's derivation that gives a tensor, from the docstring of the layer's own rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields

from backproof.reference.layer import Rule

__all__ = ["derivation"]

ALIASES = {"dz": ("dJ/dz", "dJ/da"), "dweight": ("dweight", "dW", "dw"), "dbias": ("dbias", "db")}
"""What derivations call a gradient, where that is not the name of its input or parameter."""

INDEX = r"(?:[\w.']|\([^()=]*\))*"  # y_nk, x_n(i,j,...), dx_..j..i..


def derivation(layer: Rule, tensor: str) -> str:
    """Return the line of the layer's derivation that gives a tensor; nothing where no line does."""
    lines = [line for line in layer.derivation().splitlines() if _is_about_options(line, layer)]
    for name in layer.output_symbols if tensor == "output" else _names(tensor):
        for line in lines:
            match = re.search(rf"(?<![\w/])({re.escape(name)}{INDEX}\s+= .*)", line)
            if match:
                equation = re.sub(r"\s+=", " =", match.group(1))
                equation = re.split(r"\s{3,}|; (?![^(]*\))|, (?=dJ/d|of which|which)|: see ", equation)[0].rstrip(" ;")
                return equation if equation.endswith("..") else equation.rstrip(".")
    return ""


def _names(tensor: str) -> Iterator[str]:
    """Yield what the derivation may call a tensor: the names of numbered ones, and those of further layers and directions, stand for all.

    `dx_1` is a `dx_i`, `dweight_ih_l1_reverse` is given by `dweight_ih_l0`, and the last state `h_n` is an `h_t`.
    """
    yield from ALIASES.get(tensor, (tensor,))
    yield re.sub(r"_\d+$", "_i", tensor)
    yield re.sub(r"_l\d+(_reverse)?$", "_l0", tensor)
    yield re.sub(r"^(\w)_n$", r"\1_t", tensor)


def _is_about_options(line: str, layer: Rule) -> bool:
    """Say whether a line is about a layer's options: one that begins with `tanh:` is not where none of them has that value."""
    label = re.match(r"\s*(\w+):\s", line)
    options = {field.name: getattr(layer, field.name) for field in fields(layer)}  # type: ignore[arg-type]  # every rule is a dataclass
    if label is None or not options:
        return True
    word = label.group(1)
    return options["training"] == (word == "training") if "training" in options else word in options.values()
