"""Leave-one-out advantages: NumPy float64.

Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!"; Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
Each of the G answers to a prompt is measured against the mean score of the other G - 1:

    A_i = s_i - 1/(G-1) sum over j != i of s_j

The baseline does not depend on answer i, so subtracting it leaves REINFORCE's gradient unbiased. With the mean m of
all G, sum over j != i of s_j = G m - s_i, so A_i = G/(G-1) (s_i - m): they sum to 0. No gradient: advantages are data.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rloo_advantages(scores: Floats, group_size: int) -> Floats:
    """scores [B], the group_size answers to one prompt side by side -> advantages [B]."""
    advantages = np.zeros(scores.shape)
    for i in range(len(scores)):
        start = i - i % group_size
        others = [scores[j] for j in range(start, start + group_size) if j != i]
        advantages[i] = scores[i] - sum(others) / len(others)
    return advantages
