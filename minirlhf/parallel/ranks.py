"""Several processes that train one model together, as torchrun starts them. Alone, every function here does nothing.

Data parallel, in three sentences. Every process (a *rank*) holds the same weights and takes its share of each batch's
rows. What is counted (tokens, pairs, answers) is added up over the ranks *before* the loss is divided by it, so
gradients are normalised by the global token count; they are then added, and every rank takes the same step. One
process and eight therefore walk the same curve, to rounding.

Reinforcement learning adds one: the facts of a rollout are gathered (rollout/gather.py), so that every rank draws the
same conclusions from all of it: baselines, whitening, metrics, the KL controller, when to stop or skip.
"""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Rows = TypeVar("Rows", bound=Sized)
Number = TypeVar("Number", int, float)

BUCKET_NUMBERS = 2**23
"""Gradients travel in pieces of about so many numbers (32 MiB of float32): few messages, little extra memory."""


@dataclass(frozen=True)
class World:
    """Who we are among the processes that train together: rank 0 ... size - 1.

    sharded: weights, gradients and optimizer state are cut up among the ranks (models/sharded.py); else all hold all.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    sharded: bool = False

    @property
    def leads(self) -> bool:
        """Is this the rank that prints, logs and writes?"""
        return self.rank == 0


ALONE = World()

TOGETHER = 0
"""In a rank's place, names a stream of random numbers of which every rank knows every number."""


def share(world: World, rows: Rows) -> Rows:
    """This rank's part of a list, range or tensor: neighbours, in the ranks' order; sizes differ by at most one.

    Raises ValueError if there are fewer rows than ranks: a rank without any would know no gradient to add.
    """
    if len(rows) < world.size:
        raise ValueError(f"{len(rows)} rows cannot be shared by {world.size} processes")
    everything: Any = rows
    part: Rows = everything[len(rows) * world.rank // world.size : len(rows) * (world.rank + 1) // world.size]
    return part


def total(world: World, x: Number) -> Number:
    """The sum of a number over the ranks, whole numbers exactly."""
    return x if world.size == 1 else type(x)(totals(world, {"x": x})["x"])


def totals(world: World, numbers: Mapping[str, float]) -> dict[str, float]:
    """The sum over the ranks of each number, in float64."""
    if world.size == 1:
        return dict(numbers)
    sums = torch.tensor(list(numbers.values()), dtype=torch.float64, device=world.device)
    dist.all_reduce(sums)
    return dict(zip(numbers, sums.tolist(), strict=True))


def largest(world: World, *numbers: int) -> list[int]:
    """The largest over the ranks of each number; of two truths, whether any rank holds it."""
    if world.size == 1:
        return list(numbers)
    most = torch.tensor(numbers, dtype=torch.int64, device=world.device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return most.tolist()


def gather(world: World, x: Tensor) -> Tensor:
    """The rows of all ranks, in their order: [n ...] -> [N ...]. Ranks may have different numbers of rows."""
    if world.size == 1:
        return x
    if x.dtype == torch.bool:
        return gather(world, x.to(torch.uint8)).to(torch.bool)
    own = {str(rank): len(x) if rank == world.rank else 0 for rank in range(world.size)}
    lengths = [int(length) for length in totals(world, own).values()]
    padded = x.new_zeros(max(lengths), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


@torch.no_grad()
def sum_gradients(world: World, parameters: Iterable[Tensor]) -> None:
    """Add up every parameter's gradient over the ranks, in place.

    Sharded gradients were added up when they were cut. A parameter without a gradient has none on any rank: all ran
    the same computation, on other rows.
    """
    if world.size == 1 or world.sharded:
        return
    bucket: list[Tensor] = []
    gradients = [p.grad for p in parameters if p.grad is not None]
    for position, gradient in enumerate(gradients, start=1):
        bucket.append(gradient)
        if position == len(gradients) or sum(map(Tensor.numel, bucket)) >= BUCKET_NUMBERS:
            flat = torch.cat([part.reshape(-1) for part in bucket])
            dist.all_reduce(flat)
            for part, summed in zip(bucket, flat.split([part.numel() for part in bucket]), strict=True):
                part.copy_(summed.view_as(part))
            bucket = []
