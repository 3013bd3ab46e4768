import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.grpo import group_advantages, grpo_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.reference import grpo as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats, rollouts

STEP = 1e-5


@st.composite
def grouped_scores(draw, max_groups=3, max_size=5):
    """Scores [groups * size] and the size; no group's scores are all but equal."""
    size = draw(st.integers(2, max_size))
    groups = draw(st.integers(1, max_groups))
    scores = draw(floats((groups * size,), 5.0))
    assume((scores.reshape(groups, size).std(axis=1) > 1e-2).all())
    return scores, size


@given(grouped_scores(), st.booleans())
def test_advantages_are_those_of_the_formula(case, divide):
    scores, size = case
    leaf = torch.tensor(scores, requires_grad=True)
    found = group_advantages(leaf, size, divide)
    assert_allclose(found, reference.group_advantages(scores, size, divide), rtol=1e-10, atol=1e-13)
    assert not found.requires_grad
    assert_allclose(found.reshape(-1, size).mean(dim=1), 0, atol=1e-14)


@given(grouped_scores(), st.floats(-100, 100), st.floats(1.0, 50.0))
def test_neither_the_scale_nor_the_zero_of_the_scores_matters(case, shift, scale):
    """Affine changes with a positive slope leave the advantages as they are, a negative slope turns them round."""
    scores, size = torch.tensor(case[0]), case[1]
    before = group_advantages(scores, size)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}  # 1e-6 beside the std is not scaled along; the std is at least 1e-2
    assert_allclose(group_advantages(scale * scores + shift, size), before, **tolerance)
    assert_allclose(group_advantages(-scale * scores + shift, size), -before, **tolerance)
    other_groups_zero = scores + torch.arange(len(scores) // size).repeat_interleave(size)
    assert_allclose(group_advantages(other_groups_zero, size), before, rtol=1e-9, atol=1e-9)  # each prompt its own


def test_a_group_of_equal_scores_teaches_nothing_and_two_by_hand():
    assert group_advantages(torch.tensor([3.0, 3.0, 3.0]), 3).tolist() == [0, 0, 0]
    found = group_advantages(torch.tensor([1.0, 3.0, 5.0, 4.0], dtype=torch.float64), 2)
    assert_allclose(found, [-math.sqrt(0.5), math.sqrt(0.5), math.sqrt(0.5), -math.sqrt(0.5)], rtol=2e-6)


@st.composite
def grpo_cases(draw):
    """A rollout, an advantage per answer, a clip range and a KL coefficient; no ratio near a kink."""
    rollout = draw(rollouts())
    advantages, clip_range = draw(floats((len(rollout.scores),))), draw(st.sampled_from([0.1, 0.2, 0.5]))
    log_ratio = rollout.log_probs - rollout.old_log_probs
    for kink in (math.log(1 - clip_range), math.log(1 + clip_range)):
        assume((np.abs(log_ratio - kink) > 10 * STEP).all())
    return rollout, advantages, clip_range, draw(st.sampled_from([0.0, 0.04, 1.0]))


@given(grpo_cases())
def test_loss_by_hand_by_nudging_and_by_autograd(case):
    rollout, advantages, clip_range, kl_coef = case
    data = rollout.old_log_probs, rollout.ref_log_probs, advantages, rollout.response_mask, clip_range, kl_coef
    by_hand = reference.grpo_loss_grad(rollout.log_probs, *data)
    by_nudging = central_difference(lambda p: reference.grpo_loss(p, *data), rollout.log_probs, STEP)
    leaf, *others = (torch.tensor(array, requires_grad=True) for array in (rollout.log_probs, *data[:3]))
    loss = grpo_loss(leaf, *others, torch.tensor(rollout.response_mask), clip_range, kl_coef)
    loss.backward()
    assert_allclose(loss.item(), reference.grpo_loss(rollout.log_probs, *data), rtol=1e-10, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-7)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-14)
    assert all(other.grad is None for other in others)  # data


@given(rollouts())
def test_the_first_step_without_kl_is_reinforce_of_each_answers_mean(rollout):
    """At ratio 1 the gradient is REINFORCE's, where each answer weighs the same however long it is."""
    mask, old = torch.tensor(rollout.response_mask), torch.tensor(rollout.old_log_probs)
    advantages, ref = torch.tensor(rollout.scores), torch.tensor(rollout.ref_log_probs)
    grpo, reinforce = old.clone().requires_grad_(), old.clone().requires_grad_()
    grpo_loss(grpo, old, ref, advantages, mask, kl_coef=0.0).backward()
    sum(
        reinforce_loss(reinforce[[b]], advantages[b].expand_as(mask[[b]]), mask[[b]]) for b in range(len(mask))
    ).backward()
    assert_allclose(grpo.grad, reinforce.grad / len(mask), rtol=1e-12, atol=1e-15)


