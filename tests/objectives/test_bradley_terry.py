import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.bradley_terry import bradley_terry, pair_accuracy, preference_probability
from minirlhf.reference import bradley_terry as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import score_pairs


@given(score_pairs())
def test_by_hand_by_nudging_and_by_autograd(pair):
    chosen, rejected = pair
    by_hand = reference.bradley_terry_grad(chosen, rejected)
    nudged_chosen = central_difference(lambda c: reference.bradley_terry(c, rejected), chosen)
    nudged_rejected = central_difference(lambda r: reference.bradley_terry(chosen, r), rejected)

    c, r = torch.tensor(chosen, requires_grad=True), torch.tensor(rejected, requires_grad=True)
    loss = bradley_terry(c, r)
    loss.backward()

    assert_allclose(loss.item(), reference.bradley_terry(chosen, rejected), rtol=1e-12)
    assert_allclose(
        preference_probability(c, r).detach(), reference.preference_probability(chosen, rejected), rtol=1e-12
    )
    for nudged, hand, autograd in zip((nudged_chosen, nudged_rejected), by_hand, (c.grad, r.grad), strict=True):
        assert_allclose(nudged, hand, rtol=1e-6, atol=1e-8)  # limited by the step
        assert_allclose(autograd, hand, rtol=1e-11, atol=1e-15)


@given(score_pairs(), st.floats(-100, 100))
def test_only_differences_count_and_equal_scores_cost_log_two(pair, shift):
    chosen, rejected = (torch.tensor(scores) for scores in pair)
    assert_allclose(bradley_terry(chosen + shift, rejected + shift), bradley_terry(chosen, rejected), rtol=1e-9)
    assert_allclose(bradley_terry(chosen, chosen.clone()), math.log(2), rtol=1e-14)
    total = preference_probability(chosen, rejected) + preference_probability(rejected, chosen)
    assert_allclose(total, 1, rtol=1e-14)


def test_extreme_differences_stay_finite():
    chosen = torch.tensor([1e4, -1e4], dtype=torch.float64, requires_grad=True)
    loss = bradley_terry(chosen, torch.zeros(2, dtype=torch.float64))
    loss.backward()
    assert loss.item() == 5e3 and chosen.grad.tolist() == [0, -0.5]


@given(score_pairs(), st.integers(0, 6))
def test_micro_batches_add_up_to_the_batch(pair, cut):
    chosen, rejected = (torch.tensor(scores) for scores in pair)
    parts = [bradley_terry(chosen[part], rejected[part], len(chosen)) for part in (slice(0, cut), slice(cut, None))]
    assert_allclose(sum(parts), bradley_terry(chosen, rejected), rtol=1e-12)


def test_accuracy_counts_a_tie_half():
    chosen, rejected = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.0, 2.0, 5.0, 3.0])
    assert pair_accuracy(chosen, rejected).item() == 2.5 / 4


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"must both be \[B\]"):
        bradley_terry(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match=r"must both be \[B\]"):  # would broadcast to [2 2] unnoticed
        bradley_terry(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="floating point"):
        bradley_terry(torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    for function in (bradley_terry, pair_accuracy):
        with pytest.raises(ValueError, match="no pair"):
            function(torch.zeros(0), torch.zeros(0))
