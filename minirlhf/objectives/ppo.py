"""PPO: REINFORCE that may use one rollout for several steps, because it stops where the policy has moved too far."""

import torch
from torch import Tensor

from minirlhf.objectives.kl import k3
from minirlhf.objectives.masked import check_token_arrays, masked_mean


def _check_clip_range(clip_range: float) -> None:
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range must lie in (0, 1), got {clip_range}")


def ppo_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    clip_range: float = 0.2,
    count: Tensor | int | None = None,
) -> Tensor:
    """Clipped surrogate objective, negated so that smaller is better.

    Schulman et al. 2017, arXiv:1707.06347, eq. 7; the expectation is the mean over the counted tokens.
    Shapes: log_probs, old_log_probs, advantages float [B R]; response_mask bool [B R]; returns a scalar.
    Units:  log_probs in nats per token, advantages in reward units, clip_range a fraction (0.2 is 20 %).
    Grad:   reaches log_probs only; it is 0 where the ratio is clipped and moving back is not an improvement.
    count:  the tokens of the whole minibatch when this is one micro-batch of it; those of response_mask when not given.
    Raises: ValueError if shapes differ, response_mask is not bool, it has no True and count is not given, or
            clip_range is outside (0, 1).
    """
    arrays = {"log_probs": log_probs, "old_log_probs": old_log_probs, "advantages": advantages}
    check_token_arrays(response_mask, allow_empty=count is not None, **arrays)
    _check_clip_range(clip_range)
    advantages = advantages.detach().masked_fill(~response_mask, 0.0)
    ratio = (log_probs - old_log_probs.detach()).masked_fill(~response_mask, 0.0).exp()  # 1 on padding
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -masked_mean(torch.minimum(ratio * advantages, clipped * advantages), response_mask, count)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    clip_range: float = 0.2,
    count: Tensor | int | None = None,
) -> Tensor:
    """Half the squared error of the values, or of the values held within clip_range of the old ones if that is worse.

    Huang et al. 2023, "The N Implementation Details of RLHF with PPO": 0.5 * mean(max(error^2, clipped error^2)).
    Shapes: values, old_values, returns float [B R]; response_mask bool [B R]; returns a scalar.
    Units:  values, returns and clip_range in reward units; the loss in their square.
    Grad:   reaches values only; it is 0 where the clipped error is the larger one.
    count:  as in ppo_policy_loss.
    Raises: ValueError if shapes differ, response_mask is not bool, it has no True and count is not given, or
            clip_range is not positive.
    """
    arrays = {"values": values, "old_values": old_values, "returns": returns}
    check_token_arrays(response_mask, allow_empty=count is not None, **arrays)
    if not clip_range > 0:
        raise ValueError(f"clip_range must be positive, got {clip_range}")
    values = values.masked_fill(~response_mask, 0.0)
    old_values = old_values.detach().masked_fill(~response_mask, 0.0)
    returns = returns.detach().masked_fill(~response_mask, 0.0)
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    worse = torch.maximum((values - returns).square(), (clipped - returns).square())
    return masked_mean(worse, response_mask, count) / 2


@torch.no_grad()
def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns): 1 is a perfect critic, 0 one that knows no more than a constant.

    Shapes: values, returns float [B R]; response_mask bool [B R]; returns a scalar, 0 where all returns are equal.
    Raises: ValueError if shapes differ or nothing counts.
    """
    check_token_arrays(response_mask, values=values, returns=returns)
    target, error = returns[response_mask], (returns - values)[response_mask]  # [N]
    spread = target.var(correction=0)
    return torch.where(spread > 0, 1 - error.var(correction=0) / spread, torch.zeros_like(spread))


@torch.no_grad()
def ppo_diagnostics(
    log_probs: Tensor, old_log_probs: Tensor, response_mask: Tensor, clip_range: float = 0.2
) -> dict[str, float]:
    """How far this minibatch's policy has moved from the one that sampled: the numbers to watch while PPO runs.

    ratio_mean, ratio_max     of exp(log_probs - old_log_probs); both 1 on the first minibatch
    approx_kl_nats_per_token  k3 estimate of KL(old policy || policy), never negative, 0 on the first minibatch
    clip_fraction             share of tokens whose ratio lies outside 1 ± clip_range

    Shapes: log_probs, old_log_probs float [B R]; response_mask bool [B R].
    Raises: ValueError if shapes differ, nothing counts, or clip_range is outside (0, 1).
    """
    check_token_arrays(response_mask, log_probs=log_probs, old_log_probs=old_log_probs)
    _check_clip_range(clip_range)
    new, old = log_probs[response_mask], old_log_probs[response_mask]  # [N]
    ratio = (new - old).exp()
    outside = ((ratio - 1).abs() > clip_range).to(ratio.dtype)
    names = ("ratio_mean", "ratio_max", "approx_kl_nats_per_token", "clip_fraction")
    numbers = torch.stack([ratio.mean(), ratio.max(), k3(old, new).mean(), outside.mean()])
    return dict(zip(names, numbers.tolist(), strict=True))
