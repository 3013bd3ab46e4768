"""The run folder: what a training run leaves behind, and how it goes on after it was stopped.

    config.json     everything that was resolved: settings, versions, seed, device, git commit, command
    metrics.jsonl   one row per step, with `step` and `seconds`; units stand in the key
    samples.jsonl   the same few probe prompts answered again and again
    checkpoint/     the model, and while training what the optimizer needs to go on
    report.html     the run to look at

A checkpoint names its step. To resume is to load it, to take away the rows written after it, and to ask the
trainer for the remaining steps; since all randomness is a function of (seed, step), the end is the same bit for bit.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minirlhf import __version__
from minirlhf.errors import UserError
from minirlhf.models.checkpoint import checkpoint_exists, load_training_state
from minirlhf.models.speed import find_attend
from minirlhf.parallel.processes import check_agreement, leader_first
from minirlhf.parallel.ranks import ALONE, World, largest
from minirlhf.records import Report
from minirlhf.runs.files import (
    TEMPORARY_SUFFIX,
    append_row,
    check_same,
    cut_rows,
    git_commit,
    move_aside,
    plain,
    read_json,
    write_json,
)
from minirlhf.runs.options import FREE_TO_CHANGE, RunOptions
from minirlhf.runs.profile import profiled
from minirlhf.runs.progress import progress_display, stop_requests
from minirlhf.runs.speed import with_throughput


@dataclass(frozen=True)
class Run:
    """An open run folder. start_step steps are done; tensors and state are what the checkpoint kept for training."""

    options: RunOptions
    device: torch.device
    start_step: int = 0
    seconds: float = 0.0
    finished: bool = False
    tensors: dict[str, Tensor] = field(default_factory=dict)
    state: dict[str, float] = field(default_factory=dict)
    world: World = ALONE

    @property
    def folder(self) -> Path:
        return self.options.out

    @property
    def has_checkpoint(self) -> bool:
        return self.start_step > 0

    @property
    def checkpoint(self) -> Path:
        return self.options.out / "checkpoint"


class Interrupted(Exception):
    """The run was asked to stop and has saved itself at this step."""

    def __init__(self, folder: Path, step: int, steps: int):
        self.folder, self.step, self.steps = folder, step, steps
        super().__init__(f"stopped after step {step} of {steps}; saved in {folder / 'checkpoint'}")


def check_folder(options: RunOptions, world: World = ALONE) -> bool:
    """Does the folder hold a run of ours? Raises UserError if this command may not use it; changes nothing.

    Callers ask before the slow work of reading data, and open_run asks again. Of several processes only rank 0 looks:
    for the others the folder may already be the one it has just made.
    """
    find_attend(options.attend)
    folder = options.out
    if not world.leads:
        return False
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite contradict each other", fix="give one of them")
    if folder.exists() and not folder.is_dir():
        raise UserError("the run folder is a file", where=str(folder), fix="choose another --out")
    inside = folder.iterdir() if folder.exists() else ()
    names = {path.name for path in inside if not path.name.endswith(TEMPORARY_SUFFIX)}
    if not names:
        return False
    if not is_run_folder(folder):
        raise UserError(
            "the folder holds something that is not a run of minirlhf; it is left as it is",
            where=str(folder),
            found=", ".join(sorted(names)[:5]),
            fix="choose another --out",
        )
    if not options.resume and not options.overwrite:
        raise UserError(
            "the folder already holds a run",
            where=str(folder),
            fix="--resume to go on with it, --overwrite to move it aside and start afresh, or another --out",
        )
    return True


def is_run_folder(folder: Path) -> bool:
    """Was this folder made by open_run?"""
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        config = read_json(path)
    except UserError:
        return False
    return isinstance(config, dict) and "minirlhf" in config and "settings" in config


def open_run(
    options: RunOptions, device: torch.device, command: str, settings: Mapping[str, Any], world: World = ALONE
) -> Run:
    """Makes the run folder, or opens it to go on. settings: all that the result depends on; the options of this stage,
    with its RunOptions, under "stage". Of several processes rank 0 makes the folder, and the others read it.

    Raises UserError if the folder is not ours to use, or if it is resumed with settings that differ.
    """
    settings = plain({**settings, "device": str(device)})
    check_agreement(world, json.dumps(settings, sort_keys=True))
    with leader_first(world):
        return _open(options, device, command, settings, world) if world.leads else _continue(options, device, world)


def _open(options: RunOptions, device: torch.device, command: str, settings: Mapping[str, Any], world: World) -> Run:
    exists = check_folder(options)
    if exists and options.overwrite:
        move_aside(options.out)
    if exists and options.resume:
        check_same(options.out, command, settings, FREE_TO_CHANGE)
        return _continue(options, device, world)
    options.out.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    described = {"minirlhf": __version__, "command": command, "argv": sys.argv[1:], "seed": options.seed}
    described |= {"device": str(device), "processes": world.size, "versions": versions}
    described |= {"git_commit": git_commit(), "settings": settings}
    write_json(options.out / "config.json", described)
    return Run(options, device, world=world)


def _continue(options: RunOptions, device: torch.device, world: World) -> Run:
    tensors: dict[str, Tensor] = {}
    state: dict[str, Any] = {"step": 0}
    if checkpoint_exists(options.out / "checkpoint"):
        tensors, state = load_training_state(options.out / "checkpoint")
    step = state.get("step")
    if type(step) is not int:
        raise UserError(
            "the checkpoint does not say at which step it was saved",
            where=f'{options.out / "checkpoint" / "training_state.json"}, field "step"',
            found=repr(step),
            expected="a whole number",
            fix="start a new run, with --overwrite or another --out",
        )
    rows = []
    if world.leads:
        rows = cut_rows(options.out / "metrics.jsonl", step)
        cut_rows(options.out / "samples.jsonl", step if step else -1)
    seconds = float(rows[-1].get("seconds", 0.0)) if rows else 0.0
    finished, report = bool(state.get("finished")), dict(state.get("report", {}))
    return Run(options, device, step, seconds, finished, tensors, report, world)


def drive(
    run: Run,
    reports: Iterable[Report],
    steps: int,
    save: Callable[[dict[str, Any]], None],
    evaluate: Callable[[int], dict[str, float]] | None = None,
    sample: Callable[[], list[dict[str, Any]]] | None = None,
    show: Sequence[str] = ("loss_nats_per_token", "tokens_per_second"),
    flops: Callable[[int], float] | None = None,
) -> None:
    """Runs a trainer to its end: one row per report, evaluations, probe samples, checkpoints, and the progress bar.

    save(training_state) writes the checkpoint; flops(k), where known, is the arithmetic of the step after k steps.
    Ctrl-C (or SIGTERM) lets the step finish, saves, and raises Interrupted; a second Ctrl-C stops at once, and the
    last checkpoint remains. Of several processes rank 0 samples and writes; all evaluate and save, each its part, and
    all stop at the same step.
    """
    options, metrics_path, samples_path = run.options, run.folder / "metrics.jsonl", run.folder / "samples.jsonl"
    eval_every, log_every = options.eval_every or max(10, steps // 20), options.log_every or max(5, steps // 40)
    leads, quiet = run.world.leads, options.quiet or not run.world.leads
    samples_too = leads or run.world.sharded  # then all hold a part of the weights
    if sample and samples_too and run.start_step == 0:
        _append_samples(samples_path, 0, sample(), leads)
    if options.profile and leads:
        reports = profiled(reports, run.folder / "profile", steps - run.start_step, run.device)
    reports = with_throughput(run.options, reports, steps, run.device, run.world, flops)
    started, saved = time.perf_counter() - run.seconds, time.perf_counter()
    with stop_requests() as stop, progress_display(steps, run.start_step, quiet, log_every) as show_progress:
        for report in reports:
            last = report.step >= steps
            due = last or report.step % eval_every == 0
            metrics = report.metrics | (evaluate(report.step) if evaluate and due else {})
            if leads:
                append_row(metrics_path, {"step": report.step, "seconds": time.perf_counter() - started} | metrics)
            if sample and samples_too and due:
                _append_samples(samples_path, report.step, sample(), leads)
            show_progress(report.step, {name: metrics[name] for name in (*show, *_VALIDATION) if name in metrics})
            overdue = leads and time.perf_counter() - saved >= options.save_every_seconds
            if last or any(largest(run.world, stop.is_set(), overdue)):  # asked of one rank, asked of all
                save({"step": report.step, "finished": False, "report": report.state})
                saved = time.perf_counter()
                if any(largest(run.world, stop.is_set())) and not last:
                    raise Interrupted(run.folder, report.step, steps)


_VALIDATION = ("val_loss_nats_per_token", "val_bits_per_byte", "val_accuracy")


def _append_samples(path: Path, step: int, rows: list[dict[str, Any]], leads: bool) -> None:
    for row in rows if leads else ():
        append_row(path, {"step": step} | row)
