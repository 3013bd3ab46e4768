"""The PPO trainer as a whole: it learns, it repeats, it resumes, its guards fire, and padding costs nothing."""

import copy
import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minirlhf.errors import UserError
from minirlhf.models.heads import ValueModel
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.rollout.collect import response_values
from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.seeding import torch_generator
from minirlhf.trainers import ppo as ppo_module
from minirlhf.trainers.minibatches import shuffled_minibatches, take
from minirlhf.trainers.optim import AdamW
from minirlhf.trainers.ppo import PPOConfig, actor_critic, ppo_backward, train_ppo
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
    nudged,
    prompt_batch,
    tiny_gpt,
    tiny_rollout,
    tiny_value_model,
    widened,
    zero_gradients,
)

CONFIG = PPOConfig(steps=3, batch_size=6, epochs=2, minibatches=2, max_new_tokens=5, kl_coef=0.1, optim=CONSTANT)
METRICS = [
    "score_mean",
    "reward_mean",
    "kl_nats_per_response",
    "kl_k3_nats_per_response",
    "kl_exact_probe_nats_per_token",
    "entropy_nats_per_token",
    "approx_kl_nats_per_token",
    "clip_fraction",
    "ratio_mean",
    "ratio_max",
    "first_ratio_max",
    "explained_variance",
    "eos_rate",
    "response_tokens_mean",
    "grad_norm",
    "kl_coef",
    "policy_loss",
    "value_loss",
    "learning_rate",
    "episodes_per_second",
    "tokens_per_second",
    "generation_seconds",
    "scoring_seconds",
    "update_seconds",
    "distinct_2",
]


class Run:
    """Networks, optimizer and reports of a tiny PPO run."""

    def __init__(self, config=CONFIG, scorer=None, seed=0, dropout=0.0, policy=None, **options):
        self.policy = policy or tiny_gpt(dropout=dropout)
        self.reference = copy.deepcopy(self.policy)
        self.value_model = options.pop("value_model", None) or ValueModel.from_trunk(self.policy)
        self.optimizer = AdamW(actor_critic(self.policy, self.value_model).named_parameters(), config.optim)
        self.config, self.seed, self.options = config, seed, options
        self.scorer = scorer or reward_fn_scorer(length_score)
        self.prompts_at = options.pop("prompts_at", lambda step: prompt_batch())

    def reports(self, **options):
        networks = (self.policy, self.value_model, self.reference)
        return train_ppo(
            *networks,
            self.scorer,
            self.prompts_at,
            TOKENIZER,
            self.optimizer,
            self.config,
            self.seed,
            **{**self.options, **options},
        )


def changed(**fields):
    return dataclasses.replace(CONFIG, **fields)


def without_clock(metrics):
    return {name: value for name, value in metrics.items() if not name.endswith(("_per_second", "_seconds"))}


def learning_run(wrong_sign=False):
    config = PPOConfig(
        steps=25,
        batch_size=32,
        epochs=3,
        minibatches=2,
        max_new_tokens=6,
        kl_coef=0.01,
        missing_end_penalty=None,
        optim=dataclasses.replace(CONSTANT, learning_rate=2e-2),
    )
    prompts = prompt_batch([chr(97 + n % 7) * (1 + n % 3) for n in range(32)])
    policy = tiny_gpt(end_logit=1.0)
    sign = -1 if wrong_sign else 1
    scorer = reward_fn_scorer(lambda p, r: [sign * score for score in count_e(p, r)])
    run = Run(config, scorer, policy=policy, prompts_at=lambda step: prompts)
    return [sign * report.metrics["score_mean"] for report in run.reports()]


def test_ppo_learns_a_rule():
    scores = learning_run()
    assert sum(scores[:3]) / 3 < 0.1
    assert sum(scores[-3:]) / 3 > 0.6


def test_a_wrong_sign_unlearns_it():
    scores = learning_run(wrong_sign=True)
    assert sum(scores[-3:]) / 3 < 0.1


def test_every_metric_is_logged_finite_and_explained_in_the_glossary():
    true_reward = reward_fn_scorer(lambda prompts, responses: [7.0] * len(responses))
    reports = list(Run(true_reward=true_reward).reports())
    assert [report.step for report in reports] == [1, 2, 3]
    for report in reports:
        assert report.metrics.keys() == {*METRICS, "true_reward_mean"}
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert report.metrics["true_reward_mean"] == 7.0
    assert report.metrics.keys() <= GLOSSARY.keys()
    assert "true_reward_mean" not in next(Run().reports()).metrics


