"""Several ways to learn from the same preferences, side by side: PPO, GRPO, DPO and REINFORCE on the shipped village.

All start from the same fine-tuned model. PPO, GRPO and REINFORCE practise against the same reward model, on the same
prompts, and each may write the same number of answers; DPO learns straight from the pairs that taught that reward
model. At the end all answer the same held-out prompts with the same random numbers, and the true reward, which nobody
was taught, judges them. DIR/compare.json and DIR/report.html hold the result, DIR/METHOD/config.json all settings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from minirlhf.data.formats import read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.data.tokenize import drop_long_prompts
from minirlhf.data.true_reward import reward_parts
from minirlhf.errors import UserError
from minirlhf.evaluation.answers import answer_prompts
from minirlhf.evaluation.metrics_file import read_metrics
from minirlhf.evaluation.statistics import paired_bootstrap, win_rate
from minirlhf.generation.sampling import SamplingConfig
from minirlhf.reports.comparison import comparison_text, side_by_side, write_comparison_report
from minirlhf.runs.files import move_aside, plain, read_json, write_json
from minirlhf.runs.run import RunOptions
from minirlhf.stages.common import load_gpt, pick
from minirlhf.stages.dpo import DPOStage, run_dpo
from minirlhf.stages.grpo import GRPOStage, run_grpo
from minirlhf.stages.policy import PolicyOptions, find_scorer
from minirlhf.stages.ppo import PPOStage, run_ppo
from minirlhf.stages.pretrain import run_pretrain
from minirlhf.stages.quickstart import Quickstart
from minirlhf.stages.quickstart import plan as road_plan
from minirlhf.stages.reinforce import ReinforceStage, run_reinforce
from minirlhf.stages.reward import run_reward
from minirlhf.stages.sft import run_sft
from minirlhf.stages.tokenizer import run_tokenizer
from minirlhf.trainers.checks import check_settings
from minirlhf.trainers.dpo import DPOConfig
from minirlhf.trainers.grpo import GRPOConfig
from minirlhf.trainers.optim import OptimConfig
from minirlhf.trainers.ppo import PPOConfig
from minirlhf.trainers.reinforce import ReinforceConfig

Method = Literal["ppo", "grpo", "dpo", "reinforce"]
ROLLOUT = 64  # answers per rollout, for every method that writes answers


@dataclass(frozen=True)
class Compare:
    """Teach one model in several ways, on the same data and budget, and measure them side by side."""

    out: Path = Path("runs/compare")  # the folder to make
    quickstart: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """a finished quickstart's folder, whose sft and reward are used"""
    model: Path | None = None  # the model all start from, made by sft
    reward: Path | None = None  # the reward model, made by reward; without these, the road up to it is walked first
    methods: tuple[Method, ...] = ("ppo", "grpo", "dpo", "reinforce")
    budget: int = 1536  # answers PPO, GRPO and REINFORCE may write, each; a multiple of 64
    pair_epochs: float = 0.4  # passes DPO makes over the pairs that taught the reward model
    prompts: int = 300  # held-out prompts all models answer at the end
    scale: Literal["full", "smoke"] = "full"  # of the road, where it has to be walked first
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    resume: bool = False  # go on where an earlier comparison in this folder stopped
    overwrite: bool = False  # if the folder exists, move it aside to NAME.before-1, -2, ... first
    quiet: bool = False  # no progress bars

    def __post_init__(self) -> None:
        endless = float("inf")
        check_settings(self, budget=(ROLLOUT, endless), pair_epochs=(1e-9, endless), prompts=(2, endless))
        if self.budget % ROLLOUT:
            raise UserError(
                "the budget is spent in whole rollouts",
                where="--budget",
                found=str(self.budget),
                expected=f"a multiple of {ROLLOUT}, for instance {ROLLOUT * round(self.budget / ROLLOUT)}",
            )
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise UserError("--methods names each method once", found=" ".join(self.methods) or "none")
        if self.quickstart is not None and (self.model or self.reward):
            raise UserError(
                "--from names both models", found="--model or --reward beside it", fix="give one or the other"
            )
        if self.quickstart is None and (self.model is None) != (self.reward is None):
            raise UserError(
                "the model and the reward model belong together",
                found="--reward without --model" if self.model is None else "--model without --reward",
                fix="give both, or --from with a quickstart's folder, or neither to make them first",
            )


