"""What must not matter: what a mask hides, what comes later, and the order of things that have none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from minirlhf.testing.arguments import (
    Array,
    Function,
    Inputs,
    call_with_tensors,
    gather,
    to_numpy,
    values_and_gradients,
)
from minirlhf.testing.checks import compare, compare_results

Side = Literal["left", "right"]


def check_padding_invariance(
    function: Function,
    x: Any,
    mask: Any,
    *,
    sides: Sequence[Side] = ("right",),
    extra: int = 2,
    junk: Sequence[float] = (30.0, -30.0),
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> None:
    """Neither what stands where mask is False nor added columns of padding reach a value that counts or a gradient.

    function  (x, mask), or (*x, mask) if x is a tuple of arrays, as tensors -> a number, or arrays. Of an array whose
              first axes are the mask's only the places where mask is True count; of any other, all.
    x, mask   arrays whose first axes are the mask's; mask bool, columns last, e.g. [B T].
    sides     where columns are added: "right", "left" or both. Absolute positions survive padding on the right only.
    extra     how many columns.
    junk      what stands in the hidden places; add np.nan and np.inf for a function that replaces what is hidden
              rather than multiplying it by 0. Integers are replaced by others of the same range.

    Proves, for these inputs: the same values, the same gradients, and gradient 0 at every hidden place.
    Raises: AssertionError saying what leaks; ValueError if the shapes do not fit or mask is not bool.
    """
    __tracebackhide__ = True
    arrays = tuple(to_numpy(part) for part in (x if isinstance(x, tuple | list) else (x,)))
    mask = to_numpy(mask)
    if mask.dtype != np.bool_:
        raise ValueError(f"the mask must be bool (True counts), got {mask.dtype}")
    inputs = gather(function, (*arrays, mask))
    for name, array in zip(inputs.names, arrays, strict=False):
        if array.shape[: mask.ndim] != mask.shape:
            raise ValueError(f"{name} has shape {array.shape}, which does not begin with the mask's {mask.shape}")

    def counted(*arguments: Any) -> Any:
        """The results, of those that have a place for each place of the mask only the ones that are seen."""
        results, seen = function(*arguments), arguments[-1]
        parts = results if isinstance(results, tuple) else (results,)
        return tuple(part[seen] if part.shape[: seen.ndim] == seen.shape else part for part in parts)

    outputs, gradients = values_and_gradients(counted, inputs)
    paddings: list[tuple[Side, int]] = [("right", 0), *((side, extra) for side in sides if extra)]
    for filler in junk:
        for side, columns in paddings:
            padded = _with_junk(inputs, filler, side, columns)
            found, found_gradients = values_and_gradients(counted, padded)
            change = f"{columns} more columns of padding on the {side}" if columns else "what stands in hidden places"
            headline = f"{inputs.function}: {change} makes a difference"
            compare_results(padded, headline, found, outputs, rtol, atol)
            for place, got, want in zip(inputs.chosen, found_gradients, gradients, strict=True):
                expected = np.zeros_like(padded.values[place])
                if want is not None:
                    expected[padded.values[-1]] = want[mask]  # and 0 where hidden
                got = np.zeros_like(expected) if got is None else got
                compare(padded, headline, f"gradient for {inputs.names[place]}", got, expected, rtol, atol)


def _with_junk(inputs: Inputs, filler: float, side: Side, columns: int) -> Inputs:
    """The arrays with something else in the hidden places, and columns of that added at one side of the last axis
    of the mask, which is the last of the values."""
    *arrays, mask = inputs.values

    def pad(array: Array) -> Array:
        widths = [(0, 0)] * array.ndim
        widths[mask.ndim - 1] = (columns, 0) if side == "left" else (0, columns)
        return np.pad(array, widths)

    seen = pad(mask)
    padded = []
    for array in arrays:
        changed = pad(array)
        changed[~seen] = filler if array.dtype.kind == "f" else _others(changed)[~seen]
        padded.append(changed)
    return replace(inputs, values=(*padded, seen))


def _others(array: Array) -> Array:
    """Different values of the same kind: floats mixed and moved, integers mirrored within their range."""
    if array.dtype.kind == "f":
        return np.flip(array) + np.linspace(1.0, 2.0, array.size).reshape(array.shape)
    if array.dtype == np.bool_:
        return ~array
    least, most = (array.min(), array.max()) if array.size else (0, 0)
    return least + most - array if least < most else np.where(array == 0, 1, 0).astype(array.dtype)


def check_causality(
    function: Function, x: Any, axis: int = 1, *, other: Any = None, rtol: float = 1e-10, atol: float = 1e-12
) -> None:
    """No output at position t of the axis depends on an input after t.

    function  (x as a tensor) -> an array, or a tuple of them, as long as x along the axis.
    x         float64 values or integer ids; other, of the same shape, is what the later positions are replaced by: by
              default other numbers, or other ids of the same range.

    Tries every t: the inputs after it change, the outputs up to it must not.
    Raises: AssertionError naming the position that sees the future; ValueError if the lengths differ.
    """
    __tracebackhide__ = True
    inputs = replace(gather(function, (x,)), chosen=())
    x = inputs.values[0]
    length = x.shape[axis]
    other = _others(x) if other is None else to_numpy(other)
    outputs = call_with_tensors(function, inputs, (x,))[1]
    for output in outputs:
        if not -output.ndim <= axis < output.ndim or output.shape[axis] != length:
            raise ValueError(f"{inputs.function} returned {output.shape}: axis {axis} should be {length} long")
    for t in range(length - 1):
        changed = np.concatenate([_slice(x, axis, 0, t + 1), _slice(other, axis, t + 1, length)], axis=axis)
        found = call_with_tensors(function, inputs, (changed,))[1]
        early, expected = ([_slice(part, axis, 0, t + 1) for part in parts] for parts in (found, outputs))
        headline = f"{inputs.function} sees the future: its output up to position {t} changed with the input after it"
        name = inputs.names[0]
        shown = replace(inputs, names=(name, f"{name}_changed"), values=(x, changed))
        compare_results(shown, headline, early, expected, rtol, atol)


def _slice(array: Array, axis: int, start: int, end: int) -> Array:
    return np.take(array, range(start, end), axis=axis)


def check_permutation_equivariance(
    function: Function,
    x: Any,
    axis: int | Sequence[int | None] = 0,
    *,
    out_axis: int | Literal["same"] | None = "same",
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> None:
    """Shuffled inputs give equally shuffled outputs; with out_axis=None, the same outputs (a loss over a batch).

    function  (x), or (*x) if x is a tuple, as tensors -> an array or a tuple of arrays.
    axis      the axis of x that has no order; for a tuple, one for each of its parts, None where it is not shuffled.
    out_axis  that axis in the results; "same" is the first of axis.

    Tries a turn by one place, the reversal and a fixed shuffle.
    Raises: AssertionError with the order and the place that differs; ValueError if the lengths differ.
    """
    __tracebackhide__ = True
    parts = tuple(x) if isinstance(x, tuple | list) else (x,)
    inputs = replace(gather(function, parts), chosen=())
    axes = (axis,) * len(parts) if isinstance(axis, int) else tuple(axis)
    lengths = {value.shape[a] for value, a in zip(inputs.values, axes, strict=True) if a is not None}
    if len(lengths) != 1:
        raise ValueError(f"the axes to shuffle must be equally long, got lengths {sorted(lengths)}")
    to = next(a for a in axes if a is not None) if out_axis == "same" else out_axis
    outputs = call_with_tensors(function, inputs, inputs.values)[1]
    for order in _orders(lengths.pop()):
        pairs = zip(inputs.values, axes, strict=True)
        shuffled = tuple(value if a is None else np.take(value, order, axis=a) for value, a in pairs)
        found = call_with_tensors(function, inputs, shuffled)[1]
        expected = outputs if to is None else [np.take(output, order, axis=to) for output in outputs]
        headline = f"{inputs.function} depends on the order: for the inputs in the order {order}"
        compare_results(inputs, headline, found, expected, rtol, atol)


def _orders(length: int) -> list[list[int]]:
    places = list(range(length))
    return [places[1:] + places[:1], places[::-1], np.random.default_rng(0).permutation(length).tolist()]
