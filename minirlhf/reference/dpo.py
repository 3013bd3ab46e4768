"""Direct preference optimisation: NumPy float64, forward and hand-derived backward.

Rafailov et al. 2023, arXiv:2305.18290. The policy that maximises E[reward] - beta KL(policy || reference) is
p(y|x) = q(y|x) exp(reward / beta) / Z(x) (eq. 4). Solve it for the reward:

    reward(x, y) = beta (log p(y|x) - log q(y|x)) + beta log Z(x)                                             (eq. 5)

Z depends on the prompt alone, so it cancels in a difference of two answers. Bradley and Terry's loss of this
*implicit reward* u = beta (log p - log q) is the loss (eq. 7), with d = u_chosen - u_rejected:

    L = -(1/B) sum log sigmoid(d),        dL/dd = -(1 - sigmoid(d)) / B = -sigmoid(-d) / B

and dd/dlog p_chosen = beta, dd/dlog p_rejected = -beta. sigmoid(-d) is never 0, so no pair ever stops to teach.

Label smoothing e (Mitchell 2023, "A note on DPO with noisy preferences and relationship to IPO", eq. 3) believes each
label with 1 - e only: L = -(1 - e) log sigmoid(d) - e log sigmoid(-d), dL/dd = -(1 - e) sigmoid(-d) + e sigmoid(d),
which is 0 where sigmoid(d) = 1 - e: now a pair can be learnt enough.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.bradley_terry import bradley_terry, preference_probability

Floats = NDArray[np.float64]


def implicit_rewards(log_probs: Floats, ref_log_probs: Floats, beta: float) -> Floats:
    """beta (log p - log q), reward units, all [B]."""
    return beta * (log_probs - ref_log_probs)


def dpo(
    chosen_log_probs: Floats,
    rejected_log_probs: Floats,
    ref_chosen_log_probs: Floats,
    ref_rejected_log_probs: Floats,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> float:
    """Mean nats per pair, from summed log-probabilities [B] of whole answers."""
    chosen = implicit_rewards(chosen_log_probs, ref_chosen_log_probs, beta)
    rejected = implicit_rewards(rejected_log_probs, ref_rejected_log_probs, beta)
    as_labelled, other_way_round = bradley_terry(chosen, rejected), bradley_terry(rejected, chosen)
    return (1 - label_smoothing) * as_labelled + label_smoothing * other_way_round


def dpo_grad(
    chosen_log_probs: Floats,
    rejected_log_probs: Floats,
    ref_chosen_log_probs: Floats,
    ref_rejected_log_probs: Floats,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Floats, Floats]:
    """Gradients with respect to chosen_log_probs and rejected_log_probs, two of [B]."""
    chosen = implicit_rewards(chosen_log_probs, ref_chosen_log_probs, beta)
    rejected = implicit_rewards(rejected_log_probs, ref_rejected_log_probs, beta)
    wrong, right = preference_probability(rejected, chosen), preference_probability(chosen, rejected)
    slope = (-(1 - label_smoothing) * wrong + label_smoothing * right) / len(chosen)
    return beta * slope, -beta * slope
