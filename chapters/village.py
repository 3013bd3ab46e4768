"""Small trained models of Pennywhistle for the chapters that need one: a policy, and reward models of several sizes.

    from village import load_village, prompts_at, reward_model

    village = load_village()  # .base .sft .tokenizer .prompts .held_out .pairs; under a minute the first time
    judge = reward_model(layers=1, pairs=1000)

Stories are left out, so that answers are one to three sentences and an experiment takes seconds. Everything is made by
the library's own trainers and kept in build/village under a name that follows from the library's source, the shipped
data and the settings: what has changed is trained anew. MINIRLHF_VILLAGE names another folder to keep it in, an empty
one for a fresh start, which is what `--rerun-chapters` does.
"""

import copy
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

import minirlhf
from minirlhf.data.batches import (
    batch_indices,
    conversation_batch,
    epoch_order,
    preference_batch,
    prompt_batch,
    token_stream,
    window_batch,
)
from minirlhf.data.formats import read_conversations, read_documents, read_preferences, read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.data.tokenize import tokenize_conversations, tokenize_preferences
from minirlhf.data.true_reward import true_reward
from minirlhf.data.world_prompts import parse_prompt
from minirlhf.generation.generate import generate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.checkpoint import Model, load_model, save_checkpoint
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import RewardModel
from minirlhf.nn.lean_attention import lean_attend
from minirlhf.records import Conversation, Preference, PreferenceBatch, Prompt, PromptBatch, TokenBatch, Turn
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain
from minirlhf.trainers.reward import RewardConfig, train_reward
from minirlhf.trainers.sft import SftConfig, train_sft

Network = TypeVar("Network", bound=torch.nn.Module)
SHAPE = GPTConfig(
    vocab_size=1024, context=96, layers=3, heads=4, width=96, positions="rope", norm="rms", mlp="swiglu",
    bias=False, qk_norm=True, tie_embeddings=False, zero_init=True,
)  # fmt: skip
ANSWER = SamplingConfig(max_new_tokens=48, temperature=1.0)  # how the village's models answer in every chapter
PRETRAIN_STEPS, SFT_EPOCHS, SEED = 200, 2.0, 0
TRAINS = ("data", "generation", "models", "nn", "objectives", "rollout", "tokenizers", "trainers")  # make a model
true_score = reward_fn_scorer(true_reward)  # the judge that no reward model ever meets, as a scorer


@dataclass(frozen=True)
class Village:
    """A pretrained and a fine-tuned model, and what there is to practise and to measure on."""

    base: GPT
    sft: GPT
    tokenizer: Tokenizer
    prompts: tuple[Prompt, ...]  # to practise on
    held_out: tuple[Prompt, ...]  # to measure on: other content
    pairs: tuple[Preference, ...]  # judged by the three annotators


def no_story(prompt: Sequence[Turn]) -> bool:
    return len(prompt) == 1 and parse_prompt(prompt[0].content).kind != "story"


