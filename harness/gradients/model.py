"""The two functions under check and their parameters: how they are called, and how much random errors change what they return."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from backproof.reference.rounding import PRECISIONS
from backproof.reference.usage import UsageError, UsageTypeError
from backproof.truth.random_rounding import FLOAT64, HALF, SIZES, Noisy, Step, disturbed, error_size, errors
from backproof.wording import said

__all__ = ["DRAWS", "FailedError", "Gradients", "Loss", "Model", "d"]

Loss = Callable[[dict[str, Any]], Any]
Gradients = Callable[[dict[str, Any]], Mapping[str, Any]]

FORMATS = ("float64", "float32", "float16")
DRAWS = 8  # of random errors


class FailedError(Exception):
    """One of the two functions raised."""

    def __init__(self, role: str, error: Exception) -> None:
        super().__init__(f"{role} raises {said(error)}")
        self.role = role


class Model:
    """The two functions and their parameters.

    Both functions are given copies, since they may change their argument. `given` holds the parameters as they came, `exact` the same in
    float64, `precision` is the coarsest of their formats. While `watching` is true, `changed` fills with the parameters that a call
    changed: the role of the function and the array after it. `extra` holds the gradients of the last call that belong to no parameter.
    """

    def __init__(self, loss: Loss, gradients: Gradients, parameters: Mapping[str, np.ndarray], seed: int) -> None:
        for role, function in (("loss", loss), ("gradients", gradients)):
            if not callable(function):
                raise UsageTypeError(f"{role} is no function: got {type(function).__name__}, expected {role}(parameters)")
        if not isinstance(seed, int) or seed < 0:
            raise UsageError(f"check_gradients needs a seed of at least 0: got {seed!r}")
        self.loss, self.gradients, self.seed = loss, gradients, seed
        self.given, self.raw = _checked(parameters), dict(parameters)
        self.exact = {name: array.astype(np.float64) for name, array in self.given.items()}
        self.precision = max((PRECISIONS[a.dtype.name] for a in self.given.values()), key=lambda p: p.store)
        self.watching = True
        self.changed: dict[str, tuple[str, np.ndarray]] = {}
        self.extra: dict[str, Any] = {}

    @property
    def path(self) -> str:
        """What stands for the place of a layer in a finding: the name of the function that gives the gradients."""
        return str(getattr(self.gradients, "__name__", type(self.gradients).__name__))

    def value(self, parameters: Mapping[str, np.ndarray]) -> Any:
        """Return the loss as a Python number. Raises TypeError or ValueError where it is none."""
        Step.last = None
        given = {name: array.copy() for name, array in parameters.items()}
        value = self._called("loss", self.loss, given, parameters)
        if isinstance(value, float) and Step.last is not None and _same_number(value, Step.last.real):
            return Step.last  # the loss ends in float(), which drops the imaginary part
        array = np.asarray(value)
        if array.dtype.kind not in "fciub":
            raise UsageTypeError(f"loss returns no number: got {type(value).__name__}, expected a float; return the cost itself")
        if array.size != 1:
            raise UsageError(f"loss returns an array of shape {array.shape}: got {array.size} numbers, expected one; sum or average them, "
                             "as in `return np.sum(losses) / m`")
        return array.reshape(-1)[0].item()

    def answers(self, parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return copies of the gradients by parameter name, None where there is none; `loss` is called first, for a cache to be fresh."""
        self.value(parameters)
        return self.gradients_alone(parameters)

    def gradients_alone(self, parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return what `answers` does, without a call of `loss`."""
        given = {name: array.copy() for name, array in parameters.items()}
        answer = self._called("gradients", self.gradients, given, parameters)
        if not isinstance(answer, Mapping):
            raise UsageTypeError(f"gradients returns no dict: got {type(answer).__name__}, expected one array per parameter, as in "
                            f"{{{', '.join(f'{d(name)!r}: {d(name)}' for name in self.given)}}}")
        keys = {name: d(name) if d(name) in answer else name for name in self.given}
        self.extra = {str(key): value for key, value in answer.items() if key not in keys.values()}
        return {name: None if answer.get(key) is None else np.array(answer[key]) for name, key in keys.items()}

    def _called(self, role: str, function: Callable[[dict[str, Any]], Any], given: dict[str, Any], before: Mapping[str, Any]) -> Any:
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                result = function(given)
        except Exception as error:
            raise FailedError(role, error) from error
        for name, array in before.items() if self.watching else ():
            after = given.get(name)
            if not isinstance(after, np.ndarray) or not np.array_equal(np.asarray(array), np.asarray(after), equal_nan=True):
                self.changed.setdefault(name, (role, np.array(after, dtype=object if after is None else None)))
        return result

    def noisy(self, size: float, call: Callable[[Mapping[str, Any]], Any], kind: type[Noisy] = Noisy,
              parameters: Mapping[str, np.ndarray] | None = None, draws: int = DRAWS) -> list[Any]:
        """Return what a call gives under each draw of random errors; where it does not take such arrays, the parameters alone are off."""
        results = []
        for draw in range(draws):
            with errors(draw + DRAWS * self.seed, size):
                off = {name: disturbed(array) for name, array in (parameters or self.exact).items()}
                for lifted in ({name: np.asarray(array).view(kind) for name, array in off.items()}, off):
                    try:
                        results.append(call(lifted))
                    except Exception:  # noqa: BLE001, S112  (a function need not take such arrays)
                        continue
                    break
        return results

    def moves(self, call: Callable[[Mapping[str, Any]], float], center: float, kind: type[Noisy] = Noisy,
              parameters: Mapping[str, np.ndarray] | None = None, draws: int = DRAWS) -> float:
        """Return how much a number changes at most under rounding in float64; `center` is the number without random errors."""
        for size in SIZES:
            changes = [abs(value - center) for value in self.noisy(size, call, kind, parameters, draws)]
            if finite := [change for change in changes if math.isfinite(change)]:
                return max(finite) * error_size(FLOAT64) / size
        return HALF * abs(center)

    def carries(self, call: Callable[[Mapping[str, Any]], Any]) -> Any:
        """Return what a call gives where the parameters are exact and every operation has a random error; None where it raises."""
        with errors(0, HALF):
            try:
                return call({name: array.view(Noisy) for name, array in self.exact.items()})
            except Exception:  # noqa: BLE001  (a function need not take such arrays)
                return None

    def answers_anyhow(self, parameters: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the gradients; an error of `loss` is ignored, since it is called only to fill its cache."""
        with suppress(Exception):
            self.value(parameters)
        return self.gradients_alone(parameters)


def d(name: str) -> str:
    """Return the name of a parameter's gradient."""
    return f"d{name}"


def _same_number(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _checked(parameters: Any) -> dict[str, np.ndarray]:
    if not isinstance(parameters, Mapping):
        raise UsageTypeError(f"parameters is no dict: got {type(parameters).__name__}, "
                             "expected arrays by name, as in {'W1': W1, 'b1': b1}")
    if not parameters:
        raise UsageError("parameters is empty: got no array, expected at least one, as in {'W1': W1, 'b1': b1}")
    for name, array in parameters.items():
        if not isinstance(name, str):
            raise UsageTypeError(f"a parameter has no name: got the key {name!r}, expected a string, as in {{'W1': W1}}")
        if not isinstance(array, np.ndarray):
            raise UsageTypeError(f"{name} is no array: got {type(array).__name__}, expected a NumPy array; write np.array({name})")
        if array.dtype.name not in FORMATS:
            raise UsageTypeError(f"{name} holds {array.dtype}: expected one of {', '.join(FORMATS)}; write {name}.astype(float)")
        if not np.isfinite(array).all():
            raise UsageError(f"{name} is not finite: got {np.count_nonzero(~np.isfinite(array))} of {array.size} entries that are not")
    return {name: np.array(array, copy=True, subok=False) for name, array in parameters.items()}
