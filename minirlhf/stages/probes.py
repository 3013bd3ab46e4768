"""Answers on the way: the few prompts a run answers again and again, and answers to many prompts at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from minirlhf.data.batches import prompt_batch
from minirlhf.data.tokenize import prompt_ids_of
from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.models.sharded import whole
from minirlhf.records import Conversation, Generation, Prompt, PromptBatch, Turn
from minirlhf.rollout.collect import response_texts
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import Tokenizer

PROBES = 4  # few enough to read at every evaluation


def answer_length(context: int) -> int:
    """How many tokens a probe answer may have: half the context, at most 64."""
    return max(1, min(64, context // 2))


def prompts_of(conversations: Sequence[Conversation]) -> list[Prompt]:
    """What comes before each conversation's first answer, every prompt once."""
    prompts: dict[tuple[Turn, ...], Prompt] = {}
    for conversation in conversations:
        first = next((i for i, turn in enumerate(conversation.turns) if turn.role == "assistant"), 0)
        if first:
            prompt = Prompt(conversation.turns[:first], conversation.source)
            prompts.setdefault(prompt.turns, prompt)
    return list(prompts.values())


def fitting(
    prompts: Sequence[Prompt], model: GPT, tokenizer: Tokenizer, max_new_tokens: int | None = None
) -> list[Prompt]:
    """The prompts that leave room for an answer of so many tokens (of a probe's length, if not given); maybe none."""
    room = model.config.context - (max_new_tokens or answer_length(model.config.context))
    return [prompt for prompt in prompts if len(prompt_ids_of(prompt.turns, tokenizer)) <= room]


def continuations(
    model: GPT, tokenizer: Tokenizer, batch: PromptBatch, sampling: SamplingConfig, generator: torch.Generator
) -> tuple[list[str], Generation]:
    """What the model writes after each row of the batch, as text without the end token, and as ids."""
    with whole(model):
        made = generate(model, batch, sampling, (tokenizer.end_id,), tokenizer.pad_id, generator)
    return list(response_texts(made, tokenizer)), made


def answers(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    generator: torch.Generator,
    batch_size: int = 64,
) -> list[str]:
    """The model's answers to any number of prompts, a batch at a time."""
    room = model.config.context - sampling.max_new_tokens
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts_to(device_of(model), prompt_batch(prompts[start : start + batch_size], tokenizer, room))
        texts += continuations(model, tokenizer, batch, sampling, generator)[0]
    return texts


def probe_rows(
    model: GPT, tokenizer: Tokenizer, probes: Sequence[Prompt], seed: int, sampling: SamplingConfig | None = None
) -> list[dict[str, Any]]:
    """The probe prompts with the model's answers of this moment, always drawn with the same random numbers."""
    sampling = sampling or SamplingConfig(max_new_tokens=answer_length(model.config.context))
    generator = torch_generator(seed, "probe", device=device_of(model))
    responses = answers(model, tokenizer, probes, sampling, generator)
    return [{"prompt": p.turns[-1].content, "response": r} for p, r in zip(probes, responses, strict=True)]


def prompts_to(device: torch.device, batch: PromptBatch) -> PromptBatch:
    """The batch on this device."""
    return replace(batch, ids=batch.ids.to(device), attention_mask=batch.attention_mask.to(device))


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights lie."""
    return next(model.parameters()).device
