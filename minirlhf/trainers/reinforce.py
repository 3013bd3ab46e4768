"""REINFORCE for language models: train_ppo with the critic and the clip taken away. Williams 1992, eq. 11.

Laid beside ppo.py, what is missing is the point. No value model: what was to be expected is the mean of the other
answers. No ratio to clip: a rollout is used for one step, while it is still the policy's own. So there are no epochs,
no minibatches and no guard against stale data either.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal

import torch
from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.models.gpt import GPT
from minirlhf.objectives.advantages import clip_magnitude, gae
from minirlhf.objectives.guards import check_finite
from minirlhf.objectives.kl import next_kl_coef
from minirlhf.objectives.likelihood import response_log_probs
from minirlhf.objectives.masked import masked_mean, masked_whiten
from minirlhf.objectives.ppo import explained_variance, ppo_diagnostics
from minirlhf.objectives.reinforce import reinforce_loss
from minirlhf.parallel.ranks import ALONE, TOGETHER, World, gather, share, sum_gradients, totals
from minirlhf.records import Experience, PromptBatch, Report, Rollout
from minirlhf.rollout.collect import collect
from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.padding import micro_batches
from minirlhf.rollout.scoring import Scorer
from minirlhf.rollout.statistics import exact_kl_probe, rollout_metrics, speed
from minirlhf.seeding import torch_generator
from minirlhf.tokenizers.tokenizer import Tokenizer
from minirlhf.trainers.checks import check_settings, freeze
from minirlhf.trainers.minibatches import take
from minirlhf.trainers.optim import OptimConfig, Optimizer, guarded_step, learning_rate_at


@dataclass(frozen=True)
class ReinforceConfig:
    """The settings of REINFORCE. Scores, rewards and advantages are in reward units, KLs and entropies in nats."""

    steps: int = 200
    """Rollouts, each followed by one optimizer step."""
    batch_size: int = 64
    """Answers per rollout."""
    micro_batch_size: int | None = 16
    """Answers per forward pass, grouped by length: saves memory and padding; None: all at once."""
    max_new_tokens: int = 64
    """Longest answer, end token included."""
    temperature: float = 1.0
    """Temperature of sampling, and of every log-prob."""
    gamma: float = 1.0
    """Discount per token; 1 makes a late score count in full for the first token."""
    baseline: Literal["batch_mean", "leave_one_out"] = "batch_mean"
    """What an answer's return is compared with: the mean over the rollout, or over its other answers."""
    entropy_coef: float = 0.0
    """Reward for being undecided, per nat of entropy; 0: the KL penalty is enough."""
    kl_coef: float = 0.05
    """Price of one nat of KL(policy || reference), in reward units; with kl_target, where it starts."""
    kl_target: float | None = None
    """Nats per answer to steer kl_coef towards; None keeps kl_coef fixed."""
    kl_horizon: float = 10_000.0
    """How slowly kl_coef follows kl_target, in answers."""
    whiten_advantages: bool = True
    """Scale the advantages of a rollout to standard deviation 1; the baseline has already centred them."""
    score_clip: float | None = None
    """Limit scores to +- this; None: no limit."""
    advantage_clip: float | None = None
    """Limit advantages to +- this, after whitening; None: no limit."""
    missing_end_penalty: float | None = 1.0
    """An answer without an end token scores minus this, or its own score minus this if that is below 0; None: off."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(
            learning_rate=1e-3, eps=1e-5, weight_decay=0.0, warmup_steps=0, final_fraction=0.0, schedule="linear"
        )
    )
    """Learning rate (annealed to 0 over the rollouts) and the optimizer's other settings."""

    def __post_init__(self) -> None:
        tiny, endless = 1e-9, float("inf")
        positive = ("temperature", "kl_target", "kl_horizon", "score_clip", "advantage_clip")
        check_settings(
            self,
            **dict.fromkeys(("steps", "batch_size", "micro_batch_size", "max_new_tokens"), (1, endless)),
            **dict.fromkeys(positive, (tiny, endless)),
            **dict.fromkeys(("entropy_coef", "kl_coef", "missing_end_penalty"), (0, endless)),
            gamma=(0, 1),
        )
        if self.baseline == "leave_one_out" and self.batch_size < 2:
            raise UserError("leave_one_out needs other answers", where="--batch-size", found="1", expected="2 or more")

    @property
    def sampling(self) -> SamplingConfig:
        """How answers are drawn: from the whole distribution, never top-k or top-p."""
        return SamplingConfig(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


def train_reinforce(
    policy: GPT,
    reference: GPT,
    scorer: Scorer,
    prompts_at: Callable[[int], PromptBatch],
    tokenizer: Tokenizer,
    optimizer: Optimizer,
    config: ReinforceConfig,
    seed: int,
    start_step: int = 0,
    state: Mapping[str, float] | None = None,
    true_reward: Scorer | None = None,
    world: World = ALONE,
) -> Iterator[Report]:
    """Yields one Report per rollout, numbered by the rollouts then done; report.state goes back in as state on resume.

    prompts_at(k) gives the prompts of the rollout after k rollouts and is a pure function of k; so is every random
    draw, of (seed, k). The optimizer is built from `policy.named_parameters()`. Both networks are put into
    eval() mode and the reference is frozen. Raises NonFiniteError, naming the tensor, before a weight is spoilt.
    """
    policy.eval()
    freeze(reference, trained=policy)
    kl_coef = (state or {}).get("kl_coef", config.kl_coef)
    for step in range(start_step, config.steps):
        started = perf_counter()
        learning_rate = learning_rate_at(step, config.steps, config.optim)
        rollout = collect(  # what happened
            policy,
            None,
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
        experience = conclude(rollout, rewards, config)  # what it means
        metrics = rollout_metrics(rollout, rewards, true_reward)
        metrics["kl_exact_probe_nats_per_token"] = exact_kl_probe(policy, reference, rollout, config.temperature)
        concluded = perf_counter()

        optimizer.zero_grad()
        metrics |= reinforce_backward(policy, experience, config, world)
        sum_gradients(world, policy.parameters())
        metrics["grad_norm"] = guarded_step(policy, optimizer, learning_rate, config.optim.max_grad_norm)

        metrics |= {"learning_rate": learning_rate, "kl_coef": kl_coef}
        if config.kl_target is not None:
            kl = metrics["kl_nats_per_response"]
            kl_coef = next_kl_coef(kl_coef, kl, config.kl_target, config.kl_horizon, len(rewards))
        metrics |= speed(rollout, started, collected, concluded, perf_counter())
        yield Report(step + 1, metrics, {"kl_coef": kl_coef})


@torch.no_grad()
def conclude(rollout: Rollout, rewards: Tensor, config: ReinforceConfig) -> Experience:
    """Advantage = what followed a token (its return-to-go) minus the baseline, which stands in for old_values."""
    mask = rollout.response_mask
    _, returns = gae(rewards, torch.zeros_like(rewards), mask, config.gamma, gae_lambda=1.0)  # without a critic: to-go
    expected = baseline(returns[:, 0], config.baseline)[:, None].expand_as(returns)  # [B R]
    advantages = (returns - expected).masked_fill(~mask, 0.0)
    if config.whiten_advantages:
        advantages = masked_whiten(advantages, mask, shift_mean=False)
    return Experience(
        ids=rollout.ids,
        attention_mask=rollout.attention_mask,
        response_mask=mask,
        old_log_probs=rollout.old_log_probs,
        old_values=expected.masked_fill(~mask, 0.0),
        advantages=clip_magnitude(advantages, config.advantage_clip),
        returns=returns,
    )


def baseline(returns: Tensor, kind: Literal["batch_mean", "leave_one_out"]) -> Tensor:
    """What each answer could be expected to return, [B] -> [B]: the mean, with the answer itself or without it.

    Without it the baseline does not depend on what it is compared with, so the gradient is unbiased; with it, the
    gradient is (B - 1) / B of that. Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!".
    """
    if kind == "batch_mean":
        return returns.mean().expand_as(returns)
    if len(returns) < 2:
        raise ValueError("leave_one_out needs at least two answers")
    return (returns.sum() - returns) / (len(returns) - 1)


def reinforce_backward(
    policy: GPT, experience: Experience, config: ReinforceConfig, world: World = ALONE
) -> dict[str, float]:
    """The loss over all rows and, added to .grad, its gradient; no step. Returns the metrics of the update.

    The loss is a mean over the response tokens of all the rows, so the split into ranks and micro-batches changes
    nothing; each rank adds the gradient of its share.
    Raises NonFiniteError naming the first tensor that is not finite.
    """
    tokens = int(experience.response_mask.sum())
    losses = {"policy_loss": 0.0, "entropy_nats_per_token": 0.0}
    new, old = [], []
    mine = share(world, torch.arange(len(experience.ids)))
    for rows in micro_batches(mine, experience.attention_mask, config.micro_batch_size):
        part = take(experience, rows)
        mask = part.response_mask  # [b R]
        log_probs, entropies = response_log_probs(
            policy, part.ids, part.attention_mask, mask.shape[1], config.temperature
        )  # [b R] nats
        check_finite(log_probs=log_probs[mask])
        policy_loss = reinforce_loss(log_probs, part.advantages, mask, tokens)
        steered = entropies if config.entropy_coef else entropies.detach()  # detached: only logged
        entropy = masked_mean(steered, mask, tokens)
        (policy_loss - config.entropy_coef * entropy).backward()
        for name, term in zip(losses, (policy_loss, entropy), strict=True):
            losses[name] += term.item()
        new.append(log_probs.detach()[mask])
        old.append(part.old_log_probs[mask])
    losses = totals(world, losses)
    moved = gather(world, torch.cat(new)), gather(world, torch.cat(old))  # [tokens] each
    counted = torch.ones_like(moved[1], dtype=torch.bool)
    check_finite(**{name: torch.tensor(loss) for name, loss in losses.items()})
    foreseen = explained_variance(experience.old_values, experience.returns, experience.response_mask)
    watched = ppo_diagnostics(*moved, counted)
    watched |= {"first_ratio_max": watched["ratio_max"]}  # the only update is the first
    return losses | watched | {"value_loss": 0.0, "explained_variance": foreseen.item()}
