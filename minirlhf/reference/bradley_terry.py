"""The Bradley-Terry preference loss: NumPy float64, forward and hand-derived backward.

Bradley and Terry 1952: with worth exp(score), P = P(chosen beats rejected) = exp(c) / (exp(c) + exp(r)) = sigmoid(d),
d = c - r. Ouyang et al. 2022, arXiv:2203.02155, eq. 1: L = -(1/B) sum log P.

    -log sigmoid(d) = log(1 + exp(-d))
    d/dd log(1 + exp(-d)) = -exp(-d) / (1 + exp(-d)) = -(1 - P)
    so dL/dc = -(1 - P) / B and dL/dr = +(1 - P) / B: a pair teaches as much as it surprises.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def preference_probability(chosen_scores: Floats, rejected_scores: Floats) -> Floats:
    """P(chosen beats rejected), [B]; written so that only negative numbers are exponentiated."""
    difference = chosen_scores - rejected_scores
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small))


def bradley_terry(chosen_scores: Floats, rejected_scores: Floats) -> float:
    """Mean nats per pair: log(1 + exp(-d)) = max(-d, 0) + log(1 + exp(-|d|))."""
    difference = chosen_scores - rejected_scores
    return float(np.mean(np.maximum(-difference, 0) + np.log1p(np.exp(-np.abs(difference)))))


def bradley_terry_grad(chosen_scores: Floats, rejected_scores: Floats) -> tuple[Floats, Floats]:
    """Gradients with respect to chosen_scores and rejected_scores, two of [B]."""
    surprise = preference_probability(rejected_scores, chosen_scores)  # 1 - P, without cancellation
    return -surprise / len(surprise), surprise / len(surprise)
