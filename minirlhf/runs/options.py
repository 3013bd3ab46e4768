"""The flags of a run that every training command has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minirlhf.models.speed import AttendName, PrecisionName
from minirlhf.trainers.checks import check_settings


@dataclass(frozen=True)
class RunOptions:
    """Where a run lives and how it is watched."""

    out: Path  # the run folder to make
    seed: int = 0  # every random draw of the run follows from this number
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda, else mps, else cpu
    resume: bool = False  # go on from the folder's last checkpoint (or start, if there is none)
    overwrite: bool = False  # if the folder holds a run, move it aside to NAME.before-1, -2, ... and start afresh
    eval_every: int | None = None  # steps between evaluations and probe samples; None: about twenty times a run
    save_every_seconds: float = 20.0  # time between checkpoints; 0 saves after every step
    log_every: int | None = None  # steps between lines when there is no progress bar; None: about forty lines a run
    attend: AttendName = "lean"  # attention by its definition (eager), in fewer passes, or by a GPU kernel (fused)
    precision: PrecisionName = "float32"  # of matrix products; bfloat16, made for CUDA, keeps weights and sums float32
    compile: bool = False  # compile the transformer blocks: slow first steps, then faster ones
    quiet: bool = False  # no progress bar, a line every --log-every steps
    profile: bool = False  # record a few steps after warming up: RUN/profile/table.txt and a trace say where time went
    shard: bool = False  # several processes (torchrun): cut weights and optimizer state up among them (FSDP)
    timeout_seconds: float = 600.0  # of several processes (torchrun): how long one waits for another before it gives up

    def __post_init__(self) -> None:
        endless = float("inf")
        steps, seconds = dict.fromkeys(("eval_every", "log_every"), (1, endless)), (0, endless)
        check_settings(self, **steps, save_every_seconds=seconds, timeout_seconds=seconds)


# What may change between a run and its resumption, because no weight depends on it.
FREE_TO_CHANGE = {"resume", "overwrite", "save_every_seconds", "log_every", "quiet", "out"}
FREE_TO_CHANGE |= {"profile", "shard", "timeout_seconds"}
