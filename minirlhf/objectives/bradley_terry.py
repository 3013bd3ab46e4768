"""The reward model's loss: a preference is a coin whose odds are the exponent of the score difference."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def _check_pairs(chosen_scores: Tensor, rejected_scores: Tensor) -> None:
    if chosen_scores.ndim != 1 or chosen_scores.shape != rejected_scores.shape:
        shapes = f"{tuple(chosen_scores.shape)} and {tuple(rejected_scores.shape)}"
        raise ValueError(f"chosen_scores and rejected_scores must both be [B], got {shapes}")
    if not (chosen_scores.is_floating_point() and rejected_scores.is_floating_point()):
        raise ValueError(f"scores must be floating point, got {chosen_scores.dtype} and {rejected_scores.dtype}")


def preference_probability(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """P(chosen is preferred to rejected) = sigmoid(chosen - rejected).

    Bradley and Terry 1952, "Rank analysis of incomplete block designs", with exp(score) as an answer's worth.
    Shapes: two of [B]; returns [B] in (0, 1).  Raises: ValueError if shapes differ or are not [B].
    """
    _check_pairs(chosen_scores, rejected_scores)
    return torch.sigmoid(chosen_scores - rejected_scores)


def bradley_terry(chosen_scores: Tensor, rejected_scores: Tensor, count: int | None = None) -> Tensor:
    """Mean of -log P(chosen is preferred); two equal scores cost log 2.

    Ouyang et al. 2022, arXiv:2203.02155, eq. 1 (one pair per prompt).
    Shapes: two of [B]; returns a scalar.
    Units:  nats per pair.
    Grad:   -(1 - P) / B to chosen_scores, the opposite to rejected_scores.
    count:  what to divide the sum by when this is one micro-batch of several (the pairs of all); B when not given.
    Raises: ValueError if shapes differ or are not [B], or if there is no pair and no count.
    """
    _check_pairs(chosen_scores, rejected_scores)
    if count is None and len(chosen_scores) == 0:
        raise ValueError("there is no pair")
    surprise = -logsigmoid(chosen_scores - rejected_scores)
    return surprise.sum() / (len(chosen_scores) if count is None else count)


def pair_accuracy(chosen_scores: Tensor, rejected_scores: Tensor) -> Tensor:
    """Share of pairs whose chosen answer scores higher, a scalar in [0, 1]; a tie counts half.

    Shapes: two of [B].  Raises: ValueError if shapes differ or are not [B], or there is no pair.
    """
    _check_pairs(chosen_scores, rejected_scores)
    if len(chosen_scores) == 0:
        raise ValueError("there is no pair")
    return (torch.sign(chosen_scores.detach() - rejected_scores.detach()) * 0.5 + 0.5).mean()
