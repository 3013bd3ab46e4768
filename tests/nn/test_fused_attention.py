"""The fused kernel, in Triton's interpreter, against the definition in float64: any shape, forward and gradients."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from minirlhf.errors import UserError
from minirlhf.nn import fused_attention as fused
from minirlhf.nn.attention import eager_attend
from minirlhf.reference import attention as definition
from minirlhf.reference import fused_attention as tiled
from minirlhf.testing import proved

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the extra fused")


@st.composite
def cases(draw, tokens=(1, 20), keys=(1, 36), widths=(16, 24, 32, 128)):
    """(q, k, v, lengths, offset, causal), float64; lengths may be 0, T need not be S, no multiple of a tile."""
    rows, kv_heads, group = (draw(st.integers(1, most)) for most in (2, 2, 2))
    count, seen, width = draw(st.integers(*tokens)), draw(st.integers(*keys)), draw(st.sampled_from(widths))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = rng.normal(size=(rows, kv_heads * group, count, width))
    k, v = rng.normal(size=(2, rows, kv_heads, seen, width))
    lengths = rng.integers(0, seen + 1, rows)
    return q, k, v, lengths, draw(st.sampled_from([0, seen - count, 3])), draw(st.booleans())


def visible(q, k, lengths, offset, causal) -> torch.Tensor:
    rows, columns = np.arange(q.shape[2]), np.arange(k.shape[2])
    return torch.tensor(np.stack([tiled.visible_tile(rows, columns, n, offset, causal) for n in lengths])[:, None])


@given(cases(tokens=(1, 7), keys=(1, 7), widths=(1, 3)))
def test_tiles_equal_the_definition(case):
    q, k, v, lengths, offset, causal = case
    rng = np.random.default_rng(0)
    for row, head in np.ndindex(q.shape[:2]):
        arrays = q[row, head], k[row, 0], v[row, 0]
        seen = tiled.visible_tile(np.arange(q.shape[2]), np.arange(k.shape[2]), lengths[row], offset, causal)
        out, _ = tiled.fused_attention(*arrays, lengths[row], offset, causal)
        assert_allclose(out, definition.attend(*arrays, seen), rtol=1e-11, atol=1e-13)
        dout = rng.normal(size=out.shape)
        ours = tiled.fused_attention_grad(*arrays, dout, lengths[row], offset, causal)
        for found, wanted in zip(ours, definition.attend_grad(*arrays, seen, dout), strict=True):
            assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


@needs_triton
@proved(cases(), share=0.5)
def test_the_kernel_equals_the_definition(case):
    *arrays, lengths, offset, causal = case
    seen = visible(*arrays[:2], lengths, offset, causal)
    exact = [torch.tensor(array, requires_grad=True) for array in arrays]
    rounded = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in arrays]
    wanted = eager_attend(*exact, seen)
    found = fused.fused_attention(*rounded, torch.tensor(lengths), offset, causal)
    # float32 keeps 6e-8 of a number; the sums here have up to 128 terms of size 1.
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    dout = torch.tensor(np.random.default_rng(1).normal(size=wanted.shape))
    gradients = torch.autograd.grad(found, rounded, dout.float())
    for ours, exactly in zip(gradients, torch.autograd.grad(wanted, exact, dout), strict=True):
        torch.testing.assert_close(ours.double(), exactly, rtol=1e-4, atol=2e-5)


@needs_triton
@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_half_precision_goes_in_and_comes_out(dtype, error):
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, 20, 32, generator=rng).to(dtype) for heads in (4, 2, 2))
    out = fused.fused_attention(q, k, v)
    assert out.dtype == dtype
    wanted = eager_attend(q.double(), k.double(), v.double(), torch.ones(20, 20, dtype=torch.bool).tril())
    torch.testing.assert_close(out.double(), wanted, rtol=error, atol=error)  # a few units of its last place


@needs_triton
def test_as_an_operator_of_torch():
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 16, generator=rng, requires_grad=True) for heads in (2, 1, 1))
    lengths = torch.tensor([5, 3], dtype=torch.int32)
    torch.library.opcheck(fused.attention_op, (q, k, v, lengths, 0, True))
    compiled = torch.compile(fused.fused_attention, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q, k, v, lengths), fused.fused_attention(q, k, v, lengths))
    twice = [torch.autograd.grad(fused.fused_attention(q, k, v, lengths).square().sum(), (q, k, v)) for _ in "ab"]
    assert all(torch.equal(a, b) for a, b in zip(*twice, strict=True))  # deterministic


def test_what_does_not_fit_is_refused():
    q, k = torch.zeros(1, 4, 3, 16), torch.zeros(1, 2, 5, 16)
    with pytest.raises(ValueError, match="must divide"):
        fused.fused_attention(q, k[:, :1].expand(1, 3, 5, 16), k[:, :1].expand(1, 3, 5, 16))
    with pytest.raises(ValueError, match="expected q"):
        fused.fused_attention(q, k, k[:, :, :4])
    with pytest.raises(ValueError, match="128 wide"):
        fused.fused_attention(torch.zeros(1, 1, 2, 160), torch.zeros(1, 1, 2, 160), torch.zeros(1, 1, 2, 160))
    with pytest.raises(ValueError, match="float64"):
        fused.fused_attention(q.double(), k.double(), k.double())
    with pytest.raises(ValueError, match="lengths"):
        fused.fused_attention(q, k, k, torch.tensor([1.0]))


def test_without_triton_or_a_gpu_the_way_out_is_named(monkeypatch):
    q = torch.zeros(1, 1, 2, 16)
    monkeypatch.setattr(fused, "kernels", lambda: None)
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(UserError, match="runs on a GPU"):
        fused.fused_attention(q, q, q)
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "triton", None)
    monkeypatch.delitem(__import__("sys").modules, "minirlhf.nn.fused_kernel", raising=False)
    monkeypatch.delattr("minirlhf.nn.fused_kernel", raising=False)
    with pytest.raises(UserError, match=r"needs Triton"):
        fused.fused_attention(q, q, q)
