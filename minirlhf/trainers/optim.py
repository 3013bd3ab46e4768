"""The optimizer by hand: AdamW, the learning-rate schedule, and one step that refuses to move on broken gradients."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from minirlhf.errors import UserError
from minirlhf.objectives.guards import NonFiniteError, describe_non_finite
from minirlhf.trainers.fused_adamw import fused_adamw


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer, its schedule and its clipping."""

    learning_rate: float = 3e-3
    """Peak learning rate, reached after the warm-up."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: the matrices of the blocks step along their momentum made orthogonal; adamw moves all the rest."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the second moment; matters in the first steps, when that is small."""
    momentum: float = 0.9
    """Decay of the running mean of the gradient that muon makes orthogonal; adamw has betas."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices; biases and norm gains are never decayed."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises linearly to its peak."""
    final_fraction: float = 0.1
    """What is left of the peak learning rate at the very last step."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm if theirs is larger; inf never does."""
    fused: bool = True
    """Leave AdamW's arithmetic to torch's one kernel for it, faster than the definition and equal up to rounding."""

    def __post_init__(self) -> None:
        betas = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        checks = {
            "optimizer": (self.optimizer in ("adamw", "muon"), "adamw or muon"),
            "learning_rate": (0 <= self.learning_rate < math.inf, "a number >= 0"),
            "betas": (betas, "two numbers in [0, 1)"),
            "eps": (self.eps > 0, "a number > 0"),
            "momentum": (0 <= self.momentum < 1, "a number in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, "a number >= 0"),
            "warmup_steps": (self.warmup_steps >= 0, "a whole number >= 0"),
            "final_fraction": (0 <= self.final_fraction <= 1, "a number in [0, 1]"),
            "schedule": (self.schedule in ("cosine", "linear", "constant"), "cosine, linear or constant"),
            "max_grad_norm": (self.max_grad_norm > 0, "a number > 0, or inf"),
        }
        for name, (good, expected) in checks.items():
            if not good:
                raise UserError(f"{name} is out of range", found=str(getattr(self, name)), expected=expected)


def learning_rate_at(step: int, total_steps: int, config: OptimConfig) -> float:
    """The learning rate of step 0, 1, ... total_steps - 1.

    It rises linearly over warmup_steps (the first step already moves), stands at its peak at step warmup_steps, and
    reaches exactly final_fraction of the peak at step total_steps - 1, where it stays; "constant" keeps the peak. A run
    no longer than its warm-up ends while it rises. One of a single step, without a warm-up, takes it at the peak:
    annealed to 0 it would learn nothing.
    Raises: ValueError if step is below 0 or total_steps below 1.
    """
    if step < 0 or total_steps < 1:
        raise ValueError(f"expected step >= 0 and total_steps >= 1, got {step} and {total_steps}")
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    last = total_steps - 1
    if last == 0:
        return config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / (last - config.warmup_steps)) if step < last else 1.0
    remaining = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * remaining)


class Optimizer(Protocol):
    """What a training step and a checkpoint need of an optimizer."""

    def zero_grad(self) -> None: ...
    def step(self, learning_rate: float) -> None: ...
    def state_tensors(self) -> dict[str, Tensor]: ...
    def load_state_tensors(self, state: dict[str, Tensor]) -> None: ...


