"""The 32 details of PPO on language models that decide whether it works, one test each, on tiny float64 models.

Sources: Huang et al. 2023, "The N Implementation Details of RLHF with PPO"; Zheng et al. 2023, "Secrets of RLHF in
Large Language Models Part I".
"""

import dataclasses
import math
from typing import Literal

import pytest
import torch
from torch import nn

from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.checkpoint import load_model, save_checkpoint
from minirlhf.models.heads import RewardModel, ValueModel
from minirlhf.objectives.advantages import gae
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.objectives.kl import exact_kl, k1, k2, k3, next_kl_coef
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.objectives.masked import masked_whiten
from minirlhf.objectives.ppo import clipped_value_loss, explained_variance, ppo_policy_loss
from minirlhf.parallel.ranks import World
from minirlhf.records import Turn
from minirlhf.rollout.collect import cut_at_stop, penalise_missing_end, response_texts, response_values
from minirlhf.rollout.experience import estimate_advantages, token_rewards, values_after_cut
from minirlhf.rollout.gather import share_prompts
from minirlhf.rollout.normalise import normalise_reward_model
from minirlhf.rollout.scoring import reward_fn_scorer, reward_model_scorer
from minirlhf.stages.ppo import PPOStage
from minirlhf.tokenizers.chat import encode_conversation
from minirlhf.tokenizers.tokenizer import END, PAD, Tokenizer
from minirlhf.trainers.minibatches import shuffled_minibatches
from minirlhf.trainers.optim import AdamW, OptimConfig, learning_rate_at
from minirlhf.trainers.ppo import PPOConfig, actor_critic, ppo_backward
from minirlhf.trainers.reward import RewardConfig
from tests.helpers.tiny_rl import (
    TOKENIZER,
    assert_same,
    experience_of,
    fingerprint,
    gradients,
    junk_ids,
    prompt_batch,
    tiny_generation,
    tiny_gpt,
    tiny_reward_model,
    tiny_rollout,
    tiny_value_model,
    zero_gradients,
)
from tests.trainers.test_ppo import Run, changed, count_steps, plant_log_probs

F64 = torch.float64
ONE_STEP = changed(steps=1, epochs=1, minibatches=1)


def close(found, expected, rtol=1e-10, atol=1e-12):
    expected = torch.as_tensor(expected, dtype=F64)
    torch.testing.assert_close(torch.as_tensor(found, dtype=F64), expected, rtol=rtol, atol=atol)


def with_other_prompts(generation):
    ids = generation.ids.clone()
    prompt_tokens = ids.shape[1] - generation.response_mask.shape[1]
    ids[:, :prompt_tokens] = (ids[:, :prompt_tokens] + 1) % 256
    return dataclasses.replace(generation, ids=ids)


def test_detail_01_reward_and_value_heads_read_query_and_response():
    generation, reward_model, value_model = tiny_generation(), tiny_reward_model(), tiny_value_model()
    other = with_other_prompts(generation)
    score = reward_model_scorer(reward_model)
    assert (score(generation, (), ()) - score(other, (), ())).abs().min() > 1e-6
    response_tokens = generation.response_mask.shape[1]
    values, others = (
        response_values(value_model, each.ids, each.attention_mask, response_tokens) for each in (generation, other)
    )
    assert (values - others)[generation.response_mask].abs().min() > 1e-9


def test_detail_02_pad_is_its_own_token_and_the_end_token_is_learnt():
    control = dict(TOKENIZER.control)
    with pytest.raises(ValueError, match=r"control ids"):
        Tokenizer(TOKENIZER.tokens, TOKENIZER.merges, TOKENIZER.pattern, {**control, PAD: control[END]})
    ids, learnt = encode_conversation(TOKENIZER, (Turn("user", "hi"), Turn("assistant", "yo")))
    assert [learnt[i] for i, token in enumerate(ids) if token == TOKENIZER.end_id][-1]
    rollout = tiny_rollout()
    last_is_end = rollout.ids[rollout.ended, -rollout.response_mask.shape[1] :][rollout.response_mask[rollout.ended]]
    assert (last_is_end == TOKENIZER.end_id).sum() == rollout.ended.sum()  # each end token is inside the mask
    policy = tiny_gpt()
    experience = experience_of(rollout)
    ends_only = experience.response_mask & (rollout.ids[:, -experience.response_mask.shape[1] :] == TOKENIZER.end_id)
    experience = dataclasses.replace(experience, advantages=experience.advantages * ends_only)
    ppo_backward(policy, tiny_value_model(), experience, torch.arange(6), ONE_STEP)
    assert policy.unembedding.weight.grad[TOKENIZER.end_id].abs().max() > 1e-3


