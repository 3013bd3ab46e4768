"""Laws that no implementation may break, whatever its formulas look like. Each is one identity, on drawn cases."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.nn.attention import eager_attend
from minirlhf.nn.rope import rotate, rotation_table
from minirlhf.objectives.advantages import gae
from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.cross_entropy import cross_entropy_sum
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.objectives.kl import exact_kl, k1, k2, k3
from minirlhf.objectives.likelihood import log_probs_of, token_log_probs
from minirlhf.objectives.masked import masked_mean, masked_sum
from minirlhf.objectives.plackett_luce import plackett_luce
from minirlhf.objectives.ppo import ppo_policy_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.testing import (
    attention_inputs,
    check_accumulation,
    check_causality,
    check_padding_invariance,
    check_permutation_equivariance,
    check_reduces_to,
    floats,
    logit_cases,
    preference_pairs,
    ragged_batches,
    rankings,
    rollouts,
    score_pairs,
    token_batches,
)
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.trainers.optim import AdamW, OptimConfig

CONTEXT, VOCAB = 7, 7
LLAMA = {"positions": "rope", "norm": "rms", "mlp": "swiglu", "kv_heads": 1, "bias": False, "tie_embeddings": False}
DECODERS = {
    name: GPT(GPTConfig(VOCAB, context=CONTEXT, layers=2, heads=2, width=8, **options)).double().eval()
    for name, options in {"gpt2": {}, "llama": LLAMA}.items()
}
with torch.no_grad():
    for decoder in DECODERS.values():
        for parameter in decoder.parameters():  # large enough that every part of the decoder matters
            noise = torch.Generator().manual_seed(parameter.numel())
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=noise, dtype=torch.float64))
decoders = st.sampled_from(sorted(DECODERS))


def gradient_of(function, *arguments):
    """The gradient of function by its first argument."""
    first = torch.tensor(arguments[0], requires_grad=True)
    function(first, *map(torch.as_tensor, arguments[1:])).backward()
    return first.grad


# attention and the decoder


@given(attention_inputs(max_group=1))
def test_heads_are_independent_of_each_other_s_order(case):
    check_permutation_equivariance(
        lambda q, k, v: eager_attend(q, k, v, torch.tensor(case.visible)), (case.q, case.k, case.v), axis=1
    )


@given(decoders, token_batches(max_vocab=VOCAB))
def test_the_decoder_never_sees_the_future(name, batch):
    check_causality(DECODERS[name], batch.ids)


@given(decoders, token_batches(max_vocab=VOCAB), st.data())
def test_padding_on_either_side_reaches_no_real_token(name, batch, data):
    mask = np.arange(batch.ids.shape[1]) < data.draw(st.integers(1, batch.ids.shape[1]))
    mask = np.broadcast_to(mask, batch.ids.shape).copy()
    check_padding_invariance(DECODERS[name], batch.ids, mask, sides=("left", "right"), rtol=1e-9)


@given(attention_inputs(), st.integers(0, 40))
def test_rotary_positions_count_only_distances(case, shift):
    q, k, v, visible = (torch.tensor(array) for array in (case.q, case.k, case.v, case.visible))
    q, k = (torch.cat((x, x.flip(-1)), dim=-1) for x in (q, k))  # an even width
    cos, sin = rotation_table(60, q.shape[-1], 100.0, torch.float64, torch.device("cpu"))

    def from_position(start):
        turned = [rotate(x, (cos[start : start + x.shape[2]], sin[start : start + x.shape[2]])) for x in (q, k)]
        return eager_attend(*turned, v, visible)

    torch.testing.assert_close(from_position(shift), from_position(0), rtol=1e-9, atol=1e-11)


@given(decoders, token_batches(max_vocab=VOCAB), st.data())
def test_decoding_with_a_cache_is_the_whole_forward_pass(name, batch, data):
    model, ids = DECODERS[name], torch.tensor(batch.ids)
    cut = data.draw(st.integers(0, ids.shape[1] - 1))
    cache = model.empty_cache(len(ids))
    if cut:
        _, cache = model.decode(ids[:, :cut], None, cache)
    for t in range(cut, ids.shape[1]):
        logits, cache = model.decode(ids[:, t : t + 1], None, cache)
        torch.testing.assert_close(logits, model(ids[:, : t + 1])[:, -1], rtol=1e-9, atol=1e-11)


# likelihood and the supervised loss


@given(logit_cases(), st.floats(0.2, 5))
def test_temperature_is_a_scaling_of_the_logits(case, temperature):
    logits, targets, _ = case
    check_reduces_to(
        lambda z: token_log_probs(z, torch.tensor(targets), temperature),
        lambda z: token_log_probs(z / temperature, torch.tensor(targets)),
        logits,
    )


@given(logit_cases(), st.floats(-50, 50))
def test_a_constant_added_to_all_logits_changes_nothing(case, constant):
    check_reduces_to(lambda z: log_probs_of(z + constant), log_probs_of, case[0], rtol=1e-9, atol=1e-10)


@given(ragged_batches())
def test_micro_batches_add_up_to_the_batch(batch):
    check_accumulation(lambda x, mask: cross_entropy_sum(x, mask)[0], batch.x, batch.mask)
    check_accumulation(masked_sum, batch.x, batch.mask)
    check_accumulation(
        masked_mean, batch.x, batch.mask, part_loss=lambda part, whole: masked_mean(*part, whole[1].sum())
    )


# preferences


@given(score_pairs())
def test_equal_scores_cost_log_2_and_gradients_sum_to_zero(pair):
    chosen, rejected = (torch.tensor(scores, requires_grad=True) for scores in pair)
    bradley_terry(chosen, rejected).backward()
    torch.testing.assert_close(chosen.grad + rejected.grad, torch.zeros_like(chosen), rtol=0, atol=1e-15)
    equal = bradley_terry(chosen, chosen.detach())
    torch.testing.assert_close(equal, torch.log(torch.tensor(2.0, dtype=torch.float64)), rtol=1e-12, atol=0)


@given(score_pairs())
def test_a_ranking_of_two_is_a_pair(pair):
    check_reduces_to(lambda c, r: plackett_luce(torch.stack((c, r), dim=1)), bradley_terry, *pair)


@given(rankings())
def test_gradients_of_a_ranking_sum_to_zero(case):
    total = gradient_of(plackett_luce, case.scores, case.counts).sum(dim=1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-13)


@given(preference_pairs(), st.floats(0.05, 2))
def test_dpo_is_bradley_terry_under_the_implicit_reward_and_always_teaches(pairs, beta):
    log_probs = pairs.chosen_log_probs, pairs.rejected_log_probs
    references = [torch.tensor(x) for x in (pairs.ref_chosen_log_probs, pairs.ref_rejected_log_probs)]
    check_reduces_to(
        lambda c, r: dpo(c, r, *references, beta),
        lambda c, r: bradley_terry(implicit_rewards(c, references[0], beta), implicit_rewards(r, references[1], beta)),
        *log_probs,
    )
    teaches = gradient_of(lambda c, r: dpo(c, r, *references, beta), *log_probs)
    assert (teaches < 0).all()


# policies


@given(rollouts(), st.floats(0, 1))
def test_lambda_1_is_return_minus_value_and_lambda_0_the_td_error(rollout, gamma):
    rewards, values, mask = (torch.tensor(x) for x in (rollout.rewards, rollout.values, rollout.response_mask))
    rewards, values = rewards * mask, values * mask
    td_errors = rewards + gamma * torch.cat((values[:, 1:], torch.zeros_like(values[:, :1])), dim=1) - values
    advantages, _ = gae(rewards, values, mask, gamma, 0.0)
    torch.testing.assert_close(advantages, td_errors * mask, rtol=1e-11, atol=1e-12)
    returns = torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        returns[:, t] = rewards[:, t] + (gamma * returns[:, t + 1] if t + 1 < rewards.shape[1] else 0)
    advantages, learnt = gae(rewards, values, mask, gamma, 1.0)
    torch.testing.assert_close(advantages, (returns - values) * mask, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(learnt, returns * mask, rtol=1e-10, atol=1e-11)


@given(rollouts())
def test_the_first_step_of_ppo_is_reinforce(rollout):
    data = rollout.advantages, rollout.response_mask
    ours = gradient_of(lambda p, a, m: ppo_policy_loss(p, p.detach(), a, m), rollout.log_probs, *data)
    torch.testing.assert_close(ours, gradient_of(reinforce_loss, rollout.log_probs, *data), rtol=1e-12, atol=1e-14)


@given(floats((5,), 3.0), floats((5,), 3.0))
def test_the_three_estimators_against_the_whole_vocabulary(logits, ref_logits):
    """Weigh every token by its probability: k1 and k3 give the KL, k2's gradient is the KL's, k3 is never negative."""
    policy, reference = torch.tensor(logits, requires_grad=True), torch.tensor(ref_logits)
    log_probs, ref_log_probs = log_probs_of(policy), log_probs_of(reference)
    kl, weights = exact_kl(policy, reference), log_probs.detach().exp()
    for estimator in (k1, k3):
        mean = (weights * estimator(log_probs, ref_log_probs)).sum()
        torch.testing.assert_close(mean, kl, rtol=1e-9, atol=1e-12)
    assert (k3(log_probs, ref_log_probs) >= -1e-15).all()
    wanted, by_k1, by_k2, by_k3 = (
        torch.autograd.grad(loss, policy, retain_graph=True)[0]
        for loss in (kl, *((weights * k(log_probs, ref_log_probs)).sum() for k in (k1, k2, k3)))
    )
    torch.testing.assert_close(by_k2, wanted, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(by_k1, torch.zeros_like(policy), rtol=0, atol=1e-12)  # its gradient is no KL's at all
    reversed_kl = weights - ref_log_probs.exp()  # the gradient of KL(reference || policy)
    torch.testing.assert_close(by_k3, reversed_kl, rtol=1e-9, atol=1e-11)


# the optimizer and the tokenizer


@given(floats((4, 3)), st.integers(0, 2**31))
def test_adamw_without_memory_is_sign_descent(start, seed):
    rng = np.random.default_rng(seed)
    gradient = torch.tensor(10 ** rng.uniform(-3, 3, (4, 3)) * rng.choice([-1, 1], (4, 3)))
    weight = torch.nn.Parameter(torch.tensor(start))
    optimizer = AdamW([("weight", weight)], OptimConfig(betas=(0.0, 0.0), eps=1e-12, weight_decay=0.0))
    weight.grad = gradient.clone()
    optimizer.step(0.1)
    torch.testing.assert_close(weight.detach(), torch.tensor(start) - 0.1 * gradient.sign(), rtol=1e-8, atol=1e-8)


@given(st.text(min_size=1, max_size=40), st.text(max_size=40), st.integers(0, 40))
def test_every_text_comes_back_whatever_the_tokenizer_learnt_from(learnt_from, text, merges):
    tokenizer = train_bpe([learnt_from], 256 + 5 + merges)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode_bytes(tokenizer.encode(text)) == text.encode("utf-8")
