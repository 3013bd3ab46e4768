"""PPO's two losses: NumPy float64, forward and hand-derived backward.

Policy, Schulman et al. 2017, arXiv:1707.06347, eq. 7. For one token with advantage A, r = exp(log p - log p_old), so
dr/dlog p = r, and c = clip(r, 1-e, 1+e): loss = -min(r A, c A) = max(-r A, -c A).

    A >= 0:  r A <= c A  iff  r <= c  iff  r <= 1+e (below 1-e, c = 1-e > r).    gradient -A r if r <= 1+e, else 0
    A <  0:  r A <= c A  iff  r >= c  iff  r >= 1-e.                             gradient -A r if r >= 1-e, else 0

    In words: it is 0 exactly where the policy has already moved beyond the clip in the direction A asks for.

Value, Huang et al. 2023, "The N Implementation Details of RLHF with PPO". For one token with return R, value v and
old value o: u = o + clip(v - o, -e, e), loss = max((v - R)^2, (u - R)^2) / 2.

    |v - o| <= e:  u = v, both are one:                      gradient v - R
    |v - o| > e:   u does not move with v. The first is larger:  gradient v - R;  the second is:  gradient 0
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


def ppo_policy_loss_grad(
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


def clipped_value_loss_grad(
    values: Floats, old_values: Floats, returns: Floats, response_mask: Bools, clip_range: float
) -> Floats:
    """Gradient [B R] with respect to values, by the two cases above."""
    gradient = np.zeros(values.shape)
    for i in np.ndindex(values.shape):
        if response_mask[i]:
            clipped = old_values[i] + float(np.clip(values[i] - old_values[i], -clip_range, clip_range))
            moved_too_far = abs(values[i] - old_values[i]) > clip_range
            if not moved_too_far or abs(values[i] - returns[i]) >= abs(clipped - returns[i]):
                gradient[i] = (values[i] - returns[i]) / response_mask.sum()
    return gradient


def explained_variance(values: Floats, returns: Floats, response_mask: Bools) -> float:
    """1 - Var(returns - values) / Var(returns) over the counted tokens; 0 where all returns are equal."""
    target, error = returns[response_mask], (returns - values)[response_mask]
    spread = float(np.mean((target - target.mean()) ** 2))
    return 1 - float(np.mean((error - error.mean()) ** 2)) / spread if spread > 0 else 0.0


def ppo_diagnostics(
    log_probs: Floats, old_log_probs: Floats, response_mask: Bools, clip_range: float
) -> dict[str, float]:
    """Ratios, k3 estimate of KL(old || new) and the share outside the clip, token by token."""
    ratios = [np.exp(log_probs[i] - old_log_probs[i]) for i in np.ndindex(log_probs.shape) if response_mask[i]]
    return {
        "ratio_mean": float(np.mean(ratios)),
        "ratio_max": float(np.max(ratios)),
        "approx_kl_nats_per_token": float(np.mean([r - 1 - np.log(r) for r in ratios])),
        "clip_fraction": float(np.mean([r > 1 + clip_range or r < 1 - clip_range for r in ratios])),
    }
