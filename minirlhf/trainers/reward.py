"""The reward model: learn a score from pairs of answers. Stiennon et al. 2020, arXiv:2009.01325, section 3.4.

One epoch, with the learning rate annealed to 0, is the default: a second pass over the same comparisons mostly
memorises them (Huang et al. 2023, "The N Implementation Details of RLHF with PPO").
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from minirlhf.models.heads import RewardModel
from minirlhf.objectives.bradley_terry import bradley_terry
from minirlhf.parallel.ranks import ALONE, World, gather, sum_gradients, total
from minirlhf.records import PreferenceBatch, Report
from minirlhf.seeding import derive_seed
from minirlhf.trainers.checks import check_settings
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at
from minirlhf.trainers.pretrain import with_short_warmup


@dataclass(frozen=True)
class RewardConfig:
    """The settings of reward-model training."""

    epochs: float = 1.0  # passes over the pairs; more than one tends to memorise them
    batch_size: int = 16  # pairs per step
    micro_batch_size: int | None = None  # pairs per forward pass, to save memory; None: all at once
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(learning_rate=5e-4, warmup_steps=10, schedule="linear", final_fraction=0.0)
    )

    def __post_init__(self) -> None:
        check_settings(self, epochs=(1e-9, inf), batch_size=(1, inf), micro_batch_size=(1, inf))

    def steps(self, pairs: int) -> int:
        """Optimizer steps for so many pairs, at least one."""
        return max(1, ceil(self.epochs * pairs / self.batch_size))


def train_reward(
    reward_model: RewardModel,
    pairs_at: Callable[[int], Sequence[PreferenceBatch]],
    optimizer: Optimizer,
    config: RewardConfig,
    steps: int,
    seed: int = 0,
    start_step: int = 0,
    world: World = ALONE,
) -> Iterator[Report]:
    """Pairs -> two scores -> Bradley-Terry loss -> step. Yields one Report per step.

    pairs_at(k) gives this rank's micro-batches of the step after k steps and is a pure function of k. The loss is the
    mean over the pairs of all micro-batches of all ranks together, so the split changes no gradient.
    """
    reward_model.train()
    schedule = with_short_warmup(config.optim, steps)
    for step in range(start_step, steps):
        started = perf_counter()
        learning_rate = learning_rate_at(step, steps, schedule)
        torch.manual_seed(derive_seed(seed, "dropout", world.rank, step))
        micro_batches = pairs_at(step)
        pairs = total(world, sum(len(batch.chosen_ids) for batch in micro_batches))
        loss, margins = 0.0, []
        optimizer.zero_grad()
        for batch in micro_batches:
            chosen, rejected = reward_model(*stacked(batch)).chunk(2)  # [B] scores each
            share = bradley_terry(chosen, rejected) * (len(chosen) / pairs)
            share.backward()
            loss += share.item()
            margins.append((chosen - rejected).detach())
        sum_gradients(world, reward_model.parameters())
        grad_norm = guarded_step(reward_model, optimizer, learning_rate, config.optim.max_grad_norm)
        margin = gather(world, torch.cat(margins))  # [pairs]
        yield Report(
            step + 1,
            {
                "loss_nats_per_pair": total(world, loss),
                "accuracy": pair_accuracy(margin),
                "margin_mean": margin.mean().item(),
                "learning_rate": learning_rate,
                "grad_norm": float(grad_norm),
                "pairs_per_second": pairs / (perf_counter() - started),
            },
        )


def stacked(batch: PreferenceBatch) -> tuple[Tensor, Tensor]:
    """The chosen answers above the rejected ones, ids and mask [2B T]: one pass through the model instead of two.

    The shorter of the two gets more padding on its right, which nobody looks at.
    """
    sides = ((batch.chosen_ids, batch.chosen_attention_mask), (batch.rejected_ids, batch.rejected_attention_mask))
    longest = max(ids.shape[1] for ids, _ in sides)
    ids = torch.cat([F.pad(ids, (0, longest - ids.shape[1])) for ids, _ in sides])
    return ids, torch.cat([F.pad(mask, (0, longest - mask.shape[1])) for _, mask in sides])


def pair_accuracy(margins: Tensor) -> float:
    """The share of pairs [B] whose chosen answer scores higher; equal scores count half."""
    return ((margins > 0).double() + 0.5 * (margins == 0).double()).mean().item()
