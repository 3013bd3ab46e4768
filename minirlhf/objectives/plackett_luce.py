"""The reward model's loss for whole rankings: the best answer is drawn first, then the best of the rest, and so on."""

import torch
from torch import Tensor


def plackett_luce(scores: Tensor, counts: Tensor | None = None, rankings: int | None = None) -> Tensor:
    """-log P(this order), where each place is a softmax draw among the answers not yet placed.

    Plackett 1975, "The Analysis of Permutations"; Luce 1959, "Individual Choice Behavior". Two answers make it the
    Bradley-Terry loss; N equal scores cost log N!.
    Shapes: scores float [B N], best first; counts int64 [B], how many of the N are there (all when None); returns a
            scalar. What stands beyond counts is never read.
    Units:  nats per ranking.
    Grad:   sums to 0 in every ranking: only differences count.
    rankings: what to divide the sum by when this is one micro-batch of several (the rankings of all); B when not given.
    Raises: ValueError if shapes or dtypes do not fit, a count lies outside [1, N], or there is no ranking and no
            number of rankings.
    """
    if scores.ndim != 2 or not scores.is_floating_point():
        raise ValueError(f"scores must be floating point [B N], got {scores.dtype} {tuple(scores.shape)}")
    rows, places = scores.shape
    if places == 0 or (rows == 0 and rankings is None):
        raise ValueError(f"there is nothing to rank in scores {tuple(scores.shape)}")
    if counts is None:
        counts = torch.full((rows,), places, device=scores.device)
    if counts.shape != (rows,) or counts.dtype != torch.int64 or not ((counts >= 1) & (counts <= places)).all():
        raise ValueError(f"counts must be int64 [B] from 1 to {places}, got {counts.dtype} {tuple(counts.shape)}")
    place = torch.arange(places, device=scores.device)
    there = place < counts[:, None]  # [B N]
    scores = scores.masked_fill(~there, 0.0)
    # Who is still to be placed when place i is filled: i itself and whoever is there behind it. bool [B N N]
    remaining = ((place > place[:, None]) & there[:, None, :]) | (place == place[:, None])
    differences = scores[:, None, :] - scores[:, :, None]  # [B N N]: of candidate j to the one placed at i
    surprise = differences.masked_fill(~remaining, -torch.inf).logsumexp(dim=2)  # [B N], 0 at the last place
    return surprise.masked_fill(~there, 0.0).sum() / (rows if rankings is None else rankings)
