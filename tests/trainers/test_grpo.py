"""The GRPO trainer: it learns, its gradient is the formula's, groups stay together, it resumes bit for bit."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.objectives.grpo import group_advantages
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.rloo import rloo_advantages
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.seeding import torch_generator
from minirlhf.trainers import grpo as grpo_module
from minirlhf.trainers.grpo import GRPOConfig, grpo_backward, repeated, train_grpo
from minirlhf.trainers.optim import AdamW
from tests.helpers.tiny_rl import (
    CONSTANT,
    TOKENIZER,
    assert_same,
    count_e,
    fingerprint,
    gradients,
    junk_ids,
    length_score,
    nudged,
    prompt_batch,
    tiny_gpt,
    tiny_rollout,
    widened,
)
from tests.trainers.test_ppo import METRICS as PPO_METRICS
from tests.trainers.test_ppo import without_clock

CONFIG = GRPOConfig(
    steps=3, batch_size=12, group_size=2, epochs=2, minibatches=3, max_new_tokens=5, kl_coef=0.1, optim=CONSTANT
)
METRICS = (set(PPO_METRICS) - {"reward_mean", "value_loss", "explained_variance"}) | {"score_std_in_group"}
F64 = torch.float64
EVERYTHING = torch.arange(6)


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


class Run:
    """Networks, optimizer and reports of a tiny GRPO run."""

    def __init__(self, config=CONFIG, scorer=None, seed=0, policy=None, prompts=None, dropout=0.0):
        self.policy = policy or tiny_gpt(dropout=dropout)
        self.reference = copy.deepcopy(self.policy)
        self.optimizer = AdamW(self.policy.named_parameters(), config.optim)
        self.config, self.seed = config, seed
        self.scorer = scorer or reward_fn_scorer(length_score)
        self.prompts = prompts or prompt_batch()

    def reports(self, **options):
        return train_grpo(
            self.policy,
            self.reference,
            self.scorer,
            lambda step: self.prompts,
            TOKENIZER,
            self.optimizer,
            self.config,
            self.seed,
            **options,
        )


def learning_run(wrong_sign=False, advantages_of=group_advantages):
    optim = dataclasses.replace(CONSTANT, learning_rate=5e-3)
    config = changed(steps=60, batch_size=32, group_size=4, minibatches=2, max_new_tokens=6, kl_coef=0.01, optim=optim)
    config = dataclasses.replace(config, missing_end_penalty=None)
    prompts = prompt_batch([chr(97 + n % 7) * (1 + n % 3) for n in range(8)])
    sign = -1 if wrong_sign else 1
    scorer = reward_fn_scorer(lambda p, r: [sign * score for score in count_e(p, r)])
    run = Run(config, scorer, policy=tiny_gpt(end_logit=1.0), prompts=prompts)
    return [sign * report.metrics["score_mean"] for report in run.reports(advantages_of=advantages_of)]


@pytest.mark.parametrize("advantages_of", [group_advantages, rloo_advantages], ids=["group", "rloo"])
def test_grpo_learns_a_rule(advantages_of):
    scores = learning_run(advantages_of=advantages_of)
    assert sum(scores[:3]) / 3 < 0.15
    assert sum(scores[-3:]) / 3 > 0.6


def test_a_wrong_sign_unlearns_it():
    assert sum(learning_run(wrong_sign=True)[-3:]) / 3 < 0.1


def test_it_logs_what_ppo_logs_but_for_the_critic():
    for report in Run(changed(temperature=0.7), dropout=0.5).reports():
        assert report.metrics.keys() == METRICS <= GLOSSARY.keys()
        assert all(math.isfinite(value) for value in report.metrics.values())
    still = dataclasses.replace(CONSTANT, learning_rate=0.0)
    for report in Run(changed(temperature=0.7, optim=still), dropout=0.5).reports():
        assert report.metrics["ratio_max"] == pytest.approx(1, abs=1e-12)  # rollout and update agree on every log-prob
        assert report.metrics["kl_nats_per_response"] == pytest.approx(0, abs=1e-12)
        assert (report.metrics["clip_fraction"], report.metrics["kl_coef"]) == (0, 0.1)


def test_the_answers_of_a_prompt_stand_next_to_each_other_and_are_what_advantages_are_made_of():
    prompts = prompt_batch()
    twice = repeated(prompts, 3)
    assert twice.texts == tuple(text for text in prompts.texts for _ in range(3))
    assert torch.equal(twice.ids[4], prompts.ids[1]) and torch.equal(
        twice.attention_mask[17], prompts.attention_mask[5]
    )
    asked, answered, given = [], [], []

    def note(prompts, responses):
        asked.extend(prompts)
        answered.extend(responses)
        return length_score(prompts, responses)

    def advantages_of(scores, group_size):
        given.append((scores.tolist(), group_size))
        return group_advantages(scores, group_size)

    run = Run(changed(steps=1, missing_end_penalty=None), reward_fn_scorer(note))
    metrics = next(run.reports(advantages_of=advantages_of)).metrics
    assert asked == [text for text in prompts.texts for _ in range(2)]
    scores = length_score(asked, answered)
    assert given == [(pytest.approx(scores), 2)]
    spreads = [abs(a - b) / math.sqrt(2) for a, b in zip(scores[::2], scores[1::2], strict=True)]
    assert metrics["score_std_in_group"] == pytest.approx(sum(spreads) / 6, rel=1e-10)
    assert metrics["score_mean"] == pytest.approx(sum(scores) / 12, rel=1e-10)
    assert len(set(answered)) > 6  # one prompt, different answers


def backward(rollout, config=CONFIG, rows=EVERYTHING, policy=None):
    policy = policy or tiny_gpt(layers=2)
    advantages = torch.linspace(-2, 1.5, 6, dtype=F64)
    metrics, too_far = grpo_backward(policy, rollout, advantages, rows, config)
    return metrics, gradients(policy), too_far


def test_the_gradient_is_that_of_the_formula_written_out():
    rollout, config = tiny_rollout(), changed(temperature=0.8, kl_coef=0.3, clip_range=0.5)
    metrics, found, _ = backward(rollout, config)
    policy, total = tiny_gpt(layers=2), 0.0
    clipped_some = 0
    for row, advantage in enumerate(torch.linspace(-2, 1.5, 6, dtype=F64)):
        ids = rollout.ids[row, rollout.attention_mask[row]][None]
        length = int(rollout.response_mask[row].sum())
        log_softmax = (policy(ids)[0, -length - 1 : -1] / 0.8).log_softmax(-1)  # [length V]
        new = log_softmax[torch.arange(length), ids[0, -length:]]
        old, ref = rollout.old_log_probs[row, :length], rollout.ref_log_probs[row, :length]
        for t in range(length):
            ratio = (new[t] - old[t]).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.5, 1.5) * advantage)
            clipped_some += int(not 0.5 <= ratio.item() <= 1.5)
            penalty = (ref[t] - new[t]).exp() - 1 - (ref[t] - new[t])
            total = total - (surrogate - 0.3 * penalty) / length / 6
    total.backward()
    assert clipped_some > 0
    assert_same(found, gradients(policy))
    assert metrics["policy_loss"] == pytest.approx(total.item(), rel=1e-10)


def test_a_minibatch_is_a_mean_over_its_own_answers():
    rollout = tiny_rollout()
    parts = [backward(rollout, rows=rows)[1] for rows in (torch.tensor([4, 0, 2]), torch.tensor([1, 5, 3]))]
    whole = backward(rollout)[1]
    assert_same({name: (parts[0][name] + parts[1][name]) / 2 for name in whole}, whole)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 1000), st.sampled_from([0.0, 100.0, -1e6]))
def test_padding_full_of_junk_changes_no_loss_metric_or_gradient(left, right, seed, junk):
    rollout = tiny_rollout()
    (metrics, grads, _), (wide_metrics, wide_grads, _) = (
        backward(each) for each in (rollout, widened(rollout, left, right, junk_ids(seed), junk))
    )
    assert wide_metrics == pytest.approx(metrics, rel=1e-10, abs=1e-13)
    assert_same(grads, wide_grads)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_split_into_micro_batches_gives_the_same_losses_and_gradients(size):
    rollout = tiny_rollout()
    whole, split = backward(rollout), backward(rollout, changed(micro_batch_size=size))
    assert split[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-13)
    assert_same(split[1], whole[1])


def test_a_run_stopped_and_resumed_ends_bit_identical():
    config = changed(optim=dataclasses.replace(CONSTANT, schedule="linear"))
    whole, before, after = Run(config), Run(config), Run(config)
    reports = list(whole.reports())
    report = next(before.reports())
    after.policy.load_state_dict(before.policy.state_dict())
    after.optimizer.load_state_tensors(before.optimizer.state_tensors())
    resumed = list(after.reports(start_step=report.step))
    assert [without_clock(r.metrics) for r in resumed] == [without_clock(r.metrics) for r in reports[1:]]
    assert fingerprint(after.policy) == fingerprint(whole.policy)


def test_the_reference_is_frozen_and_must_be_another_network():
    run = Run()
    before = fingerprint(run.reference)
    list(run.reports())
    assert fingerprint(run.reference) == before != fingerprint(run.policy)
    run.reference = run.policy
    with pytest.raises(ValueError, match="the reference shares"):
        next(run.reports())


def test_stale_and_runaway_minibatches_are_left_out(monkeypatch):
    """target_kl ends the passes over a rollout; a ratio beyond max_ratio skips the step."""
    steps = []
    monkeypatch.setattr(grpo_module, "guarded_step", lambda *arguments: steps.append(1) or 0.0)
    list(Run(changed(steps=1)).reports())
    assert len(steps) == 6  # 2 epochs of 3 minibatches
    for guard, update, expected in (
        ("target_kl", {"approx_kl_nats_per_token": 9.0}, 0),
        ("max_ratio", {"approx_kl_nats_per_token": 0.0}, 0),
    ):
        steps.clear()
        full = {
            "policy_loss": 0.0,
            "entropy_nats_per_token": 0.0,
            "ratio_mean": 1.0,
            "ratio_max": 1e3,
            "clip_fraction": 0.0,
        }
        too_far = guard == "max_ratio"
        with monkeypatch.context() as patch:
            patch.setattr(grpo_module, "grpo_backward", lambda *a, u=full | update, far=too_far: (u, far))
            list(Run(changed(steps=1, target_kl=1.0)).reports())
        assert len(steps) == expected
    # the real thing: a policy far from the one that wrote
    _, _, too_far = backward(tiny_rollout(), changed(max_ratio=1.5), policy=nudged(tiny_gpt(layers=2), 8, 0.5))
    assert too_far


def test_a_broken_weight_is_named_before_anything_moves():
    run = Run()
    with torch.no_grad():
        run.policy.blocks[0].mlp_norm.weight[0] = math.nan
    before = fingerprint(run.policy)
    with pytest.raises(NonFiniteError, match="mlp_norm"):
        next(run.reports())
    assert fingerprint(run.policy) == before


def test_settings():
    assert GRPOConfig().prompts * GRPOConfig().group_size == GRPOConfig().batch_size
    with pytest.raises(UserError, match="whole groups"):
        GRPOConfig(batch_size=10, group_size=4)
    for bad in ({"group_size": 1}, {"kl_coef": -0.1}, {"clip_range": 0.0}, {"max_ratio": 1.0}, {"minibatches": 65}):
        with pytest.raises(UserError, match="out of range"):
            GRPOConfig(**bad)


def test_each_minibatch_starts_without_gradients_and_each_rollout_draws_and_shuffles_afresh(monkeypatch):
    real, empty, orders, answers, paths = grpo_module.grpo_backward, [], [], [], []

    def watched(policy, rollout, advantages, rows, config, world):
        empty.append(all(parameter.grad is None for parameter in policy.parameters()))
        orders.append(rows.tolist())
        return real(policy, rollout, advantages, rows, config, world)

    def note(prompts, responses):
        answers.append(responses)
        return length_score(prompts, responses)

    def noted(seed, *names, **options):
        paths.append((seed, *names))
        return torch_generator(seed, *names, **options)

    monkeypatch.setattr(grpo_module, "grpo_backward", watched)
    monkeypatch.setattr(grpo_module, "torch_generator", noted)
    still = dataclasses.replace(CONSTANT, learning_rate=0.0)
    list(Run(changed(steps=2, optim=still), scorer=reward_fn_scorer(note)).reports())
    assert empty == [True] * 12  # 2 rollouts, 2 passes, 3 minibatches
    assert len({tuple(answered) for answered in answers}) == 2  # the same policy and the same prompts
    assert orders[:6] != orders[6:12]
    assert len(paths) == len(set(paths)) == 4  # no two uses of chance share a stream


def test_scores_are_limited_before_they_become_advantages():
    given = []

    def advantages_of(scores, group_size):
        given.extend(scores.tolist())
        return group_advantages(scores, group_size)

    scorer = reward_fn_scorer(lambda prompts, responses: [10.0 * (-1) ** n * n for n in range(len(responses))])
    config = changed(steps=1, score_clip=25.0, missing_end_penalty=None)
    metrics = next(Run(config, scorer).reports(advantages_of=advantages_of)).metrics
    assert given == [0.0, -10.0, 20.0, *[-25.0, 25.0] * 4, -25.0]
    assert metrics["score_mean"] == pytest.approx(sum(10.0 * (-1) ** n * n for n in range(12)) / 12)  # logged as given
