"""Direct preference optimisation: the reward model's loss, with the policy itself as the reward model."""

import torch
from torch import Tensor

from minirlhf.objectives.bradley_terry import bradley_terry


def _check_answers(log_probs: Tensor, beta: float, **others: Tensor) -> None:
    if log_probs.ndim != 1 or not log_probs.is_floating_point():
        raise ValueError(f"summed log-probs must be floating point [B], got {log_probs.dtype} {tuple(log_probs.shape)}")
    for name, array in others.items():
        if array.shape != log_probs.shape or not array.is_floating_point():
            expected = f"floating point {tuple(log_probs.shape)}"
            raise ValueError(f"{name} must be {expected}, got {array.dtype} {tuple(array.shape)}")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be positive and finite, got {beta}")


def implicit_rewards(log_probs: Tensor, ref_log_probs: Tensor, beta: float) -> Tensor:
    """The reward under which the policy would already be the best one: beta * (log policy - log reference).

    Rafailov et al. 2023, arXiv:2305.18290, eq. 5 without the term that all answers to one prompt share.
    Shapes: two of [B], summed over each answer's tokens; returns [B].
    Units:  log-probs in nats per answer, beta in reward units per nat.
    Grad:   reaches log_probs only; the reference is data.
    Raises: ValueError if shapes or dtypes do not fit or beta is not positive.
    """
    _check_answers(log_probs, beta, ref_log_probs=ref_log_probs)
    return beta * (log_probs - ref_log_probs.detach())


def dpo(
    chosen_log_probs: Tensor,
    rejected_log_probs: Tensor,
    ref_chosen_log_probs: Tensor,
    ref_rejected_log_probs: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """Bradley-Terry's loss of the implicit rewards; log 2 as long as the policy is its reference.

    Rafailov et al. 2023, arXiv:2305.18290, eq. 7. label_smoothing is the share of labels believed to be the wrong way
    round: Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", eq. 3.
    Shapes: four of [B], summed over each answer's tokens; returns a scalar.
    Units:  nats per pair; log-probs in nats per answer.
    Grad:   reaches the policy's log-probs only, and is never 0: -beta * (1 - P) / B to the chosen, the opposite to the
            rejected, with P the probability the implicit rewards give to the label (without label_smoothing).
    count:  what to divide the sum by when this is one micro-batch of several (the pairs of all); B when not given.
    Raises: ValueError if shapes or dtypes do not fit, beta is not positive, label_smoothing lies outside [0, 0.5), or
            there is no pair and no count.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}")
    chosen = implicit_rewards(chosen_log_probs, ref_chosen_log_probs, beta)
    rejected = implicit_rewards(rejected_log_probs, ref_rejected_log_probs, beta)
    as_labelled = bradley_terry(chosen, rejected, count)
    if label_smoothing == 0:
        return as_labelled
    return torch.lerp(as_labelled, bradley_terry(rejected, chosen, count), label_smoothing)
