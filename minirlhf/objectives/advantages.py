"""From scores to rewards to advantages. Score: one per answer. KL penalty: one per token. Reward: their sum, per token.

Nothing here carries a gradient: rewards, advantages and returns are data to the losses that use them.
Responses stand at the left of [B R]: response_mask is True from the first token to the last, then False.
"""

from typing import Literal

import torch
from torch import Tensor

from minirlhf.objectives.kl import k1
from minirlhf.objectives.masked import check_token_arrays


def last_response_index(response_mask: Tensor) -> Tensor:
    """The index of each response's last token, int64 [B].

    Raises: ValueError unless response_mask is bool [B R] and every row is Trues followed by Falses, at least one True.
    """
    if response_mask.dtype != torch.bool or response_mask.ndim != 2:
        raise ValueError(f"response_mask must be bool [B R], got {response_mask.dtype} {tuple(response_mask.shape)}")
    if not response_mask[:, :1].all() or response_mask.shape[1] == 0:
        raise ValueError("every response needs a first token: response_mask[:, 0] must be True")
    if (response_mask[:, 1:] & ~response_mask[:, :-1]).any():
        raise ValueError("response_mask has a gap: a True follows a False")
    return response_mask.sum(1) - 1


@torch.no_grad()
def shape_rewards(
    scores: Tensor, log_probs: Tensor, ref_log_probs: Tensor, response_mask: Tensor, kl_coef: float
) -> Tensor:
    """Rewards per token: minus kl_coef times the k1 estimate of the KL, plus the score, once, at the last token.

    Ziegler et al. 2019, arXiv:1909.08593, eq. 2, spread over the tokens. Each row sums to
    score - kl_coef * (its summed k1).
    Shapes: scores [B]; log_probs, ref_log_probs float [B R]; response_mask bool [B R]; returns [B R], 0 off the mask.
    Units:  scores and rewards in reward units, log-probs in nats, kl_coef in reward units per nat.
    Raises: ValueError if shapes or dtypes do not fit, a row has no token or a gap, or kl_coef is negative.
    """
    last = last_response_index(response_mask)
    check_token_arrays(response_mask, log_probs=log_probs, ref_log_probs=ref_log_probs)
    if scores.shape != last.shape:
        raise ValueError(f"scores have shape {tuple(scores.shape)}, there are {len(last)} responses")
    if not kl_coef >= 0:
        raise ValueError(f"kl_coef must not be negative, got {kl_coef}")
    rewards = (-kl_coef * k1(log_probs, ref_log_probs)).masked_fill(~response_mask, 0.0)
    rewards[torch.arange(len(last), device=last.device), last] += scores.to(rewards.dtype)
    return rewards


@torch.no_grad()
def gae(
    rewards: Tensor,
    values: Tensor,
    response_mask: Tensor,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
    *,
    ended: Tensor | None = None,
    truncated: Literal["terminal", "bootstrap"] = "terminal",
    last_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, and the returns the value function should learn: (advantages, returns).

    Schulman et al. 2016, arXiv:1506.02438, eq. 16: the advantage is sum over l of (gamma gae_lambda)^l delta[t+l],
    with the TD errors delta[t] = rewards[t] + gamma values[t+1] - values[t] (section 3). returns = advantages + values.

    values[:, t] is the value of prompt and response before token t is chosen. What lies beyond the last token of a
    response is worth 0 if it ended by itself. If it was cut by the maximum length (ended is False):
      "terminal"   it is over all the same, worth 0: the score was given for the text as it stands (the default);
      "bootstrap"  it would have gone on, and is worth last_values [B], the value of prompt and whole response.
                   Without last_values, the value before the last token stands in for it.
    Values off the mask are never read.

    Shapes: rewards, values float [B R]; response_mask bool [B R]; ended bool [B]; returns two of [B R], 0 off the mask.
    Units:  reward units.
    Raises: ValueError if shapes or dtypes do not fit, a row has no token or a gap, gamma or gae_lambda lies outside
            [0, 1], "bootstrap" comes without ended, or last_values come without "bootstrap".
    """
    last = last_response_index(response_mask)
    check_token_arrays(response_mask, rewards=rewards, values=values)
    if not (0 <= gamma <= 1 and 0 <= gae_lambda <= 1):
        raise ValueError(f"gamma and gae_lambda must lie in [0, 1], got {gamma} and {gae_lambda}")
    rewards, values = rewards.masked_fill(~response_mask, 0.0), values.masked_fill(~response_mask, 0.0)

    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)  # [B R], 0 after the last token
    if truncated == "bootstrap":
        rows = torch.arange(len(last), device=last.device)
        beyond = values[rows, last] if last_values is None else last_values.to(values.dtype)
        if ended is None or ended.shape != last.shape or ended.dtype != torch.bool:
            raise ValueError("truncated='bootstrap' needs ended, bool [B]: which responses ended by themselves")
        if beyond.shape != last.shape:
            raise ValueError(f"last_values has shape {tuple(beyond.shape)}, there are {len(last)} responses")
        next_values[rows, last] = beyond.masked_fill(ended, 0.0)
    elif truncated != "terminal":
        raise ValueError(f'truncated must be "terminal" or "bootstrap", got {truncated!r}')
    elif last_values is not None:
        raise ValueError("last_values are only read by truncated='bootstrap'")

    deltas = rewards + gamma * next_values - values  # [B R], 0 off the mask
    advantages = torch.empty_like(deltas)
    running = torch.zeros_like(deltas[:, 0])  # [B]
    for t in reversed(range(deltas.shape[1])):
        running = deltas[:, t] + gamma * gae_lambda * running
        advantages[:, t] = running
    return advantages, advantages + values


def clip_magnitude(x: Tensor, limit: float | None = None) -> Tensor:
    """Clip scores or advantages to [-limit, limit]; None, the default everywhere in minirlhf, clips nothing.

    Zheng et al. 2023, "Secrets of RLHF in Large Language Models Part I", arXiv:2307.04964, section 5.3.
    Shapes: x float [...]; returns [...].  Raises: ValueError unless limit is positive or None.
    """
    if limit is None:
        return x
    if not limit > 0:
        raise ValueError(f"the limit must be positive, got {limit}")
    return x.clamp(-limit, limit)
