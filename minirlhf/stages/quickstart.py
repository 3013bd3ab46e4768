"""The whole road in one function: text -> tokenizer -> GPT -> SFT -> reward model -> PPO, on the shipped village.

Nothing here is special: each stage is the function behind the command of the same name, with the settings `plan`
gives it, and DIR/<stage>/config.json holds them all. At the end the three models answer the held-out prompts, the
true reward (which no stage ever saw) judges them, and DIR/summary.json and DIR/report.html tell what came of it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from minirlhf.data.formats import read_prompts
from minirlhf.data.shipped import shipped_path
from minirlhf.data.true_reward import reward_parts
from minirlhf.errors import UserError
from minirlhf.evaluation.answers import Answers, answer_prompts
from minirlhf.evaluation.metrics_file import read_metrics
from minirlhf.evaluation.statistics import win_rate
from minirlhf.reports.report import write_quickstart_report
from minirlhf.reports.story import console_story
from minirlhf.reports.time_spent import seconds_within
from minirlhf.runs.clock import Clock, peak_rss_mib
from minirlhf.runs.files import move_aside, read_json, write_json
from minirlhf.runs.run import RunOptions
from minirlhf.stages.common import DataOptions, load_gpt, pick
from minirlhf.stages.judge_record import judge_record
from minirlhf.stages.policy import PolicyOptions
from minirlhf.stages.ppo import PPOStage, run_ppo
from minirlhf.stages.pretrain import PretrainStage, run_pretrain
from minirlhf.stages.reward import RewardStage, run_reward
from minirlhf.stages.sft import SftStage, run_sft
from minirlhf.stages.tokenizer import TokenizerStage, run_tokenizer
from minirlhf.trainers.optim import OptimConfig
from minirlhf.trainers.ppo import PPOConfig
from minirlhf.trainers.pretrain import PretrainConfig
from minirlhf.trainers.reward import RewardConfig
from minirlhf.trainers.sft import SftConfig

MODELS = ("base", "sft", "ppo")
SHOWN_SAMPLES = 24  # held-out prompts printed side by side in the report


@dataclass(frozen=True)
class Quickstart:
    """Walk the whole road on the shipped village: from random numbers to a model improved by preferences."""

    out: Path = Path("runs/quickstart")  # the folder to make
    scale: Literal["full", "smoke"] = "full"  # smoke: the same road, tiny, in under a minute, too short to learn much
    seed: int = 0  # another seed, another model; the same seed, the same model
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    resume: bool = False  # go on where an earlier quickstart in this folder stopped
    overwrite: bool = False  # if the folder exists, move it aside to NAME.before-1, -2, ... first
    quiet: bool = False  # no progress bars


@dataclass(frozen=True)
class Plan:
    """The settings of every stage."""

    tokenizer: TokenizerStage
    pretrain: PretrainStage
    sft: SftStage
    reward: RewardStage
    ppo: PPOStage
    held_out_prompts: int  # how many the three models answer at the end


def plan(quickstart: Quickstart) -> Plan:
    """The road's settings. What is not named here stands at its command's default."""
    out, full = quickstart.out, quickstart.scale == "full"
    run = RunOptions(out, quickstart.seed, quickstart.device, quiet=quickstart.quiet or not full)
    answers = 104  # tokens an answer may have; the longest prompts leave that much of the context

    def folder(name: str) -> RunOptions:
        return replace(run, out=out / name, resume=(out / name).exists())

    def optim(learning_rate: float) -> OptimConfig:
        return replace(PretrainConfig().optim, learning_rate=learning_rate)  # Muon, linearly to 0

    instructions = DataOptions((shipped_path("instructions.jsonl"), shipped_path("dialogues.jsonl")))
    # the tokenizer learns from stories and answers, so that the words of both become short
    both = DataOptions((shipped_path("stories.txt"), shipped_path("instructions.jsonl")), field=("text=completion",))
    # Qwen 3's shape and Muon, pretraining's defaults, learn to copy a name out of the prompt in half the steps.
    shape = replace(PretrainStage(run).gpt, context=136, layers=3, width=128 if full else 32)
    return Plan(
        TokenizerStage(out / "tokenizer", source=both),
        PretrainStage(
            replace(folder("pretrain"), eval_every=120),
            tokenizer=str(out / "tokenizer"),
            held_out_fraction=0.05,
            eval_windows=50,
            gpt=shape,
            training=PretrainConfig(steps=360 if full else 15, batch_size=8, optim=optim(5e-3)),
        ),
        SftStage(
            replace(folder("sft"), eval_every=100),
            out / "pretrain",
            source=instructions,
            training=SftConfig(epochs=1.1 if full else 0.05, batch_size=16, micro_batch_size=8, optim=optim(3e-3)),
        ),
        RewardStage(
            replace(folder("reward"), eval_every=300),
            out / "sft",
            training=RewardConfig(
                epochs=1.0 if full else 0.02,
                batch_size=32,
                micro_batch_size=8,
                optim=optim(1e-3),
            ),
        ),
        PPOStage(
            replace(folder("ppo"), eval_every=6),
            PolicyOptions(out / "sft", reward=str(out / "reward")),
            value_from="reward",
            training=PPOConfig(
                steps=18 if full else 2,
                batch_size=64 if full else 8,
                epochs=2,
                minibatches=2,
                max_new_tokens=answers,
                temperature=0.7,
                kl_coef=0.15,
                optim=OptimConfig(
                    learning_rate=2e-4,
                    eps=1e-5,
                    weight_decay=0.0,
                    warmup_steps=2,
                    schedule="linear",
                    final_fraction=0.0,
                ),
            ),
        ),
        held_out_prompts=300 if full else 40,
    )


def run_quickstart(quickstart: Quickstart) -> dict[str, Any]:
    """Runs the road and returns its summary, which is also in DIR/summary.json."""
    prepare_folder(quickstart)
    stages = plan(quickstart)
    clock = Clock(quickstart.out / "seconds.json")
    if not (quickstart.out / "tokenizer" / "tokenizer.json").exists():
        clock.time("tokenizer", lambda: run_tokenizer(stages.tokenizer))
    clock.time("pretrain", lambda: run_pretrain(stages.pretrain))
    clock.time("sft", lambda: run_sft(stages.sft))
    clock.time("reward", lambda: run_reward(stages.reward))
    clock.time("ppo", lambda: run_ppo(stages.ppo))
    summary = clock.time("evaluation", lambda: evaluate_road(quickstart, stages))
    seconds = clock.seconds()
    of_ppo = seconds_within(read_metrics(stages.ppo.run.out), seconds["ppo"])
    summary = {"seconds": seconds, "ppo_seconds": of_ppo, "peak_rss_mib": peak_rss_mib(), **summary}
    write_json(quickstart.out / "summary.json", summary)
    write_quickstart_report(quickstart.out, summary)
    print("\n" + console_story(summary, quickstart.out))
    return summary


def evaluate_road(quickstart: Quickstart, stages: Plan) -> dict[str, Any]:
    """Everything of the summary but the seconds: the three models' answers, and the judge's record."""
    return summarise_road(quickstart, stages, held_out_answers(quickstart, stages))


def held_out_answers(quickstart: Quickstart, stages: Plan) -> dict[str, Answers]:
    """Each model's answers to the held-out prompts, with their true reward by part."""
    out, device = quickstart.out, pick(quickstart.device)
    folders = {"base": out / "pretrain", "sft": out / "sft", "ppo": out / "ppo"}
    models = {name: load_gpt(folder, device) for name, folder in folders.items()}
    reference, tokenizer = models["sft"]
    prompts, _ = read_prompts([shipped_path("prompts_held_out.jsonl")])
    sampling = stages.ppo.training.sampling  # the policy is judged at the temperature it practised at
    return {
        name: answer_prompts(
            model, reference, tokenizer, prompts[: stages.held_out_prompts], reward_parts, sampling, quickstart.seed
        )
        for name, (model, _) in models.items()
    }


