"""REINFORCE: make a token likelier by as much as it turned out better than expected."""

from torch import Tensor

from minirlhf.objectives.masked import check_token_arrays, masked_mean


def reinforce_loss(
    log_probs: Tensor, advantages: Tensor, response_mask: Tensor, count: Tensor | int | None = None
) -> Tensor:
    """Score-function objective, negated so that smaller is better: -mean(advantage * log-probability).

    Williams 1992, section 4 (Theorem 1), with the baseline inside the advantages.
    Its gradient means something, its value does not.
    Shapes: log_probs, advantages float [B R]; response_mask bool [B R]; returns a scalar.
    Units:  log_probs in nats per token, advantages in reward units.
    Grad:   reaches log_probs only; advantages are data.
    count:  the tokens of the whole batch when this is one micro-batch of it; those of response_mask when not given.
    Raises: ValueError if shapes differ, response_mask is not bool, or it has no True and count is not given.
    """
    check_token_arrays(response_mask, allow_empty=count is not None, log_probs=log_probs, advantages=advantages)
    log_probs, advantages = log_probs.masked_fill(~response_mask, 0.0), advantages.masked_fill(~response_mask, 0.0)
    return -masked_mean(log_probs * advantages.detach(), response_mask, count)
