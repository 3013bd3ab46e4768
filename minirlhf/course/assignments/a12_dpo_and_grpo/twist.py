"""The twist of a12: pairs judged with their lengths in mind, and groups whose answers are clipped whole.

With log-ratios h of the chosen and the rejected answer, n tokens long, in NumPy:

    power   h / n^power stands where h stood (0: DPO; 1: nats per token)
    margin  and the chosen answer's reward has to lead by this much:
            -log σ(β (h_c / n_c^power - h_r / n_r^power) - margin)
    anchor  plus anchor · max(0, -h_c): the chosen answer may not fall below its reference (Pal et al. 2024,
            arXiv:2402.13228)
    floor   advantages are (s - mean) / (std + floor)
    edge    an answer has one ratio, e to the mean of its tokens' log-ratios (Zheng et al. 2025, arXiv:2507.18071),
            clipped to 1 ± edge; the loss is the mean over answers of -min(ratio A, clipped A)
    down    negative advantages count this much

Everybody gets power, margin, floor and edge, and one of anchor and down.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minirlhf.course.jobs import Arrays, Case
from minirlhf.course.kit import Twist

NAMES = ("power", "margin", "anchor", "floor", "edge", "down")


def draw(drawn: bytes) -> Twist:
    """More than ten million combinations."""
    third = (
        ("anchor", round(0.05 + 0.02 * (drawn[5] % 21), 2))
        if drawn[0] % 2
        else ("down", round(0.15 + 0.02 * (drawn[5] % 31), 2))
    )
    return {
        "power": round(0.25 + 0.02 * (drawn[1] % 31), 2),
        "margin": round(0.2 + 0.05 * (drawn[2] % 27), 2),
        "floor": round(0.1 + 0.05 * (drawn[3] % 19), 2),
        "edge": round(0.1 + 0.01 * (drawn[4] % 26), 2),
        third[0]: third[1],
    }


def words(twist: Twist) -> list[str]:
    """What the student is to do, a sentence a change."""
    power, margin, floor, edge = (twist[name] for name in ("power", "margin", "floor", "edge"))
    steps = [
        "twisted_dpo: long answers move by more nats than short ones. So each answer's log-ratio, log policy - log "
        f"reference, is divided by n^{power:g}, where n is the number of its tokens. beta times that is its reward.",
        f"twisted_dpo: the chosen answer's reward has to lead by {margin:g}: a pair costs -log sigmoid(chosen reward - "
        f"rejected reward - {margin:g}), and the loss is the mean over the pairs.",
    ]
    if "anchor" in twist:
        steps.append(
            f"twisted_dpo: a pair also costs {twist['anchor']:g} · max(0, log reference - log policy) of its chosen "
            "answer, so that this answer does not become rarer. These nats are neither divided nor multiplied by beta."
        )
    steps.append(
        f"twisted_grpo_loss: the advantages are (score - mean) / (std + {floor:g}), with the group's mean and standard "
        f"deviation as in exercise 12.5: {floor:g} stands where 1e-6 stood."
    )
    if "down" in twist:
        steps.append(f"twisted_grpo_loss: an advantage below 0 is then multiplied by {twist['down']:g}.")
    steps += [
        "twisted_grpo_loss: an answer has one ratio, and not one a token: e to the power of the mean, over the "
        "answer's tokens, of log_probs - old_log_probs.",
        f"twisted_grpo_loss: this ratio is clipped to [1 - {edge:g}, 1 + {edge:g}]. An answer's objective is the "
        "smaller of ratio · advantage and clipped ratio · advantage; the loss is minus their mean over the answers. "
        "There is no KL penalty.",
        "What stands off response_mask is junk, and reaches neither a value nor a gradient.",
    ]
    return steps


def expected(twist: Twist, case: Case) -> Arrays:
    """What is right, and the gradients of the policy's log-probs."""
    return (pairs if case.job.target == "twisted_dpo" else groups)(twist, case)


def pairs(
    twist: Twist,
    case: Case,
    margin_times_beta: bool = False,
    anchored: str = "chosen",
    side: float = -1.0,
    shrunk: bool = False,
    summed: bool = False,
) -> Arrays:
    """The loss and two gradients.

    Mistakes to know: margin times beta; the other answer anchored, on the other side, divided by its length; a sum.
    """
    arrays: dict[str, Any] = case.arrays
    beta = case.job.arguments[6]["value"]
    moved = {name: arrays[f"{name}_log_probs"] - arrays[f"ref_{name}_log_probs"] for name in ("chosen", "rejected")}
    sizes = {name: arrays[f"{name}_tokens"] ** twist.get("power", 0.0) for name in moved}
    lead = beta * (moved["chosen"] / sizes["chosen"] - moved["rejected"] / sizes["rejected"])
    lead = lead - twist.get("margin", 0.0) * (beta if margin_times_beta else 1.0)
    costs = np.logaddexp(0.0, -lead)
    slope = -np.exp(-np.logaddexp(0.0, lead))  # -σ(-lead)
    slopes = {"chosen": slope * beta / sizes["chosen"], "rejected": -slope * beta / sizes["rejected"]}
    if "anchor" in twist:
        price = twist["anchor"] / (sizes[anchored] if shrunk else 1.0)
        costs = costs + price * np.maximum(0.0, side * moved[anchored])
        slopes[anchored] = slopes[anchored] + price * side * (side * moved[anchored] > 0)
    count = 1 if summed else len(lead)
    return {"out": np.array(costs.sum() / count)} | {
        f"gradient of {name}_log_probs": each / count * arrays["dout"] for name, each in slopes.items()
    }


