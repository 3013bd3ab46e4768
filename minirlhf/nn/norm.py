"""Two ways to keep a token's numbers at a steady size, [... D] -> [... D]."""

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """(x - mean) / √(variance + eps) · weight + bias, over the last axis. Ba et al. 2016, arXiv:1607.06450, eq. 4."""

    def __init__(self, width: int, bias: bool = True, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        normed = (x - mean) * (variance + self.eps).rsqrt()
        return normed * self.weight if self.bias is None else torch.addcmul(self.bias, normed, self.weight)


class RMSNorm(nn.Module):
    """x / √(mean(x²) + eps) · weight, over the last axis. Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4."""

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt() * self.weight
