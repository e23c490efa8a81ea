"""The way from an operator or a function of NumPy to the rule that rounded arithmetic has for it.

`UFUNCS` and `FUNCTIONS` are the tables of the rules, which `rules` fills. Arrays that are built on rounded ones bring rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from backproof.reference.rounding.silence import quiet
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["FUNCTIONS", "UFUNCS", "Dispatched", "Overriding", "apply_rule", "overridable"]

UFUNCS: dict[Any, Callable[..., Any]] = {}
"""The rule of each universal function of NumPy, such as `np.add`, which is given balls."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""The rule of each other function of NumPy, such as `np.sum`, which is given the arguments of the call."""


class Overriding(NDArrayOperatorsMixin):
    """An array built on rounded ones, whose own rules come before theirs: those of NumPy's functions and of the overridable ones here."""

    def overridden(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Call the array's own rule for a function."""
        raise NotImplementedError


def overridable(function: Any) -> Any:
    """Let an overriding array among the arguments of a function bring its own rule for it."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        for argument in args:
            for one in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(one, Overriding):
                    return one.overridden(called, args, kwargs)
        return function(*args, **kwargs)

    return called


class Dispatched(NDArrayOperatorsMixin):
    """An array whose operators and NumPy functions are the rules of the tables; its `arithmetic` lifts the other operands."""

    arithmetic: Any
    """An `Arithmetic` of the module `ball`."""

    def _with(self, ufunc: Any, x: Any, y: Any) -> Any:
        """Return what an operator, which is a ufunc of two operands, makes of these, of which self is one."""
        other = y if x is self else x
        if not isinstance(other, Dispatched):
            if isinstance(other, Overriding) or getattr(other, "__array_ufunc__", self) is None:
                return NotImplemented
            x, y = (a if a is self else self.arithmetic.lift(a) for a in (x, y))
        with quiet():
            return UFUNCS[ufunc](x, y)

    # straight to the rules: to go through NumPy's dispatch costs as much again as the operation on a small array
    def __add__(self, other: Any) -> Any:
        return self._with(np.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._with(np.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._with(np.subtract, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._with(np.subtract, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._with(np.multiply, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._with(np.multiply, other, self)

    def __truediv__(self, other: Any) -> Any:
        return self._with(np.divide, self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._with(np.divide, other, self)

    def __matmul__(self, other: Any) -> Any:
        return self._with(np.matmul, self, other)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, Overriding) for x in inputs):
            return NotImplemented
        rule = UFUNCS.get(ufunc)
        if rule is None or method != "__call__":
            raise TypeError(f"rounded arithmetic has no rule for {ufunc.__name__}.{method}; "
                            f"it knows {', '.join(sorted(u.__name__ for u in UFUNCS))}")
        if kwargs:
            raise TypeError(f"rounded arithmetic takes no options: got {', '.join(kwargs)} for {ufunc.__name__}. "
                            "Write `x = x + y` for `x += y`")
        operands = [x if isinstance(x, Dispatched) else self.arithmetic.lift(x) for x in inputs]
        with quiet():
            return rule(*operands)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return NotImplemented if any(issubclass(t, Overriding) for t in types) else apply_rule(function, args, kwargs)


def apply_rule(function: Any, args: Any, kwargs: Any) -> Any:
    """Return what the rule of a function of NumPy, not a ufunc, gives for the arguments of a call."""
    rule = FUNCTIONS.get(function)
    if rule is None:
        raise TypeError(f"rounded arithmetic has no rule for numpy.{function.__name__}; "
                        f"it knows {', '.join(sorted(f.__name__ for f in FUNCTIONS))}")
    with quiet():
        return rule(*args, **kwargs)
