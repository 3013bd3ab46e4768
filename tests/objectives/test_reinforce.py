import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.likelihood import token_log_probs
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.reference import reinforce as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats, rollouts


@given(rollouts())
def test_by_hand_by_nudging_and_by_autograd(rollout):
    log_probs, advantages, mask = rollout.log_probs, rollout.advantages, rollout.response_mask
    by_hand = reference.reinforce_loss_grad(log_probs, advantages, mask)
    by_nudging = central_difference(lambda p: reference.reinforce_loss(p, advantages, mask), log_probs)
    leaf, weights = torch.tensor(log_probs, requires_grad=True), torch.tensor(advantages, requires_grad=True)
    loss = reinforce_loss(leaf, weights, torch.tensor(mask))
    loss.backward()
    assert_allclose(loss.item(), reference.reinforce_loss(log_probs, advantages, mask), rtol=1e-11, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-12, atol=1e-15)
    assert weights.grad is None  # advantages are data


@given(st.integers(2, 5).flatmap(lambda n: st.tuples(floats((n,)), floats((n,)))))
def test_its_mean_gradient_is_the_gradient_of_the_expected_reward(pair):
    """Enumerated over every token of the vocabulary: the policy gradient theorem itself."""
    logits, reward_of_token = (torch.tensor(array) for array in pair)
    leaf = logits.clone().requires_grad_()
    (leaf.softmax(-1) * reward_of_token).sum().backward()

    every_token = torch.arange(len(logits))
    sampled = logits.clone().requires_grad_()
    log_probs = token_log_probs(sampled.expand(len(logits), -1), every_token)  # [V]
    weights = log_probs.exp().detach() * reward_of_token * len(logits)  # the mean over samples, as a mean over tokens
    reinforce_loss(log_probs, weights, torch.ones(len(logits), dtype=torch.bool)).backward()
    assert_allclose(sampled.grad, -leaf.grad, rtol=1e-10, atol=1e-13)


@given(rollouts(), st.sampled_from([100.0, math.nan, -math.inf]), st.integers(0, 3))
def test_padding_changes_nothing_and_micro_batches_add_up(rollout, junk, cut):
    mask, advantages = torch.tensor(rollout.response_mask), torch.tensor(rollout.advantages)
    leaf = torch.tensor(rollout.log_probs, requires_grad=True)
    loss = reinforce_loss(leaf, advantages, mask)
    loss.backward()

    dirty = torch.tensor(rollout.log_probs).masked_fill(~mask, junk).requires_grad_()
    dirty_advantages = advantages.masked_fill(~mask, junk)
    parts = [
        reinforce_loss(dirty[rows], dirty_advantages[rows], mask[rows], count=mask.sum())
        for rows in (slice(0, cut), slice(cut, None))
    ]
    sum(parts).backward()
    assert_allclose(sum(parts).item(), loss.item(), rtol=1e-11, atol=1e-13)
    assert torch.equal(dirty.grad, leaf.grad)


def test_what_does_not_fit_is_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="advantages has shape"):
        reinforce_loss(torch.zeros(2, 3), torch.zeros(2), mask)
    with pytest.raises(ValueError, match="no True"):
        reinforce_loss(torch.zeros(2, 3), torch.zeros(2, 3), ~mask)