def groups(
    twist: Twist,
    case: Case,
    correction: int = 1,
    down_above: bool = False,
    summed: bool = False,
    by_token: bool = False,
    clipped: bool = True,
    width: bool = False,
) -> Arrays:
    """The loss and its gradient, answer by answer: where the clipped product is the smaller, nothing moves.

    Mistakes to recognise: n under the standard deviation, down on the wrong side, ratios of the summed log-ratios, of
    each token, unclipped, of a mean over the padding too.
    """
    arrays: dict[str, Any] = case.arrays
    mask, scores = arrays["response_mask"], arrays["scores"].reshape(-1, case.job.arguments[4]["value"])
    spread = scores.std(1, ddof=correction, keepdims=True) + twist["floor"]
    advantages = ((scores - scores.mean(1, keepdims=True)) / spread).reshape(-1)
    advantages = advantages * np.where((advantages > 0) == down_above, twist.get("down", 1.0), 1.0)
    total, gradient = 0.0, np.zeros(mask.shape)
    for b, counts in enumerate(mask):
        ratios = arrays["log_probs"][b, counts] - arrays["old_log_probs"][b, counts]
        n = len(ratios)
        weight = 1.0 if summed else 1 / mask.shape[1] if width else 1 / n  # of a token in its answer's exponent
        ratios = np.exp(ratios if by_token else np.full(n, weight * ratios.sum()))
        plain = ratios * advantages[b]
        held = np.clip(ratios, 1 - twist["edge"], 1 + twist["edge"]) * advantages[b]
        moves = (plain <= held) | (not clipped)
        total -= np.where(moves, plain, held).mean()
        gradient[b, counts] = -np.where(moves, plain, 0.0) * (1 / n if by_token else weight)
    count = len(mask)
    return {"out": np.array(total / count), "gradient of log_probs": gradient / count * arrays["dout"]}


def mistaken(twist: Twist, case: Case) -> Iterator[tuple[str, Arrays]]:
    """(what it looks as if, what would come out) for mistakes one makes with the twist."""
    without = {name: {other: value for other, value in twist.items() if other != name} for name in twist}
    if case.job.target == "twisted_dpo":
        yield "the answers' lengths did not matter", pairs(without["power"], case)
        yield "the log-ratios were divided by n itself, not by its power", pairs(twist | {"power": 1.0}, case)
        yield "the log-ratios were multiplied by the power of n, not divided", pairs(
            twist | {"power": -twist["power"]}, case
        )  # fmt: skip
        yield "there were no margin", pairs(without["margin"], case)
        yield "the margin were given to the chosen answer, not asked of it", pairs(
            twist | {"margin": -twist["margin"]}, case
        )  # fmt: skip
        yield "the margin were multiplied by beta", pairs(twist, case, margin_times_beta=True)
        yield "the pairs were summed, not averaged", pairs(twist, case, summed=True)
        if "anchor" in twist:
            yield "nothing kept the chosen answer from becoming rarer", pairs(without["anchor"], case)
            yield "the chosen answer paid for becoming more likely", pairs(twist, case, side=1.0)
            yield "the rejected answer paid for becoming rarer", pairs(twist, case, anchored="rejected")
            yield "the nats that the chosen answer lost were divided by its length", pairs(twist, case, shrunk=True)
    else:
        yield "1e-6 still stood beside the standard deviation", groups(twist | {"floor": 1e-6}, case)
        yield "the variance were divided by n; n - 1 is right, as before", groups(twist, case, correction=0)
        yield "every token had a ratio of its own", groups(twist, case, by_token=True)
        yield "the log-ratios were summed, not averaged", groups(twist, case, summed=True)
        yield "the log-ratios were averaged over the padding too", groups(twist, case, width=True)
        yield "nothing were clipped", groups(twist, case, clipped=False)
        if "down" in twist:
            yield "negative advantages counted in full", groups(without["down"], case)
            yield "the factor met the positive advantages", groups(twist, case, down_above=True)


CODE = '''
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def twisted_dpo(
    chosen_log_probs: Tensor,
    rejected_log_probs: Tensor,
    ref_chosen_log_probs: Tensor,
    ref_rejected_log_probs: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    beta: float,
) -> Tensor:
    """The pair loss with the changes above, a scalar. Six of float [B]: log-probs summed over tokens, and lengths."""
    ...


def twisted_grpo_loss(
    log_probs: Tensor, old_log_probs: Tensor, scores: Tensor, response_mask: Tensor, group_size: int
) -> Tensor:
    """The loss with the changes above, a scalar, straight from the scores; its gradient reaches log_probs.

    log_probs, old_log_probs float [B R]; scores [B], the group_size answers to one prompt next to each other;
    response_mask bool [B R].
    """
    ...
'''
