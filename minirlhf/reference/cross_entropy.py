"""Log-probabilities of tokens, entropy and cross-entropy: NumPy float64, forward and hand-derived backward.

One row of logits z in R^V, one target y, temperature T, and s = softmax(z / T).

    log softmax     log s_i = z_i/T - log sum_j exp(z_j/T)
                    d log s_i / d z_k = (1[i=k] - s_k) / T                                                         (1)
                    because d/dz_k log sum_j exp(z_j/T) = exp(z_k/T) / (T sum_j exp(z_j/T)) = s_k / T.
    token           log s_y, so by (1) its gradient is (onehot(y) - s) / T.                                        (2)
    entropy         H = -sum_i s_i log s_i (Shannon 1948, section 6). With d s_i = s_i d log s_i,
                    dH/dz_k = -sum_i s_i (log s_i + 1) (1[i=k] - s_k) / T
                            = -(s_k (log s_k + 1) - s_k sum_i s_i (log s_i + 1)) / T
                            = -(s_k (log s_k + 1) - s_k (1 - H)) / T = -s_k (log s_k + H) / T.                     (3)
    cross-entropy   L = -(1/n) sum over the n counted tokens of log s_y (Bengio et al. 2003, section 2), so by (2)
                    dL/dz = (s - onehot(y)) / (n T) on counted rows, 0 elsewhere.                                  (4)
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Log-probabilities [... V] in nats; the maximum is subtracted first, so that no exponent overflows."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))


def onehot(targets: NDArray[np.int64], vocab_size: int) -> Floats:
    """1.0 at each target, 0.0 elsewhere: [...] -> [... V]."""
    return (targets[..., None] == np.arange(vocab_size)).astype(np.float64)


def token_log_probs(logits: Floats, targets: NDArray[np.int64], temperature: float = 1.0) -> Floats:
    """Log-probability of each target: [... V], [...] -> [...]."""
    return (log_softmax(logits, temperature) * onehot(targets, logits.shape[-1])).sum(axis=-1)


def token_log_probs_grad(
    upstream: Floats, logits: Floats, targets: NDArray[np.int64], temperature: float = 1.0
) -> Floats:
    """Gradient [... V] of sum(upstream * token_log_probs), by (2)."""
    softmax = np.exp(log_softmax(logits, temperature))
    return upstream[..., None] * (onehot(targets, logits.shape[-1]) - softmax) / temperature


def entropy(logits: Floats, temperature: float = 1.0) -> Floats:
    """Entropy of each row, nats: [... V] -> [...]."""
    log_probs = log_softmax(logits, temperature)
    return -(np.exp(log_probs) * log_probs).sum(axis=-1)


def entropy_grad(upstream: Floats, logits: Floats, temperature: float = 1.0) -> Floats:
    """Gradient [... V] of sum(upstream * entropy), by (3)."""
    log_probs = log_softmax(logits, temperature)
    softmax = np.exp(log_probs)
    mean = (softmax * log_probs).sum(axis=-1, keepdims=True)  # -H
    return -upstream[..., None] * softmax * (log_probs - mean) / temperature


def cross_entropy(logits: Floats, targets: NDArray[np.int64], loss_mask: NDArray[np.bool_]) -> float:
    """Mean surprise of the counted targets, nats per token; 0 if none counts."""
    total, count = 0.0, 0
    log_probs = token_log_probs(logits, targets)
    for index in np.ndindex(loss_mask.shape):
        if loss_mask[index]:
            total, count = total - float(log_probs[index]), count + 1
    return total / count if count else 0.0


def cross_entropy_grad(logits: Floats, targets: NDArray[np.int64], loss_mask: NDArray[np.bool_]) -> Floats:
    """Gradient [... V] of cross_entropy, by (4)."""
    count = max(int(loss_mask.sum()), 1)
    softmax = np.exp(log_softmax(logits))
    return np.where(loss_mask[..., None], (softmax - onehot(targets, logits.shape[-1])) / count, 0.0)
