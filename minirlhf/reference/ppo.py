"""PPO's two losses: NumPy float64, forward and hand-derived backward.

Policy, Schulman et al. 2017, arXiv:1707.06347, eq. 7. For one token with advantage A, r = exp(log p - log p_old), so
dr/dlog p = r, and c = clip(r, 1-e, 1+e): loss = -min(r A, c A) = max(-r A, -c A).

    A >= 0:  r A <= c A  iff  r <= c  iff  r <= 1+e (below 1-e, c = 1-e > r).    gradient -A r if r <= 1+e, else 0
    A <  0:  r A <= c A  iff  r >= c  iff  r >= 1-e.                             gradient -A r if r >= 1-e, else 0

    In words: it is 0 exactly where the policy has already moved beyond the clip in the direction A asks for.

Value, Huang et al. 2023, "The N Implementation Details of RLHF with PPO". For one token with return R, value v and
old value o: u = o + clip(v - o, -e, e), loss = max((v - R)^2, (u - R)^2) / 2.

    the first is larger (or u = v):  gradient v - R
    the second is larger:            then u != v, so v lies beyond the clip, du/dv = 0, gradient 0
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def ppo_policy_loss(
    log_probs: Floats, old_log_probs: Floats, advantages: Floats, response_mask: Bools, clip_range: float
) -> float:
    """Mean of max(-A r, -A clip(r)) over the counted tokens."""
    losses = []
    for i in np.ndindex(log_probs.shape):
        if response_mask[i]:
            ratio = np.exp(log_probs[i] - old_log_probs[i])
            clipped = float(np.clip(ratio, 1 - clip_range, 1 + clip_range))
            losses.append(max(-advantages[i] * ratio, -advantages[i] * clipped))
    return float(np.mean(losses))


def ppo_policy_grad(
    log_probs: Floats, old_log_probs: Floats, advantages: Floats, response_mask: Bools, clip_range: float
) -> Floats:
    """Gradient [B R] with respect to log_probs, by the two cases above."""
    gradient = np.zeros(log_probs.shape)
    for i in np.ndindex(log_probs.shape):
        if response_mask[i]:
            ratio = np.exp(log_probs[i] - old_log_probs[i])
            learns = ratio <= 1 + clip_range if advantages[i] >= 0 else ratio >= 1 - clip_range
            gradient[i] = -advantages[i] * ratio / response_mask.sum() if learns else 0.0
    return gradient


def clipped_value_loss(
    values: Floats, old_values: Floats, returns: Floats, response_mask: Bools, clip_range: float
) -> float:
    """Half the mean of the larger of the two squared errors over the counted tokens."""
    losses = []
    for i in np.ndindex(values.shape):
        if response_mask[i]:
            clipped = old_values[i] + float(np.clip(values[i] - old_values[i], -clip_range, clip_range))
            losses.append(max((values[i] - returns[i]) ** 2, (clipped - returns[i]) ** 2) / 2)
    return float(np.mean(losses))


def clipped_value_grad(
    values: Floats, old_values: Floats, returns: Floats, response_mask: Bools, clip_range: float
) -> Floats:
    """Gradient [B R] with respect to values, by the two cases above."""
    gradient = np.zeros(values.shape)
    for i in np.ndindex(values.shape):
        if response_mask[i]:
            clipped = old_values[i] + float(np.clip(values[i] - old_values[i], -clip_range, clip_range))
            if abs(values[i] - returns[i]) >= abs(clipped - returns[i]):
                gradient[i] = (values[i] - returns[i]) / response_mask.sum()
    return gradient
