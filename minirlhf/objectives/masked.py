"""Sums, means and whitening over the positions that count, and the check at every objective's door.

Whatever stands where the mask is False (junk, infinities, NaN) reaches neither a value nor a gradient: it is
replaced by 0 before any arithmetic, because multiplying by 0 afterwards would let NaN through.
"""

import torch
from torch import Tensor


def check_token_arrays(mask: Tensor, *, allow_empty: bool = False, **arrays: Tensor) -> None:
    """Check that every named array is floating point and has the shape of a bool mask with at least one True.

    Raises: ValueError naming the array. allow_empty lets a mask without any True pass.
    """
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask must be bool (True counts), got {mask.dtype}")
    for name, array in arrays.items():
        if array.shape != mask.shape:
            raise ValueError(f"{name} has shape {tuple(array.shape)}, the mask has {tuple(mask.shape)}")
        if not array.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {array.dtype}")
    if not allow_empty and not mask.any():
        raise ValueError(f"the mask of shape {tuple(mask.shape)} has no True: nothing counts")


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """The sum of x where mask is True, a scalar; 0 with zero gradients when nothing counts.

    Shapes: x float, mask bool of the same shape.  Raises: ValueError if they do not fit.
    """
    check_token_arrays(mask, allow_empty=True, x=x)
    return x.masked_fill(~mask, 0.0).sum()


def masked_mean(x: Tensor, mask: Tensor, count: Tensor | int | None = None) -> Tensor:
    """The mean of x where mask is True, a scalar.

    Shapes: x float, mask bool of the same shape.
    count:  what to divide the sum by. When x is one micro-batch of several, give the number of True in all of
            them together: the losses (and gradients) of the micro-batches then add up to the full batch's.
    Raises: ValueError if shapes differ, or if count is not given and nothing counts.
    """
    check_token_arrays(mask, allow_empty=count is not None, x=x)
    return x.masked_fill(~mask, 0.0).sum() / (mask.sum() if count is None else count)


def masked_whiten(x: Tensor, mask: Tensor, shift_mean: bool) -> Tensor:
    """Scale the counted values to variance 1 and, if shift_mean, move their mean to 0; 0 where mask is False.

    Huang et al. 2023, "The N Implementation Details of RLHF with PPO": rewards are whitened without moving the
    mean (which would change what is good and what is bad), advantages with. The variance is the biased one
    (divided by n), so a single value stays finite; 1e-8 below the root keeps constant values finite.

    Shapes: x float, mask bool of the same shape; returns that shape. No gradient: what comes out is data.
    Raises: ValueError if shapes differ or nothing counts.
    """
    check_token_arrays(mask, x=x)
    x = x.detach().masked_fill(~mask, 0.0)
    count = mask.sum()
    mean = x.sum() / count
    highest, lowest = x.masked_fill(~mask, -torch.inf).amax(), x.masked_fill(~mask, torch.inf).amin()
    centred = (x - mean).masked_fill(~mask, 0.0).masked_fill(highest == lowest, 0.0)  # the mean may be rounded
    whitened = centred * torch.rsqrt(centred.square().sum() / count + 1e-8)
    return whitened if shift_mean else (whitened + mean).masked_fill(~mask, 0.0)
