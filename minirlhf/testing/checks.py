"""Two computations that must agree: with a reference, with a special case, with the same batch in parts."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minirlhf.testing.arguments import (
    Array,
    Function,
    Inputs,
    Selection,
    call_with_arrays,
    gather,
    hand_gradients,
    name_of,
    places,
    upstream,
    values_and_gradients,
)
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.messages import element, failure, readable, worst_difference


def check_against_reference(
    function: Function,
    reference: Function,
    *arguments: Any,
    reference_gradient: Function | None = None,
    wrt: Selection = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> None:
    """A torch function has the values of a NumPy reference, and with reference_gradient the same gradients.

    function            gets the arguments with arrays as tensors; reference gets them as they are. Both return a
                        number, an array or a tuple of arrays.
    reference_gradient  (*arguments) -> the gradient of each of the first float64 arrays; unless the reference returns
                        a number, it gets the upstream gradient of each result as further arguments. The float64
                        arrays it returns nothing for are data: autograd may send them nothing.
    wrt                 names or counts of the arguments the gradients belong to; the others are then not looked at.

    Where a gradient differs, a finite difference of the reference says which of the two is right.
    Raises: AssertionError saying where they differ; ValueError for arguments that cannot be checked.
    """
    __tracebackhide__ = True
    inputs = gather(function, arguments, wrt)
    outputs, found = values_and_gradients(function, inputs)
    expected = call_with_arrays(reference, inputs, inputs.values)
    compare_results(inputs, f"{inputs.function} differs from its reference", outputs, expected, rtol, atol)
    if reference_gradient is None:
        return
    wanted = hand_gradients(reference_gradient, inputs, expected)
    for place, got, want in zip(inputs.chosen, found, wanted, strict=False):
        got = np.zeros_like(want) if got is None else got
        if (difference := worst_difference(got, want, rtol, atol)) is not None:
            raise _wrong_gradient(inputs, reference, upstream(expected), place, got, want, difference)
    for place, got in list(zip(inputs.chosen, found, strict=True))[len(wanted) :]:
        if wrt is None and got is not None and (got != 0).any():
            name = inputs.names[place]
            note = f"{name_of(reference_gradient)} returns none for it, so it is data: detach it"
            raise failure(f"{inputs.function}: {name} gets a gradient", {}, [note], inputs.named())


def _wrong_gradient(
    inputs: Inputs,
    reference: Function,
    weights: Sequence[Array],
    place: int,
    got: Array,
    want: Array,
    difference: tuple[int, tuple[int, ...]],
) -> AssertionError:
    count, index = difference

    def along(number: Any) -> float:
        values = list(inputs.values)
        values[place] = values[place].copy()
        values[place][index] = number.item()
        results = call_with_arrays(reference, inputs, values)
        return float(sum((weight * result).sum() for weight, result in zip(weights, results, strict=True)))

    nudged = float(central_difference(along, np.array(inputs.values[place][index])))
    texts = readable(float(got[index]), float(want[index]))
    rows = {"got (autograd)": texts[0], "expected (by hand)": texts[1], "by finite difference": f"{nudged:.8g}"}
    where = element(inputs.names[place], index)
    note = f"wrong at {count} of {got.size} coordinates"
    return failure(f"{inputs.function}: gradient for {where} differs from its reference", rows, [note], inputs.named())


def check_reduces_to(
    general: Function,
    special: Function,
    *arguments: Any,
    wrt: Selection = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> None:
    """Two torch functions are equal at these arguments, in value and in the gradient of every float64 array.

    For a law such as "with one answer per pair this is Bradley-Terry": wrap either side in a lambda to set its options.
    Raises: AssertionError saying where they differ; ValueError for arguments that cannot be checked.
    """
    __tracebackhide__ = True
    inputs = gather(general, arguments, wrt)
    compare_calls(inputs, general, special, f"{inputs.function} is not {name_of(special)}", rtol, atol)


def check_accumulation(
    loss: Function,
    *arguments: Any,
    part_loss: Function | None = None,
    batched: Selection = None,
    rtol: float = 1e-10,
    atol: float = 1e-12,
) -> None:
    """The parts of a batch, one after the other, add up to the loss and the gradients of the whole.

    loss       (*arguments as tensors) -> a number; the batch is the first axis.
    part_loss  (part, whole), two tuples of tensors -> what this part adds. By default loss(*part), which is right for
               a sum. A mean over the counted tokens (mask last) would be
               `lambda part, whole: loss(*part) * part[-1].sum() / whole[-1].sum()`; a mean of the parts' means is not.
    batched    names or counts of the arguments that are cut; by default all arrays as long as the first array.

    Cuts the batch in two at every place, and into single rows; a batch of one row passes.
    Raises: AssertionError naming the cut and the argument; ValueError for arguments that cannot be checked.
    """
    __tracebackhide__ = True
    inputs = gather(loss, arguments)
    lengths = [value.shape[0] if isinstance(value, np.ndarray) and value.ndim else None for value in inputs.values]
    rows = next((length for length in lengths if length is not None), None)
    if rows is None:
        raise ValueError(f"{inputs.function}: no argument has a batch axis")
    cut = [i for i, n in enumerate(lengths) if n == rows] if batched is None else places(batched, inputs.names)
    rows = lengths[cut[0]] or 0
    cuts = [[0, place, rows] for place in range(1, rows)] + ([list(range(rows + 1))] if rows > 2 else [])
    share = part_loss or (lambda part, whole: loss(*part))
    for edges in cuts:
        pieces = [slice(start, end) for start, end in pairwise(edges)]

        def in_parts(*whole: Any, pieces: Sequence[slice] = pieces) -> Any:
            parts = (tuple(x[piece] if i in cut else x for i, x in enumerate(whole)) for piece in pieces)
            return sum(share(part, whole) for part in parts)

        shown = ", ".join(f"{piece.start}:{piece.stop}" for piece in pieces)
        compare_calls(inputs, in_parts, loss, f"{inputs.function}: rows {shown} do not add up to the whole", rtol, atol)


def compare_calls(inputs: Inputs, function: Function, other: Function, headline: str, rtol: float, atol: float) -> None:
    """Two torch functions have the same values and gradients; a gradient that is None counts as 0."""
    __tracebackhide__ = True
    outputs, found = values_and_gradients(function, inputs)
    expected, wanted = values_and_gradients(other, inputs)
    compare_results(inputs, headline, outputs, expected, rtol, atol)
    for place, got, want in zip(inputs.chosen, found, wanted, strict=True):
        zeros = np.zeros_like(inputs.values[place])
        got, want = zeros if got is None else got, zeros if want is None else want
        compare(inputs, headline, f"gradient for {inputs.names[place]}", got, want, rtol, atol)


def compare_results(
    inputs: Inputs, headline: str, outputs: Sequence[Array], expected: Sequence[Array], rtol: float, atol: float
) -> None:
    __tracebackhide__ = True
    if len(outputs) != len(expected):
        raise failure(f"{headline}: {len(outputs)} results, expected {len(expected)}", {}, [], inputs.named())
    for i, (got, want) in enumerate(zip(outputs, expected, strict=True)):
        compare(inputs, headline, "value" if len(outputs) == 1 else f"result {i}", got, want, rtol, atol)


def compare(
    inputs: Inputs, headline: str, what: str, got: Array, want: Array, rtol: float, atol: float, note: str = ""
) -> None:
    """Raise an AssertionError showing the element that differs most, if any differs."""
    __tracebackhide__ = True
    if got.shape != want.shape:
        shapes = {"got": str(got.shape), "expected": str(want.shape)}
        raise failure(f"{headline} (shape of the {what})", shapes, [], inputs.named())
    if (difference := worst_difference(got, want, rtol, atol)) is None:
        return
    count, index = difference
    rows = dict(zip(("got", "expected"), readable(float(got[index]), float(want[index])), strict=True))
    notes = [note] if note else []
    notes += [f"wrong at {count} of {got.size} places"] if got.size > 1 else []
    raise failure(f"{headline} ({element(what, index)})", rows, notes, inputs.named())
