"""Drawn inputs for a08: pairs of scores, rankings of several lengths, and the twist's comparisons.

Every function draws one case from a generator. Scores far apart lie up to 900 from each other, where exp overflows
and a probability rounds to 0. What stands where a ranking has no answer is junk: large numbers, or NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case, Job

Rng = np.random.Generator
Floats = NDArray[np.float64]


def differences(rng: Rng, size: int, far: bool) -> Floats:
    """[size] differences of scores, of both signs; far: most by hundreds, and some still close."""
    signs = np.where(np.arange(size) % 2, -1.0, 1.0)
    sizes = rng.uniform(0.3, 2.5, size=size)
    if far:
        sizes = np.where(np.arange(size) < 4, rng.uniform(100, 900, size=size), sizes)
    found: Floats = (signs * sizes)[rng.permutation(size)]
    return found


def pairs(rng: Rng, target: str = "bradley_terry", far: bool = False, micro: bool = False) -> Case:
    """chosen and rejected scores [B]; both gradients."""
    size = int(rng.integers(5, 8))
    rejected = rng.normal(size=size) + 0.5
    arrays: Arrays = {"chosen_scores": rejected + differences(rng, size, far), "rejected_scores": rejected}
    arrays["dout"] = rng.normal(size=size) if target == "preference_probability" else weight(rng)
    named = {"count": {"value": size + int(rng.integers(3, 20))}} if micro else {}
    return differentiated(target, ["chosen_scores", "rejected_scores"], named, arrays)


def weight(rng: Rng) -> Floats:
    """What a loss is multiplied by before its gradient is taken, shape ()."""
    return np.array(rng.uniform(0.5, 2))


def differentiated(target: str, arguments: list[str], named: dict[str, Any], arrays: Arrays) -> Case:
    """The call with the gradients of its floating arguments."""
    leaves = [name for name in arguments if arrays[name].dtype == np.float64]
    return Case(Job(target, arguments, named, gradients=leaves, cotangents=["dout"]), arrays)


def accuracy(rng: Rng, ties: bool = False) -> Case:
    """Scores [B] with more wins than losses, so that neither side can stand for the other."""
    wins, losses = int(rng.integers(4, 7)), int(rng.integers(1, 4))
    signs = np.array([1.0] * wins + [-1.0] * losses + [0.0] * (int(rng.integers(1, 4)) if ties else 0))
    order = rng.permutation(len(signs))
    rejected = rng.normal(size=len(signs)) * 3
    chosen = np.where(signs == 0, rejected, rejected + signs * rng.uniform(0.2, 4, size=len(signs)))
    arrays = {"chosen_scores": chosen[order], "rejected_scores": rejected[order]}
    return Case(Job("pair_accuracy", ["chosen_scores", "rejected_scores"]), arrays)


def rankings(
    rng: Rng, places: int = 0, short: bool = False, junk: str = "large", micro: bool = False, scale: float = 1.5
) -> Case:
    """scores [B N], best first by the label and not by the score; short: counts [B] say how many are there."""
    rows, places = int(rng.integers(6, 8)), places or int(rng.integers(4, 6))
    arrays: Arrays = {"scores": rng.normal(size=(rows, places)) * scale, "dout": weight(rng)}
    named: dict[str, Any] = {}
    if short:
        counts = rng.permutation([1 + i % places for i in range(rows)])  # each number of answers, 1 and N among them
        beyond = np.arange(places) >= counts[:, None]
        arrays["scores"][beyond] = np.nan if junk == "nan" else 1e3
        arrays["counts"], named["counts"] = counts.astype(np.int64), "counts"
    if micro:
        named["rankings"] = {"value": rows + int(rng.integers(3, 20))}
    return differentiated("plackett_luce", ["scores"], named, arrays)


def twist(rng: Rng, target: str = "twisted_loss", far: bool = False) -> Case:
    """first and second scores [B] and, for the loss, outcomes int64 [B], all three of them."""
    size = int(rng.integers(9, 12))
    second = rng.normal(size=size)
    arrays: Arrays = {"first": second + differences(rng, size, far), "second": second}
    if target == "twisted_probabilities":
        arrays["dout"] = rng.normal(size=(size, 3))
        return differentiated(target, ["first", "second"], {}, arrays)
    arrays["outcomes"] = rng.permutation(np.arange(size) % 3).astype(np.int64)
    arrays["dout"] = weight(rng)
    return differentiated(target, ["first", "second", "outcomes"], {}, arrays)


CASES: dict[str, Callable[..., Case]] = {
    "pairs": pairs,
    "accuracy": accuracy,
    "rankings": rankings,
    "twist": twist,
}
"""The name a test's `cases` has in the assignment's file -> what draws one."""
