"""The Plackett-Luce loss of a ranking: NumPy float64, forward and hand-derived backward.

Luce 1959; Plackett 1975, "The analysis of permutations", section 2. Draw the best answer from all, by a softmax of
the scores; then the best of the rest; and so on. With scores s_1 … s_n in the order of the ranking, best first,

    P = prod over k of exp(s_k) / sum over j >= k of exp(s_j),      L = -log P,  averaged over rankings.

The last factor is 1. Each factor is a cross-entropy over the answers k … n with target k, so with
p_k = softmax(s_k … s_n), dL/ds_i = sum over k <= i of (p_k(i) - 1[i = k]). It sums to 0: only differences count.
With two answers it is the Bradley-Terry loss.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import log_softmax

Floats = NDArray[np.float64]


def plackett_luce(scores: Floats, counts: NDArray[np.int64] | None = None) -> float:
    """Mean nats per ranking. scores [B N], best first; counts int [B]: how many of the N are there, all when None."""
    total = 0.0
    for row, n in zip(scores, _counts(scores, counts), strict=True):
        for k in range(n):
            total -= float(log_softmax(row[k:n])[0])
    return total / len(scores)


def plackett_luce_grad(scores: Floats, counts: NDArray[np.int64] | None = None) -> Floats:
    """The gradient [B N] with respect to scores, 0 at places that are not there."""
    gradient = np.zeros(scores.shape)
    for b, n in enumerate(_counts(scores, counts)):
        for k in range(n):
            gradient[b, k:n] += np.exp(log_softmax(scores[b, k:n]))
            gradient[b, k] -= 1
    return gradient / len(scores)


def _counts(scores: Floats, counts: NDArray[np.int64] | None) -> list[int]:
    return [scores.shape[1]] * len(scores) if counts is None else [int(n) for n in counts]
