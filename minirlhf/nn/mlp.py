"""Three feed-forward layers, [... D] -> [... D] through `hidden` numbers, each token by itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from minirlhf.nn.linear import Linear
from minirlhf.nn.norm import raised


class GeluMLP(nn.Module):
    """to_out(gelu(to_hidden(x))), with GPT-2's tanh form of gelu. Hendrycks and Gimpel 2016, arXiv:1606.08415."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_hidden = Linear(width, hidden, bias=bias)
        self.to_out = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(gelu(self.to_hidden(x)))


class SquaredReluMLP(nn.Module):
    """to_out(max(0, to_hidden(x))²): no exponential to compute. So et al. 2021, arXiv:2109.08668, section 3."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_hidden = Linear(width, hidden, bias=bias)
        self.to_out = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(relu2(self.to_hidden(x)))


class SwiGLU(nn.Module):
    """to_out(swish(gate) · up), where swish(x) = x · sigmoid(x). Shazeer 2020, arXiv:2002.05202, eq. 6."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_gate_and_up = Linear(width, 2 * hidden, bias=bias)  # one matrix product instead of two
        self.to_out = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.to_gate_and_up(x).chunk(2, dim=-1)
        return self.to_out(F.silu(gate) * up)


def gelu(x: Tensor) -> Tensor:
    """GPT-2's gelu, x · (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2, any shape, written x · sigmoid(2 √(2/π) (...)).

    (1 + tanh(u)) / 2 = sigmoid(2u): the same curve, and an exponential costs a third of a hyperbolic tangent. The slope
    is reckoned on the way, where the sigmoid is at hand, so that the gradient is one product.
    """
    if torch.is_grad_enabled():
        return Gelu.apply(x)
    if x.ndim == 3 and x.shape[1] == 1:  # decoding: calls cost more than hyperbolic tangents, and this is one call
        return F.gelu(x, approximate="tanh")
    return gelu_and_sigmoid(x)[0]


ROOT = 2 * (2 / torch.pi) ** 0.5
CUBIC = 0.044715 * ROOT


def gelu_and_sigmoid(x: Tensor) -> tuple[Tensor, Tensor]:
    """x · sigmoid(u) and sigmoid(u), with u = ROOT · x + CUBIC · x³."""
    sigmoid = torch.addcmul(x.new_full((), ROOT), x, x, value=CUBIC).mul_(x).sigmoid_()
    return x * sigmoid, sigmoid


class Gelu(torch.autograd.Function):
    """gelu, with its slope: sigmoid + x · sigmoid · (1 - sigmoid) · (ROOT + 3 CUBIC x²)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = raised(x)
        y, sigmoid = gelu_and_sigmoid(wide)
        bend = torch.addcmul(wide.new_full((), ROOT), wide, wide, value=3 * CUBIC).mul_(y)
        ctx.save_for_backward(bend.lerp_(wide.new_ones(()), sigmoid).to(x))  # bend (1 - sigmoid) + sigmoid
        return y.to(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return dy * slope


def relu2(x: Tensor) -> Tensor:
    """max(0, x)², any shape."""
    return Relu2.apply(x) if torch.is_grad_enabled() else F.relu(x).square_()


class Relu2(torch.autograd.Function):
    """relu2, with its slope: 2 max(0, x) = 2 √y, so that nothing but y is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x).square_()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return y.sqrt().mul_(dy).mul_(2)
