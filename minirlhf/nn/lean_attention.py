"""The same attention in fewer passes over memory: what lies behind the diagonal is left out, the gradient is by hand.

Recorded operation by operation, `eager_attend` reads and writes the whole [T S] weights a dozen times on the way to its
gradient. Here the weights are made in place, a block of rows at a time and only as far as those rows may look, and read
three times more. reference/attention.py derives the gradient, in the same letters.
"""

from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from minirlhf.nn.attention import per_group

BLOCK = 64  # rows at a time: half of a [64 64] block is hidden, and a product of that size is still worth its call


def lean_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """`eager_attend` for causal attention: q [B H T K], k, v [B G S K], visible bool [T S] or [B 1 T S] -> [B H T K].

    The T tokens are the last of the S: what visible says of tokens behind the one that asks is not looked at.
    """
    if torch.is_grad_enabled():
        return LeanAttention.apply(q, k, v, visible)
    scaled = q * q.shape[-1] ** -0.5
    if q.shape[2] == 1 and torch.compiler.is_compiling():
        return one_asks(scaled, k, v, visible)
    if q.shape[2] == 1 and visible.ndim == 2:  # one more token without padding, so it sees all there is
        return per_group(per_group(scaled, k.mT).softmax(dim=-1), v)
    return joined([out for out, _ in attended_blocks(scaled, k, v, visible)])


def one_asks(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """`attended` for one token that asks, q [B H 1 K] -> [B H 1 K], its products as sums.

    A compiler joins these sums with what stands before and behind them, and saves the calls of two small products.
    """
    q, k, v = rearrange(q, "B (G Q) T K -> B G Q T K", G=k.shape[1]), k.unsqueeze(2), v.unsqueeze(2)
    visible = visible.unsqueeze(-3).squeeze(-2)  # [1 S] or [B 1 1 S]
    match = torch.where(visible, (q * k).sum(dim=-1), -torch.inf)  # [B G Q S]
    weights = torch.where(visible, match.softmax(dim=-1), 0.0).to(v)
    return rearrange((weights.unsqueeze(-1) * v).sum(dim=-2), "B G Q K -> B (G Q) 1 K")


def attended_blocks(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """`attended` of one block of rows after the other."""
    for rows, seen in blocks(q.shape[2], k.shape[2]):
        yield attended(q[:, :, rows], k[:, :, :seen], v[:, :, :seen], visible[..., rows, :seen])


def joined(parts: list[Tensor]) -> Tensor:
    """The blocks of rows below each other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def blocks(tokens: int, keys: int) -> Iterator[tuple[slice, int]]:
    """Slices of the rows 0 ... tokens, and how many of the keys the last row of each may look at."""
    for start in range(0, max(tokens, 1), BLOCK):
        end = min(start + BLOCK, tokens)
        yield slice(start, end), keys - tokens + end


def attended(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ) v over what is visible, [B H T K], and the softmax, [B H T S]. q comes scaled by 1 / √K.

    What is hidden gets half the lowest number there is: e to that power is 0, and no sum with it overflows. A row that
    sees nothing then looks everywhere, and its output is set to zero.
    """
    hidden = torch.zeros(visible.shape, dtype=q.dtype, device=q.device)
    hidden.masked_fill_(~visible, torch.finfo(q.dtype).min / 2)
    weights = per_group(q, k.mT).add_(hidden).softmax(dim=-1).to(v)  # autocast leaves a softmax in float32
    return per_group(weights, v).mul_(visible.any(dim=-1, keepdim=True)), weights


class LeanAttention(torch.autograd.Function):
    """Attention and its gradient: dv = wᵀ dout, dw = dout vᵀ, ds = w (dw - Σ w dw), dq = ds k / √K, dk = dsᵀ q / √K."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        scaled = torch.mul(q, q.shape[-1] ** -0.5, out=q.new_empty(q.shape))  # in the order the products want
        k, v = k.contiguous(), v.contiguous()
        outs, weights = zip(*attended_blocks(scaled, k, v, visible), strict=True)
        out = joined(list(outs))
        ctx.save_for_backward(scaled, k, v, visible, out, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        scaled, k, v, visible, out, *weights = ctx.saved_tensors
        dout = torch.mul(dout, visible.any(dim=-1, keepdim=True), out=torch.empty_like(out))  # rows that see nothing: 0
        shared = (dout * out).sum(dim=-1, keepdim=True)  # Σ w dw of each row, without a pass over the weights
        dq = list[Tensor]()
        dk = dv = None
        last_first = reversed([*zip(blocks(scaled.shape[2], k.shape[2]), weights, strict=True)])
        for (rows, seen), block in last_first:  # the last sees every key, so it makes dk and dv; the others add to them
            dweights = per_group(dout[:, :, rows], v[:, :, :seen].mT)  # [B H T S]
            dscores = dweights.sub_(shared[:, :, rows]).mul_(block)
            dq.append(per_group(dscores, k[:, :, :seen]))
            dk = plus(dk, over_group(dscores, scaled[:, :, rows], k.shape[1]))
            dv = plus(dv, over_group(block, dout[:, :, rows], k.shape[1]))
        return joined(dq[::-1]).mul_(scaled.shape[-1] ** -0.5), dk, dv, None


def plus(total: Tensor | None, part: Tensor) -> Tensor:
    """Add to total, in place, what one block has for the first keys, [B G S K]; the last block has all of them."""
    if total is None:
        return part
    total[:, :, : part.shape[2]] += part
    return total


def over_group(x: Tensor, y: Tensor, kv_heads: int) -> Tensor:
    """xᵀ y, summed over the heads that share a key: x [B H T S], y [B H T K] -> [B G S K]."""
    if x.shape[1] == kv_heads:
        return x.mT @ y
    x, y = (rearrange(each, "B (G Q) T I -> B G (Q T) I", G=kv_heads) for each in (x, y))
    return x.mT @ y