@cache
def state() -> str:
    """A name for all that a trained model follows from, its own settings aside."""
    package = Path(minirlhf.__file__).parent
    digest = hashlib.sha256(shipped_path("SHA256SUMS").read_bytes() + Path(__file__).read_bytes())
    for path in sorted(file for wing in TRAINS for file in (package / wing).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def kept(name: str, make: Callable[[], tuple[Model, Tokenizer]]) -> tuple[Model, Tokenizer]:
    """The model of this name; trained now if it has not been before."""
    above = Path(minirlhf.__file__).parent.parent / "build" / "village"
    folder = Path(os.environ.get("MINIRLHF_VILLAGE", above)) / f"{name}-{state()}"
    if not folder.exists():
        model, tokenizer = make()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as making:
            save_checkpoint(Path(making) / "model", model, tokenizer)
            if not folder.exists():  # another chapter may have been quicker
                os.replace(Path(making) / "model", folder)
    return load_model(folder)


def new_base() -> tuple[Model, Tokenizer]:
    """From random numbers to a model that continues the village's stories."""
    documents, _ = read_documents([shipped_path("stories.txt")])
    spoken = [conversation.turns[1].content for conversation in conversations()]
    tokenizer = train_bpe([*(document.text for document in documents), *spoken], SHAPE.vocab_size)
    stream = token_stream(documents, tokenizer)
    config = PretrainConfig(steps=PRETRAIN_STEPS, batch_size=16)
    model = GPT(SHAPE, torch_generator(SEED, "init"), lean_attend)

    def batches_at(step: int) -> list[TokenBatch]:
        return [window_batch(stream, SHAPE.context, config.batch_size, torch_generator(SEED, "windows", step))]

    optimizer = make_optimizer(model.named_parameters(), config.optim)
    for _ in train_pretrain(model, batches_at, optimizer, config, SEED):
        pass
    return model, tokenizer


def new_sft() -> tuple[Model, Tokenizer]:
    """From the base to a model that answers and stops, by imitation of good and bad demonstrations."""
    model, tokenizer = kept("base", new_base)
    assert isinstance(model, GPT)
    items, _ = tokenize_conversations(conversations(), tokenizer, SHAPE.context)
    config = SftConfig(SFT_EPOCHS, optim=replace(PretrainConfig().optim, learning_rate=3e-3))

    def batches_at(step: int) -> list[TokenBatch]:
        chosen = batch_indices(len(items), config.batch_size, SEED, step)
        return [conversation_batch([items[i] for i in chosen], tokenizer.pad_id)]

    optimizer = make_optimizer(model.named_parameters(), config.optim)
    for _ in train_sft(model, batches_at, optimizer, config, config.steps(len(items)), SEED):
        pass
    return model, tokenizer


def conversations() -> list[Conversation]:
    found, _ = read_conversations([shipped_path("instructions.jsonl")])
    return [conversation for conversation in found if no_story(conversation.turns[:-1])]


@cache
def load_village() -> Village:
    """The models, in eval() mode, and the village's prompts and pairs without stories. Train a copy_of one."""
    base, tokenizer = kept("base", new_base)
    sft, _ = kept("sft", new_sft)
    assert isinstance(base, GPT) and isinstance(sft, GPT)
    practise, measured = (read_prompts([shipped_path(f"prompts_{part}.jsonl")])[0] for part in ("train", "held_out"))
    pairs, _ = read_preferences([shipped_path("preferences.jsonl.gz")])
    return Village(
        base.eval(),
        sft.eval(),
        tokenizer,
        tuple(prompt for prompt in practise if no_story(prompt.turns)),
        tuple(prompt for prompt in measured if no_story(prompt.turns)),
        tuple(pair for pair in pairs if no_story(pair.prompt)),
    )


def prompts_at(prompts: Sequence[Prompt], batch_size: int, seed: int = 0) -> Callable[[int], PromptBatch]:
    """The prompts of a rollout as a pure function of its number: what the trainers take."""
    tokenizer, room = load_village().tokenizer, SHAPE.context - ANSWER.max_new_tokens

    def at(step: int) -> PromptBatch:
        return prompt_batch([prompts[i] for i in batch_indices(len(prompts), batch_size, seed, step)], tokenizer, room)

    return at


def copy_of(model: Network) -> Network:
    """A copy to train: the village's own stay as they are, and may have been frozen as a reference."""
    return copy.deepcopy(model).requires_grad_(True)


def lower_part(model: GPT, layers: int) -> GPT:
    """A copy of the model that ends after its first layers."""
    part = GPT(replace(model.config, layers=layers), attend=lean_attend)
    part.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in part.state_dict()})
    return part


def new_reward_model(layers: int, pairs: int, seed: int) -> tuple[Model, Tokenizer]:
    village = load_village()
    tokenizer, chosen = village.tokenizer, epoch_order(len(village.pairs), seed, 0)[:pairs]
    items, _ = tokenize_preferences([village.pairs[i] for i in chosen], tokenizer, SHAPE.context)
    model = RewardModel.from_trunk(lower_part(village.sft, layers), torch_generator(seed, "reward head"))
    config = RewardConfig(batch_size=32, optim=replace(PretrainConfig().optim, learning_rate=1e-3))

    def batches_at(step: int) -> list[PreferenceBatch]:
        drawn = batch_indices(len(items), config.batch_size, seed, step)
        return [preference_batch([items[i] for i in drawn], tokenizer.pad_id)]

    optimizer = make_optimizer(model.named_parameters(), config.optim)
    for _ in train_reward(model, batches_at, optimizer, config, config.steps(len(items)), seed):
        pass
    batch = prompts_at(village.prompts, 256, seed)(0)
    made = generate(
        village.sft, batch, ANSWER, (tokenizer.end_id,), tokenizer.pad_id, torch_generator(seed, "normalise")
    )
    with torch.no_grad():
        model.normalise(model.eval()(made.ids, made.attention_mask))  # the policy's own answers: mean 0, deviation 1
    return model, tokenizer


def reward_model(layers: int = SHAPE.layers, pairs: int = 3000, seed: int = 0) -> RewardModel:
    """A judge that starts from the first layers of the fine-tuned model and has read so many pairs, once each.

    Its scores have mean 0 and standard deviation 1 on the fine-tuned model's own answers.
    """
    model, _ = kept(f"reward-{layers}-{pairs}-{seed}", lambda: new_reward_model(layers, pairs, seed))
    assert isinstance(model, RewardModel)
    return model.eval()
