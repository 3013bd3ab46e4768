"""What must hold before training starts: the limits of a setting belong to its range, and the reference is frozen."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minirlhf.errors import UserError
from minirlhf.trainers.checks import check_settings, freeze

numbers = st.floats(-1e6, 1e6)


@given(numbers, numbers, numbers)
def test_a_setting_may_be_anything_from_the_lowest_to_the_highest_and_nothing_else(value, one, other):
    low, high = sorted((one, other))
    for inside in (low, high, None, min(max(value, low), high)):
        check_settings(SimpleNamespace(gae_lambda=inside), gae_lambda=(low, high))
    for outside in (math.nextafter(low, -math.inf), math.nextafter(high, math.inf), math.nan, math.inf, -math.inf):
        with pytest.raises(UserError) as caught:
            check_settings(SimpleNamespace(gae_lambda=outside), gae_lambda=(low, high))
        assert caught.value.where == "--gae-lambda" and caught.value.found == str(outside)


def test_every_setting_named_is_looked_at():
    settings = SimpleNamespace(first=1, second=-1, third=-1)
    with pytest.raises(UserError, match="second"):
        check_settings(settings, first=(0, 2), second=(0, math.inf))
    check_settings(settings, first=(0, 2))  # and none that is not


def test_a_frozen_reference_rests_and_one_that_shares_a_weight_is_refused():
    policy = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5), nn.Linear(3, 2))
    reference = copy.deepcopy(policy).train()
    freeze(reference, trained=policy)
    x = torch.ones(2, 3)
    assert torch.equal(reference(x), reference(x)) and not reference(x).requires_grad
    assert policy(x).requires_grad and policy.training  # the policy is left as it was
    tied = copy.deepcopy(policy)
    tied[2].bias = policy[0].bias  # under another name
    with pytest.raises(ValueError, match=r"shares 2\.bias"):
        freeze(tied, trained=policy)
