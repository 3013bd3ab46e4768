"""The learning rate over a run of n steps: a linear warm-up over the first w, then a way down to a fraction f.

After k steps (k = 0 first), of the peak rate:

    k < w:     (k + 1) / w                                                the first step already moves
    k >= w:    f + (1 - f) · shape(p),     p = (k - w) / (n - 1 - w), so p = 1 at the last step

    constant   shape(p) = 1
    linear     shape(p) = 1 - p
    cosine     shape(p) = (1 + cos(π p)) / 2          Loshchilov and Hutter 2017, arXiv:1608.03983, eq. 5
"""

from math import cos, pi
from typing import Literal


def learning_rate_at(
    step: int,
    steps: int,
    peak: float,
    warmup_steps: int,
    final_fraction: float,
    schedule: Literal["constant", "linear", "cosine"],
) -> float:
    """The learning rate of the step after `step` steps of `steps`."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    last = steps - 1
    if schedule == "constant" or last == 0:  # a run of one step has nothing to come down from
        return peak
    done = (step - warmup_steps) / (last - warmup_steps) if step < last else 1.0
    shape = 1 - done if schedule == "linear" else (1 + cos(pi * done)) / 2
    return peak * (final_fraction + (1 - final_fraction) * shape)
