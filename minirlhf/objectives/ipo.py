"""Identity preference optimisation: DPO that is content once an answer is preferred by enough."""

from torch import Tensor

from minirlhf.objectives.dpo import implicit_rewards


def ipo(
    chosen_log_probs: Tensor,
    rejected_log_probs: Tensor,
    ref_chosen_log_probs: Tensor,
    ref_rejected_log_probs: Tensor,
    beta: float = 0.1,
    count: int | None = None,
) -> Tensor:
    """(h - 1 / (2 beta))^2, with h how many nats more the policy prefers chosen to rejected than its reference does.

    Azar et al. 2023, arXiv:2310.12036, eq. 17. A policy that is its reference costs 1 / (4 beta^2); one that has
    moved by just enough costs 0, and one that has moved further is drawn back.
    Shapes: four of [B], summed over each answer's tokens; returns a scalar.
    Units:  squared nats per pair; log-probs in nats per answer, beta in 1 / nats.
    Grad:   reaches the policy's log-probs only: 2 (h - 1 / (2 beta)) / B to the chosen, the opposite to the rejected.
    count:  what to divide the sum by when this is one micro-batch of several (the pairs of all); B when not given.
    Raises: ValueError if shapes or dtypes do not fit, beta is not positive, or there is no pair and no count.
    """
    chosen = implicit_rewards(chosen_log_probs, ref_chosen_log_probs, beta)
    rejected = implicit_rewards(rejected_log_probs, ref_rejected_log_probs, beta)
    if chosen.shape != rejected.shape:
        raise ValueError(f"chosen and rejected differ in shape: {tuple(chosen.shape)}, {tuple(rejected.shape)}")
    if count is None and len(chosen) == 0:
        raise ValueError("there is no pair")
    h = (chosen - rejected) / beta  # [B] nats
    return (h - 1 / (2 * beta)).square().sum() / (len(h) if count is None else count)
