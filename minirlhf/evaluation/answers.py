"""Several models answer the same prompts: what each wrote, what it is worth, how far it moved."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minirlhf.data.batches import prompt_batch
from minirlhf.evaluation.statistics import mean_interval
from minirlhf.evaluation.text_metrics import distinct_n
from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.records import Prompt
from minirlhf.rollout.collect import response_texts
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import Tokenizer

RewardParts = Callable[[str, str], Mapping[str, float]]
"""(prompt, response) -> the reward's parts by name; their sum is the reward."""


@dataclass(frozen=True)
class Answers:
    """One answer per prompt. parts: each answer's reward by part; kl: nats of log pi - log pi_ref per answer."""

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    parts: tuple[Mapping[str, float], ...]
    ended: tuple[bool, ...]
    tokens: tuple[int, ...]
    kl: tuple[float, ...]

    @property
    def rewards(self) -> list[float]:
        return [sum(parts.values()) for parts in self.parts]

    def reward_summary(self) -> dict[str, Any]:
        """Mean and 95 % interval of the reward and of each of its parts."""
        by_part = {
            name: mean_interval([parts[name] for parts in self.parts]).as_dict() for name in (self.parts[0] or ())
        }
        return {**mean_interval(self.rewards).as_dict(), "parts": by_part}

    def text_summary(self) -> dict[str, float]:
        """kl_nats_per_response, eos_rate, distinct_2 and mean_response_tokens."""
        n = len(self.prompts)
        return {
            "kl_nats_per_response": sum(self.kl) / n,
            "eos_rate": sum(self.ended) / n,
            "distinct_2": distinct_n(self.responses, 2),
            "mean_response_tokens": sum(self.tokens) / n,
        }


@torch.no_grad()
def answer_prompts(
    model: GPT,
    reference: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    reward_parts: RewardParts,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int = 100,
) -> Answers:
    """The model's answer to every prompt, drawn with the same random numbers for every model asked with this seed.

    The KL is the k1 estimate of KL(model || reference) on the answers themselves, summed over their tokens
    (objectives/kl.py), at the sampling temperature. Raises UserError for a prompt that leaves no room to answer.
    """
    model.eval()
    reference.eval()
    device = next(model.parameters()).device
    room = model.config.context - sampling.max_new_tokens
    order = sorted(range(len(prompts)), key=lambda i: sum(len(turn.content) for turn in prompts[i].turns))
    rows: dict[int, tuple[str, str, bool, int, float]] = {}
    for number, start in enumerate(range(0, len(order), batch_size)):
        chosen = order[start : start + batch_size]  # prompts of like length together: little padding
        batch = prompt_batch([prompts[i] for i in chosen], tokenizer, room)
        generator = torch_generator(seed, "answers", number, device=device)
        made = generate(model, batch, sampling, (tokenizer.end_id,), tokenizer.pad_id, generator)
        length, mask = made.response_mask.shape[1], made.response_mask
        both = (
            response_log_probs(each, made.ids, made.attention_mask, length, sampling.temperature)[0]
            for each in (model, reference)
        )
        ours, theirs = both  # [B R] nats
        moved = ((ours - theirs) * mask).sum(dim=1).tolist()
        texts, counts = response_texts(made, tokenizer), mask.sum(dim=1).tolist()
        for row, i in enumerate(chosen):
            rows[i] = (batch.texts[row], texts[row], bool(made.ended[row]), counts[row], moved[row])
    prompt_texts, responses, ended, tokens, kl = zip(*(rows[i] for i in range(len(prompts))), strict=True)
    parts = tuple(reward_parts(prompt, response) for prompt, response in zip(prompt_texts, responses, strict=True))
    return Answers(prompt_texts, responses, parts, ended, tokens, kl)