class AdamW:
    """Adam with bias correction and decoupled weight decay.

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    Only tensors of two or more dimensions decay. A parameter without a gradient is left alone, and each parameter
    counts its own steps, so one that joins late gets the bias correction of a beginner. The torch._foreach_*
    functions treat the whole list of tensors in a few kernels instead of a few for each tensor; with config.fused,
    fused_adamw.py does the same in one.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig | None = None):
        config = OptimConfig() if config is None else config
        self.betas, self.eps, self.weight_decay = config.betas, config.eps, config.weight_decay
        self.fused = config.fused
        named = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        if len(set(self.names)) != len(named) or len({id(p) for p in self.parameters}) != len(named):
            raise ValueError("a parameter, or a parameter's name, was given twice")
        self.first = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]
        self.second = [torch.zeros_like(p, memory_format=torch.preserve_format) for p in self.parameters]
        self.steps = [0] * len(named)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move every parameter that has a gradient."""
        active = [i for i, parameter in enumerate(self.parameters) if parameter.grad is not None]
        if not active:
            return
        beta1, beta2 = self.betas
        for i in active:
            self.steps[i] += 1
        parameters: list[Tensor] = [self.parameters[i] for i in active]
        gradients = [p.grad for p in parameters if p.grad is not None]
        first, second = [self.first[i] for i in active], [self.second[i] for i in active]

        if self.fused:
            steps = [self.steps[i] for i in active]
            settings = (learning_rate, self.betas, self.eps, self.weight_decay)
            fused_adamw(parameters, gradients, first, second, steps, *settings)
            return
        matrices = [p for p in parameters if p.ndim >= 2]
        if self.weight_decay and matrices:
            torch._foreach_mul_(matrices, 1 - learning_rate * self.weight_decay)
        torch._foreach_lerp_(first, gradients, 1 - beta1)  # m <- beta1 m + (1 - beta1) g
        torch._foreach_mul_(second, beta2)  # v <- beta2 v + (1 - beta2) g^2
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        # w <- w - lr m_hat / (sqrt(v_hat) + eps), with m_hat = m / (1 - beta1^t) and v_hat = v / (1 - beta2^t)
        denominators = torch._foreach_sqrt(second)
        torch._foreach_div_(denominators, [math.sqrt(1 - beta2 ** self.steps[i]) for i in active])
        torch._foreach_add_(denominators, self.eps)
        scales = [-learning_rate / (1 - beta1 ** self.steps[i]) for i in active]
        torch._foreach_addcdiv_(parameters, first, denominators, scales)

    def state_tensors(self) -> dict[str, Tensor]:
        """A copy of everything a resumed run needs: `first.NAME`, `second.NAME` and `steps` int64 [parameters]."""
        state = {f"first.{name}": moment.clone() for name, moment in zip(self.names, self.first, strict=True)}
        state |= {f"second.{name}": moment.clone() for name, moment in zip(self.names, self.second, strict=True)}
        return state | {"steps": torch.tensor(self.steps, dtype=torch.int64)}

    @torch.no_grad()
    def load_state_tensors(self, state: dict[str, Tensor]) -> None:
        """The inverse of state_tensors; nothing is changed unless everything fits.  Raises: UserError otherwise."""
        check_state(self.state_tensors(), state)
        for i, name in enumerate(self.names):
            self.first[i].copy_(state[f"first.{name}"])
            self.second[i].copy_(state[f"second.{name}"])
        self.steps = [int(count) for count in state["steps"]]


def check_state(here: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """Raises UserError unless a saved state has the tensors of this one, each of its shape."""
    for name in sorted(here.keys() | state.keys()):
        found = f"{tuple(state[name].shape)}" if name in state else "nothing"
        expected = f"{tuple(here[name].shape)}" if name in here else "nothing"
        if found != expected:
            raise UserError(
                "the saved optimizer state does not fit this model",
                where=f'tensor "{name}"',
                found=found,
                expected=expected,
                fix="resume with the model and settings the run was started with",
            )


@torch.no_grad()
def clip_grad_norm(gradients: list[Tensor], max_norm: float) -> float:
    """Scale the gradients, in place, so that their norm taken as one long vector is at most max_norm.

    Pascanu et al. 2013, arXiv:1211.5063, algorithm 1. Returns the norm before scaling; if that is not finite,
    nothing is scaled.
    """
    if not gradients:
        return 0.0
    norms = torch._foreach_norm(gradients)
    norm = float(torch.stack([each.to(norms[0].device) for each in norms]).norm())
    if max_norm < norm < math.inf:
        torch._foreach_mul_(gradients, max_norm / norm)
    return norm


OPTIMIZER = "optimizer and clipping"  # the name of a step in a profile


@record_function(OPTIMIZER)
def guarded_step(model: nn.Module, optimizer: Optimizer, learning_rate: float, max_grad_norm: float) -> float:
    """Clip the model's gradients to a global norm and step; returns the norm before clipping.

    Raises: NonFiniteError naming the first broken tensor if a gradient holds NaN or infinity, before any weight or
            moment has moved; ValueError if max_grad_norm is not positive.
    """
    if not max_grad_norm > 0:
        raise ValueError(f"max_grad_norm must be positive, got {max_grad_norm}")
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norm = clip_grad_norm([gradient for _, gradient in named], max_grad_norm)
    if not math.isfinite(norm):
        problem = describe_non_finite((f"the gradient of {name}", gradient) for name, gradient in named)
        raise NonFiniteError(problem or "the norm of the gradients is too large for their number format")
    optimizer.step(learning_rate)
    return norm
