"""REINFORCE: PPO's loop without critic and clip. It learns, its gradient is exact, its baseline is the one it names."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.trainers.optim import AdamW
from minirlhf.trainers.reinforce import ReinforceConfig, baseline, conclude, reinforce_backward, train_reinforce
from tests.helpers.tiny_rl import (
    CONSTANT,
    TOKENIZER,
    assert_same,
    count_e,
    experience_of,
    fingerprint,
    gradients,
    junk_ids,
    length_score,
    prompt_batch,
    tiny_gpt,
    tiny_rollout,
    widened,
)
from tests.trainers.test_ppo import METRICS, without_clock

CONFIG = ReinforceConfig(steps=3, batch_size=6, max_new_tokens=5, kl_coef=0.1, optim=CONSTANT)
F64 = torch.float64


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


class Run:
    """Networks, optimizer and reports of a tiny REINFORCE run."""

    def __init__(self, config=CONFIG, scorer=None, seed=0, policy=None, prompts=None, dropout=0.0):
        self.policy = policy or tiny_gpt(dropout=dropout)
        self.reference = copy.deepcopy(self.policy)
        self.optimizer = AdamW(self.policy.named_parameters(), config.optim)
        self.config, self.seed = config, seed
        self.scorer = scorer or reward_fn_scorer(length_score)
        self.prompts = prompts or prompt_batch()

    def reports(self, **options):
        return train_reinforce(
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


def learning_run(wrong_sign=False, kind="batch_mean"):
    config = ReinforceConfig(
        steps=60,
        batch_size=32,
        max_new_tokens=6,
        kl_coef=0.01,
        baseline=kind,
        missing_end_penalty=None,
        optim=dataclasses.replace(CONSTANT, learning_rate=4e-2),
    )
    prompts = prompt_batch([chr(97 + n % 7) * (1 + n % 3) for n in range(32)])
    sign = -1 if wrong_sign else 1
    scorer = reward_fn_scorer(lambda p, r: [sign * score for score in count_e(p, r)])
    run = Run(config, scorer, policy=tiny_gpt(end_logit=1.0), prompts=prompts)
    return [sign * report.metrics["score_mean"] for report in run.reports()]


@pytest.mark.parametrize("kind", ["batch_mean", "leave_one_out"])
def test_reinforce_learns_a_rule(kind):
    scores = learning_run(kind=kind)
    assert sum(scores[:3]) / 3 < 0.1
    assert sum(scores[-3:]) / 3 > 0.6


def test_a_wrong_sign_unlearns_it():
    assert sum(learning_run(wrong_sign=True)[-3:]) / 3 < 0.1


def test_it_logs_what_ppo_logs_and_is_always_on_its_own_policy():
    for report in Run(changed(temperature=0.7), dropout=0.5).reports():
        assert report.metrics.keys() == set(METRICS)
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert report.metrics["ratio_max"] == pytest.approx(1, abs=1e-12)
        assert report.metrics["approx_kl_nats_per_token"] == pytest.approx(0, abs=1e-12)
        assert (report.metrics["clip_fraction"], report.metrics["value_loss"]) == (0, 0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6))
def test_the_baselines_are_the_mean_with_and_without_the_answer_itself(returns):
    tensor = torch.tensor(returns, dtype=F64)
    mean = baseline(tensor, "batch_mean").tolist()
    others = baseline(tensor, "leave_one_out").tolist()
    for i in range(len(returns)):
        assert mean[i] == pytest.approx(sum(returns) / len(returns), abs=1e-12)
        rest = returns[:i] + returns[i + 1 :]
        assert others[i] == pytest.approx(sum(rest) / len(rest), abs=1e-12)


def test_one_answer_alone_has_no_others():
    with pytest.raises(ValueError, match="at least two"):
        baseline(torch.ones(1), "leave_one_out")
    with pytest.raises(UserError, match="--batch-size"):
        ReinforceConfig(batch_size=1, baseline="leave_one_out")


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_advantages_are_returns_to_go_minus_the_baseline(gamma):
    rollout = tiny_rollout()
    rewards = token_rewards(rollout, 0.3)
    experience = conclude(rollout, rewards, changed(gamma=gamma, whiten_advantages=False))
    lengths = rollout.response_mask.sum(dim=1).tolist()
    to_go = [
        [sum(gamma ** (k - t) * rewards[row, k].item() for k in range(t, length)) for t in range(length)]
        for row, length in enumerate(lengths)
    ]
    mean = sum(row[0] for row in to_go) / len(to_go)
    for row, length in enumerate(lengths):
        expected = torch.tensor(to_go[row], dtype=F64)
        torch.testing.assert_close(experience.returns[row, :length], expected, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(experience.advantages[row, :length], expected - mean, rtol=1e-10, atol=1e-12)
        assert (experience.advantages[row, length:] == 0).all()


def test_whitened_advantages_are_only_scaled():
    rollout = tiny_rollout()
    rewards = token_rewards(rollout, 0.3)
    plain = conclude(rollout, rewards, changed(whiten_advantages=False)).advantages
    white = conclude(rollout, rewards, CONFIG).advantages
    mask = rollout.response_mask
    spread = (plain[mask].var(correction=0) + 1e-8).sqrt()
    centred = (plain[mask] - plain[mask].mean()) / spread
    torch.testing.assert_close(white[mask], centred + plain[mask].mean(), rtol=1e-10, atol=1e-12)
    clipped = conclude(rollout, rewards, changed(advantage_clip=0.5)).advantages
    assert torch.equal(clipped, white.clamp(-0.5, 0.5))


def test_the_expected_gradient_is_the_gradient_of_the_expected_score():
    """All answers of two tokens over a handful of first and second choices, enumerated: sum p(answer) * gradient."""
    logits = torch.randn((1 + 4, 4), generator=torch.Generator().manual_seed(0), dtype=F64)
    score = torch.randn((4, 4), generator=torch.Generator().manual_seed(1), dtype=F64)
    from minirlhf.objectives.reinforce import reinforce_loss

    leaf = logits.clone().requires_grad_(True)
    first = leaf[0].softmax(-1)
    expected_score = sum(
        first[a] * leaf[1 + a].softmax(-1)[b] * score[a, b] for a, b in itertools.product(range(4), repeat=2)
    )
    expected_score.backward()

    summed = torch.zeros_like(logits)
    for a, b in itertools.product(range(4), repeat=2):
        one = logits.clone().requires_grad_(True)
        log_probs = torch.stack([one[0].log_softmax(-1)[a], one[1 + a].log_softmax(-1)[b]])[None]
        advantages = torch.full((1, 2), score[a, b].item() - 0.7, dtype=F64)  # any constant baseline
        reinforce_loss(log_probs, advantages, torch.ones((1, 2), dtype=torch.bool), 1).backward()
        summed += log_probs.sum().exp().detach() * one.grad
    torch.testing.assert_close(-summed, leaf.grad, rtol=1e-10, atol=1e-12)


def losses_and_gradients(experience, config=CONFIG):
    policy = tiny_gpt(layers=2)
    metrics = reinforce_backward(policy, experience, config)
    return metrics, gradients(policy)


def test_the_gradient_is_that_of_log_probs_times_advantages_written_out():
    experience = experience_of(tiny_rollout())
    config = changed(temperature=0.8, entropy_coef=0.05)
    _, found = losses_and_gradients(experience, config)
    policy, total = tiny_gpt(layers=2), 0.0
    tokens = int(experience.response_mask.sum())
    for row in range(6):
        ids = experience.ids[row, experience.attention_mask[row]][None]
        length = int(experience.response_mask[row].sum())
        log_softmax = (policy(ids)[0, -length - 1 : -1] / 0.8).log_softmax(-1)  # [length V]
        chosen = log_softmax[torch.arange(length), ids[0, -length:]]
        entropy = -(log_softmax.exp() * log_softmax).sum()
        total = total - ((chosen * experience.advantages[row, :length]).sum() + 0.05 * entropy) / tokens
    total.backward()
    assert_same(found, gradients(policy))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 1000), st.sampled_from([0.0, 100.0, -1e6]))
def test_padding_full_of_junk_changes_no_loss_metric_or_gradient(left, right, seed, junk):
    experience = experience_of(tiny_rollout())
    (metrics, grads), (wide_metrics, wide_grads) = (
        losses_and_gradients(each) for each in (experience, widened(experience, left, right, junk_ids(seed), junk))
    )
    assert wide_metrics == pytest.approx(metrics, rel=1e-10, abs=1e-13)
    assert_same(grads, wide_grads)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_split_into_micro_batches_gives_the_same_losses_and_gradients(size):
    experience = experience_of(tiny_rollout())
    whole, split = losses_and_gradients(experience), losses_and_gradients(experience, changed(micro_batch_size=size))
    assert split[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-13)
    assert_same(split[1], whole[1])


def test_a_run_stopped_and_resumed_ends_bit_identical():
    config = changed(kl_target=0.5, kl_horizon=20.0, optim=dataclasses.replace(CONSTANT, schedule="linear"))
    whole, before, after = Run(config), Run(config), Run(config)
    reports = list(whole.reports())
    report = next(before.reports())
    after.policy.load_state_dict(before.policy.state_dict())
    after.optimizer.load_state_tensors(before.optimizer.state_tensors())
    resumed = list(after.reports(start_step=report.step, state=report.state))
    assert [without_clock(r.metrics) for r in resumed] == [without_clock(r.metrics) for r in reports[1:]]
    assert [r.state for r in resumed] == [r.state for r in reports[1:]]
    assert fingerprint(after.policy) == fingerprint(whole.policy)


def test_the_reference_is_frozen_and_must_be_another_network():
    run = Run()
    before = fingerprint(run.reference)
    list(run.reports())
    assert fingerprint(run.reference) == before != fingerprint(run.policy)
    run.reference = run.policy
    with pytest.raises(ValueError, match="the reference shares"):
        next(run.reports())


def test_each_rollout_draws_afresh_and_each_step_starts_without_gradients():
    answers = []

    def note(prompts, responses):
        answers.append(responses)
        return [0.0] * len(responses)

    still = dataclasses.replace(CONSTANT, learning_rate=0.0)
    run = Run(changed(steps=2, kl_coef=0.0, optim=still), scorer=reward_fn_scorer(note))
    list(run.reports())
    assert answers[0] != answers[1]  # the same policy and the same prompts
    scored = Run(changed(steps=1, optim=still))
    for parameter in scored.policy.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    assert next(scored.reports()).metrics["grad_norm"] < 1e3


def test_what_is_not_finite_is_raised_by_name(monkeypatch):
    with pytest.raises(NonFiniteError, match="scores"):
        next(Run(scorer=lambda generation, prompts, responses: torch.full((6,), torch.nan)).reports())
    experience = experience_of(tiny_rollout())
    experience.advantages[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="policy_loss"):
        losses_and_gradients(experience)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("gamma", 1.5), ("kl_coef", -1.0), ("temperature", 0.0)])
def test_a_setting_out_of_range_is_refused_by_its_flag(field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')}"):
        ReinforceConfig(**{field: value})
