"""Two ways to keep a token's numbers at a steady size, [... D] -> [... D].

Both gradients are written by hand, beside the forward they belong to: recorded operation by operation, they would
take a tenth of a small model's training step. `reference/norm.py` derives them. Half precision is raised to float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LayerNorm(nn.Module):
    """(x - mean) / √(variance + eps) · weight + bias, over the last axis. Ba et al. 2016, arXiv:1607.06450, eq. 4."""

    def __init__(self, width: int, bias: bool = True, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = raised(x)
        normed = Standardise.apply(x, self.eps) if torch.is_grad_enabled() else standardise(x, self.eps)[0]
        normed = normed.to(self.weight)
        return normed * self.weight if self.bias is None else torch.addcmul(self.bias, normed, self.weight)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight, over the last axis. Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = raised(x)
        normed = Rescale.apply(x, self.eps) if torch.is_grad_enabled() else rescale(x, self.eps)[0]
        return normed.to(self.weight) * self.weight


def raised(x: Tensor) -> Tensor:
    """x in float32 or better."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def standardise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """y = (x - mean) r, and r = 1 / √(variance + eps). [... D] -> [... D], [... 1]."""
    y = x - x.mean(dim=-1, keepdim=True)
    r = _one_over_size(y, eps)  # torch.var_mean is many times slower on a CPU
    return y.mul_(r), r


def rescale(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """y = x r, and r = 1 / √(mean(x²) + eps). [... D] -> [... D], [... 1]."""
    r = _one_over_size(x, eps)
    return x * r, r


def _one_over_size(x: Tensor, eps: float) -> Tensor:
    """1 / √(mean(x²) + eps), [... D] -> [... 1]."""
    return (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()  # vecdot would be bfloat16 under autocast


class Standardise(torch.autograd.Function):
    """standardise, with its gradient: dx = r (dy - mean(dy) - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, r = standardise(x, eps)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        y, r = ctx.saved_tensors
        along = (dy * y).mean(dim=-1, keepdim=True)
        return (dy - dy.mean(dim=-1, keepdim=True)).addcmul_(y, along, value=-1).mul_(r), None


class Rescale(torch.autograd.Function):
    """rescale, with its gradient: dx = r (dy - y mean(dy y))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, r = rescale(x, eps)
        ctx.save_for_backward(y, r)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        y, r = ctx.saved_tensors
        return torch.addcmul(dy, y, (dy * y).mean(dim=-1, keepdim=True), value=-1).mul_(r), None