def test_the_kl_penalty_alone_is_k3_averaged_by_answer():
    log_probs = torch.tensor([[-1.0, -2.0], [-1.0, 9.9]], dtype=torch.float64)
    ref, mask = log_probs + torch.tensor([[0.5, 0.0], [-1.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    k3 = [math.exp(0.5) - 1 - 0.5, 0.0, math.exp(-1) - 1 + 1]
    found = grpo_loss(log_probs, log_probs, ref, torch.zeros(2, dtype=torch.float64), mask, kl_coef=0.3)
    assert_allclose(found, 0.3 * ((k3[0] + k3[1]) / 2 + k3[2]) / 2, rtol=1e-12)


@given(rollouts(), st.sampled_from([100.0, math.nan, math.inf, -math.inf]), st.integers(0, 3), st.integers(0, 2))
def test_padding_changes_nothing_and_micro_batches_add_up(rollout, junk, cut, padding):
    mask = torch.tensor(rollout.response_mask)
    longer_mask = torch.cat([mask, torch.zeros(len(mask), padding, dtype=torch.bool)], dim=1)
    arrays = [torch.tensor(getattr(rollout, name)) for name in ("log_probs", "old_log_probs", "ref_log_probs")]
    advantages = torch.tensor(rollout.scores)
    leaf = arrays[0].clone().requires_grad_()
    loss = grpo_loss(leaf, *arrays[1:], advantages, mask)
    loss.backward()

    def dirty(x):
        planted = x.masked_fill(~mask, junk)
        return torch.cat([planted, torch.full((len(x), padding), junk, dtype=x.dtype)], dim=1)

    dirty_leaf, *others = map(dirty, arrays)
    dirty_leaf.requires_grad_()
    parts = [
        grpo_loss(dirty_leaf[rows], *(x[rows] for x in others), advantages[rows], longer_mask[rows], count=len(mask))
        for rows in (slice(0, cut), slice(cut, None))
    ]
    sum(parts).backward()
    assert_allclose(sum(parts).item(), loss.item(), rtol=1e-11, atol=1e-13)
    assert_allclose(dirty_leaf.grad[:, : mask.shape[1]], leaf.grad, rtol=1e-12, atol=1e-16)
    assert (dirty_leaf.grad[~longer_mask] == 0).all()


def test_what_does_not_fit_is_refused():
    mask, zeros, scores = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3), torch.zeros(2)
    for bad in (torch.zeros(2, 3), torch.zeros(3), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="advantages must be"):
            grpo_loss(zeros, zeros, zeros, bad, mask)
    with pytest.raises(ValueError, match="ref_log_probs has shape"):
        grpo_loss(zeros, zeros, zeros[:, :1], scores, mask)
    with pytest.raises(ValueError, match="every answer needs a token"):
        grpo_loss(zeros, zeros, zeros, scores, torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(ValueError, match="no True"):
        grpo_loss(zeros, zeros, zeros, scores, ~mask)
    for clip_range in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="clip_range"):
            grpo_loss(zeros, zeros, zeros, scores, mask, clip_range)
    for kl_coef in (-0.1, math.nan):
        with pytest.raises(ValueError, match="kl_coef"):
            grpo_loss(zeros, zeros, zeros, scores, mask, kl_coef=kl_coef)
    for bad, size in ((torch.zeros(5), 2), (torch.zeros(4), 1), (torch.zeros(0), 2), (torch.zeros(4), 0)):
        with pytest.raises(ValueError, match="no groups"):
            group_advantages(bad, size)
    with pytest.raises(ValueError, match="floating point"):
        group_advantages(torch.zeros(2, 2), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [3, 8])
@pytest.mark.parametrize("score", [0.1, 0.35, 7.3, 100.1, 1000.1, -3.3])
@pytest.mark.parametrize("divide", [True, False])
def test_equal_scores_have_advantages_of_exactly_zero(score, size, dtype, divide):
    """The mean of equal scores is rounded; over a deviation made of rounding alone, that would be an advantage."""
    assert group_advantages(torch.full((2 * size,), score, dtype=dtype), size, divide).eq(0).all()
    assert (reference.group_advantages(np.full(2 * size, score), size, divide) == 0).all()
