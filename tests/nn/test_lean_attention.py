"""Lean attention against the definition in float64: numbers, gradients, rows that see nothing, blocks of every size."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minirlhf.nn import lean_attention
from minirlhf.nn.attention import eager_attend
from minirlhf.nn.lean_attention import blocks, lean_attend, one_asks


@st.composite
def causal_cases(draw):
    """q [B H T K], k, v [B G S K] with S >= T, a causal mask with padding or without, and how many rows are a block."""
    batch, kv_heads, group, tokens, more, width = (draw(st.integers(1, most)) for most in (3, 2, 3, 9, 5, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def numbers(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    keys = tokens + more - 1
    q = numbers(batch, kv_heads * group, tokens, width)
    k, v = numbers(batch, kv_heads, keys, width), numbers(batch, kv_heads, keys, width)
    visible = torch.ones(tokens, keys, dtype=torch.bool).tril(keys - tokens)
    if draw(st.booleans()):  # padding anywhere: rows may see nothing
        real = torch.rand(batch, 1, 1, keys, generator=generator) < draw(st.sampled_from([0.2, 0.7]))
        visible = visible & real
    return (q, k, v), visible, draw(st.integers(1, 10))


@given(causal_cases())
def test_equals_the_definition_and_its_gradient(case):
    arrays, visible, block = case
    mine, theirs = ([x.clone().requires_grad_() for x in arrays] for _ in range(2))
    with patch.object(lean_attention, "BLOCK", block):
        out, wanted = lean_attend(*mine, visible), eager_attend(*theirs, visible)
        dout = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
        out.backward(dout)
        with torch.no_grad():
            torch.testing.assert_close(lean_attend(*arrays, visible), wanted, rtol=1e-12, atol=1e-13)
    wanted.backward(dout)
    torch.testing.assert_close(out, wanted, rtol=1e-12, atol=1e-13)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-11, atol=1e-12)


@given(causal_cases())
def test_one_token_that_asks_hears_the_same_when_products_are_sums(case):
    """What compiled decoding does; here as it is written."""
    (q, k, v), visible, _ = case
    q, visible = q[:, :, -1:], visible[..., -1:, :]
    heard = one_asks(q * q.shape[-1] ** -0.5, k, v, visible)
    torch.testing.assert_close(heard, eager_attend(q, k, v, visible), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_that_see_nothing_give_zeros_in_every_number_format(dtype):
    q, k, v = (torch.randn(2, 2, 5, 4, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(3))
    visible = torch.ones(5, 5, dtype=torch.bool).tril() & torch.tensor([[[[False, False, True, True, True]]]])
    out = lean_attend(q * 30, k, v, visible)
    assert bool(out.isfinite().all()) and bool((out[:, :, :2] == 0).all()) and bool((out[:, :, 2:] != 0).any())


@given(st.integers(1, 200), st.integers(0, 50), st.integers(1, 70))
def test_the_blocks_cover_every_row_once_and_end_where_the_rows_may_look(tokens, more, block):
    with patch.object(lean_attention, "BLOCK", block):
        parts = list(blocks(tokens, tokens + more))
    assert [row for rows, _ in parts for row in range(tokens)[rows]] == list(range(tokens))
    assert all(seen == rows.stop + more and rows.stop - rows.start <= block for rows, seen in parts)
