"""The command `chat`: talk with a model. It sees the whole conversation, until the context is full."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro

from minirlhf.errors import UserError
from minirlhf.generation.generate import stream
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.records import Turn
from minirlhf.seeding import torch_generator
from minirlhf.stages.common import load_gpt, pick
from minirlhf.stages.generate import banned_in_answers
from minirlhf.tokenizers.chat import encode_prompt
from minirlhf.tokenizers.streaming import StreamDecoder
from minirlhf.tokenizers.tokenizer import Tokenizer

WELCOME = "Write and press Enter. /reset forgets the conversation, /exit leaves, Ctrl-C stops an answer."


@dataclass(frozen=True)
class Chat:
    """Talk with a model."""

    model: tyro.conf.Positional[Path]  # a run folder or a checkpoint
    system: str | None = None  # a text the model sees before the conversation
    seed: int = 0  # the same seed and the same words give the same answers
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(max_new_tokens=128, temperature=0.8))


def run_chat(stage: Chat) -> None:
    """Reads lines until /exit or the end of the input."""
    model, tokenizer = load_gpt(stage.model, pick(stage.device))
    history: list[Turn] = []
    answers = 0
    print(WELCOME)
    while True:
        try:
            line = input("\nyou: ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n(/exit leaves)")
            continue
        if line == "/exit":
            return
        if line == "/reset":
            history = []
            print("(the conversation is forgotten)")
        elif line.startswith("/"):
            print(f"(there is no command {line.split()[0]}; there are /reset and /exit)")
        elif line:
            generator = torch_generator(stage.seed, "chat", answers, device=model.causal.device)
            history = take_turn(model, tokenizer, stage, history, line, generator, show)
            answers += 1


def show(text: str) -> None:
    """Writes without waiting for the end of the line."""
    print(text, end="", flush=True)


def take_turn(
    model: GPT,
    tokenizer: Tokenizer,
    stage: Chat,
    history: Sequence[Turn],
    line: str,
    generator: torch.Generator,
    write: Callable[[str], None],
) -> list[Turn]:
    """Answers one line, token by token through write; returns the conversation with both turns added.

    Ctrl-C ends the answer; what there is of it is kept. A line that cannot be answered leaves the history as it was.
    """
    try:
        asked = fit_history(tokenizer, stage, [*history, Turn("user", line)], model.config.context, write)
        prompt_ids = encode_prompt(tokenizer, [*_system(stage), *asked])
        stop, banned = (tokenizer.end_id,), banned_in_answers(tokenizer)
        tokens = stream(model, prompt_ids, stage.sampling, stop, generator, banned)
    except UserError as error:
        write(f"({error})\n")
        return list(history)
    decoder, answer = StreamDecoder(tokenizer, skip_control=True), ""
    write("model: ")
    try:
        for token in tokens:
            piece = decoder.push(token)
            answer += piece
            write(piece)
    except KeyboardInterrupt:
        write(" (stopped)")
    rest = decoder.flush()
    write(rest + "\n")
    answer += rest
    return [*asked, Turn("assistant", answer)] if answer else asked[:-1]


def fit_history(
    tokenizer: Tokenizer, stage: Chat, turns: Sequence[Turn], context: int, write: Callable[[str], None]
) -> list[Turn]:
    """Drops the oldest turns, two at a time, until an answer has room, and says so. The last turn always stays.

    Room means max_new_tokens, or a quarter of the context if that is less.
    """
    room = min(stage.sampling.max_new_tokens, max(1, context // 4))
    kept = list(turns)
    while len(kept) > 1 and len(encode_prompt(tokenizer, [*_system(stage), *kept])) + room > context:
        kept = kept[2:]
    if len(kept) < len(turns):
        write(f"(the context is full: the oldest {len(turns) - len(kept)} turns are forgotten)\n")
    return kept


def _system(stage: Chat) -> list[Turn]:
    return [Turn("system", stage.system)] if stage.system else []
