"""A matrix product with a bias, [... I] -> [... O], that stays quick when there are few rows."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW_ROWS = 8  # above it the product is worth splitting by rows, which the library does itself
LARGE = 1 << 17  # numbers of a weight: half a megabyte; a smaller one is read before a second core could join in


class Linear(nn.Linear):
    """x weightᵀ + bias."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ + bias: x float [... I], weight [O I], bias [O] -> [... O]. reference/linear.py has its gradient.

    One more token is one row, and its product takes as long as it takes to read the weight. The matrix library shares
    a product among the cores by rows of the left factor, so for few rows the weight is put on the left.
    """
    few = not torch.is_grad_enabled() and x.numel() <= FEW_ROWS * x.shape[-1]
    if few and weight.numel() >= LARGE and weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return weight_first(x, weight, bias)
    return F.linear(x, weight, bias)


def weight_first(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(weight xᵀ + bias)ᵀ. A single column would be left to one core as a product with a vector, so it goes twice."""
    rows = x.reshape(-1, x.shape[-1])  # [N I]
    columns = rows.T if len(rows) > 1 else rows.repeat(2, 1).T  # [I N]
    y = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)  # [O N]
    return y.T[: len(rows)].reshape(*x.shape[:-1], len(weight))
