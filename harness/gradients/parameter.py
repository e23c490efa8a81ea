"""The check of one gradient: the verdict on all its entries, or on a sample and on random sums of a large one."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
from backproof.gradients.derivatives import LossDerivatives
from backproof.gradients.model import d
from backproof.gradients.stand_in import stand_in
from backproof.judge.certificate import Certificate
from backproof.judge.comparing import compare
from backproof.proof.directions import index_of
from backproof.reference.rounding import Arithmetic, Rounded
from backproof.report.results import SelfTest
from backproof.truth.brackets import Brackets
from backproof.truth.random_rounding import FLOAT64

__all__ = ["NAMED", "SUMS", "ParameterCheck"]

ENTRIES, SAMPLE = 2000, 256  # a parameter with more entries than that is judged in random sums and on a sample
LARGEST = 16  # entries of such a sample that are the largest
SUMS = 3  # of random directions of such a parameter
NAMED = 8  # wrong entries of a large parameter that are looked for
KINKS = 64  # entries that are looked at for kinks


class ParameterCheck:
    """The gradient of one parameter, in float64, against its truth.

    `actual` is the gradient that was handed in. `responses` are its changes under random errors, and `size` is the size of such errors.
    `entries` are the indices, in the flat gradient, of the entries that are judged one by one: all, or a sample of a large parameter. A
    position counts among these. `kinks` says which of them are right at a kink.
    """

    def __init__(self, derivatives: LossDerivatives, skipped: Counter[str], name: str, actual: np.ndarray, responses: list[np.ndarray],
                 size: float) -> None:
        self.model, self.derivatives, self.skipped = derivatives.model, derivatives, skipped
        self.name, self.actual, self.responses, self.size = name, actual, responses, size
        self.first = derivatives.slices[name].start
        self.whole = actual.size <= ENTRIES
        self.entries = np.arange(actual.size) if self.whole else self._sample()
        self.truth = derivatives.truth(name, self.first + self.entries)
        self.largest_response = max((float(np.max(np.abs(r))) for r in responses), default=0.0)
        self.kinks = np.zeros(len(self.entries), dtype=bool)
        self.stopped = False

    @property
    def only_in_sums(self) -> int:
        """How many entries are judged in sums only."""
        return self.actual.size - len(self.entries)

    @property
    def flat(self) -> np.ndarray:
        return self.actual.reshape(-1)

    def _sample(self) -> np.ndarray:
        """Return the indices of entries drawn at random, of the largest, and of the first and last one."""
        size = self.flat.size
        largest = np.argsort(-np.abs(self.flat))[:LARGEST]
        return np.unique(np.concatenate([self.derivatives.rng.choice(size, SAMPLE, replace=False), largest, [0, size - 1]]))

    # The verdict.

    def ball(self) -> Rounded:
        """Return the true entries with their bounds, as an array of the gradient's shape where all are judged one by one."""
        largest = float(np.max(np.abs(self.truth.values), initial=0.0))
        bound = self.truth.errors + self.largest_response + self.size * largest
        shape = self.actual.shape if self.whole else (len(self.entries),)
        return Rounded(self.truth.values.reshape(shape), bound.reshape(shape), Arithmetic(FLOAT64))

    def _compared(self, actual: np.ndarray | None = None) -> Certificate:
        """Compare the entries, or others in their place, with the truth."""
        ball = self.ball()
        numbers = (self.flat[self.entries] if actual is None else actual).reshape(ball.shape)
        kinks = self.kinks.reshape(ball.shape)
        certificate = compare(stand_in(self.model, self.name, ball), d(self.name), numbers, ball, FLOAT64, kinks)
        with np.errstate(invalid="ignore"):
            difference, bound = np.abs(numbers - ball.value), ball.radius()
            undecided = (difference != 0) & (difference <= bound) & (bound >= np.abs(ball.value))
        certificate = replace(certificate, inconclusive=int(np.count_nonzero(undecided)))
        if certificate.failed:
            return certificate
        if kinks.any():
            index = index_of(np.argmax(kinks), ball.shape)
            return replace(certificate, verdict="convention", conventions=int(kinks.sum()), index=index, actual=numbers, ball=ball)
        return replace(certificate, verdict="inconclusive" if undecided.all() else "agrees")

    def certificate(self) -> Certificate:
        """Return the verdict on the whole gradient; entries outside their bound are looked at again, the worst first."""
        certificate = self._compared()
        if certificate.failed:
            outside = self._outside_positions()
            if self.truth.by_differences and self._refine(outside[:1]):
                self._refine(outside[1:])
                certificate, outside = self._compared(), self._outside_positions()
            if certificate.failed and self._at_kink(outside[0]):
                for position in outside[1:KINKS]:
                    self._at_kink(position)
                if len(outside) > KINKS and self.kinks[outside[:KINKS]].all():
                    self.kinks[outside] = True
                    self.skipped[f"{d(self.name)} outside, taken to be at kinks as {KINKS} others are"] += len(outside) - KINKS
                certificate = self._compared()
        if self.whole:
            return certificate
        if len(self._outside_positions()) <= NAMED:
            certificate = self._with_sums(certificate.margin)
        return self._of_whole(certificate) if certificate.failed or certificate.conventions else certificate

    def _outside_positions(self) -> np.ndarray:
        """Return the positions of the entries outside their bound, the worst first."""
        ball = self.ball()
        difference = np.abs(self.flat[self.entries] - ball.value.reshape(-1))
        outside = np.flatnonzero((difference > ball.radius().reshape(-1)) & ~self.kinks)
        return outside[np.argsort(-difference[outside])]

    def _refine(self, positions: np.ndarray) -> bool:
        """Take differences of other steps and widen the errors to what both say; say whether an entry is inside its bound now."""
        if not len(positions):
            return True
        values, errors = self.derivatives.by_entries(self.first + self.entries[positions], shrink=1 / 3)
        apart = np.abs(values - self.truth.values[positions])
        self.truth.errors[positions] = np.maximum(self.truth.errors[positions], errors) + apart
        return not set(positions) <= set(self._outside_positions())

    def _at_kink(self, position: int) -> bool:
        """Say whether an entry may be right because the loss has no derivative there; mark it as a kink, or leave it open.

        Clarke's generalized gradient is the hull of the limits of the derivatives nearby. Differences see a kink also as a jump between
        the two sides that stays however small the steps are. As not every limit is looked at, an entry outside of their hull by less than
        its width is left open.
        """
        entry, actual = self.first + self.entries[position], float(self.flat[self.entries[position]])
        bound, ranges, only = self.ball().radius().reshape(-1)[position : position + 1], Brackets(1), np.arange(1)
        by_steps = not self.truth.by_differences
        if by_steps:
            ranges.add(only, self.truth.values[position : position + 1], bound)
        else:
            apart, both = self.derivatives.one_sided([entry])
            for values, errors in both if apart[0] else ():
                ranges.add(only, values, errors)
        for values, errors in self.derivatives.limits(entry, float(bound[0]), by_steps=by_steps):
            ranges.add(only, values, errors)
            (low,), (high,) = ranges.hull
            if ranges.apart[0] and low <= actual <= high:
                self.kinks[position] = True
                return True
        (low,), (high,) = ranges.hull
        if ranges.apart[0] and low - (high - low) <= actual <= high + (high - low):
            self.truth.errors[position] = math.inf
            return True
        return False

    # Of a large parameter: sums over all entries, and the entries that make them wrong.

    def _gap(self, by: np.ndarray) -> tuple[float, float]:
        """Return the sum of gradient times direction less its truth, and what that truth may be off by if it is a difference."""
        along = self.derivatives.embedded(self.name, by)
        truth, error = self.derivatives.along(along) if self.truth.by_differences else (self.derivatives.step_or_nan(along), 0.0)
        return math.fsum((by * self.actual).reshape(-1)) - truth, error

    def _sum_bound(self, by: np.ndarray, error: float) -> float:
        """Return what rounding may make of such a sum."""
        response = max((abs(float(np.vdot(by, r))) for r in self.responses), default=0.0)
        if not self.truth.by_differences:
            error = self.derivatives.step_error(self.derivatives.embedded(self.name, by))
        terms = by * self.actual
        return response + error + self.size * max(abs(float(np.sum(terms))), float(np.max(np.abs(terms))))

    def _with_sums(self, margin: float) -> Certificate:
        """Judge random sums of all entries but the wrong ones; where one is outside, find by halving an entry that makes it so."""
        for _ in range(SUMS):
            by = self.derivatives.named(self.derivatives.direction(self.name))[self.name]
            while len(outside := self._outside_positions()) < NAMED:
                left_out = np.concatenate([self.entries[outside], self.entries[self.kinks | np.isinf(self.truth.errors)]])
                by.reshape(-1)[left_out] = 0.0
                gap, error = self._gap(by)
                if not math.isfinite(gap) or not math.isfinite(error):
                    self.skipped[f"random sums of {d(self.name)} whose truth is not finite"] += 1
                    break
                bound = self._sum_bound(by, error)
                if abs(gap) <= bound:
                    margin = max(margin, abs(gap) / bound if bound else 0.0)
                    break
                self._include(self._halved(by, gap))
                if not self._at_kink(len(self.entries) - 1) and len(self._outside_positions()) == len(outside):
                    self.skipped[f"random sums of {d(self.name)} that are off by more than its entries"] += 1
                    break
        self.stopped = len(self._outside_positions()) >= NAMED
        certificate = self._compared()
        return certificate if certificate.failed else replace(certificate, margin=margin, excess=max(certificate.excess, margin))

    def _include(self, entry: int) -> None:
        """Take an entry among those that are judged one by one."""
        if self.truth.by_differences:
            values, errors = self.derivatives.by_entries([self.first + entry])
        else:
            values = np.array([self.derivatives.step_or_nan(self.derivatives.unit(self.first + entry))])
            errors = np.array([np.min(self.truth.errors)])
        self.truth.values, self.truth.errors = np.append(self.truth.values, values), np.append(self.truth.errors, errors)
        self.entries, self.kinks = np.append(self.entries, entry), np.append(self.kinks, np.False_)

    def _halved(self, by: np.ndarray, gap: float) -> int:
        """Return the index of an entry that makes a sum wrong."""
        entries = np.flatnonzero(by)
        while len(entries) > 1:
            left, right = np.array_split(entries, 2)
            part = np.zeros(by.size)
            part[left] = by.reshape(-1)[left]
            off, _ = self._gap(part.reshape(by.shape))
            entries, gap = (left, off) if abs(off) >= abs(gap - off) else (right, gap - off)
        return int(entries[0])

    def _of_whole(self, certificate: Certificate) -> Certificate:
        """Return a certificate of the sample as one of the whole tensor, NaN where the truth is not known."""
        ball, shape = self.ball(), self.actual.shape
        value, bound = np.full(self.actual.size, np.nan), np.full(self.actual.size, np.inf)
        value[self.entries], bound[self.entries] = ball.value, ball.radius()
        index = index_of(self.entries[certificate.index[0]], shape) if certificate.index else ()
        whole = Rounded(value.reshape(shape), bound.reshape(shape), Arithmetic(FLOAT64))
        return replace(certificate, index=index, actual=self.actual, ball=whole)

    # The check of the check.

    def plant(self, test: SelfTest) -> None:
        """Put one wrong entry, off by about 1e-4 of the largest, into a gradient that agrees, and see whether it is found."""
        largest = float(np.max(np.abs(self.truth.values), initial=0.0))
        position = int(self.derivatives.rng.integers(len(self.entries)))
        by, bound = 2.0**-13 * largest, float(self.ball().radius().reshape(-1)[position])
        if not by > 2 * bound:
            test.hidden += largest > 0
            return
        planted = self.flat[self.entries].copy()
        planted[position] += by
        certificate = self._compared(planted)
        shape = certificate.ball.shape if certificate.ball is not None else ()
        test.planted += 1
        test.caught += certificate.failed
        test.blamed += certificate.failed and certificate.index == index_of(position, shape)
        test.by_mistake["one entry off by 2**-13 of the largest"] += 1
        if not certificate.failed:
            test.missed.append(f"{d(self.name)}: one entry off by 2**-13 of the largest")
