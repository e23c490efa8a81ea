"""The check of one gradient: the verdict on all its entries, or on a sample and on random sums of a large one."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
from backproof.gradients.model import d
from backproof.gradients.partial import Partial
from backproof.gradients.truth import Slopes, stand_in
from backproof.judge.certify import Certificate, judge
from backproof.proof.methods import place_of
from backproof.reference.rounding import Arithmetic, Rounded
from backproof.report.report import SelfTest
from backproof.truth.random_rounding import FLOAT64

__all__ = ["NAMED", "SUMS", "One"]

ENTRIES, SAMPLE = 2000, 256  # a parameter with more entries than that is judged in random sums and on a sample
LARGEST = 16  # entries of such a sample that are the largest
SUMS = 3  # of random directions of such a parameter
NAMED = 8  # wrong entries of a large parameter that are looked for
KINKS = 64  # entries that are looked at for kinks


class One:
    """The gradient of one parameter, in float64, against its truth."""

    def __init__(self, slopes: Slopes, skipped: Counter[str], name: str, actual: np.ndarray, responses: list[np.ndarray],
                 size: float) -> None:
        self.model, self.slopes, self.skipped, self.partial = slopes.model, slopes, skipped, Partial(slopes, name)
        self.name, self.actual, self.responses, self.size = name, actual, responses, size
        self.whole = actual.size <= ENTRIES
        self.places = np.arange(actual.size) if self.whole else self._sample()
        self.truth = self.partial.truth(self.places)
        self.own = max((float(np.max(np.abs(r))) for r in responses), default=0.0)
        self.excused = np.zeros(len(self.places), dtype=bool)
        self.stopped = False

    @property
    def elsewhere(self) -> int:
        """How many entries are judged in sums only."""
        return self.actual.size - len(self.places)

    @property
    def flat(self) -> np.ndarray:
        return self.actual.reshape(-1)

    def _sample(self) -> np.ndarray:
        """Return places drawn at random, those of the largest entries, and the corners."""
        size = self.flat.size
        largest = np.argsort(-np.abs(self.flat))[:LARGEST]
        return np.unique(np.concatenate([self.slopes.rng.choice(size, SAMPLE, replace=False), largest, [0, size - 1]]))

    # The verdict.

    def ball(self) -> Rounded:
        """Return the truth at the places, as an array of the gradient's shape where they are all, with its bound."""
        largest = float(np.max(np.abs(self.truth.values), initial=0.0))
        bound = self.truth.errors + self.own + self.size * largest
        shape = self.actual.shape if self.whole else (len(self.places),)
        return Rounded(self.truth.values.reshape(shape), bound.reshape(shape), Arithmetic(FLOAT64))

    def _judged(self, actual: np.ndarray | None = None) -> Certificate:
        ball = self.ball()
        numbers = (self.flat[self.places] if actual is None else actual).reshape(ball.shape)
        found = judge(stand_in(self.model, self.name, ball), d(self.name), numbers, ball, FLOAT64, self.excused.reshape(ball.shape))
        with np.errstate(invalid="ignore"):
            difference, bound = np.abs(numbers - ball.value), ball.radius()
            open_ = (difference != 0) & (difference <= bound) & (bound >= np.abs(ball.value))
        found = replace(found, inconclusive=int(np.count_nonzero(open_)))
        if found.failed:
            return found
        if self.excused.any():
            kept = self.excused.reshape(ball.shape)
            index = place_of(np.argmax(kept), ball.shape)
            return replace(found, verdict="convention", conventions=int(kept.sum()), index=index, actual=numbers, ball=ball)
        return replace(found, verdict="inconclusive" if open_.all() else "agrees")

    def certificate(self) -> Certificate:
        """Return the verdict on all places; what is outside is looked at again, the worst entry first."""
        found = self._judged()
        if found.failed:
            outside = self._outside()
            if not self.truth.by_steps and self._refined(outside[:1]):
                self._refined(outside[1:])
                found, outside = self._judged(), self._outside()
            if found.failed and self._at_kink(outside[0]):
                for k in outside[1:KINKS]:
                    self._at_kink(k)
                if len(outside) > KINKS and self.excused[outside[:KINKS]].all():
                    self.excused[outside] = True
                    self.skipped[f"{d(self.name)} outside, taken to be at kinks as {KINKS} others are"] += len(outside) - KINKS
                found = self._judged()
        if self.whole:
            return found
        if len(self._outside()) <= NAMED:
            found = self._summed(found.margin)
        return self._placed(found) if found.failed or found.conventions else found

    def _outside(self) -> np.ndarray:
        """Return the positions among the places that are outside, the worst first."""
        ball = self.ball()
        difference = np.abs(self.flat[self.places] - ball.value.reshape(-1))
        outside = np.flatnonzero((difference > ball.radius().reshape(-1)) & ~self.excused)
        return outside[np.argsort(-difference[outside])]

    def _refined(self, which: np.ndarray) -> bool:
        """Take differences of other steps and widen the errors to what both say; say whether one is inside now."""
        if not len(which):
            return True
        values, errors = self.partial.by_differences(self.places[which], shrink=1 / 3)
        apart = np.abs(values - self.truth.values[which])
        self.truth.errors[which] = np.maximum(self.truth.errors[which], errors) + apart
        return not set(which) <= set(self._outside())

    def _at_kink(self, position: int) -> bool:
        """Say whether an entry may be right, since the loss has no derivative there; excuse it, or leave it open.

        Clarke's generalized gradient is the hull of the limits of the derivatives nearby. Differences see a kink also as a jump between
        the two sides that stays however small the steps are. As not every limit is found, what is outside of their hull by less than its
        width is left open.
        """
        place, actual = self.places[position : position + 1], float(self.flat[self.places[position]])
        value, bound = float(self.truth.values[position]), float(self.ball().radius().reshape(-1)[position])
        by_steps = self.truth.by_steps
        ranges = [(value - bound, value + bound)] if by_steps else self.partial.sides(place)
        for nearby in self.partial.nearby(place[0], 2 * bound if by_steps else 0.0, by_steps=by_steps):
            lows, highs = zip(*ranges, nearby, strict=True)
            ranges.append(nearby)
            if max(lows) > min(highs) and min(lows) <= actual <= max(highs):  # two ranges that do not meet: there is a kink
                self.excused[position] = True
                return True
        lows, highs = zip(*ranges, strict=True)
        width = max(highs) - min(lows)
        if max(lows) > min(highs) and min(lows) - width <= actual <= max(highs) + width:
            self.truth.errors[position] = math.inf
            return True
        return False

    # Of a large parameter: sums over all entries, and the entries that they betray.

    def _gap(self, by: np.ndarray) -> tuple[float, float]:
        """Return the sum of gradient times direction less its truth, and what that truth may be off by if it is a difference."""
        if self.truth.by_steps:
            truth, error = self.partial.step({self.name: by}), 0.0
        else:
            (truth,), (error,) = self.slopes.differences([{self.name: by}])
        return math.fsum((by * self.actual).reshape(-1)) - truth, error

    def _sum_bound(self, by: np.ndarray, error: float) -> float:
        """Return what rounding may make of such a sum."""
        own = max((abs(float(np.vdot(by, r))) for r in self.responses), default=0.0)
        if self.truth.by_steps:
            error = self.slopes.step_error({self.name: by})
        terms = by * self.actual
        return own + error + self.size * max(abs(float(np.sum(terms))), float(np.max(np.abs(terms))))

    def _summed(self, margin: float) -> Certificate:
        """Judge random sums of all entries but the wrong ones; where one is outside, find by halving an entry that makes it so."""
        for _ in range(SUMS):
            by = self.slopes.direction(self.name)[self.name]
            while len(outside := self._outside()) < NAMED:
                known = np.concatenate([self.places[outside], self.places[self.excused | np.isinf(self.truth.errors)]])
                by.reshape(-1)[known] = 0.0
                gap, error = self._gap(by)
                if not math.isfinite(gap) or not math.isfinite(error):
                    self.skipped[f"random sums of {d(self.name)} whose truth is not finite"] += 1
                    break
                bound = self._sum_bound(by, error)
                if abs(gap) <= bound:
                    margin = max(margin, abs(gap) / bound if bound else 0.0)
                    break
                self._include(self._halved(by, gap))
                if not self._at_kink(len(self.places) - 1) and len(self._outside()) == len(outside):
                    self.skipped[f"random sums of {d(self.name)} that are off by more than its entries"] += 1
                    break
        self.stopped = len(self._outside()) >= NAMED
        found = self._judged()
        return found if found.failed else replace(found, margin=margin, excess=max(found.excess, margin))

    def _include(self, place: int) -> None:
        """Take an entry among those that are judged one by one."""
        values, errors = self._truths(np.array([place]))
        self.truth.values = np.append(self.truth.values, values)
        self.truth.errors = np.append(self.truth.errors, np.min(self.truth.errors) if self.truth.by_steps else errors)
        self.places, self.excused = np.append(self.places, place), np.append(self.excused, np.False_)

    def _truths(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.truth.by_steps:
            return np.array([self.partial.step(self.partial.unit(place)) for place in places]), np.zeros(len(places))
        return self.partial.by_differences(places)

    def _halved(self, by: np.ndarray, gap: float) -> int:
        """Return the place of an entry that makes a sum wrong."""
        places = np.flatnonzero(by)
        while len(places) > 1:
            left, right = np.array_split(places, 2)
            part = np.zeros(by.size)
            part[left] = by.reshape(-1)[left]
            off, _ = self._gap(part.reshape(by.shape))
            places, gap = (left, off) if abs(off) >= abs(gap - off) else (right, gap - off)
        return int(places[0])

    def _placed(self, found: Certificate) -> Certificate:
        """Return a certificate of the sample as one of the whole tensor, NaN where the truth is not known."""
        ball, shape = self.ball(), self.actual.shape
        value, bound = np.full(self.actual.size, np.nan), np.full(self.actual.size, np.inf)
        value[self.places], bound[self.places] = ball.value, ball.radius()
        index = place_of(self.places[found.index[0]], shape) if found.index else ()
        whole = Rounded(value.reshape(shape), bound.reshape(shape), Arithmetic(FLOAT64))
        return replace(found, index=index, actual=self.actual, ball=whole)

    def plant(self, test: SelfTest) -> None:
        """Put one wrong entry, off by about 1e-4 of the largest, into a gradient that agrees, and see whether it is found."""
        largest = float(np.max(np.abs(self.truth.values), initial=0.0))
        position = int(self.slopes.rng.integers(len(self.places)))
        by, bound = 2.0**-13 * largest, float(self.ball().radius().reshape(-1)[position])
        if not by > 2 * bound:
            test.hidden += largest > 0
            return
        planted = self.flat[self.places].copy()
        planted[position] += by
        found = self._judged(planted)
        test.planted += 1
        test.caught += found.failed
        test.blamed += found.failed and found.index == place_of(position, found.ball.shape if found.ball is not None else ())
        test.by_mistake["one entry off by 2**-13 of the largest"] += 1
        if not found.failed:
            test.missed.append(f"{d(self.name)}: one entry off by 2**-13 of the largest")
