"""Arrays of a kind of numbers that NumPy's functions do not know in every place: complex steps, rationals, balls, noisy numbers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

__all__ = ["Lifted"]


class Lifted(np.ndarray[Any, Any]):
    """An array whose NumPy functions return arrays of the same class; `rules` replaces functions that would be wrong for its numbers.

    `kind` is the kind of dtype that a result must have to stay of this class; `scalars` are the types of single numbers that NumPy takes
    out of arrays of objects, which become arrays without an axis again.
    """

    rules: ClassVar[dict[Any, Any]] = {}
    kind: ClassVar[str]
    scalars: ClassVar[tuple[type, ...]] = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [np.asarray(x) if isinstance(x, Lifted) else x for x in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(x.view(np.ndarray) if isinstance(x, Lifted) else x for x in kwargs["out"])
        rule = self.rules.get(ufunc) if method == "__call__" and not kwargs else None
        return self._lifted(getattr(ufunc, method)(*plain, **kwargs) if rule is None else rule(*plain))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._lifted(super().__array_function__(function, types, args, kwargs))

    def _lifted(self, result: Any) -> Any:
        if type(result) in {tuple, list}:
            return type(result)(self._lifted(x) for x in result)
        if isinstance(result, self.scalars):
            result = np.array(result, dtype=object)
        if isinstance(result, (np.ndarray, np.complexfloating)) and result.dtype.kind == self.kind:
            return np.asarray(result).view(type(self))
        return result
