"""The parts that every report is put together from: panels of curves, answers over time, a run's settings."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from minirlhf.evaluation.metrics_file import Row, keys_of, series
from minirlhf.reports import plots
from minirlhf.reports.glossary import GLOSSARY
from minirlhf.reports.page import answer, folded, panel, panels, table

# One picture for what belongs together; every other key gets a picture of its own.
TOGETHER = {
    "loss_nats_per_token": "val_loss_nats_per_token",
    "loss_nats_per_pair": "val_loss_nats_per_pair",
    "accuracy": "val_accuracy",
    "kl_nats_per_response": "kl_k3_nats_per_response",
}
NOT_DRAWN = {"step", "seconds"}
SHOWN_STEPS = 12  # of the samples over time; the rest is left out evenly


def metric_panels(name: str, rows: list[Row], keys: Sequence[str] | None = None) -> list[str]:
    """A panel per metric (all, or these), training and held-out values in one picture. name is unique on its page."""
    wanted = [key for key in keys_of(rows) if key not in NOT_DRAWN] if keys is None else list(keys)
    partners = {TOGETHER[key] for key in wanted if key in TOGETHER}
    figures = []
    for key in wanted:
        if key in partners and keys is None:
            continue
        lines = {k: series(rows, k) for k in (key, TOGETHER.get(key, "")) if k}
        lines = {_label(k): line for k, line in lines.items() if len(line)}
        if lines:
            note = GLOSSARY[key].meaning if key in GLOSSARY else ""
            figures.append(panel(key, plots.curves(f"{name} {key}", lines), note))
    return figures


def _label(key: str) -> str:
    """A short name for a line that shares its picture with another."""
    special = {"kl_nats_per_response": "k1", "kl_k3_nats_per_response": "k3"}
    return special.get(key, "held-out" if key.startswith("val_") else "training")


def samples_over_time(samples: Sequence[Mapping[str, Any]]) -> str:
    """A table per prompt: step and what the model answered then. Later prompts are folded away."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_prompt.setdefault(str(sample.get("prompt", "")), []).append(sample)
    parts = []
    for prompt, answers in by_prompt.items():
        every = -(-len(answers) // SHOWN_STEPS)  # ceiling: first and last always stay
        kept = answers[::-1][::every][::-1]
        kept = kept if kept[0] is answers[0] else [answers[0], *kept]
        cells = [
            (f'<span class="number">{row.get("step", "")}</span>', answer(str(row.get("response", "")))) for row in kept
        ]
        parts.append((prompt, table(("step", "answer"), cells, "samples")))
    shown = [f'<h3 class="answer">{escape(prompt)}</h3>{cells}' for prompt, cells in parts[:2]]
    return "\n".join([*shown, *(folded(prompt, cells) for prompt, cells in parts[2:])])


def judge(report: Mapping[str, Any]) -> list[str]:
    """A reward model on held-out pairs: accuracy, calibration, margins, length. report is PreferenceReport.as_dict(),
    with "best_possible_accuracy" where it is known; parts that are missing are left out."""
    low, high = report["interval_95"]
    text = (
        f"On held-out pairs the scores agree with {report['accuracy']:.1%} of the choices (95 % interval "
        f"{low:.1%} to {high:.1%}). "
    )
    if report.get("best_possible_accuracy") is not None:
        best = report["best_possible_accuracy"]
        text += f"The simulated annotators err at times, so not even the true reward would reach more than {best:.1%}."
    elif low <= 0.5:
        text += "The interval holds 50 %, a coin toss: nobody can tell from these pairs that it learnt anything."
    figures = []
    if report.get("calibration"):
        note = "When the model was this sure, how often was it right? On the dashed line it means what it says."
        figures.append(panel("Calibration", plots.calibration("calibration", report["calibration"]), note))
    if report.get("margin_edges"):
        note = "Score of the chosen minus score of the rejected answer. Left of zero it was wrong."
        svg = plots.histogram("margins", report["margin_edges"], report["margin_counts"], "margin")
        figures.append(panel("Margins", svg, note))
    return [f"<p>{escape(text)}</p>", panels(figures, "pair"), *_length(report.get("length"))]


def _length(length: Mapping[str, Any] | None) -> list[str]:
    if not length or not length.get("labels_prefer_longer"):
        return []
    chosen, expected = length["labels_prefer_longer"]["mean"], length["model_prefers_longer"]
    text = (
        f"Length: the longer answer was chosen in {chosen:.1%} of the pairs, the model expects it in {expected:.1%}. "
    )
    leans = "It leans on length more than the labels do: beware." if length["length_bias"] else ""
    text += leans or "It does not lean on length more than the labels do."
    return [f"<p>{escape(text)}</p>"]


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of samples.jsonl; nothing when there is none. Half a row at the end is left out."""
    path = folder / "samples.jsonl"
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or an empty one: a report is drawn without it too."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level of names and JSON values, for a table."""
    result: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False)
    return result
