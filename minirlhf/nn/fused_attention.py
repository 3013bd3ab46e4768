"""Fused attention as one custom operator: the numbers of `eager_attend` without the [T S] weights in memory.

The kernels (fused_kernel.py) are FlashAttention-2, Dao 2023, arXiv:2307.08691; reference/fused_attention.py derives
them. Registered with a shape rule and a gradient, so that torch.compile(fullgraph=True) keeps it in one graph.
Needs Triton: pip install 'minirlhf[fused]'. On the CPU it runs only in Triton's interpreter (TRITON_INTERPRET=1), which
is slow and there for tests.
"""

import os
from types import ModuleType

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.nn.attention import eager_attend

SMALLEST_TILE = 16  # what a tensor core multiplies at once
WIDEST_HEAD = 128


def kernels() -> ModuleType:
    """The module of Triton kernels. Raises UserError, naming the extra, if Triton is not installed."""
    try:
        from minirlhf.nn import fused_kernel
    except ImportError as error:
        raise UserError(
            "fused attention needs Triton, which is not installed",
            found=str(error),
            fix="pip install 'minirlhf[fused]', or leave attend at its default, the definition",
        ) from None
    return fused_kernel


def interpreted() -> bool:
    """Do Triton's kernels run in its interpreter, on the CPU?"""
    return os.environ.get("TRITON_INTERPRET") == "1"


def fused_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None, offset: int = 0, causal: bool = True
) -> Tensor:
    """softmax(q kᵀ / √K) v over what is visible. q [B H T K]; k, v [B G S K]; returns [B H T K].

    lengths  int [B]: how many of the S keys of each row are real, the rest being padding on the right; all when None.
    offset   the place of the first query among the keys: query i looks at keys up to i + offset (S - T with a cache).
    A query that sees nothing gives zeros. Scores and sums are float32; float32, float16 and bfloat16 go in and out.

    Raises: ValueError if shapes, dtypes or devices do not fit or a head is wider than 128; UserError without Triton,
            or on the CPU outside its interpreter.
    """
    _check(q, k, v)
    if lengths is None:
        lengths = torch.full((q.shape[0],), k.shape[2], dtype=torch.int32, device=q.device)
    if lengths.shape != q.shape[:1] or lengths.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"lengths must be int [{q.shape[0]}], got {lengths.dtype} {tuple(lengths.shape)}")
    kernels()
    if q.device.type == "cpu" and not interpreted():
        raise UserError(
            "fused attention runs on a GPU",
            found="tensors on the CPU",
            fix="leave attend at its default; to try the kernel, slowly, start Python with TRITON_INTERPRET=1",
        )
    return attention_op(q, k, v, lengths.to(torch.int32).clamp(0, k.shape[2]), offset, causal)[0]


def fused_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Fused attention in the place of `eager_attend` in a causal model: visible bool [T S] or [B 1 T S].

    The kernel knows the diagonal, but not where padding lies: a batch with a padding mask, [B 1 T S], goes the
    definition's way. Raises as `fused_attention`.
    """
    if visible.ndim == 4:
        return eager_attend(q, k, v, visible)
    return fused_attention(q, k, v, offset=k.shape[2] - q.shape[2])


def _check(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError unless q [B H T K] and k, v [B G S K] fit together."""
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"expected q [B H T K] and k, v [B G S K], got {shapes}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"the heads of k and v must divide those of q, got {shapes}")
    if q.shape[3] > WIDEST_HEAD:
        raise ValueError(f"a head may be {WIDEST_HEAD} wide at most, got {shapes}")
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16) or {k.dtype, v.dtype} != {q.dtype}:
        raise ValueError(f"expected one of float32, float16, bfloat16, got {q.dtype}, {k.dtype}, {v.dtype}")
    if {k.device, v.device} != {q.device}:
        raise ValueError(f"expected one device, got {q.device}, {k.device}, {v.device}")


def _tiles(width: int) -> dict[str, int]:
    """How a kernel is cut to size; the width is rounded up to a power of two, and what is beyond it is masked."""
    wide = max(SMALLEST_TILE, 1 << (width - 1).bit_length())
    if interpreted():  # small ones, so that short tests still have edges
        return {"BLOCK_Q": SMALLEST_TILE, "BLOCK_K": SMALLEST_TILE, "WIDTH": wide, "UPCAST": True}
    return {"BLOCK_Q": 128 if wide <= 64 else 64, "BLOCK_K": 64, "WIDTH": wide, "UPCAST": False}


def _sizes(q: Tensor, k: Tensor, offset: int) -> tuple[float | int, ...]:
    """What every kernel is told after its pointers: scale, tokens, keys, offset, heads, kv_heads, width."""
    return (q.shape[3] ** -0.5, q.shape[2], k.shape[2], offset, q.shape[1], k.shape[1], q.shape[3])


def _blocks(count: int, size: int) -> int:
    return -(-count // size)


@torch.library.custom_op("minirlhf::fused_attention", mutates_args=())
def attention_op(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, offset: int, causal: bool) -> tuple[Tensor, Tensor]:
    """out [B H T K], and the log-sum-exp of each row of scores, float32 [B H T], which backward needs."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    batch, heads, tokens, _ = q.shape
    out = torch.empty_like(q)
    log_sums = torch.empty(batch, heads, tokens, dtype=torch.float32, device=q.device)
    shape = _tiles(q.shape[3])
    grid = (_blocks(tokens, shape["BLOCK_Q"]), batch * heads)
    if out.numel():
        kernels().forward_kernel[grid](q, k, v, out, log_sums, lengths, *_sizes(q, k, offset), CAUSAL=causal, **shape)
    return out, log_sums


@attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, offset: int, causal: bool) -> tuple[Tensor, Tensor]:
    log_sums = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    return torch.empty_like(q, memory_format=torch.contiguous_format), log_sums


@torch.library.custom_op("minirlhf::fused_attention_backward", mutates_args=())
def backward_op(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sums: Tensor,
    dout: Tensor,
    lengths: Tensor,
    offset: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of the shapes of q, k and v."""
    q, k, v, dout = q.contiguous(), k.contiguous(), v.contiguous(), dout.contiguous()
    row_sums = (dout.float() * out.float()).sum(dim=-1)  # [B H T], D of the derivation
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    shape, numbers = _tiles(q.shape[3]), _sizes(q, k, offset)
    given = (q, k, v, dout, log_sums, row_sums)
    if k.numel():
        grid = (_blocks(k.shape[2], shape["BLOCK_K"]), k.shape[0] * k.shape[1])
        kernels().keys_kernel[grid](*given, dk, dv, lengths, *numbers, CAUSAL=causal, **shape)
    if q.numel():
        grid = (_blocks(q.shape[2], shape["BLOCK_Q"]), q.shape[0] * q.shape[1])
        kernels().queries_kernel[grid](*given, dq, lengths, *numbers, CAUSAL=causal, **shape)
    return dq, dk, dv


@backward_op.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    log_sums: Tensor,
    dout: Tensor,
    lengths: Tensor,
    offset: int,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _keep(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # torch's own signature has no types
    q, k, v, lengths, ctx.offset, ctx.causal = inputs
    out, log_sums = output
    ctx.save_for_backward(q, k, v, out, log_sums, lengths)


def _backward(ctx, dout: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
    q, k, v, out, log_sums, lengths = ctx.saved_tensors
    return (*backward_op(q, k, v, out, log_sums, dout, lengths, ctx.offset, ctx.causal), None, None, None)


attention_op.register_autograd(_backward, setup_context=_keep)
