"""Every trainer for a few steps in float64, in this process or, as `python -m tests.helpers.several`, in several.

Each case returns named tensors: the metrics of each step, the gradients that reached the optimizer at each update,
and the weights at the end. Batches are ragged and do not divide evenly, so ranks count different numbers of tokens.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from minirlhf.models.heads import RewardModel, ValueModel
from minirlhf.parallel.ranks import World, gather, largest, share, sum_gradients, total, totals
from minirlhf.records import PreferenceBatch, TokenBatch
from minirlhf.rollout.gather import gather_texts
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.seeding import torch_generator
from minirlhf.trainers import dpo, grpo, ppo, pretrain, reinforce, reward, sft
from minirlhf.trainers.optim import AdamW
from tests.helpers.tiny_rl import CONSTANT, TOKENIZER, length_score, nudged, prompt_batch, tiny_gpt

STEPS = 3
ORIGINALS = {module: module.guarded_step for module in (dpo, grpo, ppo, pretrain, reinforce, reward)}


class Notes:
    """What a case saw: metrics of every report, gradients of every update, answers of this rank."""

    def __init__(self):
        self.tensors: dict[str, Tensor] = {}
        self.updates = 0
        self.answers: list[str] = []

    def watch(self, module):
        guarded_step = ORIGINALS[module]

        def noting(stepped, *arguments):
            for name, parameter in stepped.named_parameters():
                if parameter.grad is not None:
                    self.tensors[f"gradient.{self.updates}.{name}"] = parameter.grad.clone()
            self.updates += 1
            return guarded_step(stepped, *arguments)

        module.guarded_step = noting

    def reports(self, reports):
        for report in reports:
            for name, value in report.metrics.items():
                if not name.endswith(("_per_second", "_seconds")):
                    self.tensors[f"metric.{report.step}.{name}"] = torch.tensor(value, dtype=torch.float64)
            for name, value in report.state.items():
                self.tensors[f"state.{report.step}.{name}"] = torch.tensor(value, dtype=torch.float64)

    def weights(self, **models):
        for kind, model in models.items():
            for name, parameter in model.named_parameters():
                self.tensors[f"weight.{kind}.{name}"] = parameter.detach().clone()

    def scorer(self):
        def score(prompts, responses):
            self.answers.extend(responses)
            return length_score(prompts, responses)

        return reward_fn_scorer(score)


def rows_of(step: int, count: int, kind: str) -> list[tuple[Tensor, Tensor]]:
    """So many sequences of unequal length, the later ones longer, with the answers' places."""
    generator = torch_generator(step, "rows", kind)
    rows = []
    for row in range(count):
        length = 3 + 2 * row + int(torch.randint(0, 3, (), generator=generator))
        ids = torch.randint(97, 120, (length,), generator=generator)
        rows.append((ids, torch.rand(length - 1, generator=generator) < 0.1 + 0.8 * row / count))
    return rows


def token_batches(world: World, step: int, count: int = 5) -> list[TokenBatch]:
    return [TokenBatch(ids[None], mask[None]) for ids, mask in share(world, rows_of(step, count, "tokens"))]


def likelihood_case(world: World, model, train, config) -> Notes:
    notes = Notes()
    notes.watch(pretrain)
    optimizer = AdamW(model.named_parameters(), CONSTANT)
    notes.reports(train(model, lambda step: token_batches(world, step), optimizer, config, world))
    notes.weights(model=model)
    return notes


def case_pretrain(world: World) -> Notes:
    def train(model, batches_at, optimizer, config, world):
        return pretrain.train_pretrain(model, batches_at, optimizer, config, world=world)

    return likelihood_case(world, tiny_gpt(), train, pretrain.PretrainConfig(STEPS, optim=CONSTANT))


def case_sft(world: World) -> Notes:
    def train(model, batches_at, optimizer, config, world):
        return sft.train_sft(model, batches_at, optimizer, config, STEPS, world=world)

    return likelihood_case(world, tiny_gpt(1), train, sft.SftConfig(optim=CONSTANT))


def case_reward(world: World) -> Notes:
    def pairs_at(step):
        pairs = zip(rows_of(step, 5, "one"), rows_of(step + 9, 5, "other"), strict=True)
        batches = []
        for number, (one, other) in enumerate(pairs):
            chosen, rejected = (one[0], other[0]) if number % 2 else (other[0], one[0])
            chosen_mask, rejected_mask = (torch.ones_like(ids, dtype=torch.bool)[None] for ids in (chosen, rejected))
            batches.append(PreferenceBatch(chosen[None], chosen_mask, rejected[None], rejected_mask))
        return share(world, batches)

    notes, model = Notes(), nudged(RewardModel.from_trunk(tiny_gpt()), 2)
    notes.watch(reward)
    optimizer = AdamW(model.named_parameters(), CONSTANT)
    config = reward.RewardConfig(optim=CONSTANT)
    notes.reports(reward.train_reward(model, pairs_at, optimizer, config, STEPS, world=world))
    notes.weights(model=model)
    return notes


def case_dpo(world: World) -> Notes:
    def side(ids: Tensor) -> TokenBatch:
        return TokenBatch(ids[None], (torch.arange(1, len(ids)) > 0)[None])

    def pairs_at(step):
        pairs = zip(rows_of(step, 5, "one"), rows_of(step + 9, 5, "other"), strict=True)
        return share(world, [(side(one[0]), side(other[0])) for one, other in pairs])

    notes, policy = Notes(), tiny_gpt()
    notes.watch(dpo)
    optimizer = AdamW(policy.named_parameters(), CONSTANT)
    config = dpo.DPOConfig(optim=CONSTANT)
    notes.reports(dpo.train_dpo(policy, nudged(policy, 4), pairs_at, optimizer, config, STEPS, world=world))
    notes.weights(policy=policy)
    return notes


