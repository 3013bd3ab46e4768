"""The product that stays quick for few rows is the product."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.nn import linear as module
from minirlhf.nn.linear import FEW_ROWS, LARGE, Linear, linear, weight_first
from minirlhf.reference.linear import linear as reference


@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_the_weight_first_is_the_same_product(rows, inputs, outputs, with_bias, seed):
    draws = torch.Generator().manual_seed(seed)
    x, weight, bias = (
        torch.randn(shape, generator=draws, dtype=torch.float64)
        for shape in ((rows, 1, inputs), (outputs, inputs), (outputs,))
    )
    found = weight_first(x, weight, bias if with_bias else None)
    expected = reference(x.numpy(), weight.numpy(), bias.numpy() if with_bias else None)
    assert found.shape == (rows, 1, outputs)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "rows, grad, expected", [(1, False, True), (FEW_ROWS, False, True), (FEW_ROWS + 1, False, False), (1, True, False)]
)
def test_it_is_taken_for_few_rows_of_a_large_weight_without_gradient(monkeypatch, rows, grad, expected):
    taken = []
    monkeypatch.setattr(module, "weight_first", lambda *arguments: taken.append(True) or weight_first(*arguments))
    layer = Linear(256, LARGE // 256)
    x = torch.randn(rows, 1, 256, generator=torch.Generator().manual_seed(0))
    with torch.set_grad_enabled(grad):
        y = layer(x)
        linear(x, layer.weight[:-1])  # a smaller weight goes the usual way
    assert taken == [True] * expected
    torch.testing.assert_close(y, torch.nn.functional.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
