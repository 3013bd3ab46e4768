"""Better learning: seconds of training until a small model predicts a text as well as the published recipe does.

    python -m benchmarks.recipe --text input.txt.gz [--names recipe baseline] [--seeds 0 1 2] [--quick]

The work: 4 layers, 4 heads, width 128, context 64, batches of 12 windows, the characters of one text, its last tenth
held out; all of that is read for the validation loss. The baseline is nanoGPT's published recipe for a CPU: GPT-2's
shape without biases, AdamW, learning rate 1e-3 falling to 1e-4 by a cosine, 2000 steps. On tinyshakespeare it ends at
1.88 nats per character. Ours is what `minirlhf pretrain` does by default, at the same size, with fewer steps.

A schedule belongs to a number of steps, so every run is trained for as many as it needs (STEPS says how many that is,
to a tenth), and reaches the target at its end. Only training is timed, not validation.
"""

import gzip
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import OURS, STYLE, THEIRS
from benchmarks.suite import RESULTS, ROOT, Bar, Job, Measurement, Table, options, ratio, run, write
from minirlhf.data.shipped import shipped_path
from minirlhf.runs.run import RunOptions
from minirlhf.stages.pretrain import PretrainStage
from minirlhf.trainers.pretrain import PretrainConfig

TARGET = 1.88  # nats per character, of tinyshakespeare
BASELINE: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "final_fraction": 0.1,
    "schedule": "cosine",
    "warmup_steps": 100,
    "positions": "learned",
    "norm": "layer",
    "mlp": "gelu",
    "qk_norm": False,
    "zero_init": False,
    "tie_embeddings": True,
}
DEFAULTS = asdict(PretrainConfig().optim) | asdict(PretrainStage(RunOptions(Path("out"))).gpt)
RECIPE: dict[str, Any] = {key: DEFAULTS[key] for key in BASELINE}  # what `minirlhf pretrain` does unless told otherwise
SCHEDULE = ("learning_rate", "final_fraction", "schedule", "warmup_steps")
INGREDIENTS: dict[str, tuple[str, ...]] = {
    "Muon": ("optimizer",),
    "higher rate, linear to 0": SCHEDULE,
    "rotary positions": ("positions",),
    "RMS norm": ("norm",),
    "SwiGLU": ("mlp",),
    "steady queries and keys": ("qk_norm",),
    "zero start": ("zero_init",),
    "untied embedding": ("tie_embeddings",),
}
STEPS = {
    "recipe": 300,
    "recipe without Muon": 640,
    "recipe without higher rate, linear to 0": 360,
    "recipe without rotary positions": 440,
    "recipe without RMS norm": 310,
    "recipe without SwiGLU": 340,
    "recipe without steady queries and keys": 440,
    "recipe without zero start": 330,
    "recipe without untied embedding": 330,
    **{f"baseline with {ingredient}": 600 for ingredient in INGREDIENTS},
    "baseline": 2000,
}


def settings(name: str) -> dict[str, Any]:
    """The recipe called so: "baseline", "recipe", "recipe without X", "baseline with X"."""
    kind, _, ingredient = name.partition(" with")
    if not ingredient:
        return dict(BASELINE if kind == "baseline" else RECIPE)
    start, other = (RECIPE, BASELINE) if kind == "recipe" else (BASELINE, RECIPE)
    changed = INGREDIENTS[ingredient.removeprefix("out").strip()]
    found = start | {key: other[key] for key in changed}
    if name == "recipe without Muon":  # AdamW wants less to begin with, and more time to warm up
        found |= {"zero_init": False, "tie_embeddings": True, "warmup_steps": 50}
    if name == "baseline with Muon":  # its steps are measured in other units than the baseline's rate
        found |= {"learning_rate": RECIPE["learning_rate"]}
    return found


def names() -> list[str]:
    """Every run of the ablation."""
    without = [f"recipe without {ingredient}" for ingredient in INGREDIENTS]
    return ["recipe", *without, *(f"baseline with {ingredient}" for ingredient in INGREDIENTS), "baseline"]


def read_characters(path: Path) -> tuple[Any, int]:
    """The text's characters as ids int64 [N], and how many different ones there are."""
    import torch

    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    characters = sorted(set(text))
    number = {character: index for index, character in enumerate(characters)}
    return torch.tensor([number[character] for character in text]), len(characters)


