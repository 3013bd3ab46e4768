"""The stage `reinforce`: as `ppo`, without the critic and without the clip."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.stages.common import finish, ready, restore_optimizer, save_training
from minirlhf.stages.policy import SHOW, PolicyOptions, prepare, restore_policy
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.reinforce import ReinforceConfig, train_reinforce


@dataclass(frozen=True)
class ReinforceStage:
    """Improve a model by reinforcement learning with REINFORCE: what scored better than usual becomes likelier."""

    run: RunOptions
    policy: PolicyOptions
    training: ReinforceConfig = field(default_factory=ReinforceConfig)


def run_reinforce(stage: ReinforceStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size)
    config, seed = stage.training, stage.run.seed
    setup = prepare(stage.run, stage.policy, config.sampling, config.batch_size)
    run = open_run(stage.run, setup.device, "reinforce", setup.settings | {"stage": stage}, world)
    policy = restore_policy(run, setup.policy)
    ready(run, setup.reference, setup.reward_model)
    optimizer = make_optimizer(policy.named_parameters(), config.optim)
    restore_optimizer(run, optimizer)

    def save(state: dict[str, Any]) -> None:
        save_training(run, policy, setup.tokenizer, optimizer, state)

    def sample() -> list[dict[str, Any]]:
        return setup.sample(policy, seed, config.sampling)

    if not run.finished:
        arguments = (policy, setup.reference, setup.scorer, setup.prompts_at, setup.tokenizer, optimizer)
        reports = train_reinforce(*arguments, config, seed, run.start_step, run.state, setup.true_reward, world)
        drive(run, reports, config.steps, save, None, sample, SHOW)
    finish(run, policy, setup.tokenizer, config.steps, f"minirlhf chat {run.folder}")
    return run.folder
