"""What an argument left out stands for, and the doors: limits that belong to a range, shapes that would broadcast."""

import inspect
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from minirlhf.objectives.advantages import clip_magnitude, gae
from minirlhf.objectives.cross_entropy import cross_entropy, cross_entropy_sum
from minirlhf.objectives.dpo import dpo
from minirlhf.objectives.grpo import group_advantages, grpo_loss
from minirlhf.objectives.guards import ratio_too_large
from minirlhf.objectives.ipo import ipo
from minirlhf.objectives.kl import exact_kl, next_kl_coef
from minirlhf.objectives.kto import kto
from minirlhf.objectives.likelihood import (
    log_probs_of,
    response_log_probs,
    sequence_log_probs,
    token_log_probs,
    token_log_probs_and_entropy,
)
from minirlhf.objectives.masked import masked_mean, masked_sum, masked_whiten
from minirlhf.objectives.ppo import clipped_value_loss, ppo_diagnostics, ppo_policy_loss

# Function -> the numbers its docstring or paper gives to what is left out.
DEFAULTS = {
    log_probs_of: {"temperature": 1.0},
    token_log_probs: {"temperature": 1.0},
    token_log_probs_and_entropy: {"temperature": 1.0},
    sequence_log_probs: {"temperature": 1.0},
    response_log_probs: {"temperature": 1.0},
    exact_kl: {"temperature": 1.0},
    gae: {"gamma": 1.0, "gae_lambda": 0.95, "truncated": "terminal"},
    ppo_policy_loss: {"clip_range": 0.2},
    clipped_value_loss: {"clip_range": 0.2},
    ppo_diagnostics: {"clip_range": 0.2},
    ratio_too_large: {"limit": 100.0},
    dpo: {"beta": 0.1, "label_smoothing": 0.0},
    ipo: {"beta": 0.1},
    kto: {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    grpo_loss: {"clip_range": 0.2, "kl_coef": 0.04},
    group_advantages: {"divide_by_std": True},
}


@pytest.mark.parametrize("function", DEFAULTS, ids=lambda function: function.__name__)
def test_what_is_left_out_is_what_the_paper_says(function):
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default not in (inspect.Parameter.empty, None)
    }
    assert given == DEFAULTS[function]


@pytest.mark.parametrize(("limit", "clipped"), [(0.5, [-0.5, 0.25]), (1e-9, [-1e-9, 1e-9]), (math.inf, [-3.0, 0.25])])
def test_any_positive_limit_clips(limit, clipped):
    assert clip_magnitude(torch.tensor([-3.0, 0.25], dtype=torch.float64), limit).tolist() == clipped


def test_the_controller_takes_any_positive_horizon_up_to_which_answers_may_come():
    assert_allclose(next_kl_coef(0.1, 6.6, 6.0, 10, 10), 0.11, rtol=1e-12)
    assert_allclose(next_kl_coef(0.1, 6.6, 6.0, 0.5, 0), 0.1, rtol=1e-12)
    with pytest.raises(ValueError, match="horizon"):
        next_kl_coef(0.1, 6.6, 6.0, 0, 0)


@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (3,), ()])
def test_what_would_only_broadcast_is_refused(shape):
    """torch would stretch these to the mask's shape, and count a number several times."""
    mask, x = torch.tensor(np.eye(2, 3, dtype=bool)), torch.ones(shape)
    for function in (
        masked_sum,
        masked_mean,
        lambda x, mask: masked_mean(x, mask, count=2),
        lambda x, mask: masked_whiten(x, mask, shift_mean=True),
        cross_entropy,
        cross_entropy_sum,
    ):
        with pytest.raises(ValueError, match="has shape"):
            function(x, mask)


@pytest.mark.parametrize(
    ("loss_of", "names"),
    [
        (ppo_policy_loss, ("log_probs", "old_log_probs", "advantages")),
        (clipped_value_loss, ("values", "old_values", "returns")),
    ],
    ids=["policy", "value"],
)
def test_the_array_that_does_not_fit_is_named(loss_of, names):
    mask = torch.ones(2, 3, dtype=torch.bool)
    for wrong in names:
        arrays = [torch.zeros(2, 2 if name == wrong else 3) for name in names]
        with pytest.raises(ValueError, match=f"^{wrong} has shape"):
            loss_of(*arrays, mask)


@pytest.mark.parametrize("name", ["kl_nats", "desirable_weight", "undesirable_weight"])
@pytest.mark.parametrize("wrong", [-1e-9, math.inf, math.nan])
def test_the_number_that_makes_no_sense_is_named(name, wrong):
    numbers = {"kl_nats": 0.5, name: wrong}
    with pytest.raises(ValueError, match=f"^{name} must be finite"):
        kto(torch.zeros(2), torch.zeros(2), torch.tensor([True, False]), **numbers)