@pytest.mark.parametrize(("left", "right"), [(1, 0), (0, 2), (3, 4)])
def test_detail_03_position_ids_skip_padding(left, right):
    policy = tiny_gpt(layers=2)
    ids = junk_ids(n=14).reshape(2, 7)
    wide = torch.full((2, 7 + left + right), TOKENIZER.pad_id)
    mask = torch.zeros_like(wide, dtype=torch.bool)
    wide[:, left : left + 7], mask[:, left : left + 7] = ids, True
    close(policy(wide, mask)[:, left : left + 7], policy(ids).detach())


@pytest.mark.parametrize("max_new_tokens", [1, 6])
def test_detail_04_logits_and_values_are_sliced_from_the_last_prompt_token_on(max_new_tokens):
    policy, value_model = tiny_gpt(layers=2), tiny_value_model()
    generation = tiny_generation(policy, max_new_tokens)
    mask = generation.response_mask
    tokens = mask.shape[1]
    log_probs, _ = response_log_probs(policy, generation.ids, generation.attention_mask, tokens)
    values = response_values(value_model, generation.ids, generation.attention_mask, tokens)
    for row in range(len(mask)):
        prompt = generation.ids[row, :-tokens][generation.attention_mask[row, :-tokens]]
        for t in range(int(mask[row].sum())):  # one token at a time, from nothing but what came before it
            before = torch.cat([prompt, generation.ids[row, -tokens:][:t]])[None]
            token = generation.ids[row, -tokens:][t]
            close(log_probs[row, t], policy(before)[0, -1].log_softmax(-1)[token].item())
            close(values[row, t], value_model(before)[0, -1].item())


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_detail_05_one_temperature_for_rollout_old_new_and_reference(temperature):
    policy, reference = tiny_gpt(layers=2), tiny_gpt(9)
    rollout = tiny_rollout(policy, reference=reference, temperature=temperature)
    sampling, generator = SamplingConfig(6, temperature), torch.Generator().manual_seed(0)
    sampled = generate(policy, prompt_batch(), sampling, (TOKENIZER.end_id,), TOKENIZER.pad_id, generator)
    assert torch.equal(
        sampled.ids[:, -sampled.response_mask.shape[1] :][sampled.response_mask],
        rollout.ids[:, -rollout.response_mask.shape[1] :][rollout.response_mask],
    )
    mask = rollout.response_mask
    close(rollout.old_log_probs[mask], sampled.log_probs[sampled.response_mask])
    sequence = (rollout.ids, rollout.attention_mask, mask.shape[1])
    close(rollout.ref_log_probs[mask], response_log_probs(reference, *sequence, temperature)[0][mask].detach())
    assert not torch.allclose(rollout.old_log_probs[mask], response_log_probs(policy, *sequence, 1.0)[0][mask])
    config = dataclasses.replace(ONE_STEP, temperature=temperature)
    metrics, _ = ppo_backward(policy, tiny_value_model(), experience_of(rollout), torch.arange(6), config)
    close(metrics["ratio_max"], 1.0)


