"""Drawn inputs for a04's cache. Sizes differ from each other, and the free places hold large numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator


def buffers(rng: Rng, capacity: int, length: int) -> Arrays:
    """keys and values [L B G C K]; the free places hold thousands."""
    arrays: Arrays = {name: rng.normal(size=(3, 2, 1, capacity, 4)) for name in ("keys", "values")}
    for array in arrays.values():
        array[:, :, :, length:] = rng.integers(1000, 9000, size=array[:, :, :, length:].shape)
    return arrays


def on_cache(method: str, arrays: Arrays, arguments: Sequence[str], **setting: Any) -> Case:
    """A method of a cache, by the play of its name."""
    job = Job(f"KVCache.{method}", list(arguments), play=f"a04_decoder.plays:{method}", setting=setting)
    return Case(job, arrays)


def append(rng: Rng) -> Case:
    """k and v [B G T K] of the second or third layer."""
    length, tokens = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    arrays = buffers(rng, 8, length) | {name: rng.normal(size=(2, 1, tokens, 4)) for name in ("k", "v")}
    return on_cache("append", arrays, ["k", "v"], length=length, layer=int(rng.integers(1, 3)))


def select(rng: Rng, everything: bool = False) -> Case:
    """rows int64 [b] of the batch, one of them twice; everything: the slice of all rows."""
    length = int(rng.integers(2, 5))
    arrays = buffers(rng, 7, length)
    if not everything:
        arrays["rows"] = rng.permutation([0, 1, 1]).astype(np.int64)
    return on_cache("select", arrays, [] if everything else ["rows"], length=length)


def reserve(rng: Rng, written: int = 0, full: bool = False) -> Case:
    """written: so many tokens were written behind the value already, by somebody it shares its buffers with.

    full: as many tokens are asked for as there are places; then, of the same value, one more than there are.
    """
    length, capacity = int(rng.integers(2, 4)), 9
    tokens = capacity - length if full else int(rng.integers(1, 4))
    return on_cache(
        "reserve", buffers(rng, capacity, length), [], length=length, newest=length + written, tokens=tokens, full=full
    )
