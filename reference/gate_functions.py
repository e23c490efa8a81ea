"""What the cells of recurrent layers compute beside sigmoids: the slope of the tanh, and the mean of two states by a gate.

On plain numbers each is one formula. On rounded arrays the bounds hold for every form that implementations have of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from backproof.reference.direction import Directed
from backproof.reference.functions import sigmoid
from backproof.reference.rounding import Array, Rounded, either, largest_of, most_of, quiet

__all__ = ["mixed", "mixed_pullback", "rounded_more", "tanh_slope"]

SATURATED = 20  # past it 1 - tanh^2 is below half an ulp of 1 in every format up to float64


def tanh_slope(a: Array, y: Array) -> Array:
    """The derivative 1 - y^2 of y = tanh a: 4 s(2a) s(-2a) keeps its digits where y is close to 1.

    In rounded arithmetic the ball of 1 - y^2 holds that too. Where all of a is past 20 implementations have y = +-1 and the slope 0;
    but jax writes dy (1 - y^2) as (dy + dy y)(1 - y), which is 2 (dy - dy) on the left, and where dy is a product that a fused
    multiply-add rounds once and not twice, this leaves its rounding.
    """
    if not isinstance(a, Rounded):
        sound = 4 * (sigmoid(2 * a) * sigmoid(-2 * a))
        return either(sound, 1 - y * y) if isinstance(a, Directed) else sound
    slope, least = 1 - y * y, np.abs(a.value) - a.bound
    flat = least > SATURATED
    if not flat.any():
        return slope
    reach = 4 * np.exp(-2 * np.where(flat, least, SATURATED)) + np.where(a.value < 0, 2 * a.arithmetic.roundoff, 0)
    return Rounded(np.where(flat, 0, slope.value), np.where(flat, reach, slope.bound), a.arithmetic)


def mixed(left: Array, z: Array, n: Array, h: Array) -> Array:
    """left n + z h, with left = 1 - z: the mean of n and h by the weight z. Implementations also form n + z (h - n)."""
    if not isinstance(z, Rounded):
        return left * n + z * h
    arithmetic = z.arithmetic
    n, h = arithmetic.lift(n), arithmetic.lift(h)
    with quiet():
        value = left.value * n.value + z.value * h.value
        # n' + z'(h' - n') - n - z (h - n) = (1 - z')(n' - n) + z'(h' - h) + (z' - z)(h - n)
        most_n, most_z, most_h = most_of(n), most_of(z), most_of(h)
        spread = most_of(left) * n.bound + most_z * h.bound
        spread += np.abs(h.value - n.value) * np.maximum(z.bound, left.bound)
        magnitude = most_n + most_z * (most_h + most_n)
    return rounded_more(Rounded(value, spread, arithmetic), 3, magnitude)  # in either form each term meets three roundings at most


def rounded_more(ball: Array, roundings: int, magnitude: Any) -> Array:
    """Return a ball widened by the rounding of an equal expression, whose terms sum to `magnitude` and meet so many roundings each.

    Unlike `either`, which carries the bounds of the operands through that expression too, as if its terms were independent.
    """
    arithmetic = ball.arithmetic
    growth = arithmetic.gamma(roundings, arithmetic.roundoff)
    with quiet():
        bound = magnitude * growth
        bound += ball.bound
        bound += (roundings + 1) * (1 + growth) * arithmetic.precision.underflow
        if largest_of(magnitude) < arithmetic.safe and largest_of(bound) < arithmetic.safe:
            return Rounded(ball.value, bound, arithmetic)
        return arithmetic.overflowing(ball.value, np.where(magnitude < arithmetic.safe, bound, np.inf))


def mixed_pullback(dy: Array, left: Array, z: Array, n: Array, h: Array) -> tuple[Array, Array, Array]:
    """Return the gradients of z, n and h through `mixed`, in whichever form it is differentiated."""
    dz, dn, dh = dy * (h - n), dy * left, dy * z
    if not isinstance(dz, Rounded):
        return dz, dn, dh
    dy, h = dz.arithmetic.lift(dy), dz.arithmetic.lift(h)
    with quiet():  # dy h - dy n, and dy - dy z
        most = most_of(dy)
        apart = most * (most_of(h) + most_of(n)), most * (1 + most_of(z))
    return rounded_more(dz, 2, apart[0]), rounded_more(dn, 2, apart[1]), dh