def prompts_at(step: int):
    return prompt_batch(("a", "bcd", "ef", "ghij", "k", "lm", "no")[step % 2 :])


def three_prompts_at(step: int):
    return prompt_batch(("a", "bcd", "ef"))


def run_ppo(world: World, config: ppo.PPOConfig) -> Notes:
    policy = tiny_gpt()
    notes, value_model = Notes(), nudged(ValueModel.from_trunk(tiny_gpt(3)), 3)
    networks = ppo.actor_critic(policy, value_model)
    notes.watch(ppo)
    optimizer = AdamW(networks.named_parameters(), config.optim)
    arguments = (policy, value_model, nudged(policy, 1), notes.scorer(), prompts_at, TOKENIZER, optimizer, config, 7)
    notes.reports(ppo.train_ppo(*arguments, world=world, true_reward=reward_fn_scorer(length_score)))
    notes.weights(networks=networks)
    return notes


def case_ppo(world: World) -> Notes:
    """Everything on that is a statistic of the whole rollout."""
    return run_ppo(
        world,
        ppo.PPOConfig(
            steps=STEPS, batch_size=6, epochs=2, minibatches=2, max_new_tokens=6, micro_batch_size=2, entropy_coef=0.1,
            kl_target=0.5, kl_horizon=50, whiten_rewards=True, truncated="bootstrap", optim=CONSTANT,
        ),
    )  # fmt: skip


def case_ppo_stops(world: World) -> Notes:
    """Large steps and tight limits: whether to stop and whether to skip must be the same on every rank."""
    lively = dataclasses.replace(CONSTANT, learning_rate=0.05)
    return run_ppo(
        world,
        ppo.PPOConfig(
            steps=STEPS, batch_size=6, epochs=4, minibatches=3, max_new_tokens=6, micro_batch_size=None,
            target_kl=0.3, max_ratio=4.0, optim=lively,
        ),
    )  # fmt: skip


def case_grpo(world: World) -> Notes:
    config = grpo.GRPOConfig(
        steps=STEPS, batch_size=9, group_size=3, epochs=2, minibatches=2, max_new_tokens=6, micro_batch_size=2,
        optim=CONSTANT,
    )  # fmt: skip
    policy, notes = tiny_gpt(), Notes()
    notes.watch(grpo)
    optimizer = AdamW(policy.named_parameters(), config.optim)
    arguments = (policy, nudged(policy, 1), notes.scorer(), three_prompts_at, TOKENIZER, optimizer, config, 7)
    notes.reports(grpo.train_grpo(*arguments, world=world))
    notes.weights(policy=policy)
    return notes


def case_reinforce(world: World) -> Notes:
    config = reinforce.ReinforceConfig(
        steps=STEPS, batch_size=6, max_new_tokens=6, micro_batch_size=2, entropy_coef=0.1, kl_target=0.5, kl_horizon=50,
        baseline="leave_one_out", optim=CONSTANT,
    )  # fmt: skip
    policy, notes = tiny_gpt(), Notes()
    notes.watch(reinforce)
    optimizer = AdamW(policy.named_parameters(), config.optim)
    arguments = (policy, nudged(policy, 1), notes.scorer(), prompts_at, TOKENIZER, optimizer, config, 7)
    notes.reports(reinforce.train_reinforce(*arguments, world=world))
    notes.weights(policy=policy)
    return notes


def case_arithmetic(world: World) -> Notes:
    """The functions of minirlhf/parallel/ranks.py, on numbers that say which rank they came from."""
    notes, numbers = Notes(), torch.arange(7.0)
    mine = share(world, numbers)
    parameter, bare = torch.zeros(3, 4, requires_grad=True), torch.zeros(2, requires_grad=True)
    other = torch.zeros(5, requires_grad=True, dtype=torch.float32)
    parameter.grad, other.grad = mine.sum() * torch.ones(3, 4), mine.square().sum() * torch.arange(5.0)
    sum_gradients(world, [parameter, bare, other])
    assert bare.grad is None
    texts = gather_texts(world, tuple(share(world, ("", "ä", "水\n", "a\ud800", "x" * 300, ""))))
    notes.tensors = {
        "total": torch.tensor(total(world, float(mine.sum()))),
        "count": torch.tensor(total(world, 2**40 + 1 if world.leads else 0)),
        "largest": torch.tensor(largest(world, int(mine.max()), -int(mine.min()))),
        "totals": torch.tensor(list(totals(world, {"b": float(len(mine)), "a": float(mine.sum())}).values())),
        "gathered": gather(world, mine),
        "gathered_bools": gather(world, mine[:, None] % 2 == 0),
        "first": parameter.grad,
        "second": other.grad,
        "texts": torch.tensor(list("|".join(texts).encode("utf-8", "surrogatepass"))),
    }
    return notes


CASES = {name.removeprefix("case_"): case for name, case in list(globals().items()) if name.startswith("case_")}


def main(folder: Path) -> None:
    """All cases as one rank of several; leaves CASE.RANK.safetensors in the folder."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    world = World(rank, size)
    for name, case in CASES.items():
        notes = case(world)
        answers = torch.tensor(list(json.dumps(notes.answers).encode("ascii")), dtype=torch.uint8)
        save_file(notes.tensors | {"answers": answers}, folder / f"{name}.{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
