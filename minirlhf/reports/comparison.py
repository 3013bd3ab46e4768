"""What `compare` found, as text for the terminal and as one page: a table, a picture, answers side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minirlhf.evaluation.answers import Answers
from minirlhf.evaluation.metrics_file import Row, keys_of, series
from minirlhf.reports.page import answer, folded, glossary_section, page, panel, panels, table
from minirlhf.reports.plots import INK, draw
from minirlhf.reports.sections import metric_panels
from minirlhf.reports.story import interval

Result = Mapping[str, Any]

COLOURS = {"sft": "#2563a8", "ppo": "#c2570c", "grpo": "#4d7c0f", "dpo": "#7e3a93", "reinforce": "#6b7280"}
MARKERS = {"sft": "o", "ppo": "s", "grpo": "^", "dpo": "D", "reinforce": "v"}
HEAD = ("", "true reward (95 %)", "KL, nats", "wins against SFT (95 %)", "ends", "seconds")
SHOWN_SAMPLES, FIRST_SAMPLES = 12, 4  # prompts on the page, and those that are not folded away
READ_THIS = (
    "The true reward is computed from the facts of the village, and no method was taught by it. Brackets and whiskers "
    "are 95 % intervals over the held-out prompts. A win is a higher true reward than SFT's answer to the same prompt; "
    "ties count half.",
    "KL says how far a model has moved from SFT, in nats per answer, on its own answers. A method that stands higher "
    "and further to the left bought more for less.",
)


def cells(name: str, model: Mapping[str, Any]) -> tuple[str, ...]:
    """One row of the table: plain text."""
    reward, wins = model["true_reward"], model.get("win_rate_vs_sft")
    return (
        name.upper(),
        f"{reward['mean']:.2f} ({interval(reward)})",
        f"{model['kl_nats_per_response']:.1f}",
        f"{wins['mean']:.1%} ({interval(wins, True)})" if wins else "–",
        f"{model['eos_rate']:.1%}",
        f"{model['seconds']:.0f}" if "seconds" in model else "–",
    )


def budget_sentences(result: Result) -> list[str]:
    """What "the same budget" means, with the numbers of this comparison."""
    models = result["models"]
    writers = {name: model for name, model in models.items() if "answers" in model}
    readers = {name: model for name, model in models.items() if "pairs" in model}
    sentences = []
    if writers:
        names, answers = ", ".join(name.upper() for name in writers), next(iter(writers.values()))["answers"]
        sentences.append(
            f"Budget: {names} wrote {answers:.0f} answers each, to prompts of one file, scored by one reward model; "
            f"teaching that reward model took {result['reward_model_seconds']:.0f} s more."
        )
    for name, model in readers.items():
        sentences.append(
            f"{'' if writers else 'Budget: '}{name.upper()} wrote none; it read {model['pairs']:.0f} pairs, "
            f"{result['budget']['pair_epochs']:g} passes over those that taught the reward model."
        )
    seconds = "Seconds are those of training on this machine, from the same SFT model, evaluations on the way included."
    return [*sentences, seconds]


def verdicts(result: Result) -> list[str]:
    """One sentence per method: did it surely raise the true reward, prompt by prompt?"""
    lines = []
    for name, model in result["models"].items():
        gain = model.get("gain_over_sft")
        if gain:
            low, high = gain["interval_95"]
            sure = "surely better than SFT" if low > 0 else "surely worse than SFT" if high < 0 else "not surely better"
            lines.append(f"{name.upper()}: {gain['mean']:+.2f} over SFT ({low:+.2f} to {high:+.2f}), {sure}.")
    return lines


def comparison_text(result: Result, folder: Path | str = "DIR") -> str:
    """The table and what the budget was, for the terminal."""
    rows = [HEAD, *(cells(name, model) for name, model in result["models"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) if column in (0, 1, 3) else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]  # fmt: skip
    prompts = result["models"]["sft"]["true_reward"]["n"]
    asked = f"{prompts} held-out prompts, temperature {result['temperature']:g}, seed {result['seed']}."
    look = f"Look at it: {Path(folder) / 'report.html'}"
    return "\n".join([*lines, "", *verdicts(result), "", asked, *budget_sentences(result), look])


def reward_against_kl(models: Mapping[str, Mapping[str, Any]]) -> str:
    """A dot per model: how far it moved, and what that was worth, with the interval as a whisker."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, model in models.items():
            reward = model["true_reward"]
            mean, (low, high) = reward["mean"], reward["interval_95"]
            colour, marker = COLOURS.get(name, INK), MARKERS.get(name, "o")
            whisker = np.array([[mean - low], [high - mean]]).clip(min=0)
            at = [model["kl_nats_per_response"]]
            axes.errorbar(
                at, [mean], yerr=whisker, fmt=marker, color=colour, markersize=9, capsize=4, label=name.upper()
            )
        axes.set_xlabel("KL from SFT, nats per answer")
        axes.set_ylabel("true reward")
        axes.margins(x=0.12)
        figure.legend(loc="outside upper right", ncols=len(models), fontsize=11)

    return draw("true reward against KL", paint, width=6.4, height=3.9)


