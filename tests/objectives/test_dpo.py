import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.reference import bradley_terry as bradley_terry_reference
from minirlhf.reference import dpo as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats

BETAS = st.sampled_from([0.05, 0.1, 1.0])


@st.composite
def answered_pairs(draw, max_pairs=5, limit=20.0):
    """Summed log-probs [B] of chosen and rejected answers, under the policy and under the reference."""
    pairs = draw(st.integers(1, max_pairs))
    return [draw(floats((pairs,), limit)) for _ in range(4)]


def leaves(arrays):
    return [torch.tensor(array, requires_grad=True) for array in arrays]


@given(answered_pairs(), BETAS, st.sampled_from([0.0, 0.1, 0.4]))
def test_by_hand_by_nudging_and_by_autograd(pairs, beta, smoothing):
    chosen, rejected, *refs = pairs
    by_hand = reference.dpo_grad(*pairs, beta, smoothing)
    nudged = (
        central_difference(lambda c: reference.dpo(c, rejected, *refs, beta, smoothing), chosen),
        central_difference(lambda r: reference.dpo(chosen, r, *refs, beta, smoothing), rejected),
    )
    tensors = leaves(pairs)
    loss = dpo(*tensors, beta, smoothing)
    loss.backward()
    assert_allclose(loss.item(), reference.dpo(*pairs, beta, smoothing), rtol=1e-11, atol=1e-14)
    for nudge, hand, leaf in zip(nudged, by_hand, tensors[:2], strict=True):
        assert_allclose(nudge, hand, rtol=1e-6, atol=1e-8)  # limited by the step
        assert_allclose(leaf.grad, hand, rtol=1e-10, atol=1e-15)
    assert tensors[2].grad is None and tensors[3].grad is None  # the reference is data
    found = implicit_rewards(tensors[0], tensors[2], beta).detach()
    assert_allclose(found, reference.implicit_rewards(chosen, refs[0], beta), rtol=1e-14)


@given(answered_pairs(), BETAS)
def test_the_gradient_is_bradley_terrys_under_the_implicit_reward_and_vanishes_nowhere(pairs, beta):
    chosen, rejected, ref_chosen, ref_rejected = pairs
    rewards = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    of_rewards = bradley_terry_reference.bradley_terry_grad(*rewards)
    tensors = leaves(pairs)
    loss = dpo(*tensors, beta)
    loss.backward()
    assert_allclose(loss.item(), bradley_terry(*map(torch.tensor, rewards)).item(), rtol=1e-12)
    for leaf, gradient, sign in zip(tensors[:2], of_rewards, (-1, 1), strict=True):
        assert_allclose(leaf.grad, beta * gradient, rtol=1e-10)
        assert (sign * leaf.grad > 0).all()  # every pair pushes the chosen answer up and the rejected one down


@given(answered_pairs(), BETAS)
def test_a_policy_that_is_its_reference_pays_log_two(pairs, beta):
    chosen, rejected = map(torch.tensor, pairs[:2])
    assert dpo(chosen, rejected, chosen.clone(), rejected.clone(), beta).item() == pytest.approx(math.log(2), rel=1e-15)


def test_label_smoothing_mixes_the_loss_with_that_of_the_labels_turned_round():
    pairs = [
        torch.tensor(values, dtype=torch.float64) for values in ([-3.0, -1.0], [-2.0, -5.0], [-4.0, -1.5], [-2.5, -4.0])
    ]
    turned = [pairs[i] for i in (1, 0, 3, 2)]
    expected = 0.8 * dpo(*pairs) + 0.2 * dpo(*turned)
    assert_allclose(dpo(*pairs, label_smoothing=0.2), expected, rtol=1e-14)
    # learnt enough: sigmoid(margin) = 1 - smoothing is the minimum, where the gradient is 0
    margin = math.log(0.8 / 0.2)
    chosen = torch.tensor([margin / 0.1], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    dpo(chosen, zero, zero, zero, 0.1, 0.2).backward()
    assert abs(chosen.grad.item()) < 1e-16


def test_extreme_pairs_stay_finite():
    chosen = torch.tensor([-1e6, 1e6], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(2, dtype=torch.float64)
    loss = dpo(chosen, zero, zero, zero, beta=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(5e4)
    assert_allclose(chosen.grad, [-0.05, 0], atol=1e-15)


@given(answered_pairs(), st.integers(0, 5), st.sampled_from([0.0, 0.3]))
def test_micro_batches_add_up_to_the_batch(pairs, cut, smoothing):
    tensors = [torch.tensor(array) for array in pairs]
    parts = [
        dpo(*(array[rows] for array in tensors), 0.1, smoothing, count=len(tensors[0]))
        for rows in (slice(0, cut), slice(cut, None))
    ]
    assert_allclose(sum(parts), dpo(*tensors, 0.1, smoothing), rtol=1e-12)


def test_what_does_not_fit_is_refused():
    two, three, whole = torch.zeros(2), torch.zeros(3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="ref_log_probs"):
        dpo(two, two, three, two)
    with pytest.raises(ValueError, match=r"\[B\]"):
        dpo(two, three, two, three)
    with pytest.raises(ValueError, match=r"\[B\]"):
        dpo(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="floating point"):
        dpo(whole, whole, whole, whole)
    with pytest.raises(ValueError, match="no pair"):
        dpo(*[torch.zeros(0)] * 4)
    for beta in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="beta"):
            implicit_rewards(two, two, beta)
    for smoothing in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="label_smoothing"):
            dpo(two, two, two, two, label_smoothing=smoothing)


def test_the_reference_knows_what_a_wrong_sign_would_look_like():
    pairs = [np.array([1.0]), np.array([0.0]), np.array([0.0]), np.array([0.0])]
    assert reference.dpo_grad(*pairs)[0] < 0 < reference.dpo_grad(*pairs)[1]
