"""The arguments of a checked function: what they are called, which are differentiated, and one call with them."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
Function = Callable[..., Any]
Selection = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call, arrays in NumPy; `chosen` are the places of those that are differentiated."""

    function: str
    names: tuple[str, ...]
    values: tuple[Any, ...]
    chosen: tuple[int, ...]

    def named(self) -> dict[str, Any]:
        return dict(zip(self.names, self.values, strict=True))


def gather(function: Function, arguments: Sequence[object], wrt: Selection = None) -> Inputs:
    """Name the arguments and choose those to differentiate: every float64 array, or those wrt names or counts.

    Raises: ValueError for an array of lower precision, or when wrt means no argument or one that is not float64.
    """
    values = tuple(to_numpy(value) if hasattr(value, "detach") else value for value in arguments)
    names = argument_names(function, len(values))
    for name, value in zip(names, values, strict=True):
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.dtype != np.float64:
            raise ValueError(f"{name} is {value.dtype}, it must be float64: less would drown what is measured")
    floating = [place for place, value in enumerate(values) if _is_float64(value)]
    chosen = floating if wrt is None else places(wrt, names)
    for place in chosen:
        if place not in floating:
            raise ValueError(f"{names[place]} is no float64 array: it cannot be differentiated")
    return Inputs(name_of(function), names, values, tuple(chosen))


def places(selection: str | int | Sequence[str | int], names: Sequence[str]) -> list[int]:
    """The places of the arguments that are named or counted."""
    wanted = [selection] if isinstance(selection, str | int) else list(selection)
    unknown = [item for item in wanted if item not in names and item not in range(len(names))]
    if unknown:
        raise ValueError(f"there is no argument {unknown[0]!r}, only {', '.join(names)}")
    return [item if isinstance(item, int) else names.index(item) for item in wanted]


