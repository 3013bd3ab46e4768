"""Computing on no more padding than a group of rows needs. Positions skip padding, so nothing else changes."""

from collections.abc import Callable

import torch
from torch import Tensor


def needed_columns(attention_mask: Tensor, response_mask: Tensor) -> tuple[slice, slice]:
    """The columns of [B P+R] and of [B R] in which some row has a real token. At least one prompt column is kept."""
    response_tokens = response_mask.shape[1]
    prompt_tokens = attention_mask.shape[1] - response_tokens
    longest_prompt = int(attention_mask[:, :prompt_tokens].sum(dim=1).max())
    longest_response = max(1, int(response_mask.sum(dim=1).max()))
    first = prompt_tokens - max(1, longest_prompt)
    return slice(first, prompt_tokens + longest_response), slice(0, longest_response)


def micro_batches(rows: Tensor, attention_mask: Tensor, micro_batch_size: int | None) -> list[Tensor]:
    """Split row numbers int64 [N] into groups of at most micro_batch_size, rows of like length together.

    attention_mask bool [B P+R] gives the lengths. Without a size there is one group, in the given order.
    """
    rows = rows.to(attention_mask.device)
    if micro_batch_size is None or len(rows) <= micro_batch_size:
        return [rows]
    by_length = rows[torch.argsort(attention_mask[rows].sum(dim=1), stable=True)]
    return list(by_length.split(micro_batch_size))


def for_responses(
    evaluate: Callable[[Tensor, Tensor, int], Tensor],
    ids: Tensor,
    attention_mask: Tensor,
    response_mask: Tensor,
    micro_batch_size: int | None = None,
) -> Tensor:
    """evaluate(ids [b p+r], attention_mask [b p+r], r) -> [b r], group by group; gathered [B R], 0 off the mask."""
    gathered: Tensor | None = None
    for rows in micro_batches(torch.arange(len(ids)), attention_mask, micro_batch_size):
        columns, response_columns = needed_columns(attention_mask[rows], response_mask[rows])
        part = evaluate(ids[rows, columns], attention_mask[rows, columns], response_columns.stop)  # [b r]
        if gathered is None:
            gathered = part.new_zeros(response_mask.shape)
        gathered[rows, response_columns] = part
    if gathered is None:
        raise ValueError("there are no rows to evaluate")
    return gathered.masked_fill(~response_mask, 0.0)
