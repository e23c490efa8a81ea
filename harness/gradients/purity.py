"""Whether the two functions are functions of their argument alone.

They are not where they share memory, change their argument, return other numbers when called again, or read what an earlier call left.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from backproof.gradients.derivatives import LossDerivatives
from backproof.gradients.model import FailedError, d
from backproof.gradients.record import Record
from backproof.gradients.wellformed import comparable, is_float_array
from backproof.proof.directions import index_of
from backproof.truth.random_rounding import HALF

__all__ = ["PurityCheck"]


class PurityCheck:
    """Calls of both functions, repeated and at other parameters; what makes them no pure functions is a finding of the record."""

    def __init__(self, derivatives: LossDerivatives, record: Record) -> None:
        self.model, self.derivatives, self.record = derivatives.model, derivatives, record

    def shared(self) -> None:
        """Report parameters that share memory; these are the caller's arrays, as the copies that the functions get share none."""
        for (first, a), (second, b) in combinations(self.model.raw.items(), 2):
            if a.size and b.size and np.may_share_memory(a, b) and np.shares_memory(a, b):
                sentence = (f"{first} and {second} share memory: an update of one in place changes the other; write {second} = "
                            f"{second}.copy(), or give tied parameters one name, with the sum of their gradients")
                self.record.problem("wrong", second, "shared-memory", sentence, name=second)

    def repeats(self, value: float, given: dict[str, Any]) -> bool:
        """Say whether the loss is a finite number, and both functions give the same numbers when called again, rounding aside."""
        model = self.model
        if not math.isfinite(value):
            sentence = f"loss is not finite: got {value}, expected a number; no derivative can be taken of it"
            self.record.problem("nonfinite", "loss", "nonfinite", sentence, entries=(1, 1), actual=value)
            return False
        values = [value, *(float(np.real(model.value(model.given))) for _ in range(2))]
        if not max(values) - min(values) <= HALF * max(map(abs, values)):
            sentence = (f"loss returns other numbers for the same parameters: got {', '.join(f'{v:.6g}' for v in values)}; draw masks and "
                        "batches once, outside, or from a generator that it seeds itself")
            self.record.problem("nondeterministic", "loss", "nondeterministic", sentence, entries=(1, 1), actual=values[1], expected=value)
            return False
        again = model.answers(model.given)
        for name, array in given.items():
            other = again[name]
            if comparable(array, other) and not _same(array, other):
                twice = _same(2 * array, other)
                how = "adds up over calls: the second returns twice what the first does" if twice else "is another at the second call"
                self._apart("nondeterministic", name, other, array, "accumulates" if twice else "nondeterministic",
                            f"{d(name)} {how}, for the same parameters")
                return False
        return True

    def _apart(self, verdict: str, name: str, actual: np.ndarray, expected: np.ndarray, code: str, sentence: str) -> None:
        """Report a gradient that differs from itself."""
        differs = (actual != expected) & ~(np.isnan(actual) & np.isnan(expected))
        index = index_of(np.argmax(np.where(differs, np.nan_to_num(np.abs(actual - expected), nan=np.inf), -1)), actual.shape)
        self.record.problem(verdict, d(name), code, sentence, name=name, index=index, entries=(int(differs.sum()), actual.size),
                            actual=float(actual[index]), expected=float(expected[index]))

    def mutation(self) -> None:
        """Report the parameters that a function changed."""
        self.model.watching = False  # what changes its argument does so at once; to look at each call would cost more than many a loss
        for name, (role, after) in self.model.changed.items():
            before = self.model.given[name]
            sentence = (f"{role} changes {name}, which it is given: what is computed from it next is of other parameters; write "
                        f"{name} = {name} - ... in place of {name} -= ..., or work on a copy")
            facts: dict[str, Any] = {"entries": (before.size, before.size)}
            if after.shape == before.shape and after.dtype != object:
                changed = np.argwhere(after != before)
                index = tuple(int(i) for i in changed[0])
                facts = {"index": index, "entries": (len(changed), before.size), "actual": float(after[index]),
                         "expected": float(before[index])}
            self.record.problem("wrong", name, "mutation", sentence, name=name, **facts)

    def stale(self) -> bool:
        """Say whether the loss depends on its parameters; report gradients that do not, or that use what `loss` left behind."""
        model = self.model
        scales, rng = self.derivatives.scales, self.derivatives.rng
        points = [{name: a + 2.0**-6 * scales[name] * rng.standard_normal(a.shape) for name, a in model.exact.items()} for _ in range(2)]
        try:
            fresh = model.answers(model.exact)
            there = [model.answers(point) for point in points]  # which leaves the last point's cache behind
            after = model.gradients_alone(model.exact)
            values = [float(np.real(model.value(point))) for point in points]
        except (FailedError, TypeError, ValueError):
            return True  # no word on other parameters than the given ones
        if not any(is_float_array(array) and array.any() for array in fresh.values()):
            return True
        if values == [self.derivatives.base, self.derivatives.base]:
            sentence = "loss does not change when its parameters do: it reads others, as a global or a cache, in place of its argument"
            self.record.problem("wrong", "loss", "stale", sentence, entries=(1, 1), actual=values[0])
            return False
        for name, array in fresh.items():
            if comparable(array, after[name]) and not _same(array, after[name]):
                sentence = (f"{d(name)} uses what the last call of loss left behind, as a cache: after a loss of other parameters it is "
                            "another; run the forward pass inside gradients")
                self._apart("wrong", name, after[name], array, "stale", sentence)
                return True
        if all(comparable(a, b) and np.array_equal(a, b) for other in there for a, b in zip(fresh.values(), other.values(), strict=True)):
            by = self.derivatives.direction(*model.exact)
            (first, first_error), (second, second_error) = (
                self.derivatives.along(by, point=self.derivatives.vector(point)) for point in points)
            if abs(first - second) > first_error + second_error:
                sentence = ("gradients does not change when its parameters do, and the derivative of loss does: it reads others, as a "
                            "global or a cache, in place of its argument")
                self.record.problem("wrong", "gradients", "stale", sentence)
        return True


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Say whether two gradients are the same but for rounding, which leaves half the digits; NaN is like NaN."""
    with np.errstate(invalid="ignore"):
        largest = np.max(np.abs(np.where(np.isfinite(a), a, 0)), initial=0.0)
        return bool((np.abs(a - b) <= math.sqrt(np.finfo(a.dtype).eps) * largest).all()) or np.array_equal(a, b, equal_nan=True)
