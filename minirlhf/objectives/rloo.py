"""REINFORCE leave-one-out: the baseline of an answer is what the other answers to its prompt scored."""

from torch import Tensor

from minirlhf.objectives.grpo import _by_group


def rloo_advantages(scores: Tensor, group_size: int) -> Tensor:
    """Each score minus the mean score of the other answers to the same prompt.

    Ahmadian et al. 2024, arXiv:2402.14740, eq. 8; Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for
    Free!". The baseline does not depend on the answer it is compared with, so the gradient stays unbiased.
    Shapes: scores [B], the group_size answers to one prompt next to each other; returns [B], sum 0 in every group.
    Units:  reward units.
    Grad:   none; advantages are data.
    Raises: ValueError if scores are not floating point [B] or no whole number of groups of at least 2.
    """
    groups = _by_group(scores, group_size)  # [groups group_size]
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).reshape(-1)
