import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.ipo import ipo
from minirlhf.reference import ipo as reference
from minirlhf.testing.gradients import central_difference
from tests.objectives.test_dpo import BETAS, answered_pairs, leaves


@given(answered_pairs(), BETAS)
def test_by_hand_by_nudging_and_by_autograd(pairs, beta):
    chosen, rejected, *refs = pairs
    by_hand = reference.ipo_grad(*pairs, beta)
    nudged = (
        central_difference(lambda c: reference.ipo(c, rejected, *refs, beta), chosen, 1e-4),  # a parabola: exact
        central_difference(lambda r: reference.ipo(chosen, r, *refs, beta), rejected, 1e-4),
    )
    tensors = leaves(pairs)
    loss = ipo(*tensors, beta)
    loss.backward()
    # h is computed as (beta a - beta b) / beta, which leaves rounding of the size of a and b
    assert_allclose(loss.item(), reference.ipo(*pairs, beta), rtol=1e-10, atol=1e-12)
    for nudge, hand, leaf in zip(nudged, by_hand, tensors[:2], strict=True):
        assert_allclose(nudge, hand, rtol=1e-6, atol=1e-6)
        assert_allclose(leaf.grad, hand, rtol=1e-10, atol=1e-12)
    assert tensors[2].grad is None and tensors[3].grad is None


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_it_is_content_at_its_distance_and_pulls_back_beyond_it(beta):
    enough, zero = 1 / (2 * beta), torch.zeros(3, dtype=torch.float64)
    chosen = torch.tensor([0.0, enough, enough + 1], dtype=torch.float64, requires_grad=True)
    ipo(chosen, zero, zero, zero, beta).backward()
    assert_allclose(chosen.grad, [-2 * enough / 3, 0, 2 / 3], rtol=1e-12, atol=1e-14)
    assert_allclose(ipo(zero, zero, zero, zero, beta), enough**2, rtol=1e-14)  # a policy that is its reference


@given(answered_pairs(), st.integers(0, 5))
def test_micro_batches_add_up_to_the_batch(pairs, cut):
    tensors = [torch.tensor(array) for array in pairs]
    parts = [
        ipo(*(array[rows] for array in tensors), count=len(tensors[0])) for rows in (slice(0, cut), slice(cut, None))
    ]
    assert_allclose(sum(parts), ipo(*tensors), rtol=1e-11)


def test_what_does_not_fit_is_refused():
    two, three = torch.zeros(2), torch.zeros(3)
    with pytest.raises(ValueError, match="ref_log_probs"):
        ipo(two, two, three, two)
    with pytest.raises(ValueError, match="chosen and rejected"):
        ipo(two, three, two, three)
    with pytest.raises(ValueError, match="no pair"):
        ipo(*[torch.zeros(0)] * 4)
    with pytest.raises(ValueError, match="beta"):
        ipo(two, two, two, two, math.nan)
