"""Batch, minibatch, micro-batch: what one rollout, one optimizer step and one forward pass hold."""

from collections.abc import Iterator

import torch
from torch import Tensor

from minirlhf.records import Experience
from minirlhf.rollout.padding import needed_columns


def shuffled_minibatches(rows: int, epochs: int, minibatches: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers int64 [n] of one minibatch after another: every row once per epoch, reshuffled for each epoch.

    Sizes differ by at most one. Raises ValueError when there are fewer rows than minibatches.
    """
    if rows < minibatches:
        raise ValueError(f"{rows} rows cannot be split into {minibatches} minibatches")
    for _ in range(epochs):
        yield from torch.randperm(rows, generator=generator).tensor_split(minibatches)


def take(experience: Experience, rows: Tensor) -> Experience:
    """Some rows, on no more columns than they need. Padding changes no result, so dropping it changes none either."""
    columns, response_columns = needed_columns(experience.attention_mask[rows], experience.response_mask[rows])
    return Experience(
        ids=experience.ids[rows, columns],
        attention_mask=experience.attention_mask[rows, columns],
        response_mask=experience.response_mask[rows, response_columns],
        old_log_probs=experience.old_log_probs[rows, response_columns],
        old_values=experience.old_values[rows, response_columns],
        advantages=experience.advantages[rows, response_columns],
        returns=experience.returns[rows, response_columns],
    )
