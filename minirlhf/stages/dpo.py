"""The stage `dpo`: a fine-tuned model and pairs of answers to a better model, without a reward model between them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from minirlhf.data.batches import answer_batches, batch_indices
from minirlhf.data.formats import read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.data.tokenize import TokenizedPair
from minirlhf.errors import UserError
from minirlhf.evaluation.calibration import PreferenceReport, evaluate_preferences
from minirlhf.models.flops import forward_flops, training_flops
from minirlhf.models.gpt import GPT
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.objectives.ipo import ipo
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World, share
from minirlhf.records import Preference, Prompt
from minirlhf.runs.files import write_json
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.seeding import derive_seed
from minirlhf.stages.common import (
    DataOptions,
    fingerprint,
    finish,
    load_gpt,
    pick,
    ready,
    restore_model,
    restore_optimizer,
    save_training,
    split_rows,
    to_device,
)
from minirlhf.stages.pairs import read_pairs, sentence, tokenized
from minirlhf.stages.probes import PROBES, fitting, probe_rows
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.checks import check_settings, freeze
from minirlhf.trainers.dpo import DPOConfig, PairLoss, Pairs, answer_log_probs, train_dpo
from minirlhf.trainers.muon import make_optimizer

HELD_OUT_ROWS = 16  # pairs per forward pass when nothing is learnt
SHOW = ("loss_nats_per_pair", "accuracy", "pairs_per_second")


@dataclass(frozen=True)
class DPOStage:
    """Improve a model straight from pairs of answers, one preferred to the other, with DPO."""

    run: RunOptions
    model: Path  # the model to improve, made by sft; it is also the reference it is measured from
    source: DataOptions = field(default_factory=DataOptions)
    held_out: tuple[Path, ...] = ()  # pairs to measure accuracy on; for the shipped data its held-out file
    held_out_fraction: float = 0.1  # without such a file: the share of the prompts that is kept for it
    eval_pairs: int = 400  # at most so many held-out pairs are looked at
    loss: Literal["dpo", "ipo"] = "dpo"  # ipo stops pushing a pair once its margin is large enough
    label_smoothing: float = 0.0  # share of the labels believed to be wrong, below 0.5; for dpo only
    training: DPOConfig = field(default_factory=DPOConfig)

    def __post_init__(self) -> None:
        check_settings(self, eval_pairs=(1, float("inf")), label_smoothing=(0, 0.5 - 1e-9))
        if self.label_smoothing and self.loss != "dpo":
            raise UserError("label smoothing belongs to --loss dpo", found=f"--loss {self.loss} --label-smoothing")

    @property
    def pair_loss(self) -> PairLoss:
        """The function that --loss names."""
        return ipo if self.loss == "ipo" else partial(dpo, label_smoothing=self.label_smoothing)


def run_dpo(stage: DPOStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size)
    device, seed, config = pick(stage.run.device), stage.run.seed, stage.training
    policy, tokenizer = load_gpt(stage.model, device)
    reference, _ = load_gpt(stage.model, device)
    freeze(reference, trained=policy)
    train, held_out, paths = read_pairs(stage.source, stage.held_out, stage.held_out_fraction, seed)
    pairs, held_out_pairs = tokenized(train, held_out, tokenizer, policy.config.context)
    steps = config.steps(len(pairs))

    settings = {"data": fingerprint(paths, [stage.model]), "gpt": policy.config, "stage": stage}
    run = open_run(stage.run, device, "dpo", settings, world)
    policy = restore_model(run, policy)
    ready(run, reference)
    optimizer = make_optimizer(policy.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)
    order_seed = derive_seed(seed, "dpo order")

    def batches_of(items: Sequence[TokenizedPair], size: int | None) -> list[Pairs]:
        by_length = sorted(items, key=lambda pair: len(pair.chosen_ids) + len(pair.rejected_ids))  # less padding
        groups = (answer_batches(group, tokenizer.pad_id) for group in split_rows(by_length, size))
        return [(to_device(chosen, device), to_device(rejected, device)) for chosen, rejected in groups]

    def pairs_at(step: int) -> list[Pairs]:
        indices = share(world, batch_indices(len(pairs), config.batch_size, order_seed, step))
        return batches_of([pairs[i] for i in indices], config.micro_batch_size)

    def flops(step: int) -> float:
        chosen = [pairs[i] for i in batch_indices(len(pairs), config.batch_size, order_seed, step)]
        lengths = [len(ids) - 1 for pair in chosen for ids in (pair.chosen_ids, pair.rejected_ids)]
        answers = sum(lengths) - 2 * sum(pair.prompt_tokens - 1 for pair in chosen)
        return training_flops(policy.config, lengths, answers) + forward_flops(reference.config, lengths, answers)

    held_out_batches = batches_of(held_out_pairs[: stage.eval_pairs], HELD_OUT_ROWS)
    ref_log_probs = held_out_log_probs(reference, held_out_batches) if held_out_pairs else torch.empty(2, 0)

    def judged() -> PreferenceReport:
        log_probs = held_out_log_probs(policy, held_out_batches)
        return held_out_report(log_probs, ref_log_probs, held_out_batches, config.beta)

    def evaluate(step: int) -> dict[str, float]:
        result = judged()
        return {"val_accuracy": result.accuracy.mean, "val_loss_nats_per_pair": result.loss_nats_per_pair}

    def save(state: dict[str, Any]) -> None:
        save_training(run, policy, tokenizer, optimizer, state)

    probes = probe_prompts(stage, policy, tokenizer, held_out or train)

    def sample() -> list[dict[str, Any]]:
        return probe_rows(policy, tokenizer, probes, seed)

    if not run.finished:
        arguments = (policy, reference, pairs_at, optimizer, config, steps, stage.pair_loss)
        reports = train_dpo(*arguments, run.start_step, world)
        drive(run, reports, steps, save, evaluate if held_out_pairs else None, sample if probes else None, SHOW, flops)
        if held_out_pairs:
            result = judged()
            if world.leads:
                write_json(run.folder / "evaluation.json", result.as_dict())
            print("implicit rewards: " + sentence(result))
    finish(run, policy, tokenizer, steps, f"minirlhf chat {run.folder}")
    return run.folder


def probe_prompts(stage: DPOStage, policy: GPT, tokenizer: Tokenizer, pairs: Sequence[Preference]) -> list[Prompt]:
    """A few prompts to answer again and again: held-out ones of the village, or those of the pairs."""
    if stage.source.data:
        prompts = [Prompt(turns, "") for turns in dict.fromkeys(pair.prompt for pair in pairs)]
    else:
        prompts = list(read_prompts([shipped_path("prompts_held_out.jsonl")])[0])
    fit = fitting(prompts, policy, tokenizer)
    return fit[:: max(1, len(fit) // PROBES)][:PROBES]  # spread over the file


@torch.no_grad()
def held_out_log_probs(model: GPT, batches: Sequence[Pairs]) -> torch.Tensor:
    """[2 N] nats: of the chosen answers, and of the rejected ones."""
    model.eval()
    return torch.cat(
        [torch.stack([answer_log_probs(model, side.ids, side.loss_mask) for side in both]) for both in batches], dim=1
    )


def held_out_report(
    log_probs: torch.Tensor, ref_log_probs: torch.Tensor, batches: Sequence[Pairs], beta: float
) -> PreferenceReport:
    """Accuracy, calibration, margins and length bias of the implicit rewards; log-probs [2 N], chosen above."""
    chosen, rejected = (
        implicit_rewards(ours, theirs, beta).double().cpu().numpy()
        for ours, theirs in zip(log_probs, ref_log_probs, strict=True)
    )
    chosen_lengths, rejected_lengths = (
        torch.cat([both[side].loss_mask.sum(dim=1) for both in batches]).cpu().numpy() for side in (0, 1)
    )
    return evaluate_preferences(chosen, rejected, chosen_lengths, rejected_lengths)
