"""The supervised loss of pretraining and fine-tuning: the mean surprise of the tokens that count."""

from torch import Tensor

from minirlhf.objectives.masked import check_token_arrays, masked_sum


def cross_entropy_sum(log_probs: Tensor, loss_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The summed surprise of the counted tokens, and how many they are: the form that adds up over micro-batches.

    Add the sums and the counts of all micro-batches, then divide: any split gives the full batch's gradient.
    Shapes: log_probs float [B T], loss_mask bool [B T]; returns two scalars (nats, int64).
    Raises: ValueError if shapes or dtypes do not fit.
    """
    return -masked_sum(log_probs, loss_mask), loss_mask.sum()


def cross_entropy(log_probs: Tensor, loss_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of the counted tokens.

    Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2, without the regulariser.
    Shapes: log_probs float [B T] (of the tokens that came), loss_mask bool [B T]; returns a scalar.
    Units:  nats per counted token. A batch in which nothing counts gives 0 with zero gradients.
    Raises: ValueError if shapes or dtypes do not fit.
    """
    check_token_arrays(loss_mask, allow_empty=True, log_probs=log_probs)
    total, count = cross_entropy_sum(log_probs, loss_mask)
    return total / count.clamp_min(1)
