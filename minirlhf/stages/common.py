"""What the stages share: the data flags, the model to start from, probe samples, and the end of a run."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from minirlhf.data.reports import ReadReport
from minirlhf.data.shipped import shipped_path
from minirlhf.device import pick_device
from minirlhf.errors import UserError
from minirlhf.models.checkpoint import (
    TRAINING_SHARDS,
    TRAINING_TENSORS,
    load_model,
    save_checkpoint,
    training_shards,
)
from minirlhf.models.gpt import GPT
from minirlhf.models.sharded import as_shares, read_shards, shard, whole_weights, write_shards
from minirlhf.models.speed import compile_blocks, find_attend, set_attend, set_precision
from minirlhf.parallel.processes import leader_first
from minirlhf.records import PreferenceBatch, TokenBatch
from minirlhf.reports.report import write_run_report
from minirlhf.runs.files import TEMPORARY_SUFFIX, move_aside
from minirlhf.runs.run import Run
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.optim import Optimizer

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class DataOptions:
    """What to read. Without files, the shipped village is used."""

    data: tuple[Path, ...] = ()  # .txt .jsonl .json .csv .tsv (gz or not), a folder of text files, or a zip of one
    field: tuple[str, ...] = ()  # which column holds what, e.g. --field text=review label=stars
    encoding: str = "utf-8"  # how the files' text is encoded

    def paths(self, shipped: str) -> tuple[Path, ...]:
        """The files to read: those named, else the shipped file of this name."""
        return self.data or (shipped_path(shipped),)

    def reading(self) -> dict[str, Any]:
        """The keyword arguments every reader takes."""
        columns = {}
        for text in self.field:
            name, equals, column = text.partition("=")
            if not (equals and name and column):
                raise UserError("--field takes NAME=COLUMN", found=text, expected="for example --field text=review")
            columns[name] = column
        return {"fields": columns, "encoding": self.encoding}


def fingerprint(paths: Sequence[Path], models: Sequence[Path] = ()) -> dict[str, str]:
    """The SHA-256 of every data file and of every model's weights, so that a resumed run notices when one changed."""
    result = {}
    for path in paths:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        result[str(path)] = _sha256(files)
    for folder in models:
        places = (folder / "checkpoint" / "model.safetensors", folder / "model.safetensors")
        result[str(folder)] = _sha256([place for place in places if place.is_file()][:1])
    return result


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def load_gpt(folder: Path, device: torch.device) -> tuple[GPT, Tokenizer]:
    """A language model to start from. Raises UserError if the folder holds another kind of model."""
    model, tokenizer = load_model(folder)
    if not isinstance(model, GPT):
        raise UserError(
            "this needs a language model",
            where=str(folder),
            found=type(model).__name__,
            expected="a folder made by pretrain, sft, dpo, grpo, reinforce or ppo",
        )
    return model.to(device), tokenizer


def restore_model(run: Run, fresh: Model) -> Model:
    """The model of the run's checkpoint when there is one, else the fresh one, ready to compute."""
    model = fresh
    if run.has_checkpoint:
        loaded, _ = load_model(run.checkpoint)
        if not isinstance(loaded, type(fresh)):
            raise UserError(
                "the checkpoint holds another kind of model",
                where=str(run.checkpoint),
                found=type(loaded).__name__,
                expected=type(fresh).__name__,
            )
        model = loaded.to(run.device)
    ready(run, model)
    return model


def ready(run: Run, *models: nn.Module | None) -> None:
    """Attention, precision, compilation and sharding as the flags of those names ask; done before a model is used.

    Raises UserError if one is not to be had.
    """
    for model in models:
        if model is not None:
            set_attend(model, find_attend(run.options.attend))
            set_precision(model, run.options.precision)
            if run.options.compile:
                compile_blocks(model)
            shard(run.world, model)


def check_free(out: Path, overwrite: bool) -> None:
    """Raises UserError if a result's place is taken and --overwrite does not say to move aside what is there."""
    if out.exists() and not overwrite and not is_empty_folder(out):
        raise UserError(
            "there is already something here",
            where=str(out),
            fix="--overwrite to move it aside, or another --out",
        )


def is_empty_folder(out: Path) -> bool:
    return out.is_dir() and not any(out.iterdir())


