"""The command `generate`: prompts to answers, on the terminal or in a file."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from minirlhf.data.formats import read_prompts
from minirlhf.data.tokenize import prompt_ids_of
from minirlhf.errors import UserError
from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.models.speed import compile_decoding
from minirlhf.records import Prompt, PromptBatch, Turn
from minirlhf.rollout.collect import response_texts
from minirlhf.runs.files import write_text
from minirlhf.seeding import torch_generator
from minirlhf.stages.common import DataOptions, check_free, load_gpt, make_room, pick, say
from minirlhf.tokenizers.tokenizer import END, Tokenizer
from minirlhf.trainers.checks import check_settings


@dataclass(frozen=True)
class Generate:
    """Answer prompts, or continue text."""

    model: Path  # the model that writes: a run folder or a checkpoint
    prompt: tuple[str, ...] = ()  # what to answer; more than one is answered together
    source: DataOptions = field(default_factory=DataOptions)
    continue_text: bool = False  # continue the prompt as text (for models fresh from pretrain) instead of answering it
    samples: int = 1  # answers per prompt
    seed: int = 0  # the same seed gives the same answers
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: int = 32  # answers written at the same time
    out: Path | None = None  # write here instead of to the terminal; .jsonl gives a line {"prompt", "response"} each
    overwrite: bool = False  # if the file exists, move it aside first
    compile: bool = False  # decoding becomes compiled code: worth its 15 seconds where much is to be written
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


def run_generate(stage: Generate) -> list[tuple[str, str]]:
    """Writes the answers and returns them as (prompt, response)."""
    check_settings(stage, samples=(1, float("inf")), batch_size=(1, float("inf")))
    if stage.out is not None:
        check_free(stage.out, stage.overwrite)
    if stage.prompt and stage.source.data:
        raise UserError("prompts come from --prompt or from --data", found="both", fix="leave out one of them")
    model, tokenizer = load_gpt(stage.model, pick(stage.device))
    if stage.compile:
        compile_decoding(model)
    if stage.source.data:
        prompts, report = read_prompts(stage.source.data, **stage.source.reading())
        say("prompts", report)
    elif stage.prompt:
        prompts = [Prompt((Turn("user", text),), f"--prompt {number}") for number, text in enumerate(stage.prompt, 1)]
    else:
        raise UserError("there is nothing to answer", fix='--prompt "some text", or --data FILE')
    texts = [prompt.turns[-1].content for prompt in prompts for _ in range(stage.samples)]
    rows = [_ids(prompt, tokenizer, stage.continue_text) for prompt in prompts for _ in range(stage.samples)]
    responses = [""] * len(rows)
    for number, group in enumerate(groups_that_fit(rows, model, stage.sampling, stage.batch_size)):
        generator = torch_generator(stage.seed, "generate", number, device=model.causal.device)
        answers = answer_ids(model, tokenizer, [rows[i] for i in group], stage.sampling, generator)
        for i, response in zip(group, answers, strict=True):
            responses[i] = response
    made = list(zip(texts, responses, strict=True))
    if stage.out is None:
        for prompt_text, response in made:
            print(prompt_text + response if stage.continue_text else f"> {prompt_text}\n{response}", end="\n\n")
        return made
    make_room(stage.out)
    if stage.out.suffix == ".jsonl":
        lines = [json.dumps({"prompt": p, "response": r}, ensure_ascii=False) + "\n" for p, r in made]
    else:
        lines = [f"> {p}\n{r}\n\n" for p, r in made]
    write_text(stage.out, "".join(lines))
    print(f"{len(made)} answers  {stage.out}")
    return made


def answer_ids(
    model: GPT,
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    generator: torch.Generator,
) -> list[str]:
    """What the model writes after each row of ids, as text. No control token but the end is ever drawn."""
    longest = max(map(len, rows))
    room = min(sampling.max_new_tokens, model.config.context - longest)
    ids = torch.full((len(rows), longest), tokenizer.pad_id)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for b, row in enumerate(rows):
        ids[b, longest - len(row) :] = torch.tensor(row)
        mask[b, longest - len(row) :] = True
    device = model.causal.device
    batch = PromptBatch(ids.to(device), mask.to(device), ("",) * len(rows))
    stop, pad = (tokenizer.end_id,), tokenizer.pad_id
    made = generate(
        model, batch, replace(sampling, max_new_tokens=room), stop, pad, generator, banned_in_answers(tokenizer)
    )
    return list(response_texts(made, tokenizer))


def banned_in_answers(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Every control token but END: a model does not pad, and does not speak for others."""
    return tuple(token_id for name, token_id in tokenizer.control.items() if name != END)


def groups_that_fit(
    rows: Sequence[Sequence[int]], model: GPT, sampling: SamplingConfig, batch_size: int
) -> Iterator[list[int]]:
    """Row numbers to be answered together: those with room for a whole answer in batches, the long ones one by one.

    The answer to a long prompt ends where the context does. Raises UserError for a prompt that fills it.
    """
    context = model.config.context
    for number, row in enumerate(rows):
        if len(row) >= context:
            raise UserError(
                "a prompt fills the model's whole context, so there is no room for an answer",
                where=f"prompt {number + 1}",
                found=f"{len(row)} tokens",
                expected=f"fewer than {context}",
                fix="shorten it, or use a model with a larger context",
            )
    short = [i for i, row in enumerate(rows) if len(row) + sampling.max_new_tokens <= context]
    long = sorted(set(range(len(rows))) - set(short))
    if long:
        print(f"note: {len(long)} answers may be shorter than --max-new-tokens, the context is {context} tokens")
    yield from (short[start : start + batch_size] for start in range(0, len(short), batch_size))
    yield from ([i] for i in long)


def _ids(prompt: Prompt, tokenizer: Tokenizer, continue_text: bool) -> list[int]:
    if continue_text:
        ids = tokenizer.encode(prompt.turns[-1].content)
        return ids or [tokenizer.end_id]  # the end of one text is where the next begins
    return prompt_ids_of(prompt.turns, tokenizer)
