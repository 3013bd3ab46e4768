"""Rewards and generalised advantages, written as the definitions: NumPy float64, plain loops.

None of these has a backward: rewards, advantages and returns are data to the losses that use them.

Schulman et al. 2016, arXiv:1506.02438. With V_t the value of the state before token t, n tokens in the response and
V_n the worth of what lies beyond it (0 when it is over), the TD error is delta_t = r_t + gamma V_{t+1} - V_t and

    A_t = sum_{l=0}^{n-1-t} (gamma lambda)^l delta_{t+l}                                                      (eq. 16)

    lambda = 0:  A_t = delta_t.
    lambda = 1:  the values telescope, sum_l gamma^l (r + gamma V_{t+l+1} - V_{t+l})
                 = sum_l gamma^l r_{t+l} + gamma^{n-t} V_n - V_t, the discounted return minus the value.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def last_response_index(response_mask: Bools) -> NDArray[np.int64]:
    """The place of each response's last token, [B R] -> [B]."""
    return np.array([max(t for t in range(response_mask.shape[1]) if row[t]) for row in response_mask])


def shape_rewards(
    scores: Floats, log_probs: Floats, ref_log_probs: Floats, response_mask: Bools, kl_coef: float
) -> Floats:
    """Per token minus kl_coef * (log_probs - ref_log_probs); the score once more at the last token. [B R]."""
    rewards = np.zeros(response_mask.shape)
    for b in range(response_mask.shape[0]):
        counted = [t for t in range(response_mask.shape[1]) if response_mask[b, t]]
        for t in counted:
            rewards[b, t] = -kl_coef * (log_probs[b, t] - ref_log_probs[b, t])
        rewards[b, counted[-1]] += scores[b]
    return rewards


def gae(
    rewards: Floats, values: Floats, response_mask: Bools, gamma: float, gae_lambda: float, beyond: Floats
) -> tuple[Floats, Floats]:
    """(advantages, returns) [B R] by eq. 16 term by term, O(R^2). beyond [B] is V_n of each response."""
    advantages, returns = np.zeros(rewards.shape), np.zeros(rewards.shape)
    for b in range(rewards.shape[0]):
        n = int(response_mask[b].sum())
        state_values = [*values[b, :n], beyond[b]]
        for t in range(n):
            for later in range(t, n):
                delta = rewards[b, later] + gamma * state_values[later + 1] - state_values[later]
                advantages[b, t] += (gamma * gae_lambda) ** (later - t) * delta
            returns[b, t] = advantages[b, t] + values[b, t]
    return advantages, returns


def discounted_returns(rewards: Floats, response_mask: Bools, gamma: float, beyond: Floats) -> Floats:
    """sum over l of gamma^l r_{t+l}, plus the discounted worth of what lies beyond, [B R], 0 off the mask."""
    returns = np.zeros(rewards.shape)
    for b in range(rewards.shape[0]):
        n = int(response_mask[b].sum())
        for t in range(n):
            returns[b, t] = sum(gamma ** (later - t) * rewards[b, later] for later in range(t, n))
            returns[b, t] += gamma ** (n - t) * beyond[b]
    return returns


def clip_magnitude(x: Floats, limit: float) -> Floats:
    """Every value moved to the nearest one in [-limit, limit]."""
    return np.array([max(-limit, min(limit, float(value))) for value in x.flat]).reshape(x.shape)


def clip_magnitude_grad(x: Floats, limit: float, dout: Floats) -> Floats:
    """The gradient passes where nothing was clipped. Any shape."""
    return np.where(np.abs(x) <= limit, dout, 0.0)