def test_detail_06_dropout_is_off_in_rollout_and_update():
    run = Run(ONE_STEP, dropout=0.5)
    for network in (run.policy, run.value_model, run.reference):
        network.train()  # as a trainer before this one may have left it
    ids = junk_ids(n=12).reshape(2, 6)
    assert not torch.equal(run.policy(ids), run.policy(ids))  # dropout is really configured
    metrics = next(run.reports()).metrics
    assert torch.equal(run.policy(ids), run.policy(ids))
    assert not (run.policy.training or run.value_model.training or run.reference.training)
    close(metrics["ratio_max"], 1.0)
    close(metrics["kl_exact_probe_nats_per_token"], 0.0)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_detail_07_the_first_minibatch_has_ratio_1_and_the_next_has_not(temperature):
    first = next(Run(dataclasses.replace(ONE_STEP, temperature=temperature), dropout=0.5).reports()).metrics
    close([first["ratio_mean"], first["ratio_max"]], [1.0, 1.0])
    close(first["approx_kl_nats_per_token"], 0.0)
    assert first["clip_fraction"] == 0
    later = next(Run(dataclasses.replace(ONE_STEP, temperature=temperature, epochs=8), dropout=0.5).reports()).metrics
    assert abs(later["ratio_max"] - 1) > 1e-3
    assert later["approx_kl_nats_per_token"] > 1e-6
    assert later["clip_fraction"] > 0


def test_detail_08_the_reference_is_frozen_and_the_kl_starts_at_0():
    run = Run(changed(steps=3))
    before, policy_before = fingerprint(run.reference), fingerprint(run.policy)
    reports = list(run.reports())
    assert fingerprint(run.reference) == before
    assert fingerprint(run.policy) != policy_before
    assert all(not p.requires_grad and p.grad is None for p in run.reference.parameters())
    for key in ("kl_nats_per_response", "kl_k3_nats_per_response", "kl_exact_probe_nats_per_token"):
        assert abs(reports[0].metrics[key]) < 1e-12
        assert abs(reports[2].metrics[key]) > 1e-4


def facts(scores, old, ref, ended=None, values=None):
    """A rollout from nested lists of equal length; `old` and `ref` are log-probs in nats."""
    rollout = tiny_rollout()
    old = torch.tensor(old, dtype=F64)
    rows, tokens = old.shape
    return dataclasses.replace(
        rollout,
        ids=torch.zeros((rows, 1 + tokens), dtype=torch.int64),
        attention_mask=torch.ones((rows, 1 + tokens), dtype=torch.bool),
        response_mask=torch.ones((rows, tokens), dtype=torch.bool),
        ended=torch.tensor(ended or [True] * rows),
        old_log_probs=old,
        ref_log_probs=torch.tensor(ref, dtype=F64),
        values=torch.zeros_like(old) if values is None else torch.tensor(values, dtype=F64),
        scores=torch.tensor(scores, dtype=F64),
    )


def test_detail_09_the_kl_penalty_is_inside_the_reward_of_each_token():
    rollout = facts([1.0], [[-0.5, -1.0, -0.25]], [[-0.75, -0.5, -1.25]])
    close(token_rewards(rollout, 0.2), [[-0.2 * 0.25, -0.2 * -0.5, 1.0 - 0.2 * 1.0]])
    farther = dataclasses.replace(rollout, ref_log_probs=rollout.ref_log_probs - 0.5)
    near, far = (estimate_advantages(r, token_rewards(r, 0.2), whiten_advantages=False) for r in (rollout, farther))
    assert (far.returns < near.returns).all()


def test_detail_10_k1_is_unbiased_and_signed_k2_biased_k3_never_negative_and_calm():
    logits, ref_logits = torch.randn((2, 7), generator=torch.Generator().manual_seed(4), dtype=F64) * 0.5
    p = logits.softmax(-1)
    log_p, log_q = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    exact = (p * (log_p - log_q)).sum()
    close(exact_kl(logits, ref_logits), exact)
    one, two, three = k1(log_p, log_q), k2(log_p, log_q), k3(log_p, log_q)  # of every token there is
    close((p * one).sum(), exact)
    close((p * three).sum(), exact)
    assert abs((p * two).sum() - exact) > 1e-3
    assert one.min() < 0 < one.max()
    assert three.min() >= 0
    spread_1, spread_3 = ((p * k.square()).sum() - exact**2 for k in (one, three))
    assert spread_3 < spread_1 / 2


