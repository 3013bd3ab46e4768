"""The stage `pretrain`: raw text to a model that continues it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from minirlhf.data.batches import split_stream, token_stream, validation_windows, window_batch
from minirlhf.data.formats import read_documents
from minirlhf.errors import UserError
from minirlhf.evaluation.held_out import evaluate_held_out
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.flops import training_flops
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.nn.lean_attention import lean_attend
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World, share
from minirlhf.records import Document, PromptBatch, TokenBatch
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.seeding import torch_generator
from minirlhf.stages.common import (
    DataOptions,
    fingerprint,
    finish,
    load_gpt,
    pick,
    restore_model,
    restore_optimizer,
    save_training,
    say,
    split_rows,
    to_device,
)
from minirlhf.stages.probes import answer_length, continuations
from minirlhf.tokenizers.bpe import train_bpe
from minirlhf.tokenizers.storage import import_gpt2, load_tokenizer
from minirlhf.tokenizers.tokenizer import Tokenizer, byte_tokenizer
from minirlhf.trainers.checks import check_settings
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain


@dataclass(frozen=True)
class PretrainStage:
    """Teach a model made of random numbers to continue text."""

    run: RunOptions
    source: DataOptions = field(default_factory=DataOptions)
    separator: str | None = None
    """The line between two documents of a .txt file (without it: <|endoftext|>), or blank: split at blank lines."""
    model: Path | None = None  # go on training this model instead of a new one; its tokenizer and sizes are kept
    tokenizer: str | None = None
    """bytes, bpe (trained on the data, --vocab-size), a tokenizer.json, or a folder with one or with GPT-2's vocab.json
    and merges.txt. Without it: bpe for the shipped text, bytes for files of your own."""
    held_out_fraction: float = 0.1  # the last part of the text, kept for validation
    eval_windows: int = 200  # windows of held-out text in each evaluation on the way; the last one reads all of it
    gpt: GPTConfig = field(  # Qwen 3's shape, which learns faster than GPT-2's: benchmarks/recipe.py
        default_factory=lambda: GPTConfig(
            vocab_size=1024,
            positions="rope",
            norm="rms",
            mlp="swiglu",
            bias=False,
            qk_norm=True,
            tie_embeddings=False,
            zero_init=True,
        )
    )
    training: PretrainConfig = field(default_factory=PretrainConfig)


def run_pretrain(stage: PretrainStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size)
    check_settings(stage, held_out_fraction=(0, 1 - 1e-9), eval_windows=(1, float("inf")))
    device = pick(stage.run.device)
    paths = stage.source.paths("stories.txt")
    documents, report = read_documents(paths, **stage.source.reading(), separator=stage.separator)
    say("documents", report)
    model, tokenizer = _model(stage, documents, device)
    context, config = model.config.context, stage.training
    if context < 2:
        raise UserError("a context of one token has no room to continue", found="context = 1", fix="--context 64")
    train, held_out = split_stream(token_stream(documents, tokenizer), stage.held_out_fraction)
    for name, part in (("training", train), ("held-out", held_out)):
        if len(part) <= context:
            raise UserError(
                f"the {name} text is shorter than one window",
                where=", ".join(map(str, paths)),
                found=f"{len(part)} tokens",
                expected=f"at least {context + 1}",
                fix="give more text, a smaller --context, or another --held-out-fraction",
            )

    settings = {"data": fingerprint(paths, [stage.model] if stage.model else []), "gpt": model.config, "stage": stage}
    run = open_run(stage.run, device, "pretrain", settings, world)
    model = restore_model(run, model)
    optimizer = make_optimizer(model.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)

    def micro_batches_at(step: int) -> Sequence[TokenBatch]:
        batch = window_batch(train, context, config.batch_size, torch_generator(stage.run.seed, "windows", step))
        rows = split_rows(share(world, range(len(batch.ids))), config.micro_batch_size)
        return [to_device(TokenBatch(batch.ids[list(r)], batch.loss_mask[list(r)]), device) for r in rows]

    def evaluate(step: int) -> dict[str, float]:
        subset = held_out if step >= config.steps else held_out[: stage.eval_windows * context + 1]
        result = evaluate_held_out(model, validation_windows(subset, context), tokenizer, world)
        return {"val_loss_nats_per_token": result.loss_nats_per_token, "val_bits_per_byte": result.bits_per_byte}

    def save(state: dict[str, Any]) -> None:
        save_training(run, model, tokenizer, optimizer, state)

    probes = _probes(held_out, context, tokenizer, device)
    room = min(answer_length(context), context - probes.ids.shape[1])
    sampling = SamplingConfig(max_new_tokens=room, temperature=0.8)

    def sample() -> list[dict[str, Any]]:
        generator = torch_generator(stage.run.seed, "probe", device=device)
        responses, _ = continuations(model, tokenizer, probes, sampling, generator)
        return [{"prompt": p, "response": r} for p, r in zip(probes.texts, responses, strict=True)]

    if not run.finished:
        reports = train_pretrain(model, micro_batches_at, optimizer, config, stage.run.seed, run.start_step, world)
        flops = training_flops(model.config, [context] * config.batch_size)
        drive(run, reports, config.steps, save, evaluate, sample, flops=lambda step: flops)
    finish(run, model, tokenizer, config.steps, f"minirlhf sft --model {run.folder} --out runs/sft")
    return run.folder


def _model(stage: PretrainStage, documents: Sequence[Document], device: torch.device) -> tuple[GPT, Tokenizer]:
    """The model to train and its tokenizer: loaded, or new with weights that follow from the seed."""
    if stage.model is not None:
        if stage.tokenizer is not None:
            raise UserError("--model brings its own tokenizer", found="--tokenizer", fix="leave out one of the two")
        return load_gpt(stage.model, device)
    tokenizer = _tokenizer(stage, documents)
    config = replace(stage.gpt, vocab_size=tokenizer.vocab_size)
    return GPT(config, torch_generator(stage.run.seed, "init"), lean_attend).to(device), tokenizer


def _tokenizer(stage: PretrainStage, documents: Sequence[Document]) -> Tokenizer:
    choice = stage.tokenizer or ("bytes" if stage.source.data else "bpe")
    if choice == "bytes":
        return byte_tokenizer()
    if choice == "bpe":
        return train_bpe([document.text for document in documents], stage.gpt.vocab_size)
    return find_tokenizer(Path(choice))


def find_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from a file, from a folder or run folder that holds a tokenizer.json, or from GPT-2's two files."""
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        return import_gpt2(path / "vocab.json", path / "merges.txt")
    for candidate in (path / "tokenizer.json", path / "checkpoint" / "tokenizer.json"):
        if candidate.exists():
            return load_tokenizer(candidate)
    if path.is_file():
        return load_tokenizer(path)
    raise UserError(
        "there is no tokenizer here",
        where=str(path),
        expected="bytes, bpe, a tokenizer.json, a folder with one, or a folder with vocab.json and merges.txt",
    )


def _probes(held_out: torch.Tensor, context: int, tokenizer: Tokenizer, device: torch.device) -> PromptBatch:
    """Four places in the held-out text to continue from, always the same."""
    length = max(1, min(16, context // 4))
    starts = [index * (len(held_out) - length) // 4 for index in range(4)]
    ids = torch.stack([held_out[start : start + length] for start in starts]).to(device)  # [4 P]
    return PromptBatch(
        ids, torch.ones_like(ids, dtype=torch.bool), tuple(tokenizer.decode(row.tolist()) for row in ids)
    )
