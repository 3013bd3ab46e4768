"""When not to take a step: NumPy float64, the definitions."""

import numpy as np
from numpy.typing import NDArray


def ratio_too_large(
    log_probs: NDArray[np.float64],
    old_log_probs: NDArray[np.float64],
    response_mask: NDArray[np.bool_],
    limit: float = 100.0,
) -> bool:
    """Has any counted token become more than `limit` times as likely? [B R]."""
    return any(
        np.exp(log_probs[index] - old_log_probs[index]) > limit
        for index in np.ndindex(response_mask.shape)
        if response_mask[index]
    )


def kl_above_target(approx_kl_nats_per_token: float, target: float | None) -> bool:
    """Has the policy moved further than the target?"""
    return target is not None and approx_kl_nats_per_token > target
