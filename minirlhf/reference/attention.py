"""Attention, one head at a time. Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

    attention(q, k, v) = softmax(q kᵀ / √K) v

Row t of the weights says how token t shares its attention among the tokens it may see: itself and those before it.
Several heads do this side by side on slices of the width. In grouped-query attention (Ainslie et al. 2023,
arXiv:2305.13245) H/G neighbouring heads ask the same keys and values.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array, softmax


def attend(q: Array, k: Array, v: Array, visible: NDArray[np.bool_]) -> Array:
    """q [T K], k and v [S K], visible [T S] -> [T K]. A row that sees nothing gives zeros."""
    match = q @ k.T / np.sqrt(q.shape[-1])  # [T S]
    return softmax(np.where(visible, match, -np.inf)) @ v


def multi_head(q: Array, k: Array, v: Array, visible: NDArray[np.bool_]) -> Array:
    """q [H T K], k and v [G S K], visible [T S] -> [H T K]."""
    group = q.shape[0] // k.shape[0]
    return np.stack([attend(q[head], k[head // group], v[head // group], visible) for head in range(q.shape[0])])
