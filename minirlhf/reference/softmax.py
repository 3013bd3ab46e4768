"""Softmax and its logarithm: scores to probabilities, forward and backward.

    p_i = exp(z_i) / Σ_j exp(z_j)                    Bridle 1990; Goodfellow et al. 2016, eq. 4.1

Subtracting the largest score first changes nothing (it cancels) and keeps exp from overflowing.

Gradient. From log p_i = z_i - log Σ exp(z_j) follows ∂p_i/∂z_j = p_i (1[i=j] - p_j). With the gradient dp of what
comes after, the chain rule gives

    dz_j = Σ_i dp_i p_i (1[i=j] - p_j) = p_j (dp_j - Σ_i dp_i p_i).

The logarithm, at temperature T, is s_i = z_i/T - log Σ_j exp(z_j/T), so ∂s_i/∂z_j = (1[i=j] - p_j) / T and

    dz_j = Σ_i ds_i (1[i=j] - p_j) / T = (ds_j - p_j Σ_i ds_i) / T,      p = softmax(z / T).
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    """Scores [... N] to probabilities [... N]. A score of -inf gets 0; a row of nothing else gets 0 throughout."""
    largest = z.max(axis=-1, keepdims=True)
    exponentials = np.exp(z - np.where(np.isfinite(largest), largest, 0.0))
    total = exponentials.sum(axis=-1, keepdims=True)
    return exponentials / np.where(total > 0, total, 1.0)


def softmax_grad(p: Array, dp: Array) -> Array:
    """The gradient at the scores, given softmax's output p and the gradient dp there. All [... N]."""
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def log_softmax(z: Array, temperature: float = 1.0) -> Array:
    """log softmax(z / T), [... N] -> [... N], without ever taking the logarithm of a rounded 0."""
    scaled = z / temperature
    shifted = scaled - scaled.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_softmax_grad(z: Array, dout: Array, temperature: float = 1.0) -> Array:
    """The gradient at the scores z from the gradient dout of log softmax(z / T). All [... N]."""
    p = np.exp(log_softmax(z, temperature))
    return (dout - p * dout.sum(axis=-1, keepdims=True)) / temperature
