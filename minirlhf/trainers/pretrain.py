"""Pretraining: predict every next token of raw text. Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners".

The trainer is a generator: it takes one optimizer step, hands out a Report, and waits to be asked for the
next. Logging, evaluating, saving and stopping belong to whoever runs the loop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import perf_counter

import torch

from minirlhf.models.gpt import GPT
from minirlhf.objectives.likelihood import sequence_cross_entropy
from minirlhf.parallel.ranks import ALONE, World, sum_gradients, total
from minirlhf.records import Report, TokenBatch
from minirlhf.seeding import derive_seed
from minirlhf.trainers.checks import check_settings
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at


@dataclass(frozen=True)
class PretrainConfig:
    """The settings of pretraining; the defaults fit a small model and two CPU cores."""

    steps: int = 2000  # optimizer steps
    batch_size: int = 12  # windows per step
    micro_batch_size: int | None = None  # windows per forward pass, to save memory; None: the whole batch at once
    optim: OptimConfig = field(  # what each of these brings: benchmarks/recipe.py
        default_factory=lambda: OptimConfig(
            learning_rate=5e-3, optimizer="muon", warmup_steps=20, schedule="linear", final_fraction=0.0
        )
    )

    def __post_init__(self) -> None:
        check_settings(self, steps=(1, inf), batch_size=(1, inf), micro_batch_size=(1, inf))


def train_pretrain(
    model: GPT,
    micro_batches_at: Callable[[int], Sequence[TokenBatch]],
    optimizer: Optimizer,
    config: PretrainConfig,
    seed: int = 0,
    start_step: int = 0,
    world: World = ALONE,
) -> Iterator[Report]:
    """Token batches -> next-token loss -> step. Yields one Report per step, numbered by the steps then done.

    micro_batches_at(k) gives the batches of the step after k steps; it must be a pure function of k, so that a
    run resumed at start_step sees the data an uninterrupted run would have seen. In a world of several processes it
    gives this rank's share of them.
    """
    model.train()
    schedule = with_short_warmup(config.optim, config.steps)
    for step in range(start_step, config.steps):
        learning_rate = learning_rate_at(step, config.steps, schedule)
        torch.manual_seed(derive_seed(seed, "dropout", world.rank, step))
        metrics = likelihood_step(model, micro_batches_at(step), optimizer, config.optim, learning_rate, world)
        yield Report(step + 1, metrics)


def with_short_warmup(optim: OptimConfig, steps: int) -> OptimConfig:
    """The same settings with a warm-up of at most a quarter of the run, or a short run would never reach its peak."""
    return replace(optim, warmup_steps=min(optim.warmup_steps, steps // 4))


def likelihood_step(
    model: GPT,
    micro_batches: Sequence[TokenBatch],
    optimizer: Optimizer,
    optim: OptimConfig,
    learning_rate: float,
    world: World = ALONE,
) -> dict[str, float]:
    """One step on the mean negative log-likelihood of the counted tokens; returns the step's metrics.

    The mean is over the counted tokens of *all* micro-batches of all ranks together, so how a batch is split, into
    sequences of whatever lengths, changes no gradient. A batch in which nothing counts has loss 0.
    """
    started = perf_counter()
    tokens = total(world, sum(int(batch.loss_mask.sum()) for batch in micro_batches))
    loss = 0.0
    optimizer.zero_grad()
    for batch in micro_batches:
        share = sequence_cross_entropy(model, batch.ids, batch.loss_mask) / max(tokens, 1)
        share.backward()
        loss += share.item()
    sum_gradients(world, model.parameters())
    grad_norm = guarded_step(model, optimizer, learning_rate, optim.max_grad_norm)
    return {
        "loss_nats_per_token": total(world, loss),
        "learning_rate": learning_rate,
        "grad_norm": float(grad_norm),
        "tokens_per_second": tokens / (perf_counter() - started),
    }
