"""A rollout by several processes: each answers its share of the prompts, then all know what everybody's did."""

from dataclasses import replace

import torch
from torch import Tensor

from minirlhf.parallel.ranks import World, gather, largest, share
from minirlhf.records import PromptBatch, Rollout


def share_prompts(world: World, prompts: PromptBatch, new_tokens: int, generator: torch.Generator) -> PromptBatch:
    """This rank's prompts; the generator is moved on past the random numbers of the ranks before it.

    generate() draws one number per prompt and token, prompt by prompt, so each answer is written with the numbers it
    would have in one process (on a GPU, whose generator counts otherwise, with other numbers that nobody else uses).
    """
    if world.size == 1:
        return prompts
    mine = share(world, range(len(prompts.ids)))
    skipped = (mine.start, new_tokens)
    torch.rand(skipped, generator=generator, dtype=torch.float64, device=generator.device)
    rows = slice(mine.start, mine.stop)
    return replace(
        prompts, ids=prompts.ids[rows], attention_mask=prompts.attention_mask[rows], texts=prompts.texts[rows]
    )


def gather_rollout(world: World, rollout: Rollout, pad_id: int) -> Rollout:
    """Every rank's answers in the order of the prompts, on as much padding as the longest prompt and answer need."""
    if world.size == 1:
        return rollout
    response_tokens = rollout.response_mask.shape[1]
    prompt_tokens = rollout.ids.shape[1] - response_tokens
    most_prompt, most_response = largest(world, prompt_tokens, response_tokens)
    before, after = most_prompt - prompt_tokens, most_response - response_tokens

    def sequences(x: Tensor, fill: float) -> Tensor:  # [b p+r] -> [B P+R]
        return gather(world, torch.nn.functional.pad(x, (before, after), value=fill))

    def answers(x: Tensor) -> Tensor:  # [b r] -> [B R]
        return gather(world, torch.nn.functional.pad(x, (0, after)))

    return replace(
        rollout,
        ids=sequences(rollout.ids, pad_id),
        attention_mask=sequences(rollout.attention_mask, False),
        response_mask=answers(rollout.response_mask),
        ended=gather(world, rollout.ended),
        old_log_probs=answers(rollout.old_log_probs),
        ref_log_probs=answers(rollout.ref_log_probs),
        values=answers(rollout.values),
        scores=gather(world, rollout.scores),
        prompts=gather_texts(world, rollout.prompts),
        responses=gather_texts(world, rollout.responses),
        generation_seconds=rollout.generation_seconds,
    )


def gather_texts(world: World, texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of all ranks, in their order; they travel as UTF-8."""
    encoded = [text.encode("utf-8", errors="surrogatepass") for text in texts]
    device = world.device
    lengths = gather(world, torch.tensor([len(one) for one in encoded], dtype=torch.int64, device=device)).tolist()
    letters = gather(world, torch.tensor(list(b"".join(encoded)), dtype=torch.uint8, device=device)).cpu()
    everything, start, gathered = bytes(letters.tolist()), 0, []
    for length in lengths:
        gathered.append(everything[start : start + length].decode("utf-8", errors="surrogatepass"))
        start += length
    return tuple(gathered)
