"""The same diagnosis on runs of the real trainers, tiny, with the fault really planted."""

import copy
import dataclasses

import torch

from minirlhf.evaluation.diagnose import diagnose_rows
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.records import TokenBatch
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.seeding import torch_generator
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.ppo import PPOConfig, actor_critic, train_ppo
from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain
from tests.helpers.tiny_rl import CONSTANT, TOKENIZER, count_e, prompt_batch, tiny_gpt, tiny_value_model


def findings_of(reports):
    rows = [{"step": float(report.step)} | report.metrics for report in reports]
    return {finding.what for finding in diagnose_rows(rows)}


def pretrain(learning_rate, steps=60, mask=True):
    model = GPT(GPTConfig(8, context=8, layers=1, heads=2, width=16), torch.Generator().manual_seed(0))
    optim = OptimConfig(learning_rate, warmup_steps=5)

    def batches_at(step):
        start = torch.randint(8, (8, 1), generator=torch_generator(0, step))
        ids = (start + torch.arange(9)) % 8  # counting: after 3 comes 4
        return [TokenBatch(ids, torch.full((8, 8), mask))]

    return train_pretrain(
        model, batches_at, AdamW(model.named_parameters(), optim), PretrainConfig(steps, 8, None, optim)
    )


def ppo(scorer=count_e, true_reward=None, **settings):
    policy = tiny_gpt()
    config = PPOConfig(steps=24, batch_size=24, epochs=2, minibatches=2, max_new_tokens=6, kl_coef=0.0, optim=CONSTANT)
    config = dataclasses.replace(config, **settings)
    value_model = tiny_value_model()
    optimizer = AdamW(actor_critic(policy, value_model).named_parameters(), config.optim)
    prompts = prompt_batch(("a", "bcd", "ef", "ghij", "k", "lm") * 4)
    return train_ppo(
        policy, value_model, copy.deepcopy(policy), reward_fn_scorer(scorer), lambda step: prompts, TOKENIZER,
        optimizer, config, 0, true_reward=reward_fn_scorer(true_reward) if true_reward else None,
    )  # fmt: skip


def against_e(prompts, responses):
    return [-share for share in count_e(prompts, responses)]


def test_pretraining_sound_and_with_a_learning_rate_of_almost_nothing():
    assert findings_of(pretrain(1e-2)) == set()
    assert findings_of(pretrain(1e-9)) == {"the loss never moved"}


def test_a_mask_that_hides_everything():
    reports = list(pretrain(1e-2, mask=False))
    assert findings_of(reports) == {"the loss never moved"}


def test_the_alarm_for_reward_hacking_on_a_policy_that_hacks_and_on_one_that_does_not():
    assert "reward hacking" in findings_of(ppo(true_reward=against_e))
    assert "reward hacking" not in findings_of(ppo(true_reward=count_e))


def test_a_policy_that_never_gets_to_learn():
    idle = dataclasses.replace(CONSTANT, learning_rate=1e-12)
    assert {"the updates do nothing", "the score never moved"} <= findings_of(ppo(optim=idle))


def test_a_score_that_pays_for_never_ending():
    unending = lambda prompts, responses: [float(len(response)) for response in responses]  # noqa: E731
    found = findings_of(ppo(unending, missing_end_penalty=None))
    assert found & {"the answers stopped ending", "the answers never end", "length explosion"}
