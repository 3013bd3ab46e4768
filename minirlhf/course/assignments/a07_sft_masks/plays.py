"""A tokenizer, turns and a model for the calls of a07. Runs beside the student's code: no answer stands here."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from minirlhf.course.jobs import Job, Values, build, callee, plain

MERGED = ("he", "re", "is", "er", "ri", "th")
"""The pairs of letters of which the tokenizer makes one token each."""


def a_conversation(module: ModuleType, job: Job, values: Values) -> Any:
    """target(tokenizer, turns)."""
    from minirlhf.records import Turn
    from minirlhf.tokenizers.tokenizer import CONTROL_TOKENS, Tokenizer

    tokens = (*(bytes([byte]) for byte in range(256)), *(pair.encode() for pair in MERGED))
    control = {name: number for number, name in enumerate(CONTROL_TOKENS, start=len(tokens))}
    tokenizer = Tokenizer(tokens, tuple((ord(pair[0]), ord(pair[1])) for pair in MERGED), "gpt2", control)
    return callee(module, job, values)(tokenizer, [Turn(role, text) for role, text in job.setting["turns"]])


def also_of_nothing(module: ModuleType, job: Job, values: Values) -> tuple[Any, Any]:
    """The answer for the arrays, and where nothing counts."""
    nothing = {**values, "loss_mask": torch.zeros_like(values["loss_mask"])}
    return plain(module, job, values), plain(module, job, nothing)


@dataclass(frozen=True)
class SmallModel:
    """Reads from left to right: embedding and unembedding [V D]. Both a function that gives logits, and a model."""

    embedding: Tensor
    unembedding_weight: Tensor
    precision: torch.dtype | None = None

    def hidden(self, ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, None]:
        """[B T D]: every token hears of those before it, and nothing of what the mask hides."""
        x = self.embedding[ids]
        if attention_mask is not None:
            x = x.masked_fill(~attention_mask[..., None], 0.0)
        return torch.tanh(0.5 * x.cumsum(dim=1)), None

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.unembedding_weight.T

    def __call__(self, ids: Tensor, attention_mask: Tensor | None = None, last: int | None = None) -> Tensor:
        x, _ = self.hidden(ids, attention_mask)
        return self.logits(x if last is None else x[:, -last:])


def of_a_model(module: ModuleType, job: Job, values: Values) -> Any:
    """target(model, arguments …)."""
    model = SmallModel(values["embedding"], values["unembedding"])
    named = {name: build(each, values) for name, each in job.named.items()}
    return callee(module, job, values)(model, *(build(each, values) for each in job.arguments[1:]), **named)
