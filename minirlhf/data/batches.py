"""Batches of token ids. Which examples a step sees is a pure function of (seed, step), so a resumed run sees the same.

Letters: B batch, T tokens. Right-padding everywhere except prompts, which are left-padded to be continued.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from minirlhf.data.tokenize import TokenizedConversation, TokenizedPair, prompt_ids_of, prompt_text
from minirlhf.errors import UserError
from minirlhf.records import Document, PreferenceBatch, Prompt, PromptBatch, TokenBatch, Turn
from minirlhf.seeding import numpy_generator
from minirlhf.tokenizers.tokenizer import Tokenizer


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(n), another one for every epoch."""
    order: list[int] = numpy_generator(seed, "epoch order", epoch).permutation(n).tolist()
    return order


def batch_indices(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """The examples of step `step` (from 0): every index once per epoch, reshuffled each epoch.

    Batches are always full: one that reaches the end of an epoch goes on with the next.
    Raises ValueError if n or batch_size is not positive or step is negative.
    """
    if n <= 0 or batch_size <= 0 or step < 0:
        raise ValueError(f"need n > 0, batch_size > 0, step >= 0; got {n}, {batch_size}, {step}")
    first, last = step * batch_size, (step + 1) * batch_size  # positions in the endless sequence of epochs
    indices: list[int] = []
    for epoch in range(first // n, (last - 1) // n + 1):
        order = epoch_order(n, seed, epoch)
        indices += order[max(first - epoch * n, 0) : min(last - epoch * n, n)]
    return indices


def token_stream(documents: Sequence[Document], tokenizer: Tokenizer) -> Tensor:
    """All documents as one row of ids, int64 [N], with the end token between two documents (none after the last)."""
    pieces: list[np.ndarray] = []
    for document in documents:
        if pieces:
            pieces.append(np.array([tokenizer.end_id], dtype=np.int64))
        pieces.append(np.array(tokenizer.encode(document.text), dtype=np.int64))
    return torch.from_numpy(np.concatenate(pieces)) if pieces else torch.empty(0, dtype=torch.int64)


def split_stream(stream: Tensor, held_out_fraction: float = 0.1) -> tuple[Tensor, Tensor]:
    """(the first part, the last `held_out_fraction` of it): a split by position, as is usual for one long text."""
    if not 0 <= held_out_fraction < 1:
        raise ValueError(f"held_out_fraction must lie in [0, 1), got {held_out_fraction}")
    cut = int(len(stream) * (1 - held_out_fraction))
    return stream[:cut], stream[cut:]


def window_batch(stream: Tensor, context: int, batch_size: int, generator: torch.Generator) -> TokenBatch:
    """B windows at random places of the stream: ids [B context+1], every prediction counts.

    Raises UserError if the stream has fewer than context + 1 tokens.
    """
    if len(stream) <= context:
        raise UserError(
            "the text is too short for one window",
            found=f"{len(stream):,} tokens",
            expected=f"at least {context + 1:,} tokens, the context and one to predict",
            fix=f"give more text, or a smaller context: --context {max(len(stream) - 1, 1)}",
        )
    starts = torch.randint(0, len(stream) - context, (batch_size, 1), generator=generator)
    ids = stream[starts + torch.arange(context + 1)]  # [B 1] + [T+1] -> [B T+1]
    return TokenBatch(ids, torch.ones(batch_size, context, dtype=torch.bool))


def validation_windows(stream: Tensor, context: int, batch_size: int = 32, pad_id: int = 0) -> Iterator[TokenBatch]:
    """Side by side windows over the whole stream: every token but the first is predicted exactly once.

    The last window may be shorter; it is padded with pad_id, and the padding does not count.
    """
    predictions = len(stream) - 1
    if predictions < 1:
        return
    windows = -(-predictions // context)
    padding = torch.full((windows * context - predictions,), pad_id, dtype=stream.dtype)
    ids = torch.cat([stream, padding]).unfold(0, context + 1, context)  # [windows T+1], neighbours share one token
    loss_mask = (torch.arange(windows * context) < predictions).view(windows, context)
    for start in range(0, windows, batch_size):
        yield TokenBatch(ids[start : start + batch_size], loss_mask[start : start + batch_size])


def conversation_batch(items: Sequence[TokenizedConversation], pad_id: int) -> TokenBatch:
    """Conversations side by side, right-padded to the longest of them."""
    ids = pad_sequence([item.ids for item in items], batch_first=True, padding_value=pad_id)  # [B T+1]
    loss_mask = pad_sequence([item.loss_mask for item in items], batch_first=True, padding_value=False)  # [B T]
    return TokenBatch(ids, loss_mask)


def preference_batch(pairs: Sequence[TokenizedPair], pad_id: int) -> PreferenceBatch:
    """Pairs, the chosen and the rejected each right-padded to the longest of their kind."""
    chosen_ids, chosen_mask = _right_padded([pair.chosen_ids for pair in pairs], pad_id)
    rejected_ids, rejected_mask = _right_padded([pair.rejected_ids for pair in pairs], pad_id)
    return PreferenceBatch(chosen_ids, chosen_mask, rejected_ids, rejected_mask)


def answer_batches(pairs: Sequence[TokenizedPair], pad_id: int) -> tuple[TokenBatch, TokenBatch]:
    """The chosen and the rejected sequences, each right-padded to the longest of their kind; their answers count.

    Raises ValueError for a pair that does not say where its answers begin, or has none.
    """

    def side(rows: list[Tensor]) -> TokenBatch:
        ids, there = _right_padded(rows, pad_id)  # [B T+1]
        begins = torch.tensor([pair.prompt_tokens for pair in pairs])[:, None]
        loss_mask = (there & (torch.arange(ids.shape[1]) >= begins))[:, 1:]  # [B T]: position t predicts ids[:, t+1]
        if not ((begins > 0).all() and loss_mask.any(dim=1).all()):
            raise ValueError("every pair needs a prompt, and an answer behind it")
        return TokenBatch(ids, loss_mask)

    return side([pair.chosen_ids for pair in pairs]), side([pair.rejected_ids for pair in pairs])


def prompt_batch(
    prompts: Sequence[Prompt | tuple[Turn, ...]], tokenizer: Tokenizer, max_prompt_tokens: int
) -> PromptBatch:
    """Prompts ready to be answered, left-padded to the longest of them.

    Raises UserError naming the first prompt longer than max_prompt_tokens; drop_long_prompts leaves such out.
    """
    rows: list[Tensor] = []
    texts: list[str] = []
    for position, prompt in enumerate(prompts):
        turns = prompt.turns if isinstance(prompt, Prompt) else prompt
        source = prompt.source if isinstance(prompt, Prompt) else f"prompt {position}"
        ids = prompt_ids_of(turns, tokenizer)
        if len(ids) > max_prompt_tokens:
            raise UserError(
                "the prompt is too long for the model's context",
                where=source,
                found=f"{len(ids):,} tokens",
                expected=f"at most {max_prompt_tokens:,} tokens, which leaves room for the answer",
                fix="shorten it, or allow shorter answers: --max-new-tokens",
            )
        rows.append(torch.tensor(ids, dtype=torch.int64))
        texts.append(prompt_text(turns))
    longest = max((len(row) for row in rows), default=0)
    ids_batch = torch.full((len(rows), longest), tokenizer.pad_id, dtype=torch.int64)
    attention_mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for b, row in enumerate(rows):
        ids_batch[b, longest - len(row) :] = row
        attention_mask[b, longest - len(row) :] = True
    return PromptBatch(ids_batch, attention_mask, tuple(texts))


def _right_padded(rows: list[Tensor], pad_id: int) -> tuple[Tensor, Tensor]:
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)  # [B T]
    lengths = torch.tensor([len(row) for row in rows])
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]
