"""What a failing check prints: which number, what it should have been, and the inputs as code to paste."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_NUMBERS = 200
"""An array with more numbers than this is described, not printed."""


def as_code(value: object) -> str:
    """Python that makes the value again, bit for bit, given `import numpy as np`.

    What would be too long, and what is no array, number or text, becomes `...` and a comment that describes it.
    """
    if isinstance(value, np.ndarray):
        return _array_code(value)
    if isinstance(value, tuple | list):
        inner = ", ".join(as_code(part) for part in value)
        if "  # " not in inner:
            comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
            return f"({inner}{comma})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, bool | int | float | np.generic):
        return _nested(value.item() if isinstance(value, np.generic) else value)
    if value is None or (isinstance(value, str) and len(value) <= 200):
        return repr(value)
    return f"...  # of type {type(value).__name__}"


def _array_code(array: NDArray[Any]) -> str:
    known = array.dtype in (np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_))
    name = "bool_" if array.dtype == np.bool_ else array.dtype.name
    dtype = "" if known else f", dtype=np.{name}"
    if array.size == 0:
        return f"np.zeros({array.shape}, dtype=np.{name})"
    first = array.flat[0]
    if array.size > 8 and (array == first).all() and not (first == 0 and np.signbit(array).any()):
        return f"np.full({array.shape}, {_nested(first.item())}{dtype})"
    if array.size > MOST_NUMBERS:
        start = ", ".join(_nested(number) for number in array.ravel()[:3].tolist())
        return f"...  # {name} {array.shape}, too many numbers to print: {start}, ..."
    return f"np.array({_nested(array.tolist())}{dtype})"


def _nested(value: object) -> str:
    """Lists of numbers as Python, with the two that have no literal."""
    if isinstance(value, list):
        return f"[{', '.join(_nested(part) for part in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return "np.nan" if math.isnan(value) else ("np.inf" if value > 0 else "-np.inf")
    return repr(value)


def assignments(arguments: Mapping[str, object]) -> list[str]:
    """`name = code`, broken into lines where Python allows it."""
    lines: list[str] = []
    for name, value in arguments.items():
        line = f"{name} = {as_code(value)}"
        if len(line) <= 100 or "  # " in line or "'" in line:
            lines.append(line)
            continue
        for i, row in enumerate(line.replace("], [", "],\n[").split("\n")):  # a row a line
            indent = "    " if i else ""
            lines += textwrap.wrap(
                row,
                100,
                initial_indent=indent,
                subsequent_indent="    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def element(name: str, index: tuple[int, ...]) -> str:
    """`scores[0, 2]`, or `scores` for an array without axes."""
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def readable(first: float, *others: float) -> list[str]:
    """The numbers, with at least six digits and as many more as tell the first from the others."""
    texts: list[str] = []
    for digits in range(6, 18):
        texts = [f"{float(number):.{digits}g}" for number in (first, *others)]
        if texts[0] not in texts[1:]:
            break
    return texts


def failure(
    headline: str, rows: Mapping[str, str], notes: Sequence[str], arguments: Mapping[str, object]
) -> AssertionError:
    """The error of every check: a headline, labelled numbers, remarks, and the inputs."""
    label_width = max((len(label) for label in rows), default=0)
    negative = any(text.startswith("-") for text in rows.values())
    lines = [headline]
    for label, text in rows.items():
        lines.append(f"  {label:<{label_width}}  {' ' * (negative and not text.startswith('-'))}{text}")
    lines += [f"  {note}" for note in notes]
    lines += ["  arguments:", *(f"    {line}" for line in assignments(arguments))]
    return AssertionError("\n".join(lines))


def worst_difference(
    got: NDArray[Any], expected: NDArray[Any], rtol: float, atol: float
) -> tuple[int, tuple[int, ...]] | None:
    """How many elements are further apart than atol + rtol |expected|, and where the furthest is; None if none.

    Equal infinities are equal; NaN equals nothing. Shapes are the same.
    """
    wrong = ~np.isclose(got, expected, rtol=rtol, atol=atol)
    if not wrong.any():
        return None
    with np.errstate(invalid="ignore"):
        distance = np.abs(np.asarray(got, dtype=np.float64) - np.asarray(expected, dtype=np.float64))
    distance = np.where(wrong, np.nan_to_num(distance, nan=np.inf, posinf=np.inf), -1.0)
    index = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(wrong.sum()), tuple(int(i) for i in index)
