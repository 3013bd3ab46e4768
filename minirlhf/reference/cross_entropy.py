"""Cross-entropy: NumPy float64, forward and hand-derived backward.

    L = -(1/n) sum over the n counted tokens of log s_y,   s = softmax(z)        Bengio et al. 2003, section 2

By equation 2 of likelihood.py the gradient of log s_y at the logits is onehot(y) - s, so

    dL/dz = (s - onehot(y)) / n on counted rows, 0 elsewhere.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.likelihood import onehot, token_log_probs
from minirlhf.reference.softmax import softmax

Floats = NDArray[np.float64]


def cross_entropy_sum(log_probs: Floats, loss_mask: NDArray[np.bool_]) -> tuple[float, int]:
    """Summed surprise of the counted tokens in nats, and how many they are."""
    counted = [float(log_probs[index]) for index in np.ndindex(loss_mask.shape) if loss_mask[index]]
    return -sum(counted), len(counted)


def cross_entropy(logits: Floats, targets: NDArray[np.int64], loss_mask: NDArray[np.bool_]) -> float:
    """Mean surprise of the counted targets, nats per token; 0 if none counts. logits [... V], the rest [...]."""
    total, count = cross_entropy_sum(token_log_probs(logits, targets), loss_mask)
    return total / count if count else 0.0


def cross_entropy_grad(logits: Floats, targets: NDArray[np.int64], loss_mask: NDArray[np.bool_]) -> Floats:
    """Gradient [... V] of cross_entropy with respect to logits."""
    count = max(int(loss_mask.sum()), 1)
    return np.where(loss_mask[..., None], (softmax(logits) - onehot(targets, logits.shape[-1])) / count, 0.0)
