"""Supervised fine-tuning: imitate the assistant's turns. Ouyang et al. 2022, arXiv:2203.02155, section 3.5.

The step is pretraining's. What differs is which tokens count: those the assistant wrote, with the end token of
each turn (so that the model learns to stop), and nothing of what the user said.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

import torch

from minirlhf.models.gpt import GPT
from minirlhf.parallel.ranks import ALONE, World
from minirlhf.records import Report, TokenBatch
from minirlhf.seeding import derive_seed
from minirlhf.trainers.checks import check_settings
from minirlhf.trainers.optim import OptimConfig, Optimizer, learning_rate_at
from minirlhf.trainers.pretrain import likelihood_step, with_short_warmup


@dataclass(frozen=True)
class SftConfig:
    """The settings of supervised fine-tuning."""

    epochs: float = 2.0  # passes over the conversations
    batch_size: int = 16  # conversations per step
    micro_batch_size: int | None = None  # conversations per forward pass, to save memory; None: all at once
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=1e-3, warmup_steps=20))

    def __post_init__(self) -> None:
        check_settings(self, epochs=(1e-9, inf), batch_size=(1, inf), micro_batch_size=(1, inf))

    def steps(self, conversations: int) -> int:
        """Optimizer steps for so many conversations, at least one."""
        return max(1, ceil(self.epochs * conversations / self.batch_size))


def train_sft(
    model: GPT,
    micro_batches_at: Callable[[int], Sequence[TokenBatch]],
    optimizer: Optimizer,
    config: SftConfig,
    steps: int,
    seed: int = 0,
    start_step: int = 0,
    world: World = ALONE,
) -> Iterator[Report]:
    """Conversations -> loss on the assistant's tokens -> step. Yields one Report per step.

    micro_batches_at(k) gives this rank's batches of the step after k steps and is a pure function of k.
    """
    model.train()
    schedule = with_short_warmup(config.optim, steps)
    for step in range(start_step, steps):
        learning_rate = learning_rate_at(step, steps, schedule)
        torch.manual_seed(derive_seed(seed, "dropout", world.rank, step))
        metrics = likelihood_step(model, micro_batches_at(step), optimizer, config.optim, learning_rate, world)
        yield Report(step + 1, metrics)
