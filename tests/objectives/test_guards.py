import math

import pytest
import torch

from minirlhf.objectives.guards import (
    NonFiniteError,
    check_finite,
    describe_non_finite,
    kl_above_target,
    ratio_too_large,
)

MASK = torch.tensor([[True, True, False]])


def log_ratios(*ratios):
    return torch.tensor([ratios], dtype=torch.float64).log(), torch.zeros(1, len(ratios), dtype=torch.float64)


def test_a_ratio_of_a_thousand_fires_and_a_healthy_one_does_not():
    assert ratio_too_large(*log_ratios(1.0, 1e3, 1.0), MASK)
    assert not ratio_too_large(*log_ratios(0.5, 2.0, 1.0), MASK)
    assert not ratio_too_large(*log_ratios(1.0, 1.0, 1e9), MASK)  # padding
    assert ratio_too_large(*log_ratios(1.0, 3.0, 1.0), MASK, limit=2.0)
    assert ratio_too_large(*log_ratios(1.0, math.nan, 1.0), MASK)
    with pytest.raises(ValueError, match="above 1"):
        ratio_too_large(*log_ratios(1.0, 1.0, 1.0), MASK, limit=1.0)


def test_epochs_stop_above_the_target_and_never_without_one():
    assert kl_above_target(0.03, 0.02) and kl_above_target(math.nan, 0.02)
    assert not kl_above_target(0.02, 0.02) and not kl_above_target(1e9)
    with pytest.raises(ValueError, match="positive"):
        kl_above_target(0.1, 0.0)


def test_the_tensor_that_is_not_finite_is_named():
    good, bad = torch.ones(3), torch.tensor([1.0, math.nan, -math.inf, math.inf])
    assert describe_non_finite([("good", good)]) is None
    assert describe_non_finite([("good", good), ("scores", bad)]) == (
        "scores is not finite: 1 NaN and 2 infinite of 4 values"
    )
    assert describe_non_finite([("values", bad[2:])]) == "values is not finite: 0 NaN and 2 infinite of 2 values"
    check_finite(good=good)
    with pytest.raises(NonFiniteError, match="scores is not finite"):
        check_finite(good=good, scores=bad)
