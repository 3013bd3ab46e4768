"""Causal self-attention: every token asks the tokens before it. Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

Dimension letters: B batch, T tokens that ask, S tokens looked at, D width, H heads, G key-value heads, K head width.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from minirlhf.nn.cache import AnyCache
from minirlhf.nn.linear import Linear
from minirlhf.nn.norm import RMSNorm
from minirlhf.nn.rope import Rotation, rotate

Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(q [B H T K], k [B G S K], v [B G S K], visible bool broadcasting to [B H T S]) -> [B H T K]."""


def eager_attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """softmax(q kᵀ / √K) v over what is visible: the definition, written to be read.

    visible says which of the S tokens each of the T may look at. A row that sees nothing gives zeros: the second
    `where` replaces its NaN weights, and the first one stops their gradient.
    """
    match = per_group(q * q.shape[-1] ** -0.5, k.mT)  # [B H T S]
    weights = torch.where(visible, match, -torch.inf).softmax(dim=-1)
    return per_group(torch.where(visible, weights, 0.0), v)  # rows of weights sum to 1, or to 0


Asked = int | Tensor | None
"""Of which tokens an answer is wanted: the last so many, one in each row (its place, int64 [B]), or all (None)."""


def of_asked(x: Tensor, asked: Asked) -> Tensor:
    """The rows [... N I] of x [... T I] that belong to the tokens asked; with places, x [B ... T I] or [T I]."""
    if asked is None:
        return x
    if isinstance(asked, int):
        return x[..., x.shape[-2] - asked :, :]
    if x.ndim == 2:
        return x[asked][:, None, None]  # [T S] -> [B 1 1 S]
    return x.take_along_dim(asked.view(-1, *[1] * (x.ndim - 1)), dim=-2)


def per_group(x: Tensor, y: Tensor) -> Tensor:
    """x [B H T I] @ y [B G I J] -> [B H T J]: each head of y serves H/G neighbouring heads of x, uncopied.

    Grouped-query attention, Ainslie et al. 2023, arXiv:2305.13245. With G = H this is plain `x @ y`.
    """
    if x.shape[1] == y.shape[1]:
        return x @ y
    grouped = rearrange(x, "B (G Q) T I -> B G (Q T) I", G=y.shape[1])  # heads of a group become more rows
    return rearrange(grouped @ y, "B G (Q T) J -> B (G Q) T J", T=x.shape[2])


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention with one fused projection, [B T D] -> [B T D]. `layer` is its place in the cache.

    With qk_norm_eps, each head's queries and keys are brought to a steady size before they meet, so that no match can
    grow out of bounds. Henry et al. 2020, arXiv:2010.04245, section 3.1; with RMSNorm, as Qwen 3 does it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        bias: bool,
        layer: int = 0,
        attend: Attend = eager_attend,
        qk_norm_eps: float | None = None,
    ):
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(f"heads {heads} must divide width {width}, and kv_heads {kv_heads} must divide heads")
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.layer, self.attend = layer, attend
        self.to_qkv = Linear(width, (heads + 2 * kv_heads) * self.head_width, bias=bias)
        self.to_out = Linear(width, width, bias=bias)
        self.q_norm = None if qk_norm_eps is None else RMSNorm(self.head_width, qk_norm_eps)
        self.k_norm = None if qk_norm_eps is None else RMSNorm(self.head_width, qk_norm_eps)

    def forward(
        self,
        x: Tensor,
        visible: Tensor,
        rotation: Rotation | None = None,
        cache: AnyCache | None = None,
        asked: Asked = None,
    ) -> Tensor:
        qkv = self.to_qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)  # [B H+2G T K]
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # [B G S K], S = cached + T
        q, visible = of_asked(q, asked), of_asked(visible, asked)  # only these produce queries; all provide keys
        q, k = q.to(v), k.to(v)  # under autocast, norm and rotation have raised them above v's precision
        return self.to_out(self.attend(q, k, v, visible).transpose(1, 2).flatten(2))  # [B T H K] -> [B T D]