# Worker


def learn(
    text: str, recipe: Mapping[str, Any], steps: int, seed: int, folder: str, pause: float = math.inf, looks: int = 8
) -> dict[str, Any]:
    """Trains for so many steps; the loss on the held-out text at the end, and on a part of it on the way.

    After `pause` seconds it keeps everything in the folder, and the next call goes on from there. Seconds are those
    of the clock; processor seconds, of all threads, hardly depend on what else the machine does.
    """
    from safetensors.torch import load_file, save_file

    from minirlhf.data.batches import split_stream, validation_windows, window_batch
    from minirlhf.evaluation.held_out import evaluate_held_out
    from minirlhf.models.gpt import GPT, GPTConfig
    from minirlhf.nn.lean_attention import lean_attend
    from minirlhf.seeding import torch_generator
    from minirlhf.trainers.muon import make_optimizer
    from minirlhf.trainers.optim import OptimConfig
    from minirlhf.trainers.pretrain import PretrainConfig, train_pretrain

    stream, vocabulary = read_characters(Path(text))
    train, held_out = split_stream(stream)
    optim_fields = OptimConfig.__dataclass_fields__
    optim = OptimConfig(**{key: value for key, value in recipe.items() if key in optim_fields})
    shape = {key: value for key, value in recipe.items() if key not in optim_fields}
    model = GPT(GPTConfig(vocabulary, bias=False, **shape), torch_generator(seed, "init"), lean_attend)
    config = PretrainConfig(steps=steps, batch_size=12, optim=optim)
    context = model.config.context

    def loss(part: Any) -> float:
        return evaluate_held_out(model, validation_windows(part, context)).loss_nats_per_token

    def batches(step: int) -> list[Any]:
        return [window_batch(train, context, config.batch_size, torch_generator(seed, "windows", step))]

    part = held_out[: 200 * context + 1]
    optimizer = make_optimizer(model.named_parameters(), optim)
    told, tensors = Path(folder) / "progress.json", Path(folder) / "progress.safetensors"
    progress: dict[str, Any] = {"step": 0, "seconds": 0.0, "processor_seconds": 0.0, "curve": [[0.0, loss(part)]]}
    if told.exists():
        progress = json.loads(told.read_text(encoding="utf-8"))
        saved = load_file(tensors)
        model.load_state_dict({name: saved[f"model.{name}"] for name in model.state_dict()})
        optimizer.load_state_tensors({k.removeprefix("o."): v for k, v in saved.items() if k.startswith("o.")})
    begun, started, processor = time.perf_counter(), time.perf_counter(), time.process_time()
    for report in train_pretrain(model, batches, optimizer, config, seed, progress["step"]):
        paused = time.perf_counter() - begun > pause
        if report.step % max(steps // looks, 1) == 0 or report.step == steps or paused:
            progress["step"] = report.step
            progress["seconds"] += time.perf_counter() - started
            progress["processor_seconds"] += time.process_time() - processor
            if not paused:
                progress["curve"].append([progress["seconds"], loss(part)])
                model.train()
            started, processor = time.perf_counter(), time.process_time()
        if paused and report.step < steps:
            told.parent.mkdir(parents=True, exist_ok=True)
            weights = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
            save_file(weights | {f"o.{name}": tensor for name, tensor in optimizer.state_tensors().items()}, tensors)
            told.write_text(json.dumps(progress), encoding="utf-8")
            return {"steps": report.step, "validation_loss": math.nan}
    told.unlink(missing_ok=True)
    return {
        "seconds": progress["seconds"],
        "processor_seconds": progress["processor_seconds"],
        "steps": steps,
        "validation_loss": loss(held_out),
        "milliseconds_a_step": 1000 * progress["seconds"] / steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "curve": progress["curve"],
    }


# Report


def key(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


def described(name: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """The run's name with how many steps it took and where they led."""
    return f"{name}: {runs[0]['steps']} steps to {statistics.median(run['validation_loss'] for run in runs):.3f}"


def tables_and_bars(runs: Mapping[str, Measurement], source: str, target: float) -> tuple[list[Table], list[Bar]]:
    """The race over all seeds that both have run, and the ablation of seed 0."""
    shown = {name: {k: v for k, v in run.items() if k != "curve"} for name, run in runs.items()}
    seeds = [seed for seed in range(9) if key("recipe", seed) in runs and key("baseline", seed) in runs]
    race = {name: [shown[key(name, seed)] for seed in seeds] for name in ("recipe", "baseline") if seeds}
    ablation = {name: [shown[key(name, 0)]] for name in names() if key(name, 0) in runs}
    tables = [
        Table(title, "seconds", {described(name, each): each for name, each in rows.items()})
        for title, rows in (
            (f"{source}: training until the validation loss is {target:.2f}", race),
            (f"{source}: what each ingredient brings", ablation),
        )
        if rows
    ]
    if not seeds:
        return tables, []
    worst = max(run["validation_loss"] for run in race["recipe"])
    return tables, [
        Bar("seconds of training, recipe / baseline", ratio(Table("", "seconds", race), *race), "<=", 0.5),
        Bar(
            "processor seconds of training, recipe / baseline",
            ratio(Table("", "seconds", race), *race, "processor_seconds"),
            "<=",
            0.5,
        ),
        Bar("validation loss of the recipe, worst seed", round(worst, 3), "<=", target),
        Bar("parameters of the recipe, millions", race["recipe"][0]["parameters"] / 1e6, "<=", 0.81),
    ]


def draw(runs: Mapping[str, Any], target: float, path: Path) -> None:
    """Loss on a part of the held-out text against seconds of training, a line a run."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11, 6.2), layout="constrained")
        axes = figure.add_subplot()
        for name, hue in (("baseline", THEIRS[0]), ("recipe", OURS)):
            curves = [run["curve"] for key, run in runs.items() if key.startswith(f"{name}, seed")]
            for number, curve in enumerate(curves):
                axes.plot(*zip(*curve[1:], strict=True), marker="o", color=hue, label=None if number else name)
        axes.axhline(target, color="#9aa1ac", linestyle="--", label=f"{target:.2f} nats")
        axes.set_ylim(top=3)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("validation loss, nats per character")
        axes.set_title("Learning a text by the character, a line a seed")
        axes.legend()
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--text", type=Path, help="the text, gz or not; the shipped stories when not given")
    parser.add_argument("--names", nargs="+", choices=names(), default=names(), help="what to run; the rest stays")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of recipe and baseline; others run 0")
    parser.add_argument("--seconds", type=float, default=math.inf, help="pause after so long; call again to go on")
    flags, started = parser.parse_args(), time.perf_counter()
    text = (flags.text or shipped_path("stories.txt")).resolve()
    folder = flags.out or (ROOT / "runs" / "bench" if flags.quick else RESULTS)
    file = folder / "recipe.json"
    runs = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() and not flags.quick else {}
    recipes = {name: settings(name) for name in names()}
    notes = ["![Validation loss against seconds of training](results/recipe_loss.svg)"]
    for seed in flags.seeds[:1] if flags.quick else flags.seeds:
        for name in flags.names:
            if seed and name not in ("recipe", "baseline"):
                continue
            steps = max(STEPS[name] // 50, 4) if flags.quick else STEPS[name]
            left = flags.seconds - (time.perf_counter() - started)
            if left <= 0:
                return
            given = {"text": str(text), "recipe": recipes[name], "steps": steps, "seed": seed, "pause": min(left, 1e9)}
            given |= {"folder": str(ROOT / "runs" / "bench" / "recipe" / key(name, seed).replace(" ", "-"))}
            measured = run(Job("recipe", "learn", given))
            assert measured is not None
            if math.isnan(measured["validation_loss"]):
                print(f"  {key(name, seed)}: paused after {measured['steps']} steps", flush=True)
                return
            print(f"  {key(name, seed)}: {measured['seconds']:.0f} s, {measured['validation_loss']:.4f}", flush=True)
            runs[key(name, seed)] = measured
            finished = [run["validation_loss"] for each, run in runs.items() if each.startswith("baseline, seed")]
            target = TARGET if flags.text else max(finished, default=TARGET)
            tables, bars = tables_and_bars(runs, text.name.split(".")[0], target)
            title = "A better recipe for small models"
            path = write("recipe", title, flags, tables, bars, notes=notes, recipes=recipes, runs=runs)
            draw(runs, target, path.with_name("recipe_loss.svg"))  # after each, so that a long evening may be cut short


if __name__ == "__main__":
    main()
