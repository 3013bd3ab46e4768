"""Kahneman-Tversky optimisation: NumPy float64, forward and hand-derived backward.

Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8. Answers come one by one, each only called desirable or not. With the
log-ratio l = log p(y|x) - log q(y|x) and the reference point z = KL(policy || reference), which is data:

    desirable:    v = w_d sigmoid(beta (l - z))          L = w_d - v = w_d sigmoid(-beta (l - z))
    undesirable:  v = w_u sigmoid(beta (z - l))          L = w_u - v = w_u sigmoid(-beta (z - l))

averaged over the batch. With s = 1 for desirable and -1 for undesirable answers, both are w sigmoid(-beta s (l - z)),
and as sigmoid' = sigmoid (1 - sigmoid), with p = sigmoid(-beta s (l - z)),

    dL/dlog p = -w beta s p (1 - p) / B.

It is largest at the reference point and dies away on both sides: gains and losses far from it count less and less.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.bradley_terry import preference_probability

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def kto(
    log_probs: Floats,
    ref_log_probs: Floats,
    desirable: Bools,
    kl_nats: float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> float:
    """Mean loss per answer, from summed log-probabilities [B]; desirable bool [B]; kl_nats >= 0."""
    weight = np.where(desirable, desirable_weight, undesirable_weight)
    return float(np.mean(weight * _lost(log_probs, ref_log_probs, desirable, kl_nats, beta)))


def kto_grad(
    log_probs: Floats,
    ref_log_probs: Floats,
    desirable: Bools,
    kl_nats: float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Floats:
    """The gradient [B] with respect to log_probs."""
    weight = np.where(desirable, desirable_weight, undesirable_weight)
    sign = np.where(desirable, 1.0, -1.0)
    lost = _lost(log_probs, ref_log_probs, desirable, kl_nats, beta)
    return -weight * beta * sign * lost * (1 - lost) / len(log_probs)


def _lost(log_probs: Floats, ref_log_probs: Floats, desirable: Bools, kl_nats: float, beta: float) -> Floats:
    """sigmoid(-beta s (l - z)) of each answer, [B]."""
    gained = np.where(desirable, 1.0, -1.0) * beta * (log_probs - ref_log_probs - kl_nats)
    return preference_probability(-gained, np.zeros_like(gained))