def test_detail_11_the_score_is_added_once_at_the_last_response_token():
    rollout = tiny_rollout()
    mask, last = rollout.response_mask, rollout.response_mask.sum(dim=1) - 1
    assert len(set(last.tolist())) > 2
    alone = token_rewards(rollout, 0.0)
    close(alone[torch.arange(6), last], rollout.scores)
    assert (alone != 0).sum() == (rollout.scores != 0).sum()
    rewards = token_rewards(rollout, 0.3)
    kl = ((rollout.old_log_probs - rollout.ref_log_probs) * mask).sum(dim=1)
    close(rewards.sum(dim=1), rollout.scores - 0.3 * kl)


def test_detail_12_answers_are_cut_at_the_first_stop_token_and_the_cut_text_is_scored():
    generation = tiny_generation()
    width = generation.response_mask.shape[1]
    shouting = generation.ids.clone()
    response = shouting[:, -width:]
    response[~generation.response_mask] = ord("!")  # a sampler that goes on after the stop token
    wild = dataclasses.replace(
        generation,
        ids=shouting,
        attention_mask=torch.ones_like(generation.attention_mask) & (shouting != TOKENIZER.pad_id),
        response_mask=torch.ones_like(generation.response_mask),
    )
    wild.attention_mask[:, :-width] = generation.attention_mask[:, :-width]
    cut = cut_at_stop(wild, (TOKENIZER.end_id,), TOKENIZER.pad_id)
    for name in ("ids", "attention_mask", "response_mask", "ended"):
        assert torch.equal(getattr(cut, name), getattr(generation, name)), name
    texts = response_texts(cut, TOKENIZER)
    assert texts == response_texts(generation, TOKENIZER)
    assert not any("!" in text for text in texts)
    score = reward_model_scorer(tiny_reward_model())
    assert torch.equal(score(cut, (), texts), score(generation, (), texts))


def test_detail_13_an_answer_without_a_stop_token_gets_the_fixed_penalty():
    scorer = reward_fn_scorer(lambda prompts, responses: [2.0] * len(responses))
    rollout = tiny_rollout(scorer=scorer, missing_end_penalty=1.5)
    assert not rollout.ended.all()
    assert rollout.scores.tolist() == [2.0 if ended else -1.5 for ended in rollout.ended.tolist()]
    assert tiny_rollout(scorer=scorer, missing_end_penalty=None).scores.tolist() == [2.0] * 6
    close(penalise_missing_end(torch.tensor([-4.0]), torch.tensor([False]), 1.5), [-5.5])  # never a gain


def test_detail_14_the_reward_is_read_at_the_last_real_token():
    generation, model = tiny_generation(), tiny_reward_model()
    score = reward_model_scorer(model)
    rows = len(generation.ids)
    padded = dataclasses.replace(
        generation,
        ids=torch.cat([generation.ids, junk_ids(n=3 * rows).reshape(rows, 3)], dim=1),
        attention_mask=torch.cat([generation.attention_mask, torch.zeros((rows, 3), dtype=torch.bool)], dim=1),
    )
    close(score(padded, (), ()), score(generation, (), ()))
    row = int(generation.response_mask.sum(dim=1).argmin())  # a short answer among longer ones
    hidden, _ = model.trunk.hidden(generation.ids[row, generation.attention_mask[row]][None])
    close(
        score(generation, (), ())[row], model.head(hidden[0, -1]).item() * model.gain.item() + model.bias_shift.item()
    )


def test_detail_15_the_reward_head_starts_with_std_1_over_root_d_plus_1_and_bias_0():
    trunk = tiny_gpt(width=16)
    heads = [RewardModel(trunk, torch.Generator().manual_seed(seed)).head for seed in range(100)]
    weights = torch.cat([head.weight.flatten() for head in heads])  # [1600]
    error = 4 / math.sqrt(2 * len(weights))  # four standard errors of a standard deviation
    assert weights.std().item() == pytest.approx(1 / math.sqrt(17), rel=error)
    assert abs(weights.mean().item()) < 4 / math.sqrt(17 * len(weights))
    assert all((head.bias == 0).all() for head in heads)


