"""What a PPO step costs, and what clipping scores and advantages does: python benchmarks/ppo.py [--out FILE]

Three tables, from a small random model and a rule for a reward (the share of one letter in the answer):
where the time of a step goes; the update with padding cut off against the update on every column; and the score
that training reaches with the clips of Zheng et al. 2023 off, loose and tight, for PPO and for REINFORCE.
With --model DIR and --reward MODULE:FUNCTION the clips are compared on that model and the shipped prompts instead.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import torch

from minirlhf.data.batches import batch_indices, prompt_batch
from minirlhf.data.formats import read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.generation.generate import generate
from minirlhf.models.checkpoint import load_model
from minirlhf.models.gpt import GPT, GPTConfig
from minirlhf.models.heads import ValueModel
from minirlhf.records import Experience, PromptBatch
from minirlhf.rollout.collect import collect
from minirlhf.rollout.experience import token_rewards
from minirlhf.rollout.scoring import load_reward_function, reward_fn_scorer
from minirlhf.tokenizers.tokenizer import Tokenizer, byte_tokenizer
from minirlhf.trainers import ppo
from minirlhf.trainers.optim import AdamW, OptimConfig
from minirlhf.trainers.ppo import PPOConfig, actor_critic, conclude, ppo_backward, train_ppo
from minirlhf.trainers.reinforce import ReinforceConfig, train_reinforce

OPTIM = OptimConfig(learning_rate=1e-3, eps=1e-5, weight_decay=0.0, warmup_steps=0, schedule="constant")


def share_of_e(prompts: list[str], responses: list[str]) -> list[float]:
    """A rule anyone can learn."""
    return [response.count("e") / max(1, len(response)) for response in responses]


def random_world(batch_size: int) -> tuple[GPT, Tokenizer, Callable[[int], PromptBatch]]:
    """A random model of pretrain's default size that ends an answer after some twenty tokens, and byte prompts."""
    tokenizer = byte_tokenizer()
    model = GPT(GPTConfig(tokenizer.vocab_size, context=96, tie_embeddings=False), torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.final_norm.bias[0] = 1.0
        model.unembedding.weight[tokenizer.end_id, 0] = 2.5
    texts = [chr(97 + n % 26) * (4 + n % 20) for n in range(batch_size)]
    longest = max(map(len, texts))
    rows = [[tokenizer.pad_id] * (longest - len(text)) + tokenizer.encode(text) for text in texts]
    ids = torch.tensor(rows)
    prompts = PromptBatch(ids, ids != tokenizer.pad_id, tuple(texts))
    return model, tokenizer, lambda step: prompts


def shipped_world(folder: Path, config: PPOConfig) -> tuple[GPT, Tokenizer, Callable[[int], PromptBatch]]:
    """A trained model and the shipped prompts."""
    model, tokenizer = load_model(folder)
    if not isinstance(model, GPT):
        raise SystemExit(f"{folder} holds no language model")
    prompts, _ = read_prompts([shipped_path("prompts_train.jsonl")])
    room = model.config.context - config.max_new_tokens

    def prompts_at(step: int) -> PromptBatch:
        rows = batch_indices(len(prompts), config.batch_size, 0, step)
        return prompt_batch([prompts[row] for row in rows], tokenizer, room)

    return model, tokenizer, prompts_at


def median_seconds(job: Callable[[], object], rounds: int) -> float:
    job()  # the first call warms caches
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def untrimmed(experience: Experience, rows: torch.Tensor) -> Experience:
    return Experience(**{name: array[rows] for name, array in vars(experience).items()})


def time_a_step(config: PPOConfig, rounds: int) -> dict[str, float]:
    """Median seconds of each part of one step, and of a whole pass of updates with and without the padding."""
    policy, tokenizer, prompts_at = random_world(config.batch_size)
    policy.eval()
    value_model = ValueModel.from_trunk(policy).eval()
    reference, scorer, sampling = copy.deepcopy(policy), reward_fn_scorer(share_of_e), config.sampling

    def rollout():
        draws = torch.Generator().manual_seed(0)
        return collect(policy, value_model, reference, scorer, prompts_at(0), tokenizer, sampling, draws)

    def write():
        stop = (tokenizer.end_id,)
        return generate(policy, prompts_at(0), sampling, stop, tokenizer.pad_id, torch.Generator().manual_seed(0))

    facts = rollout()
    experience = conclude(facts, token_rewards(facts, config.kl_coef), value_model, config)
    networks = actor_critic(policy, value_model)

    def one_pass():
        for rows in torch.arange(config.batch_size).tensor_split(config.minibatches):
            networks.zero_grad(set_to_none=True)
            ppo_backward(policy, value_model, experience, rows, config)

    result = {
        "response_tokens_mean": facts.response_mask.sum().item() / len(facts.scores),
        "generate_seconds": median_seconds(write, rounds),
        "collect_seconds": median_seconds(rollout, rounds),
        "update_pass_seconds": median_seconds(one_pass, rounds),
    }
    with patch.object(ppo, "take", untrimmed):
        result["update_pass_untrimmed_seconds"] = median_seconds(one_pass, rounds)
    config = replace(config, micro_batch_size=4)  # one_pass reads this name
    result["update_pass_micro_batches_of_4_seconds"] = median_seconds(one_pass, rounds)
    return result


def compare_clips(options: argparse.Namespace) -> list[dict[str, float | str | None]]:
    """Last scores and KL of short runs with the clips off, loose and tight."""
    rows = []
    for score_clip, advantage_clip in ((None, None), (0.5, None), (0.1, None), (None, 2.0), (None, 0.5)):
        clips = {"score_clip": score_clip, "advantage_clip": advantage_clip}
        shared = {"steps": options.steps, "batch_size": 64, "max_new_tokens": options.max_new_tokens, "optim": OPTIM}
        for name, config in (
            ("ppo", PPOConfig(epochs=2, minibatches=2, **shared, **clips)),
            ("reinforce", ReinforceConfig(**shared, **clips)),
        ):
            if options.model:
                policy, tokenizer, prompts_at = shipped_world(options.model, config)
                scorer = reward_fn_scorer(load_reward_function(options.reward))
            else:
                policy, tokenizer, prompts_at = random_world(64)
                scorer = reward_fn_scorer(share_of_e)
            reference, value_model = copy.deepcopy(policy), ValueModel.from_trunk(policy)
            shared_arguments = (reference, scorer, prompts_at, tokenizer)
            if name == "ppo":
                optimizer = AdamW(actor_critic(policy, value_model).named_parameters(), OPTIM)
                reports = train_ppo(policy, value_model, *shared_arguments, optimizer, config, seed=0)
            else:
                optimizer = AdamW(policy.named_parameters(), OPTIM)
                reports = train_reinforce(policy, *shared_arguments, optimizer, config, seed=0)
            last = [report.metrics for report in reports][-5:]
            row = {"trainer": name, **clips}
            for key in ("score_mean", "kl_nats_per_response", "grad_norm"):
                row[key] = statistics.mean(metrics[key] for metrics in last)
            rows.append(row)
            print(
                "  ".join(
                    f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=30, help="rollouts of each run that compares clips; 0 leaves them out"
    )
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--model", type=Path, help="a fine-tuned model to compare the clips on")
    parser.add_argument("--reward", default="minirlhf.data.true_reward:true_reward")
    parser.add_argument("--out", type=Path, help="write everything to this JSON file")
    options = parser.parse_args()
    config = PPOConfig(batch_size=64, minibatches=4, max_new_tokens=options.max_new_tokens)
    parts = time_a_step(config, options.rounds)
    for name, value in parts.items():
        print(f"{name:<42}{value:8.3f}")
    clips = compare_clips(options) if options.steps else []
    if options.out:
        machine = {"machine": platform.platform(), "torch": torch.__version__, "threads": torch.get_num_threads()}
        result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), **machine, "step": parts, "clips": clips}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
