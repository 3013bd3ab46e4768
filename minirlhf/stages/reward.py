"""The stage `reward`: a fine-tuned model and pairs of answers to a model that scores answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from minirlhf.data.batches import batch_indices, preference_batch, prompt_batch
from minirlhf.data.tokenize import TokenizedPair
from minirlhf.evaluation.calibration import PreferenceReport
from minirlhf.evaluation.held_out import evaluate_reward_model
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.flops import training_flops
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import RewardModel
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World, share
from minirlhf.records import PreferenceBatch, Prompt, Turn
from minirlhf.runs.files import write_json
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.seeding import derive_seed, torch_generator
from minirlhf.stages.common import (
    DataOptions,
    fingerprint,
    finish,
    load_gpt,
    pairs_to_device,
    pick,
    restore_model,
    restore_optimizer,
    save_training,
    split_rows,
)
from minirlhf.stages.pairs import read_pairs, sentence, tokenized
from minirlhf.stages.probes import answer_length, continuations, device_of, fitting, prompts_to
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.reward import RewardConfig, train_reward

NORMALISING_ANSWERS = 256  # their mean is known to 1/16 of a standard deviation


@dataclass(frozen=True)
class RewardStage:
    """Learn a score from pairs of answers, one preferred to the other."""

    run: RunOptions
    model: Path  # the model to start from, made by sft (or by pretrain)
    source: DataOptions = field(default_factory=DataOptions)
    held_out: tuple[Path, ...] = ()  # pairs to measure accuracy on; for the shipped data its held-out file
    held_out_fraction: float = 0.1  # without such a file: the share of the prompts that is kept for it
    training: RewardConfig = field(default_factory=RewardConfig)


def run_reward(stage: RewardStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size)
    device, seed, config = pick(stage.run.device), stage.run.seed, stage.training
    trunk, tokenizer = load_gpt(stage.model, device)
    train, held_out, paths = read_pairs(stage.source, stage.held_out, stage.held_out_fraction, seed)
    pairs, held_out_pairs = tokenized(train, held_out, tokenizer, trunk.config.context)
    steps = config.steps(len(pairs))

    settings = {"data": fingerprint(paths, [stage.model]), "gpt": trunk.config, "stage": stage}
    run = open_run(stage.run, device, "reward", settings, world)
    fresh = RewardModel.from_trunk(trunk, torch_generator(seed, "reward head")).to(device)
    model = restore_model(run, fresh)
    optimizer = make_optimizer(model.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)
    order_seed = derive_seed(seed, "reward order")

    def batches_of(chosen: Sequence[TokenizedPair], size: int | None) -> list[PreferenceBatch]:
        groups = split_rows(chosen, size)
        return [pairs_to_device(preference_batch(group, tokenizer.pad_id), device) for group in groups]

    def pairs_at(step: int) -> list[PreferenceBatch]:
        indices = share(world, batch_indices(len(pairs), config.batch_size, order_seed, step))
        chosen = sorted((pairs[i] for i in indices), key=longer_answer)
        return batches_of(chosen, config.micro_batch_size)  # like lengths together: less padding, same gradient

    def flops(step: int) -> float:
        chosen = [pairs[i] for i in batch_indices(len(pairs), config.batch_size, order_seed, step)]
        lengths = [len(ids) for pair in chosen for ids in (pair.chosen_ids, pair.rejected_ids)]
        return training_flops(trunk.config, lengths, predicted=0)  # a score is one number, and its head next to nothing

    def held_out_report() -> PreferenceReport:
        return evaluate_reward_model(model, batches_of(sorted(held_out_pairs, key=longer_answer), 32))

    reports_at: dict[int, PreferenceReport] = {}  # by step

    def evaluate(step: int) -> dict[str, float]:
        result = reports_at[step] = held_out_report()
        return {"val_accuracy": result.accuracy.mean, "val_loss_nats_per_pair": result.loss_nats_per_pair}

    def save(state: dict[str, Any]) -> None:
        save_training(run, model, tokenizer, optimizer, state)

    show = ("loss_nats_per_pair", "accuracy", "pairs_per_second")
    if not run.finished:
        reports = train_reward(model, pairs_at, optimizer, config, steps, seed, run.start_step, world)
        drive(run, reports, steps, save, evaluate if held_out_pairs else None, None, show, flops)
        if held_out_pairs:
            # read before the scores are normalised, which changes no preference; a run stopped in between has none yet
            result = reports_at.get(steps) or held_out_report()
            if world.leads:
                write_json(run.folder / "evaluation.json", result.as_dict())
            print(sentence(result))
        normalise(model, trunk, tokenizer, [preference.prompt for preference in train], seed)
    finish(run, model, tokenizer, steps, f"minirlhf ppo --model {stage.model} --reward {run.folder} --out runs/ppo")
    return run.folder


def longer_answer(pair: TokenizedPair) -> int:
    """Tokens of the longer side, prompt included: both sides of a batch are padded to the longest of all."""
    return max(len(pair.chosen_ids), len(pair.rejected_ids))


def normalise(
    model: RewardModel, writer: GPT, tokenizer: Tokenizer, prompts: Sequence[tuple[Turn, ...]], seed: int
) -> None:
    """Shifts and scales the scores so that the writer's own answers score 0 on average, with standard deviation 1.

    The writer is the model that was fine-tuned, which is where PPO will start: a score then says how far an answer is
    above what the model already does. Ziegler et al. 2019, arXiv:1909.08593, section 2.1.
    """
    sampling = SamplingConfig(max_new_tokens=answer_length(writer.config.context))
    different = [Prompt(prompt, "") for prompt in dict.fromkeys(prompts)]
    kept = fitting(different, writer, tokenizer)[:NORMALISING_ANSWERS]
    if not kept:
        print("No prompt leaves room for an answer, so the scores are not normalised.")
        return
    batch = prompts_to(device_of(writer), prompt_batch(kept, tokenizer, writer.config.context))
    generator = torch_generator(seed, "normalise", device=device_of(writer))
    _, made = continuations(writer, tokenizer, batch, sampling, generator)
    with torch.no_grad():
        model.eval()
        model.normalise(model(made.ids, made.attention_mask))
