import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.objectives.plackett_luce import plackett_luce
from minirlhf.reference import plackett_luce as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats, score_pairs

F64 = torch.float64


@st.composite
def ranked_scores(draw, max_rankings=4, max_places=5):
    """Scores [B N], best first, and how many of the N places each ranking has."""
    rankings, places = draw(st.integers(1, max_rankings)), draw(st.integers(1, max_places))
    counts = draw(st.lists(st.integers(1, places), min_size=rankings, max_size=rankings))
    return draw(floats((rankings, places), 8.0)), np.array(counts)


@given(ranked_scores())
def test_by_hand_by_nudging_and_by_autograd(case):
    scores, counts = case
    by_hand = reference.plackett_luce_grad(scores, counts)
    leaf = torch.tensor(scores, requires_grad=True)
    loss = plackett_luce(leaf, torch.tensor(counts))
    loss.backward()
    assert_allclose(loss.item(), reference.plackett_luce(scores, counts), rtol=1e-10, atol=1e-13)
    nudged = central_difference(lambda s: reference.plackett_luce(s, counts), scores)
    assert_allclose(nudged, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-13)
    assert_allclose(leaf.grad.sum(dim=1), 0, atol=1e-14)


@given(score_pairs())
def test_two_answers_are_bradley_terry(pair):
    ours, theirs = ([torch.tensor(scores, requires_grad=True) for scores in pair] for _ in range(2))
    loss, expected = plackett_luce(torch.stack(ours, dim=1)), bradley_terry(*theirs)
    loss.backward()
    expected.backward()
    assert_allclose(loss.item(), expected.item(), rtol=1e-10, atol=1e-14)  # log(1 + tiny) is rounded at 1
    for mine, other in zip(ours, theirs, strict=True):
        assert_allclose(mine.grad, other.grad, rtol=1e-10, atol=1e-14)


@given(floats((4,), 5.0))
def test_the_probabilities_of_all_orders_sum_to_one(scores):
    total = sum(
        plackett_luce(torch.tensor([order], dtype=F64)).neg().exp() for order in itertools.permutations(scores.tolist())
    )
    assert_allclose(total, 1, rtol=1e-12)


@given(ranked_scores(), st.floats(-50, 50), st.sampled_from([1e3, math.nan, math.inf, -math.inf]), st.integers(0, 2))
def test_only_differences_count_and_places_that_are_not_there_are_never_read(case, shift, junk, padding):
    scores, counts = torch.tensor(case[0]), torch.tensor(case[1])
    expected = plackett_luce(scores, counts)
    assert_allclose(plackett_luce(scores + shift, counts), expected, rtol=1e-9, atol=1e-11)
    there = torch.arange(scores.shape[1]) < counts[:, None]
    dirty = torch.cat([scores.masked_fill(~there, junk), torch.full((len(scores), padding), junk, dtype=F64)], dim=1)
    dirty.requires_grad_()
    loss = plackett_luce(dirty, counts)
    loss.backward()
    assert_allclose(loss.item(), expected.item(), rtol=1e-12, atol=1e-15)  # wider arrays are summed in another order
    assert (dirty.grad[:, scores.shape[1] :] == 0).all()
    assert (dirty.grad[:, : scores.shape[1]][~there] == 0).all()


def test_equal_scores_cost_log_of_the_number_of_orders_and_extremes_stay_finite():
    assert_allclose(plackett_luce(torch.zeros(3, 5, dtype=F64)), math.log(120), rtol=1e-14)
    scores = torch.tensor([[-1e4, 0.0, 1e4]], dtype=F64, requires_grad=True)
    loss = plackett_luce(scores)
    loss.backward()
    assert_allclose(loss.item(), 3e4, rtol=1e-12)
    assert_allclose(scores.grad, [[-1, -1, 2]], atol=1e-12)


@given(ranked_scores(), st.integers(0, 4))
def test_micro_batches_add_up_to_the_batch(case, cut):
    scores, counts = map(torch.tensor, case)
    parts = [plackett_luce(scores[rows], counts[rows], len(scores)) for rows in (slice(0, cut), slice(cut, None))]
    assert_allclose(sum(parts), plackett_luce(scores, counts), rtol=1e-12, atol=1e-15)


def test_what_does_not_fit_is_refused():
    scores = torch.zeros(2, 3)
    for bad in (torch.tensor([0, 3]), torch.tensor([1, 4]), torch.tensor([3]), torch.tensor([3.0, 3.0])):
        with pytest.raises(ValueError, match="counts must be"):
            plackett_luce(scores, bad)
    for bad in (torch.zeros(3), torch.zeros(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="floating point"):
            plackett_luce(bad)
    for bad in (torch.zeros(2, 0), torch.zeros(0, 3)):
        with pytest.raises(ValueError, match="nothing to rank"):
            plackett_luce(bad)
