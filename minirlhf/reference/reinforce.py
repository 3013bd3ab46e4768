"""REINFORCE: NumPy float64, forward and hand-derived backward.

Williams 1992, section 4, Theorem 1. The expected reward is J = sum_x p(x) A(x); since d p(x) = p(x) d log p(x),
dJ = E_{x ~ p}[A(x) d log p(x)]: sample, and weigh the gradient of the log-probability by how good it was. The loss
L = -(1/n) sum over counted tokens of A_t log p_t has that gradient: dL/dlog p_t = -A_t / n, and A_t is data.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def reinforce_loss(log_probs: Floats, advantages: Floats, response_mask: Bools) -> float:
    """Minus the mean of advantage * log-probability over the counted tokens."""
    return -float(np.mean([advantages[i] * log_probs[i] for i in np.ndindex(log_probs.shape) if response_mask[i]]))


def reinforce_loss_grad(log_probs: Floats, advantages: Floats, response_mask: Bools) -> Floats:
    """Gradient [B R] with respect to log_probs."""
    return np.where(response_mask, -advantages / response_mask.sum(), 0.0)
