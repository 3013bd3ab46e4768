"""Group-relative policy optimisation: NumPy float64, forward and hand-derived backward.

Shao et al. 2024, arXiv:2402.03300. The G answers to one prompt are each other's baseline (section 4.1.2):

    A_i = (s_i - mean(s)) / (std(s) + 1e-6)         std over the group, with G - 1 in the denominator

and every token of answer i gets A_i. The loss (eq. 3) is PPO's clipped objective minus a KL penalty, k3, which here
stands in the loss and not in the reward. For one token, with r = exp(log p - log p_old), c = clip(r, 1-e, 1+e),

    l = -min(r A, c A) + kl_coef k3,      k3 = exp(-d) - 1 + d,  d = log p - log q
    dl/dlog p = (-A r, or 0 where the clip holds, see ppo.py) + kl_coef (1 - exp(-d))

The mean is taken over the tokens of each answer first, then over the answers: a token of a long answer counts less.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.kl import k3

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def group_advantages(scores: Floats, group_size: int, divide_by_std: bool = True) -> Floats:
    """scores [B], the group_size answers to one prompt side by side -> advantages [B]."""
    advantages = np.zeros(scores.shape)
    for start in range(0, len(scores), group_size):
        group = scores[start : start + group_size]
        if (group == group[0]).all():
            continue  # exactly 0; the rounded mean would leave a rest
        std = np.sqrt(((group - group.mean()) ** 2).sum() / (group_size - 1))
        advantages[start : start + group_size] = (group - group.mean()) / ((std + 1e-6) if divide_by_std else 1.0)
    return advantages


def grpo_loss(
    log_probs: Floats,
    old_log_probs: Floats,
    ref_log_probs: Floats,
    advantages: Floats,
    response_mask: Bools,
    clip_range: float = 0.2,
    kl_coef: float = 0.04,
) -> float:
    """Per token max(-A r, -A c) + kl_coef k3; mean over each answer's tokens, then over answers. [B R], A [B]."""
    answers = []
    for b in range(len(log_probs)):
        tokens = []
        for t in np.flatnonzero(response_mask[b]):
            ratio = np.exp(log_probs[b, t] - old_log_probs[b, t])
            clipped = float(np.clip(ratio, 1 - clip_range, 1 + clip_range))
            penalty = float(k3(log_probs[b, t], ref_log_probs[b, t])[0])
            tokens.append(max(-advantages[b] * ratio, -advantages[b] * clipped) + kl_coef * penalty)
        answers.append(float(np.mean(tokens)))
    return float(np.mean(answers))


def grpo_loss_grad(
    log_probs: Floats,
    old_log_probs: Floats,
    ref_log_probs: Floats,
    advantages: Floats,
    response_mask: Bools,
    clip_range: float = 0.2,
    kl_coef: float = 0.04,
) -> Floats:
    """The gradient [B R] with respect to log_probs."""
    gradient = np.zeros(log_probs.shape)
    for b in range(len(log_probs)):
        share = 1 / (len(log_probs) * response_mask[b].sum())
        for t in np.flatnonzero(response_mask[b]):
            ratio = np.exp(log_probs[b, t] - old_log_probs[b, t])
            learns = ratio <= 1 + clip_range if advantages[b] >= 0 else ratio >= 1 - clip_range
            slope = -advantages[b] * ratio if learns else 0.0
            gradient[b, t] = share * (slope + kl_coef * float(k3(log_probs[b, t], ref_log_probs[b, t])[1]))
    return gradient
