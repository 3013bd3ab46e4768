"""The metrics of a rollout, against sums written out by hand."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.statistics import distinct_bigrams, exact_kl_probe, over_updates, rollout_metrics, speed
from tests.helpers.tiny_rl import junk_ids, tiny_gpt, tiny_rollout, tiny_value_model, widened


def test_every_metric_of_a_rollout_by_hand():
    rollout = tiny_rollout()
    rewards = token_rewards(rollout, 0.3)
    metrics = rollout_metrics(rollout, rewards, lambda generation, prompts, responses: torch.arange(6.0))
    k1 = k3 = tokens = 0.0
    for row in range(6):
        for t in range(int(rollout.response_mask[row].sum())):
            d = (rollout.old_log_probs[row, t] - rollout.ref_log_probs[row, t]).item()
            k1, k3, tokens = k1 + d, k3 + math.exp(-d) - 1 + d, tokens + 1
    scores = rollout.scores.tolist()
    expected = {
        "score_mean": sum(scores) / 6,
        "reward_mean": (sum(scores) - 0.3 * k1) / 6,
        "kl_nats_per_response": k1 / 6,
        "kl_k3_nats_per_response": k3 / 6,
        "eos_rate": sum(rollout.ended.tolist()) / 6,
        "response_tokens_mean": tokens / 6,
        "distinct_2": distinct_bigrams(rollout),
        "true_reward_mean": 2.5,
    }
    assert metrics == pytest.approx(expected, rel=1e-9)
    assert "true_reward_mean" not in rollout_metrics(rollout, rewards)


def test_distinct_bigrams_counts_pairs_inside_answers_only():
    rollout = tiny_rollout()
    pairs = []
    for ids, mask in zip(rollout.ids[:, -rollout.response_mask.shape[1] :], rollout.response_mask, strict=True):
        tokens = ids[mask].tolist()
        pairs += pairwise(tokens)
    assert distinct_bigrams(rollout) == len(set(pairs)) / len(pairs)
    same = rollout.ids.clone()
    same[:, -rollout.response_mask.shape[1] :] = 65
    repeated = type(rollout)(**{**vars(rollout), "ids": same})
    assert distinct_bigrams(repeated) == 1 / len(pairs)
    single = type(rollout)(**{**vars(rollout), "response_mask": rollout.response_mask & (torch.arange(6) == 0)})
    assert distinct_bigrams(single) == 0.0


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_exact_kl_probe_is_a_sum_over_the_vocabulary(temperature):
    policy, reference = tiny_gpt(layers=2), tiny_gpt(9)
    rollout = tiny_rollout(policy, reference=reference)
    kls = []
    for row in range(4):
        ids = rollout.ids[row, rollout.attention_mask[row]][None]
        for position in range(ids.shape[1] - int(rollout.response_mask[row].sum()) - 1, ids.shape[1] - 1):
            p, q = ((model(ids)[0, position] / temperature).softmax(-1) for model in (policy, reference))
            kls.append((p * (p / q).log()).sum().item())
    found = exact_kl_probe(policy, reference, rollout, temperature, answers=4)
    assert found == pytest.approx(sum(kls) / len(kls), rel=1e-9)
    assert found > 0.01
    assert exact_kl_probe(policy, policy, rollout, temperature) == 0.0


def test_padding_full_of_junk_changes_no_metric():
    policy, reference = tiny_gpt(layers=2), tiny_gpt(9)
    rollout = tiny_rollout(policy, tiny_value_model(), reference)
    wide = widened(rollout, 2, 3, junk_ids(), 100.0)
    first, second = (rollout_metrics(each, token_rewards(each, 0.2)) for each in (rollout, wide))
    assert first == pytest.approx(second, rel=1e-12)
    assert exact_kl_probe(policy, reference, wide, 1.0) == pytest.approx(
        exact_kl_probe(policy, reference, rollout, 1.0), rel=1e-10
    )


def test_the_row_of_a_rollout_s_updates():
    updates = [{"a": 1.0, "ratio_max": 2.0, "grad_norm": 4.0}, {"a": 2.0, "ratio_max": 3.0}]
    assert over_updates(updates) == {"a": 1.5, "first_ratio_max": 2.0, "ratio_max": 3.0, "grad_norm": 4.0}
    assert over_updates(updates[1:]) == {"a": 2.0, "first_ratio_max": 3.0, "ratio_max": 3.0, "grad_norm": 0.0}


def test_speed_counts_answers_and_their_tokens():
    rollout = tiny_rollout()
    tokens = int(rollout.response_mask.sum())
    found = speed(replace(rollout, generation_seconds=0.75), 10.0, 11.0, 11.25, 12.0)
    assert found == {
        "episodes_per_second": 3.0,
        "tokens_per_second": tokens / 2,
        "generation_seconds": 0.75,
        "scoring_seconds": 0.25,
        "update_seconds": 0.75,
    }
