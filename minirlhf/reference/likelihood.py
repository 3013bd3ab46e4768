"""The narrow waist: log-probabilities, in nats, of the tokens that really came. Forward and hand-derived backward.

One row of logits z in R^V, one target y, temperature T, and s = softmax(z / T).

    log softmax     log s_i = z_i/T - log sum_j exp(z_j/T),   d log s_i / d z_k = (1[i=k] - s_k) / T               (1)
                    (softmax.py)
    token           log s_y, so by (1) its gradient is (onehot(y) - s) / T.                                        (2)
    entropy         H = -sum_i s_i log s_i (Shannon 1948, section 6). With d s_i = s_i d log s_i,
                    dH/dz_k = -sum_i s_i (log s_i + 1) (1[i=k] - s_k) / T
                            = -(s_k (log s_k + 1) - s_k sum_i s_i (log s_i + 1)) / T
                            = -(s_k (log s_k + 1) - s_k (1 - H)) / T = -s_k (log s_k + H) / T.                     (3)
                    As a bonus in a loss it is subtracted: a policy that is less sure explores more.

Position t of a sequence predicts token t + 1: the logits that judge ids[t] stand at t - 1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import log_softmax

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


def log_probs_of(logits: Floats, temperature: float = 1.0) -> Floats:
    """Log-probabilities of the whole vocabulary, [... V] -> [... V]."""
    return log_softmax(logits, temperature)


def onehot(targets: Ids, vocab_size: int) -> Floats:
    """1.0 at each target, 0.0 elsewhere: [...] -> [... V]."""
    return (targets[..., None] == np.arange(vocab_size)).astype(np.float64)


def token_log_probs(logits: Floats, targets: Ids, temperature: float = 1.0) -> Floats:
    """Log-probability of each target: [... V], [...] -> [...]."""
    return (log_softmax(logits, temperature) * onehot(targets, logits.shape[-1])).sum(axis=-1)


def token_log_probs_grad(upstream: Floats, logits: Floats, targets: Ids, temperature: float = 1.0) -> Floats:
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


def token_log_probs_and_entropy(logits: Floats, targets: Ids, temperature: float = 1.0) -> tuple[Floats, Floats]:
    """Both, [... V], [...] -> two of [...]."""
    return token_log_probs(logits, targets, temperature), entropy(logits, temperature)


def sequence_log_probs(forward: Callable[[Ids], Floats], ids: Ids, temperature: float = 1.0) -> Floats:
    """Log-probability of ids[1], ids[2], …, each given those before it: ids [T+1] -> [T]. forward: ids [t] -> [t V]."""
    return np.array([token_log_probs(forward(ids[:t])[-1], ids[t], temperature) for t in range(1, len(ids))])


def response_log_probs(
    forward: Callable[[Ids], Floats], ids: Ids, response_tokens: int, temperature: float = 1.0
) -> tuple[Floats, Floats]:
    """Log-probability of each of the last response_tokens ids, and the entropy of the choice it was. Two of [R]."""
    first = len(ids) - response_tokens
    rows = [forward(ids[:t])[-1] for t in range(first, len(ids))]  # [V] each: what was known before token t
    log_probs = [token_log_probs(row, ids[first + i], temperature) for i, row in enumerate(rows)]
    return np.array(log_probs), np.array([entropy(row, temperature) for row in rows])
