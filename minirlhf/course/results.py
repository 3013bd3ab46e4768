"""Whatever a call returns as named arrays, so that it can travel as safetensors and be compared number by number."""

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TEXTS = {" (text)": str, " (bytes)": bytes}
"""How the name of a text ends; its array holds UTF-8 bytes."""


def flatten(found: dict[str, NDArray[Any]], name: str, value: Any) -> bool:
    """Puts `value` into `found` under names that begin with `name`. False if it is something nobody can compare.

    tensor, array, number     name: the array, shape and type as they are; Python's numbers are int64, float64, bool
    text, bytes               `name (text)`, `name (bytes)`
    list or tuple             name: one array if all are numbers; else `name 0`, `name 1`, … and `length of name`
    set                       as the sorted list          mapping, dataclass    `name[key]`, `name.field`
    None inside of these      `name (None)`
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return number(found, name, as_array(value))
    elif isinstance(value, bool | int | float):
        return number(found, name, np.array(value))
    elif isinstance(value, str | bytes):
        ending, text = (" (text)", value.encode()) if isinstance(value, str) else (" (bytes)", value)
        found[name + ending] = np.frombuffer(text, dtype=np.uint8).copy()
    elif isinstance(value, Set):
        return flatten(found, name, sorted(value))
    elif isinstance(value, list | tuple):
        if value and all(type(each) in (int, float) for each in value):
            return number(found, name, np.array(value))
        found[f"length of {name}"] = np.array(len(value))
        return all(inside(found, f"{name} {i}", each) for i, each in enumerate(value))
    elif isinstance(value, Mapping):
        found[f"length of {name}"] = np.array(len(value))
        return all(inside(found, f"{name}[{key!r}]", each) for key, each in value.items())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(each.name, getattr(value, each.name)) for each in dataclasses.fields(value)]
        return all(inside(found, f"{name}.{key}", each) for key, each in parts)
    else:
        return False
    return True


def number(found: dict[str, NDArray[Any]], name: str, array: NDArray[Any]) -> bool:
    """Numbers and truth values travel; texts in arrays, objects and integers beyond 64 bits do not."""
    if array.dtype.kind in "biuf":
        found[name] = array
    return array.dtype.kind in "biuf"


def inside(found: dict[str, NDArray[Any]], name: str, value: Any) -> bool:
    if value is None:
        found[f"{name} (None)"] = np.zeros(0, dtype=bool)
        return True
    return flatten(found, name, value)


def as_array(value: Any) -> NDArray[Any]:
    """A plain, contiguous NumPy copy; what NumPy has no type for (bfloat16) becomes float32, which is wrong anyway."""
    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu()
        value = (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()
    return np.array(value, order="C")


def as_text(name: str, array: NDArray[Any]) -> str | None:
    """The text in an array whose name ends like one, as Python would write it; None for numbers."""
    for ending, kind in TEXTS.items():
        if name.endswith(ending) and array.dtype == np.uint8:
            whole = array.tobytes()
            return repr(whole.decode("utf-8", errors="replace") if kind is str else whole)
    return None