def run_compare(compare: Compare) -> dict[str, Any]:
    """Runs what is not yet finished, and returns the result, which is also in DIR/compare.json."""
    check_place(compare)
    named = named_models(compare)
    make_place(compare)
    sft, reward = named or walk_the_road(compare)
    reward_model_seconds = cost(reward)["seconds"]
    folders = {}
    for name, (stage, run_stage) in methods(compare, sft, reward).items():
        print(f"\n== {name} ==", flush=True)
        folders[name] = run_stage(stage)
    result = measure(compare, sft, folders) | {"reward_model_seconds": reward_model_seconds}
    write_json(compare.out / "compare.json", result)
    write_comparison_report(compare.out, result, {name: read_metrics(folder) for name, folder in folders.items()})
    print("\n" + comparison_text(result, compare.out))
    return result


def named_models(compare: Compare) -> tuple[Path, Path] | None:
    """The folders of the fine-tuned model and of the reward model if they are named; tried before anything is made.

    Raises UserError if they do not hold what they should.
    """
    beside = compare.quickstart
    if beside is not None and not (beside / "sft").is_dir():
        made = "a folder made by `minirlhf quickstart`, with sft and reward in it"
        raise UserError("this is no quickstart's folder", where=str(beside), found="no folder sft in it", expected=made)
    sft, reward = compare.model or (beside and beside / "sft"), compare.reward or (beside and beside / "reward")
    if sft is None or reward is None:
        return None
    _, tokenizer = load_gpt(sft, pick("cpu"))
    find_scorer(str(reward), tokenizer, pick("cpu"))
    cost(reward)
    return sft, reward


def walk_the_road(compare: Compare) -> tuple[Path, Path]:
    """Makes both models as the quickstart does, in DIR/road, or goes on where that was stopped."""
    road = road_plan(Quickstart(compare.out / "road", compare.scale, compare.seed, compare.device, quiet=compare.quiet))
    if not (road.tokenizer.out / "tokenizer.json").exists():
        run_tokenizer(road.tokenizer)
    print("\n== pretrain ==", flush=True)
    run_pretrain(road.pretrain)
    print("\n== sft ==", flush=True)
    run_sft(road.sft)
    print("\n== reward ==", flush=True)
    run_reward(road.reward)
    return road.sft.run.out, road.reward.run.out


def sampling_of(sft: Path) -> SamplingConfig:
    """How all practise and are judged: the quickstart's, or shorter where the model's context is."""
    context = load_gpt(sft, pick("cpu"))[0].config.context
    return SamplingConfig(max_new_tokens=max(1, min(104, context - 32)), temperature=0.7)


def methods(compare: Compare, sft: Path, reward: Path) -> dict[str, tuple[Any, Callable[[Any], Path]]]:
    """The chosen methods' stages with the functions that run them. What is not named here stands at its default."""
    policy, sampling = PolicyOptions(sft, reward=str(reward)), sampling_of(sft)
    practice: dict[str, Any] = {
        "steps": compare.budget // ROLLOUT,
        "batch_size": ROLLOUT,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }

    def run(name: str, eval_every: int = 8) -> RunOptions:
        out, resume = compare.out / name, (compare.out / name).exists()
        return RunOptions(out, compare.seed, compare.device, resume, eval_every=eval_every, quiet=compare.quiet)

    def optim(learning_rate: float) -> OptimConfig:
        settings: dict[str, Any] = {"eps": 1e-5, "weight_decay": 0.0, "schedule": "linear", "final_fraction": 0.0}
        return OptimConfig(learning_rate, warmup_steps=2, **settings)

    twice: dict[str, Any] = {"epochs": 2, "minibatches": 2}
    ppo = PPOConfig(**practice, **twice, kl_coef=0.1, optim=optim(2e-4))
    grpo = GRPOConfig(**practice, **twice, group_size=8, kl_coef=0.1, optim=optim(2e-4))
    reinforce = ReinforceConfig(**practice, kl_coef=0.1, optim=optim(1e-3))
    dpo = DPOConfig(epochs=compare.pair_epochs, batch_size=16, beta=0.5, optim=optim(5e-4))
    every: dict[str, tuple[Any, Callable[[Any], Path]]] = {
        "ppo": (PPOStage(run("ppo"), policy, value_from="reward", training=ppo), run_ppo),
        "grpo": (GRPOStage(run("grpo"), policy, training=grpo), run_grpo),
        "dpo": (DPOStage(run("dpo", 50), sft, eval_pairs=200, training=dpo), run_dpo),
        "reinforce": (ReinforceStage(run("reinforce"), policy, training=reinforce), run_reinforce),
    }
    return {name: every[name] for name in compare.methods}


