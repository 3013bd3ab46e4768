"""Identity preference optimisation: NumPy float64, forward and hand-derived backward.

Azar et al. 2023, arXiv:2310.12036, eq. 17. With h = (log p_c - log q_c) - (log p_r - log q_r), how much more the
policy prefers chosen to rejected than the reference does, in nats:

    L = (1/B) sum (h - 1/(2 beta))²,        dL/dlog p_c = 2 (h - 1/(2 beta)) / B = -dL/dlog p_r

Where DPO pushes for ever, the square asks for one distance, 1/(2 beta), and pulls back beyond it: a preference that
is certain in the data cannot drive the policy arbitrarily far.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ipo(
    chosen_log_probs: Floats,
    rejected_log_probs: Floats,
    ref_chosen_log_probs: Floats,
    ref_rejected_log_probs: Floats,
    beta: float = 0.1,
) -> float:
    """Mean squared nats per pair, from summed log-probabilities [B] of whole answers."""
    margin = chosen_log_probs - ref_chosen_log_probs - (rejected_log_probs - ref_rejected_log_probs)
    return float(np.mean((margin - 1 / (2 * beta)) ** 2))


def ipo_grad(
    chosen_log_probs: Floats,
    rejected_log_probs: Floats,
    ref_chosen_log_probs: Floats,
    ref_rejected_log_probs: Floats,
    beta: float = 0.1,
) -> tuple[Floats, Floats]:
    """Gradients with respect to chosen_log_probs and rejected_log_probs, two of [B]."""
    margin = chosen_log_probs - ref_chosen_log_probs - (rejected_log_probs - ref_rejected_log_probs)
    slope = 2 * (margin - 1 / (2 * beta)) / len(margin)
    return slope, -slope
