"""Ideas without a gradient: torch gives what the definition gives."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel
from minirlhf.nn.rope import rotation_table
from minirlhf.objectives import advantages, bradley_terry, cross_entropy, grpo, guards, likelihood, ppo, rloo
from minirlhf.reference import adamw as by_hand_adamw
from minirlhf.reference import advantages as by_hand_advantages
from minirlhf.reference import bradley_terry as by_hand_bradley_terry
from minirlhf.reference import cross_entropy as by_hand_cross_entropy
from minirlhf.reference import grpo as by_hand_grpo
from minirlhf.reference import guards as by_hand_guards
from minirlhf.reference import heads as by_hand_heads
from minirlhf.reference import likelihood as by_hand_likelihood
from minirlhf.reference import optimizers as by_hand_optimizers
from minirlhf.reference import ppo as by_hand_ppo
from minirlhf.reference import rloo as by_hand_rloo
from minirlhf.reference import rope as by_hand_rope
from minirlhf.reference import schedule as by_hand_schedule
from minirlhf.testing import check_against_reference, floats, rollouts, score_pairs
from minirlhf.trainers.optim import OptimConfig, learning_rate_at

seeds = st.integers(0, 2**32 - 1)


@given(st.integers(1, 3), st.integers(2, 4), seeds, st.booleans())
def test_group_and_leave_one_out_advantages(groups, group_size, seed, divide_by_std):
    scores = np.random.default_rng(seed).normal(size=groups * group_size)
    check_against_reference(
        lambda s: grpo.group_advantages(s, group_size, divide_by_std),
        lambda s: by_hand_grpo.group_advantages(s, group_size, divide_by_std),
        scores,
    )
    check_against_reference(
        lambda s: rloo.rloo_advantages(s, group_size), lambda s: by_hand_rloo.rloo_advantages(s, group_size), scores
    )


@given(score_pairs())
def test_pair_accuracy(pair):
    check_against_reference(bradley_terry.pair_accuracy, by_hand_bradley_terry.pair_accuracy, *pair)


@given(rollouts())
def test_diagnostics_guards_and_last_tokens(rollout):
    new, old, mask = rollout.log_probs, rollout.old_log_probs, rollout.response_mask
    check_against_reference(
        ppo.explained_variance, by_hand_ppo.explained_variance, rollout.values, rollout.returns, mask, atol=1e-9
    )
    tensors = [torch.tensor(array) for array in (new, old, mask)]
    ours, wanted = ppo.ppo_diagnostics(*tensors, 0.2), by_hand_ppo.ppo_diagnostics(new, old, mask, 0.2)
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_allclose(ours[name], value, rtol=1e-10, atol=1e-12, err_msg=name)
    for limit in (1.1, 1.5, 2.5):
        assert guards.ratio_too_large(*tensors, limit) == by_hand_guards.ratio_too_large(new, old, mask, limit)
    last = by_hand_advantages.last_response_index(mask)
    assert (advantages.last_response_index(tensors[2]).numpy() == last).all()


@given(st.floats(0, 2), st.none() | st.floats(0.01, 2))
def test_kl_above_target(kl, target):
    assert guards.kl_above_target(kl, target) == by_hand_guards.kl_above_target(kl, target)


@given(floats((2, 3)), st.lists(st.booleans(), min_size=6, max_size=6))
def test_cross_entropy_sum(log_probs, counted):
    mask = np.array(counted).reshape(2, 3)
    total, count = cross_entropy.cross_entropy_sum(torch.tensor(log_probs), torch.tensor(mask))
    wanted_total, wanted_count = by_hand_cross_entropy.cross_entropy_sum(log_probs, mask)
    assert count.item() == wanted_count
    assert_allclose(total.item(), wanted_total, rtol=1e-12, atol=1e-12)


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0.3, 3), seeds)
def test_likelihood_of_sequences_and_responses(tokens, response, temperature, seed):
    """A made-up model whose logits depend on every token so far and on how many there are."""
    rng = np.random.default_rng(seed)
    ids, table, response = rng.integers(0, 5, tokens), rng.normal(size=(5, 5)), min(response, tokens - 1)

    def by_hand(seen):
        return np.cumsum(table[seen], axis=0) + 0.1 * np.arange(len(seen))[:, None] ** 2 * table[0]

    def forward(batch, attention_mask=None, last=None):
        logits = torch.tensor(np.stack([by_hand(row) for row in batch.numpy()]))
        return logits if last is None else logits[:, logits.shape[1] - last :]

    batch = torch.tensor(ids)[None]
    ours = likelihood.sequence_log_probs(forward, batch, None, temperature)[0]
    assert_allclose(ours, by_hand_likelihood.sequence_log_probs(by_hand, ids, temperature), rtol=1e-10)
    mask = torch.ones_like(batch, dtype=torch.bool)
    log_probs, entropy = likelihood.response_log_probs(forward, batch, mask, response, temperature)
    wanted_log_probs, wanted_entropy = by_hand_likelihood.response_log_probs(by_hand, ids, response, temperature)
    assert_allclose(log_probs[0], wanted_log_probs, rtol=1e-10)
    assert_allclose(entropy[0], wanted_entropy, rtol=1e-9, atol=1e-12)
    both = likelihood.token_log_probs_and_entropy(torch.tensor(table), torch.arange(5), temperature)
    for ours, wanted in zip(
        both, by_hand_likelihood.token_log_probs_and_entropy(table, np.arange(5), temperature), strict=True
    ):
        assert_allclose(ours, wanted, rtol=1e-10)
    assert_allclose(
        likelihood.log_probs_of(torch.tensor(table), temperature),
        by_hand_likelihood.log_probs_of(table, temperature),
        rtol=1e-10,
    )


@given(st.integers(1, 6), st.integers(1, 4), st.floats(10, 1e5))
def test_rotation_table(context, half, base):
    ours = rotation_table(context, 2 * half, base, torch.float64, torch.device("cpu"))
    for table, wanted in zip(ours, by_hand_rope.rotation_table(context, 2 * half, base), strict=True):
        assert_allclose(table, wanted, rtol=1e-10, atol=1e-12)


@given(st.integers(2, 6), seeds)
def test_normalised_scores(count, seed):
    scores = torch.tensor(np.random.default_rng(seed).normal(2, 3, count))
    model = RewardModel(GPT(GPTConfig(5, context=4, layers=1, heads=1, width=4))).double()
    model.gain.fill_(1.5)
    model.bias_shift.fill_(-0.5)
    model.normalise(scores)
    gain, shift = by_hand_heads.normalise(1.5, -0.5, scores.numpy())
    assert_allclose((model.gain.item(), model.bias_shift.item()), (gain, shift), rtol=1e-10)


@given(
    st.integers(1, 30),
    st.integers(0, 40),
    st.floats(0, 1),
    st.sampled_from(["constant", "linear", "cosine"]),
)
def test_learning_rates(steps, warmup_steps, final_fraction, schedule):
    config = OptimConfig(learning_rate=0.7, warmup_steps=warmup_steps, final_fraction=final_fraction, schedule=schedule)
    for step in range(steps):
        wanted = by_hand_schedule.learning_rate_at(step, steps, 0.7, warmup_steps, final_fraction, schedule)
        assert_allclose(learning_rate_at(step, steps, config), wanted, rtol=1e-12, atol=1e-15)


def run_torch(make, weight, gradients):
    """The weight after torch's own optimizer has seen these gradients one after the other."""
    parameter = torch.nn.Parameter(torch.tensor(weight))
    optimizer = make([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


@given(st.integers(1, 5), st.floats(0, 0.95), st.floats(0, 0.99), seeds)
def test_every_optimizer_is_torch_s(steps, beta1, beta2, seed):
    rng = np.random.default_rng(seed)
    start, gradients = rng.normal(size=(2, 3)), rng.normal(size=(steps, 2, 3))
    zero = np.zeros_like(start)
    plain, (pushed, velocity) = start, (start, zero)
    (scaled, square), (adam, *moments), (decayed, *others) = (start, zero), (start, zero, zero), (start, zero, zero)
    for step, gradient in enumerate(gradients, start=1):
        plain = by_hand_optimizers.sgd_step(plain, gradient, 0.1)
        pushed, velocity = by_hand_optimizers.momentum_step(pushed, gradient, velocity, 0.1, beta1)
        scaled, square = by_hand_optimizers.rmsprop_step(scaled, gradient, square, 0.1, beta2, 1e-6)
        adam, *moments = by_hand_optimizers.adam_step(adam, gradient, *moments, step, 0.1, (beta1, beta2), 1e-6)
        decayed, *others = by_hand_adamw.adamw_step(
            decayed, gradient, *others, step, 0.1, (beta1, beta2), 1e-6, weight_decay=0.3
        )
    witnesses = (
        (plain, lambda p: torch.optim.SGD(p, lr=0.1)),
        (pushed, lambda p: torch.optim.SGD(p, lr=0.1, momentum=beta1)),
        (scaled, lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=beta2, eps=1e-6)),
        (adam, lambda p: torch.optim.Adam(p, lr=0.1, betas=(beta1, beta2), eps=1e-6)),
        (decayed, lambda p: torch.optim.AdamW(p, lr=0.1, betas=(beta1, beta2), eps=1e-6, weight_decay=0.3)),
    )
    for ours, make in witnesses:
        assert_allclose(ours, run_torch(make, start, gradients), rtol=1e-9, atol=1e-12)


@given(seeds)
def test_adam_without_memory_is_sign_descent(seed):
    """beta 0, epsilon towards 0: every coordinate moves by the learning rate, whatever its gradient's size."""
    rng = np.random.default_rng(seed)
    weight, gradient = rng.normal(size=5), 10 ** rng.uniform(-3, 3, 5) * rng.choice([-1, 1], 5)
    moved, _, _ = by_hand_optimizers.adam_step(weight, gradient, np.zeros(5), np.zeros(5), 1, 0.1, (0.0, 0.0), 1e-12)
    assert_allclose(moved, weight - 0.1 * np.sign(gradient), rtol=1e-7)
