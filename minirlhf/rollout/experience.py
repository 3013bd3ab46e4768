"""From what happened (Rollout) to what we conclude (Experience): rewards, advantages, returns. All without a graph."""

from typing import Literal

import torch
from torch import Tensor, nn

from minirlhf.objectives.advantages import clip_magnitude, gae, shape_rewards
from minirlhf.objectives.masked import masked_whiten
from minirlhf.records import Experience, Rollout


@torch.no_grad()
def token_rewards(rollout: Rollout, kl_coef: float, score_clip: float | None = None) -> Tensor:
    """Rewards [B R]: -kl_coef * (log policy - log reference) per token, and the score once, at the last response token.

    A row sums to score - kl_coef * (its KL, estimator k1). score_clip, if given, first limits scores to +-score_clip.
    """
    scores = clip_magnitude(rollout.scores, score_clip)
    return shape_rewards(scores, rollout.old_log_probs, rollout.ref_log_probs, rollout.response_mask, kl_coef)


@torch.no_grad()
def estimate_advantages(
    rollout: Rollout,
    rewards: Tensor,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    whiten_rewards: bool = False,
    whiten_advantages: bool = True,
    advantage_clip: float | None = None,
    last_values: Tensor | None = None,
) -> Experience:
    """GAE over the response tokens, for rewards [B R]. Schulman et al. 2016, arXiv:1506.02438, eq. 16.

    last_values [B] is the value after the last token of an answer that was cut off; None: a cut answer is over too.
    Whitened rewards are only scaled (their mean says what is good); whitened advantages are also shifted to mean 0.
    Returns are advantages + old values, taken before the advantages are whitened and clipped to +-advantage_clip.
    """
    mask = rollout.response_mask
    if whiten_rewards:
        rewards = masked_whiten(rewards, mask, shift_mean=False)
    truncated: Literal["terminal", "bootstrap"] = "terminal" if last_values is None else "bootstrap"
    advantages, returns = gae(
        rewards,
        rollout.values,
        mask,
        gamma,
        gae_lambda,
        ended=rollout.ended,
        truncated=truncated,
        last_values=last_values,
    )
    if whiten_advantages:
        advantages = masked_whiten(advantages, mask, shift_mean=True)
    advantages = clip_magnitude(advantages, advantage_clip)
    return Experience(
        ids=rollout.ids,
        attention_mask=rollout.attention_mask,
        response_mask=mask,
        old_log_probs=rollout.old_log_probs,
        old_values=rollout.values,
        advantages=advantages,
        returns=returns,
    )


@torch.no_grad()
def values_after_cut(value_model: nn.Module, rollout: Rollout) -> Tensor:
    """V after the last token of each answer that was cut by the length limit, 0 for answers that ended. [B]."""
    final_values = torch.zeros_like(rollout.scores)
    cut = (~rollout.ended).nonzero().squeeze(1)
    if len(cut):
        response_tokens = rollout.response_mask.shape[1]
        values = value_model(rollout.ids[cut], rollout.attention_mask[cut], last=response_tokens)  # after each token
        last = rollout.response_mask[cut].sum(dim=1, keepdim=True) - 1
        final_values[cut] = values.gather(1, last).squeeze(1)
    return final_values
