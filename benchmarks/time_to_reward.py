"""Seconds until the true reward reaches the level that TRL's PPO ends at, on the shipped village, from the same start.

    python -m benchmarks.time_to_reward [--quick] [--road DIR]

Start, reward model and settings are the quickstart's: its fine-tuned model, its reward model as the judge, its PPO
settings (epochs, minibatches, temperature, KL price) but for the optimizer and the number of rollouts. TRL 1.10
gets the same weights through `minirlhf export`, the same judge, and the same settings under its names. Each has the
optimizer that did best for it of those it has and that were tried: OUR_OPTIMIZER, and in TRL_SETTINGS. Nobody trains
on the true reward: every rollout's answers are kept with the time at which they had been judged, and the true reward
of each is worked out after training; the curves are means over the seeds, and the level is the mean of the last
rollouts. The clock starts with the first rollout. --road names a finished quickstart; without it, its stages up to the
reward model are run first, which takes some minutes.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.suite import (
    PPO_PYTHON,
    ROOT,
    Bar,
    Job,
    Measurement,
    Table,
    interleave,
    median,
    options,
    ratio,
    versions,
    write,
)
from benchmarks.trl_peers import common

WINDOW = 4  # rollouts whose mean counts as the level reached
ROLLOUTS = 24  # more than the quickstart's, so that both curves have levelled off at the end
# Tried on seed 0: ours with Adam at 2, 4 and 8e-4 and Muon at 4, 6 and 10e-4; TRL's, which has no Muon, at 2 and 4e-4.
OUR_OPTIMIZER: dict[str, Any] = {"optimizer": "muon", "learning_rate": 6e-4}
TRL_SETTINGS: dict[str, Any] = {
    "learning_rate": 4e-4,
    "warmup_steps": 0,  # with a warm-up its first rollout trains at a rate of 0
}
HF_POLICY, HF_JUDGE = "hf_policy", "hf_judge"


def prepare_road(folder: Path, quick: bool) -> None:
    """The stages before PPO, and their models in Hugging Face's form beside them."""
    from safetensors.torch import save_file

    from minirlhf.models.checkpoint import load_model
    from minirlhf.models.heads import RewardModel
    from minirlhf.models.hugging_face import export_hugging_face
    from minirlhf.stages.pretrain import run_pretrain
    from minirlhf.stages.quickstart import Quickstart, plan
    from minirlhf.stages.reward import run_reward
    from minirlhf.stages.sft import run_sft
    from minirlhf.stages.tokenizer import run_tokenizer

    stages = plan(Quickstart(folder, scale="smoke" if quick else "full", quiet=True))
    if not (folder / "reward" / "evaluation.json").exists():
        print(f"making the models to start from in {folder}", flush=True)
        if not (folder / "tokenizer" / "tokenizer.json").exists():
            run_tokenizer(stages.tokenizer)
        run_pretrain(stages.pretrain)
        run_sft(stages.sft)
        run_reward(stages.reward)
    policy, tokenizer = load_model(folder / "sft")
    judge, _ = load_model(folder / "reward")
    assert isinstance(judge, RewardModel)
    for name, model in ((HF_POLICY, policy), (HF_JUDGE, judge.trunk)):
        export_hugging_face(model, tokenizer, folder / name)
    head = {"weight": judge.head.weight, "bias": judge.head.bias, "gain": judge.gain, "shift": judge.bias_shift}
    save_file({name: tensor.detach() for name, tensor in head.items()}, folder / f"{HF_JUDGE}.safetensors")


def settings_of(quick: bool) -> Any:
    """The quickstart's PPO settings, for ROLLOUTS rollouts, with the optimizer tuned."""
    from minirlhf.stages.quickstart import Quickstart, plan

    config = plan(Quickstart(Path("unused"), scale="smoke" if quick else "full")).ppo.training
    steps = config.steps if quick else ROLLOUTS
    return replace(config, steps=steps, optim=replace(config.optim, **OUR_OPTIMIZER))


def curve(kept: list[tuple[float, list[str], list[str]]], started: float) -> list[tuple[float, float]]:
    """(seconds since the start, mean true reward) of every rollout."""
    from minirlhf.data.true_reward import true_reward

    return [(moment - started, statistics.mean(true_reward(*texts))) for moment, *texts in kept]


