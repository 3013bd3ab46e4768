"""What must hold before reinforcement learning starts: sensible settings, and a reference that nobody trains."""

import math

from torch import nn

from minirlhf.errors import UserError


def check_settings(config: object, **ranges: tuple[float, float]) -> None:
    """Each named field must be finite and lie in [low, high], or be None. Raises UserError naming the flag."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise UserError(
                f"{name} is out of range",
                where=f"--{name.replace('_', '-')}",
                found=str(value),
                expected=f"{_bound(low, 'at least', 'above')}" + _upper(high),
            )


def _upper(high: float) -> str:
    return "" if math.isinf(high) else f" and {_bound(high, 'at most', 'below')}"


def _bound(limit: float, including: str, excluding: str) -> str:
    """A limit in words; 1e-9 stands for "above 0", 1 - 1e-9 for "below 1", 0.5 - 1e-9 for "below 0.5"."""
    near = 0 < abs(limit - round(limit, 3)) < 1e-6
    return f"{excluding} {round(limit, 3):g}" if near else f"{including} {limit:g}"


def freeze(reference: nn.Module, trained: nn.Module) -> None:
    """Put the reference into eval() mode and take its gradients away.

    Raises ValueError if it shares a parameter with what is trained: it would move along, and every KL would read 0.
    """
    shared = {id(parameter) for parameter in trained.parameters()}
    for name, parameter in reference.named_parameters():
        if id(parameter) in shared:
            raise ValueError(f"the reference shares {name} with a trained network; give it a copy of its own")
        parameter.requires_grad_(False)
    reference.eval()
