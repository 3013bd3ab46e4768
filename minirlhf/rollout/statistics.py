"""What a rollout says about the policy, as metrics with their unit in the key."""

from collections.abc import Mapping, Sequence
from statistics import mean

import torch
from torch import nn

from minirlhf.objectives.kl import exact_kl, k1, k3
from minirlhf.objectives.masked import masked_mean, masked_sum
from minirlhf.records import Generation, Rollout
from minirlhf.rollout.scoring import Scorer


@torch.no_grad()
def rollout_metrics(rollout: Rollout, rewards: torch.Tensor, true_reward: Scorer | None = None) -> dict[str, float]:
    """Means over the answers. rewards [B R] are the token rewards before any whitening.

    The KLs are estimates of KL(policy || reference) from the sampled tokens, summed over each answer; score_mean
    holds the penalty for a missing end. true_reward, where one is known, is only logged.
    """
    answers = len(rollout.scores)
    tokens = (rollout.old_log_probs, rollout.ref_log_probs)
    metrics = {
        "score_mean": rollout.scores.mean().item(),
        "reward_mean": masked_sum(rewards, rollout.response_mask).item() / answers,
        "kl_nats_per_response": masked_sum(k1(*tokens), rollout.response_mask).item() / answers,
        "kl_k3_nats_per_response": masked_sum(k3(*tokens), rollout.response_mask).item() / answers,
        "eos_rate": rollout.ended.double().mean().item(),
        "response_tokens_mean": rollout.response_mask.sum().item() / answers,
        "distinct_2": distinct_bigrams(rollout),
    }
    if true_reward is not None:
        generation = Generation(
            rollout.ids, rollout.attention_mask, rollout.response_mask, rollout.ended, rollout.old_log_probs
        )
        metrics["true_reward_mean"] = true_reward(generation, rollout.prompts, rollout.responses).mean().item()
    return metrics


@torch.no_grad()
def exact_kl_probe(
    policy: nn.Module, reference: nn.Module, rollout: Rollout, temperature: float, answers: int = 4
) -> float:
    """KL(policy || reference) over the whole vocabulary: mean nats per response token of the first few answers."""
    ids, attention_mask = rollout.ids[:answers, :-1], rollout.attention_mask[:answers, :-1]
    response_mask = rollout.response_mask[:answers]
    last = response_mask.shape[1]
    logits = policy(ids, attention_mask, last=last)  # [b R V]
    ref_logits = reference(ids, attention_mask, last=last)
    return masked_mean(exact_kl(logits, ref_logits, temperature), response_mask).item()


def distinct_bigrams(rollout: Rollout) -> float:
    """Different token pairs over all token pairs inside the answers; 0 when no answer has two tokens."""
    response_ids = rollout.ids[:, -rollout.response_mask.shape[1] :]
    both_count = rollout.response_mask[:, :-1] & rollout.response_mask[:, 1:]
    pairs = torch.stack([response_ids[:, :-1][both_count], response_ids[:, 1:][both_count]], dim=1)  # [N 2]
    return len(pairs.unique(dim=0)) / len(pairs) if len(pairs) else 0.0


def over_updates(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One row for the updates made on a rollout: the mean of each metric, but the largest ratio_max.

    first_ratio_max is that of the first update alone, before which nothing has moved: 1 if all is well.
    grad_norm is over the minibatches that took a step, 0 if none did.
    """
    row = {key: mean(update[key] for update in updates) for key in updates[0] if key != "grad_norm"}
    row["first_ratio_max"] = updates[0]["ratio_max"]
    row["ratio_max"] = max(update["ratio_max"] for update in updates)
    row["grad_norm"] = mean([u["grad_norm"] for u in updates if "grad_norm" in u] or [0.0])
    return row


def speed(rollout: Rollout, started: float, collected: float, concluded: float, updated: float) -> dict[str, float]:
    """Answers, and the tokens in them, written and learnt from per second, and the step's three long stretches.

    The arguments are moments on one clock, in seconds: the step began, had its rollout, had drawn its conclusions,
    had made its updates.
    """
    return {
        "episodes_per_second": len(rollout.scores) / (updated - started),
        "tokens_per_second": rollout.response_mask.sum().item() / (updated - started),
        "generation_seconds": rollout.generation_seconds,
        "scoring_seconds": collected - started - rollout.generation_seconds,
        "update_seconds": updated - concluded,
    }