def test_detail_16_values_are_0_before_the_first_step():
    value_model = ValueModel.from_trunk(tiny_gpt()).eval()
    rollout = tiny_rollout(value_model=value_model)
    assert (rollout.values == 0).all()
    run = Run(ONE_STEP)
    metrics = next(run.reports()).metrics
    assert metrics["explained_variance"] == pytest.approx(0, abs=1e-12)
    assert (run.value_model(junk_ids(n=6)[None]) != 0).all()  # after it they are not


def test_detail_17_every_network_starts_from_a_copy_of_a_named_one():
    choices = {each.name: (each.type, each.default) for each in dataclasses.fields(PPOStage)}["value_from"]
    assert choices == (Literal["policy", "reward", "shared"], "policy")  # stated, and chosen by a flag
    sft = tiny_gpt()
    reward_model = RewardModel.from_trunk(sft)
    for start, model in (
        (sft, reward_model),
        (sft, ValueModel.from_trunk(sft)),
        (reward_model.trunk, ValueModel.from_trunk(reward_model.trunk)),
    ):
        assert fingerprint(model.trunk) == fingerprint(start)
        assert not {id(p) for p in model.trunk.parameters()} & {id(p) for p in start.parameters()}


def test_detail_18_a_reward_model_sees_its_pairs_once_and_its_learning_rate_ends_at_0():
    config = RewardConfig()
    assert config.epochs == 1
    steps = config.steps(1000)
    assert (steps - 1) * config.batch_size < 1000 <= steps * config.batch_size
    assert learning_rate_at(steps - 1, steps, config.optim) == 0
    assert learning_rate_at(steps // 2, steps, config.optim) > 0


def test_detail_19_gain_and_bias_bring_reference_samples_to_mean_0_and_std_1(tmp_path):
    reference, model, sampling = tiny_gpt(), tiny_reward_model(), SamplingConfig(6)
    generation = tiny_generation(seed=7)
    raw = model(generation.ids, generation.attention_mask)
    batches = [prompt_batch(("a", "bcd", "ef", "ghij", "k", "lm") * 200)] * 5
    normalise_reward_model(model, reference, batches, TOKENIZER, sampling, torch.Generator().manual_seed(0))
    draws, fresh = torch.Generator().manual_seed(1), []  # other answers of the same policy, 6000 of them
    for batch in batches:
        answers = generate(reference, batch, sampling, (TOKENIZER.end_id,), TOKENIZER.pad_id, draws)
        fresh.append(reward_model_scorer(model)(answers, (), ()))
    assert abs(torch.cat(fresh).mean().item()) < 0.05
    assert abs(torch.cat(fresh).std().item() - 1) < 0.05
    after = model(generation.ids, generation.attention_mask)
    assert torch.equal(raw.argsort(), after.argsort())
    save_checkpoint(tmp_path / "reward", model, TOKENIZER)  # gain and bias travel with the weights
    restored, _ = load_model(tmp_path / "reward")
    close(restored(generation.ids, generation.attention_mask).double(), after.detach(), rtol=1e-4, atol=1e-4)


def test_detail_20_gamma_is_1_lambda_0_95_and_gae_equals_a_double_loop():
    config = PPOConfig()
    assert (config.gamma, config.gae_lambda) == (1.0, 0.95)
    rewards, values = torch.randn((2, 3, 5), generator=torch.Generator().manual_seed(0), dtype=F64)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
    rewards, values = rewards * mask, values * mask
    following = torch.cat([values[:, 1:], torch.zeros((3, 1), dtype=F64)], dim=1)
    for gamma, lam in ((1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)):
        deltas = (rewards + gamma * following - values) * mask
        slow = torch.zeros_like(rewards)
        for t in range(5):
            for k in range(t, 5):
                slow[:, t] += (gamma * lam) ** (k - t) * deltas[:, k]
        advantages, returns = gae(rewards, values, mask, gamma, lam)
        close(advantages, slow * mask)
        close(returns, (slow + values) * mask)
        if lam == 1.0:
            to_go = rewards.flip(1).cumsum(1).flip(1)
            close(advantages, (to_go - values) * mask)
        if lam == 0.0:
            close(advantages, deltas)


def test_detail_21_masked_values_never_bootstrap():
    rollout = tiny_rollout(value_model=tiny_value_model())
    planted = dataclasses.replace(rollout, values=rollout.values.masked_fill(~rollout.response_mask, 100.0))
    assert (planted.values == 100).any()
    clean, dirty = (estimate_advantages(r, token_rewards(r, 0.1), whiten_advantages=False) for r in (rollout, planted))
    assert torch.equal(clean.advantages, dirty.advantages)
    assert torch.equal(clean.returns, dirty.returns)


def test_detail_22_a_cut_answer_is_terminal_or_bootstrapped():
    rollout = facts([1.0, 1.0], [[0.0, 0.0]] * 2, [[0.0, 0.0]] * 2, ended=[True, False], values=[[0.5, 0.25]] * 2)
    options = {"gamma": 0.5, "gae_lambda": 0.5, "whiten_advantages": False}
    terminal = estimate_advantages(rollout, token_rewards(rollout, 0.0), **options)
    # deltas: 0 + 0.5 * 0.25 - 0.5 = -0.375 and 1 + 0 - 0.25 = 0.75; then -0.375 + 0.25 * 0.75 = -0.1875
    close(terminal.advantages, [[-0.1875, 0.75]] * 2)
    after = torch.tensor([9.0, 2.0], dtype=F64)  # the first answer ended, so its 9 is never read
    bootstrapped = estimate_advantages(rollout, token_rewards(rollout, 0.0), last_values=after, **options)
    # the second answer's last delta: 1 + 0.5 * 2 - 0.25 = 1.75; then -0.375 + 0.25 * 1.75 = 0.0625
    close(bootstrapped.advantages, [[-0.1875, 0.75], [0.0625, 1.75]])
    assert PPOConfig().truncated == "terminal"
    assert values_after_cut(tiny_value_model(), tiny_rollout()).shape == (6,)


def test_detail_23_rewards_are_whitened_without_a_shift_and_advantages_with_one():
    x, mask = torch.tensor([[1.0, 3.0, 50.0]], dtype=F64), torch.tensor([[True, True, False]])
    close(masked_whiten(x, mask, shift_mean=True), [[-1.0, 1.0, 0.0]], rtol=1e-7)
    close(masked_whiten(x, mask, shift_mean=False), [[1.0, 3.0, 0.0]], rtol=1e-7)
    for dull in (torch.tensor([[2.0]], dtype=F64), torch.full((2, 3), 2.0, dtype=F64)):
        everywhere = torch.ones_like(dull, dtype=torch.bool)
        close(masked_whiten(dull, everywhere, shift_mean=True), torch.zeros_like(dull))
        close(masked_whiten(dull, everywhere, shift_mean=False), dull)
    assert PPOConfig().whiten_advantages
    rollout = facts([1.0, 4.0], [[0.0], [0.0]], [[0.0], [0.0]])
    white = estimate_advantages(rollout, token_rewards(rollout, 0.0), whiten_rewards=True, whiten_advantages=False)
    close(white.returns.mean(), 2.5)  # scaled to std 1 around the same mean
    close(white.returns[1] - white.returns[0], [2.0], rtol=1e-7)


def test_detail_24_the_value_loss_is_half_the_larger_of_clipped_and_unclipped_squared_error():
    mask = torch.tensor([[True]])

    def loss(value, old, target):
        tensors = [torch.tensor([[each]], dtype=F64) for each in (value, old, target)]
        return clipped_value_loss(*tensors, mask, 0.2).item()

    assert loss(1.1, 1.0, 2.0) == pytest.approx(0.5 * 0.9**2)  # inside the clip
    assert loss(1.5, 1.0, 2.0) == pytest.approx(0.5 * 0.8**2)  # ran ahead towards the target: counted from 1.2
    assert loss(0.5, 1.0, 2.0) == pytest.approx(0.5 * 1.5**2)  # ran away: the unclipped error is larger
    assert loss(2.5, 1.0, 0.0) == pytest.approx(0.5 * 2.5**2)
    values, returns = torch.tensor([[1.0, 2.0, 4.0]], dtype=F64), torch.tensor([[1.0, 3.0, 5.0]], dtype=F64)
    errors = torch.tensor([0.0, 1.0, 1.0], dtype=F64)
    expected = 1 - errors.var() / returns.var()
    close(explained_variance(values, returns, torch.ones_like(values, dtype=torch.bool)), expected)
    assert "explained_variance" in next(Run(ONE_STEP).reports()).metrics


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
def test_detail_25_the_policy_gradient_is_0_only_when_clipped_and_improving(advantage, ratio):
    log_probs = torch.tensor([[math.log(ratio)]], dtype=F64, requires_grad=True)
    old, mask = torch.zeros((1, 1), dtype=F64), torch.tensor([[True]])
    loss = ppo_policy_loss(log_probs, old, torch.full_like(old, advantage), mask, 0.2)
    loss.backward()
    clipped = min(max(ratio, 0.8), 1.2)
    assert loss.item() == pytest.approx(max(-advantage * ratio, -advantage * clipped))
    improving = ratio > 1.2 if advantage > 0 else ratio < 0.8
    assert log_probs.grad.item() == pytest.approx(0.0 if improving else -advantage * ratio)


def test_detail_26_batch_minibatch_and_micro_batch_nest():
    groups = list(shuffled_minibatches(12, 3, 4, torch.Generator().manual_seed(0)))
    epochs = [torch.cat(groups[4 * e : 4 * e + 4]).tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    policy, value_model, experience = tiny_gpt(layers=2), tiny_value_model(), experience_of(tiny_rollout())
    results = []
    for size in (None, 1, 2, 4):
        zero_gradients(policy, value_model)
        ppo_backward(policy, value_model, experience, groups[0].sort().values % 6, changed(micro_batch_size=size))
        results.append(gradients(actor_critic(policy, value_model)))
    for split in results[1:]:
        assert_same(results[0], split)


def test_detail_27_the_kl_coefficient_follows_its_target_and_survives_a_resume():
    assert next_kl_coef(0.1, 12.0, 6.0, 100.0, 10) == pytest.approx(0.1 * 1.02)  # error 1, clipped to 0.2
    assert next_kl_coef(0.1, 0.0, 6.0, 100.0, 10) == pytest.approx(0.1 * 0.98)  # error -1, clipped to -0.2
    assert next_kl_coef(0.1, 6.6, 6.0, 100.0, 10) == pytest.approx(0.1 * 1.01)  # error 0.1
    config = changed(steps=4, kl_target=0.05, kl_horizon=30.0)
    reports = list(Run(config).reports())
    kl_coef = config.kl_coef
    for report in reports:
        assert report.metrics["kl_coef"] == kl_coef
        error = min(max(report.metrics["kl_nats_per_response"] / 0.05 - 1, -0.2), 0.2)
        kl_coef *= 1 + error * 6 / 30
        assert report.state["kl_coef"] == pytest.approx(kl_coef, rel=1e-12)
    resumed = next(Run(config).reports(start_step=2, state=reports[1].state))
    assert resumed.metrics["kl_coef"] == reports[1].state["kl_coef"] != config.kl_coef
    fixed = list(Run(changed(steps=2, kl_target=None)).reports())
    assert [report.state["kl_coef"] for report in fixed] == [changed().kl_coef] * 2


def test_detail_28_adam_s_epsilon_is_explicit_and_our_adamw_is_torch_s():
    assert dataclasses.asdict(PPOConfig())["optim"]["eps"] == 1e-5
    config = OptimConfig(learning_rate=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0)
    mine, theirs = (nn.Linear(3, 2).double() for _ in range(2))
    theirs.load_state_dict(mine.state_dict())
    optimizer = AdamW(mine.named_parameters(), config)
    assert optimizer.eps == 1e-3
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.0)
    for step in range(5):
        x = torch.randn((4, 3), generator=torch.Generator().manual_seed(step), dtype=F64)
        for model in (mine, theirs):
            model.zero_grad()
            (model(x) ** 2).sum().backward()
        optimizer.step(0.1)
        oracle.step()
    assert_same(dict(mine.named_parameters()), dict(theirs.named_parameters()))


def test_detail_29_the_learning_rate_is_annealed_and_each_process_draws_its_own_samples():
    """Two processes that answer the same prompts must not write the same; tests/parallel/test_ranks.py starts them."""
    optim = dataclasses.replace(PPOConfig().optim, learning_rate=1e-3)
    rates = [r.metrics["learning_rate"] for r in Run(changed(steps=5, optim=optim)).reports()]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3, 0.0])
    alike = prompt_batch(("ab",) * 6)
    answers = []
    for rank in (0, 0, 1):
        generator = torch.Generator().manual_seed(0)
        mine = share_prompts(World(rank, 2), alike, 6, generator)
        answers.append(tiny_rollout(prompts=mine, generator=generator).responses)
    assert answers[0] == answers[1] != answers[2]