def _is_float64(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float64


def name_of(function: Function) -> str:
    """What a person would call it; a partial has the name of what it wraps, a module that of its class."""
    name = getattr(getattr(function, "func", function), "__name__", type(function).__name__)
    return "the function" if name == "<lambda>" else name


def argument_names(function: Function, count: int) -> tuple[str, ...]:
    """The first names of the signature; `argument_0`, ... where it says nothing, `xs_0`, ... for those of `*xs`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # built in, without a signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), None)
    more = range(count - len(names))
    return (*names, *(f"argument_{len(names) + i}" if rest is None else f"{rest}_{i}" for i in more))


def to_numpy(value: Any) -> Array:
    """A tensor, an array or a number as an array."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def call_with_arrays(function: Function, inputs: Inputs, values: Sequence[Any]) -> list[Array]:
    """The results of function(*values), each as an array; a tuple is several results.

    Raises: AssertionError if the function changes an argument or computes with less than float64.
    """
    passed = [value.copy() if isinstance(value, np.ndarray) else value for value in values]
    results = function(*passed)
    _refuse_changes(name_of(function), inputs, values, passed)
    return as_arrays(name_of(function), results)


def call_with_tensors(
    function: Function, inputs: Inputs, values: Sequence[Any]
) -> tuple[list[Any], list[Array], "list[Tensor]"]:
    """The results of function(*values) with arrays as tensors, the same as arrays, and the leaves of the graph.

    Raises: as call_with_arrays.
    """
    import torch

    passed: list[Any] = []
    leaves: list[Tensor] = []
    for place, value in enumerate(values):
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(value.copy())
        if place in inputs.chosen:
            leaves.append(value.requires_grad_())
            value = leaves[-1].clone()  # what is changed in place would be an error in a leaf, and is named below
        passed.append(value)
    results = function(*passed)
    _refuse_changes(inputs.function, inputs, values, passed)
    parts = list(results) if isinstance(results, tuple) else [results]
    return parts, as_arrays(inputs.function, results), leaves


def as_arrays(function: str, results: Any) -> list[Array]:
    arrays = [to_numpy(part) for part in (results if isinstance(results, tuple) else (results,))]
    for array in arrays:
        if array.dtype.kind not in "biuf":
            kind = type(array.item()).__name__ if array.ndim == 0 else f"an array of {array.dtype}"
            raise ValueError(
                f"{function} must return a number, an array, or a tuple of them, but returned {kind}: "
                "check a part of it, as in `lambda *x: my_loss(*x)[0]`"
            )
        if array.dtype.kind == "f" and array.dtype != np.float64:
            raise AssertionError(
                f"{function} returned {array.dtype} for float64 arguments: something in it loses precision "
                "(a .float(), a tensor made without dtype=)"
            )
    return arrays


def _refuse_changes(function: str, inputs: Inputs, before: Sequence[Any], after: Sequence[Any]) -> None:
    for name, old, new in zip(inputs.names, before, after, strict=True):
        if isinstance(old, np.ndarray) and not np.array_equal(old, to_numpy(new), equal_nan=old.dtype.kind == "f"):
            raise AssertionError(f"{function} changes its argument {name} in place: it must work on a copy")


def upstream(outputs: Sequence[Array]) -> list[Array]:
    """What each number of the results counts in the sum that is differentiated; 1 if there is only one number.

    Random, so that no two errors cancel, fixed, so that a failure comes again, and away from 0. Integers count 0.
    """
    if len(outputs) == 1 and outputs[0].shape == ():
        return [np.ones(())]
    rng = np.random.default_rng(0)
    weights = [rng.choice([-1.0, 1.0], output.shape) * rng.uniform(0.5, 1.5, output.shape) for output in outputs]
    return [
        np.asarray(weight if output.dtype.kind == "f" else 0.0 * weight)
        for weight, output in zip(weights, outputs, strict=True)
    ]


def values_and_gradients(function: Function, inputs: Inputs) -> tuple[list[Array], list[Array | None]]:
    """The results of a torch function, and autograd's gradients of their weighted sum with respect to the chosen.

    None stands where no path leads from an argument to the results.
    """
    import torch

    results, outputs, leaves = call_with_tensors(function, inputs, inputs.values)
    total: Any = 0.0
    for result, weight in zip(results, upstream(outputs), strict=True):
        if isinstance(result, torch.Tensor) and result.requires_grad:
            total = total + (result * torch.from_numpy(weight).to(result.device)).sum()
    if not leaves or not isinstance(total, torch.Tensor):
        return outputs, [None] * len(leaves)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return outputs, [None if gradient is None else to_numpy(gradient) for gradient in gradients]


def hand_gradients(gradient: Function, inputs: Inputs, outputs: Sequence[Array]) -> list[Array]:
    """What gradient(*arguments) returns, as one float64 array for each of the first chosen arguments.

    Unless the result is a single number, gradient gets the upstream gradient as well, one array for each result.
    Raises: AssertionError for a shape that is not the argument's; ValueError for more gradients than arguments.
    """
    name = name_of(gradient)
    single = len(outputs) == 1 and outputs[0].shape == ()
    passed = [value.copy() if isinstance(value, np.ndarray) else value for value in inputs.values]
    returned = gradient(*passed, *([] if single else upstream(outputs)))
    _refuse_changes(name, inputs, inputs.values, passed)
    parts = returned if isinstance(returned, tuple | list) else (returned,)
    if len(parts) > len(inputs.chosen):
        chosen = ", ".join(inputs.names[place] for place in inputs.chosen)
        raise ValueError(f"{name} returned {len(parts)} gradients for {len(inputs.chosen)} arguments ({chosen})")
    gradients = []
    for part, place in zip(parts, inputs.chosen, strict=False):
        shape = inputs.values[place].shape
        array = np.zeros(shape) if part is None else np.asarray(to_numpy(part), dtype=np.float64)
        if array.shape != shape:
            label = inputs.names[place]
            raise AssertionError(f"{name}: the gradient of {label} has shape {array.shape}, {label} has {shape}")
        gradients.append(array)
    return gradients
