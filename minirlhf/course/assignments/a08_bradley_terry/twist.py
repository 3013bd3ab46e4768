"""The twist of a08: annotators with habits, drawn for each student. This module is its independent reference.

NumPy, with the gradients derived by hand. With scores a (shown first) and b (shown second) of one comparison,

    home     whoever is shown first gets it for nothing · d = (a - b) / spread + home, spread 1 where none is drawn
    tie      a difference has to exceed it · P_0 = σ(d - tie), P_1 = σ(-d - tie), P_2 = 1 - P_0 - P_1
             (Rao and Kupper 1967, "Ties in paired-comparison experiments")
    spread   scores count for less
    lapse    the share of blind choices, which are never a tie · P_0 and P_1 become (1 - lapse) P_k + lapse / 2, P_2
             becomes (1 - lapse) P_2

With w = e^d and θ = e^tie, P_0 = w / (w + θ), P_1 = 1 / (1 + θ w), so what is left is
P_2 = w (θ² - 1) / ((w + θ) (1 + θ w)) = (θ² - 1) P_0 P_1, whose logarithm is a sum. The slopes in d are
P_0' = P_0 (1 - P_0), P_1' = -P_1 (1 - P_1), P_2' = -P_0' - P_1', and of log P_2 it is P_1 - P_0.

Everybody gets home and tie, and one of spread and lapse.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("home", "tie", "spread", "lapse")


def draw(drawn: bytes) -> Twist:
    """More than 60,000 combinations."""
    third = (
        ("spread", round(1.4 + 0.05 * (drawn[3] % 33), 2))
        if drawn[0] % 2
        else ("lapse", round(0.06 + 0.01 * (drawn[3] % 25), 2))
    )
    return {
        "home": round(0.25 + 0.02 * (drawn[1] % 51), 2),
        "tie": round(0.3 + 0.02 * (drawn[2] % 46), 2),
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    spread = f"first - second, divided by {twist['spread']:g}" if "spread" in twist else "first - second"
    whole = (
        f"(first - second) / {twist['spread']:g} + {twist['home']:g}"
        if "spread" in twist
        else f"first - second + {twist['home']:g}"
    )
    steps = [
        "An annotator reads two answers, one after the other, and the one shown first has a home advantage: where "
        f"exercise 8.1 has chosen - rejected stands {spread}, plus {twist['home']:g}. So d = {whole}.",
        f"A difference has to exceed {twist['tie']:g} to be noticed, so there are three outcomes: P_0 = "
        f"sigmoid(d - {twist['tie']:g}), the first answer wins; P_1 = sigmoid(-d - {twist['tie']:g}), the second "
        "wins; P_2 = 1 - P_0 - P_1, they tie.",
    ]
    if "lapse" in twist:
        steps.append(
            f"A share of {twist['lapse']:g} of all choices is made blindly, and never says tie: P_0 becomes "
            f"(1 - {twist['lapse']:g}) · P_0 + {twist['lapse']:g} / 2, P_1 likewise, and P_2 becomes "
            f"(1 - {twist['lapse']:g}) · P_2."
        )
    steps += [
        "twisted_probabilities: P_0, P_1 and P_2 are the three columns.",
        "twisted_loss: the mean over the comparisons of -log P_k, where k is the comparison's entry in outcomes. The "
        f"P_2 of step 2 is also (e^(2 · {twist['tie']:g}) - 1) · P_0 · P_1; check it on paper, you will need it where "
        "1 - P_0 - P_1 rounds to 0.",
    ]
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradients of first and second."""
    return reckoned(twist, case)


def reckoned(
    twist: Twist,
    case: Case,
    order: tuple[int, int, int] = (0, 1, 2),
    shares: tuple[float, float, float] = (0.5, 0.5, 0.0),
    kept: float = 1.0,
    home_before: bool = False,
    summed: bool = False,
) -> Arrays:
    """`out` and two gradients.

    Mistakes to recognise: the columns in another order, other shares of the blind choices, kept times lapse taken from
    the others, home added before the division, a sum for a mean.
    """
    arrays: dict[str, Any] = case.arrays
    home, tie, spread, lapse = (twist.get(name, otherwise) for name, otherwise in zip(NAMES, (0, 0, 1, 0), strict=True))
    d = (arrays["first"] - arrays["second"]) / spread + (home / spread if home_before else home)  # [B]
    with np.errstate(all="ignore"):
        logs = np.stack((log_sigmoid(d - tie), log_sigmoid(-d - tie)), axis=1)
        logs = np.concatenate((logs, logs.sum(1, keepdims=True) + np.log(np.expm1(2 * tie))), axis=1)[:, order]  # [B 3]
        won, lost = np.exp(log_sigmoid(d - tie)), np.exp(log_sigmoid(-d - tie))
        slopes = np.stack((1 - won, lost - 1, lost - won), axis=1)[:, order]  # of the logs in d
        seen, blind = 1 - kept * lapse, lapse * np.array(shares)[list(order)]
        mixed = seen * np.exp(logs) + blind
        if case.job.target == "twisted_probabilities":
            out = mixed
            moved = (arrays["dout"] * seen * np.exp(logs) * slopes).sum(1)
        else:
            rows, outcomes, count = np.arange(len(d)), arrays["outcomes"], 1 if summed else len(d)
            costs = np.where(blind > 0, np.log(mixed), np.log(seen) + logs)
            slope = np.where(blind > 0, seen * np.exp(logs) / mixed, 1.0) * slopes
            out = np.array(-costs[rows, outcomes].sum() / count)
            moved = -slope[rows, outcomes] * arrays["dout"] / count
    return {"out": out, "gradient of first": moved / spread, "gradient of second": -moved / spread}


def log_sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log(1 + e^-x), where only negative numbers are exponentiated."""
    found: NDArray[np.float64] = np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
    return found


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    yield "there were no home advantage", reckoned(without["home"], case)
    yield "the home advantage went to the answer shown second", reckoned(twist | {"home": -twist["home"]}, case)
    yield "the second outcome were a tie; that is outcome 2", reckoned(twist, case, order=(0, 2, 1))
    yield "first and second changed places in the outcomes", reckoned(twist, case, order=(1, 0, 2))
    if "spread" in twist:
        yield "the scores were not divided", reckoned(without["spread"], case)
        yield "the scores were multiplied, not divided", reckoned(twist | {"spread": 1 / twist["spread"]}, case)
        yield "the home advantage were divided too", reckoned(twist, case, home_before=True)
    else:
        yield "nobody chose blindly", reckoned(without["lapse"], case)
        yield "blind choices fell on all three outcomes; they never say tie", reckoned(twist, case, shares=(1 / 3,) * 3)
        yield "blind choices came on top: the others lose their share", reckoned(twist, case, kept=0.0)
    if case.job.target == "twisted_loss":
        yield "the comparisons were summed, not averaged", reckoned(twist, case, summed=True)


CODE = '''
import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def twisted_probabilities(first: Tensor, second: Tensor) -> Tensor:
    """P_0, P_1, P_2 as columns, [B 3]: the first wins, the second wins, they tie. first and second: scores [B]."""
    ...


def twisted_loss(first: Tensor, second: Tensor, outcomes: Tensor) -> Tensor:
    """Mean nats per comparison, a scalar. first and second: scores [B]; outcomes int64 [B], each 0, 1 or 2."""
    ...
'''
