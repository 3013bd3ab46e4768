"""Every number that is logged has its row, and no row speaks of a number that is not."""

import ast
import copy
from pathlib import Path

import pytest

import minirlhf
from minirlhf.models.heads import RewardModel
from minirlhf.reports.glossary import GLOSSARY, rows_for
from minirlhf.rollout.scoring import reward_fn_scorer
from minirlhf.trainers.dpo import DPOConfig, train_dpo
from minirlhf.trainers.grpo import GRPOConfig, train_grpo
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.ppo import PPOConfig, actor_critic, train_ppo
from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain
from minirlhf.trainers.reinforce import ReinforceConfig, train_reinforce
from minirlhf.trainers.reward import RewardConfig, train_reward
from minirlhf.trainers.sft import SftConfig, train_sft
from tests.evaluation.test_held_out import pair_batch, random_batch
from tests.helpers.tiny_rl import TOKENIZER, count_e, nudged, prompt_batch, tiny_gpt, tiny_value_model

PACKAGE = Path(minirlhf.__file__).parent


def logged_by_the_trainers() -> set[str]:
    """One tiny step of each trainer, as it is."""
    policy, optim = tiny_gpt(), OptimConfig()
    adam = lambda model: AdamW(model.named_parameters(), optim)  # noqa: E731
    batches, score = [random_batch(0)], reward_fn_scorer(count_e)
    value_model, reward_model = tiny_value_model(), RewardModel.from_trunk(policy)
    rl = {"true_reward": score}
    runs = [
        train_pretrain(policy, lambda k: batches, adam(policy), PretrainConfig(steps=1)),
        train_sft(policy, lambda k: batches, adam(policy), SftConfig(), 1),
        train_reward(reward_model, lambda k: [pair_batch(0, 3)], adam(reward_model), RewardConfig(), 1),
        train_ppo(
            policy, value_model, copy.deepcopy(policy), score, lambda k: prompt_batch(), TOKENIZER,
            adam(actor_critic(policy, value_model)), PPOConfig(steps=1, batch_size=6, max_new_tokens=4), 0, **rl,
        ),
        train_reinforce(
            policy, nudged(policy), score, lambda k: prompt_batch(), TOKENIZER, adam(policy),
            ReinforceConfig(steps=1, batch_size=6, max_new_tokens=4), 0, **rl,
        ),
        train_grpo(
            policy, nudged(policy), score, lambda k: prompt_batch(), TOKENIZER, adam(policy),
            GRPOConfig(steps=1, batch_size=12, group_size=2, max_new_tokens=4), 0, **rl,
        ),
        train_dpo(policy, nudged(policy), lambda k: [(batches[0], batches[0])], adam(policy), DPOConfig(), 1),
    ]  # fmt: skip
    return {key for run in runs for report in run for key in report.metrics}


def logged_by_the_runs() -> set[str]:
    """Keys added to rows by `evaluate` functions, and by the clock (`metrics["..."]` there), read from the source."""
    keys = set()
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef) and function.name == "with_throughput":
                for node in ast.walk(function):
                    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
                        keys |= {node.slice.value} if isinstance(node.slice.value, str) else set()
            if isinstance(function, ast.FunctionDef) and function.name == "evaluate":
                for node in ast.walk(function):
                    if isinstance(node, ast.Dict):
                        keys |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return keys


def test_every_logged_key_has_a_row_and_no_row_is_stale():
    evaluated = logged_by_the_runs()
    assert {"val_bits_per_byte", "val_accuracy", "compile_seconds"} <= evaluated
    assert set(GLOSSARY) == logged_by_the_trainers() | evaluated | {"step", "seconds"}


@pytest.mark.parametrize("key", GLOSSARY)
def test_every_row_is_three_sentences_for_a_newcomer(key):
    row = GLOSSARY[key]
    for text in (row.meaning, row.healthy, row.what_to_do):
        assert (text[0].isupper() or text[0].isdigit()) and text.endswith(".") and len(text) > 6
    assert len({row.meaning, row.healthy, row.what_to_do}) == 3


def test_only_the_rows_that_were_asked_for():
    assert list(rows_for(["kl_coef", "step", "unknown"])) == ["step", "kl_coef"]
