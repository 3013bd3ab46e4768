"""Direct preference optimisation: learn from pairs of answers, without reward model, sampling or critic.

Rafailov et al. 2023, arXiv:2305.18290, section 4. Next door, reward.py learns a score from the same pairs, and ppo.py
then looks for answers that score higher; here the policy's own log-probs, measured from the reference's, are the
score. Which loss is taken of them is a function: dpo, or ipo.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from time import perf_counter
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minirlhf.models.gpt import GPT
from minirlhf.objectives.bradley_terry import bradley_terry, pair_accuracy
from minirlhf.objectives.dpo import dpo, implicit_rewards
from minirlhf.objectives.guards import check_finite
from minirlhf.objectives.likelihood import answer_log_probs
from minirlhf.parallel.ranks import ALONE, World, gather, sum_gradients, total
from minirlhf.records import Report, TokenBatch
from minirlhf.trainers.checks import check_settings, freeze
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at
from minirlhf.trainers.pretrain import with_short_warmup

Pairs = tuple[TokenBatch, TokenBatch]
"""The chosen and the rejected sequences of some pairs, row by row; loss_mask marks the tokens of the answers."""


class PairLoss(Protocol):
    """dpo, ipo, or a function like them: summed log-probs, four of [B], and beta -> a scalar."""

    def __call__(
        self,
        chosen_log_probs: Tensor,
        rejected_log_probs: Tensor,
        ref_chosen_log_probs: Tensor,
        ref_rejected_log_probs: Tensor,
        /,
        *,
        beta: float,
        count: int,
    ) -> Tensor: ...


@dataclass(frozen=True)
class DPOConfig:
    """The settings of DPO."""

    epochs: float = 1.0
    """Passes over the pairs; more than one tends to memorise them."""
    batch_size: int = 32
    """Pairs per step."""
    micro_batch_size: int | None = 16
    """Pairs per forward pass, grouped by length: saves memory and padding; None: all at once."""
    beta: float = 0.1
    """Implicit reward per nat of moving away from the reference: the smaller, the further the policy goes."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            learning_rate=2e-4, weight_decay=0.0, warmup_steps=10, schedule="linear", final_fraction=0.0
        )
    )
    """Learning rate (annealed to 0) and the optimizer's other settings."""

    def __post_init__(self) -> None:
        tiny = 1e-9
        check_settings(self, epochs=(tiny, inf), batch_size=(1, inf), micro_batch_size=(1, inf), beta=(tiny, inf))

    def steps(self, pairs: int) -> int:
        """Optimizer steps for so many pairs, at least one."""
        return max(1, ceil(self.epochs * pairs / self.batch_size))


def train_dpo(
    policy: GPT,
    reference: GPT,
    pairs_at: Callable[[int], Sequence[Pairs]],
    optimizer: Optimizer,
    config: DPOConfig,
    steps: int,
    pair_loss: PairLoss = dpo,
    start_step: int = 0,
    world: World = ALONE,
) -> Iterator[Report]:
    """Pairs -> log-probs of both answers under policy and reference -> loss -> step. Yields one Report per step.

    pairs_at(k) gives this rank's micro-batches of the step after k steps and is a pure function of k. The policy
    should start as a copy of the reference. Both are put into eval() mode, since dropout would be mistaken for a
    preference, and the reference is frozen; so nothing here is random. Raises NonFiniteError before a weight is spoilt.
    """
    policy.eval()
    freeze(reference, trained=policy)
    schedule = with_short_warmup(config.optim, steps)
    for step in range(start_step, steps):
        started = perf_counter()
        learning_rate = learning_rate_at(step, steps, schedule)
        pairs = pairs_at(step)
        optimizer.zero_grad()
        metrics = dpo_backward(policy, reference, pairs, config.beta, pair_loss, world)
        sum_gradients(world, policy.parameters())
        metrics["grad_norm"] = guarded_step(policy, optimizer, learning_rate, config.optim.max_grad_norm)
        count = total(world, sum(len(chosen.ids) for chosen, _ in pairs))
        metrics |= {"learning_rate": learning_rate, "pairs_per_second": count / (perf_counter() - started)}
        yield Report(step + 1, metrics)


def dpo_backward(
    policy: GPT,
    reference: GPT,
    micro_batches: Sequence[Pairs],
    beta: float,
    pair_loss: PairLoss = dpo,
    world: World = ALONE,
) -> dict[str, float]:
    """The loss over all pairs and, added to .grad, its gradient; no step. Returns the metrics of the step.

    The loss is a mean over the pairs of all micro-batches of all ranks together, so the split changes no gradient.
    Raises NonFiniteError naming the first tensor that is not finite.
    """
    count = total(world, sum(len(chosen.ids) for chosen, _ in micro_batches))
    objective, ratios = 0.0, []
    for chosen, rejected in micro_batches:
        both = stacked(chosen, rejected)
        with torch.no_grad():
            theirs = answer_log_probs(reference, both.ids, both.loss_mask).chunk(2)  # two of [b] nats
        ours = answer_log_probs(policy, both.ids, both.loss_mask).chunk(2)
        check_finite(chosen_log_probs=ours[0], rejected_log_probs=ours[1], ref_log_probs=torch.stack(theirs))
        share = pair_loss(*ours, *theirs, beta=beta, count=count)
        share.backward()
        objective += share.item()
        ratios.append(torch.stack(ours, dim=1).detach() - torch.stack(theirs, dim=1))  # [b 2] nats per answer
    objective = total(world, objective)
    check_finite(objective=torch.tensor(objective))
    return {"objective": objective} | pair_metrics(gather(world, torch.cat(ratios)).T, beta)


def stacked(chosen: TokenBatch, rejected: TokenBatch) -> TokenBatch:
    """The chosen answers above the rejected ones, [2b T+1]: one pass through a model instead of two.

    The shorter of the two gets more padding on its right, which nobody looks at.
    """
    longest = max(side.ids.shape[1] for side in (chosen, rejected))
    spare = [(side, (0, longest - side.ids.shape[1])) for side in (chosen, rejected)]
    ids = torch.cat([F.pad(side.ids, columns) for side, columns in spare])
    return TokenBatch(ids, torch.cat([F.pad(side.loss_mask, columns) for side, columns in spare]))


def pair_metrics(log_ratios: Tensor, beta: float) -> dict[str, float]:
    """What [2 B] log-ratios of policy to reference (chosen above, rejected below) say; the same for every loss."""
    chosen, rejected = (implicit_rewards(side, torch.zeros_like(side), beta) for side in log_ratios)  # [B] each
    return {
        "loss_nats_per_pair": bradley_terry(chosen, rejected).item(),
        "accuracy": pair_accuracy(chosen, rejected).item(),
        "margin_mean": (chosen - rejected).mean().item(),
        "chosen_reward_mean": chosen.mean().item(),
        "rejected_reward_mean": rejected.mean().item(),
        "log_ratio_nats_per_response": log_ratios.mean().item(),
    }