def test_the_true_reward_is_only_watched():
    watched = Run(true_reward=reward_fn_scorer(lambda p, r: [1e6] * len(r)))
    for _ in watched.reports():
        pass
    alone = Run()
    for _ in alone.reports():
        pass
    assert fingerprint(watched.policy) == fingerprint(alone.policy)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, second, other = ([without_clock(r.metrics) for r in Run(seed=seed).reports()] for seed in (0, 0, 1))
    assert first == second
    assert first != other


@pytest.mark.parametrize("cut_after", [1, 2])
def test_a_run_stopped_and_resumed_ends_bit_identical(cut_after):
    config = changed(kl_target=0.5, kl_horizon=20.0, optim=dataclasses.replace(CONSTANT, schedule="linear"))
    whole = Run(config)
    reports = list(whole.reports())

    before = Run(config)
    for report in before.reports():
        if report.step == cut_after:
            break
    after = Run(config)
    for mine, theirs in ((after.policy, before.policy), (after.value_model, before.value_model)):
        mine.load_state_dict(theirs.state_dict())
    after.optimizer.load_state_tensors(before.optimizer.state_tensors())
    resumed = list(after.reports(start_step=report.step, state=report.state))

    assert [r.step for r in resumed] == [r.step for r in reports[cut_after:]]
    for one, other in zip(resumed, reports[cut_after:], strict=True):
        assert without_clock(one.metrics) == without_clock(other.metrics)
        assert one.state == other.state
    assert fingerprint(after.policy) == fingerprint(whole.policy)
    assert fingerprint(after.value_model) == fingerprint(whole.value_model)


def test_reusing_the_critic_s_and_the_policy_s_names_the_optimizer_holds_both():
    names = Run().optimizer.names
    assert {name.split(".")[0] for name in names} == {"policy", "value"}
    assert "policy.token_embedding.weight" in names
    assert "value.head.weight" in names


def losses_and_gradients(experience, rows, config=CONFIG, seed=2):
    policy, value_model = nudged(tiny_gpt(layers=2), seed, 0.02), tiny_value_model()
    metrics, _ = ppo_backward(policy, value_model, experience, rows, config)
    return metrics, gradients(actor_critic(policy, value_model))


