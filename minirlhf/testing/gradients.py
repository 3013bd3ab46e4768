"""Gradients by finite differences: slow, simple, and independent of any derivation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.testing.arguments import (
    Array,
    Function,
    Inputs,
    Selection,
    call_with_arrays,
    call_with_tensors,
    gather,
    hand_gradients,
    name_of,
    to_numpy,
    upstream,
    values_and_gradients,
)
from minirlhf.testing.differences import Slope, measure_slope, widest_step
from minirlhf.testing.messages import element, failure, readable


def central_difference(
    function: Callable[[NDArray[np.float64]], float], x: NDArray[np.float64], step: float = 1e-5
) -> NDArray[np.float64]:
    """(f(x + h e) - f(x - h e)) / 2h for every coordinate e of x, in float64.

    The error is about h^2 |f'''| / 6 from the curve and 1e-16 |f| / h from rounding: near 1e-10 for smooth functions
    of size 1 at the default h = 1e-5. Keep x several h away from kinks (clips, maxima).
    Raises: ValueError unless x is float64 and step is positive.
    """
    if x.dtype != np.float64:
        raise ValueError(f"x must be float64, got {x.dtype}: lower precision would drown the differences")
    if not step > 0:
        raise ValueError(f"step must be positive, got {step}")
    gradient = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        above, below = x.copy(), x.copy()
        above[index] += step
        below[index] -= step
        # What was really added differs from step by rounding; dividing by it keeps that out of the result.
        gradient[index] = (float(function(above)) - float(function(below))) / (above[index] - below[index])
    return gradient


@dataclass(frozen=True)
class Coordinate:
    """One number of one argument: the gradient that was found there, and the slope that was measured."""

    place: int
    index: tuple[int, ...]
    found: float
    slope: Slope
    rtol: float

    @property
    def wrong(self) -> bool:
        allowed = self.rtol * max(abs(self.found), abs(self.slope.value)) + self.slope.tolerance
        return not abs(self.found - self.slope.value) <= allowed  # written so that NaN is wrong


def check_gradient(
    function: Function,
    *arguments: Any,
    gradient: Function | None = None,
    kinks: Function | None = None,
    wrt: Selection = None,
    rtol: float = 1e-6,
    cap: float = 1e-4,
) -> int:
    """Hold the gradient of function at these arguments against finite differences, every coordinate, in float64.

    function   (*arguments) -> a number, an array or a tuple of arrays; what is no single number is summed with fixed
               random weights. Without `gradient` it gets tensors and autograd is checked; with it, NumPy arrays.
    arguments  float64 arrays are differentiated; integers, bools, None and everything else are data.
    gradient   derived by hand: (*arguments) -> the gradient of each float64 argument, or of the first few, as an
               array or a tuple. Unless function returns a number it gets one argument more for each of its results:
               the upstream gradient.
    kinks      (*arguments, in NumPy) -> arrays that are 0 where function has no derivative, such as `x - limit` for a
               clip. A coordinate is left out if nudging it takes one of them to or across 0.
    wrt        names or counts of the arguments to differentiate; the other float64 arrays are data as well.
    rtol       relative error allowed beside that of the difference itself, which `differences.py` derives.
    cap        how far, relative to the slope, differences with two steps may disagree before function counts as rough.

    Returns the number of coordinates that were checked; 0 where all of them lie on kinks.
    Raises: AssertionError saying where the gradient is wrong, or that function is rough, not finite, random, loses
            precision or changes its arguments; ValueError if there is nothing to differentiate.
    """
    __tracebackhide__ = True
    inputs = gather(function, arguments, wrt)
    if not inputs.chosen:
        raise ValueError(
            f"{inputs.function}: nothing to differentiate among {', '.join(inputs.names) or 'no arguments'}"
        )
    found: Sequence[Array | None]
    if gradient is None:
        outputs, found = values_and_gradients(function, inputs)
    else:
        outputs = call_with_arrays(function, inputs, inputs.values)
        found = hand_gradients(gradient, inputs, outputs)
        inputs = replace(inputs, chosen=inputs.chosen[: len(found)])

    def value_of(values: Sequence[Any]) -> tuple[float, float]:
        """The weighted sum of the results, and the size of what was summed."""
        if gradient is None:
            results = call_with_tensors(function, inputs, values)[1]
        else:
            results = call_with_arrays(function, inputs, values)
        terms = [weight * result for weight, result in zip(weights, results, strict=True)]
        return float(sum(term.sum() for term in terms)), float(sum(np.abs(term).sum() for term in terms))

    weights = upstream(outputs)
    centre, size = value_of(inputs.values)
    first = float(sum((weight * output).sum() for weight, output in zip(weights, outputs, strict=True)))
    _check_value(inputs, first, centre, size)
    coordinates = list(_measure(inputs, value_of, centre, found, kinks, rtol, cap))
    by = "autograd" if gradient is None else name_of(gradient)
    unreached = {place for place, each in zip(inputs.chosen, found, strict=True) if each is None}
    if wrong := [coordinate for coordinate in coordinates if coordinate.slope.smooth and coordinate.wrong]:
        raise _wrong_gradient(inputs, by, coordinates, wrong, unreached)
    if rough := [coordinate for coordinate in coordinates if not coordinate.slope.smooth]:
        raise _rough_function(inputs, by, rough[0])
    return len(coordinates)


def _check_value(inputs: Inputs, first: float, second: float, size: float) -> None:
    if not (np.isfinite(first) and np.isfinite(second)):
        raise failure(f"{inputs.function} is not finite here: {first}", {}, [], inputs.named())
    if abs(first - second) > 1e-13 * max(1.0, size):
        rows = dict(zip(("first call", "second call"), readable(first, second), strict=True))
        note = "seed whatever is random in it; what it keeps between calls belongs into its arguments"
        raise failure(f"{inputs.function} gives two results for the same arguments", rows, [note], inputs.named())


def _measure(
    inputs: Inputs,
    value_of: Callable[[Sequence[Any]], tuple[float, float]],
    centre: float,
    found: Sequence[Array | None],
    kinks: Function | None,
    rtol: float,
    cap: float,
) -> Any:
    """Yield a Coordinate for every number of every chosen argument that is not on a kink."""
    for place, gradient in zip(inputs.chosen, found, strict=True):
        x = inputs.values[place]
        for index in np.ndindex(x.shape):

            def moved(number: float, place: int = place, index: tuple[int, ...] = index) -> list[Any]:
                values = list(inputs.values)
                values[place] = values[place].copy()
                values[place][index] = number
                return values

            number = float(x[index])
            if kinks is not None and _meets_a_kink(kinks, moved, number):
                continue
            slope = measure_slope(lambda number: value_of(moved(number)), number, centre, cap)
            yield Coordinate(place, index, 0.0 if gradient is None else float(gradient[index]), slope, rtol)


def _meets_a_kink(kinks: Function, moved: Callable[[float], list[Any]], x: float) -> bool:
    """Does a number that moves with x come to 0, or change its sign, on the way from x - 2h to x + 2h?"""
    rows = []
    for number in (x - 2 * widest_step(x), x, x + 2 * widest_step(x)):
        arrays = kinks(*moved(number))
        arrays = arrays if isinstance(arrays, tuple | list) else [arrays]
        rows.append(np.concatenate([np.ravel(to_numpy(array)).astype(np.float64) for array in arrays]))
    least, most = np.min(rows, axis=0), np.max(rows, axis=0)
    return bool(((least < most) & (least <= 0) & (most >= 0)).any())


def _wrong_gradient(
    inputs: Inputs, by: str, all_of_them: list[Coordinate], wrong: list[Coordinate], unreached: set[int]
) -> AssertionError:
    errors = [abs(each.found - each.slope.value) for each in wrong]
    worst = wrong[int(np.argmax(np.nan_to_num(errors, nan=np.inf)))]
    name = inputs.names[worst.place]
    got, nudged = readable(worst.found, worst.slope.value)
    rows = {f"got ({by})": got, "by finite difference": nudged}
    notes = [] if (remark := _pattern(name, worst, wrong, worst.place in unreached)) is None else [remark]
    notes.append(f"wrong at {len(wrong)} of {len(all_of_them)} coordinates")
    where = element(name, worst.index)
    return failure(f"{inputs.function}: wrong gradient for {where}", rows, notes, inputs.named())


def _pattern(name: str, worst: Coordinate, wrong: list[Coordinate], unreached: bool) -> str | None:
    """What the errors of one argument have in common, if it can be said in a line."""
    if unreached:
        return f"no gradient flows to {name}: is it detached? (if it is data, leave it out with wrt=)"
    if not np.isfinite(worst.found):
        return None
    ratios = [each.found / each.slope.value for each in wrong if each.place == worst.place and each.slope.value]
    if not ratios or not np.allclose(ratios, ratios[0], rtol=1e-3, atol=0):
        return None
    if np.isclose(ratios[0], -1, rtol=1e-3):
        return "the sign is the wrong way round"
    return f"each wrong one is {ratios[0]:.4g} times what it should be" if len(ratios) > 1 and ratios[0] else None


def _rough_function(inputs: Inputs, by: str, coordinate: Coordinate) -> AssertionError:
    where = element(inputs.names[coordinate.place], coordinate.index)
    got, nudged = readable(coordinate.found, coordinate.slope.value)
    if not np.isfinite(coordinate.slope.value):
        headline = f"{inputs.function} is not finite within {2 * coordinate.slope.step:.2g} of {where}"
        return failure(headline, {f"got ({by})": got}, ["draw values further from the edge"], inputs.named())
    notes = [
        "a kink (clip, maximum, absolute value) lies there: declare it with kinks=,",
        "or something inside computes with less than float64",
    ]
    rows = {f"got ({by})": got, "by finite difference": nudged}
    return failure(f"{inputs.function} is not smooth at {where}", rows, notes, inputs.named())
