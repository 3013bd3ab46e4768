"""The stage `sft`: a pretrained model and conversations to a model that answers and stops."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirlhf.data.batches import batch_indices, conversation_batch
from minirlhf.data.formats import read_conversations
from minirlhf.data.split import split_by_prompt
from minirlhf.data.tokenize import tokenize_conversations
from minirlhf.evaluation.held_out import evaluate_held_out
from minirlhf.models.flops import training_flops
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World, share
from minirlhf.records import TokenBatch
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.seeding import derive_seed
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
from minirlhf.stages.probes import PROBES, fitting, probe_rows, prompts_of
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.sft import SftConfig, train_sft


@dataclass(frozen=True)
class SftStage:
    """Teach a pretrained model to answer, by imitation of conversations."""

    run: RunOptions
    model: Path  # the model to start from, made by pretrain
    source: DataOptions = field(default_factory=DataOptions)
    held_out_fraction: float = 0.05  # share of the prompts kept for validation
    training: SftConfig = field(default_factory=SftConfig)


def run_sft(stage: SftStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size)
    device, seed, config = pick(stage.run.device), stage.run.seed, stage.training
    model, tokenizer = load_gpt(stage.model, device)
    paths = stage.source.paths("instructions.jsonl")
    conversations, read_report = read_conversations(paths, **stage.source.reading())
    train, held_out = split_by_prompt(conversations, stage.held_out_fraction, seed)
    context = model.config.context
    items, report = tokenize_conversations(train, tokenizer, context)
    held_out_items = tokenize_conversations(held_out, tokenizer, context)[0] if held_out else []
    say("conversations read", read_report)
    say("conversations to train on", report)
    steps = config.steps(len(items))

    settings = {"data": fingerprint(paths, [stage.model]), "gpt": model.config, "stage": stage}
    run = open_run(stage.run, device, "sft", settings, world)
    model = restore_model(run, model)
    optimizer = make_optimizer(model.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)
    order_seed = derive_seed(seed, "sft order")

    def micro_batches_at(step: int) -> Sequence[TokenBatch]:
        chosen = [items[i] for i in share(world, batch_indices(len(items), config.batch_size, order_seed, step))]
        chosen.sort(key=lambda item: len(item.ids))  # like lengths share a forward pass: less padding, same gradient
        groups = split_rows(chosen, config.micro_batch_size)
        return [to_device(conversation_batch(group, tokenizer.pad_id), device) for group in groups]

    def flops(step: int) -> float:
        chosen = [items[i] for i in batch_indices(len(items), config.batch_size, order_seed, step)]
        counted = sum(int(item.loss_mask.sum()) for item in chosen)
        return training_flops(model.config, [len(item.loss_mask) for item in chosen], counted)

    def evaluate(step: int) -> dict[str, float]:
        groups = split_rows(held_out_items, 32)
        batches = (conversation_batch(group, tokenizer.pad_id) for group in groups)
        result = evaluate_held_out(model, batches, tokenizer, world)
        return {"val_loss_nats_per_token": result.loss_nats_per_token, "val_bits_per_byte": result.bits_per_byte}

    def save(state: dict[str, Any]) -> None:
        save_training(run, model, tokenizer, optimizer, state)

    probes = fitting(prompts_of(held_out or train), model, tokenizer)[:PROBES]

    def sample() -> list[dict[str, Any]]:
        return probe_rows(model, tokenizer, probes, seed)

    if not run.finished:
        reports = train_sft(model, micro_batches_at, optimizer, config, steps, seed, run.start_step, world)
        drive(run, reports, steps, save, evaluate if held_out_items else None, sample if probes else None, flops=flops)
    finish(run, model, tokenizer, steps, f"minirlhf chat {run.folder}")
    return run.folder
