import pytest
import torch
from hypothesis import given
from numpy.testing import assert_allclose

from minirlhf.objectives.grpo import group_advantages
from minirlhf.objectives.rloo import rloo_advantages
from minirlhf.reference import rloo as reference
from tests.objectives.test_grpo import grouped_scores


@given(grouped_scores())
def test_advantages_are_those_of_the_formula_and_sum_to_zero_in_every_group(case):
    scores, size = case
    leaf = torch.tensor(scores, requires_grad=True)
    found = rloo_advantages(leaf, size)
    assert_allclose(found, reference.rloo_advantages(scores, size), rtol=1e-10, atol=1e-13)
    assert_allclose(found.reshape(-1, size).sum(dim=1), 0, atol=1e-13)
    assert not found.requires_grad
    # the group's mean holds the answer itself, so comparing with it makes every advantage smaller by (n - 1) / n
    centred = group_advantages(leaf, size, divide_by_std=False)
    assert_allclose(found * (size - 1) / size, centred, rtol=1e-10, atol=1e-13)


@given(grouped_scores())
def test_an_answers_baseline_does_not_know_the_answer(case):
    scores, size = torch.tensor(case[0]), case[1]
    other = scores.clone()
    other[0] += 1.0
    moved = rloo_advantages(other, size) - rloo_advantages(scores, size)
    assert_allclose(moved[0], 1.0, rtol=1e-9)  # its own advantage moves by all of it
    assert_allclose(moved[1:size], -1 / (size - 1), rtol=1e-9)
    assert_allclose(moved[size:], 0, atol=1e-12)


def test_what_does_not_fit_is_refused():
    for bad, size in ((torch.zeros(5), 2), (torch.zeros(4), 1), (torch.zeros(0), 2)):
        with pytest.raises(ValueError, match="no groups"):
            rloo_advantages(bad, size)
    with pytest.raises(ValueError, match="floating point"):
        rloo_advantages(torch.zeros(4, dtype=torch.int64), 2)
