"""What the learners share: how large a step is, and what they hand back."""

from collections.abc import Callable
from dataclasses import dataclass

from minirlhf.tabular.process import Floats

StepSize = Callable[[int], float]
"""How many times this state and action were updated, this time included (1, 2, ...) -> the step size in (0, 1]."""


@dataclass(frozen=True)
class Learned:
    """q [S A], what was learnt; returns [episodes], the undiscounted reward of every episode on the way."""

    q: Floats
    returns: Floats


def constant(size: float) -> StepSize:
    """The same step for ever: follows a changing target, and never stops trembling."""
    return lambda visits: size


HALF = constant(0.5)


def decaying(power: float = 1.0) -> StepSize:
    """1 / visits^power. For powers in (1/2, 1] the steps sum to infinity and their squares do not: the noise averages
    out and any start is forgotten. Robbins and Monro 1951; Sutton and Barto 2018, eq. 2.7. Power 1 is the plain mean.
    """
    return lambda visits: float(visits**-power)
