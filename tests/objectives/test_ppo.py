import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.ppo import clipped_value_loss, explained_variance, ppo_diagnostics, ppo_policy_loss
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.reference import ppo as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import rollouts

STEP = 1e-5


@given(rollouts(), st.sampled_from([0.1, 0.2, 0.5]))
def test_policy_loss_by_hand_by_nudging_and_by_autograd(rollout, clip_range):
    log_ratio = rollout.log_probs - rollout.old_log_probs
    for kink in (math.log(1 - clip_range), math.log(1 + clip_range)):
        assume((np.abs(log_ratio - kink) > 10 * STEP).all())
    data = rollout.old_log_probs, rollout.advantages, rollout.response_mask, clip_range
    by_hand = reference.ppo_policy_loss_grad(rollout.log_probs, *data)
    by_nudging = central_difference(lambda p: reference.ppo_policy_loss(p, *data), rollout.log_probs, STEP)

    leaf = torch.tensor(rollout.log_probs, requires_grad=True)
    old, advantages = (torch.tensor(x, requires_grad=True) for x in data[:2])
    loss = ppo_policy_loss(leaf, old, advantages, torch.tensor(rollout.response_mask), clip_range)
    loss.backward()

    assert_allclose(loss.item(), reference.ppo_policy_loss(rollout.log_probs, *data), rtol=1e-11, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-11, atol=1e-14)
    assert old.grad is None and advantages.grad is None  # data


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "learns"),
    [
        (1.0, 2.0, -2.0, True),
        (1.1, 2.0, -2.2, True),
        (1.5, 2.0, -2.4, False),  # clipped, and further up would be an improvement
        (0.5, 2.0, -1.0, True),  # clipped, but the way back is the improvement
        (1.1, -2.0, 2.2, True),
        (1.5, -2.0, 3.0, True),
        (0.5, -2.0, 1.6, False),
        (1e3, -2.0, 2e3, True),  # no floor under how bad it can get: the ratio guard's business
    ],
)
def test_policy_loss_by_case_and_both_signs(ratio, advantage, loss, learns):
    log_probs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    found = ppo_policy_loss(
        log_probs, torch.zeros(1, 1).double(), torch.tensor([[advantage]]).double(), torch.ones(1, 1, dtype=torch.bool)
    )
    found.backward()
    assert_allclose(found.item(), loss, rtol=1e-12)
    assert_allclose(log_probs.grad.item(), -advantage * ratio if learns else 0.0, rtol=1e-12)


@given(rollouts())
def test_the_first_step_is_reinforce(rollout):
    """Where the ratio is 1, PPO's gradient is REINFORCE's, and the diagnostics show a policy that has not moved."""
    mask, advantages = torch.tensor(rollout.response_mask), torch.tensor(rollout.advantages)
    old = torch.tensor(rollout.old_log_probs)
    ppo, reinforce = old.clone().requires_grad_(), old.clone().requires_grad_()
    ppo_policy_loss(ppo, old, advantages, mask).backward()
    reinforce_loss(reinforce, advantages, mask).backward()
    assert_allclose(ppo.grad, reinforce.grad, rtol=1e-14)
    assert ppo_diagnostics(ppo, old, mask) == {
        "ratio_mean": 1.0,
        "ratio_max": 1.0,
        "approx_kl_nats_per_token": 0.0,
        "clip_fraction": 0.0,
    }


@given(rollouts(), st.sampled_from([0.2, 1.0]))
def test_value_loss_by_hand_by_nudging_and_by_autograd(rollout, clip_range):
    values, old_values, returns = rollout.values, rollout.old_values, rollout.returns
    clipped = old_values + np.clip(values - old_values, -clip_range, clip_range)
    assume((np.abs(np.abs(values - old_values) - clip_range) > 10 * STEP).all())  # kink of the clip
    crossing = np.abs(np.abs(values - returns) - np.abs(clipped - returns)) > 10 * STEP
    assume((crossing | (clipped == values)).all())  # kink of the maximum
    data = old_values, returns, rollout.response_mask, clip_range
    by_hand = reference.clipped_value_loss_grad(values, *data)
    by_nudging = central_difference(lambda v: reference.clipped_value_loss(v, *data), values, STEP)

    leaf = torch.tensor(values, requires_grad=True)
    old, target = (torch.tensor(x, requires_grad=True) for x in data[:2])
    loss = clipped_value_loss(leaf, old, target, torch.tensor(rollout.response_mask), clip_range)
    loss.backward()

    assert_allclose(loss.item(), reference.clipped_value_loss(values, *data), rtol=1e-11, atol=1e-13)
    assert_allclose(by_nudging, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    # within the clip both branches are equal up to rounding, and either has this gradient
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-13)
    assert old.grad is None and target.grad is None  # data


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),
    [
        (1.1, 2.0, 0.405, -0.9),  # within the clip: plain half squared error
        (1.5, 2.0, 0.32, 0.0),  # beyond it, towards the return: the clipped error 0.8 is the larger one
        (0.5, 2.0, 1.125, -1.5),  # beyond it, away from the return: the error 1.5 is the larger one
        (1.5, 0.0, 1.125, 1.5),
        (0.5, 0.0, 0.32, 0.0),
    ],
)
def test_value_loss_by_hand_each_side_of_the_clip(value, target, loss, gradient):
    """The old value is 1 and the clip range 0.2."""
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old, returns = torch.ones(1, 1).double(), torch.tensor([[target]]).double()
    found = clipped_value_loss(values, old, returns, torch.ones(1, 1, dtype=torch.bool), clip_range=0.2)
    found.backward()
    assert_allclose(found.item(), loss, rtol=1e-12)
    assert_allclose(values.grad.item(), gradient, rtol=1e-12)


