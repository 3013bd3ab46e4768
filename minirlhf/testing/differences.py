"""One coordinate's slope from finite differences, and how far it can be trusted.

Nudge a coordinate x by h and by 2h to both sides. With f', f'', ... the derivatives along it,

    near = (f(x+h) - f(x-h)) / 2h   = f' + h^2 f'''/6 + h^4 f'''''/120 + ...
    far  = (f(x+2h) - f(x-2h)) / 4h = f' + 4 h^2 f'''/6 + 16 h^4 f'''''/120 + ...
    (4 near - far) / 3              = f' - h^4 f'''''/30 - ...                       Richardson 1911

so |far - near| = h^2 |f'''| / 2 bounds the error of the combination by far wherever f is smooth at the scale of h.

Rounding. An f made of n roundings, each eps/2 of numbers as large as S, errs by about sqrt(n) eps S / 2; a difference
divided by 2h makes at most sqrt(n) eps S / 2h of it, and Richardson 5/3 of that. 256 eps S / h leaves room for more
than sixty thousand roundings. S is the largest |f| met, and at least 1, because f computes with numbers such as 1. A
slope below 5e-10 S cannot be told from 0.

Step. h = 2^-13 max(1, |x|): about 1e-4, where for a function that bends at the scale of 1 both errors lie near 1e-10.
A function that bends faster (a norm near 0, a logarithm near its edge) gets a step eight times smaller, up to three
times, until the two differences agree; what rounding may excuse grows with each.

Kinks. Where the slope jumps by J at a distance t < h from x, far - near is J t / 4h, which is 0 on the kink itself. The
second differences see that one:

    bend(h) = (f(x+h) - 2 f(x) + f(x-h)) / h = h f'' + h^3 f''''/12,   bend(2h) - 2 bend(h) = h^3 f''''/2,

but J where x lies on a kink, and J (3t - 2h) / 2h beside it: the two measures are never small together. When the
larger one exceeds `cap` (relative to the slope) plus rounding at every step, the slope is not trusted, and the check
fails: roughness never buys tolerance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEPS = (2.0**-13, 2.0**-16, 2.0**-19, 2.0**-22)
ROUNDINGS = 256
EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Slope:
    """A slope, how far from the truth it may be, the step h it was taken with, and whether f was smooth there."""

    value: float
    tolerance: float
    step: float
    smooth: bool


def widest_step(x: float) -> float:
    """The first h tried at x."""
    return STEPS[0] * max(1.0, abs(x))


def measure_slope(at: Callable[[float], tuple[float, float]], x: float, centre: float, cap: float) -> Slope:
    """The slope at x of f, by the first step at which f looks smooth; the last one's if none does.

    at(x) returns f(x) and the size of the numbers it was summed from; centre is f(x).
    """
    for step in STEPS:
        slope = five_points(at, x, centre, step * max(1.0, abs(x)), cap)
        if slope.smooth:
            break
    return slope


def five_points(at: Callable[[float], tuple[float, float]], x: float, centre: float, h: float, cap: float) -> Slope:
    places = [x - 2 * h, x - h, x + h, x + 2 * h]
    with np.errstate(all="ignore"):  # beyond the edge of its domain f may be NaN: that is judged below
        values, sizes = zip(*(at(place) for place in places), strict=True)
        far_below, below, above, far_above = values
        # What was really added differs from h by rounding; dividing by it keeps that out of the result.
        near = (above - below) / (places[2] - places[1])
        far = (far_above - far_below) / (places[3] - places[0])
        bend_near = (above - 2 * centre + below) / h
        bend_far = (far_above - 2 * centre + far_below) / (2 * h)
        rounding = ROUNDINGS * EPS * max(1.0, *sizes) / h
        value = (4 * near - far) / 3
        roughness = max(abs(far - near), abs(bend_far - 2 * bend_near))
        smooth = bool(np.isfinite(values).all()) and roughness <= cap * abs(value) + rounding
    return Slope(value, abs(far - near) + rounding, h, smooth)
