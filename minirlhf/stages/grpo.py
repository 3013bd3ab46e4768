"""The stage `grpo`: as `ppo`, with several answers to each prompt in the critic's place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from minirlhf.objectives.grpo import group_advantages
from minirlhf.objectives.rloo import rloo_advantages
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.stages.common import finish, ready, restore_optimizer, save_training
from minirlhf.stages.policy import SHOW, PolicyOptions, prepare, restore_policy
from minirlhf.trainers.grpo import Advantages, GRPOConfig, train_grpo
from minirlhf.trainers.muon import make_optimizer


@dataclass(frozen=True)
class GRPOStage:
    """Improve a model by reinforcement learning with GRPO: several answers to a prompt, compared with each other."""

    run: RunOptions
    policy: PolicyOptions
    advantages: Literal["group", "rloo"] = "group"
    """What an answer is compared with: its group's mean, in standard deviations, or the mean of the others (rloo)."""
    training: GRPOConfig = field(default_factory=GRPOConfig)

    @property
    def advantages_of(self) -> Advantages:
        """The function that --advantages names."""
        return rloo_advantages if self.advantages == "rloo" else group_advantages


def run_grpo(stage: GRPOStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size, stage.training.minibatches)
    config, seed = stage.training, stage.run.seed
    setup = prepare(stage.run, stage.policy, config.sampling, config.prompts)
    run = open_run(stage.run, setup.device, "grpo", setup.settings | {"stage": stage}, world)
    policy = restore_policy(run, setup.policy)
    ready(run, setup.reference, setup.reward_model)
    optimizer = make_optimizer(policy.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)

    def save(state: dict[str, Any]) -> None:
        save_training(run, policy, setup.tokenizer, optimizer, state)

    def sample() -> list[dict[str, Any]]:
        return setup.sample(policy, seed, config.sampling)

    if not run.finished:
        reports = train_grpo(
            policy,
            setup.reference,
            setup.scorer,
            setup.prompts_at,
            setup.tokenizer,
            optimizer,
            config,
            seed,
            stage.advantages_of,
            run.start_step,
            setup.true_reward,
            world,
        )
        drive(run, reports, config.steps, save, None, sample, SHOW)
    finish(run, policy, setup.tokenizer, config.steps, f"minirlhf chat {run.folder}")
    return run.folder