@given(rollouts(), st.sampled_from([100.0, math.nan, math.inf, -math.inf]), st.integers(0, 3), st.integers(0, 2))
def test_padding_changes_nothing_and_micro_batches_add_up(rollout, junk, cut, padding):
    mask = torch.tensor(rollout.response_mask)
    longer_mask = torch.cat([mask, torch.zeros(len(mask), padding, dtype=torch.bool)], dim=1)

    def dirty(x):
        planted = x.masked_fill(~mask, junk)
        return torch.cat([planted, torch.full((len(x), padding), junk, dtype=x.dtype)], dim=1)

    for loss_of, names in (
        (ppo_policy_loss, ("log_probs", "old_log_probs", "advantages")),
        (clipped_value_loss, ("values", "old_values", "returns")),
    ):
        arrays = [torch.tensor(getattr(rollout, name)) for name in names]
        leaf = arrays[0].clone().requires_grad_()
        loss = loss_of(leaf, *arrays[1:], mask)
        loss.backward()
        dirty_leaf = dirty(arrays[0]).requires_grad_()
        others = [dirty(x) for x in arrays[1:]]
        parts = [
            loss_of(dirty_leaf[rows], *(x[rows] for x in others), longer_mask[rows], count=mask.sum())
            for rows in (slice(0, cut), slice(cut, None))
        ]
        sum(parts).backward()
        assert_allclose(sum(parts).item(), loss.item(), rtol=1e-11, atol=1e-13)
        assert torch.equal(dirty_leaf.grad[:, : mask.shape[1]], leaf.grad)
        assert (dirty_leaf.grad[~longer_mask] == 0).all()

    new, old, values, returns = (
        torch.tensor(getattr(rollout, name)) for name in ("log_probs", "old_log_probs", "values", "returns")
    )
    assert ppo_diagnostics(dirty(new), dirty(old), longer_mask) == ppo_diagnostics(new, old, mask)
    explained = explained_variance(values, returns, mask)
    assert_allclose(explained_variance(dirty(values), dirty(returns), longer_mask), explained, rtol=1e-12)


def test_diagnostics_by_hand():
    """Ratios 0.5, 1, 1.1, 2; k3 of the old policy's samples is ratio - 1 - log ratio."""
    ratios = [0.5, 1.0, 1.1, 2.0]
    new, old = torch.tensor([[*ratios, 9.0]], dtype=torch.float64).log(), torch.zeros(1, 5, dtype=torch.float64)
    found = ppo_diagnostics(new, old, torch.tensor([[True, True, True, True, False]]), clip_range=0.2)
    assert_allclose(found["ratio_mean"], 4.6 / 4, rtol=1e-12)
    assert_allclose(found["ratio_max"], 2.0, rtol=1e-12)
    assert found["clip_fraction"] == 0.5
    assert_allclose(found["approx_kl_nats_per_token"], sum(r - 1 - math.log(r) for r in ratios) / 4, rtol=1e-12)


def test_explained_variance_of_a_perfect_a_constant_and_a_misleading_critic():
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    assert explained_variance(returns + 5, returns, mask).item() == 1.0  # an offset is not a matter of variance
    assert explained_variance(torch.zeros_like(returns), returns, mask).item() == 0.0
    assert_allclose(explained_variance(-returns, returns, mask), -3.0, rtol=1e-12)
    assert_allclose(explained_variance(returns * 0.5, returns, mask), 0.75, rtol=1e-12)
    assert explained_variance(returns, torch.ones_like(returns), mask).item() == 0.0  # nothing to explain
    assert explained_variance(returns[:, :1], returns[:, :1], mask[:, :1]).item() == 0.0


def test_what_does_not_fit_is_refused():
    mask, zeros = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3)
    for clip_range in (0.0, 1.0, -0.2, math.nan):
        with pytest.raises(ValueError, match="clip_range"):
            ppo_policy_loss(zeros, zeros, zeros, mask, clip_range)
        with pytest.raises(ValueError, match="clip_range"):
            ppo_diagnostics(zeros, zeros, mask, clip_range)
    with pytest.raises(ValueError, match="clip_range"):
        clipped_value_loss(zeros, zeros, zeros, mask, 0.0)
    with pytest.raises(ValueError, match="advantages has shape"):
        ppo_policy_loss(zeros, zeros, torch.zeros(2), mask)
    with pytest.raises(ValueError, match="returns has shape"):
        clipped_value_loss(zeros, zeros, torch.zeros(2, 1), mask)
    for loss_of in (ppo_policy_loss, clipped_value_loss):
        with pytest.raises(ValueError, match="no True"):
            loss_of(zeros, zeros, zeros, ~mask)
        with pytest.raises(ValueError, match="must be bool"):
            loss_of(zeros, zeros, zeros, mask.float())
