"""Group-relative policy optimisation: train_ppo with the critic replaced by more answers to the same prompt.

Shao et al. 2024, arXiv:2402.03300, section 4.1. Laid beside ppo.py, the value model and GAE are gone: what an answer
was expected to score is what the others of its group scored. The KL penalty stands in the loss and not in the reward.
How scores become advantages is a function: group_advantages, or rloo_advantages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.objectives.advantages import clip_magnitude
from minirlhf.objectives.grpo import group_advantages, grpo_loss
from minirlhf.objectives.guards import check_finite, kl_above_target, ratio_too_large
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.objectives.masked import masked_mean
from minirlhf.objectives.ppo import ppo_diagnostics
from minirlhf.parallel.ranks import ALONE, TOGETHER, World, gather, share, sum_gradients, totals
from minirlhf.records import PromptBatch, Report, Rollout
from minirlhf.rollout.collect import collect
from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.padding import micro_batches, needed_columns
from minirlhf.rollout.scoring import Scorer
from minirlhf.rollout.statistics import exact_kl_probe, over_updates, rollout_metrics, speed
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.checks import check_settings, freeze
from minirlhf.trainers.minibatches import shuffled_minibatches
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at

Advantages = Callable[[Tensor, int], Tensor]
"""(scores [B], group_size) -> advantages [B]; the answers of a group stand next to each other."""


@dataclass(frozen=True)
class GRPOConfig:
    """The settings of GRPO. Scores are in reward units, KLs and entropies in nats."""

    steps: int = 100
    """Rollouts; each is followed by epochs x minibatches optimizer steps."""
    batch_size: int = 64
    """Answers per rollout: batch_size / group_size prompts with group_size answers each."""
    group_size: int = 8
    """Answers to one prompt, each other's baseline."""
    epochs: int = 2
    """Passes over one rollout."""
    minibatches: int = 2
    """Optimizer steps per pass."""
    micro_batch_size: int | None = 16
    """Answers per forward pass, grouped by length: saves memory and padding; None: all that belong together."""
    max_new_tokens: int = 64
    """Longest answer, end token included."""
    temperature: float = 1.0
    """Temperature of sampling, and of every log-prob."""
    clip_range: float = 0.2
    """The ratio of new to old probability earns nothing beyond 1 +- clip_range."""
    kl_coef: float = 0.04
    """Price of one nat of KL(policy || reference) per token, in units of the advantages."""
    score_clip: float | None = None
    """Limit scores to +- this; None: no limit."""
    target_kl: float | None = None
    """Stop the passes over a rollout once a minibatch's approx_kl (nats per token) is above this; None: never."""
    max_ratio: float | None = 100.0
    """Skip a minibatch in which some token's ratio of new to old probability is above this; None: never."""
    missing_end_penalty: float | None = 1.0
    """An answer without an end token scores minus this, or its own score minus this if that is below 0; None: off."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            learning_rate=3e-4, eps=1e-5, weight_decay=0.0, warmup_steps=0, final_fraction=0.0, schedule="linear"
        )
    )
    """Learning rate (annealed to 0 over the rollouts) and the optimizer's other settings."""

    def __post_init__(self) -> None:
        tiny, endless = 1e-9, float("inf")
        counts = ("steps", "batch_size", "epochs", "micro_batch_size", "max_new_tokens")
        check_settings(
            self,
            **dict.fromkeys(counts, (1, endless)),
            **dict.fromkeys(("temperature", "score_clip", "target_kl"), (tiny, endless)),
            **dict.fromkeys(("kl_coef", "missing_end_penalty"), (0, endless)),
            group_size=(2, endless),
            clip_range=(tiny, 1 - tiny),
            minibatches=(1, self.batch_size),
            max_ratio=(1 + tiny, endless),
        )
        if self.batch_size % self.group_size:
            raise UserError(
                "a rollout is made of whole groups",
                where="--batch-size and --group-size",
                found=f"{self.batch_size} answers in groups of {self.group_size}",
                expected="a batch size that is a multiple of the group size",
                fix=f"for instance --batch-size {self.group_size * max(1, round(self.batch_size / self.group_size))}",
            )

    @property
    def prompts(self) -> int:
        """Different prompts per rollout."""
        return self.batch_size // self.group_size

    @property
    def sampling(self) -> SamplingConfig:
        """How answers are drawn: from the whole distribution, never top-k or top-p."""
        return SamplingConfig(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


def train_grpo(
    policy: GPT,
    reference: GPT,
    scorer: Scorer,
    prompts_at: Callable[[int], PromptBatch],
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    config: GRPOConfig,
    seed: int,
    advantages_of: Advantages = group_advantages,
    start_step: int = 0,
    true_reward: Scorer | None = None,
    world: World = ALONE,
) -> Iterator[Report]:
    """Yields one Report per rollout, numbered by the rollouts then done.

    prompts_at(k) gives the prompts of the rollout after k rollouts, each once, and is a pure function of k; so is
    every random draw, of (seed, k). The optimizer is built from `policy.named_parameters()`. Both networks are
    put into eval() mode and the reference is frozen. Raises NonFiniteError before a weight is spoilt.
    """
    policy.eval()
    freeze(reference, trained=policy)
    for step in range(start_step, config.steps):
        started = perf_counter()
        learning_rate = learning_rate_at(step, config.steps, config.optim)
        rollout = collect(  # what happened
            policy,
            None,
            reference,
            scorer,
            repeated(prompts_at(step), config.group_size),
            tokenizer,
            config.sampling,
            torch_generator(seed, "rollout", TOGETHER, step, device=policy.causal.device),
            config.missing_end_penalty,
            config.micro_batch_size,
            world,
        )
        collected = perf_counter()
        scores = clip_magnitude(rollout.scores, config.score_clip)
        advantages = advantages_of(scores, config.group_size)  # [B]: what it means
        metrics = rollout_metrics(rollout, token_rewards(rollout, 0.0), true_reward)
        del metrics["reward_mean"]  # the KL penalty is no part of the reward here: it would be score_mean again
        metrics["score_std_in_group"] = scores.reshape(-1, config.group_size).std(dim=1).mean().item()
        metrics["kl_exact_probe_nats_per_token"] = exact_kl_probe(policy, reference, rollout, config.temperature)
        concluded = perf_counter()

        updates: list[dict[str, float]] = []
        shuffle = torch_generator(seed, "minibatches", TOGETHER, step)
        for rows in shuffled_minibatches(len(scores), config.epochs, config.minibatches, shuffle):
            optimizer.zero_grad()
            update, too_far = grpo_backward(policy, rollout, advantages, rows, config, world)
            updates.append(update)
            if kl_above_target(update["approx_kl_nats_per_token"], config.target_kl):
                break
            if not too_far:
                sum_gradients(world, policy.parameters())
                update["grad_norm"] = guarded_step(policy, optimizer, learning_rate, config.optim.max_grad_norm)
        optimizer.zero_grad()  # leave nothing of a minibatch that was skipped

        metrics |= over_updates(updates) | {"learning_rate": learning_rate, "kl_coef": config.kl_coef}
        metrics |= speed(rollout, started, collected, concluded, perf_counter())
        yield Report(step + 1, metrics)


def repeated(prompts: PromptBatch, group_size: int) -> PromptBatch:
    """Each prompt group_size times, next to each other: [B P] -> [B * group_size P]."""
    return replace(
        prompts,
        ids=prompts.ids.repeat_interleave(group_size, dim=0),
        attention_mask=prompts.attention_mask.repeat_interleave(group_size, dim=0),
        texts=tuple(text for text in prompts.texts for _ in range(group_size)),
    )


def grpo_backward(
    policy: GPT, rollout: Rollout, advantages: Tensor, rows: Tensor, config: GRPOConfig, world: World = ALONE
) -> tuple[dict[str, float], bool]:
    """The loss of one minibatch (row numbers int64 [n]) and, added to .grad, its gradient; no step.

    The loss is a mean over the answers of all the rows, so the split into ranks and micro-batches changes nothing;
    each rank adds the gradient of its share.
    Returns the minibatch's metrics, and whether its ratios are so large that it should be skipped.
    Raises NonFiniteError naming the first tensor that is not finite.
    """
    tokens = int(rollout.response_mask[rows].sum())
    losses = {"policy_loss": 0.0, "entropy_nats_per_token": 0.0}
    new, old = [], []
    for part in micro_batches(share(world, rows), rollout.attention_mask, config.micro_batch_size):
        columns, response_columns = needed_columns(rollout.attention_mask[part], rollout.response_mask[part])
        mask = rollout.response_mask[part, response_columns]  # [b R]
        old_log_probs, ref_log_probs = (
            array[part, response_columns] for array in (rollout.old_log_probs, rollout.ref_log_probs)
        )
        log_probs, entropies = response_log_probs(
            policy, rollout.ids[part, columns], rollout.attention_mask[part, columns], mask.shape[1], config.temperature
        )  # [b R] nats
        check_finite(log_probs=log_probs[mask], old_log_probs=old_log_probs[mask])
        loss = grpo_loss(
            log_probs,
            old_log_probs,
            ref_log_probs,
            advantages[part],
            mask,
            config.clip_range,
            config.kl_coef,
            count=len(rows),
        )
        loss.backward()
        losses["policy_loss"] += loss.item()
        losses["entropy_nats_per_token"] += masked_mean(entropies.detach(), mask, tokens).item()
        new.append(log_probs.detach()[mask])
        old.append(old_log_probs[mask])
    losses = totals(world, losses)
    moved = gather(world, torch.cat(new)), gather(world, torch.cat(old))  # [tokens] each
    counted = torch.ones_like(moved[1], dtype=torch.bool)
    too_far = config.max_ratio is not None and ratio_too_large(*moved, counted, config.max_ratio)
    if not too_far:
        check_finite(**{name: torch.tensor(value) for name, value in losses.items()})
    return losses | ppo_diagnostics(*moved, counted, config.clip_range), too_far
