"""Derivatives along a direction, with a bound: forward differentiation of the hand-derived rules in rounded arithmetic.

A `Directed` array holds a ball, its derivative `slope` along the direction, and `reach`. What runs on rounded arrays runs on these, and so
the rule's forward gives J v, and its backward the derivative of (dx, dparams), which is the Hessian of <dy, f> times v: all of a double
backward but the gradient of dy, which is J v again.

Bound    The slope is a sum over the paths of the rule's graph, of v times the partial derivatives along each (Bauer, *Computational
         Graphs and Rounding Error*, SIAM J. Numer. Anal. 11 (1974)). Forward mode, reverse mode and every other order of elimination
         add up the same products in another association (Griewank, Walther, *Evaluating Derivatives*, 2nd ed., 2008, chapters 3 and 9).
         So `reach` takes the same steps with magnitudes in place of numbers: its value is the sum over the paths of the magnitudes, which
         no order's partial sum exceeds, and its bound is the running bound of `rounding` for that sum: the roundings of each
         step are relative to magnitudes of which nothing cancelled (Higham, section 3.3), and a partial derivative that is off by its
         own ball is off by that times the magnitudes. In another order a step adds, where this one multiplies and adds: no more roundings.
Kinks    Where a comparison is open, at a tie or a knee, and its branches differ in slope, there is no derivative: the bound is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from backproof.reference.directed import (
    FUNCTIONS,
    UFUNCS,
    Directed,
    all_directed,
    ball_of,
    chained,
    laid_out,
    lifted,
    magnitude_of,
    mapped,
    numbers_of,
    reach_of,
    slope_of,
    steady,
)
from backproof.reference.rounding import Rounded, Ternary, added, either, one_sum, running_product, running_sum, scatter_add
from scipy import special

__all__ = ["SATURATED", "Directed", "ball_of", "numbers_of", "steady", "sum_along"]

SATURATED = 40  # e^-40 is below half an ulp of 1 in every format up to float64


def _sum_of(function: Any, sign: int) -> Callable[[Directed, Directed], Directed]:
    def rule(x: Directed, y: Directed) -> Directed:
        value: Rounded = function(x.value, y.value)
        if y.slope is None:
            return Directed(value) if x.slope is None else laid_out(value, x.slope, x.reach)
        if x.slope is None:
            return laid_out(value, sign * y.slope, y.reach)
        return laid_out(value, x.slope + sign * y.slope, x.reach + y.reach)

    return rule


def _negative(x: Directed) -> Directed:
    return Directed(-x.value, None if x.slope is None else -x.slope, x.reach)


def _multiply(x: Directed, y: Directed) -> Directed:
    return chained(x.value * y.value, (y.value, x), (x.value, y))


def _divide(x: Directed, y: Directed) -> Directed:
    value = x.value / y.value
    return chained(value, (_one(x) / y.value, x), (-value / y.value, y))


def _one(x: Directed) -> Rounded:
    return x.arithmetic.lift(1.0)


def _power(x: Directed, exponent: Directed) -> Directed:
    if exponent.slope is not None:
        raise TypeError("derivatives along a direction have no rule for an exponent that moves")
    value: Rounded = x.value ** exponent.value  # which raises what is no whole number
    product = x
    for _ in range(int(exponent.value.value) - 1):
        product = _multiply(product, x)
    return Directed(value, product.slope, product.reach)


def sum_along(products: Sequence[tuple[Any, Any]], terms: Sequence[Any]) -> Directed:
    """Return the sum of matrix products and terms, some of them directed, taken in any order: its slope is such a sum too."""
    every = all_directed([*(factor for pair in products for factor in pair), *terms])
    arithmetic, lifted = every[0].arithmetic, iter(every)
    pairs, alone = [(next(lifted), next(lifted)) for _ in products], list(lifted)
    value = one_sum([(x.value, y.value) for x, y in pairs], [term.value for term in alone], arithmetic)
    moved = [(x.slope @ y.value.value, (x.reach, magnitude_of(y.value))) for x, y in pairs if x.slope is not None]
    moved += [(x.value.value @ y.slope, (magnitude_of(x.value), y.reach)) for x, y in pairs if y.slope is not None]
    carried = [term for term in alone if term.slope is not None]
    if not moved and not carried:
        return Directed(value)
    slope = sum([*(slope for slope, _ in moved), *(term.slope for term in carried)])
    return laid_out(value, slope, one_sum([pair for _, pair in moved], [term.reach for term in carried], arithmetic))


def _matmul(x: Directed, y: Directed) -> Directed:
    return sum_along([(x, y)], [])


def _smooth(function: Any, partial: Callable[[Rounded, Rounded], Rounded]) -> Callable[[Directed], Directed]:
    """Lift a smooth function by its derivative at x with y = f(x)."""

    def rule(x: Directed) -> Directed:
        value: Rounded = function(x.value)
        return Directed(value) if x.slope is None else chained(value, (partial(x.value, value), x))

    return rule


def _logistic_slope(x: Rounded, y: Rounded) -> Rounded:
    """s(x) s(-x), either factor of which may be formed as 1 less the other."""
    other = special.expit(-x)
    found: Rounded = either(either(y * other, y * (1 - y)), other * (1 - other))
    return found


def _tanh_slope(x: Rounded, y: Rounded) -> Rounded:
    """4 s(2 x) s(-2 x), which implementations also form from the value: as 1 - y^2, or as jax does, dy (1 + y)(1 - y)."""
    found: Rounded = either(4 * (special.expit(2 * x) * special.expit(-2 * x)), 1 - y * y)
    return found


def _bell(scale: float, power: float) -> Callable[[Rounded, Rounded], Rounded]:
    def partial(x: Rounded, y: Rounded) -> Rounded:
        exponent: Any = -power * (x * x)
        found: Rounded = scale * np.exp(exponent)
        return found

    return partial


def _normal_pdf(x: Rounded, y: Rounded) -> Rounded:
    """e^(-x^2/2) / sqrt(2 pi), or the slope of erfc(-x / sqrt 2) / 2, in which the rounding of x / sqrt 2 is magnified."""
    z = x / math.sqrt(2)
    scale = 1 / math.sqrt(2 * math.pi)
    found: Rounded = either(_bell(scale, 0.5)(x, y), _bell(scale, 1)(z, y))
    return found


def _logaddexp(x: Directed, y: Directed) -> Directed:
    ours: Any = x.value
    theirs: Any = y.value
    value: Any = np.logaddexp(ours, theirs)
    return chained(value, (_share(ours, theirs, value), x), (_share(theirs, ours, value), y))


def _share(ours: Any, theirs: Any, value: Any) -> Any:
    """s(ours - theirs), which implementations also form from the saved value as e^(ours - value)."""
    apart = ours - theirs
    return either(special.expit(apart), np.where(apart > SATURATED, 1, np.exp(ours - value)))


def _absolute(x: Directed) -> Directed:
    return _where(x.value < 0, -x, x)


def _extremum(first: Any) -> Callable[[Directed, Directed], Directed]:
    def rule(x: Directed, y: Directed) -> Directed:
        return _where(first(x.value, y.value), x, y)

    return rule


def _comparison(function: Any) -> Callable[[Directed, Directed], Ternary]:
    return lambda x, y: function(x.value, y.value)


def _where(condition: Any, x: Any, y: Any) -> Directed:
    arithmetic = next(a.arithmetic for a in (x, y) if isinstance(a, Directed))
    x, y = lifted(x, arithmetic), lifted(y, arithmetic)
    value: Rounded = np.where(condition, x.value, y.value)
    if x.slope is None and y.slope is None:
        return Directed(value)
    mine, theirs = reach_of(x), reach_of(y)
    sure = condition.value if isinstance(condition, Ternary) else np.asarray(condition)
    slope, size = np.where(sure, slope_of(x), slope_of(y)), np.where(sure, mine.value, theirs.value)
    bound = np.where(sure, mine.bound, theirs.bound)
    if isinstance(condition, Ternary) and condition.undecided.any():
        either_way = np.where(slope_of(x) == slope_of(y), np.maximum(mine.bound, theirs.bound), np.inf)
        bound = np.where(condition.undecided, either_way, bound)
        size = np.where(condition.undecided, np.maximum(mine.value, theirs.value), size)
    return laid_out(value, slope, Rounded(size, np.broadcast_to(bound, size.shape), arithmetic))


def _max(x: Directed, axis: Any = None, keepdims: bool = False) -> Directed:
    value = np.max(x.value, axis=axis, keepdims=keepdims)  # type: ignore[call-overload]
    if x.slope is None:
        return Directed(value)
    bounds = x.value.radius()
    least = np.max(x.value.value - bounds, axis=axis, keepdims=True)
    may_win = x.value.value + bounds >= least
    tied = np.count_nonzero(may_win, axis=axis, keepdims=keepdims) != 1

    def picked(a: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum(np.where(may_win, a, 0), axis=axis, keepdims=keepdims))

    reach = Rounded(picked(x.reach.value), np.where(tied, np.inf, picked(x.reach.bounds())), x.arithmetic)
    return Directed(value, picked(x.slope), reach)


def _min(x: Directed, axis: Any = None, keepdims: bool = False) -> Directed:
    return _negative(_max(_negative(x), axis, keepdims))


def _joining(function: Any) -> Callable[..., Directed]:
    def rule(arrays: Sequence[Any], axis: int = 0) -> Directed:
        every = all_directed(arrays)
        value = function([a.value for a in every], axis=axis)
        if all(a.slope is None for a in every):
            return Directed(value)
        return Directed(value, function([slope_of(a) for a in every], axis=axis), function([reach_of(a) for a in every], axis=axis))

    return rule


def _split(x: Directed, sections: Any, axis: int = 0) -> list[Directed]:
    values = np.split(x.value, sections, axis)  # type: ignore[call-overload]
    if x.slope is None:
        return [Directed(v) for v in values]
    parts = zip(values, np.split(x.slope, sections, axis), np.split(x.reach, sections, axis), strict=True)
    return [Directed(*part) for part in parts]


def _moving(function: Any) -> Callable[..., Directed]:
    return lambda x, *args, **kwargs: mapped(lambda a: function(a, *args, **kwargs), x)


def _either(sound: Any, common: Any) -> Directed:
    x, y = all_directed((sound, common))
    value = either(x.value, y.value)
    if x.slope is None and y.slope is None:
        return Directed(value)
    mine, theirs = reach_of(x), reach_of(y)
    bound = np.maximum(np.abs(slope_of(y) - slope_of(x)) + theirs.bound, mine.bound)  # NaN, `derivative` takes for infinite
    reach = Rounded(np.maximum(mine.value, theirs.value), bound, x.arithmetic)
    return laid_out(value, slope_of(x), reach)


def _added(terms: Sequence[Any]) -> Directed:
    every = all_directed(terms)
    return chained(added([term.value for term in every]), *((_one(term), term) for term in every))


def _running_product(x: Any, axis: int, factor: Any = 1, *, last: bool = False, among: Any = None) -> Directed:
    """Return factor_i prod_(k <= i) x_k along the last axis: its slope is the sum over the factors, each replaced by its slope."""
    if last:
        return _running_product(x, axis, factor if isinstance(factor, int) else factor[..., None])[..., -1]
    x, factor = all_directed((x, factor))
    if axis != -1:
        raise TypeError(f"the slope of a running product is known along the last axis: got axis {axis}")
    value, own = running_product(x.value, axis, factor.value), running_product(x.value, axis)
    direct = chained(value, (own, factor))
    if x.slope is None:
        return direct
    n = x.shape[-1]
    at, later = np.eye(n, dtype=bool), np.tri(n, dtype=bool).T

    def replaced(slope: Any, numbers: Any, times: Any) -> Any:
        rows = np.where(at, slope[..., :, None], numbers[..., None, :])
        return np.where(later, running_product(rows, -1, times[..., None, :] if times.ndim else times), 0)

    slope = np.sum(replaced(x.slope, x.value.value, factor.value.value), axis=-2)
    reach = np.sum(replaced(x.reach, magnitude_of(x.value), magnitude_of(factor.value)), axis=-2)
    return laid_out(value, slope + slope_of(direct), reach + reach_of(direct))


UFUNCS.update({
    np.add: _sum_of(np.add, 1), np.subtract: _sum_of(np.subtract, -1), np.multiply: _multiply, np.divide: _divide,
    np.power: _power, np.matmul: _matmul,
    np.square: lambda x: _multiply(x, x), np.reciprocal: lambda x: _divide(Directed(_one(x)), x),
    np.negative: _negative, np.absolute: _absolute, np.logaddexp: _logaddexp,
    np.maximum: _extremum(np.greater_equal), np.minimum: _extremum(np.less_equal),
    np.exp: _smooth(np.exp, lambda x, y: y), np.expm1: _smooth(np.expm1, lambda x, y: either(np.exp(x), y + 1)),
    np.log: _smooth(np.log, lambda x, y: 1 / x), np.log1p: _smooth(np.log1p, lambda x, y: 1 / (1 + x)),
    np.sqrt: _smooth(np.sqrt, lambda x, y: 0.5 / y),
    np.tanh: _smooth(np.tanh, _tanh_slope),
    special.expit: _smooth(special.expit, _logistic_slope),
    special.erf: _smooth(special.erf, _bell(2 / math.sqrt(math.pi), 1)),
    special.erfc: _smooth(special.erfc, _bell(-2 / math.sqrt(math.pi), 1)),
    special.ndtr: _smooth(special.ndtr, _normal_pdf),
    **{f: _comparison(f) for f in (np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal)},
})

FUNCTIONS.update({
    np.max: _max, np.min: _min, np.where: _where, np.split: _split, np.concatenate: _joining(np.concatenate),
    np.stack: _joining(np.stack), np.zeros_like: lambda x, **_: np.zeros(x.shape), np.ones_like: lambda x, **_: np.ones(x.shape),
    np.shape: lambda x: x.shape, np.ndim: lambda x: x.ndim, np.size: lambda x: x.size,
    **{f: _moving(f) for f in (np.sum, np.mean, np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze,
                               np.broadcast_to, np.take_along_axis, np.flip, np.ravel, running_sum, scatter_add)},
    either: _either, added: _added, running_product: _running_product,
})