def measure(compare: Compare, sft: Path, folders: dict[str, Path]) -> dict[str, Any]:
    """All models answer the same held-out prompts: what they are worth, how far they moved, what they cost."""
    device, sampling = pick(compare.device), sampling_of(sft)
    reference, tokenizer = load_gpt(sft, device)
    prompts, _ = read_prompts([shipped_path("prompts_held_out.jsonl")])
    prompts, _ = drop_long_prompts(prompts, tokenizer, reference.config.context - sampling.max_new_tokens)
    answers = {}
    for name, folder in {"sft": sft, **folders}.items():
        model, _ = load_gpt(folder, device)
        answers[name] = answer_prompts(
            model, reference, tokenizer, prompts[: compare.prompts], reward_parts, sampling, compare.seed
        )
    models: dict[str, dict[str, Any]] = {
        name: {"true_reward": each.reward_summary(), **each.text_summary()} for name, each in answers.items()
    }
    for name, folder in folders.items():
        rewards, before = answers[name].rewards, answers["sft"].rewards
        models[name]["win_rate_vs_sft"] = win_rate(rewards, before).as_dict()
        models[name]["gain_over_sft"] = paired_bootstrap(rewards, before, compare.seed).as_dict()
        models[name] |= cost(folder)
    return {
        "seed": compare.seed,
        "budget": {"answers": compare.budget, "pair_epochs": compare.pair_epochs},
        "temperature": sampling.temperature,
        "max_new_tokens": sampling.max_new_tokens,
        "models": models,
        "samples": side_by_side(answers),
    }


def cost(folder: Path) -> dict[str, float]:
    """Seconds of a run, and how many answers it wrote or pairs it read, from its metrics and its settings."""
    last, training = read_metrics(folder)[-1], read_json(folder / "config.json")["settings"]["stage"]["training"]
    what = "pairs" if "loss_nats_per_pair" in last else "answers"
    return {"seconds": last["seconds"], what: last["step"] * training["batch_size"]}


def check_place(compare: Compare) -> None:
    """Raises UserError if something is at DIR and no flag says what to do with it; changes nothing."""
    out, marker = compare.out, compare.out / "settings.json"
    if compare.resume and compare.overwrite:
        raise UserError("--resume and --overwrite contradict each other", fix="give one of them")
    if out.exists() and not out.is_dir():
        raise UserError("the folder to write to is a file", where=str(out), fix="choose another --out")
    if out.exists() and any(out.iterdir()):
        if not marker.is_file():
            raise UserError("the folder holds something else; it is left as it is", where=str(out), fix="another --out")
        if not compare.resume and not compare.overwrite:
            raise UserError(
                "the folder already holds a comparison",
                where=str(out),
                fix="--resume to go on with it, --overwrite to move it aside and start afresh, or another --out",
            )
        if compare.resume and read_json(marker) != described(compare):
            before, now = read_json(marker), described(compare)
            changes = [f"{key} was {before.get(key)}, is now {now[key]}" for key in now if now[key] != before.get(key)]
            raise UserError(
                "the comparison in this folder was started with other settings",
                where=str(marker),
                found="; ".join(changes) or "settings this version does not have",
                fix="repeat its settings, or choose another --out",
            )


def make_place(compare: Compare) -> None:
    """Makes DIR with a note of what was asked for; what is there is moved aside, or gone on with."""
    if compare.overwrite and compare.out.exists():
        move_aside(compare.out)
    compare.out.mkdir(parents=True, exist_ok=True)
    write_json(compare.out / "settings.json", described(compare))


def described(compare: Compare) -> dict[str, Any]:
    """What a comparison must share with the one it goes on with: all that some method's weights depend on."""
    free = ("out", "resume", "overwrite", "quiet", "methods", "prompts")
    return {key: value for key, value in plain(compare).items() if key not in free}
