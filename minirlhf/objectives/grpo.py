"""Group-relative policy optimisation: PPO whose critic is the mean score of the other answers to the same prompt."""

import torch
from torch import Tensor

from minirlhf.objectives.kl import k3
from minirlhf.objectives.masked import check_token_arrays


def _by_group(scores: Tensor, group_size: int) -> Tensor:
    """[B] -> [groups group_size], without a graph."""
    if scores.ndim != 1 or not scores.is_floating_point():
        raise ValueError(f"scores must be floating point [B], got {scores.dtype} {tuple(scores.shape)}")
    if group_size < 2 or len(scores) == 0 or len(scores) % group_size:
        raise ValueError(f"{len(scores)} scores are no groups of {group_size}, which must be at least 2")
    return scores.detach().reshape(-1, group_size)


def group_advantages(scores: Tensor, group_size: int, divide_by_std: bool = True) -> Tensor:
    """How much better each answer scored than its group, in standard deviations of the group.

    Shao et al. 2024, arXiv:2402.03300, section 4.1.2: (score - mean) / (std + 1e-6), with n - 1 under the std.
    A group of equal scores has advantages 0. Without divide_by_std they stay in reward units.
    Shapes: scores [B], the group_size answers to one prompt next to each other; returns [B], mean 0 in every group.
    Grad:   none; advantages are data.
    Raises: ValueError if scores are not floating point [B] or no whole number of groups of at least 2.
    """
    groups = _by_group(scores, group_size)  # [groups group_size]
    equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    advantages = (groups - groups.mean(dim=1, keepdim=True)).masked_fill(equal, 0.0)  # their mean may be rounded
    if divide_by_std:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + 1e-6)
    return advantages.reshape(-1)


def grpo_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    ref_log_probs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    clip_range: float = 0.2,
    kl_coef: float = 0.04,
    count: int | None = None,
) -> Tensor:
    """Clipped objective minus kl_coef * k3, averaged over each answer's tokens and then over answers; negated.

    Shao et al. 2024, arXiv:2402.03300, eq. 3. The KL penalty stands here, in the loss, and not in the reward; it is
    not weighted by the ratio. Because each answer is averaged first, a token of a long answer counts less.
    Shapes: log_probs, old_log_probs, ref_log_probs float [B R]; advantages [B]; response_mask bool [B R]; returns a
            scalar.
    Units:  log-probs in nats per token, kl_coef in units of the advantages per nat.
    Grad:   reaches log_probs only.
    count:  the answers of the whole minibatch when this is one micro-batch of it; B when not given.
    Raises: ValueError if shapes or dtypes do not fit, an answer has no token, there is no answer and no count,
            clip_range is outside (0, 1), or kl_coef is negative.
    """
    arrays = {"log_probs": log_probs, "old_log_probs": old_log_probs, "ref_log_probs": ref_log_probs}
    check_token_arrays(response_mask, allow_empty=count is not None, **arrays)
    if response_mask.ndim != 2 or not response_mask.any(dim=1).all():
        raise ValueError("response_mask must be [B R] and every answer needs a token that counts")
    if advantages.shape != response_mask.shape[:1] or not advantages.is_floating_point():
        raise ValueError(f"advantages must be floating point [B], got {advantages.dtype} {tuple(advantages.shape)}")
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range must lie in (0, 1), got {clip_range}")
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef must not be negative, got {kl_coef}")
    log_probs, old_log_probs, ref_log_probs = (array.masked_fill(~response_mask, 0.0) for array in arrays.values())
    advantages = advantages.detach()[:, None]  # [B 1]
    ratio = (log_probs - old_log_probs.detach()).exp()  # [B R], 1 on padding
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    gain = torch.minimum(ratio * advantages, clipped * advantages) - kl_coef * k3(log_probs, ref_log_probs.detach())
    per_answer = gain.masked_fill(~response_mask, 0.0).sum(dim=1) / response_mask.sum(dim=1)  # [B]
    return -per_answer.sum() / (len(per_answer) if count is None else count)
