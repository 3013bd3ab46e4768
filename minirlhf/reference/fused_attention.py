"""Attention in tiles, forward and backward: the same numbers without ever holding the [T S] weights.

Dao 2023, arXiv:2307.08691 (FlashAttention-2), algorithms 1 and 2. attention.py has the definition; this is how the
kernel of nn/fused_attention.py reckons it, step by step, in NumPy.

Forward: online softmax (Milakov and Gimelshein 2018, arXiv:1805.02867, algorithm 3). A row of scores s is read block by
block. Kept are the largest score so far m, the sum l of exp(s - m) and the sum a of exp(s - m) v. When a block brings
a larger m', everything so far was measured from the wrong largest score: multiply it by exp(m - m'). At the end
out = a / l, and the row's log-sum-exp L = m + log l is all that backward needs to know: any weight can be made again
as w = exp(s - L), in its own tile, when it is wanted.

Backward. From attention.py: dw = dout · v, ds = w (dw - Σ w dw), dq = Σ ds k / √K, dk = Σ ds q / √K, dv = Σ w dout.
The sum in ds runs over a whole row, which no tile holds. But it is known already: as out = Σ w v,

    Σ_s w_s dw_s = Σ_s w_s (dout · v_s) = dout · Σ_s w_s v_s = dout · out,

one number a row, D. So every tile can do its part alone: dk and dv sum over the queries of a block of keys, dq over
the keys of a block of queries. Each is summed by one worker in one order, so that the result is deterministic.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import Array

Bools = NDArray[np.bool_]


def visible_tile(rows: NDArray[np.int64], columns: NDArray[np.int64], length: int, offset: int, causal: bool) -> Bools:
    """May query row i look at key column j? j must be one of the `length` real keys and, if causal, not lie after the
    query, whose place among the keys is i + offset. [rows columns]."""
    seen = np.broadcast_to(columns < length, (len(rows), len(columns)))
    return seen & (columns <= rows[:, None] + offset) if causal else seen


def fused_attention(
    q: Array, k: Array, v: Array, length: int, offset: int = 0, causal: bool = True, block: int = 2
) -> tuple[Array, Array]:
    """One head: q [T K], k and v [S K] -> out [T K] and log-sum-exp [T]. A row that sees nothing gives 0 and -inf."""
    out, log_sums = np.zeros(q.shape), np.full(len(q), -np.inf)
    for start in range(0, len(q), block):
        rows = np.arange(start, min(start + block, len(q)))
        largest, total = np.full(len(rows), -np.inf), np.zeros(len(rows))
        gathered = np.zeros((len(rows), v.shape[1]))
        for first in range(0, len(k), block):
            columns = np.arange(first, min(first + block, len(k)))
            scores = scores_tile(q, k, rows, columns, length, offset, causal)
            larger = np.maximum(largest, scores.max(axis=1))
            safe = np.where(np.isfinite(larger), larger, 0.0)  # a row that has seen nothing yet
            weights, shrink = np.exp(scores - safe[:, None]), np.exp(largest - safe)
            total = total * shrink + weights.sum(axis=1)
            gathered = gathered * shrink[:, None] + weights @ v[columns]
            largest = larger
        some = total > 0
        out[rows[some]] = gathered[some] / total[some, None]
        log_sums[rows[some]] = largest[some] + np.log(total[some])
    return out, log_sums


def fused_attention_grad(
    q: Array,
    k: Array,
    v: Array,
    dout: Array,
    length: int,
    offset: int = 0,
    causal: bool = True,
    block: int = 2,
) -> tuple[Array, Array, Array]:
    """(dq [T K], dk [S K], dv [S K]) from the gradient dout [T K], tile by tile."""
    out, log_sums = fused_attention(q, k, v, length, offset, causal, block)
    row_sums = (dout * out).sum(axis=1)  # D
    scale = 1 / np.sqrt(q.shape[1])
    dq, dk, dv = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for first in range(0, len(k), block):
        columns = np.arange(first, min(first + block, len(k)))
        for start in range(0, len(q), block):
            rows = np.arange(start, min(start + block, len(q)))
            scores = scores_tile(q, k, rows, columns, length, offset, causal)
            safe = np.where(np.isfinite(log_sums[rows]), log_sums[rows], 0.0)
            weights = np.exp(scores - safe[:, None])  # made again
            dscores = weights * (dout[rows] @ v[columns].T - row_sums[rows, None]) * scale
            dv[columns] += weights.T @ dout[rows]
            dk[columns] += dscores.T @ q[rows]
            dq[rows] += dscores @ k[columns]
    return dq, dk, dv


def scores_tile(
    q: Array,
    k: Array,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    length: int,
    offset: int,
    causal: bool,
) -> Array:
    """q kᵀ / √K of one tile, -inf where not visible. [rows columns]."""
    scores = q[rows] @ k[columns].T / np.sqrt(q.shape[1])
    return np.where(visible_tile(rows, columns, length, offset, causal), scores, -np.inf)