def test_detail_30_scores_and_advantages_can_be_clipped_and_by_default_are_not():
    assert PPOConfig().score_clip is None
    assert PPOConfig().advantage_clip is None
    scorer = reward_fn_scorer(lambda prompts, responses: [100.0 * len(r) for r in responses])
    plain, clipped = (
        next(Run(config, scorer=scorer).reports()).metrics
        for config in (ONE_STEP, dataclasses.replace(ONE_STEP, score_clip=0.5))
    )
    assert plain["score_mean"] == clipped["score_mean"]  # the score is logged as it was given
    assert clipped["reward_mean"] <= 0.5 < plain["reward_mean"]
    assert clipped["value_loss"] < plain["value_loss"]
    rollout = facts([0.0, 0.0, 0.0, 9.0], [[0.0]] * 4, [[0.0]] * 4)
    limited = estimate_advantages(rollout, token_rewards(rollout, 0.0), advantage_clip=0.75)
    assert limited.advantages.max() == 0.75


def test_detail_31_each_guard_fires_on_its_own_fault(monkeypatch):
    clean = Run(changed(steps=1, epochs=1, minibatches=3))
    steps = count_steps(clean)
    next(clean.reports())
    assert len(steps) == 3

    stopped = Run(changed(steps=1, epochs=6, target_kl=1e-7))  # the first step moves it, the second minibatch sees it
    steps = count_steps(stopped)
    next(stopped.reports())
    assert len(steps) == 1

    with pytest.raises(NonFiniteError, match="scores is not finite"):
        next(Run(scorer=lambda generation, prompts, responses: torch.full((6,), torch.nan)).reports())

    with monkeypatch.context() as patch:
        plant_log_probs(patch, lambda old_log_probs: old_log_probs[0, :1].sub_(math.log(1e3)))
        skipped = Run(changed(steps=1, epochs=1, minibatches=3))
        steps = count_steps(skipped)
        metrics = next(skipped.reports()).metrics
        assert len(steps) == 2
        assert metrics["ratio_max"] == pytest.approx(1e3, rel=0.5)


def test_detail_32_old_log_probs_advantages_returns_and_rewards_carry_no_graph():
    value_model = tiny_value_model()
    rollout = tiny_rollout(value_model=value_model)
    rewards = token_rewards(rollout, 0.1)
    experience = estimate_advantages(rollout, rewards, last_values=values_after_cut(value_model, rollout))
    for array in (
        rewards,
        rollout.old_log_probs,
        rollout.ref_log_probs,
        rollout.values,
        rollout.scores,
        *vars(experience).values(),
    ):
        assert array.requires_grad is False
        assert array.grad_fn is None