def experience_with_values():
    return experience_of(tiny_rollout(tiny_gpt(layers=2), tiny_value_model(), tiny_gpt(9)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.integers(0, 1000), st.sampled_from([0.0, 100.0, -1e6]))
def test_padding_full_of_junk_changes_no_loss_metric_or_gradient(left, right, seed, junk):
    experience = experience_with_values()
    wide = widened(experience, left, right, junk_ids(seed), junk)
    config = changed(entropy_coef=0.1)
    (metrics, grads), (wide_metrics, wide_grads) = (
        losses_and_gradients(each, torch.arange(6), config) for each in (experience, wide)
    )
    assert wide_metrics == pytest.approx(metrics, rel=1e-10, abs=1e-13)
    assert_same(grads, wide_grads)


@pytest.mark.parametrize("rows", [[0], [2, 5], [5, 2, 4], [0, 1, 2, 3, 4, 5]])
def test_trimming_changes_no_loss_or_gradient(rows, monkeypatch):
    experience = experience_with_values()
    short = take(experience, torch.tensor(rows))
    assert (short.ids.numel() < experience.ids[rows].numel()) == (len(rows) < 6)
    trimmed = losses_and_gradients(experience, torch.tensor(rows))

    def untrimmed(experience, rows):
        return type(experience)(**{name: array[rows] for name, array in vars(experience).items()})

    monkeypatch.setattr(ppo_module, "take", untrimmed)
    whole = losses_and_gradients(experience, torch.tensor(rows))
    assert trimmed[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-13)
    assert_same(trimmed[1], whole[1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_any_split_into_micro_batches_gives_the_same_losses_and_gradients(size):
    experience, rows = experience_with_values(), torch.tensor([4, 1, 0, 5, 2, 3])
    config = changed(entropy_coef=0.1)
    whole = losses_and_gradients(experience, rows, config)
    split = losses_and_gradients(experience, rows, dataclasses.replace(config, micro_batch_size=size))
    assert split[0] == pytest.approx(whole[0], rel=1e-12, abs=1e-13)
    assert_same(split[1], whole[1])


def test_the_gradient_is_that_of_the_sum_of_its_three_losses():
    """Each row alone, one token at a time, from softmax and squares written out."""
    experience = experience_with_values()
    policy, value_model = nudged(tiny_gpt(layers=2), 2, 0.02), tiny_value_model()
    config = changed(entropy_coef=0.05, value_coef=0.7, temperature=0.8)
    metrics, _ = ppo_backward(policy, value_model, experience, torch.arange(6), config)
    found = gradients(actor_critic(policy, value_model))
    zero_gradients(policy, value_model)

    total, tokens = 0.0, int(experience.response_mask.sum())
    for row in range(6):
        real, length = experience.attention_mask[row], int(experience.response_mask[row].sum())
        ids = experience.ids[row, real][None]
        start = ids.shape[1] - length - 1
        log_softmax = (policy(ids)[0] / 0.8).log_softmax(-1)
        values = value_model(ids)[0]
        for t in range(length):
            at = start + t
            ratio = (log_softmax[at, ids[0, at + 1]] - experience.old_log_probs[row, t]).exp()
            advantage = experience.advantages[row, t]
            policy_loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
            old_value, target = experience.old_values[row, t], experience.returns[row, t]
            near = old_value + (values[at] - old_value).clamp(-0.2, 0.2)
            value_loss = 0.5 * torch.maximum((values[at] - target) ** 2, (near - target) ** 2)
            entropy = -(log_softmax[at].exp() * log_softmax[at]).sum()
            total = total + (policy_loss + 0.7 * value_loss - 0.05 * entropy) / tokens
    total.backward()
    assert_same(found, gradients(actor_critic(policy, value_model)))
    named = metrics["policy_loss"] + 0.7 * metrics["value_loss"] - 0.05 * metrics["entropy_nats_per_token"]
    assert named == pytest.approx(total.item(), rel=1e-10)


def test_a_target_kl_stops_the_passes_before_the_step_that_would_go_on():
    steps = []
    run = Run(changed(steps=1, epochs=5, target_kl=1e-7))
    run.optimizer.step = lambda learning_rate, step=run.optimizer.step: (steps.append(1), step(learning_rate))
    report = next(run.reports())
    assert len(steps) == 1  # the first minibatch moves the policy; the second sees that and stops
    assert report.metrics["approx_kl_nats_per_token"] > 0
    assert all(parameter.grad is None for parameter in run.optimizer.parameters)


def count_steps(run):
    steps = []
    run.optimizer.step = lambda learning_rate, step=run.optimizer.step: (steps.append(1), step(learning_rate))
    return steps


def plant_log_probs(monkeypatch, change):
    """Let the collected old log-probs be changed, as if another policy had sampled."""
    real = ppo_module.collect

    def planted(*args):
        rollout = real(*args)
        old_log_probs = rollout.old_log_probs.clone()
        change(old_log_probs)
        return dataclasses.replace(rollout, old_log_probs=old_log_probs)

    monkeypatch.setattr(ppo_module, "collect", planted)


def test_a_planted_ratio_of_1000_skips_its_minibatch_and_no_other(monkeypatch):
    def change(old_log_probs):
        old_log_probs[2, 0] -= math.log(1000.0)

    plant_log_probs(monkeypatch, change)
    run = Run(changed(steps=1, epochs=1, minibatches=3))
    steps = count_steps(run)
    metrics = next(run.reports()).metrics
    assert len(steps) == 2
    assert metrics["ratio_max"] > 100
    unguarded = Run(changed(steps=1, epochs=1, minibatches=3, max_ratio=None))
    steps = count_steps(unguarded)
    next(unguarded.reports())
    assert len(steps) == 3


def test_a_skipped_minibatch_moves_nothing(monkeypatch):
    plant_log_probs(monkeypatch, lambda old_log_probs: old_log_probs.sub_(math.log(1000.0)))
    run = Run(changed(steps=2))
    before = fingerprint(run.policy), fingerprint(run.value_model)
    reports = list(run.reports())
    assert (fingerprint(run.policy), fingerprint(run.value_model)) == before
    assert all(report.metrics["grad_norm"] == 0 for report in reports)


@pytest.mark.parametrize(
    ("planted_in", "named"),
    [("old_log_probs", "old_log_probs"), ("advantages", "policy_loss"), ("returns", "value_loss")],
)
def test_a_nan_in_an_update_is_raised_by_name_and_moves_no_weight(planted_in, named, monkeypatch):
    run = Run(changed(steps=1))
    real = ppo_module.take

    def planted(experience, rows):
        part = real(experience, rows)
        getattr(part, planted_in)[0, 0] = torch.nan
        return part

    monkeypatch.setattr(ppo_module, "take", planted)
    before = fingerprint(run.policy), fingerprint(run.value_model)
    with pytest.raises(NonFiniteError, match=named):
        next(run.reports())
    assert (fingerprint(run.policy), fingerprint(run.value_model)) == before


def test_scores_that_are_not_finite_are_raised_by_name():
    with pytest.raises(NonFiniteError, match="scores"):
        next(Run(scorer=lambda generation, prompts, responses: torch.full((6,), torch.inf)).reports())


def test_a_reference_that_shares_weights_with_the_policy_is_refused():
    run = Run()
    run.reference = run.policy
    with pytest.raises(ValueError, match=r"the reference shares token_embedding.weight"):
        next(run.reports())


def test_a_cut_answer_is_worth_what_the_critic_expects_only_if_asked():
    value_model = tiny_value_model()
    results = []
    for truncated in ("terminal", "bootstrap"):
        run = Run(changed(steps=1, truncated=truncated, max_new_tokens=2), value_model=copy.deepcopy(value_model))
        results.append(next(run.reports()).metrics)
    assert results[0]["eos_rate"] < 1
    assert results[0]["score_mean"] == results[1]["score_mean"]
    assert results[0]["value_loss"] != results[1]["value_loss"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("epochs", 0),
        ("minibatches", 65),
        ("micro_batch_size", 0),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("gamma", 1.1),
        ("gae_lambda", -0.1),
        ("clip_range", 1.0),
        ("value_clip_range", 0.0),
        ("kl_coef", -0.1),
        ("kl_target", 0.0),
        ("kl_horizon", math.inf),
        ("score_clip", 0.0),
        ("target_kl", -1.0),
        ("max_ratio", 1.0),
        ("missing_end_penalty", -1.0),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_flag(field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')}"):
        PPOConfig(**{field: value})


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.data())
def test_minibatches_hold_every_row_once_per_epoch(rows, epochs, data):
    minibatches = data.draw(st.integers(1, rows))
    groups = list(shuffled_minibatches(rows, epochs, minibatches, torch.Generator().manual_seed(0)))
    assert len(groups) == epochs * minibatches
    for epoch in range(epochs):
        mine = groups[epoch * minibatches : (epoch + 1) * minibatches]
        assert sorted(torch.cat(mine).tolist()) == list(range(rows))
        assert max(map(len, mine)) - min(map(len, mine)) <= 1


def test_fewer_rows_than_minibatches_are_refused():
    with pytest.raises(ValueError, match="3 rows cannot be split into 4 minibatches"):
        list(shuffled_minibatches(3, 1, 4, torch.Generator()))


def test_each_minibatch_starts_without_gradients(monkeypatch):
    real, seen = ppo_module.ppo_backward, []

    def watched(policy, value_model, *rest):
        seen.append(all(p.grad is None for p in actor_critic(policy, value_model).parameters()))
        return real(policy, value_model, *rest)

    monkeypatch.setattr(ppo_module, "ppo_backward", watched)
    list(Run(changed(steps=2)).reports())
    assert seen == [True] * 8


def test_each_rollout_draws_and_shuffles_afresh(monkeypatch):
    answers, orders = [], []
    real = ppo_module.ppo_backward

    def watched(policy, value_model, experience, rows, config, world):
        orders.append(rows.tolist())
        return real(policy, value_model, experience, rows, config, world)

    def note(prompts, responses):
        answers.append(responses)
        return [0.0] * len(responses)

    monkeypatch.setattr(ppo_module, "ppo_backward", watched)
    still = dataclasses.replace(CONSTANT, learning_rate=0.0)
    list(Run(changed(steps=2, optim=still), scorer=reward_fn_scorer(note)).reports())
    assert answers[0] != answers[1]  # the same policy and the same prompts
    assert orders[:4] != orders[4:]


@pytest.mark.parametrize(("clip_range", "value_clip_range"), [(0.5, 0.01), (0.01, 0.5)])
def test_ratio_and_values_are_held_by_their_own_clip_ranges(clip_range, value_clip_range):
    experience = experience_with_values()
    experience = dataclasses.replace(experience, old_values=experience.old_values + 0.1)  # between the two ranges
    config = changed(clip_range=clip_range, value_clip_range=value_clip_range)
    metrics, _ = losses_and_gradients(experience, torch.arange(6), config)
    mask, tokens = experience.response_mask, mask_tokens(experience)
    policy, value_model = nudged(tiny_gpt(layers=2), 2, 0.02), tiny_value_model()
    sequence = (experience.ids, experience.attention_mask, mask.shape[1])
    log_probs, _ = response_log_probs(policy, *sequence)
    ratio, advantages = (log_probs - experience.old_log_probs).exp(), experience.advantages
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip_range, 1 + clip_range) * advantages)
    assert metrics["policy_loss"] == pytest.approx(-(surrogate * mask).sum().item() / tokens, rel=1e-10)
    values, old_values = response_values(value_model, *sequence), experience.old_values
    near = torch.maximum(torch.minimum(values, old_values + value_clip_range), old_values - value_clip_range)
    errors = torch.maximum((values - experience.returns) ** 2, (near - experience.returns) ** 2)
    assert metrics["value_loss"] == pytest.approx((errors * mask).sum().item() / tokens / 2, rel=1e-10)


def mask_tokens(experience):
    return int(experience.response_mask.sum())


def test_no_two_uses_of_chance_share_a_stream(monkeypatch):
    """Sampling and shuffling, step by step: the same path of names twice would be the same numbers."""
    paths = []

    def noted(seed, *names, **options):
        paths.append((seed, *names))
        return torch_generator(seed, *names, **options)

    monkeypatch.setattr(ppo_module, "torch_generator", noted)
    list(Run(changed(steps=2)).reports())
    assert len(paths) == len(set(paths)) == 4


def test_the_penalty_is_charged_at_the_coefficient_the_controller_set():
    run = Run(changed(steps=4, kl_target=0.01, kl_horizon=6.0, missing_end_penalty=None))
    for report in run.reports():
        metrics = report.metrics
        expected = metrics["score_mean"] - metrics["kl_coef"] * metrics["kl_nats_per_response"]
        assert metrics["reward_mean"] == pytest.approx(expected, rel=1e-9)
    assert metrics["kl_coef"] != pytest.approx(run.config.kl_coef, rel=0.1)
    assert abs(metrics["kl_nats_per_response"]) > 1e-3


@pytest.mark.parametrize("rows", [[3], [5, 0], [2, 4, 1]])
def test_a_minibatch_holds_the_rows_of_every_array_under_its_own_name(rows):
    """Every array filled with numbers of its own, so that none can stand in for another."""
    experience = experience_with_values()
    mask = experience.response_mask
    names = ("old_log_probs", "old_values", "advantages", "returns")
    numbered = {name: torch.arange(mask.numel()).reshape(mask.shape) + 1000.0 * n for n, name in enumerate(names, 1)}
    experience = dataclasses.replace(experience, **numbered)
    part = take(experience, torch.tensor(rows))
    for place, row in enumerate(rows):
        real, counted = part.attention_mask[place], part.response_mask[place]
        assert part.ids[place, real].tolist() == experience.ids[row, experience.attention_mask[row]].tolist()
        assert counted.sum() == mask[row].sum()
        for name in names:
            assert getattr(part, name)[place, counted].tolist() == numbered[name][row, mask[row]].tolist()


@pytest.mark.parametrize("rows", [[0], [4, 1], [5, 2, 3]])
def test_a_minibatch_is_a_mean_over_its_own_tokens(rows):
    """What the rest of the rollout holds changes neither its losses nor its gradients, whatever the micro-batches."""
    experience = experience_with_values()
    config = changed(entropy_coef=0.1, micro_batch_size=2)
    within = losses_and_gradients(experience, torch.tensor(rows), config)
    alone = losses_and_gradients(take(experience, torch.tensor(rows)), torch.arange(len(rows)), config)
    assert within[0] == pytest.approx(alone[0], rel=1e-12, abs=1e-13)
    assert_same(within[1], alone[1])


@pytest.mark.parametrize("truncated", ["terminal", "bootstrap"])
def test_what_follows_the_last_token_of_an_answer_is_nothing_unless_it_was_cut_and_goes_on(truncated):
    """With lambda 0 the last return is the last reward, and behind a cut gamma times the critic's value."""
    value_model = tiny_value_model()
    rollout = tiny_rollout(value_model=value_model, max_new_tokens=4)
    rewards = token_rewards(rollout, 0.2)
    config = changed(truncated=truncated, gamma=0.9, gae_lambda=0.0)
    returns = ppo_module.conclude(rollout, rewards, value_model, config).returns
    for row, ended in enumerate(rollout.ended.tolist()):
        last = int(rollout.response_mask[row].sum()) - 1
        beyond = value_model(rollout.ids[row, rollout.attention_mask[row]][None])[0, -1].item()
        expected = rewards[row, last].item() + (0.9 * beyond if truncated == "bootstrap" and not ended else 0.0)
        assert returns[row, last].item() == pytest.approx(expected, rel=1e-10)
    assert rollout.ended.any() and not rollout.ended.all()
