import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.objectives.masked import check_token_arrays, masked_mean, masked_sum, masked_whiten
from minirlhf.reference import masked as reference
from minirlhf.testing.strategies import floats, masks

SHAPE = (2, 4)


@given(floats(SHAPE), masks(SHAPE), st.booleans())
def test_whitening_equals_the_definition(x, mask, shift_mean):
    whitened = masked_whiten(torch.tensor(x), torch.tensor(mask), shift_mean)
    assert_allclose(whitened.numpy(), reference.masked_whiten(x, mask, shift_mean), rtol=1e-9, atol=1e-9)
    assert (whitened.numpy()[~mask] == 0).all()


def test_whitening_by_hand():
    """Counted: 1, 2, 3 with mean 2 and biased variance 2/3."""
    x = torch.tensor([[1.0, 2.0, 3.0, 50.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    scale = 1 / math.sqrt(2 / 3 + 1e-8)
    assert_allclose(masked_whiten(x, mask, shift_mean=True), [[-scale, 0, scale, 0]], rtol=1e-12)
    assert_allclose(masked_whiten(x, mask, shift_mean=False), [[2 - scale, 2, 2 + scale, 0]], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-300])
@pytest.mark.parametrize("counted", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whitening_one_value_or_equal_values_stays_finite(value, counted, dtype):
    x, mask = torch.full((1, 4), value, dtype=dtype), torch.arange(4)[None] < counted
    shifted, kept = masked_whiten(x, mask, shift_mean=True), masked_whiten(x, mask, shift_mean=False)
    assert shifted.isfinite().all() and kept.isfinite().all()
    assert shifted.abs().max() <= 1e4 * torch.finfo(dtype).eps * max(1.0, abs(value))
    assert_allclose(kept[mask], x[mask], rtol=1e-3 if dtype == torch.float32 else 1e-9, atol=1e-12)


@pytest.mark.parametrize("junk", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_what_is_masked_reaches_neither_value_nor_gradient(junk):
    x = torch.tensor([[1.0, 2.0, junk]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    masked_mean(x, mask).backward()
    assert masked_sum(x, mask).item() == 3.0 and masked_mean(x, mask).item() == 1.5
    assert x.grad.tolist() == [[0.5, 0.5, 0.0]]
    assert masked_whiten(x, mask, shift_mean=True).isfinite().all()
    assert masked_whiten(x, mask, shift_mean=False)[0, 2] == 0


@given(floats((4, 3)), masks((4, 3)), st.integers(1, 3))
def test_micro_batches_add_up_to_the_batch(x, mask, cut):
    """Also when one of them counts nothing."""
    x, mask = torch.tensor(x), torch.tensor(mask)
    parts = [masked_mean(x[rows], mask[rows], count=mask.sum()) for rows in (slice(0, cut), slice(cut, 4))]
    assert_allclose(sum(parts), masked_mean(x, mask), rtol=1e-12, atol=1e-14)


def test_whitened_values_carry_no_graph():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert not masked_whiten(x, torch.ones(2, 3, dtype=torch.bool), shift_mean=True).requires_grad


def test_what_does_not_fit_is_refused_by_name():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="must be bool"):
        check_token_arrays(mask.long(), x=torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"values has shape \(2, 2\), the mask has \(2, 3\)"):
        check_token_arrays(mask, values=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="values must be floating point"):
        check_token_arrays(mask, values=torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="no True"):
        check_token_arrays(~mask, values=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="no True"):
        masked_mean(torch.zeros(2, 3), ~mask)
    assert masked_sum(torch.ones(2, 3), ~mask).item() == 0
    assert np.isfinite(masked_mean(torch.zeros(2, 3), ~mask, count=5).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [3, 8, 24])
@pytest.mark.parametrize("value", [0.1, 0.35, 7.3, 100.1, 1000.1, -3.3])
def test_equal_values_are_whitened_to_exactly_zero(value, count, dtype):
    """The mean of equal values is rounded, and dividing by the root of 1e-8 would make rounding 10,000 times larger."""
    x = torch.full((count + 1,), value, dtype=dtype)
    x[-1] = 5e3
    mask = torch.arange(count + 1) < count
    assert masked_whiten(x, mask, shift_mean=True).eq(0).all()
    assert (reference.masked_whiten(x.double().numpy(), mask.numpy(), shift_mean=True) == 0).all()
