"""Confidence intervals for shares, means, win rates and paired differences.

Nothing here knows about models; scores come in as arrays, one number per answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minirlhf.seeding import numpy_generator

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal: 95 % lies within ±Z_95


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval (low, high) and the number of things it was taken over."""

    mean: float
    interval_95: tuple[float, float]
    n: int

    def as_dict(self) -> dict[str, object]:
        """The same as plain JSON: {"mean", "interval_95": [low, high], "n"}."""
        return {"mean": self.mean, "interval_95": list(self.interval_95), "n": self.n}


def wilson_interval(successes: float, n: int, z: float = Z_95) -> tuple[float, float]:
    """The interval for a share of successes among n trials that stays honest near 0 and 1.

    Wilson 1927, JASA 22:209-212: all shares p with |share - p| <= z·sqrt(p(1-p)/n). successes may be a
    half-integer, because ties count half. Raises ValueError unless n >= 1 and 0 <= successes <= n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need n >= 1 and 0 <= successes <= n, got successes {successes}, n {n}")
    share = successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # rounding must not push an end past the share itself: 0 of n has the low end 0, not 1e-18
    return min(share, max(0.0, float(centre - half_width))), max(share, min(1.0, float(centre + half_width)))


def share(successes: float, n: int) -> Estimate:
    """successes out of n as an Estimate with its Wilson interval."""
    return Estimate(successes / n, wilson_interval(successes, n), n)


def mean_interval(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean ± 1.96 standard errors (the normal approximation: trust it from about 30 values on).

    Raises ValueError for fewer than two values (one value says nothing of its spread) or a non-finite one.
    """
    x = _finite_vector("values", values)
    if len(x) < 2:
        raise ValueError(f"an interval needs at least two values, got {len(x)}")
    half_width = Z_95 * float(x.std(ddof=1)) / float(np.sqrt(len(x)))
    mean = float(x.mean())
    return Estimate(mean, (mean - half_width, mean + half_width), len(x))


def win_rate(scores_a: Sequence[float] | np.ndarray, scores_b: Sequence[float] | np.ndarray) -> Estimate:
    """How often a's answer beats b's answer to the same prompt; a tie counts half.

    The Wilson interval treats every pair as a full coin toss; ties vary less, so with many ties it is
    wider than need be, never narrower. Raises ValueError for different lengths, none, or non-finite scores.
    """
    a, b = _paired(scores_a, scores_b)
    return share(float((a > b).sum() + 0.5 * (a == b).sum()), len(a))


def paired_bootstrap(
    scores_a: Sequence[float] | np.ndarray, scores_b: Sequence[float] | np.ndarray, seed: int, draws: int = 2000
) -> Estimate:
    """Mean of a - b over prompts with the percentile bootstrap's 95 % interval (Efron 1979).

    Prompts are drawn with replacement, both answers together, so that easy and hard prompts cancel.
    The same seed gives the same interval. Raises ValueError as win_rate does, and for draws < 1.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    a, b = _paired(scores_a, scores_b)
    difference = a - b
    generator = numpy_generator(seed, "paired_bootstrap")
    # one draw at a time: draws x n indices at once would be hundreds of MB for a large evaluation
    means = [difference[generator.integers(0, len(a), len(a))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(difference.mean()), (float(low), float(high)), len(a))


def _paired(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = _finite_vector("scores_a", a), _finite_vector("scores_b", b)
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"need two scores per prompt and at least one prompt, got {len(x)} and {len(y)} scores")
    return x, y


def _finite_vector(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} holds a non-finite number at index {int(np.flatnonzero(~np.isfinite(x))[0])}")
    return x
