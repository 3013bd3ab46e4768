"""Comparing what came back with what is right, and saying what differs in words a student can act on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Argument, Arrays, Case, Job
from minirlhf.course.results import as_text

RTOL = 1e-9
"""float64 arithmetic in another order differs by some 1e-15 per operation; float32 anywhere differs by 1e-7."""
ATOL = 1e-10


@dataclass(frozen=True)
class Difference:
    """What is wrong with one array: `name`, and a sentence."""

    name: str
    says: str


def compare(got: Mapping[str, NDArray[Any]], expected: Mapping[str, NDArray[Any]]) -> Difference | None:
    """The first array, in the order of `expected`, that is missing, shaped or typed otherwise, or differs."""
    for name, right in expected.items():
        if name not in got:
            if "out" in got and re.match(r"out \d", name):
                several = {part[0] for each in expected if (part := re.match(r"out \d+", each))}
                return Difference(name, f"out: one value came back, expected {len(several)} ({name} and so on)")
            return Difference(name, f"{name}: nothing came back, expected {kind(right)}")
        mine = got[name]
        if (text := as_text(name, right)) is not None:
            if (answered := as_text(name, mine)) != text:
                return Difference(name, f"{name}: got {shortened(answered)}, expected {shortened(text)}")
            continue
        if mine.shape != right.shape:
            return Difference(name, f"{name}: got shape {list(mine.shape)}, expected {list(right.shape)}")
        if mine.dtype != right.dtype and not both_plain(mine, right):
            return Difference(name, f"{name}: got {mine.dtype}, expected {right.dtype}; keep the type of the inputs")
        exact = right.dtype.kind in "biu"
        wrong = np.array(mine != right if exact else ~np.isclose(mine, right, rtol=RTOL, atol=ATOL, equal_nan=True))
        if wrong.any():
            return Difference(name, first_mismatch(name, mine, right, wrong))
    for name in got:
        if name not in expected:
            return Difference(name, f"{name}: came back, and nothing of the kind was expected")
    return None


def both_plain(mine: NDArray[Any], right: NDArray[Any]) -> bool:
    """Two single numbers as wide as Python's: 0 may stand for 0.0."""
    return mine.ndim == 0 and all(each.dtype.kind in "if" and each.itemsize == 8 for each in (mine, right))


def shortened(text: str | None, most: int = 80) -> str:
    whole = text or "something else"
    return whole if len(whole) <= most else f"{whole[: most - 20]}… ({len(whole)} characters)"


def kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def first_mismatch(name: str, mine: NDArray[Any], right: NDArray[Any], wrong: NDArray[np.bool_]) -> str:
    """`out[0, 1, 2]: got 0.5, expected 0.25 (the first of 7 of 24 numbers that differ)`"""
    index = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
    place = f"[{', '.join(map(str, index))}]" if index else ""
    count = f"the first of {wrong.sum()} of {wrong.size} numbers that differ" if wrong.size > 1 else "the only number"
    digits = 6 if number(mine[index]) != number(right[index]) else 12
    text = f"{name}{place}: got {number(mine[index], digits)}, expected {number(right[index], digits)} ({count})"
    if not np.issubdtype(right.dtype, np.floating):
        return text
    finite = np.isfinite(mine) & np.isfinite(right)
    scale = max(1.0, float(np.abs(right[finite]).max(initial=0.0)))
    if not np.isfinite(mine[wrong]).all():
        return f"{text}; {np.isnan(mine).sum()} are NaN, {np.isinf(mine).sum()} infinite"
    if float(np.abs(mine[finite] - right[finite]).max(initial=0.0)) < 1e-5 * scale:
        return f"{text}; as close as float32 comes: is something computed in single precision?"
    return text


def number(value: Any, digits: int = 6) -> str:
    """So many digits of a fraction, all of an integer."""
    return f"{value + 0.0:.{digits}g}" if isinstance(value, np.floating) else str(value)


def same(got: Arrays, other: Arrays, right: Arrays) -> bool:
    """Does a mistake explain this result? It does if it gives the same, and what it gives is not right."""
    if got.keys() != other.keys() or any(got[name].shape != other[name].shape for name in got):
        return False
    close = all(np.allclose(got[name], other[name], rtol=1e-7, atol=1e-9, equal_nan=True) for name in got)
    return close and compare(other, right) is not None


def called(case: Case) -> str:
    """What was called: `eager_attend(q [2 4 3 5], k [2 2 3 5], …)`."""
    return f"{case.job.target}({', '.join([*map(_shown(case), case.job.arguments), *_named(case.job, case)])})"


def _named(job: Job, case: Case) -> list[str]:
    return [f"{name}={_shown(case)(argument)}" for name, argument in job.named.items()]


def _shown(case: Case) -> Any:
    def shown(argument: Argument) -> str:
        if isinstance(argument, str):
            array = case.arrays[argument]
            return f"{argument} {'bool ' if array.dtype == bool else ''}[{' '.join(map(str, array.shape))}]"
        if isinstance(argument, list | tuple):
            return f"({', '.join(map(shown, argument))})"
        if "list" in argument:
            return f"[{', '.join(map(shown, argument['list']))}]"
        if "items" in argument:
            return "{" + ", ".join(f"{shown(key)}: {shown(value)}" for key, value in argument["items"]) + "}"
        if "bytes" in argument:
            return shortened(repr(argument["bytes"].encode("latin-1")))
        if "generator" in argument:
            return f"a generator seeded with {argument['generator']}"
        if "shown" in argument:
            return shortened(argument["shown"], 160)  # our own words: all settings of a case should be there
        value = argument["value"]
        return f"{value:.6g}" if isinstance(value, float) else shortened(repr(value))

    return shown
