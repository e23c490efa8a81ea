"""The run tests itself: mistakes planted into real traces, which the certificates must catch and blame on the right tensor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from backproof.judge.certify import certify_step
from backproof.judge.classify import natural_scale
from backproof.judge.mistakes import MISTAKES
from backproof.judge.mistakes.general import MISTAKES as GENERAL
from backproof.judge.neighbourhood import Neighbourhood
from backproof.judge.rules import expected, expected_plain, tensors
from backproof.judge.subgradients import conserves
from backproof.reference.rounding import Arithmetic, Precision, Rounded, quiet
from backproof.reference.trace import LayerTrace, Trace
from backproof.report.results import SelfTest

__all__ = ["Planter", "with_tensor"]

PART = 1e-4  # the smallest mistake planted: one part in ten thousand of the largest entry of a tensor


CANCELLED = 2.0**-20  # of the natural scale: below, a tensor is the difference of numbers a million times larger
FINEST = 2.0**-53  # in float64, layer by layer, no mistake may hide


def _zeroed(right: np.ndarray) -> np.ndarray:
    wrong = right.copy()
    wrong[np.unravel_index(int(np.argmax(np.abs(right))), right.shape)] = 0
    return wrong


def _nudged(right: np.ndarray) -> np.ndarray:
    wrong = right.copy()
    wrong[np.unravel_index(int(np.argmax(np.abs(right))), right.shape)] *= 1 + PART
    return wrong


ENTRIES = {"entry-zeroed": _zeroed, "entry-off-by-1e-4": _nudged}
"""Mistakes in a single entry, which need no rule."""

BY_CODE = {m.code: m for m in MISTAKES}
ANYWHERE = (*(m.code for m in GENERAL), *ENTRIES)
OF_A_FAMILY = tuple(code for code in BY_CODE if code not in ANYWHERE)
KINDS = (*OF_A_FAMILY, *ANYWHERE)
ROUNDS = 16  # kinds of a family planted into one trace, as long as there are new ones
REPEATED = 1  # and how many where all that fit have been planted before


def with_tensor(step: LayerTrace, tensor: str, value: np.ndarray) -> LayerTrace:
    """Return the step with one of its tensors replaced."""
    if tensor in step.layer.output_names:
        changed = tuple(value if name == tensor else y for name, y in zip(step.layer.output_names, step.outputs, strict=True))
        return replace(step, output=changed if len(changed) > 1 else changed[0])
    if tensor[1:] in step.layer.input_names:
        named = zip(step.layer.input_names, step.d_inputs, strict=True)
        return replace(step, d_inputs=tuple(value if f"d{name}" == tensor else d for name, d in named))
    return replace(step, d_params={**step.d_params, tensor[1:]: value})


class _Rules:
    """What the rules of a trace's layers give, found once for all that is planted into it."""

    def __init__(self, trace: Trace, precision: Precision, *, fused: bool) -> None:
        self.trace, self.precision, self.fused = trace, precision, fused
        self.tensors = [tensors(step) for step in trace.layers]
        self.around = Neighbourhood(trace, precision)
        self.own: dict[int, tuple[dict[str, Rounded], bool]] = {}

    def _own(self, index: int) -> tuple[dict[str, Rounded], bool]:
        """Return the balls of a layer's tensors, and whether it met an exact tie."""
        if index not in self.own:
            arithmetic = Arithmetic(self.precision)
            balls = expected(self.trace.layers[index], arithmetic)
            self.own[index] = balls, arithmetic.ties > 0
        return self.own[index]

    def hides(self, index: int, tensor: str, wrong: np.ndarray) -> bool:
        """Say whether rounding could produce both the tensor and the wrong one: cancellation left no digits to tell them by."""
        if not self.fused and self.precision.store <= FINEST:
            return False
        balls = self.around.expected(index) if self.fused else self._own(index)[0]
        right = self.tensors[index][tensor].astype(np.float64)
        return bool((np.abs(wrong.astype(np.float64) - right) <= 2 * balls[tensor].radius()).all())

    def judged(self, index: int, tensor: str, wrong: np.ndarray) -> np.ndarray:
        """Return the entries that count: all, or where an exact tie leaves a choice those that lie outside of every subgradient.

        Where the layer hands on more or less than dy, that is no subgradient, and every entry counts.
        """
        if not self._own(index)[1] or not conserves(self.trace.layers[index], tensor, wrong, self.precision):
            return np.ones(wrong.shape, dtype=bool)
        hull = self.around.expected(index, 0)[tensor]
        outside: np.ndarray = np.abs(wrong.astype(np.float64) - hull.value) > hull.radius()
        return outside


