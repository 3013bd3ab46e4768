"""The Bradley-Terry preference loss: NumPy float64, forward and hand-derived backward.

Bradley and Terry 1952: with worth exp(score), P = P(chosen beats rejected) = exp(c) / (exp(c) + exp(r)) = sigmoid(d),
d = c - r. Ouyang et al. 2022, arXiv:2203.02155, eq. 1: L = -(1/B) sum log P.

    -log sigmoid(d) = log(1 + exp(-d))
    d/dd log(1 + exp(-d)) = -exp(-d) / (1 + exp(-d)) = -(1 - P)
    so dL/dc = -(1 - P) / B and dL/dr = +(1 - P) / B: a pair teaches as much as it surprises.

With a margin m >= 0 (Touvron et al. 2023, arXiv:2307.09288, eq. 2) the chosen answer has to win by that much: d - m
stands for d, and m is data, so the gradients are the same at the new place.

With ties (Davidson 1970, "On extending the Bradley-Terry model to accommodate ties", eq. 2.6) a comparison has three
outcomes with worths exp(c), exp(r) and v exp((c + r)/2): two equals tie most. That is a softmax over the three logits

    z = (c, r, log v + (c + r)/2),      L = -(1/B) sum log p_outcome,      dL/dz_k = (p_k - 1[k = outcome]) / B,

and by the chain rule c collects dz_1 + dz_3/2, r collects dz_2 + dz_3/2. At v = 0 nobody ties.
"""

import numpy as np
from numpy.typing import NDArray

from minirlhf.reference.softmax import log_softmax

Floats = NDArray[np.float64]


def preference_probability(chosen_scores: Floats, rejected_scores: Floats) -> Floats:
    """P(chosen beats rejected), [B]; written so that only negative numbers are exponentiated."""
    difference = chosen_scores - rejected_scores
    small = np.exp(-np.abs(difference))
    return np.where(difference >= 0, 1 / (1 + small), small / (1 + small))


def preference_probability_grad(chosen_scores: Floats, rejected_scores: Floats, dout: Floats) -> tuple[Floats, Floats]:
    """sigmoid' = sigmoid (1 - sigmoid): gradients of both scores from the gradient dout of the probability, [B]."""
    won = preference_probability(chosen_scores, rejected_scores)
    lost = preference_probability(rejected_scores, chosen_scores)  # 1 - won, without cancellation
    return dout * won * lost, -dout * won * lost


def bradley_terry(chosen_scores: Floats, rejected_scores: Floats) -> float:
    """Mean nats per pair: log(1 + exp(-d)) = max(-d, 0) + log(1 + exp(-|d|))."""
    difference = chosen_scores - rejected_scores
    return float(np.mean(np.maximum(-difference, 0) + np.log1p(np.exp(-np.abs(difference)))))


def bradley_terry_grad(chosen_scores: Floats, rejected_scores: Floats) -> tuple[Floats, Floats]:
    """Gradients with respect to chosen_scores and rejected_scores, two of [B]."""
    surprise = preference_probability(rejected_scores, chosen_scores)  # 1 - P, without cancellation
    return -surprise / len(surprise), surprise / len(surprise)


def pair_accuracy(chosen_scores: Floats, rejected_scores: Floats) -> float:
    """The share of pairs whose chosen answer scores higher; a tie counts half."""
    wins = [1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(chosen_scores, rejected_scores, strict=True)]
    return sum(wins) / len(wins)


def with_margin(chosen_scores: Floats, rejected_scores: Floats, margins: Floats) -> float:
    """Mean nats per pair when chosen has to beat rejected by a margin [B]."""
    return bradley_terry(chosen_scores - margins, rejected_scores)


def with_margin_grad(chosen_scores: Floats, rejected_scores: Floats, margins: Floats) -> tuple[Floats, Floats]:
    """Gradients with respect to chosen_scores and rejected_scores, two of [B]."""
    return bradley_terry_grad(chosen_scores - margins, rejected_scores)


def with_ties(scores: Floats, others: Floats, outcomes: NDArray[np.int64], log_tie: float) -> float:
    """Mean nats per comparison; outcomes int [B]: 0 the first won, 1 the other, 2 a tie; log_tie is log v."""
    log_probs = log_softmax(_outcome_logits(scores, others, log_tie))
    return -float(log_probs[np.arange(len(outcomes)), outcomes].mean())


def with_ties_grad(
    scores: Floats, others: Floats, outcomes: NDArray[np.int64], log_tie: float
) -> tuple[Floats, Floats, float]:
    """Gradients with respect to scores and others, two of [B], and to log_tie."""
    dlogits = np.exp(log_softmax(_outcome_logits(scores, others, log_tie)))  # [B 3]
    dlogits[np.arange(len(outcomes)), outcomes] -= 1
    first, second, tie = dlogits.T / len(outcomes)
    return first + tie / 2, second + tie / 2, float(tie.sum())


def _outcome_logits(scores: Floats, others: Floats, log_tie: float) -> Floats:
    return np.stack((scores, others, log_tie + (scores + others) / 2), axis=-1)  # [B 3]