def summarise_road(quickstart: Quickstart, stages: Plan, answers: dict[str, Answers]) -> dict[str, Any]:
    """What DIR/summary.json holds, but for the seconds. answers: those of held_out_answers."""
    out = quickstart.out
    texts = {name: answers[name].text_summary() for name in MODELS}
    reference, _ = load_gpt(out / "sft", pick(quickstart.device))
    last = read_metrics(out / "pretrain")[-1]
    return {
        "scale": quickstart.scale,
        "seed": quickstart.seed,
        "parameters": sum(parameter.numel() for parameter in reference.parameters()),
        "pretrain": {"val_bits_per_byte": last["val_bits_per_byte"]},
        "reward_model": judge_record(out / "reward"),
        "true_reward": {name: answers[name].reward_summary() for name in MODELS},
        "win_rate_ppo_vs_sft": win_rate(answers["ppo"].rewards, answers["sft"].rewards).as_dict(),
        **{key: {name: texts[name][key] for name in MODELS} for key in texts["sft"]},
        "samples": side_by_side(answers),
    }


def side_by_side(answers: dict[str, Answers]) -> list[dict[str, Any]]:
    """The same prompts with every model's answer and its true reward: the first of the file, not the best."""
    rows = []
    for i, prompt in enumerate(answers["sft"].prompts[:SHOWN_SAMPLES]):
        row: dict[str, Any] = {"prompt": prompt}
        for name in MODELS:
            row[name] = {"text": answers[name].responses[i], "true_reward": answers[name].rewards[i]}
        rows.append(row)
    return rows


def prepare_folder(quickstart: Quickstart) -> None:
    """Makes DIR, or opens it to go on. Raises UserError if something is there and neither flag says what to do."""
    out = quickstart.out
    if quickstart.resume and quickstart.overwrite:
        raise UserError("--resume and --overwrite contradict each other", fix="give one of them")
    if out.exists() and not out.is_dir():
        raise UserError("the folder to write to is a file", where=str(out), fix="choose another --out")
    if out.exists() and any(out.iterdir()):
        ours = (out / "quickstart.json").is_file()
        if not ours:
            raise UserError("the folder holds something else; it is left as it is", where=str(out), fix="another --out")
        if quickstart.overwrite:
            move_aside(out)
        elif not quickstart.resume:
            raise UserError(
                "the folder already holds a quickstart",
                where=str(out),
                fix="--resume to go on with it, --overwrite to move it aside and start afresh, or another --out",
            )
    out.mkdir(parents=True, exist_ok=True)
    described = {"scale": quickstart.scale, "seed": quickstart.seed}
    if (out / "quickstart.json").is_file() and read_json(out / "quickstart.json") != described:
        raise UserError(
            "the quickstart in this folder was started with other settings",
            where=str(out / "quickstart.json"),
            found=str(read_json(out / "quickstart.json")),
            expected=str(described),
            fix="repeat its settings, or choose another --out",
        )
    write_json(out / "quickstart.json", described)