def mean_curve(curves: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """The mean over the seeds of time and reward, rollout by rollout."""
    return [
        tuple(statistics.mean(numbers) for numbers in zip(*points, strict=True)) for points in zip(*curves, strict=True)
    ]


def smoothed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of the last WINDOW rollouts, at the time of the last of them."""
    ends = range(min(WINDOW, len(points)), len(points) + 1)
    return [(points[end - 1][0], statistics.mean(r for _, r in points[max(0, end - WINDOW) : end])) for end in ends]


def seconds_to(level: float, points: list[tuple[float, float]]) -> float:
    """When the smoothed curve first reaches the level; infinity if it never does."""
    return next((moment for moment, reward in smoothed(points) if reward >= level), float("inf"))


# Workers


def minirlhf_ppo(road: str, seed: int, quick: bool) -> Measurement:
    """The loop behind `minirlhf ppo` with the quickstart's settings."""
    from benchmarks.ours import as_the_command
    from minirlhf.models.heads import ValueModel
    from minirlhf.runs.run import RunOptions
    from minirlhf.stages.policy import PolicyOptions, prepare
    from minirlhf.trainers.muon import make_optimizer
    from minirlhf.trainers.ppo import actor_critic, train_ppo

    config = settings_of(quick)
    options = PolicyOptions(Path(road) / "sft", reward=str(Path(road) / "reward"))
    setup = prepare(RunOptions(Path("unused"), seed, "cpu"), options, config.sampling, config.batch_size)
    assert setup.reward_model is not None
    value_model = ValueModel.from_trunk(setup.reward_model.trunk)
    as_the_command(setup.policy, setup.reference, setup.reward_model, value_model)
    optimizer = make_optimizer(actor_critic(setup.policy, value_model).named_parameters(), config.optim)
    kept: list[tuple[float, list[str], list[str]]] = []

    def judge(generation: Any, prompts: tuple[str, ...], responses: tuple[str, ...]) -> Any:
        scores = setup.scorer(generation, prompts, responses)
        kept.append((time.perf_counter(), list(prompts), list(responses)))
        return scores

    networks = (setup.policy, value_model, setup.reference)
    reports = train_ppo(*networks, judge, setup.prompts_at, setup.tokenizer, optimizer, config, seed)
    started = time.perf_counter()
    rollouts = sum(1 for _ in reports)
    seconds = time.perf_counter() - started
    return {"seconds_in_all": seconds, "rollouts": rollouts, "curve": curve(kept, started)}  # type: ignore[dict-item]


def trl_ppo(road: str, seed: int, quick: bool, changes: dict[str, Any] | None = None) -> Measurement:
    """TRL's PPO with the same settings, but for `changes`."""
    import tempfile

    import torch
    from datasets import Dataset
    from safetensors.torch import load_file
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from minirlhf.data.formats import read_prompts
    from minirlhf.data.shipped import shipped_path
    from minirlhf.data.tokenize import drop_long_prompts, prompt_ids_of, prompt_text
    from minirlhf.models.checkpoint import load_model
    from minirlhf.tokenizers.tokenizer import ASSISTANT

    folder, ours = Path(road), settings_of(quick)
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / HF_POLICY) for _ in range(2))
    critic, judge = (
        AutoModelForSequenceClassification.from_pretrained(folder / HF_JUDGE, num_labels=1) for _ in range(2)
    )
    nn.init.zeros_(critic.score.weight)
    head = load_file(folder / f"{HF_JUDGE}.safetensors")

    class Score(nn.Module):
        """The reward model's head with its normalisation."""

        def forward(self, x: Any) -> Any:
            return head["gain"] * nn.functional.linear(x, head["weight"], head["bias"]) + head["shift"]

    _, tokenizer = load_model(folder / "sft")
    prompts, _ = read_prompts([shipped_path("prompts_train.jsonl")])
    prompts, _ = drop_long_prompts(prompts, tokenizer, policy.config.max_position_embeddings - ours.max_new_tokens)
    texts = {tuple(prompt_ids_of(prompt.turns, tokenizer)): prompt_text(prompt.turns) for prompt in prompts}
    seen: list[tuple[float, Any, Any]] = []

    def remember(module: Any, arguments: Any, keywords: dict[str, Any]) -> None:
        seen.append((time.perf_counter(), keywords["input_ids"], keywords["attention_mask"]))

    judge.score = Score()
    getattr(judge, judge.base_model_prefix).register_forward_pre_hook(remember, with_kwargs=True)

    with tempfile.TemporaryDirectory() as temporary:
        arguments = common(temporary, ours.batch_size) | {
            "lr_scheduler_type": "linear",
            "warmup_steps": ours.optim.warmup_steps,
            "adam_beta1": ours.optim.betas[0],
            "adam_beta2": ours.optim.betas[1],
            "adam_epsilon": ours.optim.eps,
            "seed": seed,
            "num_ppo_epochs": ours.epochs,
            "num_mini_batches": ours.minibatches,
            "total_episodes": ours.steps * ours.batch_size,
            "local_rollout_forward_batch_size": ours.batch_size,
            "num_sample_generations": 0,
            "response_length": ours.max_new_tokens,
            "temperature": ours.temperature,
            "stop_token": "eos",
            "missing_eos_penalty": ours.missing_end_penalty,
            "kl_coef": ours.kl_coef,
            "cliprange": ours.clip_range,
            "cliprange_value": ours.value_clip_range,
            "vf_coef": ours.value_coef,
            "gamma": ours.gamma,
            "lam": ours.gae_lambda,
        }
        config = PPOConfig(**arguments | TRL_SETTINGS | (changes or {}))
        data = Dataset.from_dict({"input_ids": [list(ids) for ids in texts]})
        reader = AutoTokenizer.from_pretrained(folder / HF_POLICY, padding_side="left")
        trainer = PPOTrainer(config, reader, policy, reference, judge, data, critic)
        torch.manual_seed(seed)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started

    kept = []
    for moment, ids, mask in seen:
        rows = [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]
        cuts = [row.index(tokenizer.control[ASSISTANT]) + 1 for row in rows]
        asked = [texts[tuple(row[:cut])] for row, cut in zip(rows, cuts, strict=True)]
        answers = [tokenizer.decode(row[cut:], skip_control=True) for row, cut in zip(rows, cuts, strict=True)]
        kept.append((moment, asked, answers))
    return {"seconds_in_all": seconds, "rollouts": len(kept), "curve": curve(kept, started)}  # type: ignore[dict-item]