def make_room(out: Path) -> None:
    """Moves aside what stands in a result's place, and makes the folder above it."""
    if is_empty_folder(out):
        out.rmdir()
    elif out.exists():
        move_aside(out)
    out.parent.mkdir(parents=True, exist_ok=True)


def say(title: str, report: ReadReport) -> None:
    """Tells what the readers kept, dropped and changed."""
    first, *rest = report.lines()
    print("\n".join([f"{title}: {first}", *rest]))


def pick(name: str) -> torch.device:
    """The device of a --device flag."""
    return pick_device(name)


def to_device(batch: TokenBatch, device: torch.device) -> TokenBatch:
    return TokenBatch(batch.ids.to(device), batch.loss_mask.to(device))


def split_rows(rows: Sequence[Any], micro_batch_size: int | None) -> list[Sequence[Any]]:
    """A batch's rows in groups of at most micro_batch_size; all in one group for None."""
    size = micro_batch_size or max(len(rows), 1)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def pairs_to_device(batch: PreferenceBatch, device: torch.device) -> PreferenceBatch:
    return PreferenceBatch(
        batch.chosen_ids.to(device),
        batch.chosen_attention_mask.to(device),
        batch.rejected_ids.to(device),
        batch.rejected_attention_mask.to(device),
    )


def save_training(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    optimizer: Optimizer | None,
    state: Mapping[str, Any],
    extra: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes the run's checkpoint: while training with the optimizer's tensors, at the end without.

    Rank 0 writes it; what is cut up among the ranks, each writes its share of. All must call.
    """
    tensors = {f"optimizer.{name}": value for name, value in optimizer.state_tensors().items()} if optimizer else {}
    if optimizer and extra:
        tensors |= extra
    weights, shards = whole_weights(model), None
    if run.world.sharded and tensors:
        shards = run.folder / f"{TRAINING_SHARDS}{TEMPORARY_SUFFIX}"
        with leader_first(run.world):
            shutil.rmtree(shards, ignore_errors=True)
            shards.mkdir(exist_ok=True)
        write_shards(shards, tensors)
        tensors = {}
    if run.world.leads:
        save_checkpoint(
            run.checkpoint,
            model,
            tokenizer,
            training_tensors=tensors,
            training_state=dict(state),
            weights=weights,
            training_shards=shards,
        )


def kept_tensors(run: Run, prefix: str, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What save_training kept under names with this prefix, cut up as `like` is; {} at the start of a run."""
    wanted = {prefix + name: tensor for name, tensor in like.items()}
    shards = training_shards(run.checkpoint) if run.has_checkpoint else None
    if shards is not None:
        kept = read_shards(shards, wanted)
    else:
        kept = as_shares({name: tensor for name, tensor in run.tensors.items() if name.startswith(prefix)}, wanted)
    return {name.removeprefix(prefix): tensor for name, tensor in kept.items()}


def restore_optimizer(run: Run, optimizer: Optimizer) -> None:
    """Gives the optimizer back what save_training kept. Does nothing at the start of a run."""
    tensors = kept_tensors(run, "optimizer.", optimizer.state_tensors())
    if run.has_checkpoint and not run.finished and not tensors:
        raise UserError(
            "the checkpoint has lost the optimizer's state, so the run cannot go on as it was",
            where=str(run.checkpoint / TRAINING_TENSORS),
            found="no such file" if not run.tensors else "a file without it",
            fix="start a new run from this model: --model, with another --out",
        )
    if tensors:
        optimizer.load_state_tensors(tensors)


def finish(run: Run, model: Any, tokenizer: Tokenizer, steps: int, next_command: str) -> None:
    """The report, the last checkpoint (without the optimizer), and where everything lies.

    The checkpoint that says "finished" comes last: a run that dies before it does all of this again when resumed.
    """
    if run.finished:
        print("the run was already finished; nothing was changed")
    else:
        if run.world.leads:
            write_run_report(run.folder)
        save_training(run, model, tokenizer, None, {"step": steps, "finished": True})
    print(f"\nmodel    {run.checkpoint}")
    print(f"metrics  {run.folder / 'metrics.jsonl'}")
    print(f"report   {run.folder / 'report.html'}")
    print(f"next     {next_command}")
