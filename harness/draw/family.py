"""A layer as strategies see it: which shapes it takes, and how to draw it for one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backproof.reference.layer import Layer, Shape
from hypothesis import strategies as st

__all__ = ["FEW", "LARGEST", "SIZES", "Draw", "Family"]

SIZES = (1, 2, 3, 4, 5, 8, 13, 16, 32)
FEW = (1, 2, 3, 4)
LARGEST = 256  # entries of an example beyond which no layer is drawn that makes it larger

Draw = Callable[[Shape], st.SearchStrategy[Layer]]


@dataclass(frozen=True)
class Family:
    """A layer as strategies see it: `fits` says whether it takes a shape, `draw` how to draw one that does.

    `first` marks a layer that takes whole numbers, which only the input of a network holds.
    """

    draw: Draw
    fits: Callable[[Shape], bool] = lambda shape: True
    first: bool = False
