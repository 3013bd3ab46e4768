"""Kahneman-Tversky optimisation: learn from single answers that are only called desirable or undesirable."""

import torch
from torch import Tensor

from minirlhf.objectives.dpo import implicit_rewards


def kto(
    log_probs: Tensor,
    ref_log_probs: Tensor,
    desirable: Tensor,
    kl_nats: float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    count: int | None = None,
) -> Tensor:
    """weight * sigmoid(beta * (how far the log-ratio lies on the wrong side of the reference point)).

    Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8. The reference point is kl_nats, KL(policy || reference): a
    desirable answer should have become likelier by more than the policy has moved anyway, an undesirable one by less.
    Where a log-ratio equals it, an answer costs half its weight and teaches the most.
    Shapes: log_probs, ref_log_probs float [B], summed over each answer's tokens; desirable bool [B]; returns a scalar.
    Units:  log-probs and kl_nats in nats per answer, beta in 1 / nats; the loss lies between 0 and the larger weight.
    Grad:   reaches log_probs only; kl_nats is data.
    count:  what to divide the sum by when this is one micro-batch of several (the answers of all); B when not given.
    Raises: ValueError if shapes or dtypes do not fit, beta is not positive, kl_nats or a weight is negative or not
            finite, or there is no answer and no count.
    """
    numbers = {"kl_nats": kl_nats, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    for name, number in numbers.items():
        if not 0 <= number < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {number}")
    rewards = implicit_rewards(log_probs, ref_log_probs, beta)
    if desirable.shape != rewards.shape or desirable.dtype != torch.bool:
        expected = f"bool {tuple(rewards.shape)}"
        raise ValueError(f"desirable must be {expected}, got {desirable.dtype} {tuple(desirable.shape)}")
    if count is None and len(rewards) == 0:
        raise ValueError("there is no answer")
    gained = rewards - beta * kl_nats  # [B], above the reference point
    losses = torch.where(
        desirable, desirable_weight * torch.sigmoid(-gained), undesirable_weight * torch.sigmoid(gained)
    )
    return losses.sum() / (len(losses) if count is None else count)
