"""Attention and rotary positions against one head at a time in NumPy, and against torch's own attention."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.nn.attention import CausalSelfAttention, eager_attend
from minirlhf.nn.cache import empty_cache
from minirlhf.nn.rope import rotate, rotation_table
from minirlhf.reference.attention import eager_attend as reference_attend
from minirlhf.reference.rope import rotate as reference_rotate


@st.composite
def attention_cases(draw):
    """q [B H T K], k, v [B G S K] float64, visible bool [B 1 T S] with anything, also rows that see nothing."""
    batch, kv_heads, group, tokens, seen, width = (draw(st.integers(1, most)) for most in (2, 2, 3, 4, 5, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    q = rng.normal(size=(batch, kv_heads * group, tokens, width))
    k, v = (rng.normal(size=(batch, kv_heads, seen, width)) for _ in range(2))
    visible = rng.random((batch, 1, tokens, seen)) < draw(st.sampled_from([0.2, 0.7, 1.0]))
    return q, k, v, visible


@given(attention_cases())
def test_equals_one_head_at_a_time(case):
    q, k, v, visible = case
    out = eager_attend(*map(torch.tensor, case)).numpy()
    for row in range(len(q)):
        assert_allclose(out[row], reference_attend(q[row], k[row], v[row], visible[row, 0]), rtol=1e-12, atol=1e-13)
    empty = ~visible.any(-1)[:, 0]  # [B T]
    assert (out.transpose(0, 2, 1, 3)[empty] == 0).all()


@given(attention_cases())
def test_gradients_are_finite_and_agree_with_torch_where_something_is_seen(case):
    q, k, v, visible = case
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    eager_attend(*leaves, torch.tensor(visible)).square().sum().backward()
    ours = [leaf.grad.clone() for leaf in leaves]
    assert all(gradient.isfinite().all() for gradient in ours)
    if visible.any(-1).all():
        for leaf in leaves:
            leaf.grad = None
        out = torch.nn.functional.scaled_dot_product_attention(
            *leaves, attn_mask=torch.tensor(visible), enable_gqa=q.shape[1] != k.shape[1]
        )
        out.square().sum().backward()
        for leaf, gradient in zip(leaves, ours, strict=True):
            torch.testing.assert_close(gradient, leaf.grad, rtol=1e-9, atol=1e-11)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_rope_equals_complex_numbers(half, tokens, seed):
    rng = np.random.default_rng(seed)
    x, positions = rng.normal(size=(tokens, 2 * half)), rng.integers(0, 50, size=tokens)
    cos, sin = rotation_table(50, 2 * half, 100.0, torch.float64, torch.device("cpu"))
    index = torch.tensor(positions)
    out = rotate(torch.tensor(x)[None, None], (cos[index], sin[index]))[0, 0]
    assert_allclose(out.numpy(), reference_rotate(x, positions, 100.0), rtol=1e-11, atol=1e-12)


def test_rope_products_depend_on_the_distance_only():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 1, 8))
    products = [
        (reference_rotate(q, np.array([p + 3])) * reference_rotate(k, np.array([p]))).sum() for p in range(0, 60, 7)
    ]
    assert_allclose(products, products[0], rtol=1e-11)
    assert abs((reference_rotate(q, np.array([4])) * reference_rotate(k, np.array([0]))).sum() - products[0]) > 1e-3


def test_a_table_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        rotation_table(7, 4, 123.0, torch.float64, torch.device("cpu"))
    x = torch.randn(1, 1, 7, 4, dtype=torch.float64, requires_grad=True)
    rotate(x, rotation_table(7, 4, 123.0, torch.float64, torch.device("cpu"))).sum().backward()
    assert x.grad.isfinite().all()


def test_heads_must_divide():
    with pytest.raises(ValueError, match="heads 3"):
        CausalSelfAttention(8, 3, 1, bias=True)


def test_the_cache_is_a_value():
    """Two continuations of one cache do not disturb each other, and a selected copy is on its own."""
    rng = torch.Generator().manual_seed(0)
    like = torch.zeros((), dtype=torch.float64)
    k = torch.randn(2, 1, 5, 3, generator=rng, dtype=torch.float64)

    def extended(cache, part):
        cache = cache.reserve(part.shape[2])
        seen, _ = cache.append(0, part, -part)
        return cache.advance(part.shape[2]), seen.clone()

    start, _ = extended(empty_cache(1, 2, 1, 6, 3, like), k[:, :, :2])
    left, _ = extended(start, k[:, :, 2:4])
    right, seen = extended(start, k[:, :, 4:])
    assert (start.length, left.length, right.length) == (2, 4, 3)
    torch.testing.assert_close(seen, torch.cat((k[:, :, :2], k[:, :, 4:]), dim=2), rtol=0, atol=0)
    copy = left.select(torch.tensor([1]))
    _, seen = extended(left, k[:, :, 4:])
    torch.testing.assert_close(seen, k, rtol=0, atol=0)
    _, seen = extended(copy, 9 + k[1:, :, 4:])
    torch.testing.assert_close(seen[:, :, :4], k[1:, :, :4], rtol=0, atol=0)
    with pytest.raises(ValueError, match="do not fit"):
        left.reserve(3)


def test_what_is_hidden_weighs_nothing_however_poorly_the_rest_matches():
    """The visible key matches with -2e9 / √2, the hidden one with +2e9 / √2; the whole attention is the visible's."""
    q = torch.tensor([[[[1e9, 1e9]]]], dtype=torch.float64)
    k = torch.tensor([[[[-1.0, -1.0], [1.0, 1.0]]]], dtype=torch.float64)
    v = torch.tensor([[[[2.0, 3.0], [5.0, 7.0]]]], dtype=torch.float64)
    assert eager_attend(q, k, v, torch.tensor([[[[True, False]]]])).tolist() == [[[[2.0, 3.0]]]]
