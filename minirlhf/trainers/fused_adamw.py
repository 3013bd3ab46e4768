"""AdamW's step as one kernel of torch's that reads every number once, where optim.py's definition takes ten passes."""

import torch
from torch import Tensor


def fused_adamw(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: list[int],
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Move the parameters and their moments in place; steps counts this one. Only matrices decay.

    The same arithmetic as AdamW's definition, up to rounding (tests/trainers/test_optim.py).
    """
    device = parameters[0].device  # full() makes a number there; tensor() would copy it, and a GPU would be waited for
    counts = {count: torch.full((), float(count), device=device) for count in set(steps)}
    matrices = [i for i, parameter in enumerate(parameters) if parameter.ndim >= 2]
    others = [i for i, parameter in enumerate(parameters) if parameter.ndim < 2]
    for chosen, decay in ((matrices, weight_decay), (others, 0.0)):
        if chosen:
            torch._fused_adamw_(
                [parameters[i] for i in chosen],
                [gradients[i] for i in chosen],
                [first[i] for i in chosen],
                [second[i] for i in chosen],
                [],  # the running maximum of AMSGrad, which is off
                [counts[steps[i]] for i in chosen],
                lr=learning_rate,
                beta1=betas[0],
                beta2=betas[1],
                weight_decay=decay,
                eps=eps,
                amsgrad=False,
                maximize=False,
            )
