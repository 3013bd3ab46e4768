"""The command `ppo`: maximise a reward with a KL penalty to the model it starts from (PPO)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from minirlhf.errors import UserError
from minirlhf.models.heads import ValueModel
from minirlhf.parallel.processes import check_shares
from minirlhf.parallel.ranks import ALONE, World
from minirlhf.runs.run import RunOptions, check_folder, drive, open_run
from minirlhf.stages.common import finish, kept_tensors, ready, restore_optimizer, save_training
from minirlhf.stages.policy import SHOW, PolicyOptions, names_function, prepare, restore_policy
from minirlhf.trainers.muon import make_optimizer
from minirlhf.trainers.ppo import PPOConfig, actor_critic, train_ppo

CRITIC = "value."  # before the names of the critic's tensors in a checkpoint


@dataclass(frozen=True)
class PPOStage:
    """Improve a model by reinforcement learning with PPO: answer, be scored, move a little, measured from a critic."""

    run: RunOptions
    policy: PolicyOptions
    value_from: Literal["policy", "reward", "shared"] = "policy"
    """Whose trunk the critic starts from, as a copy; shared: it stays on the policy's own. That is half the work per
    update, but the critic's errors then change the shared layers."""
    training: PPOConfig = field(default_factory=PPOConfig)


def run_ppo(stage: PPOStage, world: World = ALONE) -> Path:
    """Runs the stage and returns the run folder. Raises UserError before anything is written if the input is wrong."""
    check_folder(stage.run, world)
    check_shares(world, stage.training.batch_size, stage.training.minibatches)
    config, seed = stage.training, stage.run.seed
    shared = stage.value_from == "shared"
    if shared and world.sharded:
        raise UserError(
            "a critic on the policy's own trunk cannot be cut up among processes",
            found="--value-from shared with --shard",
            fix="--value-from policy, or leave out --shard",
        )
    if stage.value_from == "reward" and names_function(stage.policy.reward):
        raise UserError(
            "the critic cannot start from a reward function",
            found=f"--value-from reward with --reward {stage.policy.reward}",
            fix="--value-from policy, or the folder of a reward model as --reward",
        )
    setup = prepare(stage.run, stage.policy, config.sampling, config.batch_size)
    reward_model = setup.reward_model if stage.value_from == "reward" else None
    run = open_run(stage.run, setup.device, "ppo", setup.settings | {"stage": stage}, world)
    policy = restore_policy(run, setup.policy)
    start = setup.reference if reward_model is None else reward_model.trunk
    value_model = ValueModel(policy) if shared else ValueModel.from_trunk(start)
    ready(run, None if shared else value_model, setup.reference, setup.reward_model)
    if kept := kept_tensors(run, CRITIC, own_tensors(value_model, shared)):
        value_model.load_state_dict(kept, strict=not shared)
    optimizer = make_optimizer(actor_critic(policy, value_model).named_parameters(), config.optim)
    restore_optimizer(run, optimizer)

    def save(state: dict[str, Any]) -> None:
        critic = {CRITIC + name: tensor for name, tensor in own_tensors(value_model, shared).items()}
        save_training(run, policy, setup.tokenizer, optimizer, state, critic)

    def sample() -> list[dict[str, Any]]:
        return setup.sample(policy, seed, config.sampling)

    if not run.finished:
        arguments = (policy, value_model, setup.reference, setup.scorer, setup.prompts_at, setup.tokenizer, optimizer)
        reports = train_ppo(*arguments, config, seed, run.start_step, run.state, setup.true_reward, world)
        drive(run, reports, config.steps, save, None, sample, SHOW)
    finish(run, policy, setup.tokenizer, config.steps, f"minirlhf chat {run.folder}")
    return run.folder


def own_tensors(value_model: ValueModel, shared: bool) -> dict[str, Tensor]:
    """The critic's state as far as the policy's does not hold it: of a critic on a shared trunk, the head."""
    state: dict[str, Tensor] = value_model.state_dict()
    return {name: tensor for name, tensor in state.items() if not (shared and name.startswith("trunk."))}
