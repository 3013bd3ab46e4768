"""Calls of a06 that take settings or a model. Runs beside the student's code: no answer stands here."""

from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from minirlhf.course.jobs import Job, Values, build


class Chatterbox(nn.Module):
    """Stands in for a GPT: what it says hangs on the last token, and on every visible token before it.

    In training it says something else, as dropout would have it.
    """

    def __init__(self, table: Tensor, pull: Tensor, context: int):
        from minirlhf.models.gpt import read_tokens

        super().__init__()
        self.table, self.pull = table, pull
        self.token_embedding = nn.Embedding(len(table), 1).double()
        self.config = SimpleNamespace(context=context)
        self.read_one = read_tokens  # so it is not compiled

    def empty_cache(self, batch: int, capacity: int | None = None) -> Any:
        return Read(torch.zeros(batch, 0, dtype=torch.int64), capacity or self.config.context)

    def decode(self, ids: Tensor, attention_mask: Tensor | None, cache: Any) -> tuple[Tensor, Any]:
        """The logits [B V] for the token after the last of ids, and the cache with ids added."""
        cache = cache.grown(ids)
        visible = torch.ones_like(cache.ids) if attention_mask is None else attention_mask
        if visible.shape != cache.ids.shape:
            raise ValueError(f"the mask has shape {list(visible.shape)}, what was read has {list(cache.ids.shape)}")
        pulled = (self.pull[cache.ids] * visible[..., None]).sum(dim=1) / visible.sum(dim=1)[:, None]  # [B V]
        logits = self.table[ids[:, -1]] + pulled
        return logits.flip(-1) if self.training else logits, cache


class Read:
    """A cache that remembers the ids themselves, int64 [B T], and refuses more than `capacity` of them."""

    def __init__(self, ids: Tensor, capacity: int):
        self.ids, self.capacity = ids, capacity

    def grown(self, ids: Tensor) -> "Read":
        if self.ids.shape[1] + ids.shape[1] > self.capacity:
            raise ValueError(f"{self.ids.shape[1] + ids.shape[1]} tokens, and the cache has {self.capacity} places")
        return Read(torch.cat((self.ids, ids), dim=1), self.capacity)

    def select(self, rows: Tensor | slice) -> "Read":
        return Read(self.ids[rows], self.capacity)


def configured(module: ModuleType, job: Job, values: Values) -> Tensor:
    """sampling_log_probs under the settings."""
    found: Tensor = module.sampling_log_probs(values["logits"], module.SamplingConfig(**job.setting))
    return found


def tokens(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """ids, log-probabilities (probabilities when greedy), and whether broken logits, if there are any, are refused."""
    from minirlhf.objectives.guards import NonFiniteError

    sampling = module.SamplingConfig(**job.setting)
    others = [build(argument, values) for argument in job.arguments[2:]]
    ids, log_probs = module.sample_tokens(values["logits"], sampling, *others)
    returned = (ids, log_probs.exp() if sampling.greedy else log_probs)
    if "broken" not in values:
        return returned
    try:
        module.sample_tokens(values["broken"], sampling, *others)
    except NonFiniteError:
        return (*returned, True)
    return (*returned, False)


def writing(module: ModuleType, job: Job, values: Values) -> tuple[Any, ...]:
    """What generate writes, whether the model is still in training, with `room` whether one place less is refused."""
    from minirlhf.errors import UserError
    from minirlhf.records import PromptBatch

    setting = job.setting
    prompts = PromptBatch(values["ids"], values["attention_mask"], ("",) * len(values["ids"]))
    sampling = module.SamplingConfig(**setting["sampling"])

    def written(context: int) -> tuple[Any, bool]:
        model = Chatterbox(values["table"], values["pull"], context).train()
        generator = torch.Generator().manual_seed(setting["seed"])
        wrote = module.generate(
            model, prompts, sampling, setting["stop_ids"], setting["pad_id"], generator, setting["banned_ids"]
        )
        return wrote, model.training

    found = written(setting["context"])
    if not setting["room"]:
        return found
    try:
        written(setting["context"] - 1)
    except UserError:
        return (*found, True)
    return (*found, False)


def streaming(module: ModuleType, job: Job, values: Values) -> tuple[list[int], ...]:
    """What stream yields, for each of the seeds; an answer that does not end is cut after a hundred tokens."""
    setting = job.setting
    answers = []
    for seed in setting["seeds"]:
        model = Chatterbox(values["table"], values["pull"], setting["context"]).train()
        tokens = module.stream(
            model,
            values["prompt"].tolist(),
            module.SamplingConfig(**setting["sampling"]),
            setting["stop_ids"],
            torch.Generator().manual_seed(seed),
            setting["banned_ids"],
        )
        answers.append([int(token) for token, _ in zip(tokens, range(100), strict=False)])
    return tuple(answers)