# The benchmark


def flags() -> argparse.Namespace:
    parser = options(__doc__, rounds=2)
    parser.add_argument("--road", type=Path, help="a finished quickstart; without it, runs/bench/road")
    return parser.parse_args()


def main() -> None:
    arguments = flags()
    quick, rounds = arguments.quick, 1 if arguments.quick else arguments.rounds
    road = (arguments.road or ROOT / "runs" / "bench" / ("road-smoke" if quick else "road")).resolve()
    prepare_road(road, quick)
    runs: dict[str, list[Measurement]] = {}
    for seed in range(rounds):
        shared = {"road": str(road), "seed": seed, "quick": quick}
        jobs = {
            "minirlhf": Job("time_to_reward", "minirlhf_ppo", shared),
            "TRL 1.10": Job("time_to_reward", "trl_ppo", shared, python=PPO_PYTHON),
        }
        for name, measured in interleave(jobs, 1, "seconds_in_all").items():
            runs.setdefault(name, []).extend(measured)
    peer = "TRL 1.10" if "TRL 1.10" in runs else "minirlhf"
    means = {name: mean_curve([each["curve"] for each in seeds]) for name, seeds in runs.items()}  # type: ignore[misc]
    level = smoothed(means[peer])[-1][1]
    reached = {
        name: [{"seconds_to_level": seconds_to(level, points), "peak_rss_mib": median(runs[name], "peak_rss_mib")}]
        for name, points in means.items()
    }
    title = f"PPO on the village, mean of {rounds} seeds"
    table = Table(f"{title}: until the true reward is {level:.2f}, where TRL ends", "seconds_to_level", reached)
    whole = Table("PPO on the village, whole run", "seconds_in_all", runs)
    bars = [Bar("seconds to the true reward TRL's PPO ends at, over TRL's", ratio(table, "minirlhf", peer), "<=", 0.4)]
    curves = {
        "title": f"true reward of the answers in training, mean of {rounds} seeds",
        "x": "seconds",
        "y": f"true reward, last {WINDOW} rollouts",
        "series": {name: smoothed(points) for name, points in means.items()},
    }
    more = {"ppo_versions": versions(PPO_PYTHON)} if PPO_PYTHON.exists() else {}
    write("time_to_reward", "Time to reward", arguments, [table, whole], bars, curves=[curves], **more)


if __name__ == "__main__":
    main()
