"""KL(policy || reference), exact and estimated, and the adaptive coefficient: NumPy float64 with derivations.

Exact, for one position: K = sum_i p_i (log p_i - log q_i), p = softmax(z / T), q fixed. With
d p_i = p_i d log p_i and d log p_i / d z_k = (1[i=k] - p_k) / T:

    dK/dz_k = sum_i p_i (log p_i - log q_i + 1) (1[i=k] - p_k) / T
            = (p_k (log p_k - log q_k + 1) - p_k (K + 1)) / T = p_k (log p_k - log q_k - K) / T                    (1)

Estimators from a sample x ~ p, with d = log p_x - log q_x (Schulman 2020, "Approximating KL Divergence"):

    k1 = d                E[k1] = K by definition                                              k1' = 1             (2)
    k2 = d^2 / 2          biased                                                               k2' = d             (3)
    k3 = exp(-d) - 1 + d  E[exp(-d)] = sum_i p_i q_i/p_i = 1, so E[k3] = K; >= 0 as e^u >= 1+u k3' = 1 - exp(-d)   (4)

where ' is the derivative by log p_x. A loss differentiates through log p_x only, so its mean gradient is
sum_i p_i k'(d_i) dlog p_i/dz_k, and sum_i p_i c_i (1[i=k] - p_k) = p_k (c_k - sum_i p_i c_i) gives

    k1: c = 1           -> p_k (1 - 1) = 0
    k2: c = d           -> p_k (d_k - K), which is (1), the gradient of K                                          (5)
    k3: c = 1 - q/p     -> p_k (1 - q_k/p_k - 0) = p_k - q_k, the gradient of KL(q || p)                           (6)
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import log_softmax

Floats = NDArray[np.float64]


def exact_kl(logits: Floats, ref_logits: Floats, temperature: float = 1.0) -> Floats:
    """Exact KL of each position, nats: [... V] -> [...]."""
    log_probs, ref_log_probs = log_softmax(logits, temperature), log_softmax(ref_logits, temperature)
    return (np.exp(log_probs) * (log_probs - ref_log_probs)).sum(axis=-1)


def exact_kl_grad(upstream: Floats, logits: Floats, ref_logits: Floats, temperature: float = 1.0) -> Floats:
    """Gradient [... V] of sum(upstream * exact_kl) with respect to logits, by (1)."""
    log_probs, ref_log_probs = log_softmax(logits, temperature), log_softmax(ref_logits, temperature)
    kl = exact_kl(logits, ref_logits, temperature)[..., None]
    return upstream[..., None] * np.exp(log_probs) * (log_probs - ref_log_probs - kl) / temperature


def k1(log_probs: Floats, ref_log_probs: Floats) -> tuple[Floats, Floats]:
    """The estimate and its derivative by log_probs, by (2)."""
    d = log_probs - ref_log_probs
    return d, np.ones_like(d)


def k2(log_probs: Floats, ref_log_probs: Floats) -> tuple[Floats, Floats]:
    """The estimate and its derivative by log_probs, by (3)."""
    d = log_probs - ref_log_probs
    return d * d / 2, d


def k3(log_probs: Floats, ref_log_probs: Floats) -> tuple[Floats, Floats]:
    """The estimate and its derivative by log_probs, by (4)."""
    d = log_probs - ref_log_probs
    return np.expm1(-d) + d, -np.expm1(-d)


def next_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """Ziegler et al. 2019, arXiv:1909.08593, section 2.2: proportional control in log space, error clipped to ±0.2."""
    error = float(np.clip((kl - target) / target, -0.2, 0.2))
    return kl_coef * (1 + error * episodes / horizon)
