"""The mistakes of normalisations: a statistic held constant, eps in the wrong place, sums over the wrong entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from backproof.judge.mistakes.mistake import FaultyRule, Mistake, RunRule, faulty
from backproof.reference.layer import Backward, Params, Shape
from backproof.reference.moments import Axes, Standardised, standardised
from backproof.reference.normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Normalisation, RMSNorm
from backproof.reference.rounding import Array
from backproof.reference.trace import LayerTrace

__all__ = ["MISTAKES"]

Statistics = Callable[[Any, Params, Array, Axes], Standardised]
Grouping = Callable[[Any, Shape], tuple[Shape, Axes, Axes]]


def _variant(layer: Any, params: Params, x: Array, *, statistics: Statistics | None = None,
             grouping: Grouping | None = None) -> tuple[Array, Backward]:
    """Run the rule with other statistics or over other groups."""
    wrong: Any = SimpleNamespace(grouping=partial(grouping, layer) if grouping else layer.grouping,
                                 statistics=partial(statistics, layer) if statistics else layer.statistics)
    return Normalisation.forward(wrong, params, x)


def _gradient(kind: type[Standardised]) -> FaultyRule:
    """Return the rule whose gradients are those of another kind of groups."""

    def statistics(layer: Any, params: Params, x: Array, axes: Axes) -> Standardised:
        return _as(kind, layer.statistics(params, x, axes))

    return partial(_variant, statistics=statistics)


def _as(kind: type[Standardised], groups: Standardised) -> Standardised:
    return kind(**{field.name: getattr(groups, field.name) for field in fields(Standardised)})


def _average(groups: Standardised, a: Array) -> Array:
    return np.sum(a, axis=groups.axes, keepdims=True) / max(groups.count, 1)


def _product(dy: Array, weight: Array | None) -> Array:
    return dy if weight is None else dy * weight


@dataclass(frozen=True)
class HeldConstant(Standardised):
    """Neither statistic is differentiated."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        return _product(dy, weight) * self.rstd


@dataclass(frozen=True)
class MeanHeld(Standardised):
    """The mean is not differentiated."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        g = _product(dy, weight)
        return self.rstd * (g - self.unit * _average(self, g * self.summed))


@dataclass(frozen=True)
class VarianceHeld(Standardised):
    """The variance is not differentiated."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        g = _product(dy, weight)
        return self.rstd * (g - (0 if self.mean is None else _average(self, g)))


@dataclass(frozen=True)
class Unscaled(Standardised):
    """The term of the variance is formed with x - mean."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        g, deviation = _product(dy, weight), self.unit / self.rstd
        mean_g = 0 if self.mean is None else _average(self, g)
        return self.rstd * (g - mean_g - deviation * _average(self, g * deviation))


@dataclass(frozen=True)
class Unweighted(Standardised):
    """dx forgets the weight."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        return super().pullback(dy, None)


@dataclass(frozen=True)
class WeightedLate(Standardised):
    """dx is multiplied by the weight after the sums."""

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        return _product(super().pullback(dy, None), weight)


@dataclass(frozen=True)
class FromInput(Standardised):
    """The weight's gradient is formed with x."""

    def weighted(self, dy: Array, also: Array | None = None) -> Array:
        x = self.unit / self.rstd
        return dy * (x if self.mean is None else x + self.mean)

    def gradient(self, dy: Array, axes: Axes) -> Array:
        return np.sum(self.weighted(dy), axis=axes)

    def pullback(self, dy: Array, weight: Array | None) -> Array:
        return _as(Standardised, self).pullback(dy, weight)


def _root(inverse: Callable[[Array, float, int], Array]) -> FaultyRule:
    """Return the rule whose rstd is `inverse(variance, eps, entries)`."""

    def statistics(layer: Any, params: Params, x: Array, axes: Axes) -> Standardised:
        groups = layer.statistics(params, x, axes)
        deviation = x if groups.mean is None else x - groups.mean
        variance = params["running_var"].reshape(groups.mean.shape) if groups.constant else _average(groups, deviation * deviation)
        rstd = inverse(variance, layer.eps, groups.count)
        return replace(groups, rstd=rstd, unit=deviation * rstd, summed=deviation * rstd)

    return partial(_variant, statistics=statistics)


def _without_eps(variance: Array, eps: float, entries: int) -> Array:
    return 1 / np.sqrt(variance)


def _eps_outside(variance: Array, eps: float, entries: int) -> Array:
    return 1 / (np.sqrt(variance) + eps)


def _unbiased(variance: Array, eps: float, entries: int) -> Array:
    return 1 / np.sqrt(variance * entries / (entries - 1) + eps)


def _of_the_input(layer: Any, params: Params, x: Array, axes: Axes) -> Standardised:
    return standardised(x, axes, layer.eps)


def _batch_only(layer: Any, shape: Shape) -> tuple[Shape, Axes, Axes]:
    return shape, (0,), (1,)


