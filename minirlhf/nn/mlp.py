"""Three ways for a token to think by itself, [... D] -> [... D] through `hidden` numbers."""

import torch.nn.functional as F
from torch import Tensor, nn


class GeluMLP(nn.Module):
    """to_out(gelu(to_hidden(x))), with GPT-2's tanh form of gelu. Hendrycks and Gimpel 2016, arXiv:1606.08415."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_hidden = nn.Linear(width, hidden, bias=bias)
        self.to_out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(F.gelu(self.to_hidden(x), approximate="tanh"))


class SquaredReluMLP(nn.Module):
    """to_out(max(0, to_hidden(x))²): no exponential to compute. So et al. 2021, arXiv:2109.08668, section 3."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_hidden = nn.Linear(width, hidden, bias=bias)
        self.to_out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_out(F.relu(self.to_hidden(x)).square())


class SwiGLU(nn.Module):
    """to_out(swish(gate) · up), where swish(x) = x · sigmoid(x). Shazeer 2020, arXiv:2002.05202, eq. 6."""

    def __init__(self, width: int, hidden: int, bias: bool):
        super().__init__()
        self.to_gate_and_up = nn.Linear(width, 2 * hidden, bias=bias)  # one matrix product instead of two
        self.to_out = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.to_gate_and_up(x).chunk(2, dim=-1)
        return self.to_out(F.silu(gate) * up)
