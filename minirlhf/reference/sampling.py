"""One token out of a row of logits z [V]: temperature, top-k, top-p, and the draw.

    p_i = exp(z_i / T) / Σ_j exp(z_j / T)              Ackley et al. 1985; T is the temperature

Temperature divides every log-odds by T: log p_i / p_j = (z_i - z_j) / T. With b = 1/T and Z = Σ exp(b z) the entropy
is H = log Z - b E[z]. As d log Z / db = E[z] and dE[z] / db = Var[z],

    dH/db = E[z] - E[z] - b Var[z] = -b Var[z],        so  dH/dT = Var[z] / T³  >= 0:

a warmer distribution is a more spread out one, from the likeliest token alone (T -> 0) to an even share (T -> ∞).

Top-k keeps the k likeliest tokens (Fan et al. 2018, arXiv:1805.04833, section 5.4). Top-p keeps the fewest likeliest
that hold at least p (Holtzman et al. 2019, arXiv:1904.09751, eq. 2-3). What is left is divided by its sum. Top-k comes
first, then temperature, and top-p is measured on what these two leave.

The draw. Lay the probabilities side by side on [0, 1): token i owns an interval of length p_i, so a uniform number u
falls into it with probability p_i. Its token is the first whose cumulative sum exceeds u.
"""

import numpy as np

from minirlhf.reference.softmax import Array, softmax


def sampling_probs(z: Array, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Array:
    """The distribution [V] that a token is drawn from, given the logits z [V]."""
    if top_k is not None:
        z = keep_top_k(z, top_k)
    probs = softmax(z / temperature)
    if top_p is not None:
        probs = keep_top_p(probs, top_p)
    return probs


def keep_top_k(z: Array, k: int) -> Array:
    """-inf everywhere but at the k largest logits, [V] -> [V]; of equal ones the first."""
    kept = np.argsort(-z, kind="stable")[:k]
    cut = np.full_like(z, -np.inf)
    cut[kept] = z[kept]
    return cut


def keep_top_p(probs: Array, p: float) -> Array:
    """0 everywhere but at the fewest likeliest tokens that hold at least p, and these made to sum to 1. [V] -> [V]."""
    kept, held = np.zeros_like(probs), 0.0
    for token in np.argsort(-probs, kind="stable"):
        if held >= p:
            break
        kept[token] = probs[token]
        held += probs[token]
    return kept / kept.sum()


def invert_cumulative(probs: Array, u: float) -> int:
    """The token into whose interval the uniform number u of [0, 1) falls. probs [V]."""
    summed = 0.0
    for token, prob in enumerate(probs):
        summed += prob
        if summed > u * probs.sum():
            return token
    return int(np.flatnonzero(probs)[-1])  # u so near 1 that rounding hides the end
