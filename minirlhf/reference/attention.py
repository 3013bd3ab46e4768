"""Attention, one head at a time, forward and backward. Vaswani et al. 2017, arXiv:1706.03762, eq. 1.

    M = q kᵀ / √K,      W = softmax of M's rows over what is visible,      out = W v

Row t of W says how token t shares its attention among the tokens it may see: itself and those before it.
Several heads do this side by side on slices of the width. In grouped-query attention (Ainslie et al. 2023,
arXiv:2305.13245) H/G neighbouring heads ask the same keys and values.

Backward, one product after the other (for y = a b: da = dy bᵀ, db = aᵀ dy):

    out = W v          dW = dout vᵀ          dv = Wᵀ dout
    W = softmax(M)     dM = W · (dW - row sums of dW · W)         (softmax.py); where W is 0, nothing flows
    M = q kᵀ / √K      dq = dM k / √K        dk = dMᵀ q / √K

A key that several heads share collects the gradients of them all.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array, softmax, softmax_grad

Bools = NDArray[np.bool_]


def causal(attention_mask: Bools) -> Bools:
    """Who may look at whom, [T T]: token t at the real tokens (attention_mask [T]) up to itself."""
    return np.tri(len(attention_mask), dtype=bool) & attention_mask


def attention_weights(q: Array, k: Array, visible: Bools) -> Array:
    """W [T S]: rows sum to 1, or to 0 where nothing is visible."""
    match = q @ k.T / np.sqrt(q.shape[-1])  # [T S]
    return softmax(np.where(visible, match, -np.inf))


def attend(q: Array, k: Array, v: Array, visible: Bools) -> Array:
    """q [T K], k and v [S K], visible [T S] -> [T K]. A row that sees nothing gives zeros."""
    return attention_weights(q, k, visible) @ v


def attend_grad(q: Array, k: Array, v: Array, visible: Bools, dout: Array) -> tuple[Array, Array, Array]:
    """(dq [T K], dk [S K], dv [S K]) from the gradient dout [T K] of the output."""
    weights = attention_weights(q, k, visible)
    dmatch = softmax_grad(weights, dout @ v.T) / np.sqrt(q.shape[-1])  # [T S]
    return dmatch @ k, dmatch.T @ q, weights.T @ dout


def per_group(x: Array, y: Array) -> Array:
    """x [H T I] @ y [G I J] -> [H T J]: each matrix of y serves H/G neighbours of x."""
    return np.stack([x[head] @ y[head // (len(x) // len(y))] for head in range(len(x))])


def per_group_grad(x: Array, y: Array, dout: Array) -> tuple[Array, Array]:
    """(dx [H T I], dy [G I J]) from the gradient dout [H T J]: a shared matrix collects from all it serves."""
    group = len(x) // len(y)
    dy = np.zeros(y.shape)
    for head in range(len(x)):
        dy[head // group] += x[head].T @ dout[head]
    return np.stack([dout[head] @ y[head // group].T for head in range(len(x))]), dy


def eager_attend(q: Array, k: Array, v: Array, visible: Bools) -> Array:
    """One head after the other: q [H T K], k and v [G S K], visible [T S] -> [H T K]."""
    group = q.shape[0] // k.shape[0]
    return np.stack([attend(q[head], k[head // group], v[head // group], visible) for head in range(q.shape[0])])


def eager_attend_grad(q: Array, k: Array, v: Array, visible: Bools, dout: Array) -> tuple[Array, Array, Array]:
    """(dq [H T K], dk [G S K], dv [G S K]) from the gradient dout [H T K] of the output."""
    group = q.shape[0] // k.shape[0]
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for head in range(q.shape[0]):
        shared = head // group
        dq[head], to_k, to_v = attend_grad(q[head], k[shared], v[shared], visible, dout[head])
        dk[shared] += to_k
        dv[shared] += to_v
    return dq, dk, dv
