"""Two functions of the same tensors, held against each other in value and in every gradient."""

from collections.abc import Callable

import torch
from torch import Tensor

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradients(function: Callable[..., Tensor], *leaves: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """function's value and its gradient through each leaf. A value that is no scalar is summed with fixed weights."""
    fresh = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = function(*fresh)
    return value.detach(), torch.autograd.grad((value * randn(0, *value.shape)).sum(), fresh, materialize_grads=True)


def assert_same(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *leaves: Tensor, **tolerance: float
) -> None:
    """Equal in value and in the gradient through every leaf, in float64."""
    tolerance = tolerance or EXACT
    our_value, our_gradients = value_and_gradients(ours, *leaves)
    their_value, their_gradients = value_and_gradients(theirs, *leaves)
    torch.testing.assert_close(our_value, their_value, **tolerance)
    for place, (mine, other) in enumerate(zip(our_gradients, their_gradients, strict=True)):
        torch.testing.assert_close(
            mine, other, msg=lambda text, at=place: f"gradient of leaf {at}: {text}", **tolerance
        )
