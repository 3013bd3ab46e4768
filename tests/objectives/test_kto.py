import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose

from minirlhf.objectives.kto import kto
from minirlhf.reference import kto as reference
from minirlhf.testing.gradients import central_difference
from minirlhf.testing.strategies import floats

F64 = torch.float64


@st.composite
def judged_answers(draw, max_answers=6):
    """Summed log-probs [B] under policy and reference, and which answers are desirable."""
    answers = draw(st.integers(1, max_answers))
    arrays = [draw(floats((answers,), 20.0)) for _ in range(2)]
    return *arrays, draw(hnp.arrays(np.bool_, (answers,)))


@given(
    judged_answers(), st.sampled_from([0.0, 0.5, 7.0]), st.sampled_from([0.05, 0.1, 1.0]), st.sampled_from([0.5, 1.3])
)
def test_by_hand_by_nudging_and_by_autograd(answers, kl_nats, beta, weight):
    log_probs, ref_log_probs, desirable = answers
    data = kl_nats, beta, weight, 2 - weight
    by_hand = reference.kto_grad(*answers, *data)
    nudged = central_difference(lambda p: reference.kto(p, ref_log_probs, desirable, *data), log_probs)
    leaf, ref = (torch.tensor(array, requires_grad=True) for array in (log_probs, ref_log_probs))
    loss = kto(leaf, ref, torch.tensor(desirable), *data)
    loss.backward()
    assert_allclose(loss.item(), reference.kto(*answers, *data), rtol=1e-11, atol=1e-14)
    assert_allclose(nudged, by_hand, rtol=1e-6, atol=1e-8)  # limited by the step
    assert_allclose(leaf.grad, by_hand, rtol=1e-10, atol=1e-14)
    assert ref.grad is None


@pytest.mark.parametrize("kl_nats", [0.0, 2.5])
@pytest.mark.parametrize("desirable", [True, False])
def test_at_the_reference_point_an_answer_costs_half_its_weight_and_teaches_the_most(kl_nats, desirable):
    ratios = torch.tensor([kl_nats - 8, kl_nats, kl_nats + 8], dtype=F64, requires_grad=True)
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
    weight = 1.5 if desirable else 0.7
    kinds = torch.full((3,), desirable)
    zero = torch.zeros(3, dtype=F64)
    kto(ratios, zero, kinds, kl_nats, **weights, count=1).backward()
    assert_allclose(kto(ratios[1:2].detach(), zero[:1], kinds[:1], kl_nats, **weights), weight / 2, rtol=1e-14)
    sign = -1 if desirable else 1  # desirable answers are pushed up
    assert_allclose(ratios.grad[1], sign * weight * 0.1 / 4, rtol=1e-14)
    assert (ratios.grad * sign > 0).all() and ratios.grad.abs().argmax() == 1
    assert_allclose(ratios.grad[0], ratios.grad[2], rtol=1e-12)  # dies away on both sides alike


def test_the_kinds_mirror_each_other_and_their_costs_add_up_to_one():
    ratios, zero = torch.linspace(-30, 30, 7, dtype=F64), torch.zeros(7, dtype=F64)
    for ratio in ratios:
        pair = torch.stack([ratio, ratio])
        kinds = torch.tensor([True, False])
        assert_allclose(2 * kto(pair, zero[:2], kinds, 1.0), 1, rtol=1e-14)


@given(judged_answers(), st.integers(0, 6))
def test_micro_batches_add_up_to_the_batch(answers, cut):
    tensors = [torch.tensor(array) for array in answers]
    parts = [
        kto(*(array[rows] for array in tensors), 0.5, count=len(tensors[0]))
        for rows in (slice(0, cut), slice(cut, None))
    ]
    assert_allclose(sum(parts), kto(*tensors, 0.5), rtol=1e-12)


def test_what_does_not_fit_is_refused():
    two, kinds = torch.zeros(2), torch.tensor([True, False])
    with pytest.raises(ValueError, match="desirable must be bool"):
        kto(two, two, torch.ones(2), 0.0)
    with pytest.raises(ValueError, match="desirable must be bool"):
        kto(two, two, kinds[:1], 0.0)
    with pytest.raises(ValueError, match="ref_log_probs"):
        kto(two, torch.zeros(3), kinds, 0.0)
    for kl_nats in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="kl_nats"):
            kto(two, two, kinds, kl_nats)
    with pytest.raises(ValueError, match="undesirable_weight"):
        kto(two, two, kinds, 0.0, undesirable_weight=-1.0)
    with pytest.raises(ValueError, match="no answer"):
        kto(torch.zeros(0), torch.zeros(0), kinds[:0], 0.0)
