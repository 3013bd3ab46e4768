"""Muon by hand: the matrices of the blocks step along their momentum made orthogonal; everything else is AdamW's.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; `reference/muon.py` derives it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minirlhf.trainers.optim import AdamW, OptimConfig, Optimizer, check_state

QUINTICS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""(a, b, c) of three polynomials a σ + b σ³ + c σ⁵ that, one after the other, lead [0.01, 1] into [0.73, 1.27].
Amsel et al. 2025, arXiv:2505.16932; `best_quintic` in the reference works them out."""


def make_optimizer(named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> Optimizer:
    """The optimizer that config.optimizer names, for these parameters."""
    return (Muon if config.optimizer == "muon" else AdamW)(named_parameters, config)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: all singular values of [N m n] brought close to 1, directions kept.

    Newton–Schulz: X <- a X + (b G + c G²) X with G = X Xᵀ acts on the singular values alone, σ <- a σ + b σ³ + c σ⁵.
    """
    if matrices.shape[-2] > matrices.shape[-1]:  # G is smaller the fewer the rows
        return orthogonalise(matrices.mT).mT
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-20)  # a matrix of zeros stays one
    for a, b, c in QUINTICS:
        gram = x @ x.mT  # [N m m]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def whole(x: Any) -> Tensor:
    """A matrix that is cut up among several processes, put together; any other as it is."""
    together: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return together


def cut_like(matrix: Any, x: Tensor) -> Tensor:
    """This process's part of x, cut up as the matrix is; all of it where that is whole."""
    if not hasattr(matrix, "full_tensor"):
        return x
    from torch.distributed.tensor import distribute_tensor  # a second to import, and seldom needed

    return distribute_tensor(x, matrix.device_mesh, matrix.placements, src_data_rank=None)


class Muon:
    """Momentum made orthogonal for the matrices inside the blocks, AdamW for embeddings, norms, biases and heads.

    An update is scaled by 0.2 √max(rows, columns), so that its entries are as large as AdamW's: both take the same
    learning rate and weight decay (Liu et al. 2025, arXiv:2502.16982, section 2.2). Matrices of one shape are made
    orthogonal together. A parameter without a gradient is left alone.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig | None = None):
        config = OptimConfig() if config is None else config
        named = list(named_parameters)
        inside = [(name, p) for name, p in named if p.requires_grad and p.ndim == 2 and "blocks" in name.split(".")]
        chosen = {name for name, _ in inside}
        self.adamw = AdamW([(name, p) for name, p in named if name not in chosen], config)
        self.momentum_decay, self.weight_decay = config.momentum, config.weight_decay
        self.names = [name for name, _ in inside]
        self.matrices = [matrix for _, matrix in inside]
        if len({id(matrix) for matrix in self.matrices}) != len(inside) or len(chosen) != len(inside):
            raise ValueError("a parameter, or a parameter's name, was given twice")
        self.momentum = [torch.zeros_like(matrix) for matrix in self.matrices]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad()
        for matrix in self.matrices:
            matrix.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient."""
        self.adamw.step(learning_rate)
        same_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for matrix, momentum in zip(self.matrices, self.momentum, strict=True):
            if matrix.grad is not None:
                momentum.lerp_(matrix.grad, 1 - self.momentum_decay)  # m <- beta m + (1 - beta) g
                ahead = matrix.grad.lerp(momentum, self.momentum_decay)  # where the momentum will be one step on
                same_shape.setdefault(matrix.shape, []).append((matrix, ahead))
        for shape, pairs in same_shape.items():
            updates = orthogonalise(torch.stack([whole(ahead) for _, ahead in pairs]))
            for (weight, _), update in zip(pairs, updates, strict=True):
                weight.mul_(1 - learning_rate * self.weight_decay)
                weight.add_(cut_like(weight, update), alpha=-learning_rate * 0.2 * max(shape) ** 0.5)

    def state_tensors(self) -> dict[str, Tensor]:
        """A copy of everything a resumed run needs: AdamW's, and `momentum.NAME` of every matrix."""
        momenta = zip(self.names, self.momentum, strict=True)
        return self.adamw.state_tensors() | {f"momentum.{name}": momentum.clone() for name, momentum in momenta}

    @torch.no_grad()
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """The inverse of state_tensors; nothing is changed unless everything fits.  Raises: UserError otherwise."""
        check_state(self.state_tensors(), state)
        ours = {f"momentum.{name}": momentum for name, momentum in zip(self.names, self.momentum, strict=True)}
        for name, momentum in ours.items():
            momentum.copy_(state[name])
        self.adamw.load_state_tensors({name: value for name, value in state.items() if name not in ours})