def reward_while_learning(runs: Mapping[str, Sequence[Row]], batch_sizes: Mapping[str, float]) -> str | None:
    """The true reward of the answers written, against how many were; None when no method wrote any."""
    lines = {name: series(list(rows), "true_reward_mean") for name, rows in runs.items()}
    lines = {name: line for name, line in lines.items() if len(line)}
    if not lines:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        for name, line in lines.items():
            answers = line.steps * batch_sizes.get(name, 1.0)
            axes.plot(answers, line.values, color=COLOURS.get(name, INK), label=name.upper(), linewidth=1.8)
        axes.set_xlabel("answers written")
        axes.set_ylabel("true reward")
        figure.legend(loc="outside upper right", ncols=len(lines), fontsize=11)

    return draw("true reward while learning", paint, width=6.4, height=3.9)


def write_comparison_report(folder: Path | str, result: Result, runs: Mapping[str, list[Row]]) -> Path:
    """Writes DIR/report.html, one self-contained page; runs holds the rows of each method's metrics.jsonl."""
    models = result["models"]
    rows = [[f'<span class="number">{escape(cell)}</span>' for cell in cells(*each)] for each in models.items()]
    figures = [panel("What a nat of KL bought", reward_against_kl(models))]
    writers = {name: rows_of for name, rows_of in runs.items() if "answers" in models[name]}
    per_step = {name: models[name]["answers"] / rows_of[-1]["step"] for name, rows_of in writers.items()}
    learning = reward_while_learning(runs, per_step)
    if learning:
        figures.append(panel("While they practise", learning, "mean over each rollout, at the sampling temperature"))
    taught = ", ".join(name.upper() for name in models if name != "sft")
    body = [
        "<h1>One model, one set of preferences, several ways to learn</h1>",
        f'<p class="lead">{escape(taught)}, from the same fine-tuned model, measured by the true reward.</p>',
        table(HEAD, rows, "numbers"),
        *(f"<p>{escape(line)}</p>" for line in verdicts(result)),
        panels(figures, "pair"),
        "<h2>What the same budget means</h2>",
        *(f"<p>{escape(line)}</p>" for line in budget_sentences(result)),
        "<h2>How to read this</h2>",
        *(f"<p>{escape(line)}</p>" for line in READ_THIS),
        *answers_section(result.get("samples", [])),
        "<h2>The curves of every method</h2>",
        *(folded(name.upper(), panels(metric_panels(name, rows_of))) for name, rows_of in runs.items()),
        "<h2>Glossary</h2>",
        glossary_section(key for rows_of in runs.values() for key in keys_of(rows_of)),
    ]
    path = Path(folder) / "report.html"
    path.write_text(page("minirlhf: several ways to learn from preferences", body), encoding="utf-8")
    return path


def side_by_side(answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
    """The first held-out prompts with every model's answer and its true reward: the first of the file, not the best."""
    return [
        {"prompt": prompt}
        | {name: {"text": each.responses[i], "true_reward": each.rewards[i]} for name, each in answers.items()}
        for i, prompt in enumerate(answers["sft"].prompts[:SHOWN_SAMPLES])
    ]


def answers_section(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Held-out prompts with every model's answer and its true reward; the later ones are folded away."""
    if not samples:
        return []
    names = [name for name in samples[0] if name != "prompt"]

    def row(sample: Mapping[str, Any]) -> list[str]:
        marks = (f'<span class="worth">{sample[name]["true_reward"]:+.2f}</span>' for name in names)
        texts = (mark + answer(sample[name]["text"]) for mark, name in zip(marks, names, strict=True))
        return [f'<div class="answer"><b>{escape(sample["prompt"])}</b></div>', *texts]

    head = ("Prompt", *(name.upper() for name in names))
    first, rest = samples[:FIRST_SAMPLES], samples[FIRST_SAMPLES:]
    parts = ["<h2>The same prompts, every model</h2>", table(head, [row(sample) for sample in first], "answers")]
    return parts + ([folded(f"{len(rest)} more", table(head, [row(s) for s in rest], "answers"))] if rest else [])
