"""Where training starts: the numbers a new decoder's weights are drawn from."""

import torch
from torch import nn


@torch.no_grad()
def initialise(model: nn.Module, layers: int, zero: bool, generator: torch.Generator) -> None:
    """GPT-2's start: matrices normal with std 0.02, biases 0, gains 1 (Radford et al. 2019, section 2.3).

    The 2 · layers projections that write to the residual stream get std 0.02 / √(2 · layers), so that their sum
    has the variance of one. With `zero` they are 0, so that every block begins by adding nothing, and so is an
    untied unembedding, so that every token begins equally likely (Yang et al. 2021, arXiv:2203.03466, appendix D.2).
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            residual = name.endswith("to_out.weight")
            drawn = torch.randn(parameter.shape, generator=generator, device=generator.device)
            parameter.copy_(0.02 * drawn / (2 * layers) ** 0.5 if residual else 0.02 * drawn)
            if zero and (residual or name == "unembedding.weight"):
                parameter.zero_()
        elif name.endswith("bias"):
            parameter.zero_()
