import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.cross_entropy import cross_entropy, cross_entropy_sum
from minirlhf.objectives.likelihood import token_log_probs
from minirlhf.reference import cross_entropy as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import logit_cases


@given(logit_cases(max_tokens=6, max_vocab=9))
def test_by_hand_by_nudging_and_by_autograd(case):
    logits, targets, loss_mask = case
    by_hand = reference.cross_entropy_grad(logits, targets, loss_mask)
    by_nudging = central_difference(lambda z: reference.cross_entropy(z, targets, loss_mask), logits)

    leaf = torch.tensor(logits, requires_grad=True)
    loss = cross_entropy(token_log_probs(leaf, torch.tensor(targets)), torch.tensor(loss_mask))
    loss.backward()

    assert_allclose(loss.item(), reference.cross_entropy(logits, targets, loss_mask), rtol=1e-12, atol=1e-14)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-11, atol=1e-13)
    assert_allclose(by_hand.sum(-1), 0, atol=1e-12)
    assert (leaf.grad.numpy()[~loss_mask] == 0).all()  # masked tokens teach nothing


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary():
    log_probs = token_log_probs(torch.zeros(2, 3, 11, dtype=torch.float64), torch.ones(2, 3, dtype=torch.int64))
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert_allclose(cross_entropy(log_probs, mask), math.log(11), rtol=1e-14)


def test_a_batch_in_which_nothing_counts_costs_nothing_and_teaches_nothing():
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    log_probs = token_log_probs(logits, torch.ones(2, 3, dtype=torch.int64))
    loss = cross_entropy(log_probs, torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


@given(logit_cases(max_tokens=6), st.integers(0, 6))
def test_any_split_into_micro_batches_gives_the_full_gradient(case, cut):
    logits, targets, mask = (torch.tensor(array) for array in case)
    whole = logits.clone().requires_grad_()
    cross_entropy(token_log_probs(whole, targets), mask).backward()

    split = logits.clone().requires_grad_()
    sums = [
        cross_entropy_sum(token_log_probs(split[part], targets[part]), mask[part])
        for part in (slice(0, cut), slice(cut, None))
    ]
    (sum(total for total, _ in sums) / sum(count for _, count in sums)).backward()
    assert_allclose(split.grad, whole.grad, rtol=1e-12, atol=1e-15)


@given(logit_cases(), st.integers(1, 3), st.sampled_from([math.nan, math.inf, -math.inf, 1e300]))
def test_padding_with_junk_changes_nothing(case, padding, junk):
    logits, targets, mask = (torch.tensor(array) for array in case)
    log_probs = token_log_probs(logits, targets).requires_grad_()
    padded = torch.cat([log_probs.detach(), torch.full((padding,), junk, dtype=torch.float64)]).requires_grad_()
    padded_mask = torch.cat([mask, torch.zeros(padding, dtype=torch.bool)])
    plain_loss, padded_loss = cross_entropy(log_probs, mask), cross_entropy(padded, padded_mask)
    plain_loss.backward()
    padded_loss.backward()
    assert_allclose(padded_loss.item(), plain_loss.item(), rtol=1e-13)
    assert torch.equal(padded.grad[: len(mask)], log_probs.grad)
    assert torch.equal(padded.grad[len(mask) :], torch.zeros(padding, dtype=torch.float64))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="bool"):
        cross_entropy(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="shape"):
        cross_entropy(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool))
