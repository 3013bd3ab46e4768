"""The twist of a10: advantages under a discount that changes on the way, and a clip with two or three edges.

With token t = 0, 1, … of an answer, TD error δ and ratio r, in NumPy:

    fall, rate   the discount from token t to t + 1 is γ_t = 1 - fall · rate^t, in δ_t and in the sum alike
    down         where δ_t is negative, λ is gae_lambda · down:  A_t = δ_t + γ_t λ_t A_{t+1}
    low, high    r is clipped to [1 - low, 1 + high]
    most         with a negative advantage a token's objective is not below most · A (Ye et al. 2020, arXiv:1912.09729)

Everybody gets fall, rate, low and high, and one of down and most.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("fall", "rate", "down", "low", "high", "most")


def draw(drawn: bytes) -> Twist:
    """More than a million combinations. low and high differ, so that changing them shows."""
    low = round(0.1 + 0.01 * (drawn[3] % 21), 2)
    high = round(0.32 + 0.01 * (drawn[4] % 29), 2)
    third = (
        ("down", round(0.1 + 0.05 * (drawn[5] % 15), 2))
        if drawn[0] % 2
        else ("most", round(1.8 + 0.1 * (drawn[5] % 18), 1))
    )
    return {
        "fall": round(0.2 + 0.02 * (drawn[1] % 31), 2),
        "rate": round(0.5 + 0.02 * (drawn[2] % 21), 2),
        "low": low,
        "high": high,
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    steps = [
        f"twisted_gae: the discount from token t to token t + 1 is γ_t = 1 - {twist['fall']:g} · {twist['rate']:g}^t, "
        "where t counts the answer's tokens from 0. So δ_t = r_t + γ_t V_{t+1} - V_t and A_t = δ_t + γ_t λ A_{t+1}. "
        "Behind the last token V and A are 0."
    ]
    if "down" in twist:
        steps.append(f"twisted_gae: λ is gae_lambda where δ_t ≥ 0, and gae_lambda · {twist['down']:g} where δ_t < 0.")
    else:
        steps.append("twisted_gae: λ is gae_lambda.")
    steps.append(
        f"twisted_policy_loss: as exercise 10.3, but the ratio is clipped to "
        f"[1 - {twist['low']:g}, 1 + {twist['high']:g}]."
    )
    if "most" in twist:
        steps.append(
            f"twisted_policy_loss: where the advantage A is negative, what stands under the mean is at least "
            f"{twist['most']:g} · A, so that no single token can push without bound."
        )
    steps.append("What stands off response_mask is junk, and reaches neither a value nor a gradient.")
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradient of log_probs."""
    return (gae if case.job.target == "twisted_gae" else policy_loss)(twist, case)


def gae(twist: Twist, case: Case, late: int = 0, in_the_sum: bool = True) -> Arrays:
    """(advantages, returns) [B R]. late and in_the_sum: mistakes to recognise."""
    rewards, values, mask = (case.arrays[name] for name in ("rewards", "values", "response_mask"))
    trace = case.job.arguments[3]["value"]
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for b, n in enumerate(mask.sum(1)):
        coming = 0.0
        for t in reversed(range(n)):
            gamma = 1 - twist.get("fall", 0.0) * twist["rate"] ** (t + late)
            delta = rewards[b, t] + (gamma * values[b, t + 1] if t + 1 < n else 0.0) - values[b, t]
            coming = (
                delta + (gamma if in_the_sum else 1.0) * trace * (twist.get("down", 1.0) if delta < 0 else 1.0) * coming
            )
            advantages[b, t], returns[b, t] = coming, coming + values[b, t]
    return {"out 0": advantages, "out 1": returns}


def policy_loss(twist: Twist, case: Case, most_for_all: bool = False) -> Arrays:
    """The loss and its gradient, token by token: a clipped or bounded token adds a number that nothing moves."""
    arrays: dict[str, Any] = case.arrays
    mask = arrays["response_mask"]
    gradient, total = np.zeros(mask.shape), 0.0
    for i in np.argwhere(mask):
        place = tuple(i)
        ratio, advantage = (
            np.exp(arrays["log_probs"][place] - arrays["old_log_probs"][place]),
            arrays["advantages"][place],
        )
        held = min(max(ratio, 1 - twist["low"]), 1 + twist["high"])
        worth, moves = min(ratio * advantage, held * advantage), ratio * advantage <= held * advantage
        if "most" in twist and (advantage < 0 or most_for_all) and worth < twist["most"] * advantage:
            worth, moves = twist["most"] * advantage, False
        total -= worth
        gradient[place] = -advantage * ratio if moves else 0.0
    return {
        "out": np.array(total / mask.sum()),
        "gradient of log_probs": gradient / mask.sum() * arrays["dout"],
    }


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_gae":
        yield "the discount were 1 everywhere", gae(without["fall"], case)
        yield "the discount did not change on the way: its power t is missing", gae(twist | {"rate": 1.0}, case)
        yield "token t were discounted by γ_{t+1}; t counts from 0", gae(twist, case, late=1)
        yield "only the next value were discounted, not the sum", gae(twist, case, in_the_sum=False)
        if "down" in twist:
            yield "λ were the same for negative TD errors", gae(without["down"], case)
            wrong = twist | {"down": 1 / twist["down"]}
            yield "the factor on λ met the positive TD errors", gae(wrong, scaled(case, twist["down"]))
    else:
        yield "the two edges of the clip changed places", policy_loss(
            twist | {"low": twist["high"], "high": twist["low"]}, case
        )  # fmt: skip
        yield "the lower edge's number stood at both edges", policy_loss(twist | {"high": twist["low"]}, case)
        yield "the upper edge's number stood at both edges", policy_loss(twist | {"low": twist["high"]}, case)
        if "most" in twist:
            yield "negative advantages had no bound", policy_loss(without["most"], case)
            yield "the bound met positive advantages too", policy_loss(twist, case, most_for_all=True)


def scaled(case: Case, factor: float) -> Case:
    """The same with gae_lambda times factor."""
    *others, trace = case.job.arguments
    return replace(case, job=replace(case.job, arguments=[*others, {"value": trace["value"] * factor}]))


CODE = '''
import torch
from torch import Tensor

from minirlhf.objectives.masked import masked_mean


@torch.no_grad()
def twisted_gae(
    rewards: Tensor, values: Tensor, response_mask: Tensor, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """(advantages, returns) with the changes above; returns = advantages + values. All [B R], 0 off response_mask."""
    ...


def twisted_policy_loss(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, response_mask: Tensor
) -> Tensor:
    """The policy loss with the changes above, a scalar, of four arrays [B R]; its gradient reaches log_probs."""
    ...
'''
