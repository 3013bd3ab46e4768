"""Writing: read the prompt once, then one token after another with a key-value cache.

Dimension letters: B prompts, P prompt tokens (left-padded), R response tokens, b rows still running.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig, sample_tokens
from minirlhf.models.gpt import GPT
from minirlhf.models.speed import decoding_compiled, uncompiled
from minirlhf.nn.cache import KVCache
from minirlhf.nn.linear import FEW_ROWS
from minirlhf.objectives.guards import NonFiniteError
from minirlhf.records import Generation, PromptBatch


@torch.no_grad()
def generate(
    model: GPT,
    prompts: PromptBatch,
    sampling: SamplingConfig,
    stop_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator,
    banned_ids: Sequence[int] = (),
) -> Generation:
    """Answer all prompts at once. A row ends with the first of stop_ids, or after max_new_tokens.

    R is the length of the longest answer; shorter ones are filled with pad_id, off the mask. All random numbers
    are drawn beforehand, one per row and token, and rows do not look at one another: what a row says does not
    depend on when the others end, and rows that have ended leave the running batch.
    banned_ids are never drawn; log-probs are then those of what is left.
    Raises UserError when prompt and answer together may not fit the context.
    """
    check_room(model, int(prompts.attention_mask.sum(dim=1).max()), sampling.max_new_tokens)
    device = prompts.ids.device
    batch, prompt_tokens = prompts.ids.shape
    shape = (batch, sampling.max_new_tokens)
    uniforms = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device).to(device)
    response = torch.full(shape, pad_id, dtype=torch.int64, device=device)
    log_probs = torch.zeros(shape, dtype=model.token_embedding.weight.dtype, device=device)
    stops = torch.tensor(stop_ids, dtype=torch.int64, device=device)

    rows: slice | Tensor = slice(None)  # where the running rows belong: all in their places, later int64 [b]
    ended = torch.zeros(batch, dtype=torch.bool, device=device)  # [b] rows carried along although they have ended
    fewest = FEW_ROWS if decoding_compiled(model) else 0  # fewer rows would be compiled anew
    mask = None  # [b P+R], needed only where there is padding
    if not bool(prompts.attention_mask.all()):
        mask = torch.cat((prompts.attention_mask, torch.ones(shape, dtype=torch.bool, device=device)), dim=1)
    cache = model.empty_cache(batch, prompt_tokens + sampling.max_new_tokens)
    ids = prompts.ids  # [b P], later [b 1]: the tokens not yet in the cache
    with evaluating(model), torch.inference_mode():
        for step in range(sampling.max_new_tokens):
            seen = None if mask is None else mask[:, : prompt_tokens + step]
            chosen, chosen_log_probs, cache = write_one(
                model, ids, seen, cache, banned_ids, sampling, uniforms[rows, step]
            )
            response[rows, step], log_probs[rows, step] = chosen, chosen_log_probs
            ids = chosen[:, None]
            if not len(stops):
                continue
            ended = ended | (ids == stops).any(dim=1)
            left = len(ended) - int(ended.sum())
            if left == 0:
                break
            if 2 * left <= len(ended) and left > fewest:  # copying what is left of the cache pays when it is half of it
                alive = ~ended
                rows = torch.arange(batch, device=device)[rows][alive]
                cache, ids, ended = cache.select(alive), ids[alive], ended[alive]
                mask = None if mask is None else mask[alive]
    steps = step + 1
    is_stop = torch.isin(response[:, :steps], stops)  # [B steps]
    response_mask = is_stop.cumsum(dim=1) - is_stop.long() == 0  # up to and including the first stop token
    length = int(response_mask.sum(dim=1).max())
    response_mask = response_mask[:, :length]
    response = response[:, :length].masked_fill(~response_mask, pad_id)
    return Generation(
        ids=torch.cat((prompts.ids, response), dim=1),
        attention_mask=torch.cat((prompts.attention_mask, response_mask), dim=1),
        response_mask=response_mask,
        ended=is_stop.any(dim=1),
        log_probs=log_probs[:, :length].masked_fill(~response_mask, 0.0),
    )


def write_one(
    model: GPT,
    ids: Tensor,
    mask: Tensor | None,
    cache: KVCache,
    banned_ids: Sequence[int],
    sampling: SamplingConfig,
    uniforms: Tensor,
) -> tuple[Tensor, Tensor, KVCache]:
    """Read ids [b T], write one token for each row: int64 [b], its log-prob [b], and the cache with ids added.

    Where decoding is compiled, the draw is compiled with it. Greedily it is not: there NaN would pass unseen.
    """
    if sampling.greedy or not decoding_compiled(model):
        logits, cache = model.decode(ids, mask, cache)  # [b V]
        chosen, log_probs = sample_tokens(without(logits, banned_ids), sampling, uniforms=uniforms)
        return chosen, log_probs, cache
    banned = tuple(banned_ids)
    (chosen, log_probs), cache = model.decode(ids, mask, cache, drawn, banned, sampling, uniforms.contiguous())
    if not isfinite(log_probs.sum().item()):
        raise NonFiniteError("a drawn token has no finite log-prob, since the model's logits are not finite")
    return chosen, log_probs, cache


def drawn(
    logits: Tensor, banned_ids: Sequence[int], sampling: SamplingConfig, uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """sample_tokens of what is not banned: logits [b V], uniforms [b] -> int64 [b], log_probs [b]."""
    return sample_tokens(without(logits, banned_ids), sampling, uniforms=uniforms)


def stream(
    model: GPT,
    prompt_ids: Sequence[int],
    sampling: SamplingConfig,
    stop_ids: Sequence[int],
    generator: torch.Generator,
    banned_ids: Sequence[int] = (),
) -> Iterator[int]:
    """Answer one prompt, yielding each token as it is drawn; the stop token itself is not yielded.

    Ends with a stop token, after max_new_tokens, or when the context is full, whichever comes first. Nothing slides
    out of sight: raises UserError at once when the prompt leaves no room for an answer.
    """
    check_room(model, len(prompt_ids), 1)
    device = model.token_embedding.weight.device
    steps = min(sampling.max_new_tokens, model.config.context - len(prompt_ids))

    def tokens() -> Iterator[int]:
        cache = model.empty_cache(1, len(prompt_ids) + steps)
        ids = torch.tensor([list(prompt_ids)], dtype=torch.int64, device=device)  # [1 P], later [1 1]
        for _ in range(steps):
            with evaluating(model), torch.inference_mode():  # left before each yield: there the caller is at work
                logits, cache = model.decode(ids, None, cache)
                chosen, _ = sample_tokens(without(logits, banned_ids), sampling, generator)
            token = int(chosen)
            if token in stop_ids:
                return
            yield token
            ids = chosen[:, None]

    return tokens()


def without(logits: Tensor, banned_ids: Sequence[int]) -> Tensor:
    """logits [B V] with -inf at banned_ids, so that they can never be drawn."""
    if not banned_ids:
        return logits
    return logits.index_fill(-1, torch.tensor(banned_ids, device=logits.device), -torch.inf)


def check_room(model: GPT, prompt_tokens: int, new_tokens: int) -> None:
    """Raises UserError unless the prompt is not empty and leaves room for new_tokens in the model's context."""
    context = model.config.context
    if prompt_tokens < 1:
        raise UserError("the prompt has no tokens, so there is nothing to continue")
    if prompt_tokens + new_tokens > context:
        raise UserError(
            "prompt and answer do not fit the model's context",
            found=f"a prompt of {prompt_tokens} tokens and up to {new_tokens} new ones",
            expected=f"at most {context} tokens together",
            fix=f"shorten the prompt to {context - new_tokens} tokens"
            if new_tokens < context
            else f"ask for fewer than {context} new tokens",
        )


@contextmanager
def evaluating(model: GPT) -> Iterator[None]:
    """Dropout off and nothing compiled inside, and as it was afterwards."""
    was_training = model.training
    model.eval()
    try:
        with uncompiled(model):
            yield
    finally:
        model.train(was_training)
