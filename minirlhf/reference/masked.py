"""Sums, means and whitening over the positions that count: NumPy float64, forward and hand-derived backward.

    sum   d/dx_i = 1 where i counts, 0 elsewhere            mean   d/dx_i = 1/n where i counts, 0 elsewhere

Whitening has no backward: whitened rewards and advantages are data. Huang et al. 2023, "The N Implementation Details
of RLHF with PPO": rewards are scaled without moving their mean, advantages with.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def masked_sum(x: Floats, mask: Bools) -> float:
    """x and mask of one shape."""
    return float(sum(x[index] for index in np.ndindex(mask.shape) if mask[index]))


def masked_sum_grad(mask: Bools) -> Floats:
    return mask.astype(np.float64)


def masked_mean(x: Floats, mask: Bools) -> float:
    """x and mask of one shape, with at least one True."""
    return masked_sum(x, mask) / int(mask.sum())


def masked_mean_grad(mask: Bools) -> Floats:
    return mask / mask.sum()


def masked_whiten(x: Floats, mask: Bools, shift_mean: bool) -> Floats:
    """Counted values to variance 1 (biased, plus 1e-8) and, if shift_mean, mean 0; 0 off the mask."""
    counted = x[mask]
    mean = counted.mean()
    centred = np.zeros(counted.shape) if (counted == counted[0]).all() else counted - mean  # the mean may be rounded
    scaled = centred / np.sqrt((centred**2).mean() + 1e-8)
    whitened = np.zeros(x.shape)
    whitened[mask] = scaled if shift_mean else scaled + mean
    return whitened