def _with_batch(layer: Any, shape: Shape) -> tuple[Shape, Axes, Axes]:
    layout, axes, kept = layer.grouping(shape)
    return layout, (0, *axes), kept


def _interleaved(layer: Any, shape: Shape) -> tuple[Shape, Axes, Axes]:
    (batch, groups, channels, space), _, _ = layer.grouping(shape)
    return (batch, channels, groups, space), (1, 3), (1, 2)


def _only(mistake: Mistake, applies: Callable[[LayerTrace], bool]) -> Mistake:
    """Return the mistake where it applies; elsewhere it changes nothing and has no meaning."""

    def wrong(step: LayerTrace, tensor: str, rule: RunRule) -> Array | None:
        return mistake.wrong(step, tensor, rule) if applies(step) else None

    return replace(mistake, wrong=wrong)


def _differentiates(step: LayerTrace) -> bool:
    return getattr(step.layer, "training", True)


def _evaluates(step: LayerTrace) -> bool:
    return not _differentiates(step)


def _weighs(step: LayerTrace) -> bool:
    return "weight" in step.params


def _has_unbiased(step: LayerTrace) -> bool:
    if not isinstance(step.layer, CENTRED) or not _differentiates(step):
        return False
    layout, axes, _ = step.layer.grouping(step.inputs[0].shape)
    return math.prod(layout[axis] for axis in axes) > 1


def _has_space(step: LayerTrace) -> bool:
    return _differentiates(step) and math.prod(step.inputs[0].shape[2:]) > 1


def _has_batch(step: LayerTrace) -> bool:
    return step.inputs[0].shape[0] > 1


def _mixes(step: LayerTrace) -> bool:
    return isinstance(step.layer, GroupNorm) and 1 < step.layer.num_groups < step.inputs[0].shape[1]


CENTRED = (BatchNorm, LayerNorm, GroupNorm, InstanceNorm)
ALL = (*CENTRED, RMSNorm)
EVERYTHING = ("output", "dx", "dweight")

MISTAKES: tuple[Mistake, ...] = (
    _only(faulty("statistics-held-constant", "{tensor} is dy * weight * rstd alone: mean and variance are held constant", ALL, ("dx",),
                 _gradient(HeldConstant)), _differentiates),
    _only(faulty("mean-held-constant", "{tensor} lacks the mean(dy * weight) term: the mean is held constant", CENTRED, ("dx",),
                 _gradient(MeanHeld)), _differentiates),
    _only(faulty("variance-held-constant", "{tensor} lacks the h * mean(dy * weight * h) term: the variance is held constant", ALL, ("dx",),
                 _gradient(VarianceHeld)), _differentiates),
    _only(faulty("variance-term-not-scaled", "{tensor} takes x - mean for h in the term of the variance", ALL, ("dx",),
                 _gradient(Unscaled)), _differentiates),
    _only(faulty("norm-weight-missing", "{tensor} lacks the factor weight", ALL, ("dx",), _gradient(Unweighted)), _weighs),
    _only(faulty("norm-weight-after-sums", "{tensor} is multiplied by the weight after the means over dy, not before",
                 (LayerNorm, RMSNorm, GroupNorm), ("dx",), _gradient(WeightedLate)), _weighs),
    _only(faulty("norm-weight-from-input", "{tensor} sums dy * x: x is not normalised", ALL, ("dweight",), _gradient(FromInput)), _weighs),
    faulty("norm-eps-missing", "{tensor} lacks eps under the root", ALL, EVERYTHING, _root(_without_eps)),
    faulty("norm-eps-outside-root", "{tensor} adds eps to the root of the variance, not to the variance", ALL, EVERYTHING,
           _root(_eps_outside)),
    _only(faulty("variance-unbiased", "{tensor} divides the squares by n - 1: the variance is the unbiased one", CENTRED, EVERYTHING,
                 _root(_unbiased)), _has_unbiased),
    _only(faulty("batch-statistics-in-evaluation", "{tensor} takes the statistics of the batch in evaluation", BatchNorm, EVERYTHING,
                 partial(_variant, statistics=_of_the_input)), _evaluates),
    _only(faulty("statistics-not-over-space", "{tensor} takes mean and variance over the batch alone, not over space", BatchNorm,
                 EVERYTHING, partial(_variant, grouping=_batch_only)), _has_space),
    _only(faulty("statistics-over-batch", "{tensor} takes mean and variance over the whole batch", (LayerNorm, InstanceNorm, GroupNorm),
                 EVERYTHING, partial(_variant, grouping=_with_batch)), _has_batch),
    _only(faulty("groups-interleaved", "{tensor} puts every num_groups-th channel in a group, not neighbouring ones", GroupNorm, EVERYTHING,
                 partial(_variant, grouping=_interleaved)), _mixes),
    faulty("mean-taken-away", "{tensor} takes the mean away before the root mean square", RMSNorm, EVERYTHING,
           partial(_variant, statistics=_of_the_input)),
)
