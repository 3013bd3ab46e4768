"""The guard rails of an unstable run, as small predicates: each says that, and why, a step should not be taken."""

from collections.abc import Iterable

import torch
from torch import Tensor

from minirlhf.objectives.masked import check_token_arrays


class NonFiniteError(ArithmeticError):
    """A tensor that should hold numbers holds NaN or infinity; the message names it."""


@torch.no_grad()
def ratio_too_large(log_probs: Tensor, old_log_probs: Tensor, response_mask: Tensor, limit: float = 100.0) -> bool:
    """True if any counted token's ratio is above limit (or NaN): this minibatch should be skipped.

    Shapes: log_probs, old_log_probs float [B R]; response_mask bool [B R].
    Raises: ValueError if shapes differ, nothing counts, or limit is not above 1.
    """
    check_token_arrays(response_mask, log_probs=log_probs, old_log_probs=old_log_probs)
    if not limit > 1:
        raise ValueError(f"the limit must be above 1, the ratio of a policy that has not moved, got {limit}")
    ratio = (log_probs - old_log_probs)[response_mask].exp()
    return not bool(ratio.max() <= limit)  # written so that NaN is too large


def kl_above_target(approx_kl_nats_per_token: float, target: float | None = None) -> bool:
    """True if this rollout's remaining epochs should be dropped: the policy has moved further than target (or to NaN).

    None, the default, never stops.  Raises: ValueError unless target is positive or None.
    """
    if target is None:
        return False
    if not target > 0:
        raise ValueError(f"the target must be positive, got {target}")
    return not approx_kl_nats_per_token <= target


@torch.no_grad()
def describe_non_finite(named_tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """None if every number is finite; otherwise a sentence naming the first tensor that is not."""
    for name, tensor in named_tensors:
        nans, infinities = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        if nans or infinities:
            return f"{name} is not finite: {nans} NaN and {infinities} infinite of {tensor.numel()} values"
    return None


def check_finite(**tensors: Tensor) -> None:
    """Raises NonFiniteError naming the first tensor that holds NaN or infinity."""
    problem = describe_non_finite(tensors.items())
    if problem:
        raise NonFiniteError(problem)
