"""Proximal policy optimisation for language models. Schulman et al. 2017, arXiv:1707.06347; the settings that matter
here are those of Huang et al. 2023, "The N Implementation Details of RLHF with PPO".

Prompts -> Rollout (what happened) -> Experience (what we conclude) -> clipped updates. Next door, reinforce.py is this
loop with the critic and the clip taken away.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor, nn

from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.models.heads import ValueModel
from minirlhf.objectives.guards import check_finite, kl_above_target, ratio_too_large
from minirlhf.objectives.kl import next_kl_coef
from minirlhf.objectives.masked import masked_mean
from minirlhf.objectives.ppo import clipped_value_loss, explained_variance, ppo_diagnostics, ppo_policy_loss
from minirlhf.parallel.ranks import ALONE, TOGETHER, World, gather, share, sum_gradients, totals
from minirlhf.records import Experience, PromptBatch, Report, Rollout
from minirlhf.rollout.collect import collect, response_log_probs_and_values
from minirlhf.rollout.experience import estimate_advantages, token_rewards, values_after_cut
from minirlhf.rollout.padding import micro_batches
from minirlhf.rollout.scoring import Scorer
from minirlhf.rollout.statistics import exact_kl_probe, over_updates, rollout_metrics, speed
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.checks import check_settings, freeze
from minirlhf.trainers.minibatches import shuffled_minibatches, take
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at


@dataclass(frozen=True)
class PPOConfig:
    """The settings of PPO. Scores, rewards, values and advantages are in reward units, KLs and entropies in nats."""

    steps: int = 100
    """Rollouts; each is followed by epochs x minibatches optimizer steps."""
    batch_size: int = 64
    """Answers per rollout."""
    epochs: int = 4
    """Passes over one rollout."""
    minibatches: int = 4
    """Optimizer steps per pass."""
    micro_batch_size: int | None = 32
    """Answers per forward pass, grouped by length: saves memory and padding; None: all that belong together."""
    max_new_tokens: int = 64
    """Longest answer, end token included."""
    temperature: float = 1.0
    """Temperature of sampling, and of every log-prob."""
    gamma: float = 1.0
    """Discount per token; 1 makes a late score count in full for the first token."""
    gae_lambda: float = 0.95
    """1: advantages are return minus value (unbiased, noisy); 0: one-step errors of the critic."""
    clip_range: float = 0.2
    """The ratio of new to old probability earns nothing beyond 1 +- clip_range."""
    value_clip_range: float = 0.2
    """Values further than this from the old ones earn nothing, in reward units."""
    value_coef: float = 0.5
    """Weight of the value loss beside the policy loss."""
    entropy_coef: float = 0.0
    """Reward for being undecided, per nat of entropy; 0: the KL penalty is enough."""
    kl_coef: float = 0.05
    """Price of one nat of KL(policy || reference), in reward units; with kl_target, where it starts."""
    kl_target: float | None = None
    """Nats per answer to steer kl_coef towards; None keeps kl_coef fixed."""
    kl_horizon: float = 10_000.0
    """How slowly kl_coef follows kl_target, in answers."""
    whiten_rewards: bool = False
    """Scale token rewards to standard deviation 1; their mean stays."""
    whiten_advantages: bool = True
    """Shift and scale the advantages of a rollout to mean 0 and standard deviation 1."""
    score_clip: float | None = None
    """Limit scores to +- this; None: no limit."""
    advantage_clip: float | None = None
    """Limit advantages to +- this, after whitening; None: no limit."""
    target_kl: float | None = None
    """Stop the passes over a rollout once a minibatch's approx_kl (nats per token) is above this; None: never."""
    max_ratio: float | None = 100.0
    """Skip a minibatch in which some token's ratio of new to old probability is above this; None: never."""
    missing_end_penalty: float | None = 1.0
    """An answer without an end token scores minus this, or its own score minus this if that is below 0; None: off."""
    truncated: Literal["terminal", "bootstrap"] = "terminal"
    """What follows an answer cut by max_new_tokens: nothing, or what the critic expects after its last token."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            learning_rate=3e-4, eps=1e-5, weight_decay=0.0, warmup_steps=0, final_fraction=0.0, schedule="linear"
        )
    )
    """Learning rate (annealed to 0 over the rollouts) and the optimizer's other settings."""

    def __post_init__(self) -> None:
        tiny, endless = 1e-9, float("inf")
        counts = dict.fromkeys(("steps", "batch_size", "epochs", "max_new_tokens"), (1, endless))
        positive = ("temperature", "value_clip_range", "kl_target", "kl_horizon", "score_clip", "advantage_clip")
        check_settings(
            self,
            **counts,
            **dict.fromkeys((*positive, "target_kl"), (tiny, endless)),
            **dict.fromkeys(("value_coef", "entropy_coef", "kl_coef", "missing_end_penalty"), (0, endless)),
            **dict.fromkeys(("gamma", "gae_lambda"), (0, 1)),
            clip_range=(tiny, 1 - tiny),
            minibatches=(1, self.batch_size),
            micro_batch_size=(1, endless),
            max_ratio=(1 + tiny, endless),
        )

    @property
    def sampling(self) -> SamplingConfig:
        """How answers are drawn: from the whole distribution, never top-k or top-p."""
        return SamplingConfig(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


def actor_critic(policy: GPT, value_model: ValueModel) -> nn.ModuleDict:
    """Both as one, for one optimizer: parameters policy.* and value.*, of a critic on the policy only value.head.*"""
    return nn.ModuleDict({"policy": policy, "value": value_model})


def train_ppo(
    policy: GPT,
    value_model: ValueModel,
    reference: GPT,
    scorer: Scorer,
    prompts_at: Callable[[int], PromptBatch],
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    config: PPOConfig,
    seed: int,
    start_step: int = 0,
    state: Mapping[str, float] | None = None,
    true_reward: Scorer | None = None,
    world: World = ALONE,
) -> Iterator[Report]:
    """Yields one Report per rollout, numbered by the rollouts then done; report.state goes back in as state on resume.

    prompts_at(k) gives the prompts of the rollout after k rollouts and is a pure function of k; so is every random
    draw, of (seed, k). The optimizer is built from `actor_critic(policy, value_model).named_parameters()`. The value
    model stands on a trunk of its own, or on the policy: ValueModel(policy).
    All networks are put into eval() mode, since dropout would move the ratio away from 1, and the reference is frozen.
    Raises NonFiniteError, naming the tensor, before a NaN or infinity reaches the weights.
    """
    networks = actor_critic(policy, value_model).eval()
    freeze(reference, trained=networks)
    kl_coef = (state or {}).get("kl_coef", config.kl_coef)
    for step in range(start_step, config.steps):
        started = perf_counter()
        learning_rate = learning_rate_at(step, config.steps, config.optim)
        rollout = collect(  # what happened
            policy,
            value_model,
            reference,
            scorer,
            prompts_at(step),
            tokenizer,
            config.sampling,
            torch_generator(seed, "rollout", TOGETHER, step, device=policy.causal.device),
            config.missing_end_penalty,
            config.micro_batch_size,
            world,
        )
        collected = perf_counter()
        rewards = token_rewards(rollout, kl_coef, config.score_clip)  # [B R]: score minus KL penalty, by token
        experience = conclude(rollout, rewards, value_model, config)  # what it means
        metrics = rollout_metrics(rollout, rewards, true_reward)
        metrics["kl_exact_probe_nats_per_token"] = exact_kl_probe(policy, reference, rollout, config.temperature)
        concluded = perf_counter()

        updates: list[dict[str, float]] = []
        shuffle = torch_generator(seed, "minibatches", TOGETHER, step)
        for rows in shuffled_minibatches(len(rewards), config.epochs, config.minibatches, shuffle):
            optimizer.zero_grad()
            update, too_far = ppo_backward(policy, value_model, experience, rows, config, world)
            updates.append(update)
            if kl_above_target(update["approx_kl_nats_per_token"], config.target_kl):
                break
            if not too_far:
                sum_gradients(world, networks.parameters())
                update["grad_norm"] = guarded_step(networks, optimizer, learning_rate, config.optim.max_grad_norm)
        optimizer.zero_grad()  # leave nothing of a minibatch that was skipped

        metrics |= over_updates(updates) | {"learning_rate": learning_rate, "kl_coef": kl_coef}
        values = (experience.old_values, experience.returns, experience.response_mask)
        metrics["explained_variance"] = explained_variance(*values).item()
        if config.kl_target is not None:
            kl = metrics["kl_nats_per_response"]
            kl_coef = next_kl_coef(kl_coef, kl, config.kl_target, config.kl_horizon, len(rewards))
        metrics |= speed(rollout, started, collected, concluded, perf_counter())
        yield Report(step + 1, metrics, {"kl_coef": kl_coef})


def conclude(rollout: Rollout, rewards: Tensor, value_model: ValueModel, config: PPOConfig) -> Experience:
    """The rollout's advantages and returns under this config."""
    last_values = values_after_cut(value_model, rollout) if config.truncated == "bootstrap" else None
    return estimate_advantages(
        rollout,
        rewards,
        config.gamma,
        config.gae_lambda,
        config.whiten_rewards,
        config.whiten_advantages,
        config.advantage_clip,
        last_values,
    )


def ppo_backward(
    policy: GPT,
    value_model: ValueModel,
    experience: Experience,
    rows: Tensor,
    config: PPOConfig,
    world: World = ALONE,
) -> tuple[dict[str, float], bool]:
    """Losses of one minibatch (row numbers int64 [n]) and, added to .grad, their gradients; no step.

    Every loss is a mean over the response tokens of all the rows, so the split into ranks and micro-batches changes
    nothing; each rank adds the gradients of its share.
    Returns the minibatch's metrics, and whether its ratios are so large that it should be skipped.
    Raises NonFiniteError naming the first tensor that is not finite.
    """
    tokens = int(experience.response_mask[rows].sum())
    losses = {"policy_loss": 0.0, "value_loss": 0.0, "entropy_nats_per_token": 0.0}
    new, old = [], []
    for part_rows in micro_batches(share(world, rows), experience.attention_mask, config.micro_batch_size):
        part = take(experience, part_rows)
        mask = part.response_mask  # [b R]
        log_probs, entropies, values = response_log_probs_and_values(
            policy, value_model, part.ids, part.attention_mask, mask.shape[1], config.temperature
        )  # [b R] each: nats, nats, reward units
        check_finite(log_probs=log_probs[mask], old_log_probs=part.old_log_probs[mask], values=values[mask])
        policy_loss = ppo_policy_loss(log_probs, part.old_log_probs, part.advantages, mask, config.clip_range, tokens)
        value_loss = clipped_value_loss(values, part.old_values, part.returns, mask, config.value_clip_range, tokens)
        steered = entropies if config.entropy_coef else entropies.detach()  # detached: only logged
        entropy = masked_mean(steered, mask, tokens)
        (policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy).backward()
        for name, term in zip(losses, (policy_loss, value_loss, entropy), strict=True):
            losses[name] += term.item()
        new.append(log_probs.detach()[mask])
        old.append(part.old_log_probs[mask])
    losses = totals(world, losses)
    moved = gather(world, torch.cat(new)), gather(world, torch.cat(old))  # [tokens] each
    counted = torch.ones_like(moved[1], dtype=torch.bool)
    too_far = config.max_ratio is not None and ratio_too_large(*moved, counted, config.max_ratio)
    if not too_far:
        check_finite(**{name: torch.tensor(loss) for name, loss in losses.items()})
    return losses | ppo_diagnostics(*moved, counted, config.clip_range), too_far