class Planter:
    """Plants mistakes of every kind in turn, into whatever layer of a trace the kind applies to."""

    def __init__(self, seed: int | tuple[int, ...], result: SelfTest) -> None:
        self.rng = np.random.default_rng(seed)
        self.result = result

    def plant(self, trace: Trace, precision: Precision, where: str, *, fused: bool) -> None:
        """Plant the kinds used least so far into a trace that agrees, one at a time, and certify each.

        Most kinds belong to few layers, which few traces hold, so a trace takes many of those; of the general ones it takes one.
        """
        types, rules = {type(step.layer) for step in trace.layers}, _Rules(trace, precision, fused=fused)
        fitting = [code for code in OF_A_FAMILY if any(issubclass(layer, BY_CODE[code].of) for layer in types)]
        for kinds, new, repeated in ((fitting, ROUNDS, REPEATED), (ANYWHERE, 1, 1)):
            done = 0
            for kind in sorted(kinds, key=lambda kind: (self.result.by_mistake[kind], self.rng.random())):
                if done >= (repeated if self.result.by_mistake[kind] else new):
                    break
                done += self._plant_one(kind, rules, where)

    def _plant_one(self, kind: str, rules: _Rules, where: str) -> bool:
        """Plant a kind at a random place where it is a mistake; say whether there was one."""
        of, trace, precision = BY_CODE[kind].of if kind in BY_CODE else object, rules.trace, rules.precision
        around = rules.around if rules.fused else None  # which does not depend on what a layer produced
        places = [(i, name) for i, step in enumerate(trace.layers) if isinstance(step.layer, of) for name in rules.tensors[i]]
        for which in self.rng.permutation(len(places)):
            index, tensor = places[which]
            step = trace.layers[index]
            wrong = self._wrong(kind, rules, index, tensor)
            if wrong is None:
                continue
            if rules.hides(index, tensor, wrong):
                self.result.hidden += 1
                continue
            altered = replace(trace, layers=(*trace.layers[:index], with_tensor(step, tensor, wrong), *trace.layers[index + 1 :]))
            blamed = [(c.path, c.tensor) for c in certify_step(altered, index, precision, around) if c.failed]
            self.result.planted += 1
            self.result.by_mistake[kind] += 1
            self.result.caught += bool(blamed)
            self.result.blamed += blamed == [(step.path, tensor)]
            if blamed != [(step.path, tensor)]:
                self.result.missed.append(f"{kind} in {tensor} of {step.path} ({type(step.layer).__name__}, {precision.name}), {where}: "
                                   f"blamed {blamed or 'nothing'}")
            return True
        return False

    def _wrong(self, kind: str, rules: _Rules, index: int, tensor: str) -> np.ndarray | None:
        """Return the tensor with the mistake in it, or None where it would be no mistake worth the name.

        It must change the tensor by a ten-thousandth of its largest entry, in numbers that are neither close to underflow nor what
        cancellation left over: rounding errors have no right order of rows.
        """
        step, right, precision = rules.trace.layers[index], rules.tensors[index][tensor], rules.precision
        with quiet():
            made = ENTRIES[kind](right) if kind in ENTRIES else BY_CODE[kind].wrong(step, tensor, expected_plain)
            if made is None or made.shape != right.shape:
                return None
            wrong = np.asarray(made).astype(right.dtype)
            size = float(np.max(np.abs(right.astype(np.float64)), initial=0.0))
            least = max(np.sqrt(precision.underflow), CANCELLED * float(np.max(natural_scale(step, tensor), initial=0.0)))
            if size <= least or not np.isfinite(size):
                return None
            difference = np.abs(wrong.astype(np.float64) - right.astype(np.float64))
            least = PART * size / 2
            change = float(np.max(difference, initial=0.0))
            if np.isfinite(change) and change >= least:
                change = float(np.max(difference, initial=0.0, where=rules.judged(index, tensor, wrong)))
        return wrong if np.isfinite(change) and change >= least else None
